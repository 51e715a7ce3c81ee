"""What a stranger's configs might try: recipes of `--config-dir`, `--from FILE`, run directories, recorded words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from canary import Trap

from lmctl.cli.main import main
from lmctl.config.compose import Composer

HYDRAS = {
    "env_set": "job: {env_set: {LD_PRELOAD: /tmp/x.so, PYTHONPATH: /evil}}",
    "env_copy": "job: {env_copy: [HF_TOKEN]}",
    "env_copy of none": "job: {env_copy: [NOT_THERE]}",
    "run.dir": "run: {dir: /tmp/h}",
    "sweep.dir": "sweep: {dir: ../elsewhere}",
    "sweep.subdir": "sweep: {subdir: ../../x}",
    "output_subdir": "output_subdir: ../../.ssh",
    "chdir": "job: {chdir: true}",
    "mode": "mode: MULTIRUN",
    "verbose": "verbose: true",
    "callbacks": "callbacks: {x: {_target_: evil.Run}}",
    "launcher": "launcher: {_target_: evil.Run}",
    "launcher of a plugin": "launcher: {_target_: hydra_plugins.evil.Run}",
    "launcher's shell": "launcher: {setup: ['touch sprung'], n_jobs: 2}",
    "sweeper": "sweeper: {_target_: evil.Run}",
    "sweeper.params": "sweeper: {params: {trusted: '[evil]'}}",
    "job_logging": "job_logging: {handlers: {x: {(): evil.Run}}}",
    "log file": "job_logging: {handlers: {x: {class: logging.FileHandler, filename: sprung}}, root: {handlers: [x]}}",
    "hydra_logging": "hydra_logging: {handlers: {x: {class: evil.Run}}}",
    "searchpath": "searchpath: ['pkg://evil']",
    "env": "env: {X: 1}",
}
"""Settings of Hydra, in flow style below `hydra`."""


def recipe(trap: Trap, text: str, name: str = "recipe/theirs.yaml") -> list[str]:
    """The flags with which the file `name` of a config directory is used."""
    file = trap.root / "conf" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return ["--config-dir", str(trap.root / "conf"), f"{file.parent.name}={file.stem}"]


def run_directory(trap: Trap, config: str | None = None, summary: object = None) -> str:
    folder = trap.root / "run"
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "config.yaml").write_text(config)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder)


@pytest.mark.parametrize("setting", HYDRAS.values(), ids=HYDRAS)
def test_no_recipe_changes_hydra(setting: str, trap: Trap):
    trap.refused("train", *recipe(trap, f"# @package _global_\nhydra: {{{setting}}}\n"))


@pytest.mark.parametrize("setting", ["env_set", "env_copy", "callbacks", "sweeper.params", "launcher's shell"])
def test_nor_by_its_package(setting: str, trap: Trap):
    trap.refused("train", *recipe(trap, f"# @package hydra\n{HYDRAS[setting]}\n"))


@pytest.mark.parametrize("setting", ["env_set", "searchpath", "sweeper.params", "launcher's shell"])
def test_nor_in_a_sweep_or_as_the_primary_config(setting: str, trap: Trap):
    text = f"hydra: {{{HYDRAS[setting]}}}\n"
    trap.refused("train", "-m", "seed=1,2", *recipe(trap, f"# @package _global_\n{text}"))
    (trap.root / "conf" / "mine.yaml").write_text(f"defaults: [train, _self_]\n{text}")
    trap.refused("train", "--config-dir", str(trap.root / "conf"), "--config-name", "mine")
    trap.refused("train", "--config-dir", str(trap.root / "conf"), "--config-name", "mine", "--cfg", "hydra")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("# @package _global_\nhydra: {launcher: {setup: [x]}}", "theirs"),
        ("# @package hydra.launcher\nsetup: [x]", "theirs"),
        ("#@package hydra.launcher\nn_jobs: 1\nsetup: [x]", "theirs"),
        ("# @package _name_\nlauncher: {setup: [x]}", "hydra"),
        ("# @package _global_\ndefaults: [{/schedule@hydra.launcher: linear}]", "theirs"),
        ("# @package _global_\ndefaults: [{override /hydra/launcher: basic}]", "theirs"),
    ],
)
def test_the_launcher_that_a_command_line_chooses_is_set_by_it_alone(text: str, name: str, trap: Trap):
    flags = recipe(trap, text, f"recipe/{name}.yaml")
    trap.refused("train", "-m", "seed=1,2", *flags, "hydra/launcher=basic", "hydra.launcher._target_=hydra_plugins.x")


def test_hydras_own_groups_are_not_taken_from_a_config_directory(trap: Trap):
    flags = recipe(trap, "_target_: evil.Run\n", "hydra/launcher/process.yaml")[:2]
    trap.refused("train", *flags)
    flags = recipe(trap, "handlers: {x: {(): evil.Run}}\n", "hydra/job_logging/none.yaml")[:2]
    trap.refused("train", *flags)
    trap.refused("train", *recipe(trap, "# @package _global_\ndefaults: [{override /hydra/job_logging: default}]\n"))


@pytest.mark.parametrize(
    "word",
    [
        *(
            "hydra.job.env_set.X=1",
            "+hydra.job.env_set.X=1",
            "++hydra.job.env_set={X: 1}",
            "hydra={job: {chdir: true}}",
        ),
        *("hydra.searchpath=[pkg://evil]", "hydra.callbacks={x: {_target_: evil.Run}}", "~hydra.job.chdir"),
        *("hydra/job_logging=default", "hydra.job_logging.root=null", "hydra.output_subdir=x", "hydra.sweep={dir: x}"),
        *(
            "hydra.sweeper._target_=evil.Run",
            "hydra.launcher={_target_: evil.Run}",
            "schedule@hydra.job.env_set=linear",
        ),
        "+schedule@hydra.callbacks.x=linear",
    ],
)
def test_nor_by_the_command_line(word: str, trap: Trap):
    trap.refused("train", word)
    trap.refused("train", "-m", "seed=1,2", word)


def test_how_a_sweep_is_run_may_be_said(trap: Trap):
    flags = recipe(trap, "# @package _global_\nhydra: {launcher: {n_jobs: 3}}\nseed: 7\n")
    composer = Composer("train", config_dir=flags[1])
    assert composer.task(["name=x", flags[2]]).seed == 7
    assert composer.hydras.hydra.launcher.n_jobs == 3
    assert composer.task(["name=x", "hydra.launcher.n_jobs=2", "hydra.sweeper.max_batch_size=4"]) is not None


WORDS = [
    *("trusted=[evil]", "+trusted=[evil]", "++trusted=[evil]", "cache_dir=/tmp/x", "run_dir=/tmp/x", "stages={}"),
    *("hydra.job.env_set={X: 1}", "+hydra.job.env_set.X=1", "hydra/launcher=basic", "hydra.searchpath=[pkg://evil]"),
    *("schedule@hydra.job.env_set=linear", "schedule@trusted=linear", "nonsense=1", "name=${oc.env:HF_TOKEN}"),
    *("init_from=${oc.env:PLAIN}", "data.path=${oc.decode:'\\${oc.env:PLAIN}'}", "=", "seed=${hydra:runtime.cwd}"),
]
CODE = "schedule._target_=evil.Run"


@pytest.mark.parametrize("word", WORDS)
def test_words_of_a_file_are_allowed_one_by_one(word: str, trap: Trap):
    for words in ([word, CODE], [f"stages.a.{word}", CODE]):
        folder = run_directory(trap, summary={"stages": {"a": {}}, "words": words})
        trap.refused("train", "resume=auto", f"run_dir={folder}")
    trap.refused("train", "name=x", *recipe(trap, f"# @package _global_\nstages: {json.dumps({'a': [word, CODE]})}\n"))


@pytest.mark.parametrize("words", [None, "x", 1, [1], [["a"]], {"a": 1}])
def test_a_record_of_stages_that_is_none(words: object, trap: Trap):
    folder = run_directory(trap, summary={"stages": {"a": {}}, "words": words})
    trap.refused("train", "resume=auto", f"run_dir={folder}")


STAGED = json.dumps({"a": ["trusted=[evil]", CODE, "budget.steps=1"]})


@pytest.mark.parametrize(
    "text",
    [
        f"trusted: [evil]\nschedule: {{_target_: evil.Run}}\nstages: {STAGED}",
        "schedule: {_target_: evil.Run}",
        "mix: {_target_: lmctl.mix.mix.Mix, tasks: {a: {objective: {_target_: evil.Run}}}}",
        "name: ${oc.env:PLAIN}\ndata: {_target_: lmctl.data.text.Text, path: '${oc.env:PLAIN}'}",
        "seed: ${oc.decode:'\\${oc.env:PLAIN}'}",
        "seed: ${oc.${student.k}:PLAIN}\nstudent: {k: env}",
        "seed: ${${teacher}}",
        "seed: ${hydra:runtime.cwd}",
        "seed: ${teacher}\nteacher: ${seed}",
        "student: {from_teacher: '${student}'}",
        "trusted: ['${oc.env:HF_TOKEN}']",
        "hydra: {job: {env_set: {X: 1}}}",
        "'hydra': {}",
        "? hydra\n: {}",
        "defaults: [{override /hydra/launcher: x}]",
        "seed: !!python/object/apply:os.system ['touch sprung']",
        "<<: {hydra: {}}",
        "a: [",
        "seed: " + "[" * 3000,
        "seed: " + "x" * (1 << 21),
    ],
)
def test_a_strangers_config_is_data(text: str, trap: Trap):
    folder = run_directory(trap, config=text)
    for words in (("--from", folder), ("--from", folder, "-m", "log.every=1,2"), (f"run_dir={folder}", "resume=auto")):
        trap.refused("train", *words)


def test_stages_and_trust_of_a_file_are_not_taken(trap: Trap):
    """They are not refused either: every run's config has the keys."""
    file = trap.root / "config.yaml"
    file.write_text(f"trusted: [evil]\nstages: {STAGED}\nstage: a\ncache_dir: /tmp/x\nseed: 7\nname: x\n")
    composer = Composer("train")
    composer.start_from(str(file), composer.choices)
    cfg = composer.task(["name=y"])
    assert (cfg.seed, cfg.trusted, cfg.stages, cfg.stage, cfg.cache_dir) == (7, [], {}, None, None)


def bomb(levels: int = 40) -> str:
    return "\n".join(["a0: xxxxxxxxxx", *(f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}" for i in range(1, levels))]) + "\n"


BOMBS = {
    "aliases": 'a: &a [x, x]\nb: [*a, *a]\n',
    "aliases behind a quote": '"k0": &a0 [x, x]\n"k1": &a1 [*a0, *a0]\n',
    "aliases in flow": '{"a": 1, b: &a [x], c: *a}',
    "merged": "a: &a {x: 1}\nb: {<<: *a}\n",
    "doubling text": bomb(),
    "doubling lists": "l0: [x]\n" + "".join(f"l{i}: ['${{l{i - 1}}}', '${{l{i - 1}}}']\n" for i in range(1, 40)),
    "doubling mappings": "m0: {x: y}\n" + "".join(
        f"m{i}: {{a: '${{m{i - 1}}}', b: '${{m{i - 1}}}'}}\n" for i in range(1, 40)
    ),
    "a chain": "c0: x\n" + "".join(f"c{i}: ${{c{i - 1}}}\n" for i in range(1, 200)),
    "through another key": "a: {x: '${b}'}\nb: {y: '${a.x.y}${a.x.y}'}\n",
    "depth": "d: " + "{e: " * 200 + "1" + "}" * 200,
    "nodes": "n: [" + "1," * 60_000 + "]",
    "size": "# " + "x" * (1 << 20) + "\nseed: 1\n",
    "a tag": "seed: !!python/name:evil.Run\n",
}  # fmt: skip


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_before_they_are_built(text: str, trap: Trap):
    trap.refused("train", "--from", run_directory(trap, config=text))
    for name in "aclm":
        text = text.replace(f"${{{name}", f"${{student.{name}")
    trap.refused("train", *recipe(trap, f"# @package student\n{text}"))


def test_files_without_an_end_are_not_read(trap: Trap):
    folder = Path(run_directory(trap))
    os.mkfifo(folder / "config.yaml")
    for words in (("--from", str(folder)), ("--from", "/dev/zero"), (f"run_dir={folder}", "resume=auto")):
        trap.refused("train", *words)


def test_configs_lie_in_their_directory(trap: Trap):
    (trap.root / "outside.yaml").write_text("seed: 3\n")
    for name in ("../../outside", f"{trap.root}/outside", f"/{trap.root}/outside"):
        flags = recipe(trap, f"# @package _global_\ndefaults: [{name}]\n")
        trap.refused("train", *flags)
    (trap.root / "conf" / "recipe" / "linked.yaml").symlink_to(trap.root / "outside.yaml")
    assert "outside of" in trap.refused("train", *flags[:2], "recipe=linked")


@pytest.mark.parametrize("text", ["trusted: [evil]", "trusted: ['${name}']\nname: evil", "seed: 1"])
def test_a_recipe_says_not_what_may_run(text: str, trap: Trap):
    flags = recipe(trap, f"# @package _global_\n{text}\nschedule: {{_target_: evil.Run}}\n")
    trap.refused("train", *flags)
    trap.refused("train", *flags, "optim.x=1")


def test_a_package_is_trusted_on_the_command_line(trap: Trap):
    (trap.root / "path" / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom lmctl.schedule.shapes import Linear\n"
        "@dataclass(frozen=True)\nclass Mine(Linear): pass\n"
    )
    flags = recipe(trap, "_target_: mine.Mine\n", "schedule/mine.yaml")
    assert "trusted=[mine]" in trap.refused("train", *flags)
    assert main(["train", *flags, "trusted=[mine]", "name=x", "--cfg", "job"]) == 0


def test_an_unfinished_run_says_not_what_may_run(trap: Trap):
    text = "trusted: [evil]\nprecision: {_target_: evil.Run}\nmix: {_target_: evil.Run}"
    trap.refused("eval", f"model_path={run_directory(trap, config=text)}", "trusted=[]")


BOMB = "k0: &a0 [x, x]\n" + "".join(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    "text",
    [
        "# @package _global_\n%YAML 1.3\n---\nname: ${oc.env:PLAIN}\n",
        f"# @package _global_\n%YAML 1.9\n---\n{BOMB}",
        "defaults: [theirs]\n",
        "# @package _global_\ndefaults: ['/recipe/theirs@a.b']\n",
        "# @package _global_\ndata: {path: '" + "${oc.select:a," * 300 + "x" + "}" * 300 + "'}\n",
        "# @package _global_\ndata: {path: '" + "${" * 50_000 + "'}\n",
        "# @package _global_\ndata: {path: '" + "${a}" * 40_000 + "'}\n",
        "# @package _global_\noptim: {lr: '" + "-" * 200_000 + "1'}\n",
    ],
    ids=["version", "version and bomb", "itself", "itself elsewhere", "deep", "open", "many", "long"],
)
def test_what_only_the_second_parser_reads(text: str, trap: Trap):
    """`%YAML 1.3` is refused by the parser of the check, and was accepted by the one that composes."""
    trap.refused("train", *recipe(trap, text))


@pytest.mark.parametrize("key", ["run_dir", "cache_dir"])
def test_a_recipe_says_not_where_to_write(key: str, trap: Trap):
    words = recipe(trap, f"# @package _global_\n{key}: {trap.root}/elsewhere\n")
    assert "command line" in trap.refused("train", *words)
    trap.refused("train", "-m", "seed=1,2", *words)


def test_help_reads_a_strangers_files_with_the_same_care(trap: Trap):
    words = recipe(trap, f"# @package _global_\n{BOMB}")
    trap.refused("train", "--help", "recipe=theirs", *words[:2])
    file = trap.root / "conf" / "recipe" / "theirs.yaml"
    file.write_bytes(b"\xff\xfe# x\n")
    trap.refused("train", "--help", "recipe", *words[:2])
    file.unlink()
    file.symlink_to("/proc/kmsg")
    trap.refused("train", "--help", "recipe", *words[:2])


def test_a_sweep_is_not_shown_as_one_run(trap: Trap):
    trap.refused("train", "-m", "seed=1,2", "--cfg", "job")


def test_a_number_of_many_digits(trap: Trap):
    run = run_directory(trap, summary={"stages": {}, "words": [f"optim.lr={'9' * 10_000}"]})
    trap.refused("train", "resume=auto", f"run_dir={run}")


@pytest.mark.parametrize("setting", ["setup: [touch {}]", "sbatch: {{wrap: touch {}}}"])
def test_what_a_cluster_runs_besides_is_typed(setting: str, trap: Trap):
    """Neither from a recipe nor from a run that goes on; the same typed is another matter."""
    runner = f"_target_: lmctl.runner.slurm.Slurm\n  cluster: local\n  {setting.format(trap.root / 'sprung')}\n"
    trap.refused("train", *recipe(trap, f"# @package _global_\nrunner:\n  {runner}"))
    trap.refused("train", *recipe(trap, f"# @package _global_\nrunner:\n  {runner}"), "runner.minutes=3")
    trap.refused("train", *recipe(trap, runner.replace("\n  ", "\n"), "runner/theirs.yaml"))


@pytest.mark.parametrize("key", ["partition", "account", "qos"])
def test_a_line_of_sbatch_is_one_line(key: str, trap: Trap):
    trap.refused("train", "runner=slurm", f'runner.{key}="gpu\ntouch {trap.root}/sprung"')
