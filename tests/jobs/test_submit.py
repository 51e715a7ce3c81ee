"""`runner=slurm`: what is submitted, what `lmctl jobs` says of it, and that it saves, is queued again and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command import ROOT, SMALL, command, environment, metrics, summary, write_documents
from in_process import run_here

sys.path.append(str(ROOT / "scripts"))

from slurm_here import missing, slurm

from lmctl.core.paths import Paths
from lmctl.jobs.job_state import GONE, JobRecord, state_of

LIMIT = 240
WORDS = [word for word in SMALL if not word.startswith("runner=")]
WORDS += ["data.path=docs.txt", "eval.every=null", "log.every=1", "runner=slurm", "runner.device=cpu"]
SBATCH = """#!/bin/sh
cp "$1" "$HERE/script.sh"
[ -n "$REFUSES" ] && { echo "sbatch: error: invalid partition specified: $REFUSES" >&2; exit 1; }
echo "Submitted batch job 4711"
"""
SQUEUE = """#!/bin/sh
[ -f "$HERE/state" ] && cat "$HERE/state"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with commands that answer like Slurm's."""
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", "#!/bin/sh\n"), ("squeue", SQUEUE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HERE", str(tmp_path))
    write_documents(tmp_path / "docs.txt", count=8)
    return tmp_path


def test_a_job_is_submitted_once(cluster: Path, monkeypatch: pytest.MonkeyPatch):
    own = ["runner.partition=gpu", "runner.nodes=2", "runner.processes=4", "runner.minutes=90", "name=r"]
    more = ["runner.setup=[module load cuda]", "+runner.sbatch.constraint=h100"]
    monkeypatch.setattr(sys, "argv", ["lmctl"])
    said = run_here("train", *WORDS, *own, *more, cwd=cluster)
    assert "submitted as job 4711: 2 x 4" in said
    script = (cluster / "script.sh").read_text()
    for line in ("partition=gpu", "nodes=2", "time=90", "ntasks-per-node=1", "constraint=h100", "signal=USR1@300"):
        assert f"#SBATCH --{line}\n" in script
    assert "\n#SBATCH --requeue\n" in script
    assert "\nmodule load cuda\n" in script
    record = JobRecord.read(Paths(cluster / "runs" / "r"))
    assert record == JobRecord("4711", "slurm")
    (cluster / "state").write_text("PENDING\n")
    assert state_of(record) == "PENDING"
    assert "job 4711 of runs/r is there already: PENDING" in run_here("train", *WORDS, *own, *more, cwd=cluster)
    (row,) = [json.loads(line) for line in run_here("jobs", "format=json", cwd=cluster).splitlines()]
    assert (row["run"], row["job"], row["state"], row["status"]) == ("runs/r", "4711", "PENDING", None)
    (cluster / "state").unlink()
    assert state_of(record) == GONE
    assert "4711" in run_here("jobs", "runs/r", cwd=cluster)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runner.partition=none"], "sbatch refuses the job: sbatch: error: invalid partition specified: none"),
        (["resume=elsewhere"], "a job that is started again goes on from the newest checkpoint"),
        (["runner.processes=3"], "batch.size=8 cannot be shared equally by 3 processes"),
        (["runner.cluster=local", "runner.nodes=2"], "cluster=local has one node"),
        (["runner.minutes=0"], "minutes must be above 0"),
        (["runner.cluster=k8s"], "runner.cluster must be one of slurm, local, debug"),
    ],
)
def test_what_cannot_be_submitted_is_said(cluster: Path, monkeypatch, words: list[str], said: str):
    monkeypatch.setenv("REFUSES", "none")
    assert said in run_here("train", *WORDS, *words, "name=r", cwd=cluster, ends=2)
    assert JobRecord.read(Paths(cluster / "runs" / "r")) is None


def test_without_slurm_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_documents(tmp_path / "docs.txt", count=8)
    assert "submit on a machine of the cluster" in run_here("train", *WORDS, "name=r", cwd=tmp_path, ends=2)


def wait_until(true: Callable[[], bool], limit: float = LIMIT) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def steps(run: Path) -> int:
    try:
        return max(int(line["step"]) for line in metrics(run))
    except (OSError, ValueError):
        return 0


def is_complete(run: Path) -> bool:
    try:
        return bool(summary(run)["status"] == "completed")
    except (OSError, ValueError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_job_here_makes_the_run_of_the_command(tmp_path: Path, cluster: str):
    write_documents(tmp_path / "docs.txt")
    for words in (["runner=cpu", "name=plain"], [f"runner.cluster={cluster}", "name=job"]):
        own = environment(tmp_path / "cache", CUDA_VISIBLE_DEVICES="")
        kept = [word for word in WORDS if not (words[0] == "runner=cpu" and word.startswith("runner"))]
        subprocess.run(command("train", *kept, "budget.steps=6", *words), cwd=tmp_path, env=own, check=True)
    run = tmp_path / "runs" / "job"
    wait_until(lambda: is_complete(run))
    assert metrics(run) == metrics(tmp_path / "runs" / "plain")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_must_end_saves_and_goes_on(tmp_path: Path):
    """As before the end of a job's time: submitit's local executor starts it again, as Slurm queues it again."""
    write_documents(tmp_path / "docs.txt")
    own = environment(tmp_path / "cache", CUDA_VISIBLE_DEVICES="")
    length = ["budget.steps=60", "checkpoint.every=10000"]
    words = [*WORDS, *length, "runner.cluster=local", "name=job"]
    subprocess.run(command("train", *words), cwd=tmp_path, env=own, check=True)
    run = tmp_path / "runs" / "job"
    wait_until(lambda: steps(run) >= 3)
    record = JobRecord.read(Paths(run))
    assert record is not None
    (task,) = psutil.Process(int(record.id)).children()
    task.send_signal(signal.SIGUSR1)
    wait_until(lambda: is_complete(run))
    assert list((run / "checkpoints").glob("step-*"))
    said = "".join(file.read_text() for file in (run / "job").glob("*.err"))
    assert "resume: step-" in said
    plain = [word for word in WORDS if not word.startswith("runner")]
    subprocess.run(command("train", *plain, *length, "runner=cpu", "name=plain"), cwd=tmp_path, env=own, check=True)
    assert metrics(run) == metrics(tmp_path / "runs" / "plain")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real cluster of two nodes, both of them this machine."""
    if gone := missing():
        pytest.skip(f"Slurm is not installed: {', '.join(gone)}")
    if os.geteuid():
        pytest.skip("slurmd is started as root")
    with slurm(tmp_path_factory.mktemp("slurm"), nodes=2) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_slurm_runs_a_sweep_and_queues_again_what_it_preempts(tmp_path: Path, real: dict[str, str]):
    """Two cells, each a job of two nodes; one of them must end in its middle, is queued again, and goes on."""
    write_documents(tmp_path / "docs.txt")
    own = {**real, **environment(tmp_path / "cache", CUDA_VISIBLE_DEVICES=""), "PATH": real["PATH"]}
    words = [*WORDS, "budget.steps=40", "checkpoint.every=10000", "name=s", "seed=1,2", "runner.nodes=2"]
    sweep = command("train", "-m", *words, "runner.processes=1")
    done = subprocess.run(sweep, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs are with the cluster: lmctl jobs runs=runs/s" in done.stdout
    first, second = (tmp_path / "runs" / "s" / f"seed={seed}" for seed in (1, 2))
    wait_until(lambda: steps(first) >= 3 or steps(second) >= 3)
    interrupted = first if steps(first) else second
    record = JobRecord.read(Paths(interrupted))
    assert record is not None
    subprocess.run(["scancel", "--signal=USR1", record.id], env=own, check=True)
    wait_until(lambda: is_complete(first) and is_complete(second), limit=900)
    said = "".join(file.read_text() for file in (interrupted / "job").glob("*.err"))
    assert "resume: step-" in said
    again = subprocess.run(sweep, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already completed") == 2


ENDLESS = ["budget.steps=1000000", "checkpoint.every=1000000", "schedule=constant", "schedule.warmup=0"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first steps of the run whose jobs are ended, by a command that nothing disturbs."""
    home = tmp_path_factory.mktemp("plain")
    write_documents(home / "docs.txt")
    words = [word for word in WORDS if not word.startswith("runner")]
    plain = command("train", *words, *ENDLESS, "runner=cpu", "name=plain")
    process = subprocess.Popen(plain, cwd=home, env=environment(home / "cache", CUDA_VISIBLE_DEVICES=""))
    run = home / "runs" / "plain"
    try:
        wait_until(lambda: steps(run) >= 1500)
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LIMIT) == 75
    return run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ended_by", ["requeue", "preemption", "time", "scancel"])
def test_whatever_ends_a_job_its_run_goes_on_to_the_bit(
    tmp_path: Path, real: dict[str, str], undisturbed: Path, ended_by: str
):
    write_documents(tmp_path / "docs.txt")
    own = {**real, **environment(tmp_path / "cache", CUDA_VISIBLE_DEVICES=""), "PATH": real["PATH"]}
    run, words = tmp_path / "runs" / "r", [*WORDS, *ENDLESS, "name=r", "runner.cpus=2"]

    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listed() -> tuple[str, str]:
        """State of the job and of the run, as `lmctl jobs` says."""
        row = json.loads(call(*command("jobs", "runs=runs/r", "format=json")))
        return row["state"], row["status"]

    def cancel(job: str) -> None:
        """Cancel a job; again, if that came while it was about to be queued again because its time was over."""
        while listed() != ("CANCELLED", "stopped"):
            subprocess.run(["scancel", job], env=own, check=False)
            time.sleep(3)

    minutes = "1" if ended_by == "time" else "60"
    call(*command("train", *words, f"runner.minutes={minutes}"))
    wait_until(lambda: steps(run) >= 3)
    record = JobRecord.read(Paths(run))
    assert record is not None
    assert listed()[0] == "RUNNING"
    if ended_by == "requeue":
        call("scontrol", "requeue", record.id)
    elif ended_by == "preemption":
        call("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 5")
    elif ended_by == "scancel":
        cancel(record.id)
        call(*command("resume", "runs/r"))
        record = JobRecord.read(Paths(run))
        assert record is not None

    def said() -> str:
        return "".join(file.read_text() for file in (run / "job").glob("*.err"))

    wait_until(lambda: "resume: step-" in said(), limit=600)
    step = int(said().partition("resume: step-")[2][:8])
    wait_until(lambda: steps(run) >= step + 20)
    cancel(record.id)
    reached = min(steps(run), steps(undisturbed))
    assert reached > step
    ours, theirs = ([line for line in metrics(one) if line["step"] <= reached] for one in (run, undisturbed))
    assert ours == theirs
