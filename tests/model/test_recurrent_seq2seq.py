"""Recurrent encoder-decoders compute their papers' equations, one number at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compared import padded, same_gradients
from recurrent_seq2seq import KINDS, SOURCE, TARGET, E, H, V, network, real_logits, rows
from torch import nn

from lmctl.model.pretrained import Pretrained


def gates(weights: nn.Module, piece: torch.Tensor, hidden: torch.Tensor) -> tuple[list, list]:
    """The input's part and the state's part of every gate."""
    parts = (weights.weight_ih @ piece + weights.bias_ih, weights.weight_hh @ hidden + weights.bias_hh)
    return tuple([part[place : place + H] for place in range(0, len(part), H)] for part in parts)  # type: ignore


def moved(cell: str, weights: nn.Module, piece: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
    """One step of Hochreiter and Schmidhuber's cell (with Gers's forget gate), or of Cho's."""
    x, h = gates(weights, piece, state[0])
    if cell == "lstm":
        enter, keep, leave = (torch.sigmoid(x[gate] + h[gate]) for gate in (0, 1, 3))
        memory = keep * state[1] + enter * torch.tanh(x[2] + h[2])
        return [leave * torch.tanh(memory), memory]
    reset, update = (torch.sigmoid(x[gate] + h[gate]) for gate in (0, 1))
    new = torch.tanh(x[2] + reset * h[2])
    return [(1 - update) * new + update * state[0]]


def one_row(net, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Logits [T, V] for one row without padding: equations as they stand in the papers, in loops."""
    model, config = net.pretrained(), net.pretrained().config
    encoder, decoder = model.model.encoder, model.model.decoder
    attention = decoder.attention
    states = [encoder.embeddings.weight[piece] for piece in source]
    for layer in encoder.layers.stack:
        alone = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell](len(states[0]), H, bidirectional=True)
        for name, parameter in layer.named_parameters():
            setattr(alone, name, parameter)
        states = list(alone(torch.stack(states)[:, None])[0][:, 0])
    ends = torch.cat([states[-1][:H], states[0][H:]])
    begun = torch.tanh(decoder.bridge.weight @ ends + decoder.bridge.bias)
    parts = [begun[place : place + H] for place in range(0, len(begun), H)]
    each = len(parts) // 2
    cells = [parts[:each], parts[each:]]
    fed, logits = torch.zeros(H), []

    def context(query: torch.Tensor) -> torch.Tensor:
        scores = []
        for state in states:
            key = attention.key_projection.weight @ state
            if config.attention == "bahdanau":
                scores.append(attention.score.weight[0] @ torch.tanh(attention.query_projection.weight @ query + key))
            else:
                scores.append(query @ key)
        weights = torch.exp(torch.stack(scores)) / torch.exp(torch.stack(scores)).sum()
        return sum(weight * state for weight, state in zip(weights, states, strict=True))

    for piece in target:
        embedded = decoder.embeddings.weight[piece]
        if config.attention == "bahdanau":
            fed = context(cells[1][0])
        cells[0] = moved(config.cell, decoder.layers[0], torch.cat([embedded, fed]), cells[0])
        cells[1] = moved(config.cell, decoder.layers[1], cells[0][0], cells[1])
        if config.attention == "bahdanau":
            output = torch.tanh(decoder.readout.weight @ torch.cat([cells[1][0], fed, embedded]))
        else:
            output = fed = torch.tanh(decoder.readout.weight @ torch.cat([context(cells[1][0]), cells[1][0]]))
        if config.tie_word_embeddings:
            output = decoder.projection.weight @ output
        logits.append(model.lm_head.weight @ output + model.lm_head.bias)
    return torch.stack(logits)


@KINDS
@pytest.mark.parametrize("tied", [True, False])
def test_it_computes_the_papers_equations(attention: str, cell: str, tied: bool):
    net, inputs = network(attention, cell, tied, sharp=1.5).train(), rows()
    ours = real_logits(net, inputs)
    theirs = torch.cat(
        [
            one_row(net, inputs["input_ids"][row, : SOURCE[row]], inputs["decoder_input_ids"][row, : TARGET[row]])
            for row in range(3)
        ]
    )
    assert torch.allclose(ours, theirs, atol=1e-5)
    losses = [nn.functional.cross_entropy(some, torch.arange(len(ours)) + 7) for some in (ours, theirs)]
    found = same_gradients(net, *losses)
    assert all(gradient.any() for gradient in found.values())
    assert found.keys() == dict(net.named_parameters()).keys()


@KINDS
def test_padding_changes_nothing(attention: str, cell: str):
    net, inputs = network(attention, cell, sharp=1.5).eval(), rows()
    together = real_logits(net, inputs)
    assert torch.equal(real_logits(net, rows(pad=77)), together)
    parts = together.split(TARGET)
    for row in range(3):
        alone = {
            name: value[row : row + 1, : (TARGET if "decoder" in name else SOURCE)[row]]
            for name, value in inputs.items()
        }
        assert torch.allclose(real_logits(net, alone), parts[row], atol=1e-6)
        del alone["attention_mask"]
        assert torch.allclose(real_logits(net, alone), parts[row], atol=1e-6)


@KINDS
def test_its_own_loss_is_that_of_the_network(attention: str, cell: str):
    net = network(attention, cell).eval()
    (source, mask), (target, real) = padded(SOURCE, 1), padded(TARGET, 2)
    shifted = torch.cat([torch.full((3, 1), V.pad), target[:, :-1]], dim=1)
    inputs = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": shifted, "decoder_attention_mask": real}
    ours = nn.functional.cross_entropy(real_logits(net, inputs), target[real])
    labels = torch.where(real, target, -100)
    theirs = net.pretrained()(input_ids=source, attention_mask=mask.long(), labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_tied_embeddings_are_one_table():
    def tables(net):
        model = net.pretrained()
        return [model.model.encoder.embeddings.weight, model.model.decoder.embeddings.weight, model.lm_head.weight]

    assert len({id(table) for table in tables(network())}) == 1
    assert len({id(table) for table in tables(network(tied=False))}) == 3


def test_dropout_is_on_embeddings_between_layers_and_before_the_vocabulary():
    net = network(dropout=0.5).train()
    found: dict[str, set] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, i, out, name=name: found.setdefault(name, set()).add(out.shape[-1]))
    inputs = rows()
    assert not torch.equal(real_logits(net, inputs), real_logits(net, inputs))
    assert found["model.model.encoder.dropout"] == {E}
    assert found["model.model.encoder.layers.dropout"] == {2 * H}
    assert found["model.model.decoder.dropout"] == {E, H}
    net.eval()
    assert torch.equal(real_logits(net, inputs), real_logits(net, inputs))


def test_layers_and_what_rests(tmp_path: Path):
    net = network()
    layers = net.layers()
    assert [p.shape for p in layers[0]] == [(V.size, E)]
    model = net.pretrained().model
    for place in (0, 1):
        expected = {
            id(p) for side in (model.encoder.layers.stack, model.decoder.layers) for p in side[place].parameters()
        }
        assert {id(p) for p in layers[place + 1]} == expected
    assert len(layers) == 4
    net.pretrained().save_pretrained(tmp_path)
    tuned = Pretrained(str(tmp_path), freeze=1).load(V, {"lm": V.size})
    resting = sum(p.numel() for p in tuned.parameters() if not p.requires_grad)
    assert resting == sum(p.numel() for layer in layers[:2] for p in layer)
