"""Models from elsewhere at work: how long a row may be, and text that is written as lmctl's keys say, by any model."""

from __future__ import annotations

import bisect
from typing import Any

import foreign
import pytest
import torch
import transformers
import use_models
from transformers import AutoTokenizer
from use_models import generate, score, translated

from lmctl.core.errors import DataError
from lmctl.inference.decode import complete, go_on, translate
from lmctl.model.electra_network import ElectraNetwork
from lmctl.model.encoders import DistilBertEncoder, RobertaEncoder
from lmctl.model.modernbert_network import ModernBertEncoder
from lmctl.model.positions import outlined_positions, positions


def longest(model: Any) -> int | None:
    """The longest row that a forward pass takes, by trying; None: no row of up to 36 is too long."""

    def fails(size: int) -> bool:
        ids = torch.full((1, size), 6)
        sides = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        try:
            with torch.no_grad():
                model(input_ids=ids, attention_mask=torch.ones_like(ids), **sides)
        except (IndexError, RuntimeError):
            return True
        return False

    found = bisect.bisect_left(range(1, 37), True, key=fails)
    return found if found < 36 else None


LEARNT = (
    *("Bert", "Roberta", "XLMRobertaXL", "Camembert", "MPNet", "Longformer", "Esm", "Data2VecText", "IBert", "Luke"),
    *("RobertaPreLayerNorm", "Nystromformer", "Electra", "Albert", "DistilBert", "DebertaV2", "BigBird", "FNet"),
)


@pytest.mark.parametrize(
    "kind",
    [
        *(f"{name}ForMaskedLM" for name in LEARNT),
        *("GPT2LMHeadModel", "OPTForCausalLM", "BartForConditionalGeneration", "MarianMTModel"),
    ],
)
def test_positions_are_those_that_a_network_has(kind):
    model = foreign.model(kind).eval()
    found = longest(model)
    assert found is not None
    assert positions(model, model.config) == found == outlined_positions(model.config)


@pytest.mark.parametrize("kind", ["T5ForConditionalGeneration", "BloomForCausalLM"])
def test_networks_that_know_distances_take_rows_of_any_length(kind):
    model = foreign.model(kind).eval()
    assert longest(model) is None
    assert positions(model, model.config) is None


def test_rotated_positions_are_as_many_as_were_trained():
    model = foreign.model("LlamaForCausalLM")
    assert positions(model, model.config) == 24


ENCODERS = {
    "RobertaForMaskedLM": RobertaEncoder,
    "DistilBertForMaskedLM": DistilBertEncoder,
    "ElectraForMaskedLM": ElectraNetwork,
    "ModernBertForMaskedLM": ModernBertEncoder,
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_without_a_head_for_pairs_gets_one(kind):
    """It reads the first position's state, learns, and is kept with the model's other heads."""
    model = foreign.model(kind)
    network, again = (ENCODERS[kind](model, {"mlm": model.config.vocab_size, "pair": 2}) for _ in range(2))
    ids = torch.arange(6, 22).reshape(2, 8)
    hidden = network.encode({"input_ids": ids}, torch.tensor([0, 8, 11]))
    logits = network.head("pair", hidden[:2])
    assert logits.shape == (2, 2)
    assert network.head("mlm", hidden[2:]).shape == (1, model.config.vocab_size)
    weight, bias = network.head_parameters("pair")
    logits[0, 0].backward()
    torch.testing.assert_close(bias.grad, torch.tensor([1.0, 0.0]))
    assert not torch.equal(again.head_parameters("pair")[0], weight)
    assert again.load_extra_heads(network.extra_heads()) == ["pair"]
    assert torch.equal(again.head_parameters("pair")[0], weight)


# Prompts and lines that are too long.

LONG = " ".join(["the cat sits"] * 20)


@pytest.mark.parametrize(
    ("kind", "frame"),
    [("GPT2LMHeadModel", "[SEP] $A"), ("OPTForCausalLM", "[SEP] $A"), ("BartForConditionalGeneration", "$A [SEP]")],
)
def test_a_prompt_without_room_is_said_with_its_line_before_any_work(tmp_path, capsys, kind, frame):
    folder, file = foreign.save(tmp_path / "model", kind, frame), tmp_path / "prompts.txt"
    with pytest.raises(DataError, match=r"^the prompt has 61 tokens, and the model takes 24"):
        generate(folder, prompt=LONG)
    file.write_text(f"the cat\n\n{LONG}\nthe dog\n")
    with pytest.raises(DataError, match=f"^{file}:3: the prompt has 61 tokens"):
        generate(folder, file=str(file))
    assert capsys.readouterr().out == ""
    file.write_text("the cat\n\nthe dog\n")
    generate(folder, file=str(file), max_new_tokens=99)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("count", [22, 23, 24])
def test_the_last_position_can_be_used(gpt2, count):
    """GPT-2 of 24 positions: 23 pieces leave room for one more, 24 for none."""
    loaded, prompt = use_models.opened(gpt2), " ".join(["the"] * (count - 1))
    if count < 24:
        [text] = complete(loaded, [prompt], 1, 50)
        assert text.startswith(prompt)
    else:
        with pytest.raises(DataError, match="24 tokens, and the model takes 24, its answer included"):
            generate(gpt2, prompt=prompt)


def test_masks_without_room_and_prompts_without_masks_are_said_before_any_work(bert, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    for bad, message in ((f"[MASK] {LONG}", "the prompt has 63 tokens"), ("the cat", r"the prompt has no \[MASK\]")):
        file.write_text(f"the [MASK]\n{bad}\n")
        with pytest.raises(DataError, match=f"^{file}:2: {message}"):
            generate(bert, file=str(file))
        assert capsys.readouterr().out == ""


def test_lines_that_are_not_read_to_their_ends_are_said_and_translated(bart, tmp_path, capsys):
    file = tmp_path / "lines.txt"
    file.write_text(f"the cat\n{LONG}\nthe dog\n")
    translated(bart, file=str(file), max_new_tokens=4)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert f"{file}:2: 61 tokens, and the model reads 24" in printed.err + printed.out


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "MPNetForMaskedLM", "XLMRobertaXLForMaskedLM"])
def test_all_of_a_long_line_is_scored(tmp_path, capsys, kind):
    """A masked model reads it a stretch at a time: the sum over stretches, each scored alone."""
    folder = foreign.save(tmp_path / "model", kind)
    loaded, file = use_models.opened(folder), tmp_path / "lines.txt"
    words, room = LONG.split(), loaded.positions - 2
    stretches = [" ".join(words[start : start + room]) for start in range(0, len(words), room)]
    file.write_text("\n".join([LONG, *stretches]) + "\n")
    score(folder, file=str(file), mode="lines")
    whole, *parts = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(parts) > 2
    assert whole[1] == "60"
    assert float(whole[0]) == pytest.approx(sum(float(part[0]) for part in parts), abs=1e-3)


# Text is written as lmctl's keys say, by any model.


def greedy(model: Any, ids: list[int], count: int, end: int) -> list[int]:
    """One piece after another."""
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == end:
            break
    return ids


BROUGHT: dict[str, Any] = {
    "num_return_sequences": 3, "num_beams": 3, "return_dict_in_generate": True, "output_scores": True,
    "repetition_penalty": 5.0, "no_repeat_ngram_size": 2, "min_new_tokens": 5, "min_length": 9, "max_length": 4,
    "do_sample": True, "temperature": 3.0, "top_k": 2, "top_p": 0.1, "bad_words_ids": [[6], [7], [8]], "typical_p": 0.2,
    "suppress_tokens": list(range(5, 25)), "begin_suppress_tokens": [9, 10], "forced_eos_token_id": 3,
    "length_penalty": 9.0, "early_stopping": True, "sequence_bias": [[[9], -50.0]], "renormalize_logits": True,
    "max_time": 0.0001, "stop_strings": ["a"], "use_cache": False, "num_beam_groups": 3, "penalty_alpha": 0.6,
    "encoder_repetition_penalty": 3.0, "exponential_decay_length_penalty": [1, 9.0], "guidance_scale": 3.0,
    "epsilon_cutoff": 0.01, "min_p": 0.5, "remove_invalid_values": True, "output_hidden_states": True,
}  # fmt: skip


@pytest.mark.parametrize("names", [list(BROUGHT)[place::6] for place in range(6)], ids=",".join)
def test_nothing_that_a_model_brings_along_changes_what_is_written(gpt2, copy, names):
    folder = copy(gpt2)
    foreign.edit(folder, "generation_config.json", **{name: BROUGHT[name] for name in (*names, "num_beams")})
    loaded = use_models.opened(folder)
    ids = greedy(loaded.model, [3, *loaded.pieces(["the cat"])[0]], 12, 3)
    [text] = complete(loaded, ["the cat"], 1, 12)
    assert text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    assert len(text.split()) > 4


def test_such_fields_would_change_it(gpt2, copy):
    """What the test above is about: plain transformers follows them."""
    folder = foreign.edit(copy(gpt2), "generation_config.json", suppress_tokens=BROUGHT["suppress_tokens"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[3, 6, 7]])
    said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0].tolist()
    assert said != greedy(model, [3, 6, 7], 12, 3)


def test_all_ends_of_a_chat_model_end_its_answer(gpt2, copy):
    """Its files name several; those that are ordinary pieces to its tokenizer are none."""
    folder = copy(gpt2)
    loaded = use_models.opened(folder)
    plain = greedy(loaded.model, [3, 21, 22], 12, 3)
    assert loaded.ends == [3]
    assert len(plain) == 15
    second = plain[6]
    foreign.edit(folder, "generation_config.json", eos_token_id=[3, second])
    assert use_models.opened(folder).ends == [3]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [tokenizer.convert_ids_to_tokens(second)]})
    tokenizer.save_pretrained(folder)
    loaded = use_models.opened(folder)
    assert loaded.ends == sorted({3, second})
    first = plain.index(second, 3)
    [text] = go_on(loaded, [[3, 21, 22]], 1, 12)
    assert text == loaded.tokenizer.decode(plain[:first], skip_special_tokens=True)


@pytest.mark.parametrize("frame", [None, "[SEP] $A [SEP]", "$A [SEP]", "[SEP] $A"])
def test_prompts_of_decoders_are_not_closed(gpt2, copy, frame):
    """Whatever its tokenizer puts around a text: [CLS] $A [SEP], as Chinese GPT-2s do, or an end alone."""
    folder = copy(gpt2)
    use_models.tokenizer(frame).save_pretrained(folder)
    loaded = use_models.opened(folder)
    framed = loaded.tokenizer("the cat")["input_ids"]
    opened = framed[: framed.index(6 + 15)] if 21 in framed else []
    pieces = loaded.pieces(["the cat"])[0]
    assert loaded.prompt("the cat") == [*opened, *pieces]
    assert framed != loaded.prompt("the cat") or frame == "[SEP] $A"
    [text] = complete(loaded, ["the cat"], 1, 6)
    ids = greedy(loaded.model, [*opened, *pieces], 6, loaded.end)
    assert text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    assert loaded.prompt("") == [loaded.begin]


# What is written to a row does not depend on the rows beside it.

PROMPTS = [" ".join(use_models.WORDS[place % 20 :][:size]) for place, size in enumerate([1, 9, 3, 3, 8, 2, 5, 7, 4, 6])]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "OPTForCausalLM", "BloomForCausalLM"])
def test_a_batch_of_prompts_goes_on_as_each_alone(tmp_path, kind, beams):
    loaded = use_models.opened(foreign.save(tmp_path, kind, "[SEP] $A"))
    together = list(complete(loaded, PROMPTS, 8, 30, num_beams=beams))
    assert together == [next(complete(loaded, [prompt], 1, 30, num_beams=beams)) for prompt in PROMPTS]
    if loaded.positions is not None and beams == 1:  # models that never end fill all their positions
        lengths = {len(loaded.pieces([text])[0]) for text in together}
        assert max(lengths) == loaded.positions - 1


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["T5ForConditionalGeneration", "BartForConditionalGeneration"])
def test_a_batch_of_lines_is_translated_as_each_alone(tmp_path, kind, beams):
    loaded = use_models.opened(foreign.save(tmp_path, kind, "$A [SEP]"))
    together = list(translate(loaded, PROMPTS, 8, beams, 1.0, None))
    alone = [next(translate(loaded, [line], 1, beams, 1.0, None)) for line in PROMPTS]
    assert together == alone
    if kind.startswith("T5") and beams == 1:  # it never ends: twice as long and 20 pieces, of each line by itself
        assert len({len(text) for text in alone}) > 3
