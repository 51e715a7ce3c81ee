"""The clock of gpu_speed.py."""

from __future__ import annotations

import time
from typing import Any

import torch

PROFILED = 2
"""Steps after the measured ones, of which the GPU's own time is taken."""


class Clock:
    """Measures from the end of step `warmup` to the end of step `steps`, the GPU's work being done at both; then what
    the GPU does in PROFILED more."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        self.step, self.began, self.seconds = 0, 0.0, 0.0
        self.peak, self.kernels = 0, ""
        self.busy = 0.0
        """Milliseconds a step."""
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def tick(self) -> None:
        """One step more is on its way."""
        self.step += 1
        if self.step == self.warmup:
            torch.cuda.synchronize()
            self.began = time.perf_counter()
        elif self.step == self.steps:
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.began
            self.peak = torch.cuda.max_memory_allocated()
            self.profiler.start()
        elif self.step == self.steps + PROFILED:
            torch.cuda.synchronize()
            self.profiler.stop()
            self._look(self.profiler.key_averages())

    def _look(self, events: Any) -> None:
        longest = sorted(events, key=lambda event: -event.self_device_time_total)
        milliseconds = [event.self_device_time_total / PROFILED / 1e3 for event in longest]
        self.busy = sum(milliseconds)
        lines = [
            f"{ms:8.2f} ms {e.count // PROFILED:5}  {e.key[:100]}" for ms, e in zip(milliseconds, longest, strict=True)
        ]
        self.kernels = "\n".join(lines[:25])

    def figures(self, shape: tuple[int, int]) -> dict[str, Any]:
        tokens = (self.steps - self.warmup) * shape[0] * shape[1]
        speed, mib = tokens / self.seconds, self.peak / 2**20
        return {"tokens_per_second": speed, "peak_mib": mib, "busy_ms": self.busy, "kernels": self.kernels}
