"""Classifier heads of a model: that of its transformers class, or an extra head of a multi-task model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmctl.core.batch import LabelKind
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean
from lmctl.inference.load import Loaded
from lmctl.model.artifact import EXTRA_HEADS
from lmctl.model.artifact.reader import label_kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classifier:
    """A classifier: a function from texts to logits, and its class names."""

    kind: LabelKind
    labels: dict[str, int]
    """Class name -> index; empty for regression."""
    answer: Callable[[list[list[str]], int], Tensor]
    """(rows of one text or two, maximum length) -> logits [R, C], with gradients."""
    embeddings: Any
    """The embedding module, with output [R, L, H]."""

    def logits(self, rows: list[list[str]], length: int) -> np.ndarray:
        """Logits as float64 [R, C], without gradients."""
        import torch

        with torch.no_grad():
            return self.answer(rows, length).double().cpu().numpy()


def refuse_classifier(loaded: Loaded, what: str) -> None:
    """ConfigError if the model is a classifier, which cannot do the task in `what`."""
    if loaded.classifies:
        raise ConfigError(
            f"model_path={loaded.path} is a classifier: {what}",
            f"label new texts: lmctl predict model_path={loaded.path} file=...; how good it is: lmctl eval",
        )


def has_head(loaded: Loaded, task: str | None) -> bool:
    """Whether the model has an extra head for `task`, besides that of its transformers class."""
    labelled = [name for name, note in (loaded.tasks or {}).items() if note["label_kind"]]
    return task in (labelled[1:] if loaded.classifies else labelled)


def classifier_of(loaded: Loaded, task: str | None) -> Classifier:
    """The classifier for `task`; ConfigError if there is none."""
    if has_head(loaded, task):
        return _extra_head(loaded, str(task))
    tasks = [name for name in loaded.tasks or {} if has_head(loaded, name)]
    if not loaded.classifies:
        raise ConfigError(
            f"model_path={loaded.path} has no classifier"
            + (f" named {task}{did_you_mean(task, tasks)}" if task else ""),
            f"task=NAME chooses one of: {', '.join(tasks)}" if tasks else None,
        )
    embeddings = loaded.model.get_input_embeddings()
    kind = label_kind(loaded.model.config)
    return Classifier(kind, loaded.labels, lambda rows, length: _own_answer(loaded, rows, length), embeddings)


def _own_answer(loaded: Loaded, rows: list[list[str]], length: int) -> Tensor:
    second = [texts[1] for texts in rows] if len(rows[0]) > 1 else None
    framed = loaded.framed([texts[0] for texts in rows], second, length)
    return loaded.model(**loaded.arguments(framed)).logits


def _extra_head(loaded: Loaded, task: str) -> Classifier:
    """The extra head `task` of a multi-task model, with the trunk it was trained on."""
    from lmctl.core.ragged import Ragged
    from lmctl.objective.classify import framed_rows
    from lmctl.tokenizer.vocabulary import vocabulary

    note = (loaded.tasks or {})[task]
    assert note["label_kind"] is not None  # `has_head`
    known = loaded.artifact.extra_heads()
    if f"{task}.weight" not in known:
        raise ConfigError(f"model_path={loaded.path}: the head of task {task} is not there ({EXTRA_HEADS})")
    pieces = vocabulary(loaded.tokenizer)
    network = network_of(loaded, {task: len(known[f"{task}.weight"])})
    segments = loaded.family == "encoder"

    def answer(rows: list[list[str]], length: int) -> Tensor:
        flat = iter(loaded.pieces([text for texts in rows for text in texts]))
        texts = [[np.array(next(flat), dtype=np.int64) for _ in row] for row in rows]
        inputs, _ = framed_rows([Ragged.of(side) for side in zip(*texts, strict=True)], pieces, length, segments)
        hidden = network.encode({name: value.to(loaded.device) for name, value in inputs.items()}, None)
        return network.head(task, hidden)

    labels = {name: place for place, name in enumerate(note["labels"])}
    return Classifier(note["label_kind"], labels, answer, network.word_embeddings())


def network_of(loaded: Loaded, heads: Mapping[str, int]) -> Any:
    """The model as the network it was trained as, with `heads` (besides its own one), in the number formats that it is
    loaded in."""
    from lmctl.model.loading import load
    from lmctl.tokenizer.vocabulary import vocabulary

    pieces = vocabulary(loaded.tokenizer)
    own: dict[str, int] = {}
    if any(has_head(loaded, name) for name in heads):
        if loaded.classifies:
            own = {next(iter(loaded.tasks or {})): int(loaded.model.config.num_labels)}
        else:
            own = {{"encoder": "mlm", "decoder": "lm"}[loaded.family]: pieces.size}
    network = load(loaded.artifact, pieces, {**own, **heads})
    loaded.numerics.take(network, loaded.device)
    return network.to(loaded.device).eval()
