"""Models from elsewhere at work: what is loaded is something, and it is used as plain transformers uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
import transformers
import use_models
from transformers import AutoTokenizer
from use_models import generate, score, translated

from lmctl.augment.back_translate import BackTranslate
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.pretrained_files import hub_is_reachable
from lmctl.inference.decode import complete, go_on, translate
from lmctl.model.positions import outlined_positions, positions
from lmctl.model.pretrained import Pretrained
from lmctl.tokenizer.pretrained import Pretrained as PretrainedTokenizer
from lmctl.tokenizer.vocabulary import vocabulary


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return foreign.save(tmp_path_factory.mktemp("models") / "gpt2", "GPT2LMHeadModel", "[SEP] $A")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return foreign.save(tmp_path_factory.mktemp("models") / "bert", "BertForMaskedLM")


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return foreign.save(tmp_path_factory.mktemp("models") / "bart", "BartForConditionalGeneration", "$A [SEP]")


@pytest.fixture
def copy(tmp_path):
    """A copy that may be changed."""
    return lambda source: foreign.copied(source, tmp_path / source.name)


def to_nan(folder: Path, name: str) -> Path:
    """The weights of one layer are no numbers."""
    return foreign.reweigh(folder, lambda tensors: tensors.update({name: torch.full_like(tensors[name], torch.nan)}))


@pytest.mark.parametrize(
    "look",
    [
        lambda name: Pretrained(name).config,
        lambda name: PretrainedTokenizer(name).obtain(iter(())),
        lambda name: BackTranslate(name, name).rewriter(use_models.tokenizer(), vocabulary(use_models.tokenizer())),
    ],
)
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch, look: Callable[[str], Any]):
    def waits(seconds: float) -> None:
        pytest.fail("another try")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", waits)
    hub_is_reachable.cache_clear()
    with pytest.raises(ConfigError, match="nobody/has-this: cannot be loaded: it is neither here nor in the hub's"):
        look("nobody/has-this")
    hub_is_reachable.cache_clear()
    with pytest.raises(ConfigError, match=r"no such directory|does not exist"):
        look("C:\\models")


@pytest.mark.parametrize("how", [{"do_sample": True}, {"do_sample": True, "top_k": 3}, {}, {"num_beams": 2}])
def test_nothing_is_written_by_a_model_whose_answers_are_no_numbers(gpt2, copy, how):
    """Of NaN the likeliest is any piece, and nothing can be drawn."""
    loaded = use_models.opened(to_nan(copy(gpt2), "transformer.h.0.mlp.c_fc.weight"))
    with pytest.raises(ConfigError, match=r"gpt2: the model's answers are no numbers \(NaN\)"):
        list(complete(loaded, ["the cat"], 1, 3, **how))


def test_nothing_is_translated_by_a_model_whose_answers_are_no_numbers(bart, copy):
    loaded = use_models.opened(to_nan(copy(bart), "model.decoder.layers.0.fc1.weight"))
    with pytest.raises(ConfigError, match=r"bart: the model's answers are no numbers \(NaN\)"):
        list(translate(loaded, ["the cat"], 1, 2, 1.0, 3))


# What is loaded is checked to be something.


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


def empty_tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = {"[UNK]": 1}
    foreign.edit(folder, "tokenizer.json", model=content["model"])


def other_tokenizer(folder: Path) -> None:
    tokenizer = use_models.tokenizer()
    tokenizer.add_tokens(["more", "pieces"])
    tokenizer.save_pretrained(folder)


def blind_tokenizer(folder: Path) -> None:
    """All text is put in capitals, which none of its pieces has."""
    replace = {"type": "Replace", "pattern": {"Regex": "[a-z,.]+"}, "content": "Q"}
    foreign.edit(folder, "tokenizer.json", normalizer=replace)


@pytest.mark.parametrize("source", ["gpt2", "bert", "bart"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_tokenizer, "has no tokenizer, neither in itself"),
        (empty_tokenizer, "its tokenizer is empty"),
        (other_tokenizer, "has a piece '(more|pieces)' of number 3[34], and the model has embeddings for 32 pieces"),
        (blind_tokenizer, "makes nothing of text but unknown pieces"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused(request, copy, source, damage, message):
    folder = copy(request.getfixturevalue(source))
    use_models.opened(folder)
    damage(folder)
    with pytest.raises(ConfigError, match=f"model_path={folder}.*{message}"):
        use_models.opened(folder)
    if damage is not other_tokenizer:  # to go on from, a model gets new embeddings
        with pytest.raises(ConfigError, match=message):
            PretrainedTokenizer(str(folder)).obtain(iter(()))


def test_rows_that_no_piece_uses_are_no_fault(tmp_path):
    """As in Qwen, whose embeddings are padded to a round number."""
    model = foreign.model("GPT2LMHeadModel")
    model.resize_token_embeddings(64, mean_resizing=False)
    loaded = use_models.opened(use_models.save(tmp_path, model, "[SEP] $A"))
    assert loaded.model.get_input_embeddings().num_embeddings == 64


def drop(part: str) -> Any:
    def change(tensors: dict[str, Any]) -> None:
        names = [name for name in tensors if part in name]
        assert names
        for name in names:
            del tensors[name]

    return change


def shrink(part: str) -> Any:
    def change(tensors: dict[str, Any]) -> None:
        [name] = [name for name in tensors if part in name]
        tensors[name] = tensors[name][: len(tensors[name]) // 2].clone()

    return change


@pytest.mark.parametrize(
    ("source", "change", "named"),
    [
        ("gpt2", drop(".h.1."), "transformer.h.1.attn"),
        ("gpt2", drop("wpe"), "transformer.wpe"),
        ("gpt2", shrink("wpe"), "transformer.wpe"),
        ("bert", drop("cls.predictions"), "cls.predictions"),
        ("bert", shrink("layer.1.output.dense.bias"), "bert.encoder.layer.1.output.dense"),
        ("bart", drop("decoder.layers.0.encoder_attn"), "model.decoder.layers.0.encoder_attn"),
    ],
)
def test_weights_that_a_checkpoint_lacks_are_refused_for_use_and_said_for_training(
    request, copy, source, change, named
):
    folder = foreign.reweigh(copy(request.getfixturevalue(source)), change)
    with pytest.raises(ConfigError, match=f"its checkpoint lacks {named}"):
        use_models.opened(folder)
    pieces, heads = vocabulary(AutoTokenizer.from_pretrained(folder)), {"mlm": 32} if source == "bert" else {"lm": 32}
    report = Pretrained(str(folder)).load(pieces, heads).report
    assert any(line.startswith("new: ") and named in line for line in report)


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "BertForMaskedLM", "T5ForConditionalGeneration",
                                  "BartForConditionalGeneration", "MarianMTModel", "OPTForCausalLM"])  # fmt: skip
def test_tied_weights_and_buffers_are_not_missed(tmp_path, kind):
    """A checkpoint as other libraries write it: each tied weight once, no buffers."""
    frame = (
        "$A [SEP]" if kind in ("T5ForConditionalGeneration", "BartForConditionalGeneration", "MarianMTModel") else None
    )
    folder, model = foreign.save(tmp_path / kind, kind, frame), foreign.model(kind)
    learnt = {name for name, _ in model.named_parameters()}

    def only_learnt(tensors: dict[str, Any]) -> None:
        for name in set(tensors) - learnt:
            del tensors[name]

    foreign.reweigh(folder, only_learnt)
    loaded = use_models.opened(folder)
    for name, value in foreign.model(kind).state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def cut(file: str) -> Any:
    return lambda folder: (folder / file).write_bytes(
        (folder / file).read_bytes()[: (folder / file).stat().st_size // 2]
    )


def holds(file: str, text: str) -> Any:
    return lambda folder: (folder / file).write_text(text)


def whole_numbers(folder: Path) -> None:
    foreign.reweigh(
        folder, lambda tensors: tensors.update({"transformer.ln_f.bias": torch.zeros(32, dtype=torch.int64)})
    )


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lost_shard(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*"))[1].unlink()


def index_of_strangers(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {
        "metadata": {},
        "weight_map": {"transformer.wte.weight": "model-1.safetensors", "who": "model-1.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


DAMAGES = [
    (cut("model.safetensors"), "model.safetensors is damaged"),
    (holds("model.safetensors", ""), "model.safetensors is damaged"),
    (holds("model.safetensors", "x" * 100), "model.safetensors is damaged"),
    (lambda folder: (folder / "model.safetensors").unlink(), "it has no weights"),
    (pickled, "pytorch_model.bin, a pickle"),
    (whole_numbers, "transformer.ln_f.bias are kept as I64"),
    (lost_shard, "model-00002-of-0000. ?.*safetensors is missing"),
    (index_of_strangers, "model-1.safetensors has no tensor who"),
    (holds("tokenizer.json", "{}"), "tokenizer.json is damaged"),
    (holds("tokenizer.json", ""), "tokenizer.json is damaged: it is empty"),
    (cut("tokenizer.json"), "tokenizer.json is damaged: no JSON"),
    (cut("config.json"), "config.json is damaged: no JSON"),
    (holds("config.json", "[]"), "config.json is damaged: it holds no JSON object"),
    (holds("config.json", "{}"), "cannot be loaded: config.json"),
    (
        holds("config.json", '{"model_type": "gpt2", "n_embd": "wide", "architectures": ["GPT2LMHeadModel"]}'),
        "cannot be",
    ),
    (holds("generation_config.json", "{"), "generation_config.json is damaged"),
    (holds("lmctl_tasks.json", "nonsense"), "lmctl_tasks.json is damaged"),
    (holds("lmctl_tasks.json", '{"lm": {}}'), "lmctl_tasks.json is damaged: task lm"),
    (holds("adapter_config.json", "{}"), "holds an adapter"),
    (
        lambda folder: foreign.edit(folder, "config.json", model_type="mine", auto_map={"AutoConfig": "a.B"}),
        "needs Python code that comes with it",
    ),
    *(
        (
            lambda folder, file=file, key=key, value=value: foreign.edit(folder, file, **{key: value}),
            f"{file}: {key} is",
        )
        for file in ("config.json", "generation_config.json")
        for key, value in (
            ("eos_token_id", {}),
            ("eos_token_id", [3, "x"]),
            ("bos_token_id", True),
            ("pad_token_id", "0"),
            ("decoder_start_token_id", []),
        )
    ),
    *(
        (lambda folder, names=names: foreign.edit(folder, "config.json", architectures=names), "architectures is")
        for names in (-1, "GPT2LMHeadModel", [3])
    ),
    (lambda folder: foreign.edit(folder, "config.json", n_layer=10**6), "n_layer is 1,000,000, and its weights are"),
    *(
        (lambda folder, heads=heads: foreign.edit(folder, "config.json", n_head=heads), "cannot be loaded: its ")
        for heads in (-1, -2, 64)  # sizes that no weight has
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_files_are_named(gpt2, copy, damage, message):
    folder = copy(gpt2)
    damage(folder)
    with pytest.raises(ConfigError, match=message):
        use_models.opened(folder)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ("m/gpt2/model.safetensors", "is a file, and a model is a directory", "give the directory"),
        ("m/x.gguf", "is a file", "GGUF is the format of llama.cpp"),
        ("m", "neither a run nor a model directory", "a model lies below it: .*m/gpt2"),
        ("m/gpt2/inside", "neither a run nor a model directory", "a model lies above it: .*m/gpt2"),
        ("m/sentence", "neither a run nor a model directory", "below it: .*0_Transformer"),
        ("m/adapter", "neither a run nor a model directory", "merge it into its base model"),
        ("m/weights", "neither a run nor a model directory", "config.json of the model is missing"),
    ],
)
def test_what_is_no_model_directory_is_told_from_one(gpt2, tmp_path, monkeypatch, given, message, hint):
    monkeypatch.chdir(tmp_path)
    folder = foreign.copied(gpt2, tmp_path / "m/gpt2")
    (folder / "inside").mkdir()
    (tmp_path / "m/x.gguf").write_bytes(b"GGUF")
    foreign.copied(gpt2, tmp_path / "m/sentence/0_Transformer")
    (tmp_path / "m/sentence/modules.json").write_text("[]")
    for name, file in (("adapter", "adapter_config.json"), ("weights", "model.safetensors")):
        (tmp_path / "m" / name).mkdir()
        (tmp_path / "m" / name / file).write_text("{}")
    with pytest.raises(ConfigError, match=message) as caught:
        use_models.opened(Path(given))
    assert re.search(hint, str(caught.value.hint))
    with pytest.raises(ConfigError):
        _ = Pretrained(given).config


# How long a row may be is asked of the network.


def longest(model: Any) -> int | None:
    """The longest row that a forward pass takes, by trying; None: no row of up to 36 is too long."""
    for size in range(1, 37):
        ids = torch.full((1, size), 6)
        sides = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        try:
            with torch.no_grad():
                model(input_ids=ids, attention_mask=torch.ones_like(ids), **sides)
        except (IndexError, RuntimeError):
            return size - 1
    return None


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


@pytest.mark.parametrize("name", BROUGHT)
def test_nothing_that_a_model_brings_along_changes_what_is_written(gpt2, copy, capsys, name):
    folder = copy(gpt2)
    brought = {name: BROUGHT[name]} | ({"num_beams": 3} if name in ("num_return_sequences", "num_beam_groups") else {})
    foreign.edit(folder, "generation_config.json", **brought)
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

PROMPTS = [" ".join(use_models.WORDS[place % 20 :][:size]) for place, size in enumerate([1, 9, 3, 3, 8, 2, 5, 7] * 3)]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "OPTForCausalLM", "BloomForCausalLM"])
def test_a_batch_of_prompts_goes_on_as_each_alone(tmp_path, kind, beams):
    loaded = use_models.opened(foreign.save(tmp_path, kind, "[SEP] $A"))
    together = list(complete(loaded, PROMPTS, 8, 40, num_beams=beams))
    assert together == [next(complete(loaded, [prompt], 1, 40, num_beams=beams)) for prompt in PROMPTS]
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
