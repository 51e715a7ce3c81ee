"""The fastest precision of a few, measured on this machine for this model before training begins.

The options are those whose loss was within the noise of seeds of float32's (docs/precision.md has the figures). Which
one it is, is decided once: the run's record and its checkpoints have that option in the place of `auto`, so a resumed
run goes on in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.errors import ConfigError
from lmctl.precision.base import Precision
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8 import Int8
from lmctl.precision.tf32 import Tf32

if TYPE_CHECKING:
    import torch

    from lmctl.plan import Plan

OPTIONS: dict[str, Precision] = {"fp32": Fp32(), "tf32": Tf32(), "bf16": Bf16(), "fp16": Fp16(), "int8": Int8()}
"""By name, from the most exact to the least."""


@dataclass(frozen=True)
class Auto(Precision):
    """`among`: names of options to choose from."""

    chooses: ClassVar[bool] = True

    among: list[str] = field(default_factory=lambda: list(OPTIONS))

    def __post_init__(self) -> None:
        if unknown := [name for name in self.among if name not in OPTIONS]:
            raise ValueError(f"among has {', '.join(unknown)}; it can have {', '.join(OPTIONS)}")
        if not self.among:
            raise ValueError(f"among is empty; it can have {', '.join(OPTIONS)}")

    def candidates(self, plan: Plan, device: torch.device) -> dict[str, Precision]:
        """The options that this device has units for and that suit the run, the most exact first. ConfigError if there
        are none."""
        found = {
            name: option
            for name, option in OPTIONS.items()
            if name in self.among
            and option.refuse(device) is None
            and option.refuse_run(plan) is None
            and option.no_gain(device) is None
        }
        if not found:
            raise ConfigError(
                f"precision.among: none of {', '.join(self.among)} is made for this device and model",
                "nearest: precision=fp32",
            )
        return found

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        for name in self.among:
            if OPTIONS[name].refuse_run(plan) is None:
                return
        yield ConfigError(f"precision.among: this run can have none of {', '.join(self.among)}", "precision=fp32")

    def remarks(self, plan: Plan, device: torch.device) -> list[str]:
        names = ", ".join(self.candidates(plan, device))
        return [f"precision=auto: counted as fp32; the run will choose the fastest of {names}"]
