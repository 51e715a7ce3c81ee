"""Which runs have metrics that can be compared: those measured on the same validation rows.

A loss per piece says nothing beside one of another tokenizer, and an accuracy nothing beside one on other rows. The
run after which a group is named is its first; the largest group is the one whose metrics are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmctl.compare.run import Run


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """Indices of runs whose metrics can be compared with each other, the largest group first. What a run does not say
    of itself (an older record, one that goes on) is taken to be as in the others."""
    found: list[tuple[dict[str, str], list[int]]] = []
    for place, run in enumerate(runs):
        for facts, members in found:
            if not _differing(facts, run):
                members.append(place)
                facts.update(run.measured_on)
                break
        else:
            found.append((dict(run.measured_on), [place]))
    return sorted((members for _, members in found), key=len, reverse=True)


def differences(runs: Sequence[Run]) -> dict[int, str]:
    """For each run whose metrics cannot be compared with those of the largest group: why."""
    first, *others = groups(runs) or [[]]
    facts: dict[str, str] = {}
    for place in first:
        facts.update(runs[place].measured_on)
    return {place: _why(facts, runs[place]) for members in others for place in members}


def _differing(facts: dict[str, str], run: Run) -> list[str]:
    return [what for what, value in run.measured_on.items() if what in facts and facts[what] != value]


def _why(facts: dict[str, str], run: Run) -> str:
    said = []
    for what in _differing(facts, run):
        is_hash = what == "tokenizer" or what.startswith("text of")
        said.append(f"another {what}" if is_hash else f"{what}: {run.measured_on[what]}, not {facts[what]}")
    return "; ".join(said) or "measured otherwise"
