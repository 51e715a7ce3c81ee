"""Fingerprints of sources follow every field that changes their rows: caches are keyed by them."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from command import ROOT
from omegaconf import OmegaConf
from row_files import write_rows

from lmctl.core.errors import LmctlError

TEXTS = [f'Row {i} says, "so be it". It ends here.' for i in range(24)]
COLUMNS = {
    "text": TEXTS,
    "other": [f"Another text {i}." for i in range(24)],
    "second": [f"Its second text {i}." for i in range(24)],
    "third": [f"Or a third one {i}." for i in range(24)],
    "label": [f"c{i % 3}" for i in range(24)],
    "mark": [f"m{i % 2}" for i in range(24)],
}
LABELLED: dict[str, Any] = {"label": "label"}
PAIRED: dict[str, Any] = {"label": "label", "text_b": "second"}
PARALLEL: dict[str, Any] = {"source": "text", "target": "second"}

Change = tuple[dict[str, Any], Any]
"""What else is set, and the other value of the field."""

ROWS: dict[str, Change] = {
    "text": ({}, "other"),
    "text_b": (PAIRED, "third"),
    "label": (LABELLED, "mark"),
    "source": (PARALLEL, "other"),
    "target": (PARALLEL, "third"),
    "valid_share": ({}, 0.5),
}
SIDES = {"source": "rows", "target": "other"}
VALID_SIDES = {**SIDES, "valid_source": "valid", "valid_target": "valid"}
FILES: dict[str, Change] = {**ROWS, "path": ({}, "changed"), "valid_path": ({}, "valid"), "on_bad_row": ({}, "skip")}
CHANGES: dict[str, dict[str, Change]] = {
    "table": {**FILES, "delimiter": ({}, "tab"), "quoting": ({}, "none"), "header": ({}, False)},
    "jsonl": FILES,
    "hub": {
        **ROWS,
        "path": ({}, "changed"),
        "on_bad_row": ({"path": "bad"}, "skip"),
        "config": ({"path": "configs", "config": "one"}, "two"),
        "train_split": ({"path": "splits"}, "test"),
        "valid_split": ({"path": "splits"}, "test"),
        "streaming": ({"buffer": 5}, True),
        "buffer": ({"streaming": True, "buffer": 5}, 7),
    },
    "parallel": {
        "source": (SIDES, "changed"),
        "target": (SIDES, "changed"),
        "path": ({"path": "two"}, "both"),
        "valid_source": (VALID_SIDES, "hers"),
        "valid_target": (VALID_SIDES, "hers"),
        "valid_path": ({"path": "two"}, "both"),
        "valid_share": ({"path": "two"}, 0.5),
        "on_bad_row": ({"path": "bad"}, "skip"),
    },
    "text": {
        "path": ({}, "changed"),
        "layout": ({}, "one_document_per_file"),
        "sentences": ({}, "line"),
        "valid_path": ({}, "valid"),
        "valid_share": ({}, 0.5),
    },
    "numbers": {
        "source_language": ({}, "zh"),
        "target_language": ({}, "zh"),
        "size": ({}, 900),
        "valid_share": ({}, 0.5),
    },
    "pydocs": {"valid_share": ({}, 0.5)},
    "pydocs_topics": {"valid_share": ({}, 0.5)},
}
NOT_HERE = {("hub", "revision"), ("text", "on_bad_file")}
"""A version of what is on the hub: tests/data/test_hub.py compares commits. Of unreadable files nothing is read either
way: tests/data/test_files.py has it."""
EMBEDDED = ("numbers", "pydocs", "pydocs_topics")
SLOW = ("pydocs", "pydocs_topics")
"""Not read here: their only field is a share."""


def source_class(option: str) -> Any:
    module, _, name = OmegaConf.load(ROOT / "conf" / "data" / f"{option}.yaml")["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


OPTIONS = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml"))


@pytest.mark.parametrize("option", OPTIONS)
def test_no_field_is_forgotten(option: str):
    fields = {field.name for field in dataclasses.fields(source_class(option))}
    assert fields == {*CHANGES[option], *(field for kind, field in NOT_HERE if kind == option)}


def records(columns: dict[str, list[str]]) -> list[dict[str, str]]:
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def write(folder: Path, option: str) -> str:
    """The files that CHANGES speaks of; the suffix of their names."""
    changed = {**COLUMNS, "text": [text.replace("Row", "Line") for text in TEXTS]}
    bad = {**COLUMNS, "text": ["", *TEXTS[1:]]}
    valid = {name: cells[:3] for name, cells in changed.items()}
    if option in ("table", "jsonl", "hub"):
        suffix = "csv" if option == "table" else "jsonl"
        for name, rows in (("rows", COLUMNS), ("changed", changed), ("bad", bad), ("valid", valid)):
            write_rows(folder / f"{name}.{suffix}", records(rows))
        if option == "hub":
            for name, rows in (("train", COLUMNS), ("test", changed)):
                for place in ("configs", "splits"):
                    write_rows(folder / place / f"{name}.jsonl", records(rows))
            card = "".join(
                f"- config_name: {c}\n  data_files: {n}.jsonl\n" for c, n in (("one", "train"), ("two", "test"))
            )
            (folder / "configs" / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
        return f".{suffix}"
    texts = {"rows": TEXTS, "other": COLUMNS["other"], "changed": changed["text"]}
    texts |= {"valid": TEXTS[:3], "hers": TEXTS[3:6]}
    texts["two"] = [f"{a}\t{b}" for a, b in zip(TEXTS, COLUMNS["other"], strict=True)]
    texts["both"] = [f"{a}\t{b}" for a, b in zip(TEXTS, COLUMNS["third"], strict=True)]
    texts["bad"] = ["\tempty", *texts["two"]]
    for name, lines in texts.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return ".txt"


def outcome(source: Any) -> Any:
    """All rows of both splits, or the refusal."""
    try:
        return [[(row.texts, row.label) for row in source.rows(split)] for split in ("train", "valid")]
    except LmctlError as error:
        return type(error).__name__


@pytest.mark.parametrize(("option", "field"), [(option, field) for option in OPTIONS for field in CHANGES[option]])
def test_the_fingerprint_follows_every_field_that_changes_the_rows(tmp_path: Path, option: str, field: str):
    made, (base, other) = source_class(option), CHANGES[option][field]
    suffix = "" if option in EMBEDDED else write(tmp_path, option)

    def source(settings: dict[str, Any]) -> Any:
        files = dict(settings)
        if option in ("table", "jsonl", "hub", "text"):
            files.setdefault("path", "bad" if field == "on_bad_row" else "rows")
        if option == "numbers":
            files.setdefault("size", 800)
        for key, value in files.items():
            if "path" in key or (option == "parallel" and isinstance(value, str) and key != "on_bad_row"):
                files[key] = str(tmp_path / value) + ("" if (tmp_path / value).is_dir() else suffix)
        return made(**files)

    first, second = source(base), source({**base, field: other})
    assert option in SLOW or outcome(first) != outcome(second), "the other value must change something"
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() == source(base).fingerprint()
    assert json.loads(json.dumps(first.fingerprint())) == first.fingerprint()
