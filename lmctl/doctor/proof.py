"""A proof: a few training steps on made-up text, in two ways that must come to the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lmctl.core.errors import LmctlError
from lmctl.doctor.small_runs import SmallRuns


class Failed(Exception):
    """Raised by a proof whose two results differ; the message says by how much."""


class Skipped(Exception):
    """Raised by a proof that cannot be tried on this machine; the message says why, and what would be needed."""


@dataclass(frozen=True)
class Proof:
    """One promise that can be tried."""

    name: str
    claim: str
    """A sentence without a full stop."""
    run: Callable[[SmallRuns], str]
    """Returns a few words about what was found; raises Failed or Skipped."""
    quick: bool = True
    """Whether it is among those of `quick=true`."""


@dataclass(frozen=True)
class Outcome:
    """How a proof went."""

    name: str
    claim: str
    status: Literal["passed", "failed", "skipped"]
    found: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def outcomes(proofs: Sequence[Proof], runs: SmallRuns) -> Iterator[Outcome]:
    """Try them, one after the other. An error of any kind is a failure: a proof must end."""
    for proof in proofs:
        began = time.monotonic()
        status: Literal["passed", "failed", "skipped"] = "failed"
        try:
            found, status = proof.run(runs), "passed"
        except Skipped as reason:
            found, status = str(reason), "skipped"
        except (Failed, LmctlError) as reason:
            found = str(reason)
        except Exception as error:
            found = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        yield Outcome(proof.name, proof.claim, status, found, round(time.monotonic() - began, 1))
