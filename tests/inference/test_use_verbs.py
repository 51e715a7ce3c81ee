"""`lmctl eval`, `generate`, `translate` and `score` from a config to what is printed and written."""

from __future__ import annotations

import io
import json
import os
from threading import Thread
from typing import Any

import pytest
import torch
import use_models
from omegaconf import OmegaConf
from use_models import evaluate, generate, score, translated

from lmctl.core.errors import ConfigError, DataError
from lmctl.inference.decode import complete, translate
from lmctl.verbs import generate as generate_verb


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return use_models.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return use_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    return use_models.marian(tmp_path_factory.mktemp("marian"))


@pytest.fixture
def typed(monkeypatch):
    """Put text on standard input."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


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


def test_an_empty_dash_is_called_what_it_is(gpt2, typed):
    typed("")
    with pytest.raises(DataError, match="no prompt: standard input is empty"):
        generate(gpt2, file="-")


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


@pytest.mark.parametrize("recurrent", [False, True])
def test_prompts_in_a_batch_are_continued_as_alone(gpt2, monkeypatch, recurrent):
    if recurrent:
        monkeypatch.setattr("lmctl.inference.decode._of_transformers", lambda loaded: False)
    loaded = use_models.opened(gpt2)
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


def test_no_prompt_is_refused(bert, typed):
    typed("\n\n")
    with pytest.raises(DataError, match="standard input is empty"):
        generate(bert)


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


def test_a_classifier_writes_no_text(tmp_path):
    with pytest.raises(ConfigError, match="is a classifier: it writes no text"):
        generate(use_models.bert(tmp_path, "BertForSequenceClassification"), prompt="a")


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_lines_are_scored_as_a_table(request, typed, capsys, model):
    from lmctl.inference.likelihood import texts

    path = request.getfixturevalue(model)
    typed("THE CAT\n\na b c\n")
    score(path, case="lower")
    head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["logprob", "tokens", "per_token", "text"]
    expected = list(texts(use_models.opened(path), ["the cat", "", "a b c"], 2, 64))
    assert [float(row[0]) for row in rows] == pytest.approx([float(line.sum()) for line in expected], abs=1e-3)
    assert [row[3] for row in rows] == ["THE CAT", "", "a b c"]


def test_pairs_are_recognised(gpt2, typed, capsys):
    typed("the cat\tthe cat sits on the mat .\nthe dog runs on the red mat\tthe\n")
    score(gpt2)
    printed = capsys.readouterr()
    assert [line.split("\t")[2] for line in printed.out.splitlines()] == ["right", "1", "0"]
    assert "accuracy 0.5000 of 2 pairs" in printed.err


def nbest(count: int) -> str:
    hyps = [{"text": "B C D", "score": -1.0}, {"text": "THE CAT", "score": -1.1}]
    return "".join(json.dumps({"id": n, "ref": "THE CAT", "hyps": hyps}) + "\n" for n in range(count))


def test_nbest_lists_are_rescored(gpt2, tmp_path, typed, capsys):
    dev, out = tmp_path / "dev.jsonl", tmp_path / "best.txt"
    dev.write_text(nbest(4))
    typed(nbest(2))
    score(gpt2, dev=str(dev), case="lower", out=str(out))
    head, on_dev, on_file, tuned = capsys.readouterr().out.splitlines()
    assert head.split("\t") == ["set", "utterances", "words", "wer_before", "wer_after", "wer_oracle"]
    assert on_dev.split("\t") == ["dev", "4", "8", "150.00", "0.00", "0.00"]
    assert on_file.split("\t") == ["file", "2", "4", "150.00", "0.00", "0.00"]
    assert tuned.startswith("weight ")
    assert out.read_text() == "THE CAT\n" * 2


def test_score_says_what_is_missing(gpt2, marian, typed):
    typed(nbest(1))
    with pytest.raises(ConfigError, match="others to tune the weight"):
        score(gpt2)
    typed("a\n")
    with pytest.raises(ConfigError, match="dev and out are for n-best lists, and this is mode=lines"):
        score(gpt2, dev="dev.jsonl")
    typed("a\n")
    with pytest.raises(ConfigError, match="is a seq2seq, and score needs"):
        score(marian)
    with pytest.raises(ConfigError, match="mode must be one of auto, lines, pairs, nbest"):
        score(gpt2, mode="list")


def test_figures_are_written_beside_those_of_other_suites(gpt2, tmp_path, capsys):
    out = tmp_path / "figures.json"
    evaluate(gpt2, out=str(out))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("a\tb\n")
    evaluate(gpt2, suite="minimal_pairs", file=str(pairs), out=str(out))
    found = json.loads(out.read_text())
    assert set(found) == {"perplexity", "minimal_pairs"}
    assert (found["perplexity"]["documents"], found["perplexity"]["split"]) == (3, "all")
    printed = capsys.readouterr().out
    assert f"{found['perplexity']['bits_per_byte']:.4f}" in printed


@pytest.mark.parametrize(
    ("settings", "documents"), [({"split": "train"}, 2), ({"split": "valid"}, 1), ({"rows": 1}, 1)]
)
def test_some_of_the_rows(gpt2, tmp_path, settings, documents):
    out = tmp_path / "eval.json"
    evaluate(gpt2, out=str(out), **settings)
    assert json.loads(out.read_text())["perplexity"]["documents"] == documents


def test_a_run_is_measured_on_held_out_rows_and_keeps_its_figures(tmp_path):
    use_models.gpt2(tmp_path / "model")
    data = {"_target_": "use_models.Rows", "train": [["the cat"], ["a dog ."]], "valid": [["a b c"]]}
    objective = {"_target_": "lmctl.objective.clm.CausalLM"}
    task = {"_target_": "lmctl.mix.mix.Task", "data": "${data}", "objective": objective}
    config = {"data": data, "mix": {"_target_": "lmctl.mix.mix.Mix", "tasks": {"one": task}}, "batch": {"seq_len": 8}}
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    print_ = use_models.Rows(train=data["train"], valid=data["valid"]).fingerprint()
    (tmp_path / "environment.json").write_text(json.dumps({"fingerprints": {"one": json.dumps(print_)}}))
    evaluate(tmp_path, data)
    found = json.loads((tmp_path / "eval.json").read_text())["perplexity"]
    assert (found["split"], found["documents"]) == ("valid", 1)
    evaluate(tmp_path, data | {"valid": [["a"], ["b"]]})  # other rows beside those that were trained on
    found = json.loads((tmp_path / "eval.json").read_text())["perplexity"]
    assert (found["split"], found["documents"]) == ("all", 2)


def test_a_run_that_does_not_say_what_it_learnt_from(tmp_path, capsys):
    use_models.gpt2(tmp_path / "model")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    evaluate(tmp_path, {"_target_": "use_models.Rows", "train": [["the cat"], ["a dog ."]]})
    assert "whether the model learnt from these rows cannot be told" in "".join(capsys.readouterr())


def test_auto_takes_what_the_model_calls_for(bert, marian, tmp_path):
    out = tmp_path / "eval.json"
    evaluate(bert, out=str(out))
    evaluate(marian, {"yields": "parallel", "train": [["a b", "c d"]]}, out=str(out), beams=1, max_new_tokens=3)
    names = {"yields": "labelled", "train": [["a b", "1"], ["c", "0"]]}
    evaluate(use_models.bert(tmp_path / "c", "BertForSequenceClassification"), names, out=str(out))
    assert set(json.loads(out.read_text())) == {"mlm", "translation", "classification"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "perplexty"}, "suite must be one of auto, perplexity"),
        ({"split": "test"}, "split must be one of"),
        ({"seq_len": 4}, "seq_len must be at least 8"),
        ({"out": "nowhere/eval.json"}, "there is no directory nowhere"),
        ({"suite": "mlm"}, "suite=mlm needs a masked language model"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(gpt2, settings, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(gpt2, **settings)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ('{"a": 1}', "holds no figures")])
def test_other_files_are_not_overwritten(gpt2, tmp_path, text, message):
    out = tmp_path / "notes.json"
    out.write_text(text)
    with pytest.raises(ConfigError, match=message):
        evaluate(gpt2, out=str(out))
    assert out.read_text() == text


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
