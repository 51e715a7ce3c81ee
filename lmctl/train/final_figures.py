"""Final validation metrics of a run, with confidence intervals and baselines, for terminal and model card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lmctl.train.confidence_intervals import SMALL


@dataclass(frozen=True)
class Figure:
    """One validation metric with its interval and baseline."""

    name: str
    share: bool
    """Whether it is a proportion, such as accuracy."""
    value: float
    interval: tuple[float, float] | None
    targets: int
    guess: float | None
    """The baseline: the best value without using the text; None if there is none."""
    guess_is: str
    verdict: Literal["better", "unclear", "not better"] | None
    """Comparison with the baseline; "unclear": the baseline is inside the interval."""

    def shown(self, value: float) -> str:
        """A value of this metric as text; proportions in percent."""
        return f"{value:.1%}" if self.share else f"{value:.3f}"

    def range(self) -> str:
        """The 95 % interval in brackets; empty if there is none."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return f" ({low:.0%} to {high:.0%})" if self.share else f" ({low:.3f} to {high:.3f})"


def figures_of(summary: dict[str, Any]) -> Iterator[Figure]:
    """All metrics of summary.json's `valid`, except the sum of the losses."""
    about = summary["valid_metrics"]
    for name, value in summary["valid"].items():
        if name == "loss":
            continue
        guess, pair = summary["baseline"].get(name), summary.get("valid_interval", {}).get(name)
        interval = None if pair is None else (pair[0], pair[1])
        verdict = _verdict(value, interval, guess, about[name]["higher_is_better"])
        words, targets = summary["baseline_is"][about[name]["term"]], summary.get("valid_targets", {}).get(name, 0)
        yield Figure(name, about[name]["share"], value, interval, targets, guess, words, verdict)


def _verdict(
    value: float, interval: tuple[float, float] | None, guess: float | None, up: bool
) -> Literal["better", "unclear", "not better"] | None:
    if guess is None:
        return None
    if not (value > guess if up else value < guess):
        return "not better"
    return "unclear" if interval is not None and interval[0] <= guess <= interval[1] else "better"


BEATS = {"better": "better than", "unclear": "not clearly better than", "not better": "NOT better than"}


def lines(summary: dict[str, Any]) -> list[str]:
    """The metrics for a terminal of 80 columns, one per line."""
    found = list(figures_of(summary))
    rows = summary.get("valid_rows", {})
    count = ", ".join(f"{n:,} of {task}" if len(rows) > 1 else f"{n:,}" for task, n in rows.items())
    out = [f"on held-out rows ({count}); in brackets the 95 % interval:"]
    width = max((len(one.name) for one in found), default=0) + 2
    for one in found:
        value = one.shown(one.value) + one.range()
        against = "" if one.verdict is None else f"{BEATS[one.verdict]} {one.guess_is}: {one.shown(one.guess or 0.0)}"
        out.append(f"  {one.name:<{width}}{value:<22}  {against}".rstrip())
    for task, n in rows.items():
        if n < SMALL:
            shares = any(one.name.startswith(f"{task}/") and one.share for one in found)
            one_row = f": one row more or less is {1 / n:.1%}" if shares else ""
            out.append(f"  only {n:,} held-out rows of {task}{one_row}, so these figures are rough")
    return out


def table(summary: dict[str, Any]) -> str:
    """The metrics as a Markdown table."""
    head = [
        "| on held-out rows | value | 95 % interval | predictions | baseline | against the baseline |",
        f"|{'---|' * 6}",
    ]
    rows = [
        f"| {one.name} | {one.value:.4f} | {_four(one.interval)} | {one.targets:,} | "
        + ("" if one.guess is None else f"{one.guess:.4f} ({one.guess_is})")
        + f" | {one.verdict or ''} |"
        for one in figures_of(summary)
    ]
    return "\n".join([*head, *rows])


def _four(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
