"""Reading the `Vocabulary` from any fast tokenizer: special ids and word boundaries."""

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
    """Size, special ids and word boundaries. A decoder's tokenizer has one end-of-text token that also starts texts
    and, without a padding token, pads; ConfigError if it has not even that."""
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
    special = np.ones(size, dtype=bool)  # Ids without a token must not be drawn either.
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
        unk=_first(tokenizer.unk_token_id, pad),  # Byte-level vocabularies have no unknown token.
        special=special,
        continues=continues & ~special,
        sentinels=np.array(sentinels, dtype=np.int64),
    )


def _first(*ids: int | None) -> Any:
    return next((i for i in ids if i is not None), None)


def content_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 (64 hex digits) of everything that affects encoding, whatever the tokenizer's origin."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # Truncation and padding only store the arguments of the last call.
    del content["padding"], content["truncation"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _continuing(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the tokens that continue the word of the token before them."""
    pieces = tokenizer.get_vocab()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] == "WordLevel":
        return []
    if prefix := model.get("continuing_subword_prefix"):
        return [i for piece, i in pieces.items() if piece.startswith(prefix)]
    # Other vocabularies mark the start of a word, by their own character for a space.
    space = max(_SPACES, key=lambda sign: sum(piece.startswith(sign) for piece in pieces))
    inside = _inside_bytes if space == "Ġ" else _inside_text
    return [i for piece, i in pieces.items() if not piece.startswith(space) and inside(piece)]


def _inside_text(piece: str) -> bool:
    """Whether a token without a leading space continues a word: punctuation and Chinese characters are words of their
    own."""
    return piece[:1].isalnum() and not "\u2e80" <= piece[0] <= "\u9fff"


def _inside_bytes(piece: str) -> bool:
    """As `_inside_text` for a byte-level token: ASCII characters, and other UTF-8 bytes by their value."""
    first = ord(piece[0]) if piece else 0
    if first < 0x80:
        return piece[:1].isalnum()
    return not 0xE2 <= first <= 0xF0  # These are first bytes of Chinese characters and typographic marks.
