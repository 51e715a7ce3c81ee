"""Arrays of cache entries: written so that a full disk is noticed, and memory-mapped with dtype and shape checked.

Nothing is ever unpickled. `ndarray.tofile`, which `np.save` calls, does not notice that its last block was not written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lmctl.core.cache_check import Damaged, json_in


def save_npy(path: Path, array: np.ndarray) -> None:
    """As `np.save`; OSError if not all of it can be written."""
    with open(path, "wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array))
        out.write(np.ascontiguousarray(array).data)


def npy_array(path: Path, dtype: DTypeLike, *shape: int | None) -> np.ndarray:
    """The array in an .npy file, memory-mapped; Damaged unless it has this dtype and shape (None: any length)."""
    try:
        array = np.asarray(np.lib.format.open_memmap(path, mode="r"))  # a plain array: `memmap` slices slowly
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError) as error:
        raise Damaged(f"{path.name} is no array") from error
    fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
    if array.dtype != np.dtype(dtype) or not fits or array.flags.f_contiguous > array.flags.c_contiguous:
        raise Damaged(f"{path.name} is {array.dtype} of shape {array.shape}, not as it was written")
    return array


def raw_array(path: Path, dtype: DTypeLike, *shape: int) -> np.ndarray:
    """The array in a file with nothing but its values, memory-mapped; Damaged if it has another size."""
    try:
        size, wanted = path.stat().st_size, int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if size != wanted:
            raise Damaged(f"{path.name} has {size:,} bytes, not {wanted:,}")
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=shape)) if size else np.empty(shape, dtype)
    except (ValueError, OverflowError) as error:
        raise Damaged(f"{path.name} is no array") from error


def offsets(path: Path, last: int) -> np.ndarray:
    """int64 [n + 1] in an .npy file: where n parts of a sequence of length `last` begin, and its end."""
    array = npy_array(path, np.int64, None)
    if not len(array) or array[0] != 0 or array[-1] != last:
        raise Damaged(f"{path.name} does not lead from 0 to {last:,}")
    return array


def mapping_in(path: Path) -> dict[str, Any]:
    """The JSON object in a file; Damaged if there is none."""
    value = json_in(path)
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} is missing or unreadable")
    return value
