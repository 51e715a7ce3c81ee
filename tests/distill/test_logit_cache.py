"""What a teacher answered, kept: what comes back, what it takes, and what is never mistaken for it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import documents, plan, store, vocabulary

from lmctl.core import signals
from lmctl.core.batch import Batch, Targets
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, DataError, Stopped
from lmctl.distill.compact_logits import compact, expand, layout
from lmctl.distill.logit_cache import KIND, Masking, Maskings, build, checksums, find, identity, rows_of_targets
from lmctl.mix.stream import MixStream, Position, collated
from lmctl.objective.base import Material
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence

PARTS = {"teacher": "abc", "text": {"files": "1"}, "tokenizer": "def", "seed": 1}
V = 85


def examples(objective=None):
    objective = objective or MaskedLMAndNextSentence()
    family = "decoder" if isinstance(objective, CausalLM) else "encoder"
    return objective.examples(Material("corpus", store(documents(12)), vocabulary(), family, 32))


def teacher(batch):
    """Logits that depend on the text and the place that they are about, as a network's would."""
    ids = batch.inputs["input_ids"].reshape(-1)
    answers = {}
    for term, target in batch.targets.items():
        outputs = torch.arange(2 if term == "nsp" else V)
        answers[term] = torch.sin(ids[target.positions, None] * 1.7 + outputs * (target.labels[:, None] + 1.3)) * 3
    return answers


def keep(root, some, k=None, masking=0, answer=teacher, at_once=5, **parts):
    return build(root, identity(masking, k, **(PARTS | parts)), some, CounterRng(1, "corpus/rows"), at_once, answer)


def columns(logits, how):
    return {
        name: torch.from_numpy(value.astype(np.int64) if value.dtype.kind == "u" else value)
        for name, value in compact(logits, how).items()
    }


def test_everything_comes_back_to_the_bit_if_everything_is_kept():
    logits = torch.randn(7, 50)
    for k in (None, 50, 99):
        how = layout(50, k)
        assert torch.equal(expand(columns(logits, how), how), logits)


@pytest.mark.parametrize("k", [1, 8, 49])
def test_the_likeliest_come_back_and_the_others_share_what_is_left(k):
    """Against the definition, one target at a time."""
    logits, how = torch.randn(4, 50) * 3, layout(50, k)
    for row, back in zip(logits.double().softmax(-1), expand(columns(logits, how), how).exp(), strict=True):
        top = row.topk(k).indices
        wanted = torch.full_like(row, float(1 - row[top].sum()) / (50 - k))
        wanted[top] = row[top]
        torch.testing.assert_close(back.double(), wanted, rtol=4e-3, atol=1e-9)
        assert float(back.sum()) == pytest.approx(1, rel=2e-3)


def test_what_is_left_over_is_not_lost_to_rounding():
    logits, how = torch.zeros(1, 100), layout(100, 1)
    logits[0, 3] = 40
    assert float(columns(logits, how)["rest"]) == pytest.approx(math.log(99) - 40, abs=1e-4)


@pytest.mark.parametrize(
    ("pieces", "k", "size"), [(30522, 50, 204), (151936, 50, 304), (2, 50, 8), (30522, None, 122088)]
)
def test_bytes_per_target(pieces, k, size):
    how = layout(pieces, k)
    assert how.bytes_per_target == size
    if pieces < 1000 or k:
        assert sum(value.nbytes for value in compact(torch.randn(3, pieces), how).values()) == 3 * size


def found(maskings: Maskings, batch: Batch, term: str) -> torch.Tensor:
    return maskings.answers(batch, term).of(slice(None), torch.device("cpu"))


@pytest.mark.parametrize("objective", [MaskedLM(), MaskedLMAndNextSentence(), CausalLM()], ids=["mlm", "nsp", "clm"])
def test_any_batch_finds_the_answers_to_its_rows(tmp_path, objective):
    some = examples(objective)
    maskings = Maskings([keep(tmp_path, some, masking=masking)[0] for masking in range(2)])
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = rng.choice(len(some), min(6, len(some)), replace=False)
        batch = collated(some, rows, rng.integers(0, 6, len(rows)), CounterRng(1, "corpus/rows"))
        # Epochs beyond the maskings come back as those that were kept: a run lets them repeat.
        batch = collated(some, rows, batch.rows.epochs % 2, CounterRng(1, "corpus/rows"))
        again = replace(batch, rows=batch.rows._replace(epochs=batch.rows.epochs + 2))
        for term, logits in teacher(batch).items():
            assert torch.equal(found(maskings, batch, term), logits)
            assert torch.equal(found(maskings, again, term), logits)


def test_a_run_finds_its_own_rows(tmp_path):
    """As windows come: in the order, and with the micro-batches, of training."""
    some = examples()
    maskings = Maskings([keep(tmp_path, some, masking=masking)[0] for masking in range(3)])
    stream, at = MixStream(plan().mix, {"corpus": some}, 1, 8, None), Position()
    for _ in range(2 * len(some) // 8):
        window = stream.window(at, 0.0, 3, 0, 1)
        at = window.after
        for batch in window.batches:
            for term, logits in teacher(batch).items():
                assert torch.equal(found(maskings, batch, term), logits)
    assert at.rows["corpus"] > len(some)


def test_rows_of_targets_by_the_slow_way():
    some = examples()
    batch = collated(some, np.arange(4), np.zeros(4, dtype=np.int64), CounterRng(1, "corpus/rows"))
    width = batch.inputs["input_ids"].shape[1]
    assert rows_of_targets(batch, "mlm").tolist() == [int(p) // width for p in batch.targets["mlm"].positions]
    assert rows_of_targets(batch, "nsp").tolist() == [0, 1, 2, 3]
    whole = replace(batch, targets={"topics": Targets(torch.arange(4), torch.tensor([2, 0, 1, 1]))})
    assert rows_of_targets(whole, "topics").tolist() == [0, 1, 2, 3]
    assert len(set(checksums(whole, "topics").tolist())) == 3


def test_asked_once(tmp_path):
    some = examples()

    def never(batch):
        raise AssertionError("asked although the answers are there")

    first, hit = keep(tmp_path, some, k=8)
    assert not hit
    again, hit = keep(tmp_path, some, k=8, answer=never)
    assert hit
    assert (
        again.bytes == first.bytes == sum(first.targets[t] * first.layouts[t].bytes_per_target for t in ("mlm", "nsp"))
    )
    assert first.layouts["mlm"].bytes_per_target == 8 * 4 + 4
    assert first.layouts["nsp"].whole


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"teacher": "other"}, "another teacher"),
        ({"text": {"files": "2"}}, "another text"),
        ({"seed": 2, "tokenizer": "x"}, "another seed, another tokenizer"),
    ],
)
def test_answers_about_something_else_are_refused_by_name(tmp_path, changed, words):
    keep(tmp_path, examples())
    with pytest.raises(ConfigError, match=words) as caught:
        find(tmp_path, identity(0, None, **(PARTS | changed)))
    assert "teacher_cache=build" in caught.value.hint
    with pytest.raises(ConfigError, match="another masking"):
        find(tmp_path, identity(1, None, **PARTS))
    with pytest.raises(ConfigError, match="another k"):
        find(tmp_path, identity(0, 4, **PARTS))
    assert find(tmp_path, identity(0, None, **PARTS)).rows == len(examples())


def test_an_empty_cache_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no answers of any teacher"):
        find(tmp_path, identity(0, None, **PARTS))


def test_rows_that_the_teacher_did_not_see_are_noticed(tmp_path):
    some = examples()
    maskings = Maskings([keep(tmp_path, some)[0]])
    batch = collated(some, np.arange(3), np.zeros(3, dtype=np.int64), CounterRng(2, "corpus/rows"))  # another seed
    with pytest.raises(DataError, match="row 0 of epoch 0 of corpus is not the one that the teacher saw"):
        maskings.answers(batch, "mlm")
    with pytest.raises(DataError, match="no numbers"):
        maskings.answers(replace(batch, rows=None), "mlm")


def test_an_interrupted_teacher_leaves_nothing_and_finished_maskings_stay(tmp_path):
    some = examples()
    keep(tmp_path, some, masking=0)
    asked = []

    def interrupted(batch):
        asked.append(batch)
        raise signals.Interrupted("SIGTERM")

    with pytest.raises(Stopped, match="SIGTERM"):
        keep(tmp_path, some, masking=1, answer=interrupted)
    assert len(asked) == 1
    folders = [path for path in (tmp_path / KIND).iterdir() if path.is_dir()]
    assert [len(list(folder.glob("identity.json"))) for folder in folders] == [1]
    fresh, hit = keep(tmp_path, some, masking=1)
    assert not hit
    batch = collated(some, np.arange(3), np.ones(3, dtype=np.int64), CounterRng(1, "corpus/rows"))
    assert torch.equal(found(Maskings([Masking(folders[0]), fresh]), batch, "mlm"), teacher(batch)["mlm"])
