"""Validation of the files of a model directory before a library reads them: missing, damaged, or of another format.

Libraries report a damaged file by unrelated exceptions, and treat a missing tokenizer as an empty one. Here every error
names the file and the remedy. Only headers of weights are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast, get_args

from lmctl.core.batch import Kind, LabelKind
from lmctl.core.errors import ConfigError
from lmctl.core.foreign_config import refuse_quantised, refuse_sizes
from lmctl.core.safetensors_header import AGAIN, Stored, header, unreadable

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TASKS = "lmctl_tasks.json"
"""Written next to the weights by lmctl's export: what the model was trained for."""


class TaskNote(TypedDict):
    """The entry of one task in the file `TASKS`."""

    objective: str
    """Class name of its objective."""
    reads: Kind
    label_kind: LabelKind | None
    labels: list[str]
    """Names of the classes, in order; empty where there are none."""
    end_of: NotRequired[str]
    """Where the model was trained to predict an end-of-text token: after every `sentence`, or after the `document`."""


TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("spm.model", "source.spm", "tekken.json"),
)
"""Every tokenizer directory has one of these vocabulary files."""
_TOKENIZER_OBJECTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
"""Tokenizer files that must contain a JSON object."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_MAX_JSON = 1 << 28
"""Bytes of a JSON file of a model directory: vocabularies have some tens of millions."""
GGUF = "GGUF is the format of llama.cpp: give the model it was made from, a directory with safetensors"


def check_files(what: str, folder: Path) -> None:
    """ConfigError unless transformers can load a model from `folder`: config.json, safetensors files of the right
    length, and valid JSON. `what` begins messages: `model_path=runs/x`."""
    check_outline(what, folder)
    config, stored = json_object(what, folder / CONFIG), headers(what, folder)
    refuse_sizes(what, CONFIG, config, sum(tensor.numbers for tensor in stored.values()), len(stored))


def check_outline(what: str, folder: Path) -> None:
    """The same for a directory that may have no weights."""
    if not folder.is_dir():
        raise ConfigError(f"{what} is a file, and a model is a directory", _hint_for_file(folder))
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{what}: no model directory (it has no {CONFIG})", near(folder))
    if (folder / "adapter_config.json").is_file():
        raise _adapter(what)
    for name in (CONFIG, GENERATION, TASKS, INDEX):
        refuse_link(what, folder, folder / name)
    config = json_object(what, folder / CONFIG)
    _check_tokens(what, CONFIG, config)
    refuse_quantised(what, config)
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{what}: {CONFIG}: architectures is {names!r:.80}, and a list of names is due", AGAIN)
    if (folder / GENERATION).is_file():
        _check_tokens(what, GENERATION, json_object(what, folder / GENERATION))
    tasks(what, folder)


def _check_tokens(what: str, name: str, config: dict[str, Any]) -> None:
    """ConfigError if a special token such as `bos_token_id` is not an integer id; `eos_token_id` may be a list of
    ids."""
    for key, value in config.items():
        pieces = value if isinstance(value, list) and "eos" in key else [value]
        if key.endswith("_token_id") and any(type(piece) not in (int, type(None)) for piece in pieces):
            raise ConfigError(f"{what}: {name}: {key} is {value!r:.80}, and the number of a piece is due", AGAIN)


def near(folder: Path) -> str | None:
    """A hint where `folder` has no config.json: the directory that was probably meant, or how to get one."""
    if (folder / "adapter_config.json").is_file():
        return _adapter("").hint
    below = sorted(path.parent for path in _sorted_glob(folder, f"*/{CONFIG}"))
    if below:
        others = f" (or {', '.join(path.name for path in below[1:4])})" if below[1:] else ""
        return f"a model lies below it: {below[0]}{others}"
    if (folder.parent / CONFIG).is_file():
        return f"a model lies above it: {folder.parent}"
    if any(_sorted_glob(folder, "*.gguf")):
        return GGUF
    if any(_sorted_glob(folder, "*.safetensors")):
        return f"there are weights, but {CONFIG} of the model is missing beside them"
    return None


def headers(what: str, folder: Path) -> dict[str, Stored]:
    """All weights in `folder` by name; ConfigError if a file is missing, truncated or elsewhere."""
    if (folder / WEIGHTS).is_file():
        return header(what, folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise _no_weights(what, folder)
    places = json_object(what, folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ConfigError(f"{what}: {INDEX} is damaged: it has no weight_map", AGAIN)
    if outside := [name for name in places.values() if Path(name).name != name]:
        raise ConfigError(f"{what}: {INDEX} names {outside[0]}, which is outside of its directory", AGAIN)
    files = {name: folder / name for name in sorted(set(places.values()))}
    if absent := [name for name, path in files.items() if not path.is_file()]:
        more = f" and {len(absent) - 1} more" if absent[1:] else ""
        raise ConfigError(f"{what}: {absent[0]}{more} is missing, which {INDEX} names", AGAIN)
    found = {name: header(what, path) for name, path in files.items()}
    for tensor, file in places.items():
        if tensor not in found[file]:
            raise ConfigError(f"{what}: {file} has no tensor {tensor}, which {INDEX} says is in it", AGAIN)
    return {tensor: stored for tensors in found.values() for tensor, stored in tensors.items()}


def json_object(what: str, file: Path) -> dict[str, Any]:
    """Parse a JSON file; ConfigError naming it if it is not a JSON object."""
    try:
        if file.stat().st_size > _MAX_JSON:
            raise ConfigError(f"{what}: {file.name} is larger than {_MAX_JSON >> 20} MiB, so it is something else")
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise unreadable(what, file, error) from None
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        reason = "it is empty" if file.stat().st_size == 0 else f"no JSON ({error})"
        raise ConfigError(f"{what}: {file.name} is damaged: {reason}", AGAIN) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{what}: {file.name} is damaged: it holds no JSON object", AGAIN)
    return value


def tasks(what: str, folder: Path) -> dict[str, TaskNote] | None:
    """What lmctl trained the model in `folder` for (file `TASKS`); None if there is no such file."""
    file = folder / TASKS
    if not file.is_file():
        return None
    found = json_object(what, file)
    for name, note in found.items():
        if not _is_note(note):
            raise ConfigError(f"{what}: {TASKS} is damaged: task {name} is not as lmctl writes it", AGAIN)
    return cast(dict[str, TaskNote], found)


def _is_note(note: Any) -> bool:
    """Whether `note` is a `TaskNote`."""
    return (
        isinstance(note, dict)
        and isinstance(note.get("objective"), str)
        and note.get("reads") in get_args(Kind)
        and note.get("label_kind", "") in (None, *get_args(LabelKind))
        and isinstance(note.get("labels"), list)
        and all(isinstance(label, str) for label in note["labels"])
        and note.get("end_of") in (None, "sentence", "document")
    )


def refuse_link(what: str, folder: Path, file: Path) -> None:
    """ConfigError if a file of a model directory is a link to elsewhere: what it shows would end up in other models.
    The hub's cache keeps its files beside its directories."""
    real, home = file.resolve(), folder.resolve()
    if file.is_symlink() and not {home, home.parent.parent / "blobs"} & set(real.parents):
        raise ConfigError(f"{what}: {file.name} is a link to {real}, outside of its directory", "copy the file there")


def check_tokenizer_files(what: str, folder: Path) -> None:
    """ConfigError if a tokenizer file in `folder` is malformed, or lies elsewhere."""
    for file in folder.iterdir():
        if not file.name.endswith(".safetensors"):
            refuse_link(what, folder, file)
    for name in _TOKENIZER_OBJECTS:
        if (folder / name).is_file():
            found = json_object(what, folder / name)
            if name == "tokenizer.json" and not isinstance(found.get("model"), dict):
                raise ConfigError(f"{what}: {name} is damaged: it has no model of a tokenizer", AGAIN)
            if name == "tokenizer.json" and max(_growth(found.get("normalizer")), _growth(found.get("decoder"))) > 1000:
                raise ConfigError(f"{what}: {name} replaces text by text that is thousands of times longer")
            for key in found if name == "tokenizer_config.json" else ():
                if key.endswith(("_file", "_files", "_path")) and _is_outside(folder, found[key]):
                    raise ConfigError(f"{what}: {name}: {key} names a file outside of its directory", AGAIN)
    for name in TOKENIZER_FILES:
        if (folder / name).is_file() and not (folder / name).stat().st_size:
            raise ConfigError(f"{what}: {name} is damaged: it is empty", AGAIN)


def _growth(part: Any) -> float:
    """How many times longer a text may become by the replacements in `part`, one after another, of a tokenizer: forty
    that double it take all memory."""
    if isinstance(part, list):
        return math.prod(map(_growth, part), start=1.0)
    if not isinstance(part, dict):
        return 1.0
    pattern, inner = part.get("pattern"), _growth([value for value in part.values() if isinstance(value, list | dict)])
    if part.get("type") != "Replace":
        return inner
    replaced = pattern.get("String") if isinstance(pattern, dict) else None
    new, old = len(str(part.get("content"))), len(replaced) if isinstance(replaced, str) else 1
    return inner * max(1.0, new / old if old else 1.0 + new)


def _is_outside(folder: Path, value: Any) -> bool:
    """Whether `value`, a name or a list of names, is a file of this machine that is not in `folder`."""
    names = value if isinstance(value, list) else [value]
    paths = [folder / name for name in names if isinstance(name, str)]
    return any(path.exists() and folder.resolve() not in path.resolve().parents for path in paths)


def tokenizer_folder(what: str, place: Path) -> Path:
    """The directory with the tokenizer's files: `place`, its model/ or its tokenizer/; ConfigError if there is none."""
    for folder in (place, place / "model", place / "tokenizer"):
        if any((folder / name).is_file() for name in TOKENIZER_FILES):
            return folder
    raise no_tokenizer(what)


def no_tokenizer(what: str) -> ConfigError:
    return ConfigError(
        f"{what} has no tokenizer, neither in itself nor in model/ or tokenizer/",
        f"one of these files is looked for: {', '.join(TOKENIZER_FILES)}",
    )


def _sorted_glob(folder: Path, pattern: str) -> Iterator[Path]:
    return folder.glob(pattern) if folder.is_dir() else iter(())


def _no_weights(what: str, folder: Path) -> ConfigError:
    pickles = sorted(
        path.name for pattern in _PICKLES for path in folder.glob(pattern) if path.name != "training_args.bin"
    )
    if pickles:
        return ConfigError(
            f"{what}: cannot be loaded: its weights are in {pickles[0]}, a pickle, which can run any code when it is "
            "read; lmctl reads safetensors only",
            "if you trust its origin: load it with transformers and save it with save_pretrained",
        )
    if any(folder.glob("*.gguf")):
        return ConfigError(
            f"{what}: its weights are in GGUF, and lmctl reads safetensors only", _hint_for_file(Path(".gguf"))
        )
    return ConfigError(f"{what}: cannot be loaded: it has no weights ({WEIGHTS} or {INDEX})", AGAIN)


def _hint_for_file(file: Path) -> str:
    """The hint where a file was given instead of a directory."""
    if file.name.endswith(".gguf"):
        return GGUF
    if file.name in (CONFIG, INDEX) or file.name.endswith(".safetensors"):
        return f"give the directory that it lies in: {file.parent}"
    return "give a run directory, a Hugging Face directory with safetensors, or a hub id"


def _adapter(what: str) -> ConfigError:
    return ConfigError(
        f"{what} holds an adapter (PEFT), not a whole model",
        "merge it into its base model: peft's AutoPeft...from_pretrained(...).merge_and_unload(), then save_pretrained",
    )
