"""Shared parts of all trained tokenizers: special tokens, a bounded text sample, normalizers, the wrapped result.

They are trained on a sample of at most `enough` characters: memory and training time do not grow with the text (nor
with the number of distinct words), nor with the square of a word's length.

The same text and options give the same tokenizer, file for file, in every process. The trainers of the `tokenizers`
library iterate over hash maps with random seeds, so some of them number (and, on ties, choose) tokens differently from
run to run; each file here states how it prevents that.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from lmctl.core.errors import DataError, DiskError
from lmctl.core.progress import stage
from lmctl.core.signals import in_thread
from lmctl.core.text_parts import parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens, with ids 0 to 4."""

VERSION = 2
"""Version of the training code, part of every identity: increase it when the same text and options give another
tokenizer."""


CHARACTERS, CHARACTERS_PER_PIECE = 50_000_000, 4_000
"""Size of the sample: characters for a small vocabulary, and characters per token for a large one."""

LONGEST_PART = 10_000
"""Longest part in characters of a sentence that is sampled as a unit."""

LONGEST_WORD = 300
"""Longest word in bytes or characters in training; longer ones (text without spaces, DNA) are split. Divisible by 3,
because most characters of such text have 3 bytes."""


def identity_of(spec: Any) -> Mapping[str, Any]:
    """Class and options of a trained tokenizer."""
    return {"kind": type(spec).__name__, "version": VERSION, **dataclasses.asdict(spec)}


def check_sizes(vocab_size: int, min_frequency: int, smallest: int = 32) -> None:
    """ValueError unless both sizes are possible."""
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}, got {vocab_size}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be at least 1, got {min_frequency}")


class TextSample:
    """A stream of sentences buffered in a temporary file, so that it can be read several times without memory. Above
    `most` characters it is a random sample: it is halved repeatedly, by a hash of the sentence's number."""

    def __init__(self, file: TextIO, most: int) -> None:
        self._file, self.most = file, most
        self.seen = self.all = self.characters = 0
        """Number of sentences so far, their characters, and the characters kept."""
        self.level = 0
        """One of 2**level sentences is kept."""

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        characters = 0
        for line in self._file:
            lot, _, sentence = line.partition(" ")
            if int(lot) >= self.level:
                kept = json.loads(sentence)
                characters += len(kept)
                yield kept
        self.characters = characters

    def add(self, sentence: str) -> None:
        lot = _geometric_hash(self.seen)
        self.seen += 1
        self.all += len(sentence)
        if lot < self.level:
            return
        self._file.write(f"{lot} {json.dumps(sentence, ensure_ascii=False)}\n")  # it may contain line breaks
        self.characters += len(sentence)
        while self.characters > self.most:
            self._halve()

    def notes(self) -> list[str]:
        if not self.level:
            return []
        return [f"trained on a sample of {self.characters:,} of {self.all:,} characters"]

    def _halve(self) -> None:
        self.level += 1
        self.characters = 0
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as kept:
            self._file.seek(0)
            for line in self._file:
                if int(line[: line.index(" ")]) >= self.level:
                    kept.write(line)
                    self.characters += len(json.loads(line[line.index(" ") :]))
            kept.seek(0)
            self._file.seek(0)
            self._file.truncate()
            shutil.copyfileobj(kept, self._file)


def _geometric_hash(number: int) -> int:
    """Geometric hash of a number: 0 for half of all numbers, 1 for a quarter, 2 for an eighth, and so on, without a
    pattern."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & _WORD  # SplitMix64 (Steele, Lea and Flood 2014)
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _WORD
    mixed ^= mixed >> 31
    return (mixed & -mixed).bit_length() - 1 if mixed else 64


_WORD = (1 << 64) - 1


def enough(vocab_size: int) -> int:
    """Characters of text that suffice to train `vocab_size` tokens: more would change only the rarest ones."""
    return max(CHARACTERS, CHARACTERS_PER_PIECE * vocab_size)


def enough_different(vocab_size: int) -> int:
    """As `enough`, counted over distinct words."""
    return enough(vocab_size) * 2 // 25


@contextmanager
def reread(sentences: Iterable[str], most: int) -> Iterator[TextSample]:
    """Buffer a stream of sentences for repeated reading, sampled to `most` characters; DataError if there are none,
    DiskError if the disk is full."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        text = TextSample(file, most)
        for sentence in sentences:  # outside `try`: an OSError of the source is not one of the buffer
            try:
                for part in parts(sentence, LONGEST_PART):
                    text.add(part)
            except OSError as error:
                raise _no_room(error) from error
        try:
            file.flush()
        except OSError as error:
            raise _no_room(error) from error
        if text.seen == 0:
            raise DataError("there is no text to train the tokenizer on")
        with stage("tokenizer: training", 0, "characters"):
            yield text


def train(tokenizer: Tokenizer, text: Iterable[str], trainer: Any) -> None:
    """Run the trainer in a thread, so that a signal can interrupt it."""
    in_thread(lambda: tokenizer.train_from_iterator(text, trainer))


def with_words_up_to(
    pre_tokenizer: pre_tokenizers.PreTokenizer, longest: int, rest: str
) -> pre_tokenizers.PreTokenizer:
    """`pre_tokenizer` for training, with words longer than `longest` dropped (`rest` "removed") or split ("isolated"):
    a trainer's time grows with the square of a word's length."""
    pattern = rf"[\s\S]{{{longest + 1},}}" if rest == "removed" else rf"[\s\S]{{{longest}}}"
    return pre_tokenizers.Sequence([pre_tokenizer, pre_tokenizers.Split(Regex(pattern), rest)])


def _no_room(error: OSError) -> DiskError:
    reason = error.strerror or error
    return DiskError(f"no room for training text in {tempfile.gettempdir()}: {reason}", "set TMPDIR")


def words(tokenizer: Tokenizer, text: TextSample, most: int) -> list[str]:
    """The distinct words of `text`, normalised and pre-tokenised by `tokenizer`, most frequent first. If they could
    have more than `most` characters together, `text` is sampled down: memory and time of training depend on the
    distinct words."""
    every = text.level
    # Increasing samples: counting the words of the whole text takes as much memory as training on them.
    text.level += max(0, math.ceil(math.log2(max(1, text.characters) / most)))
    while True:
        found = _count(tokenizer, text)
        room = math.floor(math.log2(most / max(1, sum(map(len, found)))))
        if text.level == every or room < 1:
            return found
        text.level = max(every, text.level - room)


def fit(tokenizer: Tokenizer, text: TextSample, most: int) -> None:
    """Sample `text` down as `words` does, for a trainer that does not need the words."""
    if text.characters > most:
        words(tokenizer, text, most)


def _count(tokenizer: Tokenizer, text: TextSample) -> list[str]:
    counter = Tokenizer(models.WordLevel())
    counter.normalizer, counter.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    train(counter, text, trainers.WordLevelTrainer(vocab_size=1 << 30, show_progress=False))
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


ACCENTS = "\\u0300-\\u036f\\u1ab0-\\u1aff\\u1dc0-\\u1dff\\u20d0-\\u20ff\\ufe20-\\ufe2f"
"""Combining accents of any alphabet, as a regex character class. Marks of a single script are not included: without the
vowel signs of Hindi or Thai, or the voicing marks of kana, words change."""


_ACCENTED = re.compile(f"[^\\W\\d_][{ACCENTS}]")
_LOOK_AT, _MANY_ACCENTS = 1_000_000, 0.05
"""Sample size in letters; the share of accented letters that is exceeded in Vietnamese or Czech, but not in French or
German."""


def bert(lowercase: bool) -> normalizers.Normalizer:
    """BERT's normalizer; with `lowercase` it lowercases and strips accents, as in BERT's uncased models, but only true
    accents (see `ACCENTS`)."""
    plain = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    if not lowercase:
        return normalizers.Sequence([plain, normalizers.NFC()])
    accents = normalizers.Replace(Regex(f"[{ACCENTS}]"), "")
    return normalizers.Sequence([plain, normalizers.NFD(), accents, normalizers.NFC(), normalizers.Lowercase()])


def case(lowercase: bool) -> normalizers.Normalizer:
    """Normalizer: NFC composition, and lowercasing if `lowercase`."""
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)


def lost_accents(text: Iterable[str]) -> list[str]:
    """A note if lowercasing strips the accents of so many letters that the language needs them; reads the beginning of
    `text`."""
    letters = lost = 0
    example = ""
    for sentence in text:
        letters += sum(map(str.isalpha, sentence))
        if not sentence.isascii():
            found = _ACCENTED.findall(unicodedata.normalize("NFD", sentence))
            lost, example = lost + len(found), example or next(iter(found), "")
        if letters > _LOOK_AT:
            break
    if lost <= _MANY_ACCENTS * letters:
        return []
    whole = unicodedata.normalize("NFC", example)
    what = f"{lost / letters:.0%} of the letters ({whole} becomes {example[0].lower()})"
    return [f"lower-casing takes the accents of {what}: tokenizer.lowercase=false keeps them"]


def finish(tokenizer: Tokenizer, text: TextSample | None = None, notes: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Add the special tokens and BERT's template for one text or two, and wrap it for transformers. `notes`, and the
    statistics of `text`, are stored as `lmctl_notes`."""
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
        **({"lmctl_notes": every} if (every := [*(text.notes() if text else ()), *notes]) else {}),
    )
