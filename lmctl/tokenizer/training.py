"""What all trained tokenizers share: the special pieces, a text that can be read twice, and the finished object.

However much text there is, they are trained on what `enough` characters of it hold: memory and time of training do not
grow with the text (nor with the number of its different words), nor with the square of a word's length.

The same text and options give the same tokenizer, file for file, in every process. The trainers of the
`tokenizers` library iterate over hash maps with random seeds, so some of them number (and, on ties, choose)
pieces differently from run to run; each kind here says how it prevents that.
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
from lmctl.core.signals import apart
from lmctl.core.text_parts import parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special pieces, with ids 0 to 4."""

VERSION = 2
"""Part of every identity: raise it when the same text and options begin to give another tokenizer."""


CHARACTERS, CHARACTERS_PER_PIECE = 50_000_000, 4_000
"""Of text, for a small vocabulary, and for each piece of a large one."""

LONGEST_PART = 10_000
"""Characters of a sentence that are sampled together."""

LONGEST_WORD = 300
"""Bytes or characters of a word in training; longer ones (text without spaces, DNA) are cut. Divisible by 3, as most
characters of such text are bytes."""


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
    """Sentences that can be read any number of times, kept in a temporary file and not in memory. Of more than `most`
    characters it is a sample: whenever there are too many, half of the sentences go, by a lot that depends on their
    number only."""

    def __init__(self, file: TextIO, most: int) -> None:
        self._file, self.most = file, most
        self.seen = self.all = self.characters = 0
        """Sentences so far, their characters, and those of the ones that are kept."""
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
        lot = _lot(self.seen)
        self.seen += 1
        self.all += len(sentence)
        if lot < self.level:
            return
        self._file.write(f"{lot} {json.dumps(sentence, ensure_ascii=False)}\n")  # it may hold line breaks
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


def _lot(number: int) -> int:
    """0 for half of all numbers, 1 for a quarter, 2 for an eighth, and so on, without any pattern."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & _WORD  # SplitMix64 (Steele, Lea and Flood 2014)
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _WORD
    mixed ^= mixed >> 31
    return (mixed & -mixed).bit_length() - 1 if mixed else 64


_WORD = (1 << 64) - 1


def enough(vocab_size: int) -> int:
    """Characters from which so many pieces can be chosen: more would change which of the rarest ones are taken."""
    return max(CHARACTERS, CHARACTERS_PER_PIECE * vocab_size)


def enough_different(vocab_size: int) -> int:
    """The same, of words that are all different."""
    return enough(vocab_size) * 2 // 25


@contextmanager
def reread(sentences: Iterable[str], most: int) -> Iterator[Text]:
    """Make a stream of sentences readable again, `most` characters of it; DataError if there are none, DiskError if
    there is no room."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        text = Text(file, most)
        for sentence in sentences:  # outside of the clause: an error of whoever reads them is not the file's
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
    """Train where a signal can interrupt."""
    apart(lambda: tokenizer.train_from_iterator(text, trainer))


def with_words_up_to(
    pre_tokenizer: pre_tokenizers.PreTokenizer, longest: int, rest: str
) -> pre_tokenizers.PreTokenizer:
    """For training: `pre_tokenizer`, and words longer than `longest` are left out (`rest` "removed") or cut into such
    ("isolated"). A trainer's time grows with the square of a word's length."""
    pattern = rf"[\s\S]{{{longest + 1},}}" if rest == "removed" else rf"[\s\S]{{{longest}}}"
    return pre_tokenizers.Sequence([pre_tokenizer, pre_tokenizers.Split(Regex(pattern), rest)])


def _no_room(error: OSError) -> DiskError:
    reason = error.strerror or error
    return DiskError(f"no room for training text in {tempfile.gettempdir()}: {reason}", "set TMPDIR")


def words(tokenizer: Tokenizer, text: Text, most: int) -> list[str]:
    """The different words of `text` as `tokenizer` normalises and separates them, the most frequent first. If they may
    have more than `most` characters altogether, `text` becomes a smaller sample of itself: memory and time of training
    are those of its different words."""
    every = text.level
    # From below: to count the words of all of it takes as much memory as training on them.
    text.level += max(0, math.ceil(math.log2(max(1, text.characters) / most)))
    while True:
        found = _count(tokenizer, text)
        room = math.floor(math.log2(most / max(1, sum(map(len, found)))))
        if text.level == every or room < 1:
            return found
        text.level = max(every, text.level - room)


def fit(tokenizer: Tokenizer, text: Text, most: int) -> None:
    """Make `text` a smaller sample, as `words` does, for a trainer that need not know the words."""
    if text.characters > most:
        words(tokenizer, text, most)


def _count(tokenizer: Tokenizer, text: Text) -> list[str]:
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
"""Combining marks that sit on letters of any alphabet, as a class of regular expressions. Marks of one script only are
no accents: without the vowel signs of Hindi or Thai, or the voicing of kana, words are other words."""


_ACCENTED = re.compile(f"[^\\W\\d_][{ACCENTS}]")
_LOOK_AT, _MANY_ACCENTS = 1_000_000, 0.05
"""Letters of a text; the share of them that has accents in Vietnamese or Czech, but not in French or German."""


def bert(lowercase: bool) -> normalizers.Normalizer:
    """BERT's cleaning; with `lowercase` capitals become small letters and lose their accents, as in its uncased models,
    but only what is one (see `ACCENTS`)."""
    plain = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    if not lowercase:
        return normalizers.Sequence([plain, normalizers.NFC()])
    accents = normalizers.Replace(Regex(f"[{ACCENTS}]"), "")
    return normalizers.Sequence([plain, normalizers.NFD(), accents, normalizers.NFC(), normalizers.Lowercase()])


def case(lowercase: bool) -> normalizers.Normalizer:
    """Compose characters, and lower the case if asked to."""
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)


def lost_accents(text: Iterable[str]) -> list[str]:
    """A note if lower-casing takes the accents of so many letters that the language needs them; looks at the
    beginning of `text`."""
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


def finish(tokenizer: Tokenizer, text: Text | None = None, notes: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Add the special pieces, BERT's frame around one text or two, and wrap it for transformers. `notes`, and what
    `text` was, are kept with it as `lmctl_notes`."""
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
