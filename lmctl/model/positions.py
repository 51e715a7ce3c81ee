"""Maximum sequence length of an architecture, read from the network's position embedding tables.

Some architectures start counting after the id of the padding token (RoBERTa and its relatives), some at row 2 of the
table (OPT, BART), some have relative positions and accept any length (T5, BLOOM). A list of architectures would never
be complete; the tables are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_TABLE = re.compile(r"pos|^wpe$")
"""Matches names of position embedding tables; relative positions (`relative_...`, `rel_...`) do not count."""


def positions(network: nn.Module, config: Any) -> int | None:
    """The longest row that `network`, with this transformers config, accepts; None: any. It may be on torch's meta
    device: no weight is read."""
    found = [rows for name, module in network.named_modules() if (rows := _table_rows(name.rpartition(".")[2], module))]
    configured = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(configured, int) and configured > 0:
        found.append(configured)
    return min(found, default=None)


def outlined_positions(config: Any) -> int | None:
    """As `positions`, for a config, without weights."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        return positions(AutoModel.from_config(config), config)


def _table_rows(name: str, module: Any) -> int | None:
    """Usable rows of a position embedding table; None for any other module."""
    from torch import nn

    is_table = isinstance(module, nn.Embedding) or hasattr(module, "padding_idx")
    if not is_table or not _TABLE.search(name) or "rel" in name or getattr(module, "weight", None) is None:
        return None
    first = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
    return int(module.weight.shape[0]) - int(first)
