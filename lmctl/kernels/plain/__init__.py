"""The same kernels in plain torch: same numbers, bit by bit, where a kernel promises it."""
