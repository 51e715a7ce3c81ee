"""Runs of several options over several seeds, kept in a file of JSON lines, and the mean of what they found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Line = dict[str, Any]


def over_seeds(
    out: Path,
    options: Sequence[str],
    seeds: Iterable[int],
    same: Mapping[str, Any],
    run: Callable[[str, int], Mapping[str, Any]],
    said: Callable[[Line], str],
) -> dict[tuple[str, int], Line]:
    """What `run(option, seed)` returned for each of them; the runs of a seed follow one another.

    A run whose line is in `out` with what is the `same` for all is not run again; the others are appended there.
    """
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    found = {(line["option"], line["seed"]): line for line in lines if line.items() >= same.items()}
    for seed in seeds:
        for option in options:
            if (option, seed) not in found:
                line = {"option": option, "seed": seed, **same, **run(option, seed)}
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                found[option, seed] = line
                print(f"seed {seed}  {option or 'default'}: {said(line)}", flush=True)
    return found


def with_error(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard error."""
    error = f" +- {stdev(values) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.3f}{error}"
