"""`lmctl generate` and `translate` from a config to what is printed and written."""

from __future__ import annotations

import io
import os
from threading import Thread
from typing import Any

import pytest
import torch
import use_models
from use_models import generate, score, translated

from lmctl.core.errors import ConfigError, DataError
from lmctl.inference.decode import complete, translate
from lmctl.model.recurrent import RecurrentLM
from lmctl.tokenizer.vocabulary import vocabulary
from lmctl.verbs import generate as generate_verb

LINES = ["the cat sits on the mat .", "", "a", "b c d e f g h", "  ", "the red dog", "a"]


def test_translation_is_line_for_line(marian, typed, capsys):
    typed("\n".join(LINES) + "\n")
    translated(marian, batch=2, beams=2, max_new_tokens=6)
    together = capsys.readouterr().out.split("\n")[:-1]
    alone = []
    for line in LINES:
        typed(line + "\n")
        translated(marian, batch=1, beams=2, max_new_tokens=6)
        alone.append(capsys.readouterr().out.removesuffix("\n"))
    assert together == alone
    assert [not line for line in together] == [not line.strip() for line in LINES]


def test_beam_search_divides_by_length(marian):
    """Against all outputs of up to three pieces, one after the other; on a model whose answer the penalty changes, and
    for which the likeliest first piece is not the beginning of the best answer."""
    loaded = use_models.opened(marian)
    for bias in torch.arange(-2.0, 2.0, 0.1):
        loaded.model.final_logits_bias[0, loaded.end] = bias
        best = {penalty: best_output(loaded, "the cat", penalty) for penalty in (0.0, 1.0, 3.0)}
        greedy = best_output(loaded, "the cat", 1.0, greedily=True)
        if best[3.0] != best[0.0] != greedy:
            break
    assert best[3.0] != best[0.0] != greedy
    # Beams as wide as all beginnings: the search cannot miss the best one.
    for penalty, ids in best.items():
        [found] = translate(loaded, ["the cat"], 1, use_models.SIZE, penalty, 2)
        assert found == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    [found] = translate(loaded, ["the cat"], 1, 1, 0.0, 2)
    assert found == loaded.tokenizer.decode(greedy, skip_special_tokens=True)


def best_output(loaded: Any, text: str, penalty: float, greedily: bool = False) -> list[int]:
    source = loaded.framed([text])
    kept = [piece for piece in range(use_models.SIZE) if piece != loaded.pad]
    with torch.no_grad():
        begun = torch.tensor([[0, piece] for piece in kept])
        inputs = {name: source[name].expand(len(begun), -1) for name in ("input_ids", "attention_mask")}
        logits = loaded.model(**inputs, decoder_input_ids=begun).logits.clone()
    logits[:, :, loaded.pad] = -torch.inf  # it is never part of an output
    scores = logits.double().log_softmax(-1)
    first, second = scores[0, 0], scores[:, 1]
    if greedily:
        piece = int(first.argmax())
        return [piece] if piece == loaded.end else [piece, int(second[kept.index(piece)].argmax())]
    options = [(float(first[loaded.end]), [loaded.end])]
    for place, piece in enumerate(kept):
        if piece != loaded.end:
            options += [
                (float(first[piece] + second[place, last]) / 2**penalty, [piece, last]) for last in kept
            ]  # fmt: skip
    return max(options)[1]


def test_files_are_translated_too(marian, tmp_path, capsys):
    file = tmp_path / "in.txt"
    file.write_text("the cat\n\nthe dog\n")
    translated(marian, file=str(file), max_new_tokens=4)
    assert [bool(line) for line in capsys.readouterr().out.splitlines()] == [True, False, True]


@pytest.mark.parametrize("verb", [translated, generate, score])
def test_a_dash_and_a_pipe_are_read_once_as_standard_input_is(marian, gpt2, tmp_path, typed, capsys, verb):
    model, settings = (marian if verb is translated else gpt2), {} if verb is score else {"max_new_tokens": 4}
    text = "the cat\nthe dog\n"
    (tmp_path / "in.txt").write_text(text)
    verb(model, file=str(tmp_path / "in.txt"), **settings)
    expected = capsys.readouterr().out
    assert len(expected.splitlines()) >= 2
    typed(text)
    verb(model, file="-", **settings)
    assert capsys.readouterr().out == expected
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_text, args=(text,), daemon=True)
    writer.start()
    verb(model, file=str(pipe), **settings)
    writer.join(timeout=10)
    assert capsys.readouterr().out == expected


def test_a_prompt_is_continued_greedily(gpt2, capsys):
    generate(gpt2, prompt="the cat", max_new_tokens=5)
    loaded = use_models.opened(gpt2)
    ids = loaded.tokenizer("the cat")["input_ids"]
    for _ in range(5):
        with torch.no_grad():
            ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == loaded.end:
            break
    assert capsys.readouterr().out == loaded.tokenizer.decode(ids, skip_special_tokens=True) + "\n"


def test_prompts_of_a_recurrent_model_are_continued_in_batches_as_alone(tmp_path):
    known = vocabulary(use_models.tokenizer("[SEP] $A"))
    network = RecurrentLM(1, 16, dropout=0.0).load(known, {"lm": known.size}).pretrained()
    for weights in network.parameters():
        torch.nn.init.normal_(weights)
    loaded = use_models.opened(use_models.save(tmp_path, network, "[SEP] $A"))
    prompts = ["the cat sits on", "a", "the dog", "b c", "a b c d e f g"]
    together = list(complete(loaded, prompts, 3, 6))
    assert together == [next(complete(loaded, [prompt], 1, 6)) for prompt in prompts]
    assert all(text.startswith(prompt) for text, prompt in zip(together, prompts, strict=True))


def test_sampling_follows_its_seed(gpt2, capsys):
    texts = []
    for seed in (1, 1, 2):
        generate(gpt2, prompt="the", do_sample=True, top_k=0, temperature=1.5, max_new_tokens=20, seed=seed)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_sampling_from_one_piece_is_greedy(gpt2, capsys):
    generate(gpt2, prompt="the", max_new_tokens=10)
    generate(gpt2, prompt="the", do_sample=True, top_k=1, max_new_tokens=10)
    generate(gpt2, prompt="the", do_sample=True, top_k=0, top_p=1e-6, max_new_tokens=10)
    assert len(set(capsys.readouterr().out.splitlines())) == 1


def test_masks_are_filled(bert, typed, capsys):
    typed("the [MASK] sits\n\na [MASK] [MASK]\n")
    generate(bert, top_k=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert [line.count("%") for line in lines] == [0, 2, 0, 2, 2]
    loaded = use_models.opened(bert)
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([[2, 5, 4, 4, 3]])).logits[0, 2:4]
    best = loaded.tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())
    assert lines[2].split() == ["a", *best]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompt": "no mask"}, DataError, r"the prompt has no \[MASK\]"),
        ({"prompt": "[MASK]" + " a" * 99}, DataError, "the prompt has 102 tokens, and the model takes 64"),
        ({"prompt": "a [MASK]", "do_sample": True}, ConfigError, "fills masks"),
        ({"prompt": "a", "file": "b"}, ConfigError, "give prompt or file"),
        ({"prompt": "a", "top_k": 0}, ConfigError, "top_k must be above 0"),
        ({"prompt": "a", "temperature": 0.5}, ConfigError, "fills masks: it neither samples nor searches"),
        ({"prompt": "a", "temperature": 0.5, "do_sample": False}, ConfigError, "leave do_sample=false out"),
        ({"prompt": "a", "temperature": 0.0}, ConfigError, "leave it out to take the likeliest"),
        ({"prompt": "a", "top_p": 1.5, "do_sample": True}, ConfigError, "top_p must be"),
    ],
)
def test_what_cannot_be_generated_is_refused(bert, settings, error, message):
    with pytest.raises(error, match=message):
        generate(bert, **settings)


@pytest.mark.parametrize(("text", "settings"), [("\n\n", {}), ("", {"file": "-"})])
def test_no_prompt_is_refused(bert, typed, text, settings):
    typed(text)
    with pytest.raises(DataError, match="no prompt: standard input is empty"):
        generate(bert, **settings)


def test_a_terminal_is_not_waited_for(bert, marian, monkeypatch):
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    with pytest.raises(ConfigError, match="no prompt given"):
        generate(bert)
    with pytest.raises(ConfigError, match="no text given"):
        translated(marian)


def test_only_translators_translate(gpt2, typed):
    typed("a\n")
    with pytest.raises(ConfigError, match="is a causal language model, and translate needs a seq2seq"):
        translated(gpt2)


@pytest.mark.parametrize("given", [{"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 3}, {"temperature": 1.0}], ids=str)
def test_what_only_sampling_knows_asks_for_it(gpt2, capsys, given):
    """It is done, and said, instead of being refused or left out."""
    generate(gpt2, prompt="the cat", max_new_tokens=12, seed=3, **given)
    said = capsys.readouterr()
    generate(gpt2, prompt="the cat", max_new_tokens=12, seed=3, do_sample=True, **given)
    explicit = capsys.readouterr()
    assert said.out == explicit.out
    [name] = given
    assert f"{name}={given[name]:g}: pieces are drawn (do_sample=true seed=3)" in said.err
    assert "drawn" not in explicit.err
    generate(gpt2, prompt="the cat", max_new_tokens=12)
    assert capsys.readouterr().out != said.out


@pytest.mark.parametrize(
    ("pieces", "round_"),
    [
        ([5] * 12, True),
        ([9, 8, 7, *[1, 2, 3] * 4], True),
        ([1, 1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1], True),
        (list(range(40)), False),
        ([1, 2, 3, 4, 5, 6, 1, 3, 5, 2, 4, 6], False),
        ([5] * 5, False),
    ],
)
def test_circles_are_seen(pieces, round_):
    assert generate_verb.is_repetitive(pieces) is round_


def test_circles_are_said_once_and_not_of_what_was_drawn(gpt2, typed, capsys, monkeypatch):
    monkeypatch.setattr(generate_verb, "is_repetitive", lambda pieces: True)
    typed("the cat\na dog\n")
    generate(gpt2, max_new_tokens=12)
    assert capsys.readouterr().err.count("repeats itself here: temperature=0.8 samples instead") == 1
    generate(gpt2, prompt="a", max_new_tokens=12, temperature=0.8)
    assert "repeats itself" not in capsys.readouterr().err
