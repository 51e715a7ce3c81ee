"""Which files a dataset of others may name: its own ones, and nothing on the network that it was not asked for.

A dataset's card (README.md) says which files it consists of. In a folder of the user's own, links are followed wherever
they lead; what the card or the index of a dataset names outside of the folder is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmctl.core.errors import DataError
from lmctl.data.file_status import not_plain

CARD, STANDALONE_CARD = "README.md", ".huggingface.yaml"
CARDS = (CARD, STANDALONE_CARD, "dataset_infos.json")
"""Files of a folder that may describe its data files and columns."""

_PLACES = ("data_files", "data_dir")
"""Keys of a card whose values are places."""


def check_cards(path: str, folder: Path) -> None:
    """DataError if a card in `folder` names places outside of it, before anything looks for them there (which may
    reach for the network)."""
    check_plain(path, (card for name in CARDS if (card := folder / name).exists()))
    check_inside(path, folder, list(_named(_card(folder))))


def _card(folder: Path) -> list[Any]:
    """What the cards say, as the library `datasets` reads them."""
    import yaml
    from huggingface_hub import DatasetCard

    cards: list[Any] = []
    if (folder / CARD).is_file():
        cards.append(DatasetCard.load(folder / CARD).data.to_dict())
    if (folder / STANDALONE_CARD).is_file():
        cards.append(yaml.safe_load((folder / STANDALONE_CARD).read_text(encoding="utf-8")))
    return cards


def _named(value: Any, places: bool = False) -> Iterator[str]:
    """All texts below the keys that name places; what YAML shares is looked at once."""
    waiting, seen = [(value, places)], set()
    while waiting:
        one, is_place = waiting.pop()
        if isinstance(one, str) and is_place:
            yield one
        elif isinstance(one, dict | list) and (id(one), is_place) not in seen:
            seen.add((id(one), is_place))
            parts = one.items() if isinstance(one, dict) else ((None, part) for part in one)
            waiting += [(part, is_place or key in _PLACES) for key, part in parts]


def check_inside(path: str, folder: Path, files: Iterable[str]) -> None:
    """DataError unless all `files`, relative to `folder` or absolute, are written as places in it."""
    for file in files:
        inside = Path(os.path.normpath(folder / file)).is_relative_to(os.path.normpath(folder))
        if not inside or "://" in file or "::" in file:
            raise outside(path, file)


def check_plain(path: str, files: Iterable[Path]) -> None:
    """DataError if one of the files is a pipe, a device or the like, also through a link."""
    for file in files:
        if kind := not_plain(file):
            raise DataError(f"data.path={path}: {file.name} is {kind}, and a dataset is read from files")


def outside(path: str, file: str) -> DataError:
    """The error for a dataset that names a file outside of itself."""
    return DataError(
        f"data.path={path}: its own description names {file}, which is not one of its files",
        "if it is meant: give that file as data.path, or put it, or a link to it, into the folder",
    )
