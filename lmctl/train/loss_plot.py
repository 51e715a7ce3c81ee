"""Loss curves, plots/loss.png: losses and accuracies over steps and tokens, with the baseline."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from lmctl.core.extras import install, is_installed
from lmctl.core.paths import Paths

LIBRARY = "matplotlib"

LEAST_SECONDS = 10.0
"""Minimum interval between two plots during a run; drawing also takes at most a share of 1 / DRAWING of the time."""
DRAWING = 50
WINDOW = 25
"""Smoothing: the moving average covers 1 / WINDOW of the log points on either side."""
EARLY = 0.1
"""Initial part of a run that does not determine the axis limits, because losses fall steeply there."""


def where(paths: Paths) -> str:
    """Path of the plot, or how to get one, as the end of a sentence."""
    if not is_installed(LIBRARY):
        return f"no curve was drawn: {install(LIBRARY)}"
    return f"curve: {paths.plot}" if paths.plot.is_file() else "no curve was drawn"


class Plotter:
    """Draws the plot during a run. An error while drawing never ends a run; it is said once."""

    def __init__(self, paths: Paths, say: Callable[[str], None]) -> None:
        self.paths, self._say = paths, say
        self._failed = not is_installed(LIBRARY)
        self._next = time.monotonic() + LEAST_SECONDS

    def draw_if_due(self, baseline: dict[str, float]) -> None:
        """Draw, unless the last plot is recent."""
        if time.monotonic() >= self._next:
            self.draw(baseline)

    def draw(self, baseline: dict[str, float]) -> None:
        """Draw the contents of metrics.jsonl."""
        began = time.monotonic()
        try:
            plot_losses(self.paths, baseline)
        except Exception as error:  # fonts, back ends, a full disk, a damaged line: none may end the training
            if not self._failed:
                why = (str(error).splitlines() or [""])[0]
                self._say(f"warning: the curve cannot be drawn ({type(error).__name__}: {why}); the run is unaffected")
            self._failed, self._next = True, float("inf")
            return
        now = time.monotonic()
        self._next = now + max(LEAST_SECONDS, DRAWING * (now - began))


def plot_losses(paths: Paths, baseline: dict[str, float]) -> None:
    """Draw one panel per loss term of metrics.jsonl, and below it one for its accuracy, if there is one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in paths.metrics.read_text(encoding="utf-8").splitlines()]
    names = sorted({key for line in lines for key in line if key.startswith("loss/")})
    scores = {name: f"{name.removeprefix('loss/')}_accuracy" for name in names}
    scored = {name for name, score in scores.items() if any(score in line for line in lines)}
    tall = 2 if scored else 1
    figure, panels = plt.subplots(tall, len(names), figsize=(5.2 * len(names), 0.6 + 3.4 * tall), squeeze=False)
    try:
        for column, name in enumerate(names):
            _panel(panels[0][column], lines, name, baseline.get(name.removeprefix("loss/")))
            if name in scored:
                _panel(panels[1][column], lines, scores[name], baseline.get(scores[name]))
            elif tall > 1:
                panels[1][column].set_axis_off()
        figure.suptitle(_plain(paths.root.resolve().name))
        figure.tight_layout()
        paths.plot.parent.mkdir(exist_ok=True)
        partial = paths.plot.with_name(f".{paths.plot.name}")
        try:
            figure.savefig(partial, dpi=110, metadata={"Software": None}, format="png")
            os.replace(partial, paths.plot)
        finally:
            partial.unlink(missing_ok=True)
    finally:
        plt.close(figure)


def _panel(panel: Any, lines: Sequence[dict[str, Any]], name: str, guess: float | None) -> None:
    """One panel: raw and smoothed training curve, validation curve, baseline."""
    train = _points(lines, "train", name)
    valid = [
        _points(list(part), "valid", name)  # one curve per set of validation rows
        for _, part in groupby((line for line in lines if line["split"] == "valid"), lambda line: line.get("rows"))
    ]
    shown: list[np.ndarray] = []
    if len(train):
        smooth = np.column_stack([train[:, 0], smoothed(train[:, 1])])
        panel.plot(*train.T, color="C0", alpha=0.25, linewidth=0.8)
        panel.plot(*smooth.T, color="C0", label="train (smoothed)")
        shown.append(smooth)
    for number, points in enumerate(part for part in valid if len(part)):
        panel.plot(*points.T, color="C1", marker="o", markersize=3, label=None if number else "valid")
        shown.append(points)
    if guess is not None:
        panel.axhline(guess, linestyle="--", color="grey", label="baseline, not looking at the text")
    if (limits := _limits(shown, guess)) is not None:
        panel.set_ylim(*limits)
    per_step = next((line["tokens"] / line["step"] for line in reversed(lines) if line["step"]), 0)
    if per_step:
        panel.secondary_xaxis("top", functions=(lambda x: x * per_step, lambda x: x / per_step)).set_xlabel("tokens")
    loss = name.startswith("loss/")
    panel.set(xlabel="step", ylabel="loss per target" if loss else "share right")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_title(_plain(name.removeprefix("loss/")))
    panel.legend()


def _points(lines: Sequence[dict[str, Any]], split: str, name: str) -> np.ndarray:
    """Finite points (step, value): float64 [n, 2]."""
    found = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
    points = np.array(found, dtype=np.float64).reshape(-1, 2)
    return points[np.isfinite(points[:, 1])]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average float64 [n]; the window shrinks at both ends so that it stays symmetric."""
    reach, last = len(values) // WINDOW, len(values) - 1
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    half = np.minimum(reach, np.minimum(places, last - places))
    return (sums[places + half + 1] - sums[places - half]) / (2 * half + 1)


def _limits(curves: Sequence[np.ndarray], guess: float | None) -> tuple[float, float] | None:
    """Limits of the y axis: everything except the early part of the run. None: automatic, because there is no more."""
    last = max((curve[-1, 0] for curve in curves), default=0.0)
    late = np.concatenate([curve[curve[:, 0] >= EARLY * last, 1] for curve in curves] or [np.empty(0)])
    if len(late) < 4:
        return None
    low, high = (f([*late, *([] if guess is None else [guess])]) for f in (min, max))
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _plain(text: str) -> str:
    """Escape dollar signs, which start a formula in matplotlib."""
    return text.replace("$", r"\$")
