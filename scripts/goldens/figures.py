"""What is kept of a cell: figures by name, bytes as digests; nothing that comes from the clock or the machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

Figures = dict[str, Any]
"""Of one file or output, by a name that tells where the figure stands."""

CLOCK = re.compile(
    r"seconds|_per_s$|per_(cpu_)?second$|peak_memory|^machine$|ms_per_row|speed|^run_dir$|room_bytes|^fits$"
)
"""Keys of what the clock, the machine or the place of a run says."""
MEASURED = {"libraries", "allocator", "kernels"}
"""Components of a plan's memory that are those of this process, not of the plan."""


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON value, by path, without what the clock decides."""
    if isinstance(value, dict) and value:
        for key, inside in value.items():
            if not CLOCK.search(key) and key not in MEASURED:
                yield from flat(inside, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for place, inside in enumerate(value):
            yield from flat(inside, f"{name}[{place}]")
    else:
        yield name, value


def of_run(run: Path) -> dict[str, Figures]:
    """The exported weights, the record and the summary of a run directory."""
    kept = {"metrics": _metrics(run / "metrics.jsonl")}
    summary = json.loads((run / "summary.json").read_text())
    kept["summary"] = dict(flat(summary))
    environment = json.loads((run / "environment.json").read_text())
    kept["fingerprints"] = dict(flat(environment["fingerprints"]))
    for file in sorted((run / "model").iterdir()):
        if file.suffix == ".safetensors":
            kept[file.name] = weights(file)
        elif file.name == "tokenizer.json":
            kept[file.name] = {"contents": digest(file.read_bytes())}
        elif file.suffix == ".json":
            kept[file.name] = dict(flat(json.loads(file.read_text())))
    return kept


def _metrics(file: Path) -> Figures:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {
        f"step {line['step']} {line['split']} {name}": value
        for line in lines
        for name, value in flat({key: value for key, value in line.items() if key not in ("step", "split")})
    }


def weights(file: Path) -> Figures:
    """Each tensor's type and shape, and a digest of its bytes."""
    import torch

    found = {}
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            contents = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            found[name] = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} {digest(contents)}"
    return found


def of_results(text: str) -> Figures:
    """A file of results: an eval's, or a plan's, whose peaks are counted without what is this process's own."""
    found = json.loads(text)
    for memory in (found.get("memory"), found.get("with_other_checkpointing")):
        if memory:
            memory["peak_bytes"] -= sum(
                memory["components"].get(name, {"peak_bytes": 0})["peak_bytes"] for name in MEASURED
            )
    return dict(flat(found))


def of_output(printed: str) -> Figures:
    return {f"line {number}": line for number, line in enumerate(printed.splitlines(), 1)}


def digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]


def hash_of(figures: Figures) -> str:
    return digest(json.dumps(figures, sort_keys=True).encode())


def difference(base: Figures, new: Figures) -> str | None:
    """The first figure, in the order of the base, that is another or missing, and how many more are."""
    names = [*base, *(name for name in new if name not in base)]
    other = [name for name in names if _shown(base, name) != _shown(new, name)]
    if not other:
        return None
    first = f"{other[0]}: {_shown(base, other[0])} before, {_shown(new, other[0])} now"
    return first + (f"; {len(other) - 1} more of {len(names)}" if len(other) > 1 else "")


def _shown(figures: Figures, name: str) -> str:
    return json.dumps(figures[name], ensure_ascii=False) if name in figures else "none"
