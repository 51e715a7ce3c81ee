"""A student that begins with its teacher's layers computes what the teacher computes without the others."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from small import vocabulary
from torch import nn

from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import NO_PIECE
from lmctl.model.bert import Bert
from lmctl.model.copy_layers import inherit, origins, stacks_of
from lmctl.model.gpt2 import Gpt2
from lmctl.model.layer_selection import check_keep, kept
from lmctl.model.llama import Llama
from lmctl.model.modernbert import ModernBert
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.t5 import T5
from lmctl.model.teacher_layers import TeacherLayers
from lmctl.model.transformer_mt import TransformerMT

DEPTH = 4
ENCODER, DECODER = {"mlm": 85}, {"lm": 85}
SPECS = {
    "bert": (lambda n: Bert(n, 16, 2, 32, max_positions=32), ENCODER | {"pair": 2}),
    "modernbert": (lambda n: ModernBert(n, 16, 2, 32, max_positions=32, local_window=4), ENCODER),
    "gpt2": (lambda n: Gpt2(n, 16, 2, max_positions=32), DECODER),
    "llama": (lambda n: Llama(n, 16, 2, 1, 32, max_positions=32), DECODER | {"topics": 3}),
    "t5": (lambda n: T5(n, n, 16, 2, 32), DECODER),
    "marian": (lambda n: TransformerMT(n, n, 16, 2, 32, max_positions=32), DECODER),
    "lstm": (lambda n: RecurrentLM(n, 16), DECODER),
}


def loaded(name: str, layers: int, seed: int = 0):
    spec, heads = SPECS[name]
    torch.manual_seed(seed)
    network = spec(layers).load(vocabulary(), heads).eval()
    with torch.no_grad():  # norms and biases begin as ones and zeros: nobody would notice if they were not copied
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network, heads


def without(network, layers):
    """The network itself, its other layers taken out."""
    network = deepcopy(network)
    for stack in stacks_of(network):
        old = network.get_submodule(stack.name)
        parent, _, name = stack.name.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.ModuleList(old[layer] for layer in layers))
        for place, layer in enumerate(network.get_submodule(stack.name)):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = place
    for key in ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"):
        if hasattr(network.model.config, key):
            setattr(network.model.config, key, len(layers))
    again = type(network)(network.model, network.outputs)  # which may look at its last layer when it is made
    again.class_heads = network.class_heads
    return again


def answers(network, heads):
    ids = torch.arange(6, 26).reshape(2, 10)
    inputs = {"input_ids": ids}
    if network.model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    with torch.no_grad():
        hidden = network.encode(inputs, torch.arange(20))
        return {name: network.head(name, hidden) for name in heads}


@pytest.mark.parametrize(
    ("name", "keep", "layers"),
    [(name, "uniform", [0, 3]) for name in SPECS if name != "modernbert"]
    + [("modernbert", [0, 1, 2], [0, 1, 2]), ("modernbert", "first", [0, 1])]
    + [(name, [1, 3], [1, 3]) for name in ("bert", "gpt2", "llama", "marian", "lstm")]
    + [(name, "last", [2, 3]) for name in ("bert", "llama")],
)
def test_it_computes_what_the_teacher_does_without_its_other_layers(name, keep, layers):
    teacher, heads = loaded(name, DEPTH)
    student, _ = loaded(name, len(layers), seed=1)
    said = inherit(student, teacher, keep)
    assert f"{', '.join(map(str, layers))}" in said[0]
    wanted = answers(without(teacher, layers), heads)
    for head, logits in answers(student, heads).items():
        assert not torch.allclose(logits, answers(teacher, heads)[head], atol=1e-3)
        torch.testing.assert_close(logits, wanted[head], rtol=0, atol=1e-5)


def test_t5s_positions_come_from_the_first_layer_whichever_are_kept():
    teacher, _ = loaded("t5", DEPTH)
    student, _ = loaded("t5", 2, seed=1)
    inherit(student, teacher, [1, 3])
    for side in ("encoder", "decoder"):
        name = f"model.{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        assert torch.equal(student.state_dict()[name], teacher.state_dict()[name])
        q = f"model.{side}.block.%d.layer.0.SelfAttention.q.weight"
        assert torch.equal(student.state_dict()[q % 0], teacher.state_dict()[q % 1])


@pytest.mark.parametrize("name", SPECS)
def test_a_student_made_after_its_teacher_needs_only_a_number(name, tmp_path):
    teacher, heads = loaded(name, DEPTH)
    teacher.model.save_pretrained(tmp_path)
    keep = [0, 1, 3] if name == "modernbert" else "uniform"
    spec = TeacherLayers(str(tmp_path), None if name == "modernbert" else 2, keep=keep)
    student = spec.load(vocabulary(), heads).eval()
    layers = [0, 1, 3] if name == "modernbert" else [0, 3]
    assert [stack.depth for stack in stacks_of(student)] == [len(layers)] * len(stacks_of(teacher))
    inherit(student, teacher, keep)
    wanted = answers(without(teacher, layers), heads)
    for head, logits in answers(student, heads).items():
        torch.testing.assert_close(logits, wanted[head], rtol=0, atol=1e-5)


def test_the_sides_of_a_seq2seq_may_differ(tmp_path):
    teacher, heads = loaded("marian", DEPTH)
    teacher.model.save_pretrained(tmp_path)
    student = TeacherLayers(str(tmp_path), 3, decoder_layers=1).load(vocabulary(), heads)
    inherit(student, teacher, "uniform")
    assert [stack.depth for stack in stacks_of(student)] == [3, 1]
    state, source = student.state_dict(), teacher.state_dict()
    name = "model.model.encoder.layers.%d.fc1.weight"
    assert torch.equal(state[name % 1], source[name % 2])


def test_pieces_are_found_by_the_teachers_numbers():
    teacher, _ = loaded("bert", 2)
    student, _ = loaded("bert", 2, seed=1)
    before = student.state_dict()["model.bert.embeddings.word_embeddings.weight"].clone()
    numbers = np.arange(85)[::-1].copy()
    numbers[7] = NO_PIECE
    inherit(student, teacher, "uniform", numbers)
    for name in ("model.bert.embeddings.word_embeddings.weight", "model.cls.predictions.bias"):
        ours, theirs = student.state_dict()[name], teacher.state_dict()[name]
        assert torch.equal(ours[8:], theirs.flip(0)[8:])
    assert torch.equal(student.state_dict()["model.bert.embeddings.word_embeddings.weight"][7], before[7])


def test_six_of_twelve_are_those_of_distilbert():
    assert kept("uniform", 6, 12) == [0, 2, 4, 7, 9, 11]
    assert kept("uniform", 1, 12) == [0]
    assert kept("first", 3, 12) == [0, 1, 2]
    assert kept("last", 3, 12) == [9, 10, 11]
    assert kept([0, 5, 11], 3, 12) == [0, 5, 11]
    assert kept("uniform", 12, 12) == list(range(12))


@pytest.mark.parametrize("keep", ["unifrom", [], [2, 1], [1, 1], [-1, 2], ["a"], [True]])
def test_what_names_no_layers_is_refused(keep):
    with pytest.raises(ConfigError, match="from_teacher"):
        check_keep(keep)


def on_meta(spec, heads):
    with torch.device("meta"):
        return spec.load(vocabulary(), heads)


@pytest.mark.parametrize(
    ("student", "teacher", "keep", "message"),
    [
        (Bert(2, 8, 2, 32), Bert(4, 16, 2, 32), "uniform", "is 85 x 8 in the student and 85 x 16 in the teacher"),
        (Bert(2, 16, 2, 64), Bert(4, 16, 2, 32), "uniform", "intermediate.dense.weight is 64 x 16 in the student"),
        (ModernBert(2, 16, 2, 32), Bert(4, 16, 2, 32), "uniform", "of type modernbert and the teacher of type bert"),
        (ModernBert(2, 16, 2, 32), ModernBert(4, 16, 2, 32), "uniform", "layer 1 of the student is made for sliding"),
        (ModernBert(2, 16, 2, 32), ModernBert(8, 16, 2, 32), [3, 4], "the first layer is unlike the others"),
    ],
)
def test_students_of_another_build_are_refused_before_weights_are_there(student, teacher, keep, message):
    with pytest.raises(ConfigError, match=message) as caught:
        origins(on_meta(student, ENCODER), on_meta(teacher, ENCODER), keep)
    assert "model" in str(caught.value.hint) or "from_teacher" in str(caught.value.hint)
