"""Damaged files: every file of a checkpoint, a run directory, a cache and a model, each damaged in every way.

A run is killed before its export; of this one state there is a copy for each fault.
"""

from __future__ import annotations

import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fault_injection.events import Event, stopped_before
from fault_injection.fault import Fault, goes_on
from fault_injection.outcome import FAULT_CODES, differences, wrong_end
from fault_injection.processes import run
from fault_injection.workshop import Place, Workshop


def _flip(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit": _flip,
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
    "noise": lambda file: file.write_bytes(random.Random(0).randbytes(max(1, file.stat().st_size))),
    "a folder": _folder,
}
UNNOTICED = {
    ("one bit", "metrics.jsonl"),
    ("one bit", "environment.json"),
    ("noise", "metrics.jsonl"),
    ("one bit", "config.yaml"),
}
"""Damage that leaves a file of the right size, or a config that may be meant: the record is then as it was damaged."""
MODEL_CODES = {0, 2, 3}


def damages(workshop: Workshop, cell: str, parts: tuple[str, ...] = ("checkpoint", "run", "cache")) -> Iterator[Fault]:
    """Damage to a run that was killed before its export, and to its cache; before it is gone on with."""
    broken_off = _broken_off(workshop, cell)
    folders = {"checkpoint": _newest(broken_off), "run": broken_off.run, "cache": broken_off.cache}
    for part in parts:
        for file in _with_contents(folders[part]):
            if part == "run" and file.parent.name.startswith("step-"):  # the newest is a part by itself
                continue
            for damage in DAMAGES:
                where = file.relative_to(broken_off.home).as_posix()
                yield Fault(f"damaged {part} files", f"damage/{cell}/{part}/{_steady(where)}/{damage}",
                            partial(_damaged, cell, where, damage))  # fmt: skip


def damaged_models(workshop: Workshop, cell: str) -> Iterator[Fault]:
    """Damage to the directory of a finished model, before it is measured."""
    place = Place(workshop.home, f"{cell}-finished")
    if not (place.run / "summary.json").exists() and (code := workshop.run(cell, place).code):
        raise RuntimeError(f"{cell} ended with {code}")
    for file in _with_contents(place.run / "model"):
        for damage in DAMAGES:
            yield Fault("damaged model files", f"models/{cell}/{file.name}/{damage}",
                        partial(_damaged_model, place, file.name, damage))  # fmt: skip


def lost_caches(workshop: Workshop, cell: str, number: int) -> Iterator[Fault]:
    """A cleaner removes files of the cache at some moment of a run."""
    events = len(workshop.reference(cell).events)
    for each in range(number):
        moment = random.Random(f"{cell}/{each}").randint(1, events)
        yield Fault("cache cleaners", f"cleaner/{cell}/{each}", partial(_cleaned, cell, each, moment))


def _cleaned(cell: str, each: int, moment: int, workshop: Workshop) -> list[str]:
    place = workshop.place(f"{cell}-cleaned")
    return goes_on(workshop, cell, place, workshop.run(cell, place, _cleaning(place.cache, each, moment)))


def _cleaning(cache: Path, seed: int, moment: int) -> Event:
    count = 0

    def event(phase: str, operation: str) -> None:
        nonlocal count
        count += 1
        if count == moment:
            files = sorted(path for path in cache.rglob("*") if path.is_file())
            draw = random.Random(seed)
            for file in draw.sample(files, min(len(files), draw.randint(1, 4))):
                file.unlink()

    return event


def _broken_off(workshop: Workshop, cell: str) -> Place:
    place = Place(workshop.home, f"{cell}-broken-off")
    if not place.run.exists():
        workshop.reference(cell)  # with what it reads
        child = workshop.run(cell, place, stopped_before("export"))
        if child.code != -9:
            raise RuntimeError(f"{cell} was not broken off: {child.printed[-500:]}")
    return place


def _with_contents(folder: Path) -> list[Path]:
    """Files that can be damaged: not locks, which are empty."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def _newest(place: Place) -> Path:
    return place.run / "checkpoints" / (place.run / "checkpoints" / "latest").read_text().strip()


def _damaged(cell: str, where: str, damage: str, workshop: Workshop) -> list[str]:
    original = _broken_off(workshop, cell)
    place = workshop.place(f"{cell}-damaged")
    for ours, theirs in ((place.folder, original.folder), (place.cache, original.cache)):
        shutil.copytree(theirs, ours)
    file = workshop.home / where.replace(original.name, place.name)
    DAMAGES[damage](file)
    first = workshop.run(cell, place)
    if first.code != 0:  # it was noticed, and nobody can go on without this file; it must have been said
        found = wrong_end(first, FAULT_CODES)
        found += [] if file.name in first.printed or file.parent.name in first.printed else ["the file is not named"]
        if not found:
            place.remove()
        return found
    found = wrong_end(first, {0}) + differences(workshop.reference(cell).bits, place.folder)
    if file.name in first.printed or (damage, file.name) in UNNOTICED:
        found = [words for words in found if not words.startswith(("run/metrics", "metrics"))]
    if not found:
        place.remove()
    return found


def _damaged_model(finished: Place, name: str, damage: str, workshop: Workshop) -> list[str]:
    place = workshop.place("model-damaged")
    shutil.copytree(finished.run / "model", place.run / "model")
    DAMAGES[damage](place.run / "model" / name)
    words = [
        "eval",
        f"model_path={place.run / 'model'}",
        "suite=loss",
        "rows=8",
        "runner=cpu",
        "data=text",
        "data.path=docs.txt",
    ]
    found = wrong_end(
        run(words, workshop.home, place.logs / "log", environment=workshop.environment(place)), MODEL_CODES
    )
    if not found:
        place.remove()
    return found


def _steady(where: str) -> str:
    """A name of a file that is the same each time: without the keys of cache entries, which depend on nothing but the
    text and are long."""
    parts = Path(where).parts[2:]
    return "/".join(f"{zlib.crc32(part.encode()):08x}" if len(part) >= 32 else part for part in parts)
