"""The proofs of `lmctl doctor`, in the order in which they are tried."""

from __future__ import annotations

from functools import partial

from lmctl.doctor import networks, steps
from lmctl.doctor.networks import precision_holds
from lmctl.doctor.proof import Proof

PROOFS = (
    Proof("resume", "a run that was saved and gone on with ends with the same bits", steps.resumes),
    Proof("accumulation", "1 x 8 rows make the same step as 2 x 4", steps.accumulates),
    Proof("workers", "two workers, as threads, train what one does", steps.two_workers),
    Proof("compression", "compression that leaves nothing out is none", steps.sends_everything),
    Proof("packing", "documents packed into one row do not see each other", networks.documents_stay_apart),
    Proof("kernels", "compiled kernels compute what plain torch does, to the bit", networks.kernels_agree),
    Proof("export", "plain transformers loads the exported model, with the same answers", networks.export_reloads),
    Proof("bf16", "bf16 learns what fp32 does", partial(precision_holds, "bf16")),
    Proof("fp16", "fp16 learns what fp32 does", partial(precision_holds, "fp16"), quick=False),
    Proof("int8", "int8 learns what fp32 does", partial(precision_holds, "int8"), quick=False),
    Proof("tf32", "TF32 learns what fp32 does", partial(precision_holds, "tf32"), quick=False),
    Proof("processes", "two processes train what one does", steps.two_processes, quick=False),
)
