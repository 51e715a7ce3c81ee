"""What the README tells people to type and to write works, and what docs/ tells them composes."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from command import ROOT, SMALL, metrics, succeed, write_documents

from lmctl.cli.application import Application
from lmctl.cli.main import main
from lmctl.config.compose import Composer

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def typed() -> list[str]:
    """What the README, CONTRIBUTING and docs/ say to type, in blocks and between backticks."""
    code, prose = "", ""
    for place, part in enumerate(re.split(r"^```.*$", README + CONTRIBUTING + DOCS, flags=re.MULTILINE)):
        code, prose = (code + part, prose) if place % 2 else (code, prose + part)
    lines = [re.sub(r"^\$ |^OMP_NUM_THREADS=1 ", "", line) for line in code.replace("\\\n", " ").splitlines()]
    lines = [re.split(r"\s+[#<|](?:\s|$)", line)[0] for line in lines]  # what the shell takes for itself
    return [*lines, *(" ".join(quoted.split()) for quoted in re.findall(r"`([^`]+)`", prose))]


def commands() -> list[str]:
    """Commands of lmctl, but for those that need files of their own."""
    elsewhere = ("lmctl list", "lmctl resume", "...", "my_conf", "inverse_sqrt")
    return sorted(
        {line for line in typed() if re.match(r"lmctl [a-z]+ \S", line) and not any(e in line for e in elsewhere)}
    )


def scripts() -> list[str]:
    """Commands of scripts, with their arguments."""
    return sorted({line.strip() for line in typed() if re.match(r"(python |\./)?scripts/\S+\.(py|sh)\b", line)})


@pytest.mark.parametrize("page", ["README", "docs/tutorial"])
def test_the_chinese_page_says_the_same(page: str):
    """The same commands and programs, pages, options and figures; prose is for people to compare."""

    def said(text: str) -> list[set[str]]:
        code = {line.split("#")[0].split(" ...")[0].strip() for part in re.findall(r"```\w+\n(.*?)```", text, re.DOTALL)
                for line in part.splitlines()}  # fmt: skip
        cells = {name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line)}
        pages = {
            link for link in re.findall(r"\]\(([^)#]+)\)", text) if Path(link).name.partition(".")[0] != Path(page).name
        }
        return [code, cells, pages]

    english, chinese = ((ROOT / f"{page}{language}.md").read_text(encoding="utf-8") for language in ("", ".zh"))
    assert said(english) == said(chinese)
    assert len(re.findall(r"^## ", english, re.MULTILINE)) == len(re.findall(r"^## ", chinese, re.MULTILINE))


def test_there_are_commands_to_check():
    assert {line.split()[1] for line in commands()} >= {"train", "distill", "plan", "eval"}
    assert len(commands()) > 80


@pytest.mark.parametrize("line", commands())
def test_every_command_composes(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if line.startswith("lmctl search "):
        composer = Composer("search")
        for sample in composer.sweep_configs(shlex.split(line)[2:])[1]:
            composer.task(sample)
        return
    # Of a sweep, the first job.
    words = [word.split(",")[0] if "=" in word and "[" not in word else word for word in shlex.split(line)[1:]]
    if not any(word.startswith("--") for word in words):
        Application(words[0], [word for word in words[1:] if word != "-m"]).final_config()
        return
    if "--from" in words:
        assert main(["train", "name=mine", "--cfg", "job"]) == 0
        Path("runs/mine").mkdir(parents=True)
        Path("runs/mine/config.yaml").write_text(capsys.readouterr().out)
    assert main([*words, *(["--cfg", "job"] if "--cfg" not in words else [])]) == 0, capsys.readouterr().err


class Understood(Exception):
    """A script has read its arguments, and goes no further."""


@pytest.mark.parametrize("line", scripts())
def test_every_script_takes_its_arguments(line: str, monkeypatch: pytest.MonkeyPatch):
    """The script is there, and knows the arguments that a page gives it."""
    file, *arguments = shlex.split(line.removeprefix("python "))
    assert (ROOT / file).is_file()
    if not arguments or "parse_args" not in (ROOT / file).read_text(encoding="utf-8"):
        return

    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr("sys.argv", [file, *arguments])
    monkeypatch.setattr("os.environ", os.environ.copy())  # scripts change it
    monkeypatch.syspath_prepend(ROOT / Path(file).parent)
    with pytest.raises(Understood):
        runpy.run_path(str(ROOT / file), run_name="__main__")


def example() -> dict[str, str]:
    """The files of the example component: each follows its path."""
    return dict(re.findall(r"`(\w+/schedule/inverse_sqrt\.\w+)`.*?```\w+\n(.*?)```", EXTENDING, flags=re.DOTALL))


def test_the_example_component_works_from_here(tmp_path):
    """Two files more in a checkout, and nothing else."""
    for folder in ("lmctl", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for path, text in example().items():
        (tmp_path / path).write_text(text)
    assert "Warm up, then fall like an inverse square root" in succeed("list", "schedule", cwd=tmp_path).stdout
    settings = [*SMALL, f"data.path={write_documents(tmp_path / 'docs.txt')}", "budget.steps=4", "log.every=1"]
    succeed("train", *settings, "name=x", "schedule=inverse_sqrt", "schedule.warmup=0.5", cwd=tmp_path)
    rates = [line["lr"] for line in metrics(tmp_path / "runs" / "x") if line["split"] == "train"]
    factors = [0.125 / 0.5, 0.375 / 0.5, (0.5 / 0.625) ** 0.5, (0.5 / 0.875) ** 0.5]  # in the middle of each step
    assert rates == pytest.approx([1.5e-3 * factor for factor in factors])


def test_the_example_component_works_from_outside(tmp_path, monkeypatch, capsys):
    folders = {"lmctl/schedule": tmp_path / "my_package", "conf/schedule": tmp_path / "my_conf" / "schedule"}
    for path, text in example().items():
        place = folders[str(Path(path).parent)]
        place.mkdir(parents=True)
        (place / Path(path).name).write_text(text.replace("lmctl.schedule.inverse_sqrt", "my_package.inverse_sqrt"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["schedule=inverse_sqrt", "trusted=[my_package]", "--config-dir", "my_conf"]
    assert main(["plan", *SMALL, f"data.path={write_documents(tmp_path / 'docs.txt')}", *words]) == 0
    assert capsys.readouterr().out.startswith("legal")


def test_the_tree_names_every_room_and_no_other():
    found = re.search(r"```\n(conf/ .*?)```", EXTENDING, flags=re.DOTALL)
    assert found is not None
    tree = found[1]
    named = set(re.findall(r"^  (\w+)(?:/|\.py) ", tree, flags=re.MULTILINE))
    rooms = {path.stem for path in (ROOT / "lmctl").iterdir()
             if (path.is_dir() or path.suffix == ".py") and not path.stem.startswith("__")}  # fmt: skip
    assert named == rooms
    for folder in re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE):
        assert Path(ROOT / folder).is_dir()
