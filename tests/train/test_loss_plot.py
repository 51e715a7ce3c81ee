"""plots/loss.png: what stands at its axes, that it is dark on light, and how curves are smoothed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from lmctl.core.paths import Paths
from lmctl.train.loss_plot import WINDOW, plot_losses, smoothed


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure of a run with two terms, one with an accuracy, drawn by somebody whose own style is dark. The run's
    name is Chinese, which no font may have."""
    (run := tmp_path / "基础").mkdir()
    lines: list[dict[str, Any]] = []
    for step in range(0, 40, 4):
        loss = {"step": step, "tokens": 1000 * step, "loss/corpus/mlm": 6 - step / 40, "loss/corpus/nsp": 0.7}
        lines.append(loss | {"split": "train", "lr": 1e-3 * step})
        lines.append(loss | {"split": "valid", "corpus/nsp_accuracy": 0.5, "rows": 16})
    Paths(run).metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures: list[Figure] = []
    honest = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), honest(self, *a, **k))[1])
    dark = {"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white", "xtick.color": "white"}
    with matplotlib.rc_context(dark), warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_losses(Paths(run), {"corpus/mlm": 5.9})
    picture = matplotlib.image.imread(Paths(run).plot)
    assert picture[0, 0, :3].min() == 1.0
    assert picture[..., :3].mean() > 0.9
    return figures[0]


def test_axes_are_in_words(drawn: Figure):
    loss, other, _, right, rate, _ = drawn.axes
    assert [loss.get_title(loc="left"), other.get_title(loc="left")] == ["corpus/mlm", "corpus/nsp"]
    assert loss.get_ylabel() == "loss per target"
    assert loss.child_axes[0].get_xlabel() == "tokens"
    assert right.get_ylabel() == "right answers"
    assert rate.get_xlabel() == "optimiser steps"
    assert rate.get_ylabel() == "learning\nrate"
    said = [text.get_text() for text in loss.get_legend().get_texts()]
    assert said == ["training, smoothed", "validation", "best answer without the text"]


def test_the_learning_rate_is_drawn(drawn: Figure):
    np.testing.assert_allclose(drawn.axes[-1].get_lines()[0].get_ydata(), 1e-3 * np.arange(0, 40, 4))


def test_smoothing_keeps_a_line_straight_until_its_end_and_does_not_end_in_noise():
    line = np.arange(4.0 * WINDOW)
    np.testing.assert_allclose(smoothed(line)[:-4], line[:-4])
    noisy = np.ones(4 * WINDOW)
    noisy[-1] = 6.0
    assert smoothed(noisy)[-1] == pytest.approx(2.0)  # one of five points
