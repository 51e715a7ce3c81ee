"""Sweeps (`-m`): a process for each job, failed, killed and stopped jobs, and going on with the same command."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmctl.cli.main import main
from lmctl.config.overrides import Overrides
from lmctl.config.verb import verb
from lmctl.core import child_process
from lmctl.core.errors import ConfigError
from lmctl.jobs.job import Job, Slots
from lmctl.jobs.sweep import Sweep, job_names, sweep_dir
from lmctl.jobs.sweep_table import print_table

JOB = """
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(words["run_dir"].strip('"'))
seed = int(words["seed"])
print("job", seed, "gpus", os.environ.get("CUDA_VISIBLE_DEVICES"))
if words.get("clip_norm") == "2":  # this sweep is told to stop by one of its jobs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(30)
if seed == 3 and words.get("clip_norm") != "1":
    sys.exit("error: seed 3 is unlucky")
if seed == 4:
    os.kill(os.getpid(), signal.SIGKILL)
size = {"total": 16.0 if words.get("precision") == "fp32" else 12.25}
summary = {"status": "completed", "steps": 5, "valid": {"loss": seed / 2}, "precision": {"bytes_per_parameter": size}}
(folder / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Jobs that take no time: a script in place of `python -m lmctl train`."""
    real = Sweep.command

    def command(self: Sweep, job: Job, hydras: Sequence[str]) -> list[str]:
        words = real(self, job, hydras)
        assert words[:5] == child_process.command("train")
        return [sys.executable, "-c", JOB, *words[5:]]

    monkeypatch.setattr(Sweep, "command", command)
    monkeypatch.chdir(tmp_path)


def rows(folder: str) -> list[dict[str, Any]]:
    return json.loads((Path("runs") / folder / "summary.json").read_text())


def sweep(line: str) -> int:
    return main(["train", "-m", *line.split()])


def test_every_job_runs_and_is_reported(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=grid precision=fp32,fp16 seed=1,2") == 0
    names = [row["name"] for row in rows("grid")]
    assert names == [f"precision={p},seed={s}" for p in ("fp32", "fp16") for s in (1, 2)]
    assert {row["status"] for row in rows("grid")} == {"completed"}
    assert rows("grid")[1]["summary"]["valid"] == {"loss": 1.0}
    assert rows("grid")[1]["overrides"] == ["precision=fp32", "seed=2"]
    out = capsys.readouterr().out
    assert re.search(r"\[2/4\] precision=fp32,seed=2: started, log: runs/grid/precision=fp32,seed=2/log.txt", out)
    assert re.search(r"\[2/4\] precision=fp32,seed=2: completed after [\d.]+ s", out)
    assert re.search(r"^precision=fp16,seed=2 +completed +5 +1\.0000 +12\.25 +[\d.]+", out, re.MULTILINE)
    assert re.search(r"^precision=fp32,seed=1 +completed +5 +0\.5000 +16\.00 +[\d.]+", out, re.MULTILINE)
    assert out.endswith(
        "valid loss over seeds, mean and standard deviation:\n"
        "  precision=fp32  0.7500 +- 0.3536  (2 seeds)\n"
        "  precision=fp16  0.7500 +- 0.3536  (2 seeds)\n"
        "page with curves and effects: runs/grid/compare.html\n"
    )


def test_a_page_is_kept_and_never_in_the_way(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=page precision=fp32,fp16 seed=1,3") == 1  # seed 3 fails
    page = Path("runs/page/compare.html").read_text()
    assert "seed 3 is unlucky" in page
    assert '"running": false' in page
    capsys.readouterr()
    Path("runs/full/compare.html").mkdir(parents=True)  # where no file can be written
    assert sweep("name=full seed=1,2") == 0
    printed = capsys.readouterr()
    assert printed.err.count("warning: runs/full/compare.html cannot be written") == 1
    assert "page with" not in printed.out


def test_what_is_not_legal_is_said_first_and_not_started(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=s runner=cpu compression=none,int8,topk seed=1,2") == 2
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in out[:4]] == ["refused"] * 4
    assert "nearest: compression=none" in out[0]
    assert {row["name"]: row["status"] for row in rows("s")} == {
        f"compression={c},seed={s}": "completed" if c == "none" else "refused"
        for c in ("none", "int8", "topk")
        for s in (1, 2)
    }
    assert not Path("runs/s/compression=int8,seed=1").exists()
    told = [line for line in out[4:] if "nearest" in line]  # the same reason is told once, not for each job
    assert len(told) == 1
    assert told[0].startswith("compression=int8,seed=1 and 3 others: ")


def test_jobs_that_had_not_begun_when_the_sweep_was_stopped(tmp_path: Path):
    job = Job("a", [], str(tmp_path / "a"))
    job.start([sys.executable, "-c", "import time; time.sleep(30)"], {})
    job.send(signal.SIGTERM)
    while not job.poll():
        time.sleep(0.01)
    assert job.status == "stopped"


def test_what_was_measured_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jobs = [Job(f"batch={n}", [f"batch={n}"], str(tmp_path / str(n)), "completed") for n in (1, 2)]
    for job, value in zip(jobs, (3.25, 4.5), strict=True):
        job.results.parent.mkdir()
        job.results.write_text(json.dumps({"perplexity": {"perplexity_per_word": value, "documents": 7}}))
    print_table(jobs)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["job", "status", "perplexity_per_word", "seconds"], ["batch=1", "completed", "3.2500"],
                     ["batch=2", "completed", "4.5000"]]  # fmt: skip


def test_failed_and_killed_jobs_do_not_end_the_sweep(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=s seed=3,4,1") == 1
    assert [(row["status"], row["code"], row["error"]) for row in rows("s")] == [
        ("failed", 1, "seed 3 is unlucky"),
        ("failed", -9, "killed by SIGKILL"),
        ("completed", 0, None),
    ]
    assert capsys.readouterr().err == "error: 2 of 3 jobs did not complete\n  the same command goes on with them\n"


def test_what_teachers_were_good_for_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jobs = [Job(name, [f"distill={name}"], str(tmp_path / name), "completed") for name in ("logits", "hidden", "alone")]
    for job, more in zip(jobs, ({"gap_closed": {"loss": 0.844}}, {"gap_closed": {"loss": None}}, {}), strict=True):
        Path(job.run_dir).mkdir()
        (Path(job.run_dir) / "summary.json").write_text(json.dumps({"steps": 5, "valid": {"loss": 1.5}, **more}))
    print_table(jobs)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:6] == ["job", "status", "steps", "valid", "loss", "gap"]
    assert [line[4:] for line in lines[1:4]] == [["84%"], ["no", "gap"], []]
    print_table(jobs[2:])
    assert "gap closed" not in capsys.readouterr().out


def test_seeds_have_a_line_of_their_own(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=r precision=fp32,fp16 seed=2") == 0
    assert sweep("name=t precision=fp32 seed=1,3") == 1
    assert "over seeds" not in capsys.readouterr().out
    assert sweep("name=s seed=1,2,6,3") == 1  # 3 fails, and does not count
    mean, deviation = 1.5, (((0.5 - 1.5) ** 2 + (1 - 1.5) ** 2 + (3 - 1.5) ** 2) / 2) ** 0.5
    assert f"deviation:\n  {mean:.4f} +- {deviation:.4f}  (3 seeds)\npage" in capsys.readouterr().out


def test_the_same_command_goes_on(capsys: pytest.CaptureFixture[str]):
    assert sweep("seed=1,3 clip_norm=null") == 1
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch("sweep-[0-9a-f]{8}", folder.name)
    capsys.readouterr()
    assert sweep("clip_norm=null seed=3,1") == 1
    out = capsys.readouterr().out
    assert "seed=1: already completed" in out
    assert "seed=3: started" in out
    assert list(Path("runs").iterdir()) == [folder]


def test_a_changed_job_runs_again(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=s seed=1,3 clip_norm=null") == 1
    assert sweep("name=s seed=1,3 clip_norm=1") == 0
    assert "already" not in capsys.readouterr().out


def test_a_stopped_sweep_passes_the_signal_on(capsys: pytest.CaptureFixture[str]):
    assert sweep("name=s seed=1,2 clip_norm=2") == 75
    assert [(row["status"], row["code"]) for row in rows("s")] == [("stopped", 75), ("not started", None)]


def test_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert sweep("name=s seed=1,2,5 hydra.launcher.n_jobs=3 hydra.launcher.gpus_per_job=1") == 0
    logs = [Path(row["run_dir"], "log.txt").read_text().split()[-1] for row in rows("s")]
    assert sorted(logs) == ["4", "5", "6"]


def test_a_sweep_does_not_write_into_a_run(capsys: pytest.CaptureFixture[str]):
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/config.yaml").touch()
    assert sweep("name=one seed=1,2") == 2
    assert "error: runs/one holds a single run, so no sweep can go there\n" in capsys.readouterr().err


def test_jobs_resume_in_a_directory_of_their_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # the command is the real one
    words = Sweep(verb("train"), lambda cfg: None, ["--config-dir", "c"]).command(
        Job("seed=1", ["seed=1"], "runs/s/seed=1")
    )
    own = ["seed=1", 'run_dir="runs/s/seed=1"', 'name="seed=1"', "resume=auto"]
    assert words[4:] == ["train", "--config-dir", "c", *own]


def test_threads_are_shared_and_gpus_may_be_too_few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match="2 jobs with 1 GPUs each, and 1 GPUs are visible"):
        Slots(2, 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert Slots(2, 0).take(1) == {"OMP_NUM_THREADS": "4"}
    assert Slots(1, 0).take(1) == {}


words = st.builds(
    "{}={}".format, st.sampled_from(["seed", "optim.lr", "precision"]), st.sampled_from(["1", "2,3", "[1,2]"])
)


@given(st.lists(words, unique=True).flatmap(lambda w: st.tuples(st.just(w), st.permutations(w))))
def test_the_directory_does_not_depend_on_the_order(orders: tuple[list[str], list[str]]):
    assert written_to(*orders[0]) == written_to(*orders[1])


def written_to(*words: str) -> Path:
    return sweep_dir(Overrides.typed(words))


def test_directories():
    assert written_to("seed=1,2") == written_to("seed=2,1")
    assert written_to("seed=1,2") != written_to("seed=1,3")
    assert written_to("optim.betas=[0.9,0.99],[0.8,0.9]") != written_to("optim.betas=[0.99,0.9],[0.8,0.9]")
    assert written_to("name=a", "seed=1,2") == Path("runs/a")
    assert written_to("run_dir=/x/y", "seed=1,2") == Path("/x/y")


@given(
    st.lists(st.lists(st.text(max_size=120), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5, unique=True)
)
def test_names_of_jobs_are_fit_for_a_directory_and_distinct(values: list[tuple[str, ...]]):
    jobs = [[f"k{i}={value}" for i, value in enumerate(job)] for job in values]
    names = job_names(jobs)
    assert len(set(names)) == len(names)
    assert all(len(name) <= 100 and "/" not in name and name not in (".", "..") for name in names)
