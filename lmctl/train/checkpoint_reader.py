"""Reading checkpoints: nothing in one is trusted, not even where the checksums are right.

A checkpoint may be damaged, or a stranger's. The manifest has a schema and may name only the files that a checkpoint
has; archives hold tensors, numbers, strings and lists, and no more bytes than the file; a tensor is no larger than its
storage. Whatever does not fit is `Damaged`.
"""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lmctl.core.errors import ConfigError
from lmctl.core.files import digest
from lmctl.core.regular_files import read_bytes
from lmctl.core.shards import local
from lmctl.train.run_identity import Identity
from lmctl.train.shard_files import MODEL, joined, pieces, put, shard_names
from lmctl.train.shard_files import NAME as SHARD

NAME = re.compile(r"step-(\d{8,12})")
FORMAT = 1
WEIGHTS, STATE, MANIFEST = "model.safetensors", "state.pt", "manifest.json"
MANIFEST_BYTES = 1 << 20
_RANK = re.compile(r"rank-(0|[1-9]\d{0,5})\.pt")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GLOBALS = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor_v[23]|parameter)|torch (?!\w*Tensor)\w+")
"""What a pickle of tensors and plain values refers to. torch's own list has more, such as `bytearray` and
`torch.Tensor`, which make as many bytes as they are told."""


class Damaged(ConfigError):
    """A checkpoint that cannot be used; the message says what is wrong with it."""


class FileEntry(NamedTuple):
    """What the manifest says of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of a checkpoint, by name."""

    step: int
    files: dict[str, FileEntry]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the checkpoint in `folder`; `Damaged` if there is none, or none that lmctl could have
        written."""
        try:
            found = json.loads(read_bytes(folder / MANIFEST, MANIFEST_BYTES))
        except (OSError, ValueError, RecursionError):
            raise Damaged("its manifest is missing or unreadable") from None
        match found:
            case {"format": written, "step": int(step), "files": dict(files)} if written == FORMAT:
                manifest = cls(step, dict(_entries(files)))
            case _:
                raise Damaged("its manifest is not as lmctl writes it")
        if (named := NAME.fullmatch(folder.name)) and int(named[1]) != step:
            raise Damaged(f"its manifest is that of step {step}")
        ranks = {name for name in manifest.files if _RANK.fullmatch(name)}
        due = {STATE, "rank-0.pt", *(f"rank-{rank}.pt" for rank in range(len(ranks)))}
        sharded = [found for name in sorted(manifest.files) if (found := SHARD.fullmatch(name))]
        due |= shard_names(min(int(sharded[0][3]), len(ranks))) if sharded else {WEIGHTS}
        if absent := sorted(due - manifest.files.keys()):
            raise Damaged(f"its manifest does not name {absent[0]}")
        return manifest

    def needed(self, ranks: Collection[int], world: int) -> list[str]:
        """The names of the files that the processes `ranks` of `world` read: those of others only where there were
        more or fewer of them."""
        own = {f"rank-{rank}.pt" for rank in range(world)}
        if own != {name for name in self.files if _RANK.fullmatch(name)}:
            return list(self.files)
        return [name for name in self.files if name not in own or int(name[5:-3]) in ranks]


def _entries(files: dict[str, Any]) -> Iterator[tuple[str, FileEntry]]:
    for name, entry in files.items():
        if name not in (WEIGHTS, STATE) and not _RANK.fullmatch(name) and not SHARD.fullmatch(name):
            raise Damaged(f"its manifest names {name[:80]!r}, which no checkpoint has")
        match entry:
            case {"size": int(size), "sha256": str(sha256)} if size >= 0 and _SHA256.fullmatch(sha256):
                yield name, FileEntry(size, sha256)
            case _:
                raise Damaged(f"its manifest does not say size and checksum of {name}")


def verify(path: Path, names: Collection[str] | None = None) -> str | None:
    """What is wrong with a checkpoint directory, or None. `names`: of the files that are to be there; None: all."""
    try:
        manifest = Manifest.read(path)
    except Damaged as error:
        return str(error)
    due = {name: entry for name, entry in manifest.files.items() if names is None or name in names}
    for name, expected in due.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected.size:
            return f"{name} has {file.stat().st_size} bytes instead of {expected.size}"
    for name, expected in due.items():
        if digest(path / name) != expected.sha256:
            return f"{name} has other contents than were written"
    return None


@dataclass(frozen=True)
class Contents:
    """What is read back."""

    path: Path
    weights: dict[str, Any]
    """Tensors, or pieces of them (`shard_files.py`), by name."""
    state: dict[str, Any]

    def of_rank(self, rank: int) -> dict[str, Any] | None:
        """What process `rank` saved for itself; None if there was no such process."""
        file = self.path / f"rank-{rank}.pt"
        return unpickled(file) if file.is_file() else None

    def carried(self) -> dict[str, Tensor]:
        """The states that recurrent networks carry from row to row, of all processes: each had tracks of its own."""
        ranks = range(len(list(self.path.glob("rank-*.pt"))))
        return {
            name: state for rank in ranks for name, state in ((self.of_rank(rank) or {}).get("carried") or {}).items()
        }


def read(path: Path) -> Contents:
    """A checkpoint's weights and state, on the CPU; `Damaged` if they are not what a checkpoint holds."""
    state = unpickled(path / STATE)
    try:
        state = joined(state, pieces(path, "state"))
    except ValueError as error:
        raise Damaged(str(error)) from None
    except RecursionError:
        raise Damaged(f"{STATE} holds a list in itself, or lists in lists without end") from None
    return Contents(path, weights_of(path), state)


def check_named(path: Path) -> None:
    """ConfigError unless the checkpoint that the user named is sound."""
    if not (path / MANIFEST).is_file():
        raise ConfigError(f"resume={path}: not a checkpoint directory", "give runs/<name>/checkpoints/step-...")
    damage = verify(path)
    if damage is not None:
        raise ConfigError(f"resume={path}: damaged, {damage}", "resume=auto takes the newest sound one")


def config_of(path: Path) -> dict[str, Any]:
    """The resolved config of the run that wrote a checkpoint."""
    try:
        return Identity.from_state(unpickled(path / STATE).get("identity")).config
    except ValueError as error:
        raise Damaged(str(error)) from None


def weights_of(path: Path) -> dict[str, Any]:
    """The weights of a checkpoint, on the CPU: tensors, or pieces of them."""
    try:
        return load_file(path / WEIGHTS) if (path / WEIGHTS).is_file() else dict(pieces(path, MODEL))
    except ValueError as error:
        raise Damaged(str(error)) from None
    except SafetensorError as error:
        raise Damaged(f"{WEIGHTS} cannot be read: {_line(error)}") from None


def unpickled(file: Path) -> dict[str, Any]:
    """The mapping in an archive of torch, of tensors, numbers, strings, lists and mappings; nothing else is unpickled,
    and nothing takes more memory than the file has bytes."""
    try:
        _check_archive(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, zipfile.BadZipFile):
        raise Damaged(f"{file.name} holds more than tensors and numbers, or is no archive of them") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise Damaged(f"{file.name} cannot be read: {_line(error)}") from None
    if not isinstance(found, dict):
        raise Damaged(f"{file.name} holds no mapping")
    if any(not _is_whole(tensor) for tensor in _tensors(found)):
        raise Damaged(f"{file.name} has a tensor that is larger than what is kept of it")
    return found


def _check_archive(file: Path) -> None:
    """UnpicklingError if an archive is compressed (a small file could then hold any number of bytes), or if its pickle
    refers to anything but tensors."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not stored or sum(part.file_size for part in parts) > file.stat().st_size:
            raise UnpicklingError("compressed")
        for part in (part for part in parts if part.filename.endswith(".pkl")):
            for code, value, _ in pickletools.genops(archive.read(part)):
                refers = code.name in ("GLOBAL", "STACK_GLOBAL", "INST")
                if refers and not _GLOBALS.fullmatch(str(value)):
                    raise UnpicklingError(value)


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory of its own size. One of stride 0 claims any number of elements, and takes their
    memory when it is copied."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a tree of mappings and lists, each container once, however often and deeply it is contained."""
    waiting, seen = [value], set[int]()
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, dict | list | tuple | set) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node.values() if isinstance(node, dict) else node)


def fill(network: nn.Module, weights: Mapping[str, Any], what: str) -> None:
    """Put the weights of a checkpoint into the network; tensors that share memory with one that is there need not be.
    ConfigError if others are missing, have another shape, or are more; `what` begins its message."""
    own = network.state_dict()
    other = [name for name, tensor in weights.items() if name in own and tuple(tensor.shape) != tuple(own[name].shape)]
    if other:
        shapes = f"{list(weights[other[0]].shape)} instead of {list(own[other[0]].shape)}"
        raise ConfigError(f"{what}: the checkpoint's weights do not fit the model ({other[0]} is {shapes})")
    missing, unexpected = put(network, weights)
    if missing or unexpected:
        there = {local(tensor).data_ptr() for name, tensor in own.items() if name not in missing}
        wrong = [name for name in missing if local(own[name]).data_ptr() not in there] + unexpected
        if wrong:
            raise ConfigError(f"{what}: the checkpoint's weights do not fit the model ({wrong[0]})")


def pointer(root: Path, which: str) -> str | None:
    """The name of the checkpoint that the file `latest` or `best` names; None if there is no such file, or if it names
    none."""
    try:
        text = read_bytes(root / which, 64).decode().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if NAME.fullmatch(text) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine has no memory, which says nothing of a checkpoint."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
