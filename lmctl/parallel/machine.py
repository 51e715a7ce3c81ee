"""Hardware of a run: device, number of processes and threads, launcher."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from lmctl.parallel.launch import is_launched
from lmctl.parallel.processes import Processes


def machine(processes: Processes) -> dict[str, Any]:
    """Device, processes, workers, threads of each, CPU model, launcher. Floating-point sums depend on all of these
    through their order, so results repeat to the last digit only where these are the same."""
    return {
        "device": device_name(processes.device),
        "processes": 1 if processes.simulated else processes.world,
        "workers": processes.world,
        "threads": torch.get_num_threads(),
        "cpu": cpu_model(),
        "launched_by": launcher(),
    }


def describe_machine(machine: dict[str, Any]) -> str:
    """The same in one line."""
    device = f"CPU ({machine['cpu']})" if machine["device"] == "cpu" else machine["device"]
    count, threads = machine["processes"], machine["threads"]
    started = "" if machine["launched_by"] == "nobody" else f", started by {machine['launched_by']}"
    played = machine["workers"] if machine["workers"] > count else 0
    line = (
        f"machine: {device}   {count} process{'es' if count > 1 else ''}"
        f"{f' that plays {played} workers' if played else ''}, {threads} thread{'s' if threads > 1 else ''}"
        f"{' each' if count > 1 else ''}{started}"
    )
    if machine["launched_by"] == "accelerate launch" and count == 1:
        line += "; for more: runner=ddp runner.processes=2, or torchrun"
    return line


def launcher() -> str:
    """The launcher of this process, from environment variables."""
    if is_launched():
        return "lmctl"
    if any(name.startswith("ACCELERATE_") and name != "ACCELERATE_TORCH_DEVICE" for name in os.environ):
        return "accelerate launch"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if "SLURM_PROCID" in os.environ:
        return "srun"
    return "another launcher" if "WORLD_SIZE" in os.environ else "nobody"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cpu_model() -> str:
    """CPU model, from Linux's /proc; elsewhere from Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
