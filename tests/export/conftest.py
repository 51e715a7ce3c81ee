"""Foreign runtimes in this process, where a new one would only take seconds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lmctl.export import verify


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The foreign runtime answers here. That it does so in a process of its own is in the slow tests."""

    def ask(subject: Any, format: Any, folder: Path, batches: list[Any], repeats: list[int]) -> tuple[str, Any, Any]:
        runtime = import_module(f"lmctl.export.foreign.{format.runtime(subject)}")
        name, run = runtime.opened(folder, format.arguments(subject))
        return name, [format.logits(subject, run(batch)) for batch in batches], []

    monkeypatch.setattr(verify, "ask", ask)
