"""Proofs about networks: documents, precisions, kernels, and the exported model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.extras import install
from lmctl.doctor.proof import Failed, Skipped
from lmctl.doctor.small_runs import SmallRuns
from lmctl.kernels import backend, kernel
from lmctl.mix.stream import Position
from lmctl.model.artifact import writer
from lmctl.precision.auto import OPTIONS
from lmctl.train.export import tasks_of, tokenizer_of
from lmctl.train.precision_proof import prove
from lmctl.train.trainer import Trainer
from lmctl.train.unfinished import models_of

LEAK = 1e-6
"""The largest change of a logit, in units of its kind, that is no leak."""
DRIFT = 0.02
"""How far the loss may be from float32's in the end, relatively."""


def documents_stay_apart(runs: SmallRuns) -> str:
    """The logits of a document while another one in its row is exchanged for other words."""
    trainer = runs.trainer(runs.decoder)
    trainer.network.eval()
    batch = first_batch(trainer)
    if "documents" not in batch.inputs:
        raise Failed("no row has two documents")
    ids, documents = batch.inputs["input_ids"], batch.inputs["documents"]
    special = torch.from_numpy(trainer.prepared.vocabulary.special).to(ids.device)
    others = torch.where((documents == 0) & ~special[ids], ids.flip(0).clamp(min=int(special.sum())), ids)
    before, after = logits(trainer, batch), logits(trainer, replace(batch, inputs=batch.inputs | {"input_ids": others}))
    document = documents.flatten()[batch.targets["lm"].positions]
    change = (before - after).abs().amax(dim=1)
    if float(change[document == 0].max()) < 100 * LEAK:
        raise Failed("logits do not depend on the text at all")
    if (leak := float(change[document > 0].max())) > LEAK:
        raise Failed(f"logits change by up to {leak:.1e} when another document does")
    return f"{int((document > 0).sum())} logits do not notice that other documents changed"


def precision_holds(name: str, runs: SmallRuns) -> str:
    """What a model learns in this precision beside what it learns in float32, and the proof that each run makes."""
    option, device = OPTIONS[name], runs.processes.device
    if (reason := option.refuse(device)) is not None:
        raise Skipped(reason)
    prove(runs.trainer(replace(runs.learning, precision=option)))
    exact, found = (_loss(runs, precision) for precision in ("fp32", name))
    words = f"loss {found:.4f}, fp32 {exact:.4f}"
    if not abs(found - exact) <= DRIFT * exact:
        raise Failed(words)
    slower = option.no_gain(device)
    return words if slower is None else f"{words} (here it saves no time)"


def _loss(runs: SmallRuns, name: str) -> float:
    trainer = runs.trainer(replace(runs.learning, precision=OPTIONS[name]))
    for _ in trainer.steps():
        pass
    return trainer.validation.scores(trainer.learner)["corpus/mlm"]


def kernels_agree(runs: SmallRuns) -> str:
    """The same run with compiled kernels and with plain torch."""
    if not runs.on_cpu:
        raise Skipped("they are for CPUs: runner=cpu")
    if not backend.has_numba():
        raise Skipped(f"numba is not installed, plain torch computes the same: {install('numba')}")
    compiled, plain = (runs.trained(replace(runs.encoder, kernels=kind)) for kind in ("numba", "torch"))
    backend.use_compiled(True)
    kernel.check_all()
    if faults := kernel.faults():
        raise Failed("; ".join(faults))
    if not torch.equal(compiled, plain):
        raise Failed("the weights differ")
    return f"{len(kernel.KERNELS)} kernels, and weights after some steps, are the same bits"


def export_reloads(runs: SmallRuns) -> str:
    """The exported model, loaded by plain transformers, beside the network that was trained."""
    from transformers import AutoTokenizer, BertForPreTraining

    trainer, folder = runs.trainer(runs.encoder), runs.folder / "exported"
    for _ in trainer.steps():
        pass
    models = models_of(trainer.network, trainer.plan.precision)
    weights = partial(writer.write_weights, models=models, network=trainer.network)
    writer.write(folder, models, weights, tokenizer_of(trainer), tasks_of(trainer), "")
    loaded = BertForPreTraining.from_pretrained(folder).to(trainer.processes.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [line for line in runs.text.read_text(encoding="utf-8").splitlines() if line][:4]
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(trainer.processes.device)
    with torch.no_grad():
        own = trainer.network.model.eval()(**batch).prediction_logits
        theirs = loaded(**batch).prediction_logits
    real = batch["attention_mask"].bool()
    apart = float((own - theirs)[real].abs().max())
    if not apart <= 1e-4:
        raise Failed(f"logits differ by up to {apart:.1e}")
    return f"logits of plain transformers differ by {apart:.1e} at most"


def first_batch(trainer: Trainer) -> Batch:
    """The rows of the first step, on its device."""
    window = trainer.stream.window(Position(), 0.0, None, 0, 1)
    return window.batches[0].to(trainer.processes.device)


@torch.no_grad()
def logits(trainer: Trainer, batch: Batch) -> Tensor:
    """Logits float32 [N, V] at the targets of a language model."""
    return trainer.learner.logits(batch)["lm"].float()
