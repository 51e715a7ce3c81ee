"""The texts and tables that golden cells read: small, the same every time, and never to be changed."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

SUBJECTS = ["the cat", "a dog", "my neighbour", "the old sailor", "that machine", "our teacher"]
VERBS = ["sees", "likes", "follows", "remembers", "forgets", "repairs"]
OBJECTS = ["the river", "a red house", "some music", "the long road", "two apples", "an idea", "the winter"]
ANSWERS = ["yes", "no", "perhaps"]


def sentence(draw: random.Random, objects: list[str] = OBJECTS) -> str:
    return f"{draw.choice(SUBJECTS).capitalize()} {draw.choice(VERBS)} {draw.choice(objects)} {draw.randrange(10)}."


def write_inputs(home: Path) -> None:
    """Every file that a cell names, in the folder that all cells run in."""
    draw = random.Random(0)
    documents = []
    for _ in range(60):
        favourite = draw.sample(OBJECTS, 3)
        documents.append("\n".join(sentence(draw, favourite) for _ in range(draw.randrange(4, 12))))
    _write(home / "docs.txt", "\n\n".join(documents))
    rows = [(sentence(draw), number % 3) for number in range(120)]
    rows = [(f"{text} {ANSWERS[label]}", label) for text, label in rows]
    _write(home / "rows.tsv", "\n".join(["text\tlabel", *(f"{text}\tclass {label}" for text, label in rows)]))
    _write(
        home / "pairs.tsv",
        "\n".join(["text\ttext_b\tlabel", *(f"{a}\t{b}\t{x}" for (a, x), (b, _) in pairwise(rows))]),
    )
    _write(home / "numbers.jsonl", "\n".join(json.dumps({"text": text, "label": x / 2 + 0.25}) for text, x in rows))
    _write(home / "classes.jsonl", "\n".join(json.dumps({"text": text, "label": ["a", "b"][:x]}) for text, x in rows))
    _write(home / "source.txt", "\n".join(text for text, _ in rows))
    _write(home / "target.txt", "\n".join(" ".join(reversed(text.lower().split())) for text, _ in rows))
    _write(home / "hub" / "train.jsonl", "\n".join(json.dumps({"text": text, "label": x}) for text, x in rows))
    lines = [sentence(draw) for _ in range(8)]
    _write(home / "lines.txt", "\n".join(lines))
    _write(home / "masks.txt", "\n".join(line.replace(line.split()[2], "[MASK]") for line in lines))
    _write(home / "prompts.txt", "\n".join(" ".join(line.split()[:2]) for line in lines))
    _write(home / "words.txt", "three hundred and five\ntwelve\nnine thousand and one\nseventy-seven")
    _write(home / "minimal.tsv", "\n".join(f"{line}\t{' '.join(reversed(line.split()))}" for line in lines))
    first = "mix=mlm, model.hidden=32, model.feed_forward=64, tokenizer.vocab_size=300"
    stages = f"stages:\n  first: [{first}]\n  second: [init_from=first, mix=mlm_nsp]"
    _write(home / "conf" / "recipe" / "two_stages.yaml", f"# @package _global_\n# Two stages\n{stages}")
    nbest = [
        {"id": str(number), "ref": line, "hyps": [{"text": text, "score": -1.0 * place} for place, text in enumerate(
            [" ".join(line.split()[:-1]), line, f"{line} again"])]}
        for number, line in enumerate(lines)
    ]  # fmt: skip
    _write(home / "nbest.jsonl", "\n".join(json.dumps(row) for row in nbest))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
