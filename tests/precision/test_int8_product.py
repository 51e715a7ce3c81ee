"""int8 products are exact, whichever units make them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lmctl.precision import int8_product as products
from lmctl.precision.int8_product import in_blocks, int8_product, padded


def integers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


TILES = [(300, 192, 70), (257, 64, 512), (1, 128, 1)]
LARGE = [(256, 1024, 257), (520, 512, 300), (600, 76, 1500)]
"""Of these AMX units are asked, where there are any, but of the last: it leaves a part of a tile empty."""
SHAPES = [
    (1, 1, 1),
    (1, 33, 4),
    (3, 5, 7),
    (17, 64, 24),
    (33, 1023, 9),
    (8, 1025, 8),
    (5, 4096, 3),
    (0, 8, 8),
    (4, 0, 4),
]


WAYS = [(way, shape) for shape in SHAPES + TILES + LARGE for way in ("auto", "blocks")]
if products.NATIVE:
    WAYS += [("int_mm", shape) for shape in SHAPES] + [("amx", shape) for shape in TILES]
    WAYS += [("padded", shape) for shape in SHAPES if 0 not in shape]  # empty products do not get there


@pytest.mark.parametrize(("way", "shape"), WAYS, ids=str)
def test_the_integer_product_is_exact(way, shape):
    m, k, n = shape
    extreme = torch.full((m, k), 127, dtype=torch.int8), torch.full((k, n), -128, dtype=torch.int8)
    for a, b in ((integers(m, k), integers(k, n, seed=1)), (integers(k, m).t(), integers(n, k).t()), extreme):
        exact = (a.long().numpy() @ b.long().numpy()).astype(np.int64)
        ours = padded(a, b) if way == "padded" else int8_product(a, b, way)
        if way in ("auto", "amx") and ours.dtype == torch.float32:
            exact = exact.astype(np.float32)
        else:
            assert ours.dtype == torch.int32
        assert np.array_equal(ours.numpy(), exact)


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE_VNNI"])
def test_the_product_is_exact_where_onednn_is_kept_from_newer_units(limit):
    code = """
import torch
from lmctl.precision.int8_product import int8_product
a, b = torch.full((20, 64), 127, dtype=torch.int8), torch.full((64, 20), -127, dtype=torch.int8)
print(int8_product(a, b).unique().tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str([-64 * 127 * 127])


def test_amx_units_are_left_alone_where_onednn_may_not_use_them(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(products, "on_amx", lambda a, b: torch._int_mm(a, b).float())
    for limit, used in {"": True, "AVX512_CORE_AMX": True, "AVX512_CORE_VNNI": False, "avx2": False}.items():
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        products.amx.cache_clear()
        assert products.amx() is (used and torch.backends.mkldnn.is_available()), limit
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(products, "on_amx", lambda a, b: torch._int_mm(a, b).float() + 1)  # not what was asked for
    products.amx.cache_clear()
    assert not products.amx()
    monkeypatch.undo()
    products.amx.cache_clear()


def test_sums_beyond_int32_are_exact_too():
    a, b = torch.full((1, 140_000), -128, dtype=torch.int8), torch.full((140_000, 1), -128, dtype=torch.int8)
    assert int8_product(a, b).item() == 140_000 * 128 * 128 > 2**31
    assert in_blocks(a[:, :1024], b[:1024]).item() == 2**24
