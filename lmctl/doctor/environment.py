"""The environment report: versions, hardware, precisions and missing libraries, fit for a bug report.

It has no secrets: of environment variables only those below are shown, with tokens masked, and the home directory is
`~` everywhere.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from lmctl import __version__
from lmctl.core.cache import default_root
from lmctl.core.extras import EXTRAS, TRACKERS, install, is_installed
from lmctl.core.secrets import masked
from lmctl.kernels import backend
from lmctl.parallel.machine import cpu_model
from lmctl.precision.auto import OPTIONS
from lmctl.train.run_record import PACKAGES, commit

USES = {
    "matplotlib": "the curve of a run, plots/loss.png",
    "numba": "compiled kernels for CPUs (the same numbers, sooner)",
    "peft": "model.lora_rank, precision=int8_lora and nf4_lora",
    "sacrebleu": "lmctl eval suite=translation",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "lmctl export format=onnx"),
    "gguf": "lmctl export format=gguf",
    "submitit": "runner=slurm",
    "optuna": "lmctl search",
    **{name: f"tracker={name}" for name in TRACKERS},
}
"""What each extra library is for."""
UNITS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "vnni (int8)",
    "avx_vnni": "vnni (int8)",
    "avx512_bf16": "bf16",
    "amx_bf16": "amx bf16",
    "amx_int8": "amx int8",
    "asimddp": "dot products (int8)",
    "bf16": "bf16",
}
"""Flags of a CPU that decide how fast a precision is, in words."""
VARIABLES = (
    *(
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "PYTORCH_CUDA_ALLOC_CONF",
        "TOKENIZERS_PARALLELISM",
    ),
    *("LMCTL_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "GLIBC_TUNABLES", "LD_PRELOAD", "LANG", "LC_ALL"),
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_JOB_ID", "WANDB_MODE"),
)
"""Environment variables that change what lmctl does, none of which holds a secret."""


def report(on_cpu: bool) -> dict[str, Any]:
    """What a bug report should say of this machine; plain data."""
    device = torch.device("cpu" if on_cpu else "cuda")
    cache = default_root()
    return {
        "lmctl": __version__,
        "git_commit": commit(),
        "python": platform.python_version(),
        "executable": _at_home(sys.executable),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "cpu": {
            "model": cpu_model(),
            "cores": os.cpu_count(),
            "usable": len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "units": units(),
        },
        "memory_bytes": {"total": psutil.virtual_memory().total, "free": psutil.virtual_memory().available},
        "gpus": list(_gpus()),
        "cuda": torch.version.cuda,
        "kernels": backend.described(),
        "precisions": {name: precision(name, device) for name in OPTIONS},
        "missing": {name: {"for": what, "install": install(name)} for name, what in missing().items()},
        "cache": {"path": _at_home(str(cache)), "free_bytes": _free(cache), "writable": _writable(cache)},
        "variables": {name: _at_home(masked(os.environ[name])) for name in VARIABLES if name in os.environ},
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The report as text."""
    cpu, memory, cache = found["cpu"], found["memory_bytes"], found["cache"]
    commit_words = f" ({found['git_commit'][:12]})" if found["git_commit"] else ""
    yield f"lmctl {found['lmctl']}{commit_words}, Python {found['python']}, {found['platform']}"
    yield "packages: " + ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    yield (
        f"CPU: {cpu['model'] or 'unknown'}, {cpu['usable']} of {cpu['cores']} cores, {cpu['threads']} threads; "
        f"units: {', '.join(cpu['units']) or 'none known'}"
    )
    yield f"memory: {_gib(memory['free'])} of {_gib(memory['total'])} GiB free"
    for gpu in found["gpus"]:
        yield f"GPU: {gpu['name']}, {_gib(gpu['memory_bytes'])} GiB, compute capability {gpu['capability']}"
    if not found["gpus"]:
        yield "GPU: none" + ("" if found["cuda"] else " (this torch is built for CPUs)")
    yield f"kernels: {found['kernels']}"
    yield f"cache: {cache['path']}, {_gib(cache['free_bytes'])} GiB free{'' if cache['writable'] else ', NOT WRITABLE'}"
    for name, value in found["variables"].items():
        yield f"variable: {name}={value}"
    for name, words in found["precisions"].items():
        yield f"precision={name}: {words['words']}"
    for name, one in found["missing"].items():
        yield f"missing: {name}, for {one['for']}   {one['install']}"


def precision(name: str, device: torch.device) -> dict[str, Any]:
    """Whether a precision runs on this device, and whether it saves time there."""
    option = OPTIONS[name]
    if (reason := option.refuse(device)) is not None:
        return {"runs": False, "pays": False, "words": f"no: {reason}"}
    if (reason := option.no_gain(device)) is not None:
        return {"runs": True, "pays": False, "words": f"runs, and saves no time: {reason}"}
    return {"runs": True, "pays": name != "fp32", "words": "the reference" if name == "fp32" else "yes"}


def missing() -> dict[str, str]:
    """Libraries that are not installed, with what needs them."""
    return {name: USES[name] for name in EXTRAS if not is_installed(name)}


def units(flags: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The units of the CPU that matter here; none are known but on Linux."""
    try:
        text = flags.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = (line.partition(":") for line in text.splitlines())
    known = next((set(value.split()) for key, _, value in rows if key.strip() in ("flags", "Features")), set())
    return list(dict.fromkeys(words for flag, words in UNITS.items() if flag in known))


def _gpus() -> Iterator[dict[str, Any]]:
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        capability = f"{found.major}.{found.minor}"
        yield {"name": found.name, "memory_bytes": found.total_memory, "capability": capability}


def _at_home(text: str) -> str:
    """`text` with `~` for the home directory, whose name is often a person's."""
    home = str(Path.home())
    return text.replace(home, "~") if home != "/" else text


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _free(folder: Path) -> int:
    return shutil.disk_usage(_nearest(folder)).free


def _writable(folder: Path) -> bool:
    return os.access(_nearest(folder), os.W_OK)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"
