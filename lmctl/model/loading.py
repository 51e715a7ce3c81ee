"""Loading a pre-trained model as a network with the heads that new tasks need."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from lmctl.core.errors import ConfigError
from lmctl.core.pretrained_files import modules
from lmctl.core.vocabulary import Vocabulary
from lmctl.model import encoders, rnn
from lmctl.model import network as networks
from lmctl.model.artifact import GENERATOR
from lmctl.model.artifact.reader import Artifact, family_of
from lmctl.model.bert import bert_class
from lmctl.model.bert_network import BertNetwork
from lmctl.model.electra_network import ElectraNetwork, ElectraWithGenerator, electra_class
from lmctl.model.modernbert_network import ModernBertEncoder
from lmctl.model.rnn.networks import RecurrentClassifierNetwork, RecurrentNetwork, RecurrentSeq2Seq, refuse_language

ENCODERS = {
    "bert": BertNetwork,
    "electra": ElectraNetwork,
    "modernbert": ModernBertEncoder,
    "roberta": encoders.RobertaEncoder,
    "xlm-roberta": encoders.RobertaEncoder,
    "distilbert": encoders.DistilBertEncoder,
    rnn.CLASSIFIER: RecurrentClassifierNetwork,
}
"""Encoders differ in how their heads hang on; decoders and encoder-decoders do not."""
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop",
            "dropout", "attention_dropout", "dropout_rate", "mlp_dropout", "embedding_dropout")  # fmt: skip


def load(
    artifact: Artifact, vocabulary: Vocabulary, heads: Mapping[str, int], dropout: float | None = None
) -> networks.TransformerNetwork:
    """The trained model with `heads`; `network.report` says what was loaded and what is new. `dropout`: instead of the
    rates that its config gives."""
    config = _config(artifact.config, heads, dropout)
    kind, network_class = _classes(artifact.asked, config, heads)
    model, new, unused = artifact.weights(kind, config=config, attn_implementation=_attention(config))
    generator = None
    if GENERATOR in heads and artifact.generator is not None:
        generator = load(artifact.generator, vocabulary, {"mlm": heads[GENERATOR]}, dropout)
    network = _fitted(model, network_class, vocabulary, heads, generator)
    network.report = _report(model, new, unused)
    if generator is not None:
        network.report += [f"{GENERATOR}: {line}" for line in generator.report]
    taken = network.load_extra_heads(artifact.extra_heads())
    if taken:
        network.report.append(f"heads taken over: {', '.join(taken)}")
    network.untrained = [*new, *(f"class_heads.{name}" for name in network.class_heads if name not in taken)]
    return network


def outline(
    asked: str,
    config: Any,
    vocabulary: Vocabulary,
    heads: Mapping[str, int],
    dropout: float | None = None,
    beside: Any = None,
) -> networks.TransformerNetwork:
    """The network that transformers' `config` describes, with `heads`, freshly initialised; `asked` is how the user
    named the model that the config is of, `beside` the config of its generator."""
    config = _config(config, heads, dropout)
    kind, network_class = _classes(asked, config, heads)
    generator = None
    if GENERATOR in heads and beside is not None:
        generator = outline(asked, beside, vocabulary, {"mlm": heads[GENERATOR]}, dropout)
    make = getattr(kind, "from_config", None) or kind._from_config
    model = make(config, attn_implementation=_attention(config))
    return _fitted(model, network_class, vocabulary, heads, generator)


def _config(config: Any, heads: Mapping[str, int], dropout: float | None) -> Any:
    """A copy of the model's config, with the dropout and the number of classes that are wanted."""
    config = deepcopy(config)
    if dropout is not None:
        for name in DROPOUTS:
            if isinstance(getattr(config, name, None), (int, float)):
                setattr(config, name, dropout)
    config.use_cache = False
    if not any(name in networks.LANGUAGE for name in heads):
        config.num_labels = next(iter(heads.values()))
    return config


def _attention(config: Any) -> str | None:
    return None if config.model_type in ("t5", *rnn.TYPES) else "sdpa"


def _fitted(
    model: Any,
    network_class: type[networks.TransformerNetwork],
    vocabulary: Vocabulary,
    heads: Mapping[str, int],
    generator: networks.TransformerNetwork | None = None,
) -> networks.TransformerNetwork:
    """The network around `model`, with embeddings for all of the vocabulary, and its `generator` beside it."""
    if vocabulary.size > model.get_input_embeddings().num_embeddings:
        _resize(model, vocabulary.size)
    if generator is not None:
        return ElectraWithGenerator(model.float(), heads, generator)
    return network_class(model.float(), heads)


def _resize(model: Any, pieces: int) -> None:
    """Embeddings for so many pieces. They are put in memory where the network is built without
    (`parallel/deferred_weights.py`), because transformers makes the new ones on the device of the old ones."""
    made: dict[int, nn.Parameter] = {}  # tied ones stay the same
    for table in filter(None, (model.get_input_embeddings(), model.get_output_embeddings())):
        before = table.weight
        if before.is_meta and not (values := before.clone()).is_meta:
            table.weight = made.setdefault(id(before), nn.Parameter(values))
            vars(table.weight).update(vars(before))  # transformers' note that it need not be initialised
    with _disable_current_modes() if made else nullcontext():
        model.resize_token_embeddings(pieces, mean_resizing=False)


def _classes(asked: str, config: Any, heads: Mapping[str, int]) -> tuple[Any, type[networks.TransformerNetwork]]:
    """The transformers class and the network around it."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import AutoModelForMaskedLM

    kind, family = config.model_type, family_of(config)
    if family == "seq2seq":
        return AutoModelForSeq2SeqLM, RecurrentSeq2Seq if kind == rnn.SEQ2SEQ else networks.Seq2Seq
    if kind == rnn.LANGUAGE_MODEL:
        return AutoModelForCausalLM, RecurrentNetwork
    if kind == rnn.CLASSIFIER:
        refuse_language(heads)
    language = any(name in networks.LANGUAGE for name in heads)
    if family == "decoder":
        return AutoModelForCausalLM if language else AutoModelForSequenceClassification, networks.Decoder
    if kind not in ENCODERS:
        raise ConfigError(
            f"{asked} is of type {kind!r}, whose heads lmctl does not know",
            f"encoders it knows: {', '.join(ENCODERS)}",
        )
    if kind == "bert":
        return bert_class(heads), BertNetwork
    if kind == "electra":
        return electra_class(heads), ElectraNetwork
    return AutoModelForMaskedLM if language else AutoModelForSequenceClassification, ENCODERS[kind]


def _report(model: Any, new: list[str], unused: list[str]) -> list[str]:
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    total = len(model.state_dict()) - len(tied)
    lines = [f"loaded {total - len(new)} of {total} tensors"]
    if new:
        lines.append(f"new: {modules(new)}")
    if unused:
        lines.append(f"left behind: {modules(unused)}")
    return lines
