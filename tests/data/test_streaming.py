"""Streamed sources: resuming from any position, passes over the stream, held-out rows, memory of two blocks."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
import weakref
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import pytest
import small
from command import SMALL, command, environment, metrics
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import run_here, succeed

from lmctl.config.schema import Budget
from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.token_store import TokenStore, store_in_memory
from lmctl.data.hub import Hub
from lmctl.mix.mix import Mix, Sampling, Task
from lmctl.mix.stream import MixStream, Position
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.base import Objective
from lmctl.objective.classify import Classify
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.plan import Plan
from lmctl.train.build_parts import blocks_of, examples_of
from lmctl.train.class_labels import Labels
from lmctl.train.prepare import Prepared, TokenizedCorpus

datasets.disable_progress_bars()
ROWS = 53
"""No multiple of a block, of a batch or of the number of shards."""
BUFFER = 12
KINDS = ["saved", "parquet", "jsonl"]
TOKENIZER = small.tokenizer()


def rows(count: int = ROWS) -> list[dict[str, Any]]:
    """Texts that tell themselves apart; the first ones come again near the end."""
    texts = [f"w{i % 60} w{(i * 7) % 60} w{(i * i) % 60} s{i % 19}" + " w3" * (i % 5) for i in range(count)]
    again = {40: 8, 41: 9, 50: 0}
    return [{"text": texts[again.get(i, i)], "label": "ab"[i % 2]} for i in range(count)]


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / request.param
    data = Dataset.from_list(rows())
    if request.param == "saved":
        data.save_to_disk(folder, num_shards=3)
    elif request.param == "jsonl":
        data.to_json(folder / "train.jsonl")
    else:
        folder.mkdir()
        for shard in range(4):
            data.shard(4, shard).to_parquet(folder / f"train-{shard}.parquet", batch_size=5)
    return str(folder)


def source(path: str, **options: Any) -> Hub:
    return Hub(path, **{"label": "label", "streaming": True, "buffer": BUFFER, "valid_share": 0.3, **options})


def plan_of(*tasks: Task, **changes: Any) -> Plan:
    mix = Mix({f"t{i}": task for i, task in enumerate(tasks)})
    return small.plan(**{"mix": mix, "size": 5, "seq_len": 16, **changes})


def labelled(hub: Hub, split: Any, objective: Objective) -> TokenStore:
    """What `prepare` makes of a split."""
    found = list(hub.rows(split))
    store = store_in_memory((row.texts for row in found), TOKENIZER.backend_tokenizer)
    if objective.label_kind is None:
        return store
    labels = Labels(objective.label_kind, ["a", "b"])
    for row in found:
        labels.add(row)
    return replace(store, labels=labels.arrays()[0], label_names=("a", "b"))


def prepared_for(plan: Plan) -> Prepared:
    corpora = {
        name: TokenizedCorpus(*(labelled(task.data, split, task.objective) for split in ("train", "valid")))  # type: ignore[arg-type]
        for name, task in plan.mix.tasks.items()
    }
    return Prepared(TOKENIZER, small.vocabulary(), corpora, {"tokenizer": "small"})


def stream_of(plan: Plan, prepared: Prepared) -> MixStream:
    """As a process that has just started makes it."""
    tasks = {name: replace(task, data=replace(task.data)) for name, task in plan.mix.tasks.items()}  # type: ignore[type-var]
    plan = replace(plan, mix=replace(plan.mix, tasks=tasks))
    examples = examples_of(plan.mix, plan.model.family, plan.batch, prepared, "train", augmented=True)
    return MixStream(plan.mix, examples, plan.seed, plan.batch.rows, plan.batch.tokens, blocks_of(plan, prepared))


def contents(batches: list[Batch]) -> list[Any]:
    """All that is in batches, to be compared."""
    return [(one.task, {name: value.tolist() for name, value in one.inputs.items()},
             {name: (target.positions.tolist(), target.labels.tolist()) for name, target in one.targets.items()})
            for one in batches]  # fmt: skip


def texts_in(batches: list[Batch]) -> list[str]:
    rows = [row for batch in batches for row in batch.inputs["input_ids"].tolist()]
    return [TOKENIZER.decode(row, skip_special_tokens=True) for row in rows]


def spelled(text: str) -> str:
    """A text as the tokenizer gives it back."""
    return TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=True)


def passes(stream: MixStream, count: int) -> tuple[Counter[str], list[str]]:
    """The texts of the first `count` passes over a stream of one task, and those of the whole in their order."""
    at, order = Position(), []
    while at.blocks.get("t0", {}).get("epoch", 0) < count:
        window = stream.window(at, 0.0, None, 0, 1)
        order += texts_in(window.batches)
        at = window.after
    return Counter(order), order


def test_every_row_is_trained_on_once_in_every_pass_and_none_that_validates(path: str):
    plan = plan_of(Task(Classify(), source(path)), size=1)
    held_out = {row.texts[0] for row in source(path).rows("valid")}
    assert held_out & {row["text"] for row in rows()[40:]}, "some must come again"
    wanted = Counter(spelled(row["text"]) for row in rows() if row["text"] not in held_out)
    prepared = prepared_for(plan)
    once, first = passes(stream_of(plan, prepared), 1)
    assert once == wanted
    twice, both = passes(stream_of(plan, prepared), 2)
    assert twice == wanted + wanted
    assert first == both[: len(first)]
    assert both[len(first) :] != first
    block = [spelled(row["text"]) for row in rows()[:BUFFER] if row["text"] not in held_out]
    assert sorted(first[: len(block)]) == sorted(block)
    assert first[: len(block)] != block


def test_shards_come_in_another_order_in_later_passes(path: str):
    hub, places = source(path), []
    for epoch in range(3):
        at: dict[str, Any] | None = {}
        while at is not None:
            block = hub.block(epoch, at or None, CounterRng(3, "t0/shards"))
            places.append((epoch, [row.where for row in block.rows]))
            at = block.after
    by_pass = [[where for epoch, block in places if epoch == number for where in block] for number in range(3)]
    assert len({tuple(sorted(one)) for one in by_pass}) == 1
    assert len({tuple(one) for one in by_pass}) == (1 if path.endswith("jsonl") else 3)


def test_a_split_that_validates_is_left_out_of_the_stream(tmp_path: Path):
    Dataset.from_list(rows()).to_json(tmp_path / "train.jsonl")
    Dataset.from_list(rows()[30:35]).to_json(tmp_path / "validation.jsonl")
    plan = plan_of(Task(Classify(), source(str(tmp_path), valid_split="validation")), size=1)
    seen, _ = passes(stream_of(plan, prepared_for(plan)), 1)
    assert sum(seen.values()) == ROWS - 5
    assert not set(seen) & {spelled(row["text"]) for row in rows()[30:35]}


WINDOWS = 34
"""Of 5 rows: about three passes over the stream."""


@cache
def undisturbed(path: str, which: str) -> tuple[Plan, Prepared, list[Any], list[str]]:
    """A plan, and what each of its windows holds and where it begins."""
    streamed, classified = Task(MaskedLM(), source(path, label=None)), Task(Classify(), source(path))
    stored = Task(Classify(), source(path, streaming=False), weight=0.5)
    tasks = [streamed, stored] if which == "mix" else [streamed if which == "mlm" else classified]
    changes = {"batch": replace(small.plan().batch, size=None, tokens=64, seq_len=16)} if "tokens" in which else {}
    plan = plan_of(*tasks, **changes)
    prepared = prepared_for(plan)
    stream, at, windows, positions = stream_of(plan, prepared), Position(), [], []
    for _ in range(WINDOWS):
        window = stream.window(at, 0.0, None, 0, 1)
        windows.append(contents(window.batches))
        positions.append(json.dumps(at.state_dict()))
        at = window.after
    assert {json.loads(p)["blocks"].get("t0", {}).get("epoch", 0) for p in positions} >= {0, 1}
    return plan, prepared, windows, positions


@pytest.mark.parametrize(
    ("path", "which"),
    [*product(KINDS, ("mlm", "classify by tokens")), ("saved", "classify"), ("saved", "mix")],
    indirect=["path"],
)
def test_a_position_is_all_that_has_to_be_kept(path: str, which: str):
    plan, prepared, windows, positions = undisturbed(path, which)

    @given(st.integers(0, WINDOWS - 2), st.sampled_from([1, 2]))
    @settings(max_examples=6, deadline=None, derandomize=True, database=None)
    def check(cut: int, world: int) -> None:
        """From any window on a new process, or several, go on as one that was never stopped."""
        streams = [stream_of(plan, prepared) for _ in range(world)]
        at = Position.from_state(json.loads(positions[cut]))
        for expected in windows[cut : cut + 4]:
            parts = [stream.window(at, 0.0, None, rank, world) for rank, stream in enumerate(streams)]
            assert len({json.dumps(part.after.state_dict()) for part in parts}) == 1
            if world == 1:
                assert contents(parts[0].batches) == expected
            else:
                assert rows_of([batch for part in parts for batch in contents(part.batches)]) == rows_of(expected)
            at = parts[0].after

    check()


def rows_of(batches: list[Any]) -> list[Any]:
    """The rows of batches by themselves, whatever they are padded to."""
    rows = [(task, row) for task, inputs, _ in batches for row in inputs["input_ids"]]
    return [(task, [piece for piece in row if piece != small.vocabulary().pad]) for task, row in rows]


def test_no_more_than_two_blocks_are_in_memory(path: str, monkeypatch: pytest.MonkeyPatch):
    plan = plan_of(Task(MaskedLM(), source(path, label=None)))
    stream, at = stream_of(plan, prepared_for(plan)), Position()
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def counting(documents: Any, tokenizer: Any) -> TokenStore:
        store = store_in_memory(documents, tokenizer)
        made.append(weakref.ref(store.documents))
        alive.append(sum(one() is not None for one in made))
        return store

    monkeypatch.setattr("lmctl.train.stream_blocks.store_in_memory", counting)
    for _ in range(WINDOWS):
        at = stream.window(at, 0.0, None, 0, 1).after
    assert len(made) > 6
    assert max(alive) <= 2


def test_a_label_that_the_first_block_had_not_is_an_error_that_names_the_row(tmp_path: Path):
    odd = [*rows(30), {"text": "w1 w2", "label": "c"}]
    Dataset.from_list(odd).to_json(tmp_path / "train.jsonl")
    plan = plan_of(Task(Classify(), source(str(tmp_path))))
    with pytest.raises(DataError, match=r"\[train\] row 31: label 'c' does not occur in the first block of the stream"):
        passes(stream_of(plan, prepared_for(plan)), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": Budget(epochs=2)}, "budget.epochs=2: mix.tasks.t0 is streamed, so nobody knows"),
        ({"sampling": Sampling(alpha=0.5)}, "mix.sampling.alpha=0.5 goes by the sizes of the tasks, and mix.tasks.t0"),
        ({"objective": StreamedLM(), "model": RecurrentLM(1, 8)}, "StreamedLM carries a state from row to row"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_before_any_work(changes: dict[str, Any], message: str):
    rest = {name: value for name, value in changes.items() if name not in ("objective", "sampling")}

    def plan(streaming: bool) -> Plan:
        task = Task(changes.get("objective", MaskedLM()), Hub("no/where", streaming=streaming))
        return replace(small.plan(), mix=Mix({"t0": task}, changes.get("sampling", Sampling())), **rest)

    with pytest.raises(ConfigError) as caught:
        plan(streaming=True)
    assert message in str(caught.value)
    assert "data.streaming=false" in str(caught.value.hint)
    plan(streaming=False)


def test_a_killed_run_on_a_stream_goes_on_to_the_bit(tmp_path: Path):
    rng = random.Random(5)
    texts = [" ".join(rng.choices(["river", "house", "music", "road", "apple", "winter"], k=9)) for _ in range(150)]
    Dataset.from_list([{"text": text} for text in texts]).save_to_disk(tmp_path / "data", num_shards=2)
    words = ["train", "data=hub", f"data.path={tmp_path / 'data'}", "data.streaming=true", "data.buffer=40", *SMALL[1:]]
    words += ["mix=mlm", "batch.seq_len=16", "budget.steps=60", "eval.every=30", "checkpoint.every=4", "resume=auto"]
    there = {"cwd": tmp_path, "env": environment(tmp_path / "cache"), "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(*words, "name=killed"), **there) as killed:
        checkpoints = tmp_path / "runs" / "killed" / "checkpoints"
        while killed.poll() is None and not (checkpoints / "step-00000020").exists():  # in the second pass
            time.sleep(0.002)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    succeed(*words, "name=whole", cwd=tmp_path)
    assert "resume: step-000000" in run_here(*words, "name=killed", cwd=tmp_path)
    assert metrics(tmp_path / "runs" / "killed") == metrics(tmp_path / "runs" / "whole")
    weights = [(tmp_path / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]
