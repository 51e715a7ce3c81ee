"""Files written tensor by tensor are read by safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lmctl.core.safetensors_header import header
from lmctl.core.safetensors_stream import SafetensorsStream, aligned


def test_safetensors_reads_what_was_streamed(tmp_path: Path):
    kinds = torch.bool, torch.int8, torch.bfloat16, torch.float32, torch.int64, torch.float64
    tensors = {f"t{n}": torch.randint(0, 2, (3, n)).to(kind) for n, kind in enumerate(kinds)}
    tensors |= {"scalar": torch.tensor(2.5), "turned": torch.randn(4, 3).t()}
    with SafetensorsStream(tmp_path / "x.safetensors", aligned(tensors), {"a": "b"}) as stream:
        for tensor in aligned(tensors).values():
            stream.write(tensor)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys() == header("x", tmp_path / "x.safetensors").keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"a": "b"}
