"""Loss curves, plots/loss.png: losses, accuracies and the learning rate over steps and tokens, with the baseline."""

from __future__ import annotations

import json
import os
import time
import warnings
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
BLUE, RED, GREY = "#1f6fb4", "#c8501e", "#6b6b6b"
STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#888888",
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "font.size": 10.0,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.fontsize": 9.0,
}
"""Dark text on light, for paper and for a page with a light or a dark background."""
CJK = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei")
"""Fonts with Chinese letters, on Linux, macOS and Windows."""
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
    """Draw a column per loss term of metrics.jsonl: its loss, its accuracy if there is one, and the learning rate."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    lines = [json.loads(line) for line in paths.metrics.read_text(encoding="utf-8").splitlines()]
    names = sorted({key for line in lines for key in line if key.startswith("loss/")})
    scores = {name: f"{name.removeprefix('loss/')}_accuracy" for name in names}
    scored = {name for name, score in scores.items() if any(score in line for line in lines)}
    heights = [3.0, 2.2, 0.9] if scored else [3.0, 0.9]
    with style.context(["default", STYLE, {"font.family": _fonts()}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that no font here has
        figure = Figure(figsize=(5.6 * len(names), 1.6 + sum(heights)), layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.14, h_pad=0.08)
        panels = figure.subplots(len(heights), len(names), squeeze=False, sharex=True, height_ratios=heights)
        for column, name in zip(panels.T, names, strict=True):
            loss, *middle, rate = column
            _curves(loss, lines, name, baseline.get(name.removeprefix("loss/")))
            loss.set_title(_plain(name.removeprefix("loss/")), loc="left")
            loss.set_ylabel("loss per target")
            _tokens_above(loss, lines)
            for panel in middle:
                if name in scored:
                    _curves(panel, lines, scores[name], baseline.get(scores[name]))
                    panel.set_ylabel("right answers")
                    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
                else:
                    panel.set_axis_off()
            rate.plot(*_points(lines, "train", "lr").T, color=GREY)
            rate.set(xlabel="optimiser steps", ylabel="learning\nrate")
            rate.ticklabel_format(axis="y", scilimits=(-3, 3))
        figure.suptitle(_plain(paths.root.resolve().name), x=0.02, horizontalalignment="left", weight="bold")
        _save(figure, paths)


def _fonts() -> list[str]:
    """matplotlib's own font, and for Chinese letters in names those of CJK that are installed here."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in CJK if name in installed)]


def _save(figure: Any, paths: Paths) -> None:
    paths.plot.parent.mkdir(exist_ok=True)
    partial = paths.plot.with_name(f".{paths.plot.name}")
    try:
        figure.savefig(partial, dpi=120, metadata={"Software": None}, format="png")
        os.replace(partial, paths.plot)
    finally:
        partial.unlink(missing_ok=True)


def _curves(panel: Any, lines: Sequence[dict[str, Any]], name: str, guess: float | None) -> None:
    """Raw and smoothed training curve, validation curve, and baseline, in one panel."""
    train = _points(lines, "train", name)
    valid = [
        _points(list(part), "valid", name)  # one curve per set of validation rows
        for _, part in groupby((line for line in lines if line["split"] == "valid"), lambda line: line.get("rows"))
    ]
    shown: list[np.ndarray] = []
    if len(train):
        smooth = np.column_stack([train[:, 0], smoothed(train[:, 1])])
        panel.plot(*train.T, color=BLUE, alpha=0.25, linewidth=0.8)
        panel.plot(*smooth.T, color=BLUE, label="training, smoothed")
        shown.append(smooth)
    for number, points in enumerate(part for part in valid if len(part)):
        panel.plot(*points.T, color=RED, marker="o", markersize=3.5, label=None if number else "validation")
        shown.append(points)
    if guess is not None:
        panel.axhline(guess, linestyle="--", linewidth=1.2, color=GREY, label="best answer without the text")
    if (limits := _limits(shown, guess)) is not None:
        panel.set_ylim(*limits)
    if shown:
        panel.legend()


def _tokens_above(panel: Any, lines: Sequence[dict[str, Any]]) -> None:
    """A second axis, above the panel, in tokens: 1k, 2M."""
    from matplotlib.ticker import EngFormatter

    per_step = next((line["tokens"] / line["step"] for line in reversed(lines) if line["step"]), 0)
    if per_step:
        axis = panel.secondary_xaxis("top", functions=(lambda x: x * per_step, lambda x: x / per_step))
        axis.set_xlabel("tokens")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.get_major_locator().set_params(integer=True)


def _points(lines: Sequence[dict[str, Any]], split: str, name: str) -> np.ndarray:
    """Finite points (step, value): float64 [n, 2]."""
    found = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
    points = np.array(found, dtype=np.float64).reshape(-1, 2)
    return points[np.isfinite(points[:, 1])]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Moving average float64 [n], centred where there is room. At the start, where losses fall steeply, the window
    shrinks on both sides; at the end on the right alone, so that the last point is not the noise of a single one."""
    reach, last = len(values) // WINDOW, len(values) - 1
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    left = np.minimum(reach, places)
    right = np.minimum(left, last - places)
    return (sums[places + right + 1] - sums[places - left]) / (left + right + 1)


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
