"""What all trained tokenizers share: the special pieces, a text that can be read twice, and the finished object.

The same text and options give the same tokenizer, file for file, in every process. The trainers of the
`tokenizers` library iterate over hash maps with random seeds, so some of them number (and, on ties, choose)
pieces differently from run to run; each kind here says how it prevents that.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tokenizers import AddedToken, Tokenizer, models, normalizers, processors, trainers

from lmctl.core.errors import DataError, DiskError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special pieces, with ids 0 to 4."""

VERSION = 1
"""Part of every identity: raise it when the same text and options begin to give another tokenizer."""


def identity_of(spec: Any) -> Mapping[str, Any]:
    """The kind and the options of a tokenizer that is trained."""
    return {"kind": type(spec).__name__, "version": VERSION, **dataclasses.asdict(spec)}


def check_sizes(vocab_size: int, min_frequency: int, smallest: int = 32) -> None:
    """ValueError unless both can be met."""
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}, got {vocab_size}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be at least 1, got {min_frequency}")


class Text:
    """Sentences that can be read any number of times, kept in a temporary file and not in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)


@contextmanager
def reread(sentences: Iterable[str]) -> Iterator[Text]:
    """Make a stream of sentences readable again; DataError if there are none, DiskError if there is no room."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        for sentence in sentences:  # outside of the clause: an error of whoever reads them is not the file's
            try:
                file.write(json.dumps(sentence, ensure_ascii=False) + "\n")  # it may hold line breaks
            except OSError as error:
                raise _no_room(error) from error
        try:
            file.flush()
        except OSError as error:
            raise _no_room(error) from error
        if file.tell() == 0:
            raise DataError("there is no text to train the tokenizer on")
        yield Text(file)


def _no_room(error: OSError) -> DiskError:
    reason = error.strerror or error
    return DiskError(f"no room for training text in {tempfile.gettempdir()}: {reason}", "set TMPDIR")


def words(tokenizer: Tokenizer, text: Iterable[str]) -> list[str]:
    """The different words of `text` as `tokenizer` normalises and separates them, the most frequent first."""
    counter = Tokenizer(models.WordLevel())
    counter.normalizer, counter.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    counter.train_from_iterator(text, trainers.WordLevelTrainer(vocab_size=1 << 30, show_progress=False))
    numbered = counter.get_vocab(with_added_tokens=False)
    return sorted(numbered, key=numbered.__getitem__)


def alphabet(words: Iterable[str], most: int) -> list[str]:
    """At most `most` characters, those of the most frequent words, sorted."""
    characters: dict[str, None] = {}
    for word in words:
        characters.update(dict.fromkeys(word))
        if len(characters) >= most:
            break
    return sorted(list(characters)[:most])


def case(lowercase: bool) -> normalizers.Normalizer:
    """Compose characters, and lower the case if asked to."""
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)


def finish(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Add the special pieces, BERT's frame around one text or two, and wrap it for transformers."""
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(piece, SPECIAL.index(piece)) for piece in (CLS, SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
