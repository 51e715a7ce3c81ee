"""The tutorial works as it stands, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, environment

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_from_text_to_a_small_model(tmp_path: Path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, words in (("lmctl", "-m lmctl"), ("python", "")):
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(0o755)
    around = environment(tmp_path / "cache") | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    folder = tmp_path / "empty"
    folder.mkdir()
    said = ""
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL):
        done = subprocess.run(
            ["sh", "-eu", "-c", block], cwd=folder, env=around, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, f"{block}\n{done.stderr[-2000:]}"
        said += done.stdout
    assert "legal" in said
    assert (folder / "runs/small/model/model.safetensors").is_file()
    assert "int8_dynamic" in said
    assert "'label'" in said
    labels = json.loads((folder / "runs/small/model/config.json").read_text())["id2label"]
    assert {*said.splitlines()} & {*labels.values()}, "what ONNX answers"
