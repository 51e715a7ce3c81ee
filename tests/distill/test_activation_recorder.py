"""The activation recorder sees what transformers reports; losses of what it saw are formulas written out slowly."""

from __future__ import annotations

import math

import pytest
import torch
from small import vocabulary
from small_teachers import MODELS, heads_for

from lmctl.core.errors import ConfigError
from lmctl.distill.activation_recorder import ActivationRecorder
from lmctl.distill.attention import Attention
from lmctl.distill.base import AttentionInputs, ModelShape, States
from lmctl.distill.hidden import Hidden
from lmctl.distill.layer_map import matched
from lmctl.distill.minilm import MiniLM

KINDS = {
    "bert": "mlm",
    "modernbert": "mlm",
    "gpt2": "clm",
    "llama": "clm",
    "t5": "t5",
    "marian": "translate",
    "lstm": "clm_stream",
    "bilstm": "class",
}


def rows(sides: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 80, (3, 12), generator=generator)
    mask = torch.arange(12) < torch.tensor([12, 9, 5])[:, None]
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    return batch | ({"decoder_input_ids": ids.flip(0), "decoder_attention_mask": mask.flip(0)} if sides == 2 else {})


def looked(kind: str, attends: bool) -> tuple[ActivationRecorder, States, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network = MODELS[kind].load(vocabulary(), heads_for(KINDS[kind])).eval()
    recorder, batch = ActivationRecorder(network, attends), rows(2 if kind in ("t5", "marian") else 1)
    with recorder.recording():
        network.encode(batch, None if kind == "bilstm" else torch.arange(36))
    masks = {"layers": batch["attention_mask"]}
    if len(recorder.stacks) == 2:
        masks = {"encoder": batch["attention_mask"], "decoder": batch["decoder_attention_mask"]}
    return recorder, recorder.pop(masks), batch


@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "llama", "t5", "marian"])
def test_hidden_states_and_attention_are_those_that_transformers_reports(kind):
    recorder, states, batch = looked(kind, attends=True)
    model = recorder.network.pretrained()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        told = model(**batch, output_hidden_states=True, output_attentions=True)
    for stack in states.hidden:
        prefix = "" if stack == "layers" else f"{stack}_"
        # transformers' last state comes after the norm of the whole stack, where there is one.
        hidden, attention = getattr(told, f"{prefix}hidden_states"), getattr(told, f"{prefix}attentions")
        assert len(hidden) == len(states.hidden[stack])
        for ours, theirs in list(zip(states.hidden[stack], hidden, strict=True))[: None if kind == "bert" else -1]:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        real = states.real[stack]
        for one, theirs in zip(states.attended[stack], attention, strict=True):
            scores = one.query @ one.key.mT * one.scale + (0.0 if one.bias is None else one.bias)
            seen = real[:, None, None, :] if one.allowed is None else real[:, None, None, :] & one.allowed
            ours = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=-1)
            at = real[:, None, :, None].expand_as(ours)
            torch.testing.assert_close(ours[at], theirs[at], rtol=1e-4, atol=1e-5)


def test_watching_changes_nothing_and_leaves_nothing_behind():
    torch.manual_seed(0)
    network, batch = MODELS["bert"].load(vocabulary(), heads_for("mlm")).eval(), rows(1)
    before = network.encode(batch, torch.arange(5))
    recorder = ActivationRecorder(network, attends=True)
    with recorder.recording():
        during = network.encode(batch, torch.arange(5))
    recorder.pop({"layers": batch["attention_mask"]})
    torch.testing.assert_close(during, before)
    torch.testing.assert_close(network.encode(batch, torch.arange(5)), before)


@pytest.mark.parametrize("kind", ["lstm", "bilstm"])
def test_recurrent_networks_show_their_layers_and_no_attention(kind):
    recorder, states, _ = looked(kind, attends=False)
    assert recorder.model_shape.heads == 0
    assert [h.shape for h in states.hidden["layers"]] == [(3, 12, 32), (3, 12, recorder.model_shape.width)]
    with pytest.raises(ConfigError, match="has no attention maps"):
        Attention().build(recorder.model_shape, ModelShape("Bert", {"layers": 3}, 48, 4))
    if kind == "bilstm":
        with pytest.raises(ConfigError, match="are 32 wide and its hidden states 64"):
            Hidden(embeddings=True).build(recorder.model_shape, ModelShape("Bert", {"layers": 3}, 48, 4))


def anatomies() -> tuple[ModelShape, ModelShape]:
    return ModelShape("Student", {"layers": 2}, 8, 2), ModelShape("Teacher", {"layers": 4}, 12, 2)


def states(shape: ModelShape, seed: int) -> States:
    generator = torch.Generator().manual_seed(seed)
    length, width = 5, shape.width // shape.heads
    layers = shape.layers["layers"]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=generator).requires_grad_()

    heads = (shape.heads, length, width)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    attended = [
        AttentionInputs(draw(*heads), draw(*heads), draw(*heads), width**-0.5, None, None) for _ in range(layers)
    ]
    return States(
        {"layers": [draw(length, shape.width) for _ in range(layers + 1)]}, {"layers": attended}, {"layers": real}
    )


def both() -> list[tuple[ModelShape, States]]:
    """Student and teacher, each with what was recorded of it."""
    return [(shape, states(shape, seed)) for seed, shape in enumerate(anatomies())]


REAL = [(0, i) for i in range(5)] + [(1, i) for i in range(3)]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_hidden_states(metric):
    (student, ours), (teacher, theirs) = both()
    torch.manual_seed(0)
    pupil = Hidden(metric=metric, embeddings=True).build(student, teacher)
    total = 0.0
    for t, s in [(0, 0), (2, 1), (4, 2)]:
        project = pupil.projections[f"layers_{t}_{s}"]
        for row, place in REAL:
            a = (project.weight @ ours.hidden["layers"][s][row, place] + project.bias).tolist()
            b = theirs.hidden["layers"][t][row, place].tolist()
            if metric == "mse":
                total += sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 12
            else:
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                total += 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    value = pupil(ours, theirs)
    assert value.item() == pytest.approx(total / 3, rel=1e-5)
    value.backward()
    assert ours.hidden["layers"][2].grad[1, 3:].abs().sum() == 0  # padding
    assert all(p.grad.abs().sum() > 0 for p in pupil.parameters())


@pytest.mark.parametrize("metric", ["kl", "mse", "scores"])
def test_attention_maps(metric):
    (student, ours), (teacher, theirs) = both()
    pupil = Attention(metric=metric, layer_map="last", values=metric == "kl").build(student, teacher)
    # PKD: all but the top, from the last below it.
    one, other = ours.attended["layers"][0], theirs.attended["layers"][2]
    total = 0.0
    for row, place in REAL:
        keys = range(5 if row == 0 else 3)
        for head in range(2):
            a, b = (
                [(x.query[row, head, place] @ x.key[row, head, k]).item() * x.scale for k in keys] for x in (one, other)
            )
            if metric != "scores":
                a, b = softmax(a), softmax(b)
            if metric == "kl":
                total += sum(q * math.log(q / p) for p, q in zip(a, b, strict=True)) / 2
                v, w = (
                    softmax([(x.value[row, head, place] @ x.value[row, head, k]).item() * x.scale for k in keys])
                    for x in (one, other)
                )
                total += sum(q * math.log(q / p) for p, q in zip(v, w, strict=True)) / 2
            else:
                total += sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / len(keys) / 2
    value = pupil(ours, theirs)
    assert value.item() == pytest.approx(total, rel=1e-4)
    value.backward()
    assert one.query.grad[1, :, 3:].abs().sum() == 0


def test_relations_of_one_layer_in_heads_of_their_own():
    """MiniLMv2, equation 4: heads are put side by side and cut anew."""
    student, teacher = ModelShape("Student", {"layers": 2}, 8, 2), ModelShape("Teacher", {"layers": 4}, 12, 3)
    ours, theirs = states(student, 0), states(teacher, 1)
    pupil = MiniLM(relations=["query", "attention"], relation_heads=4, teacher_layer=3).build(student, teacher)
    one, other = ours.attended["layers"][1], theirs.attended["layers"][2]

    def vector(part: torch.Tensor, row: int, place: int, head: int) -> torch.Tensor:
        flat = torch.cat([part[row, h, place] for h in range(part.shape[1])])
        return flat[head * len(flat) // 4 : (head + 1) * len(flat) // 4]

    total = 0.0
    for left, right in (("query", "query"), ("query", "key")):
        for row, place in REAL:
            for head in range(4):
                shares = []
                for x in (one, other):
                    a = vector(getattr(x, left), row, place, head)
                    scores = [
                        (a @ vector(getattr(x, right), row, k, head)).item() / math.sqrt(len(a))
                        for k in range(5 if row == 0 else 3)
                    ]
                    shares.append(softmax(scores))
                total += sum(q * math.log(q / p) for p, q in zip(*shares, strict=True)) / 4
    assert pupil(ours, theirs).item() == pytest.approx(total, rel=1e-4)


def test_causal_attention_is_compared_where_it_looks():
    (student, ours), (teacher, theirs) = both()
    below = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    for some in (ours, theirs):
        some.attended["layers"][:] = [a._replace(allowed=below) for a in some.attended["layers"]]
    before = Attention().build(student, teacher)(ours, theirs).item()
    with torch.no_grad():
        for some in (ours, theirs):  # the last key is seen by the last query alone, where it is real
            for a in some.attended["layers"]:
                a.key[1, :, 2] += 5.0
                a.query[1, :, 2] *= 0.0
    masked = Attention().build(student, teacher)(ours, theirs).item()
    assert masked != pytest.approx(before)
    with torch.no_grad():
        for a in ours.attended["layers"]:
            a.key[1, :, 2] += 50.0  # no query that counts can tell
    assert Attention().build(student, teacher)(ours, theirs).item() == pytest.approx(masked)


@pytest.mark.parametrize(
    ("layer_map", "layers", "pairs"),
    [
        ("uniform", (12, 4), [(3, 1), (6, 2), (9, 3), (12, 4)]),
        ("uniform", (12, 12), [(n, n) for n in range(1, 13)]),
        ("uniform", (2, 4), [(1, 1), (1, 2), (2, 3), (2, 4)]),
        ("skip", (12, 6), [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]),  # PKD, section 3.2
        ("last", (12, 6), [(7, 1), (8, 2), (9, 3), (10, 4), (11, 5)]),
        ("last", (12, 1), [(12, 1)]),
        ([[0, 0], [-1, -1]], (12, 6), [(0, 0), (12, 6)]),
    ],
)
def test_layer_maps(layer_map, layers, pairs):
    theirs, ours = (ModelShape("Net", {"layers": number}, 8, 2) for number in layers)
    assert matched(layer_map, theirs, ours, lowest=0) == {"layers": pairs}


@pytest.mark.parametrize(
    ("lesson", "words"),
    [
        (Hidden(layer_map=[[5, 1]]), "layer_map names layer 5, and the layers of Teacher go from 0 to 4"),
        (Hidden(layer_map=[[4, 3]]), "layer_map names layer 3, and the layers of Student go from 0 to 2"),
        (Attention(layer_map=[[0, 0]]), "layers of Teacher go from 1 to 4"),
        (MiniLM(relation_heads=8), "relation_heads=8 do not divide the 12 units of Teacher"),
    ],
)
def test_layers_that_do_not_exist_are_refused(lesson, words):
    with pytest.raises(ConfigError, match=words):
        lesson.build(*anatomies())


def test_heads_are_compared_one_by_one():
    student, teacher = anatomies()
    with pytest.raises(ConfigError, match="the teacher has 3 heads, the student 2") as error:
        Attention().build(student, teacher._replace(heads=3))
    assert "distill=minilm" in error.value.hint
    with pytest.raises(ValueError, match="layer_map must be one of"):
        Hidden(layer_map="first")
    with pytest.raises(ValueError, match="layer_map must be one of"):
        Hidden(layer_map=[[1, 2, 3]])
