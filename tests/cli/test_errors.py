"""What `lmctl` says when something is wrong: every message to the letter, its exit code, and nothing left behind."""
# ruff: noqa: E501  (messages stand on one line, as they are printed)

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints
from unittest.mock import Mock

import pytest
from command import ROOT
from omegaconf import OmegaConf

from lmctl.cli.explain import report
from lmctl.cli.main import main
from lmctl.config.verb import verbs
from lmctl.core.errors import DataError, Diverged, Stopped

MISTAKES = {
    "trian": "error: no verb 'trian'; did you mean train?\n  lmctl --help lists the verbs",
    "train precision=fp61": "error: no option 'fp61' in group 'precision'; did you mean precision=fp16?\n  options: <precision>",
    "train lr=0.1": "error: unknown key 'lr'; did you mean optim.lr?",
    "train +batch.sise=8": "error: unknown key 'batch.sise'; did you mean batch.size?",
    "generate max_length=20": "error: unknown key 'max_length'; did you mean max_new_tokens?",
    "translate num_beams=4": "error: unknown key 'num_beams'; did you mean beams?",
    "predict batch_size=4": "error: unknown key 'batch_size'; did you mean batch?",
    "train +typo=1": "error: unknown key 'typo'\n  lmctl train --help lists the keys",
    "train +optim.typo=1": "error: unknown key 'optim.typo'\n  optim takes: lr, weight_decay, betas, eps, layer_decay, cautious_updates, cautious_decay, state_bits, paged",
    "train precision=fp16 precision.initial_scal=2": "error: unknown key 'precision.initial_scal'; did you mean precision.initial_scale?",
    "train data.path=corpus": "error: unknown key 'data.path' of data=pydocs\n  data=hub, data=jsonl, data=parallel, data=table, data=text have it: write one of them as well",
    "train +optim.lr=1": "error: 'optim.lr' has a value already\n  write optim.lr=..., without the +",
    "train +precision=bf16": "error: 'precision' has a value already\n  write precision=..., without the +",
    "train optim.lr=abc": "error: optim.lr must be a number, got abc",
    "train batch.size=1.5": "error: batch.size must be a whole number, got 1.5",
    "train budget.tokens=1e6": "error: budget.tokens must be a whole number, got 1000000.0\n  write 1000000",
    "train compile=maybe": "error: compile must be true or false, got maybe",
    "train seed=null": "error: seed cannot be null",
    "train budget=3": "error: budget is a section, not a value\n  set its keys: budget.KEY=...",
    "train ~seed": "error: '~seed': nothing can be left out\n  choose another option or value: seed=...",
    "train quantize=int8_dynamic": "error: lmctl train takes no 'quantize'; lmctl eval, export do\n  groups: model, data, augment, tokenizer, precision, adversary, compression, distill, optim, schedule, average, runner, tracker, mix, recipe",
    "train quantize.scale=pow2": "error: lmctl train takes no 'quantize'; lmctl eval, export do\n  groups: model, data, augment, tokenizer, precision, adversary, compression, distill, optim, schedule, average, runner, tracker, mix, recipe",
    "eval model_path=m quantize=int8": "error: no option 'int8' in group 'quantize'\n  options: <quantize>",
    "eval model_path=m quantize.scale=pow2": "error: unknown key 'quantize.scale': no option of quantize is chosen\n  quantize=int8_dynamic, quantize=int8_weight_only have it",
    "eval model_path=m quantize=int8_dynamic precision=int8_full": "error: quantize=int8_dynamic and precision=int8_full both say how weights of linear layers are kept or multiplied\n  nearest: quantize=int8_dynamic by itself, or with precision=bf16 for what is not int8",
    "train data=text": "error: 'data.path' is required\n  give it as: data.path=...",
    "generate": "error: 'model_path' is required\n  give it as: lmctl generate runs/NAME, or model_path=...",
    "compare": "error: 'runs' is required\n  give it as: lmctl compare runs/NAME, or runs=...",
    "train name=${nope}": "error: name refers to 'nope', which does not exist",
    "train optim.lr=[1": "error: optim.lr must be a number, got [1",
    "train optim.lr": "error: cannot read 'optim.lr'\n  a setting is written key=value: optim.lr=...",
    "train 0.1": "error: cannot read '0.1'\n  an override looks like key=value; quote what has commas, spaces or brackets: 'key=\"a, b\"'",
    "plan runner=[[0,1],[1,2]]": "error: runner=[[0,1],[1,2]]: a config group takes the name of an option, or a list of names\n  options: <runner>",
    "train schedule=[1,2]": "error: schedule=[1,2]: a config group takes the name of an option, or a list of names\n  options: <schedule>",
    "train fp16": "error: cannot read 'fp16'\n  did you mean precision=fp16?",
    "train bert_mini": "error: cannot read 'bert_mini'\n  did you mean model=bert_mini?",
    "train config.yaml": "error: cannot read 'config.yaml'\n  to start from a config file write --from config.yaml",
    "train budget.steps:30": "error: cannot read 'budget.steps:30'\n  write budget.steps=30",
    "train model = bert_tiny": "error: cannot read 'model'\n  no spaces around the =: model=bert_tiny",
    "train model =bert_tiny seed=2": "error: cannot read 'model'\n  no spaces around the =: model=bert_tiny",
    "train ~optim": "error: '~optim': nothing can be left out\n  choose another option or value: optim=...",
    "train --lr 1e-3": "error: unknown flag '--lr'\n  settings are written key=value, without dashes: optim.lr=1e-3",
    "train --batch-size=4": "error: unknown flag '--batch-size'\n  settings are written key=value, without dashes: batch.size=4",
    "train --epochs 3": "error: unknown flag '--epochs'\n  settings are written key=value, without dashes: budget.epochs=3",
    "train --data-path x": "error: unknown flag '--data-path'\n  settings are written key=value, without dashes: data.path=x",
    "train --hidden_size=64": "error: unknown flag '--hidden_size'\n  settings are written key=value, without dashes: model.hidden=64",
    "train -lr 3": "error: unknown flag '-lr'\n  settings are written key=value, without dashes: optim.lr=3",
    "predict --model runs/x": "error: unknown flag '--model'\n  settings are written key=value, without dashes: model_path=runs/x",
    "generate --max_length 20": "error: unknown flag '--max_length'\n  settings are written key=value, without dashes: max_new_tokens=20",
    "train optim.learning_rate=1": "error: unknown key 'optim.learning_rate'; did you mean optim.lr?",
    "train runner=ddp runner.gpus=8": "error: unknown key 'runner.gpus'; did you mean runner.processes?",
    "train data=train.csv": "error: no option 'train.csv' in group 'data'\n  did you mean data=table data.path=train.csv?",
    "train data=nyu-mll/glue": "error: no option 'nyu-mll/glue' in group 'data'\n  did you mean data=hub data.path=nyu-mll/glue?",
    "train --from .": "error: --from .: there is no config.yaml in it\n  give a run's directory",
    "data=text": "error: no verb 'data=text'\n  the verb comes first: lmctl train data=text",
    "list adamw": "error: no group 'adamw'; did you mean optim.adamw?\n  groups: adversary, augment, average, compression, data, distill, export, mix, model, objective, optim, precision, quantize, recipe, runner, schedule, tokenizer, tracker",
    "train --fp16": "error: unknown flag '--fp16'\n  settings are written without dashes: precision=fp16",
    "train learning_rate=0.1": "error: unknown key 'learning_rate'; did you mean optim.lr?",
    "train device=cpu": "error: unknown key 'device'; did you mean runner=cpu?",
    "train -m device=cuda:0 seed=1,2": "error: unknown key 'device'; did you mean runner=gpu?",
    "train dataset=imdb": "error: unknown key 'dataset'; did you mean data=hub data.path=imdb?",
    "train dataset=corpus/a.txt optimizer=Adam": "error: unknown key 'dataset'; did you mean data=text data.path=corpus/a.txt?\nerror: unknown key 'optimizer'; did you mean optim=adamw?",
    "train scheduler=plateau": "error: unknown key 'scheduler'; did you mean schedule?",
    "train --device cuda": "error: unknown flag '--device'\n  settings are written key=value, without dashes: runner=gpu",
    "train --model bert-base-uncased": "error: unknown flag '--model'\n  settings are written key=value, without dashes: init_from=bert-base-uncased",
    "train bf16=true": "error: unknown key 'bf16'; did you mean precision=bf16?",
    "train output_dir=x": "error: unknown key 'output_dir'; did you mean run_dir?",
    "train model=bert-base-uncased": "error: no option 'bert-base-uncased' in group 'model'\n  did you mean init_from=bert-base-uncased?",
    "train data=./x.csv": "error: no option './x.csv' in group 'data'\n  did you mean data=table data.path=./x.csv?",
    "train -m seed=1,2 hydra/launcher=joblib": "error: no option 'joblib' in group 'hydra/launcher'\n  did you mean hydra.launcher.n_jobs=2 (a sweep's jobs at the same time, each in a process of its own)?",
    "train -m seed=1,2 hydra/sweeper=optuna": "error: no option 'optuna' in group 'hydra/sweeper'\n  did you mean lmctl search?",
    "train mix=rtd model.lora_rank=4": "error: unknown key 'model.lora_rank' of model=electra_tiny\n  model=pretrained has it: write one of them as well",
    "train model=gpt2_tiny mix=clm model.feed_forward=9": "error: unknown key 'model.feed_forward' of model=gpt2_tiny\n  model=bert_base, model=bert_mini, model=bert_small, model=bert_tiny, model=electra_small, model=electra_tiny, model=llama_base, model=llama_small, and 10 more have it",
    "generate model_path = runs/x": "error: cannot read 'model_path'\n  no spaces around the =: model_path=runs/x",
    "generate runs/x text more": "error: cannot read 'more'\n  did you mean prompt=more?",
    "export runs/nowhere": "error: model_path=runs/nowhere: no such directory",
    "export model_path=x dtype=bf16 format=onnx": "error: dtype=bf16 is not for format=onnx, which has fp32, fp16\n  nearest: dtype=fp16",
    "export model_path=x dtype=q8_0": "error: dtype=q8_0 is not for format=hf, which has fp32, bf16, fp16\n  nearest: format=gguf",
    "export model_path=x format=gguf quantize=int8_dynamic": "error: quantize=int8_dynamic is not for format=gguf\n  nearest: dtype=q8_0",
    "export model_path=x quantize=int8_dynamic": "error: quantize=int8_dynamic is not for format=hf\n  nearest: format=onnx",
    "export model_path=x format=onnx quantize=int8_dynamic dtype=fp16": "error: quantize=int8_dynamic starts from float32, and dtype=fp16 is asked for\n  leave dtype out",
    "export model_path=x push=me": "error: push must be USER/NAME, got 'me'",
    "export model_path=x format=onix": "error: no option 'onix' in group 'format'; did you mean format=onnx?\n  options: <export>",
    "export model_path=x --format onnx": "error: unknown flag '--format'\n  settings are written key=value, without dashes: format=onnx",
    "export model_path=x output_dir=y": "error: unknown key 'output_dir'; did you mean out?",
    "export model_path=x push_to_hub=me/x": "error: unknown key 'push_to_hub'; did you mean push?",
    "convert": "error: no verb 'convert'\n  lmctl export format=hf|onnx|gguf writes a model for other programs",
    "eval model=runs/x": "error: lmctl eval takes no 'model'; did you mean model_path=...?",
    "generate path=runs/x": "error: unknown key 'path'; did you mean model_path?",
    "resume": "error: lmctl resume does not say which run\n  lmctl resume RUN, such as lmctl resume runs/mine",
    "resume nowhere": "error: there is no run in nowhere\n  give the folder of a run, such as runs/mine",
    "train precision=bf16,fp16": "error: precision=bf16,fp16 gives several values to one run\n  -m runs them all, one after the other; a list is written precision=[bf16,fp16]",
    "train objective=mlm": "error: 'objective' is not chosen here; did you mean objective@mix.tasks.corpus.objective?",
    "train mix.tasks.corpus.objective=mln": "error: no option 'mln' in group 'objective' (mix.tasks.corpus.objective); did you mean mix.tasks.corpus.objective=mlm?\n  options: <objective>",
    "train --multirn": "error: unknown flag '--multirn'; did you mean --multirun?",
    "train --cfg jobs": "error: --cfg jobs: there is job, hydra, all",
    "train --config-dir": "error: --config-dir needs a value",
    "train --config-dir nowhere": "error: --config-dir nowhere: no such directory",
    "train --config-path x": "error: --config-path would hide lmctl's own options\n  add yours with --config-dir FOLDER",
    "train --from nowhere.yaml": "error: --from nowhere.yaml: No such file or directory\n  give the config.yaml of a run",
    "train --experimental-rerun x": "error: --experimental-rerun unpickles a file, which can run any code, and is refused\n  repeat a run with: lmctl train --from runs/NAME/config.yaml",
    "train resume.alow=[data]": "error: unknown key 'resume.alow'; did you mean resume.allow?",
    "train precision._target_=os.system": "error: precision._target_=os.system is outside the trusted packages (lmctl)\n  if the code is yours, add trusted=[os]",
    "train trusted=os": "error: trusted must be a list\n  one thing is a list as well: trusted=[...]",
    "doctor only=resume": "error: only must be a list\n  one thing is a list as well: only=[...]",
    "resum runs/x": "error: no verb 'resum'; did you mean resume?\n  lmctl --help lists the verbs",
    "train trusted=[os] precision._target_=os.system": "error: precision._target_=os.system is not a component (a dataclass)",
    "train +hydra.callbacks.x._target_=os.system": "error: hydra.callbacks.x._target_=os.system names code for Hydra to run, and is refused\n  lmctl's own components go into config groups; launchers and sweepers come as installed Hydra plugins",
    "train hydra.launcher._target_=os.system": "error: hydra.launcher._target_=os.system names code for Hydra to run, and is refused\n  lmctl's own components go into config groups; launchers and sweepers come as installed Hydra plugins",
    "train name=hf_abcdefghijklmnopqrstuvwxyz": "error: the value of 'name' looks like an access token, and overrides are recorded\n  put it into the environment (HF_TOKEN), or log in with: hf auth login",
    "train name=${oc.env:HF_TOKEN}": "error: name reads a secret from the environment, and would record it: ${oc.env:HF_TOKEN}",
    "train -m +typo=1 seed=1,2": "error: unknown key 'typo'\n  lmctl train --help lists the keys",
    "train mix=clm_stream model=gpt2_tiny": "error: mix.tasks.corpus: StreamedLM carries a state from row to row, and Gpt2 has none\n  nearest: mix=clm, or for this mix model=lstm_tiny",
    "train -m adversary=noise adversary.augment.typ_rate=0.05 seed=1,2": "error: unknown key 'adversary.augment.typ_rate'; did you mean adversary.augment.typo_rate?",
    "train -m precision=fp32,fp61": "error: no option 'fp61' in group 'precision'; did you mean precision=fp16?\n  options: <precision>",
    "train -m batch.seq_len=32,4": "error: batch.seq_len must be at least 8, got 4",
    "train -m hydra.launcher.n_job=2": "error: unknown key 'hydra.launcher.n_job'; did you mean hydra.launcher.n_jobs?",
    "train -m hydra.launcer.n_jobs=2": "error: hydra.launcer.n_jobs is no setting of Hydra; did you mean hydra.launcher.n_jobs?",
    "train -m hydra/launcher=proces seed=1,2": "error: no option 'proces' in group 'hydra/launcher'; did you mean hydra/launcher=process?\n  options: basic, process",
    "train -m hydra/launcher=jobilb seed=1,2": "error: no option 'jobilb' in group 'hydra/launcher'\n  did you mean hydra.launcher.n_jobs=2 (a sweep's jobs at the same time, each in a process of its own)?",
    "train -m hydra/sweeper=optna seed=1,2": "error: no option 'optna' in group 'hydra/sweeper'\n  did you mean lmctl search?",
    "train precision=BF16": "error: no option 'BF16' in group 'precision'; did you mean precision=bf16?\n  options: <precision>",
    "train precision=": "error: precision= names no option\n  options: <precision>",
    "export m format=": "error: format= names no option\n  options: <export>",
    "export m format=onxx": "error: no option 'onxx' in group 'format'; did you mean format=onnx?\n  options: <export>",
    "export m export=onxx": "error: no option 'onxx' in group 'export'; did you mean export=onnx?\n  options: <export>",
    "export m formt=onnx": "error: unknown key 'formt'; did you mean format?",
    "export m format=llama.cpp": "error: no option 'llama.cpp' in group 'format'\n  did you mean format=gguf?",
    "export m format=onnx format.opset=99": "error: format.opset must be from 18 to 23, got 99",
    "export m format=onnx format.opst=18": "error: unknown key 'format.opst'; did you mean format.opset?",
    "export m format.opset=18": "error: unknown key 'format.opset' of format=hf\n  format=onnx has it: write one of them as well",
    "doctor resume": "error: cannot read 'resume'\n  did you mean only=[resume]?",
    "train -m seed=range(1,3,0)": "error: seed=range(1,3,0): a range with steps of 0 has no end\n  such as 'optim.lr=tag(log,interval(1e-4,1e-2))', 'model.hidden=range(64,257,64)' or model.layers=1,2,4",
    "train runner=ddp runner.rendezvous=tuna:99999": "error: runner.rendezvous must be HOST:PORT, got 'tuna:99999' (ports are 1 to 65535)",
    "train runner=ddp runner.rendezvous=http://tuna:29500": "error: runner.rendezvous must be HOST:PORT, got 'http://tuna:29500' (ports are 1 to 65535)",
    "train optim.lrr=1 optm=sgd batch.sizee=3": "error: unknown key 'optim.lrr'; did you mean optim.lr?\nerror: unknown key 'optm'; did you mean optim?\nerror: unknown key 'batch.sizee'; did you mean batch.size?",
    "train optim=sgdd schedule=linea data=tex data.path=x": "error: no option 'sgdd' in group 'optim'; did you mean optim=sgd?\n  options: <optim>\nerror: no option 'linea' in group 'schedule'; did you mean schedule=linear?\n  options: <schedule>\nerror: no option 'tex' in group 'data'; did you mean data=text?\n  options: <data>",
    "train budget.steps=x seed=y optim.lr=-1 optm.lr=2": "error: unknown key 'optm'; did you mean optim?",
    "train budget.steps=x seed=y optim.lr=-1 model.layers=z": "error: budget.steps must be a whole number, got x\nerror: seed must be a whole number, got y\nerror: model.layers must be a whole number, got z\nerror: optim.lr must be above 0, got -1.0",
    "train model.heads=3 precision=int8 precision.scale=x batch.seq_len=4 seed=-1": "error: model.hidden must be a multiple of heads, got 128 and 3\nerror: precision.scale must be float or pow2 (a power of two: fixed point), got 'x'\nerror: batch.seq_len must be at least 8, got 4\nerror: seed must be from 0 to 2**63 - 1, got -1",
    "train mix=clm model=bert_tiny precision=int8_lora distill=logits batch.seq_len=600": "error: batch.seq_len=600 is longer than the model's 512 positions\n  set batch.seq_len=512 or model.max_positions=600\nerror: precision: int8_lora freezes a model that was trained before, and Bert starts from scratch; give init_from=... model.lora_rank=8, or nearest: precision=int8_weights\nerror: mix.tasks.corpus: CausalLM needs a decoder, and Bert is an encoder\n  nearest: model=gpt2_tiny, or for this model mix=mlm\nerror: distill: there is no teacher\n  teacher=RUN, a model directory or a hub id; or distill=none",
    "train model=bert_tiny init_from=runs/other": "error: init_from=runs/other is of no use to Bert, which starts from scratch\n  leave model= out, or give model=pretrained",
    "train --help optm": "error: --help optm: no group, option or key of that name; did you mean optim?\n  lmctl train --help",
    "train --help optim.rl": "error: --help optim.rl: no group, option or key of that name; did you mean optim.lr?\n  lmctl train --help",
    "train --help optim=adamx": "error: no option 'adamx' in group 'optim'; did you mean optim=adamw?\n  options: <optim>",
    "list presicion": "error: no group 'presicion'; did you mean precision?\n  groups: adversary, augment, average, compression, data, distill, export, mix, model, objective, optim, precision, quantize, recipe, runner, schedule, tokenizer, tracker",
}  # fmt: skip


def options(group: re.Match[str]) -> str:
    """What stands for `<optim>` in a message: the options there are."""
    return ", ".join(sorted(file.stem for file in (ROOT / "conf" / group[1]).glob("*.yaml")))


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake(line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.rstrip("\n") == re.sub(r"<(\w+)>", options, MISTAKES[line])
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


WRITES = sorted(
    verb for verb in verbs() if "IsResult" in str(get_type_hints(verbs()[verb].schema, include_extras=True).get("out"))
)
"""Verbs that write a file at their end."""


@pytest.mark.parametrize("verb", WRITES)
def test_where_a_result_cannot_be_written_is_said_before_any_work(
    verb: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(verbs()[verb]), "run", Mock(side_effect=AssertionError("it ran")))
    Path("note").write_text("")
    words = [verb, *(["model_path=m"] if "model_path" in verbs()[verb].words else [])]
    words += ["runs=[note]"] if verb == "compare" else []
    for out, said in (
        ("nowhere/x", "out=nowhere/x: there is no directory nowhere"),
        ("note/x", "out=note/x: note is a file, not a folder"),
        (".", "out=. is a directory, and a file is written"),
        ("", "out=. is a directory, and a file is written"),
        ("/dev/null", "out=/dev/null is no ordinary file"),
        ("x" * 300, "out: xxxxxxxxxxxxxxxxxxxx... has 300 bytes"),
    ):
        assert main([*words, f"out={out}"]) == 2
        assert f"error: {said}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_every_result_file_is_tried():
    files = [verb for verb in verbs() if "out" in get_type_hints(verbs()[verb].schema)]
    assert set(files) - set(WRITES) == {"export"}, "which writes a directory"


def test_an_export_is_refused_before_any_work(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lmctl.verbs.export.Export.written", Mock(side_effect=AssertionError("it ran")))
    Path("m").mkdir()
    Path("m/config.json").write_text("{}")
    assert main(["export", "m", "out=m/config.json/x"]) == 2
    said = "error: out=m/config.json/x: m/config.json is a file, not a folder\n  choose another out=...\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("verb", ["eval", "export", "generate", "predict", "score", "translate"])
def test_a_file_is_no_model(verb: str, tmp_path: Path):
    """torch is not imported for this, so it is said at once."""
    (tmp_path / "m.txt").write_text("a\n")
    more = {"generate": ["prompt=a"]}.get(verb, [])
    code = f"import sys; from lmctl.cli.main import main; code = main({[verb, 'm.txt', *more]!r}); "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}assert 'torch' not in sys.modules, 'torch'; sys.exit(code)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "error: model_path=m.txt is a file, and a model is a directory" in done.stderr
    assert done.returncode == 2, done.stderr


def test_flags_and_overrides_come_in_any_order(capsys: pytest.CaptureFixture[str]):
    for line in ("--cfg job seed=7 name=a", "seed=7 --cfg job name=a", "seed=7 name=a --cfg=job", "seed=7 -c job"):
        assert main(["train", *line.split()]) == 0
        assert "seed: 7\n" in capsys.readouterr().out


def test_what_was_typed_is_shown_as_it_was_typed(capsys: pytest.CaptureFixture[str]):
    assert main(["generate", "prompt=yes, [MASK], 'no'\\", "model_path=语料/第1章.txt", "--cfg", "job"]) == 0
    cfg = OmegaConf.create(capsys.readouterr().out)
    assert (cfg.prompt, cfg.model_path) == ("yes, [MASK], 'no'\\", "语料/第1章.txt")


def test_a_broken_file_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "precision").mkdir()
    broken = tmp_path / "precision" / "mine.yaml"
    broken.write_text("# mine\n_target_: x\n  oops: [\n")
    assert main(["train", "--config-dir", str(tmp_path), "precision=mine"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {broken}:3: mapping values are not allowed ")  # here, or in this context
    assert said.count("\n") == 1


@pytest.mark.parametrize("folder", ["precision", "mix", "."])
@pytest.mark.parametrize(("content", "message"), [
    (b"_target_: caf\xe9\n", ": not UTF-8 text, at byte offset 13"),
    (b"\xff\xfe_\0t\0", ": not UTF-8 text, at byte offset 0"),
    (b"a: 1\n\0b: 2\n", ": not YAML: '\\x00' at character 5 is not allowed there"),
    (b"a: \x1b[0m\n", ": not YAML: '\\x1b' at character 3 is not allowed there"),
])  # fmt: skip
def test_a_file_that_yaml_cannot_be_read_from_is_named(tmp_path, capsys, folder, content, message):
    (tmp_path / folder).mkdir(exist_ok=True)
    broken = tmp_path / folder / "mine.yaml"
    broken.write_bytes(content)
    chosen = ["--config-name", "mine"] if folder == "." else [f"{folder}=mine"]
    assert main(["train", "--config-dir", str(tmp_path), *chosen]) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"error: {broken}{message}"


def test_config_of_a_run_is_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What a stranger's config.yaml might try."""
    for text, message in {
        "hydra: {callbacks: {x: {_target_: os.system}}}": "has a 'hydra' entry, which the config of a run never has",
        "defaults: [train]": "has a 'defaults' entry, which the config of a run never has",
        "a: &a [1]\nb: [*a, *a]": "has YAML anchors, which the config of a run never has",
        "[1, 2]": "not the config of a run",
        "x" * (1 << 21): "larger than 1 MiB, so not the config of a run",
    }.items():
        (tmp_path / "config.yaml").write_text(text)
        assert main(["train", "--from", str(tmp_path / "config.yaml")]) == 2
        assert capsys.readouterr().err == f"error: --from {tmp_path}/config.yaml: {message}\n"


@pytest.fixture
def saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The config of a run, as the run would have written it."""
    assert main(["train", "--cfg", "job", "--resolve", "name=old", "optim.lr=0.5", "precision=fp16"]) == 0
    path = tmp_path / "config.yaml"
    path.write_text(capsys.readouterr().out)
    return path


def test_from_repeats_a_run_with_changes_on_top(saved: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--from", str(saved), "seed=9", "precision=bf16", "schedule.warmup=0.5", "--cfg", "job"]) == 0
    printed = capsys.readouterr().out
    for line in ("lr: 0.5", "seed: 9", "_target_: lmctl.precision.bf16.Bf16", "warmup: 0.5", "name: train-"):
        assert line in printed
    assert "initial_scale" not in printed, "an option named on the command line replaces the saved one as a whole"
    assert "runs/old" not in printed


def test_from_never_trusts_what_the_file_trusts(saved: Path, capsys: pytest.CaptureFixture[str]):
    text = saved.read_text().replace("lmctl.precision.fp16.Fp16", "evil.Code").replace("trusted: []", "trusted: [evil]")
    saved.write_text(text)
    assert main(["train", "--from", str(saved)]) == 2
    assert "precision._target_=evil.Code is outside the trusted packages (lmctl)" in capsys.readouterr().err


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("a.txt:3: bad row", "repair it"), 3, "error: a.txt:3: bad row\n  repair it\n"),
        (Diverged("loss is nan"), 4, "error: loss is nan\n"),
        (Stopped("stopped by SIGTERM", "go on"), 75, "stopped: stopped by SIGTERM\n  go on\n"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"), 1, "error: another process of this run has ended, and this one cannot go on alone\n  its message says why, if it was not killed; resume=auto goes on from the last checkpoint\n"),
        (OutOfMemoryError("CUDA out of memory"), 5, "error: out of memory: CUDA out of memory\n  use a smaller batch.micro (same result) or batch.seq_len\n"),
        (MemoryError(), 5, "error: out of memory: MemoryError\n  shorter texts or rows (while they are read), or more memory\n"),
        (OSError(errno.ENOSPC, "No space", "x"), 6, "error: no space left on the disk: x\n  free some space and run it again\n"),
        (OSError(errno.EACCES, "No", "x"), 6, "error: no permission: x\n  check its permissions, or choose another place\n"),
        (OSError(errno.EROFS, "No", "x"), 6, "error: no permission: x\n  check its permissions, or choose another place\n"),
        (KeyError("[/red]"), 1, "error: KeyError: '[/red]'\n  LMCTL_TRACEBACK=1 shows the full traceback\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_exit_codes(error: Exception, code: int, text: str, capsys: pytest.CaptureFixture[str]):
    assert report(error) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            ZeroDivisionError("[/bold] of nothing"),
            1,
            r"error: ZeroDivisionError: \[/bold\] of nothing\n  at lmctl/cli/application\.py:.*\n  LMCTL_TRACEBACK=1 shows the full traceback\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["nobody foresaw it", "interrupted"],
)
def test_what_ends_a_verb_is_said(error: BaseException, code: int, said: str, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lmctl.verbs.peek.Peek.run", Mock(side_effect=error))
    assert main(["peek"]) == code
    assert re.fullmatch(said, capsys.readouterr().err)


def test_other_ranks_leave_common_errors_to_the_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "lr=1"]) == 2
    assert capsys.readouterr().err == ""
    assert report(DataError("bad row")) == 3
    assert capsys.readouterr().err == "rank 1: error: bad row\n"


def test_ranks_agree_on_a_name(monkeypatch: pytest.MonkeyPatch):
    from lmctl.cli.arguments import stamp

    assert stamp() != stamp()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert stamp() == stamp()


def test_a_place_that_is_none_in_an_options_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _glo bal_\nseed: 3\n")
    assert main(["plan", "--config-dir", str(tmp_path), "recipe=mine", "name=y"]) == 2
    assert "'@package _glo bal_'" in capsys.readouterr().err
