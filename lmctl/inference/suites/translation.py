"""`suite=translation`: BLEU (Papineni et al. 2002) and chrF (Popovic 2015) of beam search, by sacreBLEU.

sacreBLEU's statistics are summed row by row, in constant memory; the scores are those of its `corpus_score`. Chinese
references are tokenised by character.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, tee

import numpy as np

from lmctl.core.batch import Row
from lmctl.core.files import disk_error
from lmctl.core.typing_errors import CHINESE
from lmctl.inference.decode import translate
from lmctl.inference.suites.job import Figures, SuiteJob, nothing

HYPOTHESES = "hypotheses{}.txt"
_SAMPLE = 100


def evaluate(job: SuiteJob) -> Figures:
    """BLEU, chrF and their signatures; the translations are written to `hypotheses.txt`, one line each."""
    config, rows = job.config, 0
    sources, references = tee(job.rows())
    lines = (" ".join(row.texts[0].split()) for row in sources)
    hypotheses = translate(job.loaded, lines, config.batch, config.beams, config.length_penalty, config.max_new_tokens)
    sums = CorpusScores(_tokenisation(job.rows()))
    path = job.folder / HYPOTHESES.format(job.mark)
    try:
        with open(path, "w", encoding="utf-8") as file:
            for hypothesis, row in zip(hypotheses, references, strict=True):
                file.write(hypothesis + "\n")
                sums.add(hypothesis, row.texts[1])
                rows += 1
    except OSError as error:
        raise disk_error(path, error) from error
    if not rows:
        raise nothing("translation")
    return {**sums.figures(), "rows": rows, "hypotheses": str(path)}


class CorpusScores:
    """Corpus BLEU and chrF of a stream of pairs."""

    def __init__(self, tokenize: str) -> None:
        from sacrebleu.metrics import BLEU, CHRF

        self.metrics = {"bleu": BLEU(tokenize=tokenize, force=True), "chrf": CHRF()}
        self.sums: dict[str, np.ndarray] = {}

    def add(self, hypothesis: str, reference: str) -> None:
        for name, metric in self.metrics.items():
            [statistics] = metric._extract_corpus_statistics([hypothesis], [[reference]])
            line = np.array(statistics)
            self.sums[name] = self.sums[name] + line if name in self.sums else line

    def figures(self) -> Figures:
        """The scores, 0 to 100, and sacreBLEU's signatures."""
        figures: Figures = {}
        for name, metric in self.metrics.items():
            figures[name] = float(metric._compute_score_from_stats(self.sums[name].tolist()).score)
            figures[f"{name}_signature"] = str(metric.get_signature())
        return figures


def _tokenisation(rows: Iterator[Row]) -> str:
    """sacreBLEU's tokenizer: `zh` if most of the first references are Chinese, else its default `13a`."""
    texts = [row.texts[1] for row in islice(rows, _SAMPLE)]
    chinese = sum(bool(CHINESE.search(text)) for text in texts)
    return "zh" if chinese * 2 > len(texts) else "13a"
