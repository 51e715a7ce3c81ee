"""Model directories with a part missing, damaged or of another size, and prompts to models that are whole."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import foreign
import torch
import transformers
import use_models
from safetensors.torch import load_file, save_file

from fuzzing.values import text
from lmctl.core.errors import ConfigError
from lmctl.core.model_files import check_files
from lmctl.core.pretrained_files import tokenizer_of
from lmctl.inference.class_answers import chosen_task
from lmctl.inference.decode import complete, translate
from lmctl.inference.fill import check_masks, fill
from lmctl.inference.heads import classifier_of
from lmctl.inference.length_check import check_prompt
from lmctl.inference.likelihood import texts
from lmctl.train.display import quiet_libraries

KINDS = {
    "gpt2": ("GPT2LMHeadModel", "[SEP] $A"),
    "bert": ("BertForMaskedLM", None),
    "bart": ("BartForConditionalGeneration", "$A [SEP]"),
    "classifier": ("BertForSequenceClassification", None),
}
VALUES = [None, -1, 0, 1, 7, 10**6, "x", "", True, [], {}, [3], 1.5]
"""What a key of a config may be changed to; no number of layers that would take a day to make."""
ADDED = ["adapter_config.json", "model.gguf", "pytorch_model.bin", "lmctl_tasks.json", "vocab.txt", "added_tokens.json",
         "special_tokens_map.json", "generation_config.json", "model.safetensors.index.json", "notes.txt"]  # fmt: skip
PIECES = ["[MASK]", "[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[mask]", "\n", "\0", " ", "", "the", "cat ", "\t",
          "\u200b", "\ufeff", "é", "你好", "🙂", "\x1f", "##a", "<|endoftext|>", "</s>", "a" * 40, "[", "]",
          "the " * 70]  # fmt: skip


def files(draw: Random, folder: Path) -> None:
    """What is looked at before anything is loaded, and the tokenizer."""
    quiet()
    made = directory(draw, folder)
    with named(made):
        check_files(f"model_path={made}", made)
        tokenizer_of(f"model_path={made}", str(made))


def models(draw: Random, folder: Path) -> None:
    """The whole model is loaded, and does what it is for."""
    quiet()
    made = directory(draw, folder)
    with named(made):
        answered(use_models.opened(made), Random(2), "the cat")


@contextmanager
def named(made: Path) -> Iterator[None]:
    """A message about a directory says which."""
    try:
        yield
    except ConfigError as error:
        if str(made) not in str(error):
            raise AssertionError(f"which directory? {error}") from error
        raise


def prompts(draw: Random, folder: Path) -> None:
    """Whatever is typed, with any settings: an answer, or a word about what is wrong with it."""
    quiet()
    parts = [draw.choice(PIECES) if draw.random() < 0.67 else text(draw) for _ in range(draw.randrange(9))]
    answered(opened(draw.choice(sorted(KINDS))), draw, "".join(parts))


def answered(loaded: Any, draw: Random, prompt: str) -> None:
    """As the verbs do it."""
    torch.manual_seed(0)
    if loaded.classifies:
        task = chosen_task(loaded, None)
        assert len(classifier_of(loaded, task).logits([[prompt], ["a"]], loaded.row())) == 2
        return
    if loaded.family in ("encoder", "decoder"):
        [scores] = texts(loaded, [prompt], 4, loaded.row())
        assert len(scores) == len(loaded.pieces([prompt])[0]) + (loaded.family == "decoder"), prompt
    if loaded.family == "encoder":
        prompt = prompt if draw.random() < 0.3 else f"{prompt} {loaded.tokenizer.mask_token}"
        check_masks(loaded, prompt, "")
        first, *choices = fill(loaded, prompt, draw.choice([1, 3, 1000]))
        assert len(choices) == loaded.prompt(prompt).count(loaded.mask), prompt
        found = [first]
    elif loaded.family == "seq2seq" and draw.random() < 0.7:
        found = list(translate(loaded, [prompt, "a", ""], 2, draw.choice([1, 3]), draw.choice([0.0, 1.0, -2.0]), 3))
        assert len(found) == 3
    else:
        check_prompt(loaded, prompt, "")
        how: dict[str, Any] = {"num_beams": draw.choice([1, 1, 2])}
        if draw.random() < 0.5:
            how |= {"do_sample": True, "temperature": draw.choice([0.01, 1.0, 9.0]), "top_p": draw.choice([0.01, 1.0]),
                    "top_k": draw.choice([0, 1, 5, 1000])}  # fmt: skip
        found = list(complete(loaded, [prompt], 1, draw.choice([1, 2, 5]), **how))
        assert len(found) == 1
    "".join(found).encode()


@cache
def whole() -> Path:
    """A small valid directory of each family; the decoder's weights in shards."""
    KEPT.append(tempfile.TemporaryDirectory())
    root = Path(KEPT[0].name)
    for name, (kind, frame) in KINDS.items():
        foreign.save(root / name, kind, frame)
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "gpt2")
    (root / "gpt2" / "model.safetensors").unlink()
    model.save_pretrained(root / "gpt2", max_shard_size="30KB")
    return root


KEPT: list[tempfile.TemporaryDirectory[str]] = []


@cache
def opened(name: str) -> Any:
    return use_models.opened(whole() / name)


@cache
def quiet() -> None:
    quiet_libraries()
    logging.disable(logging.ERROR)


def directory(draw: Random, folder: Path) -> Path:
    """A copy of a good directory in which one part, or two, are not as they were."""
    name = draw.choice(sorted(KINDS))
    made = folder / "model"
    shutil.copytree(whole() / name, made)
    for _ in range(draw.choice([0, 1, 1, 1, 1, 2])):
        damaged(made, draw, [whole() / other for other in KINDS if other != name])
    return made


def damaged(folder: Path, draw: Random, others: list[Path]) -> str:
    """Delete, cut, overwrite, swap, add or resize one part; says what was done."""
    file = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    what = draw.choice(["delete", "cut", "garbage", "empty", "swap", "key", "key", "tensor", "flip", "add", "folder"])
    content = file.read_bytes()
    if what == "key" and file.suffix == ".json" and isinstance(value := parsed(content), dict) and value:
        key = draw.choice(sorted(value))
        if isinstance(value[key], dict) and value[key] and draw.random() < 0.7:  # a key inside
            value[key] = {**value[key], draw.choice(sorted(value[key])): draw.choice(VALUES)}
        elif draw.random() < 0.7:
            value[key] = draw.choice(VALUES)
        else:
            del value[key]
        file.write_text(json.dumps(value))
        return f"{file.name}: {key} is {str(value.get(key))[:80]}"
    if what == "tensor" and file.suffix == ".safetensors":
        return f"{file.name}: {resized(file, draw)}"
    if what == "delete":
        file.unlink()
    elif what == "cut":
        file.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif what == "garbage":
        file.write_bytes(draw.randbytes(draw.randrange(1, 200)))
    elif what == "empty":
        file.write_bytes(b"")
    elif what == "folder":
        file.unlink()
        file.mkdir()
    elif what == "flip":
        places = bytearray(content)
        for _ in range(draw.randrange(1, 20) if content else 0):
            places[draw.randrange(min(len(places), 4000))] = draw.randrange(256)
        file.write_bytes(bytes(places))
    elif what == "add":
        (folder / draw.choice(ADDED)).write_bytes(draw.choice([b"", b"{}", b"[]", b"\xff\xfe", b"x\n", content[:500]]))
    else:
        theirs = draw.choice(others) / file.name
        file.write_bytes(theirs.read_bytes() if theirs.exists() else b"{}")
    return f"{file.name}: {what}"


def parsed(content: bytes) -> Any:
    """JSON, or None."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def resized(file: Path, draw: Random) -> str:
    """Change one tensor of a checkpoint that is whole."""
    try:
        tensors = load_file(file)
    except Exception:  # safetensors' own, of a file that is damaged already
        return "damaged already"
    name = draw.choice(sorted(tensors)) if tensors else ""
    if not name:
        return "no tensors"
    change = draw.choice(["drop", "half", "transpose", "long", "nan", "half precision"])
    tensor = tensors.pop(name)
    if change == "half" and len(tensor) > 1:
        tensors[name] = tensor[: len(tensor) // 2].clone()
    elif change == "transpose":
        tensors[name] = tensor.t().contiguous() if tensor.ndim == 2 else tensor.unsqueeze(0)
    elif change == "long":
        tensors[name] = tensor.long()
    elif change == "nan":
        tensors[name] = torch.full_like(tensor, float("nan"))
    elif change == "half precision":
        tensors[name] = tensor.half()
    save_file(tensors, file, {"format": "pt"})
    return f"{name} {change}"
