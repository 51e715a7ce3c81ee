"""One optimiser step without numbers: the run's own runner works on tensors that have shapes, dtypes and a device, and
no contents (`stage.py`, `paper.py`); `Live` counts what would be alive.

The optimiser's states are made beforehand, as the first step of a run makes them. Of the rest of a run two things may
be larger than a step: the proof that a precision gives of itself before the first one, and the plain copy that stored
weights are exported as. Validation keeps nothing for a backward pass and is smaller.

Two things differ from a real step. Where all rows are full and of one document, transformers finds out by looking at
values that a decoder needs no mask; on paper it makes one, and the attention keeps one tensor more per layer. And a
component that calls a library of its own may want to see contents (see `rehearse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch import nn

from lmctl.core.errors import LmctlError
from lmctl.cost.fake_tensors import on_gpu, on_paper
from lmctl.cost.memory_tracker import Live, Peak
from lmctl.cost.rehearsal import Stage
from lmctl.cost.rows import Sample
from lmctl.cost.validate import Checked
from lmctl.precision.base import Precision
from lmctl.precision.fp32 import Fp32

STEP, BEFORE, AFTER = "a step", "the beginning", "the export"
"""Moments of a run."""


@dataclass(frozen=True)
class Rehearsal:
    """What was seen."""

    peak: Peak
    most: dict[str, int]
    """The most bytes that each kind of tensor had at any time of the step."""
    moment: str
    """When the peak is."""
    sent: int
    """Bytes of gradients that one worker sends in a step, any warm-up being over."""
    dense: int
    """What it would send in float32, uncompressed."""
    products: int
    """Products of operands in half precision that differ in shape."""
    remarks: tuple[str, ...] = ()
    """What could not be rehearsed, and what was taken instead."""


def rehearse(run: Checked, samples: Mapping[str, Sample], checkpointing: bool) -> Rehearsal:
    """A step of `run`. A precision that does not work without contents is rehearsed in fp32, and that is said.
    ConfigError as `train` has it where a component refuses the run."""
    precision = run.plan.precision
    try:
        return _rehearsal(run, precision, samples, checkpointing)
    except LmctlError:
        raise
    except Exception as error:
        if isinstance(precision, Fp32):
            raise
        rehearsal = _rehearsal(run, Fp32(), samples, checkpointing)
        why = f"{type(precision).__name__} is counted as fp32: {_first(error)}"
        return replace(rehearsal, remarks=(*rehearsal.remarks, why))


def _rehearsal(run: Checked, precision: Precision, samples: Mapping[str, Sample], checkpointing: bool) -> Rehearsal:
    live, peaks = Live(_vocabulary(run)), {}
    with on_paper(), nullcontext() if run.machine is None else on_gpu(), live:
        stage = Stage(run, precision, samples, checkpointing, live)
        if run.device.type != "cpu":  # networks are made on the host
            live.restart()
        stage.prove()
        peaks[BEFORE] = live.seen()
        stage.prepare()
        live.restart()
        stage.rehearse()
        peaks[STEP], most, products = live.seen(), live.most, len(live.products)
        sent, dense = stage.traffic()
        live.restart()
        stage.export()
        peaks[AFTER] = live.seen()
    moment = max(peaks, key=lambda name: peaks[name].total)
    return Rehearsal(peaks[moment], most, moment, sent, dense, products)


def _vocabulary(run: Checked) -> int:
    """Width of the vocabulary's logits: its size, or that up to which the model rounds it."""
    size = run.known.vocabulary.size
    tables = (module.num_embeddings for module in run.outline.modules() if isinstance(module, nn.Embedding))
    return min((rows for rows in tables if rows >= size), default=size)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
