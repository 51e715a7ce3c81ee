"""float32 everywhere, TF32 off."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.precision.base import Precision


@dataclass(frozen=True)
class Fp32(Precision):
    """fp32 parameters, fp32 products."""
