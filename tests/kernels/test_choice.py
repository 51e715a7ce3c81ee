"""Which kernels a run computes with: its key, what it says and records, and what happens where numba cannot do it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command import SMALL, write_documents
from in_process import lmctl, succeed
from omegaconf import OmegaConf
from sessions import session
from small import plan, prepared, weights
from small_tasks import small_task
from torch import Tensor
from walked import alone

from lmctl.core.errors import LmctlError
from lmctl.kernels import backend, cross_entropy, kernel
from lmctl.kernels.compiled import jit
from lmctl.kernels.kernel import Kernel
from lmctl.train.trainer import Trainer


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    backend.use_compiled(True)
    backend.has_numba.cache_clear()
    kernel.KERNELS.pop("tried", None)


@pytest.mark.parametrize("task", ["mlm", "translate", "clm_stream"])
def test_numbers_are_the_same_and_kernels_may_change_on_the_way(task: str, monkeypatch):
    monkeypatch.setattr(cross_entropy, "LEAST", 0)
    own, text = small_task(task, dropout=0.2)
    compiled = Trainer(own, text, alone())
    list(compiled.steps())
    mixed = Trainer(own, text, alone())
    for report in mixed.steps():
        backend.use_compiled(report.step > 2)
    assert torch.equal(weights(mixed), weights(compiled))


@pytest.mark.parametrize("began", ["auto", "torch"])
def test_a_run_goes_on_with_the_functions_that_it_began_with(began: str, tmp_path: Path):
    """Whatever kernels there are by now; a whole run of the first kernels has the same weights."""
    text = write_documents(tmp_path / "docs.txt")
    words = ["train", *SMALL, f"data.path={text}", "mix=mlm", "schedule=constant", "resume=auto"]
    later = "torch" if began == "auto" else "auto"
    succeed(*words, "name=parts", "budget.steps=2", f"kernels={began}", cwd=tmp_path)
    recorded = OmegaConf.load(tmp_path / "runs/parts/config.yaml")
    ours = ("tiled", "fused") if began == "auto" else ("sdpa", "torch")
    assert (recorded.model.attention, recorded.cross_entropy) == ours
    succeed(*words, "name=parts", "budget.steps=4", f"kernels={later}", cwd=tmp_path)
    succeed(*words, "name=whole", "budget.steps=4", f"kernels={began}", cwd=tmp_path)
    parts, whole = (tmp_path / "runs" / name / "model/model.safetensors" for name in ("parts", "whole"))
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("chosen", ["auto", "torch", "absent"])
def test_the_run_says_and_records_what_it_computes_with(chosen: str, tmp_path: Path, monkeypatch):
    wanted = {"torch": "plain torch", "absent": "plain torch (numba is not installed)"}.get(chosen, backend.described())
    if chosen == "absent":
        monkeypatch.setitem(sys.modules, "numba", None)
        backend.has_numba.cache_clear()
    begun = session(tmp_path / "run", plan(kernels="torch" if chosen == "torch" else "auto"), prepared())
    assert begun.run()["kernels"] == wanted
    assert f"kernels: {wanted}" in begun.display.heard  # type: ignore[attr-defined]
    assert wanted.startswith("numba " if chosen == "auto" else "plain torch")


def test_numba_is_refused_where_it_is_not_installed(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    refused = lmctl("train", "kernels=numba", cwd=tmp_path)
    assert refused.stderr == "error: kernels=numba needs numba, which is not installed\n  pip install 'lmctl[fast]'\n"
    assert refused.returncode == 2


def doubled(x: Tensor) -> Tensor:
    return x * 2


def tripled(x: Tensor) -> Tensor:
    return x * 3


def missing() -> Any:
    raise ImportError("this numba needs an older numpy\nand more lines")


@pytest.mark.parametrize(
    ("compiled", "why"),
    [
        (lambda: tripled, "computes something else on this machine than plain torch"),
        (missing, "cannot be compiled here (ImportError: this numba needs an older numpy)"),
    ],
)
def test_a_kernel_that_fails_its_check_is_not_used_and_the_run_says_so(
    compiled: Callable[[], Any], why: str, tmp_path: Path
):
    tried = Kernel("tried", doubled, compiled, lambda function: [function(torch.arange(5))])
    assert tried.function() is doubled
    begun = session(tmp_path / "run", plan(), prepared())
    summary = begun.run()
    line = f"tried {why}; plain torch does the same, slower"
    assert f"warning: kernels: {line}" in begun.display.heard  # type: ignore[attr-defined]
    assert summary["kernels"] == f"{backend.described()}, but for tried"
    with pytest.raises(LmctlError) as refused:
        session(tmp_path / "other", plan(kernels="numba"), prepared()).run()
    assert (str(refused.value), refused.value.hint) == (f"kernels=numba: {line}", "kernels=auto")


def twice(x):
    for i in range(len(x)):
        x[i] *= 2


def compiled_twice() -> Any:
    function = jit.kernel(twice)

    def run(x: Tensor) -> Tensor:
        out = x.clone()
        function(out.numpy())
        return out

    return run


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A cache of its own for machine code."""
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "cache"))
    jit.machine_code.cache_clear()
    yield tmp_path / "cache" / "kernels"
    jit.machine_code.cache_clear()


def test_machine_code_is_kept_privately_and_damaged_code_is_made_anew(own_folder: Path):
    def tried() -> Kernel[Any]:
        return Kernel("tried", doubled, compiled_twice, lambda function: [function(torch.arange(5))])

    assert tried().function() is not doubled
    (folder,) = own_folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in folder.rglob("*.nb?") if path.is_file()]
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    assert tried().function() is not doubled
    assert all(path.stat().st_size > 1000 for path in files)


def test_where_others_may_write_nothing_is_kept(own_folder: Path):
    own_folder.mkdir(parents=True)
    own_folder.chmod(0o777)
    assert jit.machine_code() is None
    own_folder.chmod(0o1777)  # as /tmp: others cannot replace what is ours
    jit.machine_code.cache_clear()
    folder = jit.machine_code()
    assert folder is not None
    folder.chmod(0o750)
    assert not jit.is_private(folder)
    kept = compiled_twice()
    assert torch.equal(kept(torch.arange(5)), doubled(torch.arange(5)))


def test_without_a_place_to_write_kernels_are_compiled_in_memory(own_folder: Path, monkeypatch):
    monkeypatch.setenv("LMCTL_CACHE", "/proc/nowhere")
    assert jit.machine_code() is None
    assert torch.equal(compiled_twice()(torch.arange(5)), doubled(torch.arange(5)))
