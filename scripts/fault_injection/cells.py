"""The training runs that are disturbed: one of every kind of state that a checkpoint or a cache has to bring back.

Each is a line of `goldens/cells.py`, whose inputs and teachers they use: twelve steps, a checkpoint after every second,
a validation after every fourth and a line of the record after every third, so that no two of them always come together.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from goldens.cells import CELLS as GOLDEN
from goldens.cells import CLM, DOCS, MLM, TEACHERS, TEXT

CONF = Path(__file__).resolve().parents[2] / "conf"
LENGTH = "budget.steps=12 checkpoint.every=2 checkpoint.keep=3 eval.every=4 log.every=3"
_STREAM = "data=hub data.path=hub data.streaming=true data.buffer=40 data.valid_share=0.2 tokenizer.vocab_size=300"

_TOPICS = """  topics:
    data: {path: rows.tsv, label: label, valid_share: 0.2}
"""


def write_small_mixes(home: Path) -> None:
    """The mixes of two tasks, with a small table for the second."""
    for name in ("multitask", "curriculum"):
        text = (CONF / "mix" / f"{name}.yaml").read_text(encoding="utf-8")
        text = text.replace("tasks.topics.data: pydocs_topics", "tasks.topics.data: table").replace(
            "  topics:\n", _TOPICS
        )
        file = home / "small_conf" / "mix" / f"small_{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _golden(name: str) -> str:
    return GOLDEN[name][0]


def _with_small_topics(name: str) -> str:
    """A cell whose second task reads rows.tsv instead of the many files that come with Python."""
    return f"{_golden(name)} --config-dir small_conf".replace("mix=", "mix=small_")


_LINES = {
    "mlm_nsp": MLM.replace("mix=mlm", "mix=mlm_nsp"),
    "rtd": _golden("mix/rtd"),
    "clm_bf16": _golden("precision/bf16"),
    "mlm_fp16": f"{MLM} precision=fp16 precision.growth_interval=2",
    "clm_stream_lstm": _golden("mix/clm_stream_lstm"),
    "denoise_t5": _golden("mix/denoise_t5"),
    "translate_rnn": _golden("mix/translate_rnn"),
    "multitask": _with_small_topics("mix/multitask"),
    "curriculum": f"{_with_small_topics('mix/curriculum')} augment=word_dropout",
    "hub_mlm": MLM.replace(TEXT, _STREAM),
    "hub_clm": CLM.replace(TEXT, _STREAM),
    "early_stop": f"{MLM} early_stop.patience=2 optim.lr=0.3",
    "sgd_wsd": _golden("mix/mlm_sop"),
    "muon": _golden("train/muon"),
    "accumulation": _golden("train/micro_batches"),
    "epochs": f"{_golden('train/epochs')} budget.epochs=1",
    "adamw8bit": f"{MLM} optim=adamw8bit model.hidden=64",
    "bf16_pure": _golden("precision/bf16_pure"),
    "kahan": _golden("precision/bf16_kahan"),
    "int8_weights": _golden("precision/int8_weights"),
    "int8_full_adamw8bit": _golden("precision/int8_full"),
    "int8_lora": _golden("precision/int8_lora"),
    "topk_int8": _golden("compression/topk_int8_simulated"),
    "powersgd": _golden("compression/powersgd_simulated"),
    "onebit": _golden("compression/onebit_simulated"),
    "simulated": _golden("train/two_simulated"),
    "freelb": _golden("adversary/freelb"),
    "smart": _golden("adversary/smart"),
    "rdrop_fp16": f"{_golden('adversary/rdrop')} precision=fp16",
    "noise": _golden("adversary/noise"),
    "char_noise": _golden("augment/char_noise"),
    "distill_control": f"{_golden('distill/control')} {DOCS}",
    "distill_cached": f"{_golden('distill/cached')} {DOCS}",
    "distill_hidden": f"{_golden('distill/hidden')} {DOCS}",
    "distill_on_policy": f"{_golden('distill/on_policy')} {DOCS}",
    "skips": f"{MLM} on_nonfinite=skip spike.action=skip spike.sigma=2 spike.steps=8",
    "ddp_topk_int8": f"{_golden('compression/topk_int8')} watchdog_s=15",
}
_OTHER_LENGTHS = {"epochs": LENGTH.replace("budget.steps=12 ", ""), "early_stop": LENGTH.replace("12", "30")}

CELLS = {name: [*shlex.split(line), *shlex.split(_OTHER_LENGTHS.get(name, LENGTH))] for name, line in _LINES.items()}
"""The words of each cell, the verb first; without run_dir."""

LAUNCHED = {"ddp_topk_int8", "distill_control"}
"""Cells that start processes of their own, which take the seconds that a process takes to begin."""

TEACHER_LINES = {f"runs/{name}": shlex.split(line) for name, line in TEACHERS.items()}
"""The runs that cells read, by directory, and the words that train them."""
