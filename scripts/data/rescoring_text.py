"""Text for recipe=rescoring: one lower-case sentence a line, as a speech recogniser writes, without punctuation.

    python scripts/data/rescoring_text.py data/docs_en/*train*.gz data/docs_en/us*.gz > data/rescoring.txt

Reads files with one sentence a line, plain or .gz. Everything but letters and apostrophes is left out, rare words that
the corpus has replaced (`<unk>`) as well; a line of a single word is none.
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

NOT_A_LETTER = re.compile(r"[^a-z' ]+")


def main(files: list[str]) -> None:
    for file in map(Path, files):
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                words = NOT_A_LETTER.sub(" ", line.lower().replace("<unk>", " ").replace("@-@", " ")).split()
                if len(words) > 1:
                    print(" ".join(words))


if __name__ == "__main__":
    main(sys.argv[1:])
