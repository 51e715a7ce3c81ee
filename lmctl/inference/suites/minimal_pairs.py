"""`suite=minimal_pairs`: how often the good sentence of a pair has the higher probability (Warstadt et al. 2020)."""

from __future__ import annotations

from lmctl.core.errors import ConfigError
from lmctl.inference.input_lines import placed
from lmctl.inference.pairs import FORMAT, judge, pairs_in
from lmctl.inference.suites.job import Figures, SuiteJob, nothing


def evaluate(job: SuiteJob) -> Figures:
    """Accuracy over all pairs; equal probabilities count as wrong."""
    file = job.config.file
    if file is None:
        raise ConfigError("suite=minimal_pairs reads its pairs from a file", f"give file=...; {FORMAT}")
    right = count = 0
    for verdict in judge(job.loaded, pairs_in(placed(file)), job.config.batch, job.length):
        right, count = right + (verdict.good > verdict.bad), count + 1
    if not count:
        raise nothing("minimal_pairs")
    return {"accuracy": right / count, "pairs": count}
