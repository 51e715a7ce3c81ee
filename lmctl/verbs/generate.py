"""`lmctl generate`: fill the masks of a prompt, with probabilities."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lmctl.config.build import build, check_root
from lmctl.config.schema import GenerateConfig
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.types import Paths, Where

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run(cfg: DictConfig) -> None:
    """Print each prompt with its masks filled, and the likeliest pieces for every mask."""
    check_root(cfg, GenerateConfig)
    where = build(cfg.runner, Where)
    path = model_folder(cfg.model_path)
    prompts = _prompts(cfg.prompt, cfg.file)
    first = next(prompts, None)
    if first is None:
        raise DataError("no prompt: standard input is empty", 'give one: prompt="The [MASK] statement"')

    import torch

    from lmctl.run.display import quiet_libraries

    quiet_libraries()
    model, tokenizer = load(path, torch.device("cpu" if where.on_cpu() else "cuda"))
    for prompt in (first, *prompts):
        for line in fill(model, tokenizer, prompt, cfg.top_k):
            print(line)


def model_folder(model_path: str) -> str:
    """A run directory's model/, or the path or hub id itself."""
    folder = Path(model_path)
    paths = Paths(folder)
    if (paths.model / "config.json").is_file():
        return str(paths.model)
    if paths.config.is_file() and paths.checkpoints.is_dir():
        raise ConfigError(
            f"model_path={folder}: this run is not finished, so it has no model/ yet",
            f"finish it: lmctl train resume=auto run_dir={folder}",
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ConfigError(f"model_path={folder}: neither a run nor a model directory (no config.json)")
    if not folder.exists() and (folder.is_absolute() or model_path.startswith(".") or model_path.count("/") > 1):
        raise ConfigError(f"model_path={model_path}: no such directory")
    return model_path


def load(path: str, device: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model and its tokenizer; safetensors only, no code from elsewhere."""
    from transformers import AutoConfig, AutoTokenizer, BertForPreTraining
    from transformers.models.auto.modeling_auto import AutoModelForMaskedLM

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        pretraining = "BertForPreTraining" in (config.architectures or [])
        kind = BertForPreTraining if pretraining else AutoModelForMaskedLM
        model = kind.from_pretrained(path, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model_path={path}: cannot be loaded: {str(error).strip().splitlines()[0]}",
            "give a run directory, a Hugging Face directory with safetensors, or a hub id of a masked language model",
        ) from error
    if tokenizer.mask_token is None:
        raise ConfigError(f"model_path={path}: its tokenizer has no mask piece, so there are no masks to fill")
    return model.to(device).eval(), tokenizer


def fill(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, top_k: int) -> Iterator[str]:
    """The prompt with its likeliest pieces (each mask on its own, the others unseen), then `top_k` per mask."""
    import torch

    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=True).to(model.device)
    ids = inputs["input_ids"][0]
    masks = (ids == tokenizer.mask_token_id).nonzero().flatten()
    if not len(masks):
        raise DataError(
            f"the prompt has no {tokenizer.mask_token}: {prompt!r}",
            f"write {tokenizer.mask_token} where a word is missing",
        )
    if len(ids) > model.config.max_position_embeddings:
        raise DataError(f"the prompt has {len(ids)} tokens, and the model takes {model.config.max_position_embeddings}")
    with torch.no_grad():
        output = model(**inputs)
    logits = getattr(output, "prediction_logits", getattr(output, "logits", None))
    assert logits is not None
    known = logits[0, masks, : len(tokenizer)].float()  # the embedding may have rows that no piece uses
    best = known.softmax(dim=-1).topk(min(top_k, known.shape[-1]))
    filled = prompt
    for piece in best.indices[:, 0].tolist():
        filled = filled.replace(str(tokenizer.mask_token), tokenizer.decode([piece]).strip().removeprefix("##"), 1)
    yield filled
    for number, (values, pieces) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), start=1):
        choices = "  ".join(
            f"{piece} {value:.1%}" for piece, value in zip(tokenizer.convert_ids_to_tokens(pieces), values, strict=True)
        )
        yield f"  mask {number}: {choices}"


def _prompts(prompt: str | None, file: str | None) -> Iterator[str]:
    if prompt is not None:
        yield prompt
        return
    if file is not None:
        from lmctl.data.reading import lines

        yield from (line for line in lines(Path(file)) if line.strip())
        return
    if sys.stdin.isatty():
        raise ConfigError("no prompt given", 'prompt="The [MASK] statement", file=..., or lines on standard input')
    yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
