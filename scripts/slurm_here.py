"""A real Slurm on this machine, for tests: munged, slurmctld and a slurmd for each of some nodes, in one folder.

apt-get install slurm-wlm munge                          # Debian's packages; started as root, without systemd
python scripts/slurm_here.py FOLDER [--nodes 2]          # until Ctrl-C; then: export SLURM_CONF=FOLDER/slurm.conf
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo")
START_SECONDS = 60.0
CONFIG = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,requeue_delay=0
ReturnToService=2
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
"""Jobs of the partition urgent preempt those of main, which are queued again, and wait as long as credentials live."""


def missing() -> list[str]:
    """Programs of Slurm that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@contextmanager
def slurm(folder: Path, nodes: int = 1) -> Iterator[dict[str, str]]:
    """A running cluster of `nodes` nodes, all of them this machine; yields the environment for its commands."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o755)  # munge refuses a folder that others may write to
    config = folder / "slurm.conf"
    first, *ports = _free_ports(nodes + 1)
    lines = [
        f"NodeName=n{number} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
        for number, port in enumerate(ports)
    ]
    words = {"folder": folder, "host": socket.gethostname(), "port": first, "nodes": "\n".join(lines)}
    config.write_text(CONFIG.format(**words).lstrip())
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "state").mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(config), "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    slurmds = [["slurmd", "-D", "-N", f"n{number}"] for number in range(nodes)]
    running = list[subprocess.Popen[bytes]]()
    try:
        for command in (munged, ["slurmctld", "-D", "-c"], *slurmds):
            running.append(_started(command, folder, environment))
            time.sleep(0.5)
        _wait_for_nodes(nodes, environment, running)
        yield environment
    finally:
        subprocess.run(["scancel", "--full", "-u", "root"], env=environment, check=False, capture_output=True)
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _started(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with open(folder / f"{command[0]}{command[-1] if command[0] == 'slurmd' else ''}.out", "ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
        )


def _wait_for_nodes(nodes: int, environment: dict[str, str], running: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "main", "-o", "%T"], env=environment, capture_output=True, text=True
        )
        if done.stdout.split().count("idle") == nodes:
            return
        ended = [str(process.args) for process in running if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"no cluster: {ended} ended; sinfo: {done.stdout} {done.stderr}")
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    options = parser.parse_args()
    if gone := missing():
        print(f"not installed: {', '.join(gone)}; apt-get install slurm-wlm munge", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the cluster ends with this
    with slurm(options.folder.absolute(), options.nodes):
        print(f"export SLURM_CONF={options.folder.absolute()}/slurm.conf", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
