"""How a recurrent decoder looks at its source, in two ways.

Both give a context: the mean of the source's states, weighted by a softmax of scores. What they compute from the
source alone, the keys, is computed once per source and not once per position of the target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """What both have in common: all but the scores."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.key_projection = nn.Linear(source, width, bias=False)

    def keys(self, source: Tensor) -> Tensor:
        """What scores need of the source's states [R, L, S]: [R, L, H]."""
        return self.key_projection(source)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """[R, L] of queries [R, H]."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor, source: Tensor, padding: Tensor | None) -> Tensor:
        """The context [R, S] of each query [R, H]; `padding` bool [R, L] is true where the source has none."""
        scores = self.scores(query, keys).float()
        if padding is not None:
            scores = scores.masked_fill(padding, float("-inf"))
        return torch.bmm(scores.softmax(dim=1).to(source.dtype)[:, None], source).squeeze(1)


class AdditiveAttention(Attention):
    """score(s, h) = v . tanh(W s + U h) (Bahdanau et al. 2015, appendix A.1.2)."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__(width, source)
        self.query_projection = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.score(torch.tanh(keys + self.query_projection(query)[:, None])).squeeze(-1)


class GeneralAttention(Attention):
    """score(s, h) = s . W h (Luong et al. 2015, section 3.1, "general")."""

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(keys, query[..., None]).squeeze(-1)
