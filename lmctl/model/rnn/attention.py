"""Attention of a recurrent decoder over its source: additive or general (multiplicative).

Both return a context vector: the mean of the source's states weighted by a softmax of scores. The keys, which depend on
the source alone, are computed once per source, not once per target position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DecoderAttention(nn.Module):
    """Base class: everything but the scores."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.key_projection = nn.Linear(source, width, bias=False)

    def keys(self, source: Tensor) -> Tensor:
        """Keys [R, L, H] of the source's states [R, L, S]."""
        return self.key_projection(source)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores [R, L] of queries [R, H]."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor, source: Tensor, padding: Tensor | None) -> Tensor:
        """Context [R, S] of each query [R, H]; `padding` bool [R, L] is true at padding of the source."""
        scores = self.scores(query, keys).float()
        if padding is not None:
            scores = scores.masked_fill(padding, float("-inf"))
        return torch.bmm(scores.softmax(dim=1).to(source.dtype)[:, None], source).squeeze(1)


class AdditiveAttention(DecoderAttention):
    """score(s, h) = v . tanh(W s + U h) (Bahdanau et al. 2015, appendix A.1.2)."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__(width, source)
        self.query_projection = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.score(torch.tanh(keys + self.query_projection(query)[:, None])).squeeze(-1)


class GeneralAttention(DecoderAttention):
    """score(s, h) = s . W h (Luong et al. 2015, section 3.1, "general")."""

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(keys, query[..., None]).squeeze(-1)
