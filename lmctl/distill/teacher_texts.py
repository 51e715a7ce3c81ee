"""Sequence-level distillation: generation of the teacher's texts, once, into the cache (`distill=sequence`).

Texts are generated in blocks, each a cache entry of its own, so that an interrupted generation continues. All texts
together are one file and one entry, which every job of a sweep finds by teacher, data and generation settings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lmctl.core.batch import Row
from lmctl.core.cache import cached, root_of
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, Stopped
from lmctl.core.signals import Interrupted
from lmctl.data.base import Source
from lmctl.data.file_status import check_unchanged
from lmctl.data.teacher_written import Written
from lmctl.distill.teacher import fingerprint
from lmctl.distill.texts import TeacherTexts
from lmctl.inference.decode import go_on, translate
from lmctl.inference.length_batches import in_pools
from lmctl.inference.load import Loaded, load
from lmctl.plan import Plan
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.tokenizer.vocabulary import content_fingerprint

KIND = "texts"
FORMAT = 2
"""Format version, part of every key: raise it when the same settings would give other texts."""
BLOCK = 1000
"""Number of rows per block."""


def with_texts(plan: Plan, say: Callable[[str], None]) -> Plan:
    """`plan` with the texts of its teacher as data, if `distill.terms` has a term that trains on them."""
    how = next((term for term in plan.distill.terms.values() if isinstance(term, TeacherTexts)), None)
    if how is None:
        return plan
    model, root = plan.teachers[0], root_of(plan.cache_dir)
    tokenizer = Pretrained(model.init_from).obtain(iter(()))
    teacher = {"weights": fingerprint(model), "tokenizer": content_fingerprint(tokenizer)}
    loaded: list[Loaded] = []

    def once() -> Loaded:
        if not loaded:
            loaded.append(load(model.place, plan.runner))
        return loaded[0]

    tasks = {
        name: replace(task, data=written(root, task.data, how, teacher, plan.seed, once, say))
        for name, task in plan.mix.tasks.items()
    }
    return replace(plan, mix=replace(plan.mix, tasks=tasks))


def written(
    root: Path,
    source: Source,
    how: TeacherTexts,
    teacher: Mapping[str, Any],
    seed: int,
    open_teacher: Callable[[], Loaded],
    say: Callable[[str], None],
) -> Written:
    """`source` with the teacher's texts for training, generated or found in the cache `root`. `teacher`: the teacher's
    part of the key; `open_teacher` loads it if texts must be generated. A signal ends it at once, with `Stopped` if
    blocks of texts are kept."""
    if source.streamed:
        raise ConfigError(
            "distill=sequence writes all texts before training, and this source is streamed", "data.streaming=false"
        )
    before = source.state()
    by = {"format": FORMAT, "teacher": dict(teacher), "how": asdict(how), "seed": seed}
    key = by | {"text": dict(source.fingerprint())}

    def make(folder: Path) -> None:
        with open(folder / "texts.jsonl", "wb") as whole:
            for number, block in enumerate(in_pools(source.rows("train"), BLOCK)):
                try:
                    part, hit = cached(
                        root,
                        f"{KIND}-blocks",
                        key | {"block": number},
                        lambda folder: _write(folder, block, number),  # noqa: B023
                        Path,
                        say,
                    )
                except Interrupted as signal:
                    if not number:
                        raise
                    raise Stopped(
                        f"{signal.name} while the teacher was writing; {number * BLOCK:,} rows are kept",
                        "run the same command again",
                    ) from None
                with open(part / "texts.jsonl", "rb") as done:
                    shutil.copyfileobj(done, whole)
                if not hit:
                    say(f"teacher: {(number * BLOCK) + len(block):,} rows written")

    def _write(folder: Path, block: list[Row], number: int) -> None:
        import torch

        loaded = open_teacher()
        torch.manual_seed(int(CounterRng(seed, "teacher's texts").generator(0, number).integers(1 << 63)))
        with open(folder / "texts.jsonl", "w", encoding="utf-8") as out:
            for texts in _texts(loaded, source.yields, block, how):
                out.write(json.dumps(texts, ensure_ascii=False) + "\n")
        check_unchanged(before, source.state())

    folder, hit = cached(root, KIND, key, make, Path, say)
    say(f"teacher's texts: cache {'hit' if hit else 'miss: written'}")
    return Written(source, folder / "texts.jsonl", by)


def _texts(loaded: Loaded, kind: str, rows: list[Row], how: TeacherTexts) -> Iterator[list[str]]:
    if kind == "parallel":
        yield from _translations(loaded, rows, how)
    else:
        yield from _continuations(loaded, rows, how)


def _translations(loaded: Loaded, rows: list[Row], how: TeacherTexts) -> Iterator[list[str]]:
    """Each source text with the teacher's translation, or with the data's if the teacher's is empty."""
    sources = [row.texts[0] for row in rows]
    answers = translate(loaded, sources, how.rows, how.beams, how.length_penalty, how.max_new_tokens)
    for row, answer in zip(rows, answers, strict=True):
        yield [row.texts[0], answer or row.texts[1]]


def _continuations(loaded: Loaded, rows: Iterable[Row], how: TeacherTexts) -> Iterator[list[str]]:
    """Each stretch of a document as a document of its own: its beginning, then the teacher's continuation."""
    longest = loaded.row(how.length)
    if how.prompt >= longest:
        raise ConfigError(
            f"distill.terms.sequence.prompt={how.prompt} fills all {longest} positions of the teacher",
            f"nearest: {max(1, longest // 2)}",
        )
    prompts = []
    for row in rows:
        pieces = loaded.document(row.texts)
        for start in range(0, len(pieces), longest):
            stretch = pieces[start : start + how.prompt]
            if len(stretch) < how.prompt and start:
                continue  # the rest of a document, too short for a prompt
            prompts.append(stretch if start else [loaded.begin, *stretch])
    for text in go_on(loaded, prompts, how.rows, longest - how.prompt, **how.drawing()):
        if text.strip():
            yield [text]
