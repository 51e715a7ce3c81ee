"""Recurrent encoder-decoders: the papers' equations one number at a time, carried state, and use in the verbs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import use_models
from small import SUMMARY, prepared, store, tokenizer, vocabulary
from small import plan as small_plan
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from lmctl.core.errors import ConfigError
from lmctl.model.artifact.auto import register
from lmctl.model.pretrained import Pretrained
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.objective.denoise import Denoise
from lmctl.objective.translate import Translate
from lmctl.parallel.processes import Processes
from lmctl.train.prepare import Prepared, TokenizedCorpus
from lmctl.train.trainer import Trainer

V = vocabulary()
H, E = 8, 6
SOURCE, TARGET = [7, 2, 5], [4, 6, 1]
KINDS = pytest.mark.parametrize(
    ("attention", "cell"), [("bahdanau", "lstm"), ("bahdanau", "gru"), ("luong", "lstm"), ("luong", "gru")]
)


def network(attention: str = "bahdanau", cell: str = "lstm", tied: bool = True, sharp: float = 1.0, **changes):
    """A network of two and two layers; `sharp` scales its weights, so that its guesses differ from row to row."""
    torch.manual_seed(0)
    spec = RecurrentMT(2, 2, H, E, cell, attention, **{"dropout": 0.0, "tied_embeddings": tied} | changes)
    net = spec.load(V, {"lm": V.size})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(sharp)
    return net


def rectangle(lengths: list[int], seed: int, pad: int = V.pad) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, V.size, mask.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(mask, ids, pad), mask


def batch(pad: int = V.pad) -> dict[str, torch.Tensor]:
    source, source_mask = rectangle(SOURCE, 1, pad)
    target, target_mask = rectangle(TARGET, 2, pad)
    target[:, 0] = V.pad
    return {
        "input_ids": source,
        "attention_mask": source_mask,
        "decoder_input_ids": target,
        "decoder_attention_mask": target_mask,
    }


def real_logits(net, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    places = inputs["decoder_attention_mask"].reshape(-1).nonzero().flatten()
    return net.head("lm", net.encode(inputs, places))


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
    net, inputs = network(attention, cell, tied, sharp=1.5).train(), batch()
    ours = real_logits(net, inputs)
    theirs = torch.cat(
        [
            one_row(net, inputs["input_ids"][row, : SOURCE[row]], inputs["decoder_input_ids"][row, : TARGET[row]])
            for row in range(3)
        ]
    )
    assert torch.allclose(ours, theirs, atol=1e-5)
    parameters, labels = dict(net.named_parameters()), torch.arange(len(ours)) + 7
    gradients = [
        torch.autograd.grad(nn.functional.cross_entropy(some, labels), list(parameters.values()))
        for some in (ours, theirs)
    ]
    for name, a, b in zip(parameters, *gradients, strict=True):
        assert a.abs().max() > 0, name
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4), name


@KINDS
def test_padding_changes_nothing(attention: str, cell: str):
    net, inputs = network(attention, cell, sharp=1.5).eval(), batch()
    together = real_logits(net, inputs)
    assert torch.equal(real_logits(net, batch(pad=77)), together)
    rows = together.split(TARGET)
    for row in range(3):
        alone = {
            name: value[row : row + 1, : (TARGET if "decoder" in name else SOURCE)[row]]
            for name, value in inputs.items()
        }
        assert torch.allclose(real_logits(net, alone), rows[row], atol=1e-6)
        del alone["attention_mask"]
        assert torch.allclose(real_logits(net, alone), rows[row], atol=1e-6)


@KINDS
def test_its_own_loss_is_that_of_the_network(attention: str, cell: str):
    net = network(attention, cell).eval()
    source, mask = rectangle(SOURCE, 1)
    target, real = rectangle(TARGET, 2)
    shifted = torch.cat([torch.full((3, 1), V.pad), target[:, :-1]], dim=1)
    inputs = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": shifted}
    inputs["decoder_attention_mask"] = real
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
    inputs = batch()
    assert not torch.equal(real_logits(net, inputs), real_logits(net, inputs))
    assert found["model.model.encoder.dropout"] == {E}
    assert found["model.model.encoder.layers.dropout"] == {2 * H}
    assert found["model.model.decoder.dropout"] == {E, H}
    net.eval()
    assert torch.equal(real_logits(net, inputs), real_logits(net, inputs))


def generated(model, **how):
    source, mask = rectangle(SOURCE, 1)
    return model.generate(source, attention_mask=mask.long(), max_new_tokens=9, **{"do_sample": False} | how)


@KINDS
def test_greedy_search_is_the_best_piece_at_every_step(attention: str, cell: str):
    model = network(attention, cell, sharp=2.0).pretrained().eval()
    source, mask = rectangle(SOURCE, 1)
    read: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for name, side in (("encoder", model.get_encoder()), ("decoder", model.get_decoder())):
        side.embeddings.register_forward_hook(lambda m, i, out, name=name: read[name].append(out.shape[1]))
    found = generated(model, return_dict_in_generate=True, output_logits=True)
    written = found.sequences
    # The source is read once and every piece once: state is carried.
    assert read == {"encoder": [7], "decoder": [1] * (written.shape[1] - 1)}
    assert len({tuple(row) for row in written.tolist()}) > 1
    expected, ended = torch.full((3, 1), V.pad), torch.zeros(3, dtype=torch.bool)
    while expected.shape[1] < written.shape[1]:
        logits = model(source, mask, decoder_input_ids=expected).logits[:, -1]
        assert torch.allclose(found.logits[expected.shape[1] - 1][~ended], logits[~ended], atol=1e-5)
        best = logits.argmax(dim=-1)
        expected = torch.cat([expected, torch.where(ended, V.pad, best)[:, None]], dim=1)
        ended |= best == V.sep
    assert torch.equal(written, expected)
    assert torch.equal(generated(model, num_beams=1), written)
    assert torch.equal(generated(model, use_cache=False), written)


@KINDS
def test_beam_search_carries_the_state_of_each_hypothesis(attention: str, cell: str):
    model = network(attention, cell, sharp=2.0).pretrained().eval()
    how = {"num_beams": 5, "num_return_sequences": 5, "length_penalty": 0.7}
    found = generated(model, **how, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(found.sequences, generated(model, **how, use_cache=False))
    source, mask = (part.repeat_interleave(5, dim=0) for part in rectangle(SOURCE, 1))
    with torch.no_grad():
        logits = model(source, mask, decoder_input_ids=found.sequences[:, :-1]).logits
    pieces = found.sequences[:, 1:]
    each = logits.log_softmax(dim=-1).gather(2, pieces[..., None])[..., 0]
    ends = ((pieces == V.sep).cumsum(dim=1) - (pieces == V.sep).long()) == 0  # up to the first end, included
    lengths = ends.sum(dim=1)
    assert torch.allclose((each * ends).sum(dim=1) / lengths**0.7, found.sequences_scores, atol=1e-5)


def test_sampling_draws_what_the_model_expects():
    model = network("luong", sharp=2.0).pretrained().eval()
    source, mask = rectangle([4], 3)
    torch.manual_seed(0)
    drawn = model.generate(
        source, attention_mask=mask.long(), do_sample=True, top_k=0, max_new_tokens=2, num_return_sequences=4000
    )
    first = drawn[:, 1]
    likely = model(source, mask, decoder_input_ids=torch.full((1, 1), V.pad)).logits[0, -1].softmax(dim=-1)
    shares = torch.bincount(first, minlength=V.size) / len(first)
    assert (shares - likely).abs().max() < 0.03
    # What follows depends on what was drawn.
    common = int(first.mode().values)
    then = model(source, mask, decoder_input_ids=torch.tensor([[V.pad, common]])).logits[0, -1].softmax(dim=-1)
    after = drawn[first == common, 2]
    assert (torch.bincount(after, minlength=V.size) / len(after) - then).abs().max() < 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_it_saves_loads_and_goes_on(tied: bool, tmp_path: Path):
    register()
    net, inputs = network("luong", "gru", tied).eval(), batch()
    net.pretrained().save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    logits = real_logits(net, inputs)
    assert torch.allclose(model(**inputs).logits[inputs["decoder_attention_mask"]], logits, atol=1e-6)
    again = Pretrained(str(tmp_path), dropout=0.25)
    assert (again.family, again.max_positions) == ("seq2seq", None)
    loaded = again.load(V, {"lm": V.size}).eval()
    assert loaded.report == [f"loaded {len(net.state_dict()) - 2 * tied} of {len(net.state_dict()) - 2 * tied} tensors"]
    assert torch.allclose(real_logits(loaded, inputs), logits, atol=1e-6)
    assert {m.p for m in loaded.pretrained().modules() if isinstance(m, nn.Dropout)} == {0.25}
    with pytest.raises(ConfigError, match="gradient_checkpointing is for Transformers"):
        loaded.checkpoint_activations()


@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_that_grew_fits_both_sides(tied: bool, tmp_path: Path):
    from dataclasses import replace

    net, inputs = network(tied=tied).eval(), batch()
    net.pretrained().save_pretrained(tmp_path)
    loaded = Pretrained(str(tmp_path)).load(replace(V, size=V.size + 3), {"lm": V.size + 3}).eval()
    logits = real_logits(loaded, inputs)
    assert logits.shape[1] == V.size + 3
    assert torch.allclose(logits[:, : V.size], real_logits(net, inputs), atol=1e-6)
    inputs["input_ids"][0, 0] = inputs["decoder_input_ids"][0, 1] = V.size + 2
    assert real_logits(loaded, inputs).isfinite().all()


def test_layers_and_what_rests(tmp_path: Path):
    net = network()
    layers = net.layers()
    assert sorted(id(p) for layer in layers for p in layer) == sorted(id(p) for p in net.parameters())
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


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="classifiers need an encoder or a decoder"):
        RecurrentMT(1, 1, H, E).load(V, {"topics": 3})
    with pytest.raises(ConfigError, match="gradient_checkpointing is for Transformers"):
        network().checkpoint_activations()
    with pytest.raises(ConfigError, match="compile is of no use here"):
        network().compile_body()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecurrentMT(1, 0, H, E), "decoder_layers must be at least 1"),
        (lambda: RecurrentMT(1, 1, H, 0), "embedding must be at least 1"),
        (lambda: RecurrentMT(1, 1, H, E, "rnn"), "cell must be lstm or gru"),
        (lambda: RecurrentMT(1, 1, H, E, attention="dot"), "attention must be bahdanau or luong"),
        (lambda: RecurrentMT(1, 1, H, E, dropout=-0.1), "dropout is a probability"),
    ],
)
def test_sizes_that_cannot_be(make, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


LINES = ["the cat sits on the mat .", "a", "the dog runs , the red dog runs .", "b c d"]


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A random model in a directory, as `lmctl translate` and `lmctl score` open it."""
    torch.manual_seed(0)
    known = vocabulary()
    object.__setattr__(known, "size", use_models.SIZE)
    net = RecurrentMT(1, 1, 16, 16, attention="luong").load(known, {"lm": use_models.SIZE})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return use_models.opened(use_models.save(tmp_path_factory.mktemp("rnn"), net.pretrained(), "$A [SEP]"))


def test_translations_of_a_batch_are_those_of_single_lines(translator):
    from lmctl.inference.decode import translate

    assert translator.family == "seq2seq"
    together = list(translate(translator, [*LINES, ""], 4, 3, 1.0, 8))
    alone = [line for text in LINES for line in translate(translator, [text], 1, 3, 1.0, 8)]
    assert together == [*alone, ""]
    assert len(set(alone)) > 1


def test_conditional_likelihood_is_that_of_one_piece_after_another(translator):
    from lmctl.inference.likelihood import conditional

    pairs = [(source, target) for source, target in zip(LINES, reversed(LINES), strict=True)]
    for (source, target), scores in zip(pairs, conditional(translator, pairs, 3, 64), strict=True):
        ids, wanted = translator.framed([source])["input_ids"], [*translator.pieces([target])[0], 3]
        slow = []
        for place, piece in enumerate(wanted):
            before = torch.tensor([[0, *wanted[:place]]])
            logits = translator.model(input_ids=ids, decoder_input_ids=before).logits[0, -1]
            slow.append(logits.log_softmax(dim=-1)[piece].item())
        np.testing.assert_allclose(scores, slow, rtol=1e-4, atol=1e-5)


def reversals(seed: int, rows: int):
    """Texts of three or four words with the same words backwards."""
    rng = np.random.default_rng(seed)
    texts = [[f"w{word}" for word in rng.integers(0, 8, rng.integers(3, 5))] for _ in range(rows)]
    return store([[" ".join(text), " ".join(reversed(text))] for text in texts])


@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
def test_it_learns_to_translate(attention: str):
    from lmctl.config.schema import Budget
    from lmctl.optim.adamw import AdamW

    ready = Prepared(
        tokenizer(), V, {"corpus": TokenizedCorpus(reversals(0, 400), reversals(1, 20))}, {"tokenizer": "small"}
    )
    plan = small_plan(
        model=RecurrentMT(1, 1, 32, 32, attention=attention, dropout=0.0),
        objective=Translate(0.0),
        optim=AdamW(lr=1e-2),
        budget=Budget(steps=80),
        size=32,
    )
    runner = Trainer(plan, ready, Processes(True))
    losses = [float(r.losses.totals["corpus/lm"]) / r.counts["corpus/lm"] for r in runner.steps()]
    assert losses[0] == pytest.approx(np.log(V.size), abs=0.3)
    assert np.mean(losses[-5:]) < 0.6  # a model that knows the words alone is at 1.8


def test_an_exported_run_says_how_to_load_it(tmp_path: Path, monkeypatch):
    from lmctl.core.paths import Paths
    from lmctl.train.export import export

    ready = Prepared(
        tokenizer(), V, {"corpus": TokenizedCorpus(reversals(0, 40), reversals(1, 20))}, {"tokenizer": "small"}
    )
    runner = Trainer(small_plan(model=RecurrentMT(1, 1, H, E), objective=Translate()), ready, Processes(True))
    export(Paths(tmp_path), runner, SUMMARY)
    card = (tmp_path / "model" / "README.md").read_text()
    snippet = card.split("```python")[1].split("```")[0]
    assert "from lmctl.model.rnn.seq2seq import RecurrentForConditionalGeneration" in snippet
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(snippet, found)
    for name, value in runner.network.pretrained().state_dict().items():
        assert torch.equal(found["model"].state_dict()[name], value)
    assert found["tokenizer"]("w1 w2")["input_ids"] == [6, 7, V.sep]


def test_it_learns_to_denoise():
    from lmctl.config.schema import Budget
    from lmctl.optim.adamw import AdamW

    model, optim = RecurrentMT(1, 1, 16, 16), AdamW(lr=2e-2)
    plan = small_plan(model=model, objective=Denoise("bart"), optim=optim, budget=Budget(steps=25), size=8)
    runner = Trainer(plan, prepared(), Processes(True))
    losses = [float(r.losses.totals["corpus/lm"]) / r.counts["corpus/lm"] for r in runner.steps()]
    assert np.mean(losses[-5:]) < losses[0] - 0.2
