"""Names, paths and free text: what people type arrives as it was typed, and what lmctl writes it reads back."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import get_type_hints

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lmctl.cli.application import Application
from lmctl.cli.main import main
from lmctl.cli.which_run import going_on
from lmctl.config.audit import is_token, reads_secret
from lmctl.config.build import read_root
from lmctl.config.overrides import Overrides
from lmctl.config.saved import config_text, read_config
from lmctl.config.verb import verb as named
from lmctl.config.verb import verbs
from lmctl.core.command_words import command, literal, read, setting
from lmctl.jobs.job import Job
from lmctl.jobs.sweep import Sweep, sweep_dir

SIGNS = "'\"\\$[](){},=&%~-+@:! \n\t#*?;|<>"
ODD = [*SIGNS, "${x}", "\\${", "null", "true", "1e5", "北京", "“", "\x85", "\u2028", "é", "\ufeff"]
NAMES = st.lists(st.one_of(st.sampled_from(ODD), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)), max_size=8).map("".join).filter(lambda text: text != "???")  # fmt: skip # noqa: E501


@settings(deadline=None, max_examples=300)
@given(NAMES)
def test_what_is_written_is_read_back(name: str):
    """Through a shell, Hydra's grammar, the words that its sweeper makes of it, OmegaConf, and YAML."""
    (pasted,) = shlex.split(command(run_dir=name))
    assert pasted == setting("run_dir", name)
    assert read(pasted.partition("=")[2]) == name
    override = OverridesParser.create().parse_override(f"key={literal(name)}")
    assert read(override.get_value_element_as_str()) == name
    config = OmegaConf.create({"key": override.value()})
    assert config.key == name
    assert OmegaConf.create(config_text(OmegaConf.to_container(config, resolve=False))).key == name


def config_of(*words: str) -> dict:
    application = Application(words[0], list(words[1:]))
    return OmegaConf.to_container(application.final_config(), resolve=True)


def test_other_scripts_need_no_quotes():
    assert command("lmctl train", run_dir="runs/基础") == "lmctl train run_dir=runs/基础"
    assert command("lmctl train", run_dir="runs/基 础") == "lmctl train 'run_dir=\"runs/基 础\"'"


LOOKALIKES = ["2024_01", "1e5", "007", "on", "true", "1:30", "nan", "[a]", "{a: 1}", "a,b", "int(3)", "a\\b", "x=y", "2024-01-02"]  # fmt: skip # noqa: E501


@pytest.mark.parametrize("name", LOOKALIKES)
def test_text_keys_keep_what_was_typed(name: str):
    """Wherever they stand: at the root, in a component, in a component of a task."""
    task = "mix.tasks.topics.data"
    words = [f"data@{task}=table", f"{task}.path={name}", f"{task}.label={name}", "mix=multitask", "data=text"]
    config = config_of("train", *words, f"data.path={name}", f"name={name}", f"cache_dir={name}", "seed=3")
    assert config["run_dir"] == f"runs/{name}"
    assert config["cache_dir"] == config["data"]["path"] == name
    assert config["mix"]["tasks"]["topics"]["data"]["path"] == config["mix"]["tasks"]["topics"]["data"]["label"] == name
    assert config["seed"] == 3


def test_a_sweep_keeps_them_too():
    application = Application("train", ["-m", "data=text", "data.path=2024_01,1e5", "seed=1,2"])
    application.quote_sweep()
    cells = application.composer.cells(application.overrides.render())
    paths = [read(word.partition("=")[2]) for cell in cells for word in cell if word.startswith("data.path=")]
    assert paths == ["2024_01", "2024_01", "1e5", "1e5"]


PROMPTS = ["'Tis the season", '"Hello," she said', '"all of it"', "costs ${x}", "a\\", "[MASK], {b}", " blanks ", "~", "x，seed=2", "“好”", "null?", "a\\${b}", "a\\'b\\", "1e3", "{a: 1}", "true", "x=y"]  # fmt: skip # noqa: E501


@pytest.mark.parametrize("prompt", PROMPTS)
def test_free_text_is_taken_literally(prompt: str):
    for verb, key in (("generate", "prompt"), ("translate", "prefix")):
        application = Application(verb, ["model_path=m", f"{key}={prompt}"])
        assert asdict(read_root(application.final_config(), named(verb).schema))[key] == prompt


def test_jobs_of_a_sweep_get_free_text_as_it_is():
    application = Application("generate", ["-m", "model_path=m", "prompt='a, b',\"it's\",c"])
    cells = application.composer.cells(application.overrides.render())
    sweep = Sweep(application.verb, lambda cfg: None, free=application.free)
    commands = [sweep.command(Job("job", cell, "runs/job")) for cell in cells]
    typed = [next(word for word in words if word.startswith("prompt")) for words in commands]
    assert typed == ["prompt=a, b", "prompt=it's", "prompt=c"]


@pytest.mark.parametrize("name", ["bob's", "R &D", 'say "x"', "a,b [1]", "数据", "$HOME", "'x'", " x ", "x\\"])
def test_a_run_of_any_name_is_found_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As typed, and as lmctl says how to go on."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    config = config_of("train", setting("name", name), "optim.lr=0.25", "data=text", "data.path=R &D/x.txt")
    (folder / "config.yaml").write_text(config_text(config), encoding="utf-8")
    assert read_config(folder / "config.yaml") == config
    for words in ([setting("name", name)], shlex.split(command(run_dir=folder))):
        application = Application("train", ["resume=auto", *words])
        assert application._has_run_as_base()
        assert application._resumed_config() == str(folder / "config.yaml")
    named_so, lies_there = Overrides().set("name", name), Overrides().set("run_dir", str(folder))
    assert sweep_dir(named_so) == sweep_dir(lies_there) == folder


PLACES = {"model_path", "file", "dev", "out", "run_dir", "cache_dir", "init_from", "teacher", "runs"}


@pytest.mark.parametrize("verb", verbs())
def test_whatever_a_verb_calls_a_file_or_a_folder_is_a_place(verb):
    hints = get_type_hints(named(verb).schema, include_extras=True)
    found = PLACES & set(hints)
    assert found, "every verb reads or writes something"
    assert {name for name in found if "IsPlace" not in str(hints[name])} == set()


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Places may begin with ~ even where no shell has expanded it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    table = ["mix=classify", "data=table", "data.path=~/t.csv", "data.valid_path=~/v.csv", "data.label=~x"]
    config = config_of("train", *table, "run_dir=~/r", "cache_dir=~/c", "init_from=~/m")
    assert (config["run_dir"], config["cache_dir"], config["init_from"]) == tuple(f"{tmp_path}/{x}" for x in "rcm")
    assert (config["data"]["path"], config["data"]["valid_path"]) == (f"{tmp_path}/t.csv", f"{tmp_path}/v.csv")
    assert config["data"]["label"] == "~x", "a column is no place"
    assert config["model"]["init_from"] == config["tokenizer"]["path"] == f"{tmp_path}/m"
    for verb in ("eval", "generate", "score", "translate", "predict"):
        assert config_of(verb, "model_path=~/m")["model_path"] == f"{tmp_path}/m"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.yaml").write_text("seed: 1\n")
    assert Application("train", ["resume=auto", "run_dir=~/runs"])._resumed_config() == f"{tmp_path}/runs/config.yaml"
    assert read_config(Path("~/runs/config.yaml")) == {"seed": 1}


REFUSED = {
    ("train", "name=x，seed=2"): "separate settings with a space: name=x seed=2",
    ("train", "name=x,seed=2"): "separate settings with a space: name=x seed=2",
    ("train", "run_dir=a；name=b"): "separate settings with a space: run_dir=a name=b",
    ("train", "seed＝2"): "write seed=2",
    ("train", "“name=x”"): "write name=x",
    ("train", "name=“x”"): "write name=x",
    ("train", "seed=２"): "write seed=2",
    ("train", "optim.lr=１e-3"): "write optim.lr=1e-3",
    ("train", "hydra.sweep.dir=x"): "name=... or run_dir=...",
    ("train", "-m", "seed=1,2", "+hydra.run.dir=x"): "name=... or run_dir=...",
    ("train", "hydra.job.name=x"): "name=...",
    ("train", "name="): "name must not be empty",
    ("train", "name=../x"): "run_dir=...",
    ("train", "name=/x"): "run_dir=...",
    ("train", "name=" + "a" * 300): "300 bytes",
    ("train", "run_dir="): "run_dir must not be empty",
    ("train", "seed=99999999999999999999"): "seed must be below 2**63",
    ("eval", "model_path=m", "seed=-1"): "seed must be from 0",
    ("train", "optim.lr=nan"): "optim.lr must be a finite number, got nan",
    ("train", "budget.minutes=inf"): "budget.minutes must be a finite number, got inf",
    ("train", "mix.tasks.corpus.weight=[[0,1],[1,nan]]"): "mix.tasks.corpus.weight must be a finite number, got nan",
    ("train", "-m", "optim.lr=0.1,nan"): "optim.lr must be a finite number",
    ("train", "budget.steps="): "budget.steps must be a whole number, and nothing is given",
    ("generate", "model_path=m", "prompt=caf\udce9"): "not UTF-8",
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: " ".join(line)[:40].encode("ascii", "replace").decode())
def test_refused_before_any_work(
    line: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(list(line)) == 2
    assert REFUSED[line] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    for word in ("run_dir=file", "run_dir=file/x", "cache_dir=file"):
        assert main(["train", word]) == 2
        assert "file is a file, not a folder" in capsys.readouterr().err


def test_chinese_stays_legal():
    config = config_of("train", "data=text", "data.path=语料，第1章；a=b.txt", "name=实验（一），甲")
    assert (config["data"]["path"], config["name"]) == ("语料，第1章；a=b.txt", "实验（一），甲")


def test_tokens_and_what_only_looks_like_them(tmp_path: Path):
    openai = ("sk-proj-Ab1xYz90Qw3rTy7uIo2pLk", "sk-abcdefghijklmnop1234567890")
    for token in (*openai, "ghp_" + "a1" * 15, "hf_" + "aB" * 17):
        assert is_token(token), token
        assert is_token(f"see {token} there"), token
    for name in ("sk-SK-wikipedia-dump-2023-clean.txt", "corpora/sk-slovak-news-2011-2020.txt", "hf_dataset"):
        assert not is_token(name), name
    real = tmp_path / ("hf_" + "a" * 30)
    real.write_text("text")
    assert not is_token(str(real)), "a file that is there is no token"
    for name in ("HF_TOKEN", "TOKEN", "MY_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "hub_token"):
        assert reads_secret(f"x/${{oc.env:{name}}}"), name
        assert reads_secret(f"${{oc.env:{name},none}}"), name
    for name in ("TOKENIZED_DIR", "TOKENIZER_DIR", "TOKENIZER", "TOKEN_CACHE", "MAX_TOKENS_COUNT", "MONKEY"):
        assert not reads_secret(f"${{oc.env:{name}}}/d1.txt"), name


def test_anchors_are_told_from_text(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("name: R &D\ncolumn: Q &A, *b\nlist: [a &b, 'x &y']\n")
    assert read_config(file)["column"] == "Q &A, *b"


def test_nothing_is_left_of_a_run_without_text(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "data=text", "data.path=nowhere.txt", "runner=cpu", f"cache_dir={tmp_path / 'cache'}"]) == 3
    assert "nowhere.txt does not exist" in capsys.readouterr().err
    assert not os.path.exists("runs")
    Path("mine").mkdir()
    assert main(["train", "data=text", "data.path=nowhere.txt", "runner=cpu", "run_dir=mine"]) == 3
    assert Path("mine").is_dir(), "a folder that was there stays"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("eval model_path=runs/mien", "runs/mine"),
        ("predict model_path=runs/mine/modle", "runs/mine/model"),
        ("train init_from=runs/mien", "runs/mine"),
        ("train --from runs/mine/confg.yaml", "runs/mine/config.yaml"),
    ],
)
def test_what_is_not_there_may_have_a_name_much_like_it(line: str, meant: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("seed: 1\n")
    assert main(line.split()) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


@settings(deadline=None, max_examples=60)
@given(NAMES.filter(lambda text: text and text[0] not in "-~+=" and "=" not in text and text[-1:] != ":"))
def test_a_word_alone_is_what_it_is_with_its_key(word: str):
    """A model and a prompt, whatever they look like, but for words that would be settings or flags."""
    if word in Application("generate", ["model_path=x"])._known:
        return
    alone = Application("generate", ["runs/mine", word]).final_config()
    assert alone == Application("generate", ["model_path=runs/mine", f"prompt={word}"]).final_config()


def test_a_folder_may_be_called_as_a_key_is(tmp_path, monkeypatch):
    """`lmctl export model`, in a run's directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for verb in ("eval", "generate", "export"):
        assert Application(verb, ["model"]).final_config().model_path == "model"


def test_a_run_is_resumed_by_its_name_alone(tmp_path, monkeypatch):
    """`lmctl resume RUN` is train or distill, by what the run is, with the other words behind it."""
    (tmp_path / "mine").mkdir()
    for recorded, verb in (("teacher: null", "train"), ("teacher: runs/big", "distill")):
        (tmp_path / "mine/config.yaml").write_text(recorded)
        words = going_on([f"{tmp_path}/mine", "budget.steps=9"])
        assert words == [verb, "resume=auto", f"run_dir={tmp_path}/mine", "budget.steps=9"]
