"""Imports without the garbage collector: it is as before afterwards, whatever happened."""

import gc
import importlib

import pytest

from lmctl.core.imports import without_collector


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_before(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), without_collector():
            importlib.import_module("json" if gc.isenabled() else "lmctl.no_such_module")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_without_a_new_module_nothing_is_kept_from_it():
    frozen = gc.get_freeze_count()
    with without_collector():
        import lmctl.core.imports  # noqa: F401
    assert gc.get_freeze_count() == frozen
