"""GPT-2's GELU as one operation gives what transformers' eight do."""

from __future__ import annotations

import copy

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import NewGELUActivation

from lmctl.model.fused_gelu import fuse_gelus


def test_logits_and_gradients_stay_the_same_to_float_precision():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2)).eval()
    fused = copy.deepcopy(model)
    fuse_gelus(fused)
    assert any(isinstance(module, NewGELUActivation) for module in model.modules())
    assert not any(isinstance(module, NewGELUActivation) for module in fused.modules())
    ids = torch.randint(50, (2, 16))
    whole, one = (network(ids, labels=ids) for network in (model, fused))
    torch.testing.assert_close(one.logits, whole.logits)
    expected = torch.autograd.grad(whole.loss, list(model.parameters()))
    torch.testing.assert_close(torch.autograd.grad(one.loss, list(fused.parameters())), expected)
