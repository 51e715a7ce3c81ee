"""Kernels compiled by numba; imported only where `backend.compiled()` says so."""
