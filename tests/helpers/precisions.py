"""One of every precision, and what some of them store."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from small import plan, prepared
from torch import Tensor

from lmctl.config.schema import Budget
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.parallel.processes import Processes
from lmctl.precision.bf16 import Bf16
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp8 import Fp8
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8 import Int8
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_weights import Int8Weights
from lmctl.train.trainer import Trainer

PRECISIONS: dict[str, Any] = {
    "fp32": Fp32(),
    "bf16": Bf16(),
    "bf16_pure": Bf16Pure(),
    "bf16_kahan": Bf16Pure(rounding="kahan"),
    "fp16": Fp16(),
    "fp8": Fp8(emulate=True),
    "fp8_row": Fp8(emulate=True, scale="row", float_products="fp32"),
    "int8": Int8(),
    "int8_pow2": Int8(scale="pow2", float_products="bf16"),
    "int8_weights": Int8Weights(),
    "int8_weights_bf16": Int8Weights(gradients="bf16", float_products="bf16"),
    "int8_full": Int8Full(),
    "int8_full_pow2": Int8Full(scale="pow2"),
}


def stored_bits(processes: Processes) -> dict[str, dict[str, Tensor]]:
    """The state of networks after four steps, by precision, of some that store weights in few bits."""
    found = {}
    for name in ("int8_full", "bf16_pure", "int8_weights_bf16"):
        own = plan(precision=PRECISIONS[name], objective=MaskedLMAndNextSentence(), budget=Budget(steps=4))
        trainer = Trainer(own, prepared(), processes)
        assert [report.taken for report in trainer.steps()] == [True] * 4
        found[name] = deepcopy(trainer.network.state_dict())
    return found
