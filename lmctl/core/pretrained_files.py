"""Loading config, weights and tokenizer of a pre-trained model with transformers, and validating what was read.

All loading goes through this file. `what` is how the user named the model (`model_path=x`, `init_from=x`) and begins
messages. Code that comes with a model is never run, pickles are never opened.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from lmctl.core.command_words import command
from lmctl.core.errors import ConfigError, LmctlError, is_panic
from lmctl.core.exported_weights import check_exported
from lmctl.core.files import is_local_path, nearest_place, path_of
from lmctl.core.foreign_config import refuse_quantised, taken
from lmctl.core.model_files import (
    CONFIG,
    TOKENIZER_FILES,
    check_files,
    check_outline,
    check_tokenizer_files,
    headers,
    near,
    no_tokenizer,
)
from lmctl.core.paths import Paths
from lmctl.core.safetensors_header import AGAIN, Stored

HINT = "give a run directory, a Hugging Face directory with safetensors, or a hub id"
TOKENIZER_HINT = "copy the tokenizer's files from where the model comes from"
_FLOATS = ("F64", "F32", "F16", "BF16")
_NEW_NUMBERS = 1 << 24
"""Numbers of a network that its checkpoint may lack, such as new heads and tables of positions."""
_FREE_NUMBERS = 1 << 16
"""Numbers that a vocabulary may leave out."""
_TRIED_TOKENS = 64
"""Tokens of the vocabulary that are decoded and encoded again as a check."""


def find(key: str, place: str) -> str:
    """Resolve `place` to the directory that transformers loads (of a run its model/) or to a hub id. ConfigError if
    nothing is there, or no model; `key` is the setting that named it."""
    folder, asked = path_of(place), f"{key}={place}"
    run = Paths(folder)
    if (run.model / CONFIG).is_file():
        return str(run.model)
    if folder.exists() and not folder.is_dir():
        check_outline(asked, folder)  # raises
    if folder.is_dir() and not (folder / CONFIG).is_file():
        if run.config.is_file():
            finish = command("lmctl train resume=auto", run_dir=folder)
            raise ConfigError(f"{asked}: this run has no model/ yet", f"finish it: {finish}")
        raise ConfigError(f"{asked}: neither a run nor a model directory (no {CONFIG})", near(folder))
    if not folder.exists() and is_local_path(place):
        raise ConfigError(f"{asked}: no such directory", nearest_place(folder))
    return str(folder) if folder.exists() else place


def config_of(what: str, place: str, check: Callable[[str, Path], None] = check_files) -> Any:
    """The transformers config of the model in directory `place`, whose files are validated first by `check`, or of a
    hub id."""
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    if Path(place).exists():
        check(what, Path(place))
    with _reading(what, "config.json", place) as where:
        given, _ = PreTrainedConfig.get_config_dict(place, **where)
        refuse_quantised(what, given)
        if (kind := given.get("model_type")) not in CONFIG_MAPPING:
            AutoConfig.from_pretrained(place, **where)  # says what is wrong with it
        config_class = CONFIG_MAPPING[kind]  # not through AutoConfig, which acts on all that the file says
        return config_class.from_dict(taken(given, config_class))


def weights_of(what: str, kind: Any, place: str, config: Any, **how: Any) -> tuple[Any, list[str], list[str]]:
    """The model of transformers' class `kind` with `config` (see `config_of`); the names of tensors that the checkpoint
    lacks or has in another shape (randomly initialised; tied tensors and buffers do not count); and of unused tensors
    of the checkpoint."""
    if Path(place).is_dir():
        check_exported(what, Path(place))
    stored = headers(what, Path(place)) if Path(place).is_dir() else None
    with _reading(what, "its weights", place) as where:
        if stored is not None:
            _refuse_larger(what, kind, config, sum(tensor.numbers for tensor in stored.values()))
        model, info = kind.from_pretrained(
            place,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **where,
            **how,
        )
    if stored is not None:
        _check_formats(what, model, stored)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    learnt = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = sorted(name for name in info["missing_keys"] if name not in tied and name in learnt)
    mismatched = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"])
    return model, [*missing, *mismatched], sorted(info["unexpected_keys"])


def refuse_random(what: str, new: list[str]) -> None:
    """ConfigError if weights are randomly initialised (`new`): a model that is used must be fully trained."""
    if new:
        raise ConfigError(
            f"{what}: its checkpoint lacks {modules(new)} (or has it in another shape), so that part would be random",
            "is this the right checkpoint for its config.json? train with init_from=... makes new heads on purpose",
        )


def modules(names: list[str]) -> str:
    """Names of modules for names of tensors: `cls.predictions.bias, cls.predictions.decoder.bias` as
    `cls.predictions`."""
    found = dict.fromkeys(
        ".".join(name.split(".")[:2]) if name.startswith("cls.") else name.rsplit(".", 1)[0] for name in names
    )
    return ", ".join(list(found)[:6]) + (", ..." if len(found) > 6 else "")


def tokenizer_of(what: str, place: str) -> Any:
    """The tokenizer in directory `place`, or of a hub id; ConfigError if its vocabulary is empty or it encodes all text
    as unknown."""
    from transformers import AutoTokenizer

    folder = Path(place)
    if folder.is_dir():
        check_tokenizer_files(what, folder)
    with _reading(what, "its tokenizer", place) as where:
        tokenizer = AutoTokenizer.from_pretrained(place, **where)
        pieces = tokenizer.get_vocab()
        special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
        ordinary = sorted(set(pieces.values()) - special)
        some = ordinary[:: max(1, len(ordinary) // _TRIED_TOKENS)]
        texts = [tokenizer.decode([piece]) for piece in some]
        read = {piece for text in texts for piece in tokenizer(text, add_special_tokens=False)["input_ids"]}
    if not ordinary and folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise no_tokenizer(what)
    if not ordinary:
        raise ConfigError(f"{what}: its tokenizer is empty: it has no pieces but special ones", TOKENIZER_HINT)
    if (last := max(pieces.values())) >= 2 * len(pieces) + _FREE_NUMBERS:
        raise ConfigError(
            f"{what}: its tokenizer has {len(pieces):,} pieces, and the last one has the number {last:,}",
            TOKENIZER_HINT,
        )
    if not isinstance(limit := tokenizer.model_max_length, int | float) or limit < 1:
        raise ConfigError(f"{what}: tokenizer_config.json: model_max_length is {limit!r}, a number of tokens is due")
    if not read - special:
        raise ConfigError(
            f"{what}: its tokenizer makes nothing of text but unknown pieces, even of its own ones", TOKENIZER_HINT
        )
    return tokenizer


BROKEN = "the model's answers are no numbers (NaN): it is broken"


def check_forward_pass(what: str, model: Any) -> None:
    """ConfigError if a forward pass over a single token fails: some sizes in config.json (number of heads, of groups)
    are not the shape of any weight, and show only in a matrix product. The same if its answer is NaN."""
    import torch

    piece = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
    inputs = {"input_ids": piece, "attention_mask": torch.ones_like(piece)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = piece
    with _reading(what, "its network fails at a row of one piece", ""), torch.no_grad():
        answer = model(**inputs)
    if any(torch.isnan(value).any() for value in answer.values() if isinstance(value, torch.Tensor)):
        raise ConfigError(f"{what}: {BROKEN}")


def check_fit(what: str, tokenizer: Any, model: Any) -> None:
    """ConfigError if the tokenizer has tokens without an embedding in the model."""
    rows = model.get_input_embeddings().num_embeddings
    piece, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise ConfigError(
            f"{what}: its tokenizer has a piece {piece!r} of number {last:,}, and the model has embeddings for "
            f"{rows:,} pieces: they do not belong together",
            f"{TOKENIZER_HINT}, or resize_token_embeddings({last + 1}) with transformers and train",
        )


def _refuse_larger(what: str, kind: Any, config: Any, numbers: int) -> None:
    """ConfigError if the network of `config` is far larger than weights of so many `numbers`: what they lack would be
    allocated. The network is outlined without memory."""
    import torch

    make = getattr(kind, "from_config", None) or kind._from_config
    with torch.device("meta"):
        outline = make(config)
    due = sum(tensor.numel() for tensor in (*outline.parameters(), *outline.buffers()))
    if due > 8 * numbers + _NEW_NUMBERS:
        raise ConfigError(
            f"{what}: config.json describes a network of {due:,} numbers, and its weights are {numbers:,}: they do not "
            "belong together",
            AGAIN,
        )


def _check_formats(what: str, model: Any, stored: dict[str, Stored]) -> None:
    """ConfigError if trained weights are stored as integers, which transformers casts silently."""
    for name, _ in model.named_parameters():
        kind = stored[name].kind if name in stored else "F32"
        if kind not in _FLOATS and not kind.startswith("F8"):
            raise ConfigError(
                f"{what}: its weights {name} are kept as {kind}, and weights are floating-point numbers", HINT
            )


@cache
def hub_is_reachable() -> bool:
    """Whether the Hugging Face hub is reachable; False with HF_HUB_OFFLINE. One request without retries."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # exceptions differ between HTTP libraries and offline mode
        return False
    return True


@contextmanager
def _reading(what: str, part: str, place: str) -> Iterator[dict[str, bool]]:
    """Context manager around calls of transformers; yields their common arguments.

    If the hub is not reachable, only its local cache is used: transformers would retry five times for each file, for
    half a minute. Exceptions of transformers, tokenizers (a bare `Exception`) and safetensors about damaged or
    unsupported files become ConfigErrors; ours, MemoryError and a full disk pass unchanged.
    """
    downloaded = bool(place) and not Path(place).exists() and not hub_is_reachable()
    try:
        yield {"trust_remote_code": False, "local_files_only": downloaded}
    except (LmctlError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{what} needs Python code that comes with it (auto_map in config.json), which lmctl does not run",
                "give a model of an architecture that transformers has itself",
            ) from error
        if downloaded and isinstance(error, OSError):
            raise ConfigError(
                f"{what}: cannot be loaded: it is neither here nor in the hub's cache, and the hub cannot be reached",
                HINT,
            ) from error
        raise ConfigError(f"{what}: cannot be loaded: {part}: {first_line(error)}", HINT) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; with its class name where the message alone is not clear."""
    text = next(iter(str(error).strip().splitlines()), "")
    return text if text and isinstance(error, (OSError, ValueError)) else f"{type(error).__name__} {text}".strip()
