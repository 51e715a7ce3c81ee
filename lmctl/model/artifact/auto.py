"""transformers' Auto classes: lmctl's own models among them, and by which of them a finished model is loaded."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from lmctl.core.batch import Family
from lmctl.core.errors import ConfigError


def register() -> None:
    """Make lmctl's recurrent networks known to them; each file registers its own when it is imported."""
    from lmctl.model.rnn import classifier, language_model, seq2seq  # noqa: F401


class AutoClass(NamedTuple):
    """The class of transformers that a finished model is loaded as."""

    kind: Any
    family: Family
    classifies: bool
    """Whether it labels texts; otherwise it predicts words."""


_Use: TypeAlias = Literal["classifier", "encoder", "decoder", "seq2seq"]
_ENDINGS: dict[str, _Use] = {
    "ForSequenceClassification": "classifier",
    "ForMaskedLM": "encoder",
    "BertForPreTraining": "encoder",
    "AlbertForPreTraining": "encoder",
    "ForCausalLM": "decoder",
    "LMHeadModel": "decoder",
    "ForConditionalGeneration": "seq2seq",
    "ForSeq2SeqLM": "seq2seq",
    "MTModel": "seq2seq",
    "MarianMTModel": "seq2seq",
}
"""By the end of a class's name, what it is for."""


DISCRIMINATOR = "ElectraForPreTraining"
"""The class of a model that tells replaced words from original ones, and no more."""


def auto_class(asked: str, config: Any, architecture: Family) -> AutoClass:
    """By the class that wrote it (`config.architectures`); `architecture` is what a classifier would be without its
    head. ConfigError for a model that neither predicts words nor labels texts."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    name = (config.architectures or [""])[0]
    classes: dict[_Use, Any] = {
        "classifier": auto.AutoModelForSequenceClassification,
        "encoder": auto.AutoModelForMaskedLM,
        "decoder": auto.AutoModelForCausalLM,
        "seq2seq": auto.AutoModelForSeq2SeqLM,
    }
    use = next((use for ending, use in _ENDINGS.items() if name.endswith(ending)), None)
    if use is None:  # a name of another pattern: whichever of these classes knows it
        use = next((use for use, kind in classes.items() if _serves(kind, config, name)), None)
    if name == DISCRIMINATOR:
        raise ConfigError(
            f"{asked} is a discriminator without its generator: it tells replaced words from original ones, but it "
            "neither predicts words nor labels texts",
            "fine-tune it: lmctl train mix=classify init_from=...",
        )
    if use is None:
        raise ConfigError(
            f"{asked}: {name or 'the model'} has no head that lmctl can use",
            "language models, encoder-decoders and classifiers can be used",
        )
    if use == "classifier":
        return AutoClass(classes[use], architecture, True)
    if config.is_encoder_decoder:
        use = "seq2seq"
    if name.endswith("ForPreTraining") and hasattr(transformers, name):
        return AutoClass(getattr(transformers, name), use, False)  # with its head for pairs, which masked ones lack
    return AutoClass(classes[use], use, False)


def _serves(kind: Any, config: Any, name: str) -> bool:
    mapping = kind._model_mapping
    return type(config) in mapping and mapping[type(config)].__name__ == name
