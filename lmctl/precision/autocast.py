"""Half-precision products over float32 parameters, on GPUs and on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def full_products() -> AbstractContextManager[None]:
    """float32 products are float32 from now on, in backward passes too, which no context surrounds: TF32 off.

    Only the older of torch's two interfaces is used, here and everywhere: once the newer one was, the older one can
    no longer be read.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    assert torch.get_float32_matmul_precision() == "highest"
    return nullcontext()


def tf32_products() -> AbstractContextManager[None]:
    """float32 products may use TF32 from now on, in backward passes too."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    return nullcontext()


def products_in(name: str, device: torch.device) -> AbstractContextManager[Any]:
    """Products in "fp32" or "bf16"."""
    return half_products(torch.bfloat16, device) if name == "bf16" else full_products()


def dtype_table(
    compute: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    roles: dict[str, str] | None = None,
) -> dict[str, str]:
    """dtypes by role of a run whose parameters, gradients and optimiser states are float32, but for `roles`."""
    if dtype is not None and device is not None and emulated(dtype, device):
        compute = f"{compute} (rounded operands, fp32 product: this CPU has no native {compute})"
    return {
        "parameter": "fp32",
        "master": "fp32 (the parameters themselves)",
        "compute": compute,
        "accumulate": "fp32",
        "gradient": "fp32",
        "reduction": "fp32",
        "optimiser": "as optim says",
    } | (roles or {})
