"""How much of what two nodes send each other hides behind computing: steps over an unlimited and over a slow link.

Each node is a network namespace of this machine, with one process of one thread; a pair of virtual interfaces joins
them, whose rate Linux limits (tc-tbf). With t the seconds of a step over the unlimited link, T those over one of rate
r, and b the bytes that a process sends in a step, b / r - (T - t) of its b / r seconds of sending are hidden.

    sudo python scripts/bench/overlap.py
    sudo python scripts/bench/overlap.py --model "model=gpt2_tiny" --links 100 1000

Wants Linux, root and iproute2. What the loopback of gloo costs a processor is part of t.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from page import machine, table

SIDES = {
    "ddp": "runner=ddp",
    "fsdp": "runner=fsdp",
    "fsdp, int8": "runner=fsdp compression=int8",
    "topk_int8": "runner=ddp compression=topk_int8",
    "diloco, every 10": "runner=diloco runner.every=10",
}
NODES = ("lmctl-a", "lmctl-b")
"""Names of the namespaces."""
ADDRESSES = ("10.77.0.1", "10.77.0.2")
MODEL = "model=gpt2_tiny model.layers=8 model.hidden=256 model.heads=4 batch.size=16 batch.seq_len=128"
STEPS = 30


def system(command: str, check: bool = True) -> None:
    subprocess.run(shlex.split(command), check=check, capture_output=True)


@contextmanager
def joined() -> Iterator[None]:
    """Context with the two namespaces, which see each other alone."""
    try:
        for node in NODES:
            system(f"ip netns add {node}")
            system(f"ip -n {node} link set lo up")
        system(f"ip link add veth0 netns {NODES[0]} type veth peer name veth0 netns {NODES[1]}")
        for node, address in zip(NODES, ADDRESSES, strict=True):
            system(f"ip -n {node} address add {address}/24 dev veth0")
            system(f"ip -n {node} link set veth0 up")
        yield
    finally:
        for node in NODES:
            system(f"ip netns del {node}", check=False)


def limit(mbit: int | None) -> None:
    """Limit what each node sends, in megabits per second; None: not at all."""
    for node in NODES:
        system(f"tc -n {node} qdisc del dev veth0 root", check=False)
        if mbit is not None:
            system(f"tc -n {node} qdisc add dev veth0 root tbf rate {mbit}mbit burst 256kb latency 100ms")


def run(words: str, folder: Path) -> tuple[float, float]:
    """Mean seconds of a step, without the first third of them, and bytes that rank 0 sends in one."""
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "veth0", "HF_HUB_OFFLINE": "1"}
    run_dir = Path(tempfile.mkdtemp(dir=folder)) / "run"
    common = [*shlex.split(words), "runner.nodes=2", "runner.processes=1", "runner.device=cpu", f"run_dir={run_dir}"]
    common += [f"budget.steps={STEPS}", "log.every=1", "eval.rows=8", f"eval.every={10**9}"]
    processes = []
    for rank, node in enumerate(NODES):
        where = [f"runner.node_rank={rank}", f"runner.rendezvous={ADDRESSES[0]}:29511"]
        command = ["ip", "netns", "exec", node, sys.executable, "-m", "lmctl", "train", *common, *where]
        processes.append(
            subprocess.Popen(
                command, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{words} failed:\n{said[0][-3000:]}")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    times = [line["seconds"] for line in lines if line["split"] == "train"]
    summary = json.loads((run_dir / "summary.json").read_text())
    first = STEPS // 3
    return (times[-1] - times[first - 1]) / (STEPS - first), summary["bytes_sent"] / summary["steps"]


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", default=MODEL, help="settings of all runs")
    p.add_argument("--links", type=int, nargs="+", default=[1000, 200], help="rates in megabits per second")
    p.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    args = p.parse_args()
    if os.geteuid():
        raise SystemExit("network namespaces and rates want root")
    rows = []
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder, joined():
        for side in args.sides:
            words = f"mix=clm {args.model} {SIDES[side]}"
            limit(None)
            free, sent = run(words, Path(folder))
            for mbit in args.links:
                limit(mbit)
                limited, _ = run(words, Path(folder))
                wire = sent * 8 / (mbit * 1e6)
                hidden = min(1.0, max(0.0, 1 - (limited - free) / wire))
                rows.append(
                    [side, f"{sent / 2**20:.1f}", f"{mbit:,}", f"{1000 * free:.0f}", f"{1000 * limited:.0f}",
                     f"{1000 * wire:.0f}", f"{100 * hidden:.0f}"]
                )  # fmt: skip
                print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(f"`mix=clm {args.model}`, {STEPS} steps, two nodes of one thread each, on {machine(None)}:\n")
    heads = ["", "MiB sent a step", "link Mbit/s", "ms a step unlimited", "ms limited", "ms of sending", "hidden %"]
    print("\n".join(table(heads, rows)))


if __name__ == "__main__":
    main()
