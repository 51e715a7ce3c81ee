"""What a stranger's tokenizer might try: code, files elsewhere, numbers beyond the model, endless expressions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
from canary import Trap

from lmctl.cli.main import main


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.save(tmp_path_factory.mktemp("models") / "gpt2", "GPT2LMHeadModel", "[SEP] $A")


@pytest.fixture
def theirs(sound: Path, trap: Trap) -> Path:
    (trap.root / "outside.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "password"]))
    (trap.root / "text.txt").write_text("".join(f"the {word} sits on the mat\n" for word in "abcdefghijklmnop" * 4))
    return foreign.copied(sound, trap.root / "theirs")


def backend(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return found


def added(folder: Path, **token: Any) -> None:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokens = [*backend(folder)["added_tokens"], plain | {"content": "evil"} | token]
    foreign.edit(folder, "tokenizer.json", added_tokens=tokens)


def vocabulary(folder: Path, **changes: int) -> None:
    model = backend(folder)["model"]
    foreign.edit(folder, "tokenizer.json", model=model | {"vocab": model["vocab"] | changes})


def settings(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: foreign.edit(folder, "tokenizer_config.json", **changes)


def tokenizer(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: foreign.edit(folder, "tokenizer.json", **changes)


def replacing(old: str, new: str, times: int) -> dict[str, Any]:
    """Part of a tokenizer that replaces text again and again."""
    each = [{"type": "Replace", "pattern": {"String": old}, "content": new}] * times
    return {"type": "Sequence", "normalizers": each, "decoders": each}


REFUSED: dict[str, Callable[[Path], object]] = {
    "a piece beyond the model": lambda folder: vocabulary(folder, evil=10**6),
    "a piece of number 2^32": lambda folder: vocabulary(folder, evil=1 << 32),
    "a piece below nothing": lambda folder: vocabulary(folder, evil=-1),
    "an added piece beyond the model": lambda folder: added(folder, id=10**6),
    "a model of nothing": tokenizer(model={"type": "evil.Run"}),
    "a normaliser of nothing": tokenizer(normalizer={"type": "evil.Run"}),
    "an expression that is none": tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    "text that grows": tokenizer(normalizer=replacing("a", "aaaaaaaaaa", 40)),
    "text that grows from nothing": tokenizer(normalizer=replacing("", "a", 60)),
    "answers that grow": tokenizer(decoder=replacing("a", "aaa", 40)),
    "a tokenizer that is a list": lambda folder: (folder / "tokenizer.json").write_text("[]"),
    "deep": lambda folder: (folder / "tokenizer.json").write_text("[" * 100_000),
    "no text": lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe\x00"),
    "files elsewhere": settings(fast_tokenizer_files=["tokenizer.json", "../outside.txt"]),
    "a vocabulary elsewhere": settings(vocab_file="../outside.txt"),
    "no limit": settings(model_max_length="evil"),
    "a limit below nothing": settings(model_max_length=-5),
}


@pytest.mark.parametrize("damage", REFUSED.values(), ids=REFUSED)
def test_a_tokenizer_that_cannot_be_used(damage: Callable[[Path], object], theirs: Path, trap: Trap):
    damage(theirs)
    said = trap.refused("generate", f"model_path={theirs}", "prompt=the cat", "max_new_tokens=3", "runner=cpu")
    assert "password" not in said


IGNORED: dict[str, Callable[[Path], object]] = {
    "code": settings(auto_map={"AutoTokenizer": ["evil.Run", "evil.Run"]}),
    "code on the hub": settings(auto_map={"AutoTokenizer": ["nobody/evil--evil.Run", None]}),
    "a template": settings(chat_template="{% for i in range(10**9) %}{{ ''.__class__ }}{% endfor %}"),
    "a processor": settings(processor_class="evil.Run"),
    "the author's own folders": settings(special_tokens_map_file="/home/author/map.json", name_or_path="/home/author"),
}


@pytest.mark.parametrize("change", IGNORED.values(), ids=IGNORED)
def test_what_does_nothing(change: Callable[[Path], object], theirs: Path, trap: Trap):
    (theirs / "evil.py").write_text((trap.root / "path" / "evil.py").read_text())
    change(theirs)
    assert main(["generate", f"model_path={theirs}", "prompt=the cat", "max_new_tokens=3", "runner=cpu"]) == 0
    assert not trap.sprung.exists()


def test_classes_are_transformers_own(theirs: Path, trap: Trap):
    foreign.edit(theirs, "tokenizer_config.json", tokenizer_class="evil.Run")
    words = ["generate", f"model_path={theirs}", "prompt=the cat", "max_new_tokens=3", "runner=cpu"]
    assert main(words) in (0, 2)
    assert not trap.sprung.exists()


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x"])
def test_an_expression_without_end_is_a_plain_error(pattern: str, theirs: Path, trap: Trap):
    """The engine gives up after so many steps, and panics."""
    foreign.edit(
        theirs, "tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": pattern}, "content": "a"}
    )
    code = main(["generate", f"model_path={theirs}", "prompt=" + "a" * 60 + "b", "max_new_tokens=3", "runner=cpu"])
    said = trap.capsys.readouterr().err
    assert code in (0, 2)
    assert "Traceback (most recent" not in said


def test_numbers_with_gaps_are_no_vocabulary_to_train_with(theirs: Path, trap: Trap):
    vocabulary(theirs, evil=4 * 10**9)
    words = [
        "data=text",
        f"data.path={trap.root}/text.txt",
        "data.layout=one_document_per_line",
        "runner=cpu",
        f"cache_dir={trap.root}/cache",
    ]
    code = main(
        ["train", "tokenizer=pretrained", f"tokenizer.path={theirs}", "model=gpt2_tiny", "mix=clm", "name=x", *words]
    )
    assert code == 2
    assert "4,000,000,000" in trap.capsys.readouterr().err
