"""What the README tells people to type and to write works, and what docs/ tells them composes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command import ROOT, succeed

from lmctl.cli.main import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[str]:
    """What the README and docs/ say to type, in blocks and between backticks, but for what needs files of its own."""
    code, prose = "", ""
    for place, part in enumerate(re.split(r"^```.*$", README + DOCS, flags=re.MULTILINE)):
        code, prose = (code + part, prose) if place % 2 else (code, prose + part)
    lines = [re.sub(r"^\$ |^OMP_NUM_THREADS=1 ", "", line) for line in code.replace("\\\n", " ").splitlines()]
    lines = [re.split(r"\s+[#<|](?:\s|$)", line)[0] for line in lines]  # what the shell takes for itself
    lines += [" ".join(quoted.split()) for quoted in re.findall(r"`([^`]+)`", prose)]
    elsewhere = ("lmctl list", "...", "my_conf", "inverse_sqrt")
    return sorted(
        {line for line in lines if re.match(r"lmctl [a-z]+ \S", line) and not any(e in line for e in elsewhere)}
    )


def test_there_are_commands_to_check():
    assert {line.split()[1] for line in commands()} >= {"train", "distill", "plan", "eval"}
    assert len(commands()) > 80


@pytest.mark.parametrize("line", commands())
def test_every_command_composes(line, capsys, monkeypatch, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    saved = succeed("train", "name=mine", "--cfg", "job", cwd=tmp_path).stdout if "--from" in line else ""
    (tmp_path / "runs" / "mine" / "config.yaml").write_text(saved)
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(line)[1:] if word not in ("-m", "--cfg", "job")]
    words = [
        word.split(",")[0] if "=" in word and "[" not in word else word for word in words
    ]  # the first job of a sweep
    assert main([*words, "--cfg", "job"]) == 0, capsys.readouterr().err


def test_the_example_component_works_from_outside(tmp_path):
    code = next(block for block in blocks("python") if "class InverseSqrt" in block)
    option = next(block for block in blocks("yaml") if "InverseSqrt" in block)
    package, folder = tmp_path / "my_package", tmp_path / "my_conf" / "schedule"
    package.mkdir()
    folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "inverse_sqrt.py").write_text(code)
    (folder / "inverse_sqrt.yaml").write_text(option.replace("lmctl.schedule.", "my_package."))
    words = ["schedule=inverse_sqrt", "schedule.warmup=0.2", "trusted=[my_package]", "--config-dir", "my_conf"]
    shown = succeed("train", *words, "--cfg", "job", cwd=tmp_path)
    assert "_target_: my_package.inverse_sqrt.InverseSqrt" in shown.stdout
    assert "warmup: 0.2" in shown.stdout
    small = ["budget.steps=1", "model.hidden=16", "model.layers=1", "batch.size=2", "eval.rows=2", "name=x"]
    succeed("train", *words, *small, "tokenizer.vocab_size=300", cwd=tmp_path)


def test_the_tree_names_every_room_and_no_other():
    found = re.search(r"```\n(conf/ .*?)```", README, flags=re.DOTALL)
    assert found is not None
    tree = found[1]
    named = set(re.findall(r"^  (\w+)(?:/|\.py) ", tree, flags=re.MULTILINE))
    rooms = {path.stem for path in (ROOT / "lmctl").iterdir()
             if (path.is_dir() or path.suffix == ".py") and not path.stem.startswith("__")}  # fmt: skip
    assert named == rooms
    for folder in re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE):
        assert Path(ROOT / folder).is_dir()
