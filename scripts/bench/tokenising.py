"""lmctl against `datasets.map`: tokenising a text file with the same tokenizer.

Both sides read the same file, a text a line, and keep the ids of each line on disk: lmctl as a token store, the peer
with `load_dataset("text")` and `map(batched=True, num_proc=...)`. The tokenizer (WordPiece as lmctl's default one, or
another kind) is trained on the beginning of the file before. The sides run in turn, each in a process of its own; their
ids must be equal, and MB of text per second of wall time and of processor time are printed.

    python scripts/bench/tokenising.py                            # the help topics that come with Python (short)
    python scripts/bench/tokenising.py --data my.txt --repeats 5 --processes 2 --tokenizer bpe
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from common import cpu_seconds, peak_rss_mb
from tokenizers import Tokenizer

SIDES = ("lmctl", "peer")
TRAINED_ON = 4_000_000
"""Characters that the tokenizer is trained on."""


def arguments() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(description=summary, epilog=details.partition("\n\n")[0])
    p.add_argument("--data", type=Path, help="a UTF-8 text; by default the help topics that come with Python")
    p.add_argument("--tokenizer", choices=("wordpiece", "bpe", "unigram"), default="wordpiece")
    p.add_argument("--repeats", type=int, default=5, help="runs of each side")
    p.add_argument("--processes", type=int, default=2, help="`num_proc` of the peer; lmctl may use as many cores")
    p.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    p.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return p.parse_args()


def lines_of(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="\n") as file:
        yield from (line.rstrip("\n") for line in file)


def prepare(args: argparse.Namespace, work: Path) -> None:
    """Write text.txt and tokenizer.json."""
    from lmctl.tokenizer.bpe import Bpe
    from lmctl.tokenizer.unigram import Unigram
    from lmctl.tokenizer.wordpiece import WordPiece

    if args.data is None:
        from pydoc_data.topics import topics

        text = "\n".join(topics.values())  # once: a text that repeats itself would flatter whoever remembers words
    else:
        text = args.data.read_text(encoding="utf-8")
    lines = [line for line in (" ".join(part.split()) for part in text.split("\n")) if line]
    (work / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kind = {"wordpiece": WordPiece, "bpe": Bpe, "unigram": Unigram}[args.tokenizer]
    trained = kind().obtain(iter(text[:TRAINED_ON].split("\n")))
    trained.backend_tokenizer.save(str(work / "tokenizer.json"))


def lmctl_side(args: argparse.Namespace, work: Path) -> Iterator[np.ndarray]:
    from lmctl.core.token_store import TokenStore, write_store
    from lmctl.data.reading import lines

    folder = work / "store"
    folder.mkdir()
    write_store(
        folder, ([line] for line in lines(work / "text.txt")), Tokenizer.from_file(str(work / "tokenizer.json"))
    )
    store = TokenStore.open(folder)
    yield np.diff(store.sentences)
    yield store.tokens


def peer_side(args: argparse.Namespace, work: Path) -> Iterator[np.ndarray]:
    from datasets import disable_progress_bars, load_dataset
    from transformers import PreTrainedTokenizerFast

    disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(work / "tokenizer.json"))
    only_ids = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    data = load_dataset("text", data_files=str(work / "text.txt"), split="train", cache_dir=str(work / "hub"))
    data = data.map(
        lambda rows: tokenizer(rows["text"], **only_ids), batched=True, num_proc=args.processes, remove_columns=["text"]
    )
    data.save_to_disk(str(work / "arrow"))
    for part in data.with_format("arrow").iter(1 << 16):
        ids = part["input_ids"].combine_chunks()
        yield np.diff(ids.offsets.to_numpy())
        yield ids.flatten().to_numpy()


def run_side(args: argparse.Namespace) -> None:
    """One side in this process: its figures, and a digest of its ids and of how many each line has."""
    work, size = args.work, (args.work / "text.txt").stat().st_size / 1e6
    with tempfile.TemporaryDirectory(dir=work) as own:
        for name in ("text.txt", "tokenizer.json"):
            os.link(work / name, Path(own, name))
        begun = time.perf_counter(), cpu_seconds()
        parts = {"lmctl": lmctl_side, "peer": peer_side}[args.side](args, Path(own))
        lengths, tokens = [next(parts)], [next(parts)]
        seconds, cpu = time.perf_counter() - begun[0], cpu_seconds() - begun[1] + children_seconds()
        rest = list(parts)
    lengths, tokens = [*lengths, *rest[::2]], [*tokens, *rest[1::2]]
    every = (np.concatenate(some).astype(np.int64).tobytes() for some in (lengths, tokens))
    digest = hashlib.sha256(b"".join(every)).hexdigest()[:16]
    figures = {"mb_per_second": size / seconds, "mb_per_cpu_second": size / cpu, "peak_rss_mb": peak_rss_mb()}
    print(json.dumps({"ids": digest, **figures}))


def children_seconds() -> float:
    """CPU time of child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    args = arguments()
    if args.side:
        run_side(args)
        return
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    digests = set()
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder:
        prepare(args, Path(folder))
        words = ["--processes", str(args.processes), "--work", folder]
        around = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
        for repeat in range(args.repeats):
            for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:  # neither always goes first
                command = [sys.executable, __file__, "--side", side, *words]
                done = subprocess.run(command, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{side} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
                figures = json.loads(done.stdout.splitlines()[-1])
                digests.add(figures.pop("ids"))
                runs[side].append(figures)
                print(f"{repeat + 1}/{args.repeats} {side}:", *(f"{k}={v:.4g}" for k, v in figures.items()), flush=True)
    if len(digests) != 1:
        raise SystemExit("the sides have different ids")
    print("\nequal ids; medians, and of the ratio of each pair:\n")
    print("| side | MB per second | MB per CPU-second | peak memory MB, without children |")
    print("|---|---:|---:|---:|")
    names = ("mb_per_second", "mb_per_cpu_second", "peak_rss_mb")
    for side in SIDES:
        print(f"| {side} |", " | ".join(f"{median(run[name] for run in runs[side]):.3g}" for name in names), "|")
    pairs = list(zip(runs["lmctl"], runs["peer"], strict=True))
    print("| ratio |", " | ".join(f"{median(a[name] / b[name] for a, b in pairs):.2f}" for name in names), "|")


if __name__ == "__main__":
    main()
