"""Autocast: half-precision or TF32 products over float32 parameters, on GPUs and CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from lmctl.precision.emulation import NAMES, HalfProducts, elsewhere, native


def emulated(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether half-precision products are emulated in fp32, because the CPU has no native ones."""
    return device.type == "cpu" and not native(dtype)


def on_this_cpu(device: torch.device) -> bool:
    """Whether products run on the CPU of this machine: not on a GPU, and not on a planned machine."""
    return device.type == "cpu" and not elsewhere()


def no_gain(dtype: torch.dtype, device: torch.device) -> str | None:
    """Why products in `dtype` are no faster than fp32 on this device, with the nearest precision that is, or None."""
    if not on_this_cpu(device) or native(dtype):
        return None
    nearest = "bf16" if native(torch.bfloat16) else "fp32"
    name = NAMES[dtype]
    return f"{name} does not pay on this CPU, which has no units for {name} products; nearest: precision={nearest}"


@contextmanager
def half_products(dtype: torch.dtype, device: torch.device) -> Iterator[Any]:
    """torch's autocast, with emulated products on a CPU without half-precision units."""
    with torch.autocast(device.type, dtype=dtype):
        if emulated(dtype, device):
            with HalfProducts(dtype) as mode:
                yield mode
        else:
            yield None


def full_products() -> AbstractContextManager[None]:
    """Switch TF32 off for good, so that float32 products are float32; global, because no context surrounds the backward
    pass.

    Only the older of torch's two interfaces is used, here and everywhere: after the newer one was used, the older one
    can no longer be read.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    assert torch.get_float32_matmul_precision() == "highest"
    return nullcontext()


def tf32_products() -> AbstractContextManager[None]:
    """Switch TF32 on for good, in backward passes too."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    return nullcontext()


def products_in(name: str, device: torch.device) -> AbstractContextManager[Any]:
    """Context for products in "fp32" or "bf16"."""
    return half_products(torch.bfloat16, device) if name == "bf16" else full_products()


def dtype_table(
    compute: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    roles: dict[str, str] | None = None,
) -> dict[str, str]:
    """dtypes by role of a run; float32 parameters, gradients and optimiser states unless `roles` differs."""
    if dtype is not None and device is not None and emulated(dtype, device):
        compute = f"{compute} (rounded operands, fp32 product: this CPU has no native {compute})"
    return {
        "parameter": "fp32",
        "master": "fp32 (the parameters themselves)",
        "compute": compute,
        "accumulate": "fp32",
        "gradient": "fp32",
        "reduction": "fp32",
        "optimiser": "fp32",
    } | (roles or {})
