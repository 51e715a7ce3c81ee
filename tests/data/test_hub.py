"""`data=hub`: every way a dataset can lie about, what is said of mistakes, and when a dataset counts as another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from command import HELPERS, elsewhere
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Translation, Value

from lmctl.core.batch import Row
from lmctl.core.errors import ConfigError, DataError, LmctlError
from lmctl.data.hub import Hub

datasets.disable_progress_bars()
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good", "unheard of"])})
ROWS = [{"text": f"text number {i}", "label": i % 2} for i in range(20)]


def dataset(rows: list[dict[str, Any]] = ROWS, features: Features = FEATURES) -> Dataset:
    return Dataset.from_list(rows, features=features)


def parquet(folder: Path, split: str = "train", shards: int = 3, data: Dataset | None = None) -> str:
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        (data or dataset()).shard(shards, shard).to_parquet(folder / f"{split}-{shard:05}-of-{shards:05}.parquet")
    return str(folder)


def both(source: Hub) -> list[Row]:
    return [*source.rows("train"), *source.rows("valid")]


def texts(rows: list[Row]) -> list[str]:
    return sorted(row.texts[0] for row in rows)


@pytest.mark.parametrize("kind", ["saved", "parquet", "jsonl", "csv", "one file"])
@pytest.mark.parametrize("streaming", [False, True])
def test_the_same_rows_however_they_are_kept(tmp_path: Path, kind: str, streaming: bool):
    path = tmp_path / "data"
    if kind == "saved":
        dataset().save_to_disk(path, num_shards=3)
    elif kind == "parquet":
        parquet(path)
    elif kind == "jsonl":
        dataset().to_json(path / "train.jsonl")
    elif kind == "csv":
        dataset().to_csv(path / "train.csv")
    else:
        path = tmp_path / "all.jsonl"
        dataset().to_json(path)
    source = Hub(str(path), label="label", streaming=streaming)
    named = kind in ("saved", "parquet")
    assert source.label_names == (("bad", "good", "unheard of") if named else ())
    rows = both(source)
    assert texts(rows) == sorted(row["text"] for row in ROWS)
    assert {row.label for row in rows} == ({"bad", "good"} if named else {"0", "1"} if kind == "csv" else {0, 1})
    assert len(list(source.rows("valid"))) == 1
    assert source.streamed == streaming
    assert ("streaming: tokenizer and word counts from the first 20 rows" in source.describe()) == streaming


def test_a_split_that_validates_is_not_trained_on(tmp_path: Path):
    valid = dataset([*ROWS[3:5], {"text": "new", "label": 1}])
    DatasetDict({"train": dataset(), "validation": valid, "test": valid}).save_to_disk(tmp_path / "all")
    source = Hub(str(tmp_path / "all"), label="label", valid_split="validation")
    assert [row.texts[0] for row in source.rows("valid")] == ["text number 3", "text number 4", "new"]
    assert len(list(source.rows("train"))) == 18
    assert "other splits (data.valid_split=): validation, test" in Hub(str(tmp_path / "all")).describe()


def test_translations_and_several_labels(tmp_path: Path):
    tagged = List(ClassLabel(names=["x", "y"]))
    features = Features({"translation": Translation(languages=["en", "de"]), "tags": tagged, "t": Value("string")})
    rows = [
        {"translation": {"en": f"one {i}", "de": f"eins {i}"}, "tags": [0, 1][: i % 3], "t": str(i)} for i in range(6)
    ]
    dataset(rows, features).save_to_disk(tmp_path / "mt")
    pairs = Hub(str(tmp_path / "mt"), source="translation.en", target="translation.de")
    assert pairs.yields == "parallel"
    assert sorted(row.texts for row in both(pairs)) == [[f"one {i}", f"eins {i}"] for i in range(6)]
    tags = Hub(str(tmp_path / "mt"), text="t", label="tags")
    assert tags.label_names == ("x", "y")
    assert sorted((row.texts[0], row.label) for row in both(tags)) == [(str(i), ["x", "y"][: i % 3]) for i in range(6)]
    with pytest.raises(ConfigError, match=r"no column 'translation.fr'; did you mean translation.en"):
        list(Hub(str(tmp_path / "mt"), source="translation.en", target="translation.fr").rows("train"))


def test_a_bad_row_is_named_or_counted(tmp_path: Path):
    rows = [*ROWS[:3], {"text": "no label", "label": -1}, {"text": "", "label": 0}]
    path = parquet(tmp_path / "rows", shards=1, data=dataset(rows))
    with pytest.raises(DataError, match=r"rows\[train\] row 4: column 'label' is empty"):
        list(Hub(path, label="label").rows("train"))
    skipping = Hub(path, label="label", on_bad_row="skip")
    assert len(both(skipping)) == 3
    assert r"2 bad rows skipped, the first:" in skipping.describe()
    assert r"rows[train] row 4: column 'label' is empty" in skipping.describe()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("saved", {"text": "txet"}, "no column 'txet'; did you mean text?"),
        ("saved", {"label": "lable"}, "no column 'lable'; did you mean label?"),
        ("saved", {"train_split": "tran"}, "data.train_split=tran: PATH has no such split; did you mean train?"),
        ("saved", {"valid_split": "dev"}, "data.valid_split=dev: PATH has no such split; there are: train"),
        ("saved", {"config": "en"}, "data.config=en: PATH was saved as one dataset and has no configurations"),
        ("parquet", {"text": "txet"}, "no column 'txet'; did you mean text?"),
        ("parquet", {"config": "defualt"}, "PATH has no such configuration; did you mean default?"),
        ("parquet", {"revision": "v1"}, "data.revision=v1 is a version of a dataset on the hub, and PATH is here"),
        ("empty", {}, "data.path=PATH cannot be loaded: The directory at PATH doesn't contain any data files"),
        ("script", {}, "data.path=PATH is a loading script, and no code that comes with data is run"),
        ("broken", {}, "PATH[train] cannot be read"),
        ("absent", {}, "PATH does not exist"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path: Path, kind: str, options: dict[str, str], message: str):
    path = tmp_path / "data"
    if kind == "saved":
        dataset().save_to_disk(path)
    elif kind == "parquet":
        parquet(path, shards=1)
    elif kind != "absent":
        path.mkdir()
        if kind == "broken":
            (path / "train.parquet").write_bytes(b"PAR1 and no more")
        elif kind == "script":
            (path / "data.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(LmctlError) as caught:
        list(Hub(str(path), **options).rows("train"))
    assert message.replace("PATH", str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path must name a dataset on the hub"),
        ({"path": "x", "valid_split": "train"}, "valid_split is train_split"),
        ({"path": "x", "train_split": ""}, "must name a split"),
        ({"path": "x", "buffer": 1}, "buffer must be at least 2"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Hub(**options)


@pytest.mark.parametrize("kind", ["saved", "jsonl"])
def test_a_dataset_is_another_one_when_its_rows_are(tmp_path: Path, kind: str):
    """Whatever its dates say. In other processes it is the same one: see the end of `test_names_on_the_hub`."""
    path = tmp_path / "data"
    if kind == "saved":
        dataset().save_to_disk(path)
    else:
        dataset().to_json(path / "train.jsonl")
    before = Hub(str(path)).fingerprint()
    assert Hub(str(path)).fingerprint() == before
    file = next(file for file in path.iterdir() if file.name.endswith((".jsonl", ".arrow")))
    status, contents = file.stat(), file.read_bytes()
    file.write_bytes(contents.replace(b"text number 19", b"text number 91"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = Hub(str(path))
    assert after.fingerprint() != before
    assert "text number 91" in texts(both(after))
    assert Hub(str(path), streaming=True).fingerprint() != after.fingerprint()


def test_the_names_of_classes_are_part_of_the_data(tmp_path: Path):
    prints = []
    for names in (["a", "b"], ["b", "a"]):
        features = Features({**FEATURES, "label": ClassLabel(names=names)})
        dataset(features=features).save_to_disk(tmp_path / names[0])
        prints.append(Hub(str(tmp_path / names[0]), label="label").fingerprint())
    assert prints[0] != prints[1]


def test_without_a_network(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*words: Any, **more: Any) -> None:
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(DataError) as caught:
        Hub("someone/small").fingerprint()
    known = "data.path=someone/small is not here, and the hub cannot be reached: Name or service not known"
    assert str(caught.value) == known
    assert "HF_HUB_OFFLINE=1" in str(caught.value.hint)


ON_THE_HUB = """
import json, sys
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import LmctlError
from lmctl.data.hub import Hub

def seen(**options):
    source = Hub(**options)
    try:
        rows = [*source.rows("train"), *source.rows("valid")]
        at, left = {}, []
        while source.streamed and at is not None:
            block = source.block(0, at or None, CounterRng(1, "shards"))
            at, left = block.after, left + block.rows
        return [len(rows), len(left), rows[0].label, source.fingerprint()]
    except LmctlError as error:
        return f"{type(error).__name__}: {error} ({error.hint})"

print(json.dumps([seen(**options) for options in json.loads(sys.argv[1])]))
"""


def on_the_hub(folder: Path, port: int, *options: dict[str, Any], offline: str = "0") -> list[Any]:
    """What a process sees that takes `hub_server.py` for the hub."""
    there = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(folder / "hf")}
    there |= {"HF_HUB_OFFLINE": offline, "HF_DATASETS_OFFLINE": offline}
    return json.loads(elsewhere(ON_THE_HUB, json.dumps(options), folder=folder, cache=folder, **there))


def test_names_on_the_hub(tmp_path: Path):
    repository = tmp_path / "repository"
    parquet(repository, "train", data=dataset())
    parquet(repository, "extra", 1, data=dataset(ROWS[:5]))
    cards = "".join(
        f"- config_name: {name}\n  data_files: [{{split: train, path: {name}-*}}]\n" for name in ("train", "extra")
    )
    (repository / "README.md").write_text(f"---\nconfigs:\n{cards}---\n")
    small = {"path": "someone/small", "label": "label", "config": "train"}
    command = [sys.executable, str(HELPERS / "hub_server.py"), str(repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            stored, streamed, no_config, no_revision, no_dataset = on_the_hub(
                tmp_path,
                port,
                small,
                {**small, "streaming": True, "buffer": 6},
                {**small, "config": "trian"},
                {**small, "revision": "v7"},
                {"path": "someone/large"},
            )
        finally:
            server.kill()
    assert stored[:3] == [20, 0, "good"]
    assert streamed[:3] == [6, 19, "good"]
    assert stored[3]["data"] == {"train": {"commit": "a" * 40, "config": "train"}}
    assert stored[3]["data"] == streamed[3]["data"]
    assert no_config.startswith("ConfigError: data.config=trian: someone/small has no such configuration; did you mean")
    assert no_revision.startswith("ConfigError: data.revision=v7: someone/small has no such branch, tag or commit")
    assert no_dataset.startswith("DataError: data.path=someone/large: neither a file or folder here nor a dataset")
    # Offline, what was downloaded is found again; and this other process takes a local dataset for the same as we do.
    local = {"path": parquet(tmp_path / "local"), "label": "label", "streaming": True, "buffer": 6}
    again, there = on_the_hub(tmp_path, port, small, local, offline="1")
    assert again == stored
    assert there[3] == Hub(**local).fingerprint()
