"""From a tokenizer of any origin to what the rest of lmctl knows of it."""

from __future__ import annotations

import hashlib
import json
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import NO_PIECE, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SPACES = {"Ġ": "byte-level", "▁": "metaspace"}


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """Size, special ids and word boundaries. A decoder's tokenizer has one piece that ends texts and begins them,
    and pads with it if it has no other; ConfigError if there is not even that."""
    own = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep", "mask", "bos", "eos")}
    sep = _first(own["sep"], own["eos"])
    if sep is None:
        raise ConfigError(
            "the tokenizer has no sep or eos token, so nothing says where a text ends",
            "take the tokenizer of a language model, or train one: tokenizer=wordpiece",
        )
    cls, pad = _first(own["cls"], own["bos"], sep), _first(own["pad"], sep)
    pieces = tokenizer.get_vocab()
    size = max(pieces.values()) + 1
    special = np.ones(size, dtype=bool)  # Ids without a piece must not be drawn either.
    special[list(pieces.values())] = False
    special[[i for i, added in tokenizer.added_tokens_decoder.items() if added.special]] = True
    special[tokenizer.all_special_ids] = True
    continues = np.zeros(size, dtype=bool)
    continues[_continuing(tokenizer)] = True
    sentinels = list(takewhile(lambda i: i is not None, (pieces.get(f"<extra_id_{n}>") for n in range(len(pieces)))))
    return Vocabulary(
        size=size,
        pad=pad,
        cls=cls,
        sep=sep,
        mask=_first(own["mask"], NO_PIECE),
        unk=_first(tokenizer.unk_token_id, pad),  # Byte-level vocabularies need none.
        special=special,
        continues=continues & ~special,
        sentinels=np.array(sentinels, dtype=np.int64),
    )


def _first(*ids: int | None) -> Any:
    return next((i for i in ids if i is not None), None)


def content_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """64 hex digits of all that decides how text is encoded, however the tokenizer came about."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two only remember the last call.
    del content["padding"], content["truncation"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _continuing(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the pieces that belong to the word of the piece before them."""
    pieces = tokenizer.get_vocab()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] == "WordLevel":
        return []
    if prefix := model.get("continuing_subword_prefix"):
        return [i for piece, i in pieces.items() if piece.startswith(prefix)]
    # Elsewhere the beginning of a word is marked, by whichever sign for a space this vocabulary uses.
    space = max(_SPACES, key=lambda sign: sum(piece.startswith(sign) for piece in pieces))
    inside = _inside_bytes if space == "Ġ" else _inside_text
    return [i for piece, i in pieces.items() if not piece.startswith(space) and inside(piece)]


def _inside_text(piece: str) -> bool:
    """Punctuation and Chinese characters stand for themselves; letters without a space before them go on."""
    return piece[:1].isalnum() and not "\u2e80" <= piece[0] <= "\u9fff"


def _inside_bytes(piece: str) -> bool:
    """The same for a piece whose characters stand for bytes: ASCII for itself, the rest of UTF-8 by its number."""
    first = ord(piece[0]) if piece else 0
    if first < 0x80:
        return piece[:1].isalnum()
    return not 0xE2 <= first <= 0xF0  # These bytes begin Chinese characters and typographic marks.
