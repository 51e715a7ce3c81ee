"""What must hold after a disturbance: the bits of an undisturbed run, sound checkpoints, no leftovers, no traceback."""

from __future__ import annotations

import re
from pathlib import Path

from goldens.figures import Figures, difference, of_run, weights

from fault_injection.processes import Child

CODES = {0, 75, 130}
"""Exit codes of a run that ended by itself or was told to stop; a signal that nobody handles is below 0."""
FAULT_CODES = CODES | {2, 3, 6}
"""Exit codes of a run that met with a fault: its files, its data or its disk are named."""
UNFORESEEN = re.compile(r"^Traceback \(most recent|^  at lmctl/\S+:\d+ in ", re.MULTILINE)
"""What is printed of an error that has no words of its own."""
LEFTOVERS = (".partial-*", ".*.json.*", ".*.yaml.*", ".latest.*", ".best.*", ".loss.png", "*.building", "*.part")


def bits(run: Path) -> dict[str, Figures]:
    """Everything of a run directory, and of those inside it, that must not depend on disturbances: figures by file."""
    kept: dict[str, Figures] = {}
    for folder in sorted({file.parent for file in run.rglob("metrics.jsonl")}):
        where = folder.relative_to(run).as_posix()
        found = of_run(folder)
        newest = sorted(folder.glob("checkpoints/step-*"))[-1:]
        for checkpoint in newest:
            found[checkpoint.name] = weights(checkpoint / "model.safetensors")
        kept |= {f"{where}/{part}".removeprefix("./"): figures for part, figures in found.items()}
    return kept


def differences(reference: dict[str, Figures], run: Path) -> list[str]:
    """What a finished run has otherwise than the reference; empty if not a bit."""
    try:
        found = bits(run)
    except (OSError, ValueError, KeyError) as error:
        return [f"cannot be compared: {error}"]
    names = [*reference, *(name for name in found if name not in reference)]
    told = {name: difference(reference.get(name, {}), found.get(name, {})) for name in names}
    return [f"{name}: {words}" for name, words in told.items() if words is not None]


def unsound(run: Path) -> list[str]:
    """Checkpoints that have the name of a whole one and are not."""
    from lmctl.train.checkpoint import verify

    damage = {path: verify(path) for path in sorted(run.rglob("checkpoints/step-*"))}
    return [f"{path.relative_to(run)}: {words}" for path, words in damage.items() if words is not None]


def leftovers(*folders: Path) -> list[str]:
    """Files and directories that a command meant to replace or remove."""
    return [
        f"left over: {path.name}" for folder in folders for name in LEFTOVERS for path in sorted(folder.rglob(name))
    ]


def wrong_end(child: Child, codes: set[int] = CODES) -> list[str]:
    """What is wrong with how a command ended and what it printed."""
    found = [] if child.code is not None and (child.code < 0 or child.code in codes) else [f"exit code {child.code}"]
    printed = child.printed
    if UNFORESEEN.search(printed):
        found.append("an error without words")
    return [f"{words}: {printed[-400:]!r}" for words in found]
