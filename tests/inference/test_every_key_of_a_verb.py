"""Every key of the verbs that use a model, look at rows or plan has an effect: on what is printed or written, or on
how much goes through the model at a time.

The keys are those of the schemas, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import transformers
import use_models
from use_models import said

from lmctl.config.verb import verb as named

LONG = "the cat sits on the mat , the red dog runs on the blue mat ."
LINES = f"{LONG}\na b c\nthe red dog\nTHE Cat sits\n"
PAIRS = "the cat sits\ta b c d\nthe red dog\tthe blue dog\n"


@dataclass(frozen=True)
class Other:
    """Another value of a key; values in <> are files or models of the fixture."""

    value: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    typed: str = ""
    """On standard input."""
    model: str | None = None
    seen: str = "printed"
    """Where: printed, written (files), or shapes (rows and positions that go through the model at a time)."""


SAMPLED = {"prompt": "the cat", "do_sample": True, "top_k": 0, "max_new_tokens": 12}
GREEDY = {"prompt": "the cat", "max_new_tokens": 12}
GENERATE = {
    "model_path": Other("<gpt2 again>", GREEDY),
    "prompt": Other("a dog", GREEDY),
    "file": Other("<lines>", {"max_new_tokens": 12}, "the cat\n"),
    "top_k": Other(1, SAMPLED),
    "max_new_tokens": Other(5, GREEDY),
    "do_sample": Other(True, GREEDY),
    "temperature": Other(0.1, SAMPLED),
    "top_p": Other(0.01, SAMPLED),
    "beams": Other(4, {"file": "<lines>", "max_new_tokens": 6}),
    "seed": Other(2, SAMPLED),
    "batch": Other(1, {"file": "<lines>", "max_new_tokens": 2}, seen="shapes"),
}
TRANSLATE = {
    "model_path": Other("<marian again>", typed=LINES),
    "file": Other("<lines>", typed="the cat\n"),
    "prefix": Other("a dog ", typed=LINES),
    "beams": Other(1, typed=LINES),
    "length_penalty": Other(0.0, typed=LINES),
    "max_new_tokens": Other(3, typed=LINES),
    "batch": Other(1, typed=LINES, seen="shapes"),
}
RESCORED = {"mode": "nbest", "file": "<lists>", "dev": "<lists>"}
SCORE = {
    "model_path": Other("<gpt2 again>", typed=LINES),
    "mode": Other("lines", typed=PAIRS),
    "file": Other("<lines>", typed="a b c\n"),
    "dev": Other("<other lists>", RESCORED),
    "case": Other("lower", typed=LINES),
    "out": Other("chosen.txt", RESCORED, seen="written"),
    "batch": Other(1, typed=LINES, seen="shapes"),
    "seq_len": Other(8, typed=LINES),
    "format": Other("json", typed=LINES),
}
ROWS = {
    "_target_": "use_models.Rows",
    "train": [[LONG, LONG], ["a dog ."], ["the red dog runs"]],
    "valid": [["a b c"], ["the blue cat"]],
}
HALVED = {"data": ROWS, "suite": "mlm"}
TRANSLATED = {
    "suite": "translation",
    "data": {
        "_target_": "use_models.Rows",
        "yields": "parallel",
        "train": [["the cat", "b c"], ["the red dog", "b b b d"]],
    },
}
INT8 = {"_target_": "lmctl.precision.int8_weight_only.Int8WeightOnly"}
EVAL = {
    "data": Other({**ROWS, "train": [["a b"]]}, {"data": ROWS}),
    "precision": Other({"_target_": "lmctl.precision.bf16.Bf16"}, {"data": ROWS}),
    "quantize": Other(INT8, {"data": ROWS}),
    "model_path": Other("<gpt2 again>", {"data": ROWS}),
    "suite": Other("robustness", {"data": ROWS}),
    "split": Other("valid", {"data": ROWS}),
    "rows": Other(2, {"data": ROWS}),
    "out": Other("figures.json", {"data": ROWS}, seen="written"),
    "batch": Other(1, {"data": ROWS}, seen="shapes"),
    "seq_len": Other(8, {"data": ROWS}),
    "stride": Other(2, {"data": ROWS, "seq_len": 8}),
    "stream": Other(True, {"data": ROWS}),
    "limit": Other(1, HALVED, model="bert"),
    "seed": Other(2, HALVED, model="bert"),
    "beams": Other(1, TRANSLATED, model="marian", seen="written"),
    "length_penalty": Other(0.0, TRANSLATED, model="marian", seen="written"),
    "max_new_tokens": Other(1, TRANSLATED, model="marian", seen="written"),
    "file": Other("<other lists>", {"suite": "nbest", "file": "<lists>", "dev": "<lists>"}),
    "dev": Other("<other lists>", {"suite": "nbest", "file": "<lists>", "dev": "<lists>"}),
    "case": Other("lower", {"suite": "nbest", "file": "<lists>", "dev": "<lists>"}),
    "format": Other("json", {"data": ROWS}),
}
PREDICT = {
    "model_path": Other("<classifier again>", typed=LINES),
    "file": Other("<lines>", typed="the cat\n"),
    "text": Other("other", {"file": "<table>", "text": "text", "text_b": None}),
    "text_b": Other("other", {"file": "<table>", "text": "text", "text_b": None}),
    "input": Other("lines", {"file": "<table>"}),
    "on_bad_row": Other("skip", {"file": "<bad table>"}),
    "probabilities": Other(True, typed=LINES),
    "format": Other("json", typed=LINES),
    "out": Other("labels.txt", typed=LINES, seen="written"),
    "batch": Other(1, typed=LINES, seen="shapes"),
    "seq_len": Other(8, typed=LINES),
}
MASKED = {"prompt": "the [MASK] sits"}
LABELLED = {"_target_": "use_models.Rows", "yields": "labelled", "train": [[LONG, "0"], ["a b", "1"], ["c", "2"]]}
ALSO: list[tuple[str, str, Other]] = [
    ("generate", "top_k", Other(2, MASKED, model="bert")),
    ("score", "case", Other("lower", typed="THE cat\ta b\nthe Red dog\ta\n")),
    ("score", "case", Other("lower", RESCORED)),
    ("score", "seq_len", Other(8, typed=f"{LONG}\ta b\n")),
    ("score", "seq_len", Other(8, typed=LINES, model="bert", seen="shapes")),
    ("score", "batch", Other(1, typed=PAIRS, seen="shapes")),
    ("score", "batch", Other(1, RESCORED, seen="shapes")),
    ("eval", "seed", Other(2, {"data": ROWS, "suite": "robustness"})),
    ("eval", "seed", Other(2, {"data": ROWS, "suite": "robustness"}, model="bert")),
    ("eval", "rows", Other(2, HALVED, model="bert")),
    ("eval", "rows", Other(1, TRANSLATED, model="marian", seen="written")),
    ("eval", "batch", Other(1, HALVED, model="bert", seen="shapes")),
    ("eval", "batch", Other(1, {"data": LABELLED}, model="classifier", seen="shapes")),
    ("eval", "batch", Other(1, TRANSLATED, model="marian", seen="shapes")),
    ("eval", "seq_len", Other(8, HALVED, model="bert")),
    ("eval", "seq_len", Other(8, {"data": LABELLED}, model="classifier", seen="shapes")),
]
"""Keys that go other ways in other modes and suites."""
TABLES: dict[str, dict[str, Other]] = {
    "generate": GENERATE,
    "translate": TRANSLATE,
    "score": SCORE,
    "eval": EVAL,
    "predict": PREDICT,
}
MODEL = {"generate": "gpt2", "translate": "marian", "score": "gpt2", "eval": "gpt2", "predict": "classifier"}
ELSEWHERE = {
    "runner": "tests/train/test_every_key_of_a_step.py: a place is the one that is named",
    "trusted": "tests/config/test_build.py; without it the sources of these tests would be refused",
    "task": "tests/inference/test_eval_own.py and tests/inference/test_predict.py: models with several tasks",
}


@pytest.mark.parametrize("verb", TABLES)
def test_no_key_is_forgotten(verb: str):
    keys = {field.name for field in fields(named(verb).schema)}
    assert set(TABLES[verb]) == keys - set(ELSEWHERE)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models and files, by what the tables call them."""
    folder = tmp_path_factory.mktemp("places")
    made = {
        "gpt2": use_models.gpt2(folder / "gpt2"),
        "gpt2 again": use_models.gpt2(folder / "gpt2-again", seed=1),
        "bert": use_models.bert(folder / "bert"),
        "marian": use_models.marian(folder / "marian", ends=2.0),
        "marian again": use_models.marian(folder / "marian-again"),
        "classifier": use_models.bert(folder / "class", "BertForSequenceClassification", num_labels=3),
    }
    network = transformers.AutoModelForSequenceClassification.from_pretrained(made["classifier"])
    network.classifier.bias.data += 3.0 * network.classifier.bias.new_tensor([0, 1, 2])
    made["classifier again"] = use_models.save(folder / "class-again", network)
    hyps = [[-1.0, "a b"], [-1.5, "A c d"], [-2.0, "the cat sits"]]

    def lists(*right: str) -> str:
        rows = [{"text": text, "score": score} for score, text in hyps]
        return "".join(json.dumps({"id": n, "ref": ref, "hyps": rows}) + "\n" for n, ref in enumerate(right))

    texts = {
        "lines": LINES,
        "lists": lists("the cat sits", "the cat sits"),
        "other lists": lists("a b", "a b", "A c d"),
        "table": "text,other\nthe cat,a b\nthe red dog,c d e\n",
        "bad table": "text,other\nthe cat,a b\n,c d e\n",
    }
    for name, text in texts.items():
        made[name] = folder / (
            name.replace(" ", "-") + {"table": ".csv", "lists": ".jsonl"}.get(name.split()[-1], ".txt")
        )
        made[name].write_text(text)
    return {f"<{name}>": str(place) for name, place in made.items()}


@dataclass
class Seen:
    printed: str
    written: dict[str, str]
    shapes: list[tuple[int, ...]]


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What goes through the models that are loaded: rows and positions, pass by pass."""
    from lmctl.inference import load

    seen: list[tuple[int, ...]] = []
    real = load.load

    def look(_: Any, args: Any, inputs: dict[str, Any]) -> None:
        read = inputs.get("input_ids", inputs.get("decoder_input_ids"))
        if read is not None:
            seen.append(tuple(read.shape))

    def loaded(*args: Any) -> Any:
        found = real(*args)
        found.model.register_forward_pre_hook(look, with_kwargs=True)
        return found

    monkeypatch.setattr(load, "load", loaded)
    return seen


def used(folder: Path, verb: str, typed: str, settings: dict[str, Any], shapes: list[Any]) -> Seen:
    """What a verb prints, writes and computes in an empty folder; of a refusal, its words."""
    folder.mkdir()
    shapes.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = ""
        try:
            printed = said(verb, Path(settings.pop("model_path")), typed, **settings)
        except Exception as error:
            printed = f"{type(error).__name__}: {error}"
    files = {path.name: path.read_text() for path in sorted(folder.iterdir())}
    return Seen(printed, files, list(shapes))


ENTRIES = [*((verb, key, other) for verb, table in TABLES.items() for key, other in table.items()), *ALSO]


@pytest.fixture(scope="module")
def usual() -> dict[str, Seen]:
    """What several keys are compared with."""
    return {}


@pytest.mark.parametrize(("verb", "key", "other"), ENTRIES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_of_a_verb_changes_what_it_does(
    verb: str, key: str, other: Other, places: dict[str, str], shapes: Any, usual: dict[str, Seen], tmp_path: Path
):
    def ran(folder: str, **changed: Any) -> Seen:
        settings = {name: places.get(str(value), value) for name, value in (base | changed).items()}
        return used(tmp_path / folder, verb, other.typed, settings, shapes)

    base = {"model_path": f"<{other.model or MODEL[verb]}>", **other.given}
    if verb == "eval":
        base["trusted"] = ["use_models"]
    known = repr((verb, base, other.typed))
    if known not in usual:
        usual[known], again = ran("one"), ran("again")
        assert (usual[known].shapes, usual[known].printed) == (again.shapes, again.printed)
    one, another = usual[known], ran("other", **{key: other.value})
    refused = verb == "predict" and key == "on_bad_row"
    assert "Error: " not in another.printed
    assert ("Error: " in one.printed) == refused
    assert getattr(one, other.seen) != getattr(another, other.seen)
    if key == "batch":
        assert max(rows for rows, _ in another.shapes) < max(rows for rows, _ in one.shapes)


def test_a_translation_may_be_twice_as_long_and_twenty_pieces(tmp_path: Path):
    """Of a model that never ends: as many words as are allowed, the end of the source counted as one of its pieces."""
    place = use_models.marian(tmp_path / "endless", ends=-1e4)
    lines = said("translate", place, "the cat\na b c d e\n", beams=1).splitlines()
    assert [len(line.split()) for line in lines] == [2 * 3 + 20, 2 * 6 + 20]
