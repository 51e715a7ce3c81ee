"""What is loaded is something: damaged, incomplete and foreign directories are refused by name."""

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

from lmctl.augment.back_translate import BackTranslate
from lmctl.core.errors import ConfigError
from lmctl.core.pretrained_files import hub_is_reachable
from lmctl.inference.decode import complete, translate
from lmctl.inference.likelihood import texts
from lmctl.model.pretrained import Pretrained
from lmctl.tokenizer.pretrained import Pretrained as PretrainedTokenizer
from lmctl.tokenizer.vocabulary import vocabulary


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


def to_nan(folder: Path, name: str) -> Path:
    """The weights of one layer are no numbers."""
    return foreign.reweigh(folder, lambda tensors: tensors.update({name: torch.full_like(tensors[name], torch.nan)}))


@pytest.mark.parametrize("how", [{"do_sample": True}, {"do_sample": True, "top_k": 3}, {}, {"num_beams": 2}])
def test_nothing_is_written_by_a_model_whose_answers_are_no_numbers(gpt2, copy, how):
    """Of NaN the likeliest is any piece, and nothing can be drawn."""
    folder = to_nan(copy(gpt2), "transformer.h.0.mlp.c_fc.weight")
    with pytest.raises(ConfigError, match=r"gpt2: the model's answers are no numbers \(NaN\)"):
        use_models.opened(folder)
    loaded = use_models.opened(gpt2)
    loaded.model.transformer.h[0].mlp.c_fc.weight.data.fill_(torch.nan)
    with pytest.raises(ConfigError, match=r"gpt2: the model's answers are no numbers \(NaN\)"):
        list(complete(loaded, ["the cat"], 1, 3, **how))
    with pytest.raises(ConfigError, match=r"the model's answers are no numbers \(NaN\)"):
        list(texts(loaded, ["the cat"], 1, 8))


def test_nothing_is_translated_by_a_model_whose_answers_are_no_numbers(bart, copy):
    folder = to_nan(copy(bart), "model.decoder.layers.0.fc1.weight")
    with pytest.raises(ConfigError, match=r"bart: the model's answers are no numbers \(NaN\)"):
        use_models.opened(folder)
    loaded = use_models.opened(bart)
    loaded.model.model.decoder.layers[0].fc1.weight.data.fill_(torch.nan)
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
    frame = "$A [SEP]" if kind.startswith(("T5", "Bart", "Marian")) else None
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


def edits(file: str, **changes: Any) -> Any:
    return lambda folder: foreign.edit(folder, file, **changes)


def whole_numbers(folder: Path) -> None:
    numbers = {"transformer.ln_f.bias": torch.zeros(32, dtype=torch.int64)}
    foreign.reweigh(folder, lambda tensors: tensors.update(numbers))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lost_shard(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*"))[1].unlink()


def index_of_strangers(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    weights = dict.fromkeys(("transformer.wte.weight", "who"), "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


CONFIGS = ("config.json", "generation_config.json")
NO_PIECES = [("eos_token_id", {}), ("eos_token_id", [3, "x"]), ("bos_token_id", True), ("pad_token_id", "0"),
             ("decoder_start_token_id", [])]  # fmt: skip
NO_WIDTH = '{"model_type": "gpt2", "n_embd": "wide", "architectures": ["GPT2LMHeadModel"]}'
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
    (holds("config.json", NO_WIDTH), "cannot be"),
    (holds("generation_config.json", "{"), "generation_config.json is damaged"),
    (holds("lmctl_tasks.json", "nonsense"), "lmctl_tasks.json is damaged"),
    (holds("lmctl_tasks.json", '{"lm": {}}'), "lmctl_tasks.json is damaged: task lm"),
    (holds("adapter_config.json", "{}"), "holds an adapter"),
    (edits("config.json", model_type="mine", auto_map={"AutoConfig": "a.B"}), "needs Python code that comes with it"),
    *((edits(file, **{key: value}), f"{file}: {key} is") for file in CONFIGS for key, value in NO_PIECES),
    *((edits("config.json", architectures=names), "architectures is") for names in (-1, "GPT2LMHeadModel", [3])),
    (edits("config.json", n_layer=10**6), "n_layer is 1,000,000, and its weights are"),
    # Sizes that no weight has.
    *((edits("config.json", n_head=heads), "cannot be loaded: its ") for heads in (-1, -2, 64)),
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
        ("m/adapter", "holds an adapter .PEFT., and its adapter_config.json names no base model", "merge it with peft"),
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
