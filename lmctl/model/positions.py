"""How long a row may be for an architecture, asked of the network itself: its tables of positions, wherever they are.

Some architectures begin to count behind the number of their padding (all of RoBERTa's kind), some two rows into their
table (OPT, BART), some know distances only and take rows of any length (T5, BLOOM). Lists of their names are never
complete; their tables say it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_TABLE = re.compile(r"pos|^wpe$")
"""In the names of tables with a vector per position; distances (`relative_...`, `rel_...`) are something else."""


def positions(network: nn.Module, config: Any) -> int | None:
    """The longest row that `network`, whose transformers config this is, takes; None: any. It may be on torch's meta
    device: no weight is read."""
    found = [rows for name, module in network.named_modules() if (rows := _rows(name.rpartition(".")[2], module))]
    said = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(said, int) and said > 0:
        found.append(said)
    return min(found, default=None)


def outlined_positions(config: Any) -> int | None:
    """The same of an architecture without weights."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        return positions(AutoModel.from_config(config), config)


def _rows(name: str, module: Any) -> int | None:
    """Rows of a table of positions that can be used; None for any other module."""
    from torch import nn

    is_table = isinstance(module, nn.Embedding) or hasattr(module, "padding_idx")
    if not is_table or not _TABLE.search(name) or "rel" in name or getattr(module, "weight", None) is None:
        return None
    first = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
    return int(module.weight.shape[0]) - int(first)
