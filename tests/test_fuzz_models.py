"""Whatever is wrong with a model directory, or is typed as a prompt: words of lmctl's own, or a model that works."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import foreign
import pytest
import transformers
import use_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.foreign import tokenizer_of
from lmctl.core.model_files import check_files
from lmctl.use.decode import complete, translate
from lmctl.use.fill import check_masks, fill
from lmctl.use.likelihood import texts
from lmctl.use.room import check_prompt

KINDS = {
    "gpt2": ("GPT2LMHeadModel", "[SEP] $A"),
    "bert": ("BertForMaskedLM", None),
    "bart": ("BartForConditionalGeneration", "$A [SEP]"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small valid directory of each family; the decoder's weights in shards."""
    root = tmp_path_factory.mktemp("models")
    for name, (kind, frame) in KINDS.items():
        foreign.save(root / name, kind, frame)
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "gpt2")
    (root / "gpt2" / "model.safetensors").unlink()
    model.save_pretrained(root / "gpt2", max_shard_size="30KB")
    return root


VALUES = [None, -1, 0, 1, 7, 10**6, "x", "", True, [], {}, [3], 1.5]
"""What a key of a config may be changed to; no number of layers that would take a day to make."""


def damaged(folder: Path, rng: random.Random, others: list[Path]) -> str:
    """Delete, cut, overwrite, swap or resize one part; says what was done."""
    file = rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    what = rng.choice(["delete", "cut", "garbage", "empty", "swap", "key", "tensor", "flip"])
    content = file.read_bytes()
    if what == "key" and file.suffix == ".json":
        value = json.loads(content)
        key = rng.choice(sorted(value))
        other = rng.choice(VALUES)
        value = {**value, key: other} if rng.random() < 0.7 else {k: v for k, v in value.items() if k != key}
        file.write_text(json.dumps(value))
        return f"{file.name}: {key} is {value.get(key)!r}"
    if what == "tensor" and file.suffix == ".safetensors":
        tensors = load_file(file)
        name = rng.choice(sorted(tensors))
        change = rng.choice(["drop", "half", "transpose", "long"])
        tensor = tensors.pop(name)
        if change == "half" and len(tensor) > 1:
            tensors[name] = tensor[: len(tensor) // 2].clone()
        elif change == "transpose":
            tensors[name] = tensor.t().contiguous() if tensor.ndim == 2 else tensor.unsqueeze(0)
        elif change == "long":
            tensors[name] = tensor.long()
        save_file(tensors, file, {"format": "pt"})
        return f"{file.name}: {name} {change}"
    if what == "delete":
        file.unlink()
    elif what == "cut":
        file.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif what == "garbage":
        file.write_bytes(rng.randbytes(rng.randrange(1, 200)))
    elif what == "empty":
        file.write_bytes(b"")
    elif what == "flip":
        places = bytearray(content)
        for _ in range(rng.randrange(1, 20)):
            places[rng.randrange(min(len(places), 4000))] = rng.randrange(256)
        file.write_bytes(bytes(places))
    else:
        theirs = rng.choice(others) / file.name
        file.write_bytes(theirs.read_bytes() if theirs.exists() else b"{}")
    return f"{file.name}: {what}"


def works(folder: Path) -> None:
    """Load it, and do with it what it is for."""
    loaded = use_models.opened(folder)
    if loaded.family == "encoder":
        assert len(list(texts(loaded, ["the cat sits", ""], 2, loaded.row(16)))) == 2
        check_masks(loaded, f"the {loaded.tokenizer.mask_token}", "")
        list(fill(loaded, f"the {loaded.tokenizer.mask_token}", 2))
    elif loaded.family == "decoder":
        assert len(list(texts(loaded, ["the cat sits", ""], 2, loaded.row(16)))) == 2
        assert len(list(complete(loaded, ["the cat"], 2, 3))) == 1
    elif loaded.family == "seq2seq":
        assert len(list(translate(loaded, ["the cat"], 2, 2, 1.0, 3))) == 1


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("part", range(15))
def test_a_damaged_directory_is_a_message_or_a_working_model(models, tmp_path, name, part):
    others = [models / other for other in KINDS if other != name]
    for seed in range(4):
        folder = tmp_path / "model"
        shutil.copytree(models / name, folder)
        what = damaged(folder, random.Random(f"{name}/{part}/{seed}"), others)
        told = None
        try:
            works(folder)
        except LmctlError as error:
            told = str(error)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__} {error}") from error
        assert told is None or str(folder) in told, what
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_damaged_files_are_told_twenty_thousand_times(models, tmp_path):
    """The cheap checks alone: of the files, and of the tokenizer."""
    told = []
    for seed in range(20_000):
        name = random.Random(seed).choice(sorted(KINDS))
        folder = tmp_path / "model"
        shutil.copytree(models / name, folder)
        what = damaged(folder, random.Random(seed), [models / other for other in KINDS if other != name])
        try:
            check_files(f"model_path={folder}", folder)
            tokenizer_of(f"model_path={folder}", str(folder))
        except ConfigError as error:
            told.append((what, str(error)))
        shutil.rmtree(folder)
    assert len(told) > 5_000
    assert all(str(folder) in text for _, text in told)


PIECES = st.one_of(
    st.sampled_from(["[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[mask]", "\n", "\0", " ", "", "the", "cat ", "\t"]),
    st.sampled_from(
        ["\u200b", "\ufeff", "é", "你好", "🙂", "\x1f", "##a", "<|endoftext|>", "</s>", "a" * 40, "[", "]"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
TYPED = st.lists(PIECES, max_size=14).map("".join)


def answered(loaded: Any, prompt: str) -> None:
    """As `generate` and `score` do it."""
    refused = "the prompt has"
    try:
        if loaded.family == "encoder":
            check_masks(loaded, prompt, "")
            first, *choices = fill(loaded, prompt, 2)
            assert len(choices) == loaded.prompt(prompt).count(loaded.mask), prompt
            assert isinstance(first, str)
        else:
            check_prompt(loaded, prompt, "")
            assert len(list(complete(loaded, [prompt], 1, 2))) == 1
    except LmctlError as error:
        refused = str(error)
    assert "the prompt has" in refused
    if loaded.family != "seq2seq":
        [scores] = texts(loaded, [prompt], 4, loaded.row())
        assert len(scores) == len(loaded.pieces([prompt])[0]) + (loaded.family == "decoder"), prompt


@pytest.mark.parametrize("name", KINDS)
def test_whatever_is_typed_is_answered_or_refused_in_words(models, name):
    loaded = use_models.opened(models / name)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(TYPED)
    def typed(prompt: str) -> None:
        answered(loaded, prompt)

    typed()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", KINDS)
def test_seven_thousand_prompts_are_answered_or_refused_in_words(models, name):
    loaded = use_models.opened(models / name)

    @settings(max_examples=7_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(TYPED)
    def typed(prompt: str) -> None:
        answered(loaded, prompt)

    typed()
