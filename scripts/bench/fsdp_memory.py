"""Memory of a process by runner and number of processes: measured, planned, and at the start from trained weights.

python scripts/bench/fsdp_memory.py --layers 12 --hidden 512
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 3
INT8 = ("compression=int8",)
RUNNERS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("cpu", 1, ()),
    ("ddp", 2, ()),
    ("ddp", 4, ()),
    ("fsdp", 2, ()),
    ("fsdp", 4, ()),
    ("fsdp", 4, ("runner.replicas=2",)),
    ("fsdp", 4, INT8),
    ("fsdp", 4, (*INT8, "compression.error_feedback=false")),
    ("fsdp", 4, ("batch.micro=1",)),
)
STARTS = (("cpu", 1), ("ddp", 4), ("fsdp", 2), ("fsdp", 4))
MIB = 1 << 20


def words_of(layers: int, hidden: int, heads: int) -> list[str]:
    """A language model on rows of 32 positions, three steps of four rows."""
    shape = ["mix=clm", "model=gpt2_tiny", f"model.layers={layers}", f"model.hidden={hidden}", f"model.heads={heads}"]
    return [*shape, f"budget.steps={STEPS}", "batch.size=4", "batch.seq_len=32", "eval.rows=4", "kernels=torch"]


def lmctl(verb: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "lmctl", verb, *words], check=True, capture_output=True)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def peaks(folder: Path, options: argparse.Namespace) -> None:
    """The table of whole runs."""
    print("| runner | processes | MiB, measured | planned | above an empty run | of it weights, gradients, states |")
    print("|---|---|---|---|---|---|")
    for number, (runner, processes, more) in enumerate(RUNNERS):
        where = [f"runner={runner}", *more] + ([f"runner.processes={processes}"] if processes > 1 else [])
        runs = {"empty": words_of(1, 16, 1), "full": words_of(options.layers, options.hidden, options.hidden // 64)}
        found = {}
        for name, words in runs.items():
            lmctl("train", *words, *where, f"run_dir={folder / f'{name}-{number}'}")
            found[name] = read(folder / f"{name}-{number}" / "summary.json")
        lmctl("plan", *runs["full"], *where, f"out={folder / f'plan-{number}.json'}")
        planned = read(folder / f"plan-{number}.json")["memory"]["peak_bytes"]
        measured, empty = (found[name]["peak_memory_bytes"] / processes for name in ("full", "empty"))
        sizes = found["full"]["precision"]["bytes_per_parameter"]
        kept = sum(sizes[part] for part in ("weights", "gradients", "optimiser")) * found["full"]["parameters"]["total"]
        off = f"{planned / MIB:,.0f} ({planned / measured - 1:+.0%})"
        what = " ".join([runner, *more])
        print(
            f"| `{what}` | {processes} | {measured / MIB:,.0f} | {off} | {(measured - empty) / MIB:,.0f} | "
            f"{kept / MIB:,.0f} |",
            flush=True,
        )
    print(f"\n{found['full']['parameters']['total']:,} weights; mean over the processes\n")


def starts(folder: Path, options: argparse.Namespace) -> None:
    """The table of starts from the weights of a run."""
    words = words_of(options.layers, options.hidden, options.hidden // 64)
    lmctl("train", *words, "budget.steps=1", "runner=cpu", f"run_dir={folder / 'before'}")
    print("| runner | processes | MiB at most, while `init_from` is loaded | MiB afterwards |\n|---|---|---|---|")
    for runner, processes in STARTS:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launch if processes > 1 else []), __file__, "--worker", runner, str(folder)]
        said = subprocess.run([*command, str(processes)], check=True, capture_output=True, text=True).stdout
        most, after = (max(map(int, found)) / MIB for found in zip(*re.findall(r"peak=(\d+) kept=(\d+)", said)))  # noqa: B905
        print(f"| `{runner}` | {processes} | {most:,.0f} | {after:,.0f} |", flush=True)


def worker(runner: str, folder: Path, processes: str) -> None:
    """One process that starts: how much memory it takes more than before."""
    from lmctl.config.compose import Composer
    from lmctl.parallel.processes import Processes
    from lmctl.plan import Plan
    from lmctl.train.display import quiet_libraries
    from lmctl.train.prepare import prepare
    from lmctl.train.trainer import Trainer

    quiet_libraries()
    where = [f"runner={runner}"] + ([f"runner.processes={processes}"] if processes != "1" else [])
    start = ["mix=clm", "batch.size=4", "batch.seq_len=32", "kernels=torch", "model=pretrained"]
    start += [f"model.init_from={folder / 'before'}", "tokenizer=pretrained", f"tokenizer.path={folder / 'before'}"]
    plan = Plan.from_config(Composer("train").task([*start, f"init_from={folder / 'before'}", *where]))
    text = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
    here = Processes(plan.runner.on_cpu())
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    trainer = Trainer(plan, text, here)
    os.write(1, f"peak={memory('VmHWM') - before} kept={memory('VmRSS') - before}\n".encode())
    trainer.processes.close()


def memory(key: str) -> int:
    """Bytes of this process, as the system counts them."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--layers", type=int, default=12)
    options.add_argument("--hidden", type=int, default=512)
    options.add_argument("--only", choices=("peaks", "starts"))
    options.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        worker(given.worker[0], Path(given.worker[1]), given.worker[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        for table in (peaks, starts):
            if given.only in (None, table.__name__):
                table(Path(folder), given)


if __name__ == "__main__":
    main()
