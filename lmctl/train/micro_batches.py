"""Rows per micro-batch, halved when memory runs out: the rows of a step, and so its losses, stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from lmctl.config.schema import BatchShape
from lmctl.core.errors import OutOfMemory

Result = TypeVar("Result")


class MicroBatches:
    """The largest micro-batch of this process."""

    def __init__(self, batch: BatchShape, rows: int, overlaps: bool) -> None:
        """`rows` per step and process. `overlaps`: gradients are exchanged during the backward pass, so that this
        process cannot repeat it alone."""
        self.batch, self.rows, self.overlaps = batch, rows, overlaps
        self.fitting: int | None = None
        """Rows that fitted when memory ran out; None: it has not."""
        self.notes: list[str] = []
        """Lines for people, about memory that ran out."""

    @property
    def limit(self) -> int | None:
        """Most rows per micro-batch; None: all of a task's rows at once."""
        return min((rows for rows in (self.batch.micro, self.fitting) if rows is not None), default=None)

    @property
    def most(self) -> int:
        """Most rows per micro-batch where a row has its full length."""
        return self.limit or self.rows

    def resume(self, fitting: Any) -> None:
        """Go on with what fitted in an earlier process. ValueError unless it is a number of rows, or None."""
        if fitting is not None and not (type(fitting) is int and fitting > 0):
            raise ValueError(f"rows that fitted: {fitting!r}")
        self.fitting = fitting

    def fitted(self, act: Callable[[], Result]) -> Result:
        """The result of `act`: passes over micro-batches of at most `most` rows, which can be repeated, in smaller ones
        if memory runs out."""
        while True:
            try:
                return act()
            except Exception as error:
                self.halve(self.most, error)

    def halve(self, rows: int, error: Exception) -> None:
        """Halve micro-batches of `rows` rows after `error`, which is raised again unless it says that memory ran out.
        OutOfMemory if there is no smaller one, or if the passes cannot be repeated."""
        if not is_out_of_memory(error):
            raise error
        if rows == 1 or self.overlaps:  # the launcher then starts again, in smaller ones
            smaller = f"batch.micro={rows // 2} (same result, less memory)" if rows > 1 else "a smaller batch.seq_len"
            raise OutOfMemory(
                f"out of memory with micro-batches of {rows} {'rows' if rows > 1 else 'row'} x {self.batch.seq_len}",
                f"{smaller}, or gradient_checkpointing=true",
            ) from error
        error.__traceback__ = None  # it holds the activations
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.fitting = rows // 2
        self.notes.append(
            f"out of memory with micro-batches of {rows} rows x {self.batch.seq_len}: from here on {self.fitting}, and "
            "as many rows per step as before"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in host memory (which torch reports as a RuntimeError)."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


@contextmanager
def weights_out_of_memory() -> Iterator[None]:
    """Context of what needs memory however small the batch is: out-of-memory errors become one that says so."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "out of memory for the model's weights and the optimiser's states, whatever the batch",
            "a smaller model, precision=bf16_pure, or optim=adamw8bit; lmctl plan tells what they need",
        ) from error
