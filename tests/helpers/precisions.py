"""One of every precision."""

from __future__ import annotations

from typing import Any

from lmctl.precision.bf16 import Bf16
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp8 import Fp8
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8 import Int8
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_weights import Int8Weights

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
