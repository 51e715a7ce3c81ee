"""plots/loss.png: training and validation loss over steps, with the baseline that was to be beaten."""

from __future__ import annotations

import json
from pathlib import Path

from lmctl.core.places import Paths


def plot_losses(paths: Paths, baseline: dict[str, float]) -> None:
    """Draw one panel per loss term of metrics.jsonl."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in paths.metrics.read_text().splitlines()]
    names = sorted({key for line in lines for key in line if key.startswith("loss/")})
    figure, panels = plt.subplots(1, len(names), figsize=(5.2 * len(names), 3.6), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        for split, style in (("train", {"alpha": 0.6}), ("valid", {"marker": "o", "markersize": 3})):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
            if points:
                panel.plot(*zip(*points, strict=True), label=split, **style)
        term = name.removeprefix("loss/")
        if term in baseline:
            panel.axhline(baseline[term], linestyle="--", color="grey", label="without looking at the text")
        panel.set(title=term, xlabel="step", ylabel="loss (nats per target)")
        panel.legend()
    figure.tight_layout()
    Path(paths.plot).parent.mkdir(exist_ok=True)
    figure.savefig(paths.plot, dpi=110, metadata={"Software": None})
    plt.close(figure)
