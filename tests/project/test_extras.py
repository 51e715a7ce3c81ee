"""What few settings need is an extra: where it is not installed, they are refused before any work; all else works."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import use_models
from command import ROOT, SMALL, environment, write_documents

from lmctl.cli.main import main
from lmctl.config.use_schema import EvalConfig
from lmctl.core.errors import ConfigError
from lmctl.core.extras import EXTRAS, TRACKERS
from lmctl.data.numbers import Numbers
from lmctl.runner.places import Cpu
from lmctl.verbs.eval import planned

REFUSED = {
    "train model=pretrained init_from=nowhere model.lora_rank=8": ("model: Pretrained with these settings", "peft"),
    "eval model_path=nowhere suite=translation": ("suite=translation", "sacrebleu"),
    "export model_path=nowhere format=onnx": ("export: Onnx with these settings", "onnxscript"),
    "export model_path=nowhere format=gguf": ("export: Gguf with these settings", "gguf"),
    "train runner=slurm": ("runner: Slurm with these settings", "submitit"),
    "search seed=1,2": ("lmctl search", "optuna"),
}


def test_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    of_ours = {name: lines for name, lines in declared.items() if name in EXTRAS.values()}
    assert {line.partition(">")[0]: name for name, lines in of_ours.items() for line in lines} == EXTRAS
    usual = dict.fromkeys(name for name in EXTRAS.values() if name not in TRACKERS.values())
    assert declared["all"] == [f"lmctl[{','.join(usual)}]"]
    assert "lmctl[all]" in declared["dev"]
    assert not any(line.startswith(tuple(EXTRAS)) for line in project["dependencies"])


@pytest.mark.parametrize("words", REFUSED)
def test_a_setting_whose_library_is_missing_is_refused(words, monkeypatch, capsys):
    what, library = REFUSED[words]
    monkeypatch.setitem(sys.modules, library, None)
    assert main(words.split()) == 2
    said = f"error: {what} needs {library}, which is not installed\n  pip install 'lmctl[{EXTRAS[library]}]'\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("suite", ["auto", "robustness"])
def test_a_suite_that_the_model_calls_for_is_refused_before_any_is_measured(suite, tmp_path, monkeypatch):
    translator = use_models.opened(use_models.marian(tmp_path))
    config = EvalConfig(runner=Cpu(), model_path=str(tmp_path), suite=suite)
    assert planned(config, translator, {}, Numbers())
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match="suite=translation needs sacrebleu"):
        planned(config, translator, {}, Numbers())


def test_without_any_extra_the_default_run_works(tmp_path):
    """In one process: what has been imported once is not looked for again."""
    settings = [*SMALL, f"data.path={write_documents(tmp_path / 'docs.txt')}", "budget.steps=2"]
    commands = [["--help"], ["list"], ["plan", *settings], ["train", *settings, "name=bare"]]
    script = (
        f"import sys\nsys.modules.update(dict.fromkeys({[*EXTRAS, 'sklearn', 'jiwer']}))\n"
        f"from lmctl.cli.main import main\nsys.exit(max([main(words) for words in {commands}]))"
    )
    whole = {"cwd": tmp_path, "env": environment(tmp_path / "cache"), "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", script], **whole)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "bare"
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "pip install" in line]
    assert line.endswith(f"model: {Path('runs/bare/model')}   no curve was drawn: pip install 'lmctl[plot]'")
    assert (run / "model" / "model.safetensors").is_file()
    assert not (run / "plots").exists()
