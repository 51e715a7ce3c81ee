"""Mixing tasks: shares, order, length buckets, and the same rows however a batch is split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import Numbers, lengths, task

from lmctl.mix.mix import Mix, Sampling
from lmctl.mix.order import RowStream
from lmctl.mix.stream import MixStream, Position


def drawn(stream: MixStream, windows: int, progress: float = 0.0, world: int = 1, micro: int | None = None) -> dict:
    """Rows and epochs per task, in order, of the first windows; those of all processes put together."""
    at, seen = Position(), {name: [] for name in stream.streams}
    for _ in range(windows):
        parts = [stream.window(at, progress, micro, rank, world) for rank in range(world)]
        for part in parts:
            for batch in part.batches:
                seen[batch.task] += [tuple(row) for row in batch.inputs["input_ids"].tolist()]
        assert len({str(part.after.state_dict()) for part in parts}) == 1
        at = parts[0].after
    return seen


def two(
    unit: str = "examples", alpha: float = 0.0, weights: tuple[object, object] = (0.7, 0.3), rows: int = 8
) -> MixStream:
    mix = Mix({"a": task(weights[0]), "b": task(weights[1])}, Sampling(unit, alpha))
    return MixStream(mix, {"a": Numbers("a", 50, 10.0), "b": Numbers("b", 20, 40.0)}, 1, rows, None)


@pytest.mark.parametrize(("world", "micro"), [(1, None), (1, 3), (2, None), (4, 1)])
def test_a_window_has_the_same_rows_however_it_is_split(world: int, micro: int | None):
    assert drawn(two(), 20, world=world, micro=micro) == drawn(two(), 20)


def test_every_process_has_work_in_every_window():
    stream, at = two(weights=(1.0, 1.0), rows=2), Position()
    for _ in range(5):
        assert all(stream.window(at, 0.0, None, rank, 2).batches for rank in range(2))


def test_shares_of_examples_are_exact():
    seen = drawn(two(), 100)
    assert len(seen["a"]) == pytest.approx(560, abs=1)
    assert len(seen["a"]) + len(seen["b"]) == 800


def test_shares_of_tokens():
    seen = drawn(two(unit="tokens", weights=(0.5, 0.5)), 100)
    assert len(seen["a"]) * 10 == pytest.approx(len(seen["b"]) * 40, rel=0.02)


def test_alpha_samples_by_size():
    seen = drawn(two(alpha=1.0, weights=(1.0, 1.0)), 70)
    assert len(seen["a"]) / len(seen["b"]) == pytest.approx(50 / 20, rel=0.02)


def test_each_task_goes_through_all_its_rows_before_any_comes_again():
    seen = drawn(two(), 20)
    for name, size in (("a", 50), ("b", 20)):
        first = [row for row, epoch in seen[name] if epoch == 0]
        assert sorted(first) == list(range(size))


def test_a_position_is_all_that_has_to_be_kept():
    stream, at = two(), Position()
    for _ in range(7):
        at = stream.window(at, 0.0, None, 0, 1).after
    again = two().window(Position.from_state(at.state_dict()), 0.0, None, 0, 1)
    assert [b.inputs["input_ids"].tolist() for b in again.batches] == [
        b.inputs["input_ids"].tolist() for b in stream.window(at, 0.0, None, 0, 1).batches
    ]


def test_a_curriculum_goes_from_one_task_to_the_other():
    stream = two(weights=([[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]))
    counts = [
        sum(len(b.inputs["input_ids"]) for b in stream.window(Position(), p, None, 0, 1).batches if b.task == "b")
        for p in (0.0, 0.25, 0.5, 1.0)
    ]
    assert counts == [0, 2, 4, 8]


def test_weights_between_points():
    linear = task([[0.2, 1.0], [0.6, 3.0]])
    assert [linear.weight_at(p) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([1, 1, 2, 3, 3])
    step = task([[0.2, 1.0], [0.6, 3.0]], between="step")
    assert [step.weight_at(p) for p in (0.0, 0.4, 0.6, 1.0)] == [1, 1, 3, 3]


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5),
    rows=st.integers(1, 17),
    windows=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_windows_are_full_and_nobody_is_owed_a_row(weights: list[float], rows: int, windows: int):
    names = [f"t{i}" for i in range(len(weights))]
    mix = Mix({name: task(weight) for name, weight in zip(names, weights, strict=True)})
    stream = MixStream(mix, {name: Numbers(name, 11) for name in names}, 1, rows, None)
    at = Position()
    for _ in range(windows):
        window = stream.window(at, 0.0, None, 0, 1)
        assert sum(len(b.inputs["input_ids"]) for b in window.batches) == rows
        at = window.after
    for name, weight in zip(names, weights, strict=True):
        assert abs(at.rows[name] - windows * rows * weight / sum(weights)) <= len(names)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: task(0.0), "weight must be above 0"),
        (lambda: task("much"), "weight must be a number or points"),
        (lambda: task([[0.5, 1.0], [0.2, 1.0]]), "progress 0 to 1"),
        (lambda: task(between="cubic"), "between must be one of"),
        (lambda: Mix({}), "at least one task"),
        (lambda: Mix({"a": task([[0.0, 1.0], [1.0, 0.0]])}), "weight 0 when 100%"),
        (lambda: Sampling("words"), "unit must be one of"),
        (lambda: Sampling(alpha=2.0), "alpha must be"),
        (lambda: Mix({"a": task()}, balance="luck"), "balance must be one of"),
    ],
)
def test_refused(make: object, message: str):
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_buckets_hold_rows_of_similar_length_in_random_order():
    examples = Numbers("a", 500, lengths=lengths())
    rows, _ = RowStream(examples, 1, "a", bucket=10).rows(0, 500)
    assert sorted(rows) == list(range(500))
    spread = np.array([np.ptp(lengths()[rows[i : i + 10]]) for i in range(0, 500, 10)])
    assert spread.mean() < 5
    means = np.array([lengths()[rows[i : i + 10]].mean() for i in range(0, 500, 10)])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4  # short ones do not all come first


def test_buckets_by_tokens_fill_the_batch_and_never_overflow_it():
    mix = Mix({"a": task()})
    examples = Numbers("a", 500, lengths=lengths())
    stream, at, seen = MixStream(mix, {"a": examples}, 1, 8, 256), Position(), []
    filled = []
    while sum(at.rows.values()) < 500:
        window = stream.window(at, 0.0, None, 0, 1)
        (batch,) = window.batches
        rows = batch.inputs["input_ids"][:, 0].numpy()
        seen += rows.tolist()
        filled.append(lengths()[rows].max() * len(rows))
        at = window.after
    assert sorted(seen) == list(range(500))
    assert max(filled) <= 256
    assert np.mean(filled) > 0.8 * 256


def test_ordered_rows_keep_their_order():
    rows, epochs = RowStream(Numbers("a", 12, tracks=1), 1, "a").rows(0, 24)
    assert rows.tolist() == [*range(12), *range(12)]
    assert epochs.tolist() == [0] * 12 + [1] * 12
