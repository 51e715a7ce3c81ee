"""Several nodes: what each must be told, what is refused, and that two launchers make the run of one."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import metrics, write_documents
from in_process import run_here
from nodes import DDP, PLACE, Nodes, free_port, one_node, two_folders, weights

from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths
from lmctl.parallel import agreement
from lmctl.parallel.launch import NotMet, launch
from lmctl.runner.base import Node
from lmctl.runner.places import Ddp


def test_a_node_is_told_its_number_and_where_to_meet(monkeypatch: pytest.MonkeyPatch):
    for name in ("NODE_RANK", "SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert Ddp(2, device="cpu", nodes=3).world() == 6
    assert Ddp().node() == Node()
    assert Ddp(nodes=2, node_rank=1, rendezvous="a:1").node() == Node(2, 1, "a:1")
    with pytest.raises(ConfigError, match="nothing says which of them this is"):
        Ddp(nodes=2, rendezvous="a:1").node()
    monkeypatch.setenv("SLURM_NODEID", "1")
    with pytest.raises(ConfigError, match="nothing says where the nodes meet"):
        Ddp(nodes=2).node()
    monkeypatch.setenv("MASTER_ADDR", "first")
    assert Ddp(nodes=2).node() == Node(2, 1, "first:29500")
    monkeypatch.setenv("MASTER_PORT", "4711")
    monkeypatch.setenv("NODE_RANK", "0")
    assert Ddp(nodes=2).node() == Node(2, 0, "first:4711")
    monkeypatch.setenv("NODE_RANK", "5")
    with pytest.raises(ConfigError, match="said to be number 5"):
        Ddp(nodes=2).node()


def test_processes_have_something_to_run_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for processes in (None, 2):
        with pytest.raises(ConfigError, match="no GPU is visible here"):
            Ddp(processes=processes, device="gpu").world()
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(ConfigError, match="this machine has 2 cores") as refused:
        Ddp(processes=100_000, device="cpu").world()
    assert refused.value.hint == "nearest: runner.processes=64"
    assert Ddp(processes=64, device="cpu").world() == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("runner.nodes=2 runner.node_rank=2", "node_rank must be 0 to 1 with nodes=2, got 2"),
        ("runner.nodes=2 runner.rendezvous=host", "rendezvous must be HOST:PORT, got 'host'"),
        ("runner.nodes=2 runner.node_rank=0", "nothing says where the nodes meet"),
        ("runner.nodes=0", "nodes must be at least 1"),
        ("runner.timeout_s=0", "timeout_s must be at least 1"),
        ("runner.processes=3", "batch.size=8 cannot be shared equally by 3 processes"),
        ("runner.nodes=8 runner.node_rank=0 runner.rendezvous=a:1", "cannot be shared equally by 16 processes"),
    ],
)
def test_a_wrong_number_is_one_line(tmp_path, monkeypatch, words: str, said: str):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    write_documents(tmp_path / "docs.txt", count=8)
    answer = run_here("train", *PLACE, *DDP[:2], "data.path=docs.txt", *words.split(), cwd=tmp_path, ends=2)
    lines = answer.splitlines()
    assert said in " ".join(lines[[line.startswith("error: ") for line in lines].index(True) :][:2])
    assert not (tmp_path / "runs").exists()


def test_a_node_that_does_not_come_is_one_line(monkeypatch: pytest.MonkeyPatch):
    port = free_port()
    with pytest.raises(NotMet, match=f"not all of the 2 nodes came to localhost:{port} within 1s"):
        launch(1, None, node=Node(2, 0, f"localhost:{port}"), wait_s=1)
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NotMet, match=f"localhost:{port} is in use"):
            launch(1, None, node=Node(2, 0, f"localhost:{port}"), wait_s=1)


class Two:
    """Rank 0 of two processes, whose other one has other answers."""

    first, rank = True, 0

    def __init__(self, *others: Any) -> None:
        self.others = list(others)

    def gathered(self, value: Any) -> list[Any]:
        return [value, self.others.pop(0)]

    def broadcast(self, value: Any) -> Any:
        return value

    def first_does(self, act: Any) -> Any:
        return act()

    def new_group(self) -> None:
        return None


CONFIG: Mapping[str, Any] = {
    "name": "a",
    "batch": {"size": 8},
    "budget": {"steps": 5},
    "run_dir": "x",
    "resume": "false",
}


@pytest.mark.parametrize(
    ("versions", "config", "said"),
    [
        ({}, {}, None),
        ({}, {"name": "b", "run_dir": "y", "cache_dir": "z"}, None),
        ({"lmctl": "0.0.1"}, {}, r"lmctl is 0\.0\.1 on other and .* on node 0"),
        ({"torch": "1.0"}, {}, r"torch is 1\.0 on other"),
        ({}, {"batch": {"size": 16}}, r"batch\.size is 16 on other and 8 on node 0"),
        ({}, {"budget": {"epochs": 5}}, r"budget\.epochs is 5 on other and not set on node 0"),
        ({}, {"resume": "auto"}, r'resume is "auto" on other and "false" on node 0'),
    ],
)
def test_nodes_must_have_the_same_versions_and_config(versions, config, said):
    theirs = ("other", agreement.versions() | versions), ("other", agreement.settings({**CONFIG, **config}))
    two: Any = Two(*theirs)
    if said is None:
        agreement.check_config(two, CONFIG)
        return
    with pytest.raises(ConfigError, match=said):
        agreement.check_config(two, CONFIG)


def test_nodes_must_have_the_same_data():
    two: Any = Two(("other", {"the tokenizer": "1", "the text of corpus": "3"}))
    with pytest.raises(ConfigError, match="the text of corpus is not the same on other as on node 0"):
        agreement.check_data(two, {"tokenizer": "1", "corpus": "2"})


@pytest.mark.parametrize("sees", [True, False])
def test_a_folder_must_be_shared(tmp_path: Path, sees: bool):
    two: Any = Two("other", sees)
    if sees:
        assert not agreement.find_disks(two, Paths(tmp_path), shared=True).apart
    else:
        with pytest.raises(ConfigError, match="other does not see what node 0"):
            agreement.find_disks(two, Paths(tmp_path), shared=True)
        two.others = ["other", False]
        assert agreement.find_disks(two, Paths(tmp_path), shared=False).apart == {1: [1]}
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A folder for each of two nodes, with the same text."""
    return two_folders(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_launchers_make_the_run_of_one(tmp_path: Path, folders: list[Path]):
    """Each with its environment, folder, text and cache; only the run directory is shared."""
    one = one_node(folders[0], "runner.processes=2", "data.path=docs.txt")
    for name in ("ours", "torchrun"):
        nodes = Nodes(folders, "data.path=docs.txt", f"run_dir={tmp_path}/{name}")
        ends = nodes.start().ended() if name == "ours" else nodes.torchrun().ended()
        assert [code for code, _ in ends] == [0, 0], ends
        made = [said.count("cache miss: built") for _, said in ends]
        assert made == ([3, 3] if name == "ours" else [0, 0]), "a tokenizer and two splits, once on each node"
        assert metrics(tmp_path / name) == metrics(one)
        assert weights(tmp_path / name) == weights(one)
    assert all((folder / "cache").is_dir() for folder in folders)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run_dir=runs/r"], "run_dir=runs/r: node 1 ({host}) does not see what node 0 ({host}) writes there"),
        (["budget.steps=7", "run_dir={both}"], "budget.steps is 7 on node 1 ({host}) and 6 on node 0 ({host})"),
        (["data.path=other.txt", "run_dir={both}"], "the text of corpus is not the same on node 1 ({host})"),
    ],
    ids=["folder", "config", "text"],
)
def test_nodes_that_do_not_agree_end_at_once(tmp_path: Path, folders: list[Path], words: list[str], said: str):
    write_documents(folders[1] / "other.txt", seed=7)
    names = {"host": socket.gethostname(), "both": str(tmp_path / "both")}
    own = [word.format(**names) for word in words]
    nodes = Nodes(folders, "data.path=docs.txt", next(word for word in own if word.startswith("run_dir")))
    answer = nodes.start([], [word for word in own if not word.startswith("run_dir")]).errors()
    assert said.format(**names) in answer
    assert answer.count("error: ") == 1, answer
    assert not (tmp_path / "both").exists()
    assert not any((folder / "runs").exists() for folder in folders)


def test_a_plan_says_how_to_start_it(tmp_path: Path):
    words = ["model=bert_tiny", "batch.size=64", "runner=ddp", "runner.nodes=4", "runner.processes=8"]
    said = run_here("plan", *words, "gpus=8", "gpu_memory_gib=80", "runner.rendezvous=first:4711", cwd=tmp_path)
    starts = [line.split(maxsplit=1)[1].strip() for line in said.splitlines() if line.startswith("start ")]
    rest = "-m lmctl train model=bert_tiny batch.size=64 runner=ddp"
    machine = "--machine_rank=R --main_process_ip=first --main_process_port=4711"
    assert starts == [
        f"lmctl train {' '.join(words)} runner.node_rank=R runner.rendezvous=first:4711",
        f"torchrun --nnodes=4 --node-rank=R --master-addr=first --master-port=4711 --nproc-per-node=8 {rest}",
        f"accelerate launch --multi_gpu --num_machines=4 --num_processes=32 {machine} {rest}",
    ]
    assert "one of 32 processes" in said
