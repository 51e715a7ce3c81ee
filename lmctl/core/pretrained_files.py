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
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.exported_weights import check_exported
from lmctl.core.files import is_local_path, nearest_place, path_of
from lmctl.core.model_files import (
    CONFIG,
    TOKENIZER_FILES,
    check_files,
    check_tokenizer_files,
    headers,
    near,
    no_tokenizer,
)
from lmctl.core.paths import Paths

HINT = "give a run directory, a Hugging Face directory with safetensors, or a hub id"
TOKENIZER_HINT = "copy the tokenizer's files from where the model comes from"
_FLOATS = ("F64", "F32", "F16", "BF16")
_TRIED_TOKENS = 64
"""Tokens of the vocabulary that are decoded and encoded again as a check."""


def find(key: str, place: str) -> str:
    """Resolve `place` to the directory that transformers loads (of a run its model/) or to a hub id. ConfigError if
    nothing is there, or no model; `key` is the setting that named it."""
    folder, asked = path_of(place), f"{key}={place}"
    run = Paths(folder)
    if (run.model / CONFIG).is_file():
        return str(run.model)
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
    from transformers import AutoConfig

    if Path(place).exists():
        check(what, Path(place))
    with _reading(what, "config.json", place) as where:
        return AutoConfig.from_pretrained(place, **where)


def weights_of(what: str, kind: Any, place: str, **how: Any) -> tuple[Any, list[str], list[str]]:
    """The model of transformers' class `kind`; the names of tensors that the checkpoint lacks or has in another shape
    (randomly initialised; tied tensors and buffers do not count); and of unused tensors of the checkpoint."""
    if Path(place).is_dir():
        check_exported(what, Path(place))
    with _reading(what, "its weights", place) as where:
        model, info = kind.from_pretrained(
            place, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **where, **how
        )
    if Path(place).is_dir() and model.config.to_dict().get("quantization_config") is None:
        _check_formats(what, model, headers(what, Path(place)))
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
    if not isinstance(limit := tokenizer.model_max_length, int | float) or limit < 1:
        raise ConfigError(f"{what}: tokenizer_config.json: model_max_length is {limit!r}, a number of tokens is due")
    if not read - special:
        raise ConfigError(
            f"{what}: its tokenizer makes nothing of text but unknown pieces, even of its own ones", TOKENIZER_HINT
        )
    return tokenizer


def check_forward_pass(what: str, model: Any) -> None:
    """ConfigError if a forward pass over a single token fails: some sizes in config.json (number of heads, of groups)
    are not the shape of any weight, and show only in a matrix product."""
    import torch

    piece = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
    inputs = {"input_ids": piece, "attention_mask": torch.ones_like(piece)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = piece
    with _reading(what, "its network fails at a row of one piece", ""), torch.no_grad():
        model(**inputs)


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


def _check_formats(what: str, model: Any, kinds: dict[str, str]) -> None:
    """ConfigError if trained weights are stored as integers, which transformers casts silently."""
    for name, _ in model.named_parameters():
        if kinds.get(name, "F32") not in _FLOATS and not kinds[name].startswith("F8"):
            raise ConfigError(
                f"{what}: its weights {name} are kept as {kinds[name]}, and weights are floating-point numbers", HINT
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
    except Exception as error:
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
