"""Dropout from a counter reaches every dropout of a network, whoever computes it, but that within attention."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModel

from lmctl.model.counter_dropout import use_counter_dropout
from lmctl.model.rnn.language_model import RecurrentLMConfig, RecurrentLMForCausalLM
from lmctl.model.rnn.seq2seq import RecurrentForConditionalGeneration, RecurrentSeq2SeqConfig

BERT = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "attention_probs_dropout_prob": 0.0,
    "embedding_size": 8,
}
BART = {
    **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in (("layers", 1), ("ffn_dim", 32))},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    "d_model": 16,
    "attention_dropout": 0.0,
    "activation_dropout": 0.1,
}
SIZES: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "roberta": BERT,
    "electra": BERT,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "attention_dropout": 0.0},
    "modernbert": BERT | {"embedding_dropout": 0.1, "mlp_dropout": 0.1},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "attn_pdrop": 0.0},
    "bart": BART,
    "marian": BART,
    "opt": BERT | {"ffn_dim": 32, "word_embed_proj_dim": 16},
}
"""transformers' models, by their types."""
OURS: dict[str, Any] = {
    "lstm": lambda: RecurrentLMForCausalLM(RecurrentLMConfig(100, hidden_size=16, weight_drop=0.3)),
    "rnn_mt": lambda: RecurrentForConditionalGeneration(RecurrentSeq2SeqConfig(100)),
}


def made(name: str) -> Any:
    torch.manual_seed(1)
    if name in OURS:
        return OURS[name]().train()
    config = AutoConfig.for_model(name, vocab_size=100, pad_token_id=0, **SIZES[name])
    return AutoModel.from_config(config).train()


class Drawn(TorchDispatchMode):
    """Counts torch's own dropout masks."""

    def __init__(self) -> None:
        super().__init__()
        self.masks = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.masks += func._schema.name == "aten::bernoulli_"
        return func(*args, **(kwargs or {}))


def outputs(model: nn.Module, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    ids = torch.arange(3, 27).view(2, 12)
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    return model(input_ids=ids, **more)[0]


@pytest.mark.parametrize("name", [*SIZES, *OURS])
def test_no_mask_of_torchs_is_left(name: str):
    model = made(name)
    with Drawn() as before:
        outputs(model)
    answers = outputs(model.eval())
    names = list(model.state_dict())
    use_counter_dropout(model.train())
    with Drawn() as after:
        one = outputs(model)
    assert (before.masks > 0 or name == "lstm", after.masks) == (True, 0)
    assert torch.equal(outputs(model), one)
    assert not torch.equal(outputs(model, seed=2), one)
    assert torch.equal(outputs(copy.deepcopy(model)), one)
    assert torch.equal(outputs(model.eval()), answers)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("name", ["bert", "marian"])
def test_layers_that_are_recomputed_drop_the_same(name: str):
    model = made(name)
    use_counter_dropout(model)
    gradients = []
    for recomputes in (False, True):
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        outputs(model).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_layer_that_fails_leaves_the_functions_of_others_alone():
    model = made("marian")
    use_counter_dropout(model)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 4), 1000), decoder_input_ids=torch.ones(1, 4, dtype=torch.int64))
    assert not torch._C._is_torch_function_mode_enabled()
