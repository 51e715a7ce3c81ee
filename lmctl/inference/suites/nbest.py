"""`suite=nbest`: word error rates of a speech recogniser before and after rescoring with a language model."""

from __future__ import annotations

from lmctl.core.errors import ConfigError
from lmctl.inference.input_lines import placed
from lmctl.inference.nbest import FORMAT, collected, rescored, tune, with_lm
from lmctl.inference.suites.job import Figures, SuiteJob


def evaluate(job: SuiteJob) -> Figures:
    """Word error rates in percent on `file`, with weight and word bonus tuned on `dev`."""
    config = job.config
    if config.file is None or config.dev is None:
        raise ConfigError(
            "suite=nbest needs lists to tune on and lists to measure on", f"give dev=... and file=...; {FORMAT}"
        )
    sets = [collected(placed(file), file) for file in (config.dev, config.file)]
    dev, test = with_lm(job.loaded, sets, config.batch, job.length, config.case)
    tuned = tune(dev)
    on_dev = {f"dev_{name}": value for name, value in rescored(dev, tuned).items()}
    return {**rescored(test, tuned), **on_dev, "weight": tuned.weight, "bonus": tuned.bonus, "lists": len(sets[1])}
