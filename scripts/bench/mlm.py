"""lmctl against `transformers.Trainer`: masked-language-model pre-training of a BERT-mini on a CPU.

Both sides read the same text with the same tokenizer, train the same 4 x 256 network (30,522-row vocabulary,
dropout 0.1) on the same number of rows with the same optimiser, and are judged on the same held-out rows. They
run in turn, each in a process of its own with the same number of threads. The main figure is real (non-padding)
tokens per CPU-second in the steady state, CPU time counted over all threads: on a machine that has other work
too it is far steadier than wall time.

    python scripts/bench/mlm.py                        # some minutes; 20 steps, three times
    python scripts/bench/mlm.py --steps 60 --repeats 5 --data my.txt
    python scripts/bench/mlm.py --only peer
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from statistics import median

import numpy as np
from common import full_rows, parser
from tokenizers import BertWordPieceTokenizer, Tokenizer

HERE = Path(__file__).resolve().parent
SIDES = {"lmctl": "lmctl_mlm.py", "peer": "peer_mlm.py"}
TOKENIZER_SIZE = 8192
HELDOUT_ROWS = 64
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def arguments() -> Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = parser(summary)
    p.epilog = details.partition("\n\n")[0]
    p.add_argument("--data", type=Path, help="a UTF-8 text; by default the help topics that come with Python")
    p.add_argument("--repeats", type=int, default=3, help="runs of each side")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each side")
    p.add_argument("--only", choices=SIDES, help="run one side alone")
    return p.parse_args()


def paragraphs(data: Path | None) -> list[str]:
    """The text's paragraphs, each on one line, and each once: manuals repeat themselves."""
    if data is None:
        from pydoc_data.topics import topics

        text = "\n\n".join(topics.values())
    else:
        text = data.read_text(encoding="utf-8")
    lines = (" ".join(part.split()) for part in text.split("\n\n"))
    return [line for line in dict.fromkeys(lines) if line]


def train_tokenizer(texts: list[str], folder: Path) -> Tokenizer:
    """A WordPiece tokenizer, written so that transformers loads it too."""
    wordpiece = BertWordPieceTokenizer()
    wordpiece.train_from_iterator(texts, vocab_size=TOKENIZER_SIZE, show_progress=False)
    folder.mkdir()
    wordpiece.save(str(folder / "tokenizer.json"))
    config = {f"{name}_token": token for name, token in SPECIAL.items()}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def mask_heldout(texts: list[str], tokenizer: Tokenizer, seq_len: int, path: Path) -> None:
    """Cut held-out rows and mask them as BERT does: of 15 % of the tokens 80 % hidden, 10 % random, 10 % kept."""
    special = {token: tokenizer.get_vocab()[token] for token in SPECIAL.values()}
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    rows = full_rows((text.ids for text in encoded), seq_len, special["[CLS]"], special["[SEP]"])[:HELDOUT_ROWS]
    if not len(rows):
        raise SystemExit("the text is too short: a twentieth of it does not fill one row of --seq-len tokens")
    rng = np.random.default_rng(0)
    chosen = (rng.random(rows.shape) < 0.15) & ~np.isin(rows, list(special.values()))
    fate = rng.random(rows.shape)
    random = rng.integers(len(special), tokenizer.get_vocab_size(), rows.shape)
    inputs = np.where(chosen & (fate < 0.8), special["[MASK]"], np.where(chosen & (fate >= 0.9), random, rows))
    np.savez(path, inputs=inputs, labels=np.where(chosen, rows, -100))


def prepare(args: Namespace, work: Path) -> None:
    """Write the work folder; every twentieth paragraph is held out."""
    texts = paragraphs(args.data)
    held = texts[::20]  # from all over the text: its end may be of another kind
    train = [text for place, text in enumerate(texts) if place % 20]
    (work / "train.txt").write_text("\n\n".join(train), encoding="utf-8")
    (work / "valid.txt").write_text("\n\n".join(held), encoding="utf-8")
    tokenizer = train_tokenizer(train, work / "tokenizer")
    mask_heldout(held, tokenizer, args.seq_len, work / "heldout.npz")


def run_side(side: str, args: Namespace, work: Path) -> dict[str, float]:
    """Run one side once, and return its figures."""
    command = [sys.executable, str(HERE / SIDES[side]), "--work", str(work)]
    for name in ("steps", "warmup", "rows", "seq_len", "lr", "weight_decay", "seed"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    threads = str(args.threads)
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    args = arguments()
    sides = [args.only] if args.only else list(SIDES)
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder:
        prepare(args, Path(folder))
        for repeat in range(args.repeats):
            for side in sides if repeat % 2 == 0 else sides[::-1]:  # neither always goes first
                figures = run_side(side, args, Path(folder))
                runs[side].append(figures)
                print(f"{repeat + 1}/{args.repeats} {side}:", *(f"{k}={v:.5g}" for k, v in figures.items()), flush=True)

    def middle(side: str, name: str) -> float:
        return median(run[name] for run in runs[side])

    def ratio(name: str) -> float:
        """lmctl to peer. Two runs that follow each other meet the same load, so each pair is compared first."""
        return median(ours[name] / theirs[name] for ours, theirs in zip(runs["lmctl"], runs["peer"], strict=True))

    print(f"\n{args.rows} x {args.seq_len} tokens per step, {args.steps} steps, {args.threads} threads, medians:\n")
    print("| side  | tokens per CPU-second | tokens per second | peak memory MB | held-out loss |")
    print("|-------|----------------------:|------------------:|---------------:|--------------:|")
    for side in sides:
        cpu, wall = middle(side, "tokens_per_cpu_second"), middle(side, "tokens_per_second")
        memory, loss = middle(side, "peak_rss_mb"), middle(side, "heldout_loss")
        print(f"| {side:5} | {cpu:21.0f} | {wall:17.0f} | {memory:14.0f} | {loss:13.3f} |")
    if not args.only:
        print(f"\nmemory: {ratio('peak_rss_mb'):.2f}")
        print(f"ratio: {ratio('tokens_per_cpu_second'):.2f}")


if __name__ == "__main__":
    main()
