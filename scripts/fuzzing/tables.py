"""Files with columns, as training and `predict` read them: csv, tsv, jsonl, parquet."""

from __future__ import annotations

import csv as csv_module
import io
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.values import NAMES, accident, text, value
from lmctl.core.batch import Row
from lmctl.core.errors import LmctlError
from lmctl.data.jsonl import JsonLines
from lmctl.data.table import Table
from lmctl.inference.input_lines import placed
from lmctl.inference.new_rows import NewRows
from lmctl.train.class_labels import Labels, check_repeated, labelled
from lmctl.verbs.predict import WRITERS


def csv(draw: Random, folder: Path) -> None:
    """Comma-separated files with quotes, or what their suffix says is one."""
    content = accident(draw, table(draw, ",;|", quoted=draw.random() < 0.7))
    learnt_from(Table, draw.choice(["t.csv"] * 5 + ["T.CSV", "t.txt", "t.csv.gz"]), content, table_options(draw))


def tsv(draw: Random, folder: Path) -> None:
    """Files with tabs."""
    content = accident(draw, table(draw, "\t", quoted=draw.random() < 0.2))
    learnt_from(Table, draw.choice(["t.tsv"] * 6 + ["t.txt", "t.tsv.zst"]), content, table_options(draw))


def jsonl(draw: Random, folder: Path) -> None:
    """Objects, one per line, and what is not quite one."""
    learnt_from(JsonLines, draw.choice(["t.jsonl"] * 6 + ["t.json", "t.jsonl.gz"]), objects(draw), columns(draw))


def parquet(draw: Random, folder: Path) -> None:
    """Columns of every type of Arrow's."""
    learnt_from(Table, draw.choice(["t.parquet"] * 7 + ["t.csv"]), arrow(draw), table_options(draw))


def rows(draw: Random, folder: Path) -> None:
    """New rows of any kind of file, or of standard input, written as `predict` writes them: one for each."""
    name, content = draw.choice(
        [
            lambda: ("t.csv", accident(draw, table(draw, ",", quoted=True))),
            lambda: ("t.tsv", accident(draw, table(draw, "\t", quoted=False))),
            lambda: ("t.jsonl", objects(draw)),
            lambda: ("t.parquet", arrow(draw)),
            lambda: ("t.txt", accident(draw, "\n".join(text(draw) for _ in range(5)).encode())),
        ]
    )()
    Path(name).write_bytes(content)
    kind = draw.choice(["auto", "auto", "auto", "table", "jsonl", "lines"])
    how = {"text": draw.choice([None, None, "text", "a.b", "nowhere"]), "text_b": draw.choice(["auto", "b", None])}
    skip, piped = draw.random() < 0.5, draw.random() < 0.3
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
    try:
        found = NewRows(None if piped else name, kind, **how, skip=skip, stream=placed(None) if piped else None)
        out = io.StringIO(newline="")
        writer = WRITERS[draw.choice(sorted(WRITERS))](out, "task", ["no", "yes"])
        for number, row in enumerate(found, start=1):
            assert not row.wrong or skip
            writer.write(number, row, None)
        writer.close()
        out.getvalue().encode()
    finally:
        sys.stdin = before


def learnt_from(made: Any, name: str, content: bytes, options: dict[str, Any]) -> None:
    """Rows, each a text that can be written and a label that is one; then all that is asked of a source."""
    Path(name).write_bytes(content)
    source = made(name, **options)
    found: list[Row] = []
    for row in source.read(name):
        found.append(row)
        assert row.texts
        assert all("".join(text.split()) for text in row.texts)
        assert all("\n" not in text for text in row.texts)
        "".join([*row.texts, row.where]).encode()
    source.fingerprint()
    for kind in ("class", "classes", "number"):
        if found and all(row.label is not None for row in found):
            labels = Labels(kind, None)  # type: ignore[arg-type]
            list(labelled(found, labels, True, []))
            _, classes = labels.arrays()
            assert all(name.strip() and name != "nan" for name in classes) or options.get("label") == "text"
            try:
                check_repeated(found, kind, "fuzz")  # type: ignore[arg-type]
            except LmctlError as error:
                f"{error} {error.hint}".encode()
    source.how_to_label()
    list(source.rows("train"))
    list(source.rows("valid"))
    source.describe().encode()


def columns(draw: Random) -> dict[str, Any]:
    """A choice of columns, mostly of some that are there."""
    names = ["label", "label", "label", "b", "b", "b", "text", "a.b", "0", "1", "名", "nowhere"]
    how: dict[str, Any] = {"on_bad_row": draw.choice(["error", "skip"]), "valid_share": draw.choice([0.05, 0.5])}
    kind = draw.choice(["documents", "labelled", "labelled", "pairs", "parallel"])
    if kind == "parallel":
        return {**how, "source": draw.choice(["text"] * 9 + names), "target": draw.choice(names)}
    how["text"] = draw.choice(["text"] * 8 + ["0", "a.b"])
    if kind != "documents":
        how["label"] = draw.choice([name for name in names if name != how["text"]])
        if kind == "pairs" and how["label"] != "b":
            how["text_b"] = "b"
    return how


def table_options(draw: Random) -> dict[str, Any]:
    return {
        **columns(draw),
        "delimiter": draw.choice(["auto"] * 9 + ["tab", "comma", "semicolon", "bar"]),
        "quoting": draw.choice(["auto"] * 6 + ["none", "csv"]),
        "header": draw.random() < 0.9,
    }


def header(draw: Random) -> list[str]:
    """Names of columns: mostly the usual ones."""
    if draw.random() < 0.8:
        return draw.sample(["text", "label", "b"], k=3)
    return [draw.choice(NAMES) for _ in range(draw.randrange(1, 5))]


def table(draw: Random, delimiters: str, quoted: bool) -> bytes:
    """A table of text, written by a writer of csv or by hand."""
    names, delimiter = header(draw), draw.choice(delimiters)
    odd = draw.choice(ODDITY)
    cells = [[text(draw, odd) for _ in names] for _ in range(draw.choice([0, 1, 3, 8, 20, 20]))]
    if draw.random() < 0.1 and cells:
        cells[-1] = cells[-1][:-1] or ["x", "y", "z", "w"]
    if not quoted:
        return "\n".join(delimiter.join(row) for row in [names, *cells]).encode()
    out = io.StringIO()
    quoting = draw.choice([csv_module.QUOTE_MINIMAL, csv_module.QUOTE_ALL, csv_module.QUOTE_NONNUMERIC])
    end = draw.choice(["\n", "\n", "\r\n", "\r"])
    csv_module.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([names, *cells])
    return out.getvalue().encode()


def objects(draw: Random) -> bytes:
    """JSON lines."""
    odd = draw.choice(ODDITY)
    good = [{name: text(draw, odd) for name in ("text", "label", "b")} for _ in range(draw.choice([0, 2, 6, 20, 20]))]
    if odd:
        good += [{draw.choice(NAMES): value(draw, NAMES) for _ in range(draw.randrange(5))}]
        good += [{**row, draw.choice(["a", "label", "text"]): value(draw, NAMES)} for row in good[:1]]
    found = [json.dumps(row, ensure_ascii=draw.random() < 0.8) for row in good]
    if draw.random() < 0.1:
        found.append(draw.choice(["{", "[", "[]", "3", "[" * 100_000, "9" * 5000, '{"text":1e999}', "", '"x"']))
    draw.shuffle(found)
    return accident(draw, "\n".join(found).encode(errors="surrogatepass"))


def arrow(draw: Random) -> bytes:
    """A parquet file."""
    names, count, odd = header(draw), draw.choice([0, 1, 3, 8, 20, 20]), draw.choice(ODDITY)
    arrays = []
    for _ in names:
        kind, one = draw.choice(ARROW) if draw.random() < odd else (pa.string(), lambda draw: text(draw, odd))
        array = pa.array([None if draw.random() < odd / 4 else one(draw) for _ in range(count)], kind)
        arrays.append(array.dictionary_encode() if pa.types.is_string(kind) and draw.random() < 0.3 else array)
    out = io.BytesIO()
    codec = draw.choice(["none", "snappy", "zstd"])
    pq.write_table(pa.Table.from_arrays(arrays, names=names), out, compression=codec)
    return accident(draw, out.getvalue(), packed=False)


ODDITY = [0.0, 0.0, 0.02, 0.2, 0.5]
"""Which share of a file's cells may go wrong."""
ARROW = [
    (pa.string(), text),
    (pa.large_string(), text),
    (pa.binary(), lambda draw: draw.randbytes(draw.randrange(6))),
    (pa.float64(), lambda draw: draw.choice([0.0, 1.5, -2.0, float("nan"), float("inf"), 1e308])),
    (pa.float16(), lambda draw: draw.choice([0.0, 1.5])),
    (pa.int64(), lambda draw: draw.choice([0, 1, -(2**63), 2**63 - 1])),
    (pa.uint64(), lambda draw: draw.choice([0, 2**64 - 1])),
    (pa.bool_(), lambda draw: draw.random() < 0.5),
    (pa.date32(), lambda draw: draw.choice([0, 19000, -(2**31), 2**31 - 1])),
    (pa.date64(), lambda draw: draw.choice([0, 86_400_000, -(2**34) * 86_400_000])),
    (pa.timestamp("ns"), lambda draw: draw.choice([0, 2**62, -(2**62), 1])),
    (pa.timestamp("us", "Europe/Berlin"), lambda draw: draw.choice([0, 2**62])),
    (pa.timestamp("us", "Nowhere/Else"), lambda draw: 0),
    (pa.time64("ns"), lambda draw: draw.randrange(86_400 * 10**9)),
    (pa.duration("s"), lambda draw: draw.choice([0, 2**62])),
    (pa.decimal128(38, 2), lambda draw: draw.randrange(-(10**9), 10**9)),
    (pa.list_(pa.string()), lambda draw: [draw.choice(["x", "", "y z", None]) for _ in range(draw.randrange(4))]),
    (pa.list_(pa.list_(pa.int8())), lambda draw: [[1], []]),
    (pa.map_(pa.string(), pa.int32()), lambda draw: [("k", 1)]),
    (pa.struct([("b", pa.string())]), lambda draw: {"b": draw.choice(["x", "", None])}),
    (pa.null(), lambda draw: None),
]
