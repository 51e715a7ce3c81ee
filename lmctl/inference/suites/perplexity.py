"""`suite=perplexity`: perplexity of a causal language model, per token, word and byte.

Every token of every document is predicted once, and the end token after it. Per-word and per-byte figures divide the
same nats by counts that do not depend on the tokenizer: words between white space (Chinese characters are words), bytes
of UTF-8 of the raw text, including those between sentences. With ends counted as words, the figure per word is that of
the published tables of WikiText-2 (Merity et al. 2017), whose `<eos>` is a word: for a model trained to predict line
ends (`clm_stream` with `end_of: sentence`) on `data.layout=verbatim`, or where lines are documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from lmctl.core.batch import whole_text
from lmctl.core.typing_errors import words
from lmctl.inference.likelihood import carried, causal, scored
from lmctl.inference.stride_windows import joined, windows
from lmctl.inference.suites.job import Figures, SuiteJob, nothing

WORDS = "white-space separated, each Chinese character one; ends are predicted but not counted"


def evaluate(job: SuiteJob) -> Figures:
    """Loss in nats per token, and perplexities."""
    loaded, length = job.loaded, job.length
    stride = min(job.config.stride or max(1, length // 2), length)
    count = {"documents": 0, "words": 0, "bytes": 0, "ends": 0}

    def documents() -> Iterator[list[int]]:
        for row in job.rows():
            count["documents"] += 1
            count["ends"] += len(row.texts) if loaded.ends_sentences else 1
            count["words"] += sum(len(words(sentence)) for sentence in row.texts)
            count["bytes"] += len(whole_text(row.texts).encode())
            yield loaded.document(row.texts)

    stream = loaded.carries_state if job.config.stream is None else job.config.stream
    if not stream:
        scores = causal(loaded, documents(), job.config.batch, length, stride)
    elif loaded.carries_state:
        stride = length  # The recurrent state is the context.
        scores = carried(loaded, windows(joined(documents(), loaded.begin, loaded.end), length, length))
    else:
        cut = windows(joined(documents(), loaded.begin, loaded.end), length, stride)
        scores = (line for _, line in scored(loaded, cut, job.config.batch))
    nats, tokens = 0.0, 0
    for line in scores:
        nats -= float(line.sum())
        tokens += len(line)
    if not count["documents"]:
        raise nothing("perplexity")
    return {
        "loss": nats / tokens,
        "perplexity_per_token": math.exp(nats / tokens),
        "perplexity_per_word": _perplexity(nats, count["words"]),
        "perplexity_per_word_and_end": _perplexity(nats, count["words"] + count["ends"]),
        "bits_per_byte": nats / math.log(2) / max(1, count["bytes"]),
        "tokens": tokens,
        **count,
        "words_are": WORDS,
        "context": _context(stream, loaded.carries_state, length, stride),
    }


def _perplexity(nats: float, count: int) -> float:
    """exp(nats / count); infinity on overflow."""
    return math.exp(rate) if (rate := nats / max(1, count)) < 700 else math.inf


def _context(stream: bool, state: bool, length: int, stride: int) -> str:
    if stream and state:
        return "all text before, by the state carried on"
    what = "one stream of all documents" if stream else "each document by itself"
    return f"{what}, windows of {length} moved on by {stride}"
