"""What `lmctl plan` counts, against real networks and real autograd; no step is trained here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planned import small_run
from small import prepared as small_prepared
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lmctl.cli.main import main
from lmctl.config.compose import Composer
from lmctl.core.errors import ConfigError
from lmctl.cost import synthetic_text
from lmctl.cost.communication import link_of
from lmctl.cost.estimate import estimate, parameters_of
from lmctl.cost.known_data import look
from lmctl.cost.memory import import_for, memory_of
from lmctl.cost.memory_tracker import ACTIVATIONS, LOGITS, ROWS, WEIGHTS, MemoryTracker
from lmctl.cost.rehearsal import rehearse
from lmctl.cost.rows import examples_for, samples
from lmctl.cost.validate import Checked, build, checked
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.plan import Plan
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp32 import Fp32
from lmctl.runner.places import Ddp
from lmctl.train.build_parts import heads_of
from lmctl.train.learner import Learner, Pass, Share
from lmctl.verbs.plan import Request

MIXES = ("rtd", "mlm_nsp", "mlm", "clm", "denoise", "translate", "clm_stream", "classify")
TINY = [name for name in Composer("plan").options("model") if name.endswith("_tiny")]


def legal_run(model: str) -> Checked:
    """A run of the model on the first mix that it can learn."""
    for mix in MIXES:
        try:
            return run_of(f"mix={mix}", f"model={model}", "tokenizer.vocab_size=300")
        except ConfigError:
            continue
    raise AssertionError(f"no mix suits {model}")


def run_of(*words: str) -> Checked:
    return checked(plan_of(*words, "runner=cpu"), read=False)


def plan_of(*words: str) -> Plan:
    return Plan.from_config(Request.of(Composer("plan").task([*words, "name=planned"])).run)


# Parameters


@pytest.mark.parametrize("model", TINY)
def test_parameters_are_those_of_the_real_network(model: str):
    run = legal_run(model)
    real = run.plan.model.load(run.known.vocabulary, heads_of(run.plan, run.known.prepared))
    counted = parameters_of(run.outline)
    assert all(parameter.is_meta for parameter in run.outline.parameters())
    assert counted == parameters_of(real)
    assert counted.total == sum(p.numel() for p in real.parameters())
    assert 0 < counted.embeddings < counted.total


def test_tied_embeddings_count_once():
    tied, apart = (
        parameters_of(run_of("mix=clm", "model=llama_tiny", f"model.tied_embeddings={tie}").outline)
        for tie in ("true", "false")
    )
    assert apart.total - tied.total == apart.rest - tied.rest == tied.embeddings


def test_a_trained_model_is_planned_from_its_config_alone(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    run, _ = small_run()
    network = run.plan.model.load(run.known.vocabulary, heads_of(run.plan, run.known.prepared))
    network.pretrained().save_pretrained("trained")
    small_prepared().tokenizer.save_pretrained("trained")
    monkeypatch.setattr("lmctl.model.artifact.reader.weights_of", lambda *_, **__: pytest.fail("weights are read"))
    start = ["init_from=trained", "model=pretrained", "tokenizer=pretrained", "tokenizer.path=trained"]
    again = run_of(*start, "batch.seq_len=32", "model.freeze=1")
    counted = parameters_of(again.outline)
    assert counted.total == sum(p.numel() for p in network.parameters())
    assert counted.trainable < counted.total
    assert again.known.vocabulary.size == small_prepared().vocabulary.size
    words = ["teacher=trained", "distill=logits", "tokenizer=pretrained", "tokenizer.path=trained"]
    taught = run_of(*words, "batch.seq_len=32", "model.layers=1")
    import_for(taught.plan)
    shapes = samples(taught.plan, taught.examples, taught.workers)
    memory = memory_of(taught, rehearse(taught, shapes, False), shapes, False)
    assert memory.of("teacher").peak == 4 * counted.total


# Activations


@contextmanager
def kept(learner: torch.nn.Module, batch: Any) -> Iterator[dict[int, int]]:
    """Bytes by storage of what autograd keeps besides the network itself and what came in."""
    given = [*learner.parameters(), *learner.buffers(), *batch.inputs.values()]
    given += [tensor for target in batch.targets.values() for tensor in (target.positions, target.labels)]
    known = {tensor.untyped_storage()._cdata for tensor in given}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


BERT = Bert(2, 32, 2, 64, max_positions=64)
GPT2 = Gpt2(2, 32, 2, max_positions=64)


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        (BERT, MaskedLMAndNextSentence()),
        (replace(BERT, dropout=0.0, attention_dropout=0.0), MaskedLMAndNextSentence()),
        (GPT2, CausalLM()),
        (replace(GPT2, dropout=0.0, attention_dropout=0.0), CausalLM()),
    ],
    ids=["bert", "bert without dropout", "gpt2", "gpt2 without dropout"],
)
@pytest.mark.parametrize("precision", [Fp32(), Bf16()], ids=["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_activations_are_what_autograd_really_keeps(model: Any, objective: Any, precision: Any, checkpointing: bool):
    run, sample = small_run(model=model, objective=objective, precision=precision)

    def learner_of() -> Learner:
        network = build(run.plan, run.known, checkpointing)
        return Learner(network, {"corpus": objective}, precision, run.device).train()

    real, share = learner_of(), Share({f"corpus/{term}": 1.0 for term in sample.batch.targets})
    with kept(real, sample.batch) as on_cpu:
        loss = real([Pass(sample.batch)], share).total
    del loss
    live = MemoryTracker(run.known.vocabulary.size)
    with FakeTensorMode(), live:
        with live.born(WEIGHTS):
            learner = learner_of()
        with live.born(ROWS):
            batch = sample.shaped(lambda shape, dtype: torch.empty(shape, dtype=dtype))
        with live.keeping():
            loss = learner([Pass(batch)], share).total
        counted = live.now(ACTIVATIONS) + live.now(LOGITS)
        del loss
    # In bf16, torch says on paper that the statistics of norms are bf16 too; on the CPU they are float32.
    assert counted == pytest.approx(sum(on_cpu.values()), rel=1e-3 if isinstance(precision, Bf16) else 0)


def test_checkpointing_and_small_micro_batches_keep_less():
    run, sample = small_run(model=replace(BERT, layers=4), size=16)
    plain, recomputed = (rehearse(run, {"corpus": sample}, checkpointing) for checkpointing in (False, True))
    assert recomputed.most[ACTIVATIONS] < plain.most[ACTIVATIONS] / 2
    small, part = small_run(model=replace(BERT, layers=4), size=16, micro=4)
    assert part.rows == 4
    accumulated = rehearse(small, {"corpus": part}, False)
    assert accumulated.most[ACTIVATIONS] < plain.most[ACTIVATIONS] / 2
    gradients = 4 * parameters_of(small.outline).trainable
    held = accumulated.peak.by["gradients"]
    assert held == pytest.approx(gradients, rel=0.01), "there from the second micro-batch on"
    assert plain.peak.by["optimiser states"] >= 2 * gradients


def test_bytes_grow_with_the_batch_and_not_with_what_was_really_made():
    few, small = small_run(size=8)
    many, large = small_run(size=800)
    assert large.rows == 800
    assert len(large.batch.inputs["input_ids"]) == 32
    a, b = (rehearse(run, {"corpus": sample}, False) for run, sample in ((few, small), (many, large)))
    assert 60 < b.most[ACTIVATIONS] / a.most[ACTIVATIONS] < 140  # rows of pairs differ in length


# What cannot be rehearsed


class Broken(Fp32):
    """Its products need contents."""

    def products(self, device: torch.device) -> Any:
        raise NotImplementedError("values are needed")


def test_what_cannot_be_rehearsed_is_said():
    run, sample = small_run(precision=Bf16())
    plain = rehearse(replace(run, plan=replace(run.plan, precision=Fp32())), {"corpus": sample}, False)
    broken = type("Odd", (Bf16,), {"products": Broken.products})()
    rehearsal = rehearse(replace(run, plan=replace(run.plan, precision=broken)), {"corpus": sample}, False)
    assert rehearsal.remarks == ("Odd is counted as fp32: values are needed",)
    assert rehearsal.most == plain.most


# Stand-ins


@pytest.mark.parametrize("task", ["documents", "labelled", "parallel"])
def test_stand_ins_are_stores(task: Any):
    pieces = synthetic_text.vocabulary(200, sentinels=10)
    store = synthetic_text.store(task, "class" if task == "labelled" else None, 20, 64, pieces)
    assert store.documents[-1] == len(store.sentences) - 1
    assert store.sentences[-1] == len(store.tokens) == store.histogram.sum()
    assert not pieces.special[store.tokens].any()
    assert list(pieces.sentinels) == list(range(190, 200))
    assert len(store.label_names) == (2 if task == "labelled" else 0)


def test_the_cache_is_believed(capsys: pytest.CaptureFixture[str]):
    words = ["mix=classify", "tokenizer.vocab_size=300", "runner=cpu"]
    before = run_of(*words)
    assert before.known.real == frozenset()
    assert main(["prepare", *words[:2]]) == 0
    after = run_of(*words)
    assert after.known.assumed == ()
    assert after.known.real == {"classify"}
    labels = after.known.prepared.corpora["classify"].train.label_names
    assert heads_of(after.plan, after.known.prepared) == {"classify": len(labels)}
    assert len(labels) > synthetic_text.CLASSES
    estimated = estimate(after.plan, link_of(10.0, 20.0), measured=False, alternative=False)
    assert estimated.spending.tokens_per_step < 8 * 128


def test_rows_are_shared_out_over_tasks_and_processes():
    plan = plan_of("mix=multitask", "batch.size=100", "runner=cpu")
    known = look(plan, read=False)
    found = samples(plan, examples_for(plan, known), 1)
    assert found["corpus"].rows_per_step == pytest.approx(75, abs=3)  # 80 of the tokens, and its rows are longer
    assert sum(sample.rows_per_step for sample in found.values()) == pytest.approx(100)
    halves = samples(replace(plan, runner=Ddp(2, device="cpu")), examples_for(plan, known), 2)
    assert max(sample.rows for sample in halves.values()) <= 50
