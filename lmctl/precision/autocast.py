"""Half-precision products over float32 parameters, on GPUs and on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lmctl.precision.emulation import HalfProducts, native


def emulated(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of `dtype` on `device` go through fp32."""
    return device.type == "cpu" and not native(dtype)


@contextmanager
def half_products(dtype: torch.dtype, device: torch.device) -> Iterator[Any]:
    """torch's autocast; where the CPU has no half-precision unit, with its products done through fp32."""
    with torch.autocast(device.type, dtype=dtype):
        if emulated(dtype, device):
            with HalfProducts(dtype) as mode:
                yield mode
        else:
            yield None


def dtype_table(compute: str, device: torch.device, dtype: torch.dtype | None) -> dict[str, str]:
    """dtypes by role of a run whose parameters, gradients and optimiser states are float32."""
    if dtype is not None and emulated(dtype, device):
        compute = f"{compute} (rounded operands, fp32 product: this CPU has no native {compute})"
    return {
        "parameter": "fp32",
        "master": "fp32 (the parameters themselves)",
        "compute": compute,
        "accumulate": "fp32",
        "gradient": "fp32",
        "reduction": "fp32",
        "optimiser": "fp32",
        "bytes_per_parameter": "16 (4 weight, 4 gradient, 8 AdamW)",
    }
