"""A LoRA adapter as PEFT saves one (Hu et al. 2022), merged into its base model: a model directory in the cache.

    W + s B A        s = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora

Only numbers of adapter_config.json are taken, and which layers have adapters is read from the names of the tensors: of
PEFT's own reader patterns become regular expressions, and keys name modules to import. The base must be a directory of
this machine; nothing is fetched because a file says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.cache import cached, default_root
from lmctl.core.errors import ConfigError
from lmctl.core.files import digest, is_local_path, path_of
from lmctl.core.model_files import CONFIG, TOKENIZER_FILES, json_object, refuse_link
from lmctl.core.pretrained_files import find, refuse_random, tokenizer_of
from lmctl.core.safetensors_header import header
from lmctl.model.artifact.reader import Artifact

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What names of tensors begin with."""
BY_PEFT = "merge it with peft: AutoPeft...from_pretrained(...).merge_and_unload(), then save_pretrained"
NOT_MERGED = {
    "use_dora": "DoRA",
    "alpha_pattern": "another alpha for some layers",
    "lora_bias": "biases of its own",
    "megatron_config": "Megatron's layers",
}
"""Settings of LoRA that are refused, and what they are."""
_LORA = re.compile(r"(.+)\.lora_([AB])\.weight")
_HEAD = re.compile(r"(classifier|score)(\.out_proj)?\.weight")
"""The last layer of a classifier, whose rows are its classes."""


def is_adapter(place: str) -> bool:
    """Whether a directory holds an adapter, and no whole model."""
    return (path_of(place) / ADAPTER).is_file()


def merged(key: str, place: str, say: Callable[[str], None]) -> str:
    """The directory of the model that the adapter at `place` and its base make; `key` is the setting that named it,
    `say` is told what was merged. ConfigError if the base is not here, or the adapter is no LoRA that can be merged."""
    asked, folder = f"{key}={place}", path_of(place)
    for name in (ADAPTER, WEIGHTS):
        refuse_link(asked, folder, folder / name)
    settings = json_object(asked, folder / ADAPTER)
    base = _base(asked, settings)
    scale = _scale(asked, settings)
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{asked} holds an adapter (PEFT) without {WEIGHTS}", "save it with safetensors")
    header(asked, folder / WEIGHTS)
    tokenizer = folder if any((folder / name).is_file() for name in TOKENIZER_FILES) else base.folder
    identity = {
        "adapter": [digest(folder / WEIGHTS), settings.get("task_type"), *scale],
        "base": [base.fingerprint(), digest(base.folder / CONFIG)],
        "tokenizer": [digest(tokenizer / name) for name in TOKENIZER_FILES if (tokenizer / name).is_file()],
    }

    def make(partial: Path) -> None:
        _merge(asked, folder, base, str(settings.get("task_type")), scale).save_pretrained(partial)
        tokenizer_of(asked, str(tokenizer)).save_pretrained(partial)

    found, _ = cached(default_root(), "models", identity, make, Path, say)
    say(f"{asked}: an adapter, merged into {base.place}")
    return str(found)


def _base(asked: str, settings: Mapping[str, Any]) -> Artifact:
    """The model that the adapter was trained on."""
    named = settings.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ConfigError(f"{asked} holds an adapter (PEFT), and its {ADAPTER} names no base model", BY_PEFT)
    if not path_of(named).is_dir() and not is_local_path(named):
        raise ConfigError(
            f"{asked} holds an adapter (PEFT) of {named}, which is no directory here",
            f"download that model, and write its directory into {ADAPTER} as base_model_name_or_path",
        )
    asked = f"{asked}: base_model_name_or_path"
    return Artifact(f"{asked}={named}", find(asked, named))


def _scale(asked: str, settings: Mapping[str, Any]) -> tuple[float, bool]:
    """alpha, and whether it is divided by the square root of the rank."""
    if (kind := settings.get("peft_type")) != "LORA":
        raise ConfigError(f"{asked} holds an adapter (PEFT) of type {kind!r:.40}, and LoRA is merged", BY_PEFT)
    for name, what in NOT_MERGED.items():
        if settings.get(name):
            raise ConfigError(f"{asked} holds an adapter (PEFT) with {what} ({name}), which is not merged", BY_PEFT)
    alpha = settings.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise ConfigError(f"{asked}: {ADAPTER}: lora_alpha is {alpha!r:.40}, and a number is due", BY_PEFT)
    return float(alpha), bool(settings.get("use_rslora"))


def _merge(asked: str, folder: Path, base: Artifact, task: str, scale: tuple[float, bool]) -> Any:
    """The base model with the adapter in its weights, and layers that the adapter saved whole in place of its own."""
    from safetensors.torch import load_file
    from transformers.pytorch_utils import Conv1D

    tensors = {name.removeprefix(PREFIX): value for name, value in load_file(folder / WEIGHTS).items()}
    model, new, _ = base.weights(*_class(base, task, tensors))
    whole = {name: value for name, value in tensors.items() if ".lora_" not in name}
    refuse_random(base.asked, [name for name in new if name not in whole])
    state, layers = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_modules())
    for name, value in (_products(asked, tensors, scale) | whole).items():
        own, added = state.get(name), name not in whole
        if added and isinstance(layers.get(name.removesuffix(".weight")), Conv1D):
            value = value.T  # GPT-2 has its weights transposed
        if own is None or own.shape != value.shape:
            raise ConfigError(f"{asked}: {WEIGHTS} has {name}, and its base model has no such layer", BY_PEFT)
        own.data = (own.data.float() + value if added else value).to(own.dtype)
    return model


def _class(base: Artifact, task: str, tensors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """The class of transformers that the adapter was trained in, and its config."""
    if task != "SEQ_CLS":
        return base.auto_class().kind, base.config
    from transformers import AutoModelForSequenceClassification

    config = deepcopy(base.config)
    heads = [len(value) for name, value in tensors.items() if _HEAD.fullmatch(name)]
    if heads and heads[0] != config.num_labels:
        config.num_labels = heads[0]
    return AutoModelForSequenceClassification, config


def _products(asked: str, tensors: Mapping[str, Tensor], scale: tuple[float, bool]) -> dict[str, Tensor]:
    """s B A, float32, by the name of the weight that it is added to."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if (found := _LORA.fullmatch(name)) is not None:
            pairs.setdefault(found[1], {})[found[2]] = value.float()
        elif ".lora_" in name:
            raise ConfigError(f"{asked}: {WEIGHTS} has {name}, which is not merged", BY_PEFT)
    alpha, by_root = scale
    products = {}
    for layer, pair in pairs.items():
        if set(pair) != {"A", "B"} or any(one.ndim != 2 for one in pair.values()) or len(pair["A"]) != len(pair["B"].T):
            raise ConfigError(f"{asked}: {WEIGHTS} is damaged: {layer} has no A and B that fit each other")
        rank = len(pair["A"])
        products[f"{layer}.weight"] = alpha / (rank**0.5 if by_root else rank) * (pair["B"] @ pair["A"])
    return products
