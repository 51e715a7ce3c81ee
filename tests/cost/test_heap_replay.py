"""The heap of a plan: blocks on it never overlap, what is freed is found again, equal steps need no more than one."""

from hypothesis import given
from hypothesis import strategies as st

from lmctl.cost.heap import SPARE, Heap, replayed

MIB = 1 << 20


def test_equal_steps_need_the_bytes_of_one():
    step = [(key, 64 * MIB) for key in range(6)] + [(key, 0) for key in reversed(range(6))]
    assert replayed(step, ragged=False) == 6 * 64 * MIB


def test_a_hole_that_is_too_small_is_left():
    """1, 2 and 1 MiB, of which the first and the last are freed: 2 MiB more do not fit between."""
    step = [(0, MIB), (1, 2 * MIB), (2, MIB), (0, 0), (3, 2 * MIB)]
    assert replayed(step, ragged=False) >= 6 * MIB


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 30)), max_size=60))
def test_blocks_do_not_overlap_and_holes_join(wanted: list[tuple[int, int]]):
    heap, alive = Heap(), dict[int, int]()
    for size, freed in wanted:
        start = heap.take(size)
        assert all(start + size <= other or other + bytes_ <= start for other, bytes_ in alive.items())
        assert start + size <= heap.end
        alive[start] = size
        if freed < len(alive):
            place = list(alive)[freed]
            heap.give(place, alive.pop(place))
    end = heap.end
    for start, size in alive.items():
        heap.give(start, size)
    if end > SPARE:
        assert heap.take(end - SPARE) == 0  # all of it is one free block again
