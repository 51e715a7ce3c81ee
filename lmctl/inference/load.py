"""Loading a finished model and its tokenizer with transformers: safetensors only, no code of the model is run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lmctl.core.batch import Family, whole_text
from lmctl.core.errors import ConfigError
from lmctl.core.model_files import TaskNote
from lmctl.core.pretrained_files import check_forward_pass, find
from lmctl.inference.number_formats import Numerics
from lmctl.inference.trained_on import trained_length
from lmctl.model.artifact.reader import Artifact
from lmctl.model.generation import ends_of
from lmctl.model.positions import positions
from lmctl.runner.base import Runner
from lmctl.train.unfinished import model_in, say

if TYPE_CHECKING:
    import torch

LONGEST = 1024
"""Default sequence length of a model whose training is not known, if its maximum is larger, or unlimited."""


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device, with its tokenizer."""

    artifact: Artifact
    model: Any
    """Of a discriminator the generator that lies in it."""
    tokenizer: Any
    family: Family
    classifies: bool
    """Whether it is a classifier and no language model."""
    labels: dict[str, int]
    """Class name -> index of a classifier; empty otherwise."""
    tasks: dict[str, TaskNote] | None = None
    """What lmctl trained the model for; None for other models."""
    numerics: Numerics = field(default_factory=Numerics)
    """The number formats of `model`, in which it is called."""
    report: list[str] = field(default_factory=list)
    """Remarks on the number formats."""
    trained_length: int | None = None
    """Positions per row in its training run; None if that is not known."""

    @property
    def path(self) -> str:
        """Its directory, or its id on a hub."""
        return self.artifact.place

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def positions(self) -> int | None:
        """Longest row that the model accepts, special tokens included; None: any."""
        limits = [positions(self.model, self.model.config), int(self.tokenizer.model_max_length)]
        # Tokenizers without a limit have 10**30.
        return min((limit for limit in limits if limit is not None and limit < 10**9), default=None)

    def row(self, wanted: int | None = None) -> int:
        """Positions per row: `wanted`, or as many as in training, since positions beyond have learned nothing, or
        LONGEST; at most the model's maximum."""
        wanted = wanted or self.trained_length or LONGEST
        return wanted if self.positions is None else min(wanted, self.positions)

    @property
    def begin(self) -> int:
        """The start token of a text: bos, cls, or the end token of the text before. Of an encoder always cls."""
        bos, cls = self.tokenizer.bos_token_id, self.tokenizer.cls_token_id
        return _first(*((cls, bos) if self.family == "encoder" else (bos, cls)), self.end)

    @property
    def end(self) -> int:
        """The end token of a text: eos or sep; of an encoder always sep."""
        eos, sep = self.tokenizer.eos_token_id, self.tokenizer.sep_token_id
        found = _first(*((sep, eos) if self.family == "encoder" else (eos, sep)))
        if found is None:
            raise ConfigError(f"model_path={self.path}: its tokenizer has no eos or sep piece, so nothing ends a text")
        return found

    @cached_property
    def ends(self) -> list[int]:
        """All tokens that end generated text: `end`, and those in the files of a model from elsewhere."""
        tokenizer = self.tokenizer
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        named = ends_of(self.model, {*special, *tokenizer.all_special_ids}) if self.tasks is None else set()
        return sorted({self.end, *named})

    @property
    def mask(self) -> int:
        """The mask token."""
        if self.tokenizer.mask_token_id is None:
            raise ConfigError(f"model_path={self.path}: its tokenizer has no mask piece, so there are no masks to fill")
        return int(self.tokenizer.mask_token_id)

    @property
    def pad(self) -> int:
        """The padding token."""
        return _first(self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)

    @cached_property
    def carries_state(self) -> bool:
        """Whether its forward pass accepts the recurrent `state` returned by the previous one."""
        return "state" in inspect.signature(self.model.forward).parameters

    @cached_property
    def _plain(self) -> Any:
        """The tokenizer, set so that "[SEP]" in a text is never encoded as the special token."""
        backend = self.tokenizer.backend_tokenizer
        copy = type(backend).from_str(backend.to_str())
        copy.encode_special_tokens = True
        copy.no_truncation()
        copy.no_padding()
        return copy

    def pieces(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        if not hasattr(self.tokenizer, "backend_tokenizer"):  # a slow tokenizer, in Python
            return [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, with special tokens in its text and those of the tokenizer's template; but no end
        token for a decoder, which continues it. At least the start token."""
        framed = self.tokenizer(text, return_special_tokens_mask=True)
        ids, added = list(framed["input_ids"]), list(framed["special_tokens_mask"])
        while self.family == "decoder" and ids and added[-1]:
            ids, added = ids[:-1], added[:-1]
        return ids or [self.begin]

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens of the tokenizer's template before a text, and after it."""
        framed = self.tokenizer("a", return_special_tokens_mask=True)
        ids, added = framed["input_ids"], framed["special_tokens_mask"]
        first = next((place for place, special in enumerate(added) if not special), min(1, len(ids)))
        last = next((place for place in range(len(ids), first, -1) if not added[place - 1]), first)
        return list(ids[:first]), list(ids[last:])

    @cached_property
    def ends_sentences(self) -> bool:
        """Whether the model was trained to predict an end after every sentence, not only after the document."""
        return any(task.get("end_of") == "sentence" for task in (self.tasks or {}).values())

    def document(self, sentences: list[str]) -> list[int]:
        """Token ids of a document as in lmctl's training: sentence by sentence. Other models get the raw text. Without
        the end token of the document (of its last sentence)."""
        parts = self.pieces(sentences if self.tasks is not None else [whole_text(sentences)])
        if self.ends_sentences:
            parts = [ids if place == 0 else [self.end, *ids] for place, ids in enumerate(parts)]
        return [piece for ids in parts for piece in ids]

    def framed(self, first: list[str], second: list[str] | None = None, length: int | None = None) -> Any:
        """A batch as in training: special tokens around each text, or text pair, truncated to `length` and padded;
        tensors on the model's device. Text that spells a special token stays text."""
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.pad)
        limits = {"truncation": "longest_first" if second else True, "max_length": length} if length else {}
        batch = self.tokenizer(
            first, second, padding=True, padding_side="right", return_tensors="pt", split_special_tokens=True, **limits
        )
        return batch.to(self.device)

    def arguments(self, batch: Any) -> dict[str, Any]:
        """The parts of a batch that the model's forward pass accepts."""
        takes = inspect.signature(self.model.forward).parameters
        return {name: value for name, value in batch.items() if name in takes}


def device_of(where: Runner) -> torch.device:
    """The one device that inference runs on."""
    import torch

    return torch.device("cpu" if where.on_cpu() else "cuda")


def model_folder(model_path: str) -> str:
    """The directory that transformers loads, or the hub id: of a run its model/; of an unfinished run or a checkpoint
    the model exported from it, which is reported."""
    return find("model_path", model_in(model_path, "model_path"))


def load(model_path: str, where: Runner, numerics: Numerics | None = None) -> Loaded:
    """The model of a run, a directory or a hub id, in its own number format or in `numerics`; ConfigError if it cannot
    be loaded, or if `numerics` would change nothing."""
    # Refuse a wrong path before slow imports.
    artifact = Artifact(f"model_path={model_path}", model_folder(model_path))

    from torch import nn

    from lmctl.parallel.deterministic import choose_kernels

    answering = artifact.answering()
    if answering is not artifact:
        say(f"{artifact.asked}: a discriminator predicts no words, so its generator does")
    device, config = device_of(where), answering.config
    if device.type == "cuda":
        choose_kernels()
    kind, family, classifies = answering.auto_class()
    model, tokenizer = answering.finished(kind)
    labels = {str(name): int(place) for place, name in config.id2label.items()} if classifies else {}
    numerics = numerics or Numerics()
    report = numerics.take(nn.ModuleDict({"model": model}), device)
    model = model.to(device).eval()
    length = trained_length(model_path)
    loaded = Loaded(artifact, model, tokenizer, family, classifies, labels, artifact.tasks, numerics, report, length)
    if classifies and config.pad_token_id is None:  # decoders pool at the last token that is not padding
        model.config.pad_token_id = loaded.pad
    with numerics.products(device):
        check_forward_pass(artifact.asked, model)
    return loaded


def need(loaded: Loaded, families: Sequence[Family], what: str, classifiers: bool = False) -> None:
    """ConfigError unless the model is a language model of one of `families`, or a classifier if `classifiers` is set;
    `what` is the feature that needs such a model."""
    if classifiers if loaded.classifies else loaded.family in families:
        return
    names = {"encoder": "a masked language model", "decoder": "a causal language model", "seq2seq": "a seq2seq"}
    wanted = [names[family] for family in families] + ["a classifier"] * classifiers
    kind = "a classifier" if loaded.classifies else names[loaded.family]
    raise ConfigError(f"model_path={loaded.path} is {kind}, and {what} needs {' or '.join(wanted)}")


def _first(*ids: int | None) -> Any:
    """The first id that is not None, or None."""
    return next((i for i in ids if i is not None), None)
