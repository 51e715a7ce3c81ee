"""What the attacks share."""

from __future__ import annotations

from pathlib import Path

import pytest
from canary import SECRET, TOKEN, Trap


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trap:
    made = Trap(tmp_path, capsys)
    made.work.mkdir()
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "evil.py").write_text(f"open({str(made.sprung)!r}, 'w')\ndef Run(*a, **k): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.chdir(made.work)
    for name, value in {"HF_TOKEN": TOKEN, "SITE_PASSWORD": SECRET, "PLAIN": SECRET, "CANARY": TOKEN}.items():
        monkeypatch.setenv(name, value)
    return made
