"""docs/reference/: a page per verb and per config group, made from the verbs' tables and the options' YAML files.

python scripts/reference.py             # after a verb, a group, an option or a key has changed
python scripts/reference.py --check     # 1 if a page is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lmctl.config.compose import Composer
from lmctl.config.described import Described, option_keys, own_keys
from lmctl.config.topics import purpose
from lmctl.config.verb import ConfigVerb, command, names, summary, verbs

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Made by scripts/reference.py. Do not edit. -->"
METHODS = {
    "adversary": "adversaries.md",
    "augment": "augmentations.md",
    "average": "learning.md",
    "compression": "compression.md",
    "distill": "distillation.md",
    "objective": "objectives.md",
    "optim": "optimisers.md",
    "precision": "precision.md",
    "quantize": "precision.md",
    "schedule": "optimisers.md",
}
"""Groups whose options are methods, and the page of docs/ that says how each works, under a heading of its name."""
LONGEST = 60
"""Longest default in characters that is shown whole."""


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    check, made = options.parse_args().check, pages()
    stale = {name for name, text in made.items() if not _has(FOLDER / name, text)}
    gone = {file.name for file in FOLDER.glob("*.md")} - made.keys()
    if check:
        for name in sorted(stale | gone):
            print(f"docs/reference/{name} is not what the code says: python scripts/reference.py", file=sys.stderr)
        return int(bool(stale | gone))
    FOLDER.mkdir(exist_ok=True)
    for name in gone:
        (FOLDER / name).unlink()
    for name in stale:
        (FOLDER / name).write_text(made[name], encoding="utf-8")
    return 0


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    composers = {name: Composer(name) for name in verbs()}
    homes: dict[str, Composer] = {}
    for composer in composers.values():
        for group in composer.all_groups:
            homes.setdefault(group, composer)
    made = {f"verb-{name}.md": _page(_verb(name, composers.get(name))) for name in names()}
    made |= {f"group-{group}.md": _page(_group(group, composer)) for group, composer in homes.items()}
    made["index.md"] = _page(_index(list(homes)))
    return made


def _has(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text


def _page(lines: Iterator[str]) -> str:
    title, *rest = lines
    return "\n".join([title, "", NOTE, "", *rest]).rstrip() + "\n"


def _index(groups: list[str]) -> Iterator[str]:
    yield "# Reference"
    yield "Every verb, and every config group with its options and keys, as `lmctl VERB --help` says them."
    yield ""
    yield from _table(("verb", "does"), ((f"[{name}](verb-{name}.md)", summary(name)) for name in names()))
    yield ""
    yield from _table(("group", "is"), ((f"[{group}](group-{group}.md)", purpose(group)) for group in groups))


def _verb(name: str, composer: Composer | None) -> Iterator[str]:
    yield f"# lmctl {name}"
    own = command(name)
    yield f"{(own.purpose if isinstance(own, ConfigVerb) else '') or _sentence(summary(name))}"
    yield ""
    if composer is None or not isinstance(own, ConfigVerb):
        yield f"`lmctl {name} --help` says how it is called."
        return
    if own.examples:
        yield from ["```sh", *own.examples, "```", ""]
    if composer.defaults:
        yield from ["## Groups", ""]
        rows = (
            (f"[`{group}`](group-{group}.md)", f"`{default}`" if default else "", purpose(group))
            for group, default in composer.defaults.items()
        )
        yield from _table(("group", "default", "is"), rows)
        yield ""
    yield from ["## Keys", ""]
    yield from _keys(own_keys(composer))


def _group(group: str, composer: Composer) -> Iterator[str]:
    yield f"# {group}"
    yield _sentence(purpose(group))
    yield ""
    default = composer.defaults.get(group)
    options = composer.options(group)
    rows = (
        (_method(group, one) + (" (default)" if one == default else ""), composer.describe(group, one))
        for one in options
    )
    yield from _table(("option", "is"), rows)
    shown: dict[tuple[Described, ...], list[str]] = {}
    for option in options:
        keys = tuple(Described(k.name, k.kind, k.default, k.purpose) for k in option_keys(composer, group, option))
        shown.setdefault(keys, []).append(option)
    for found, having in shown.items():
        if found:
            yield from ["", f"## {', '.join(f'{group}={one}' for one in having)}", ""]
            yield from _keys(list(found))


def _method(group: str, option: str) -> str:
    """An option's name, with a link to how it works."""
    return f"`{option}`" if group not in METHODS or option == "none" else f"[`{option}`](../{METHODS[group]}#{option})"


def _keys(keys: list[Described]) -> Iterator[str]:
    rows = ((f"`{key.name}`", key.kind, _default(key.default), key.purpose) for key in keys)
    yield from _table(("key", "type", "default", "is"), rows)


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _default(text: str) -> str:
    return f"`{text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}`" if text else "empty"


if __name__ == "__main__":
    sys.exit(main())
