"""Whatever bytes the readers of tables are given, they yield rows or say in a line what is wrong.

`scripts/fuzz.py` tries many more.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmctl.core.errors import LmctlError
from lmctl.data.jsonl import JsonLines
from lmctl.data.table import Table

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from fuzzing.tables import learnt_from

bounded = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

NAMES = ["text", "label", "b", "a.b", "a", " label ", "", "名", "x=y", "text"]
odd_text = st.text(st.sampled_from("ab ,;|\t\"'\n\r\\\u3000\u200b\ufeff你①²é\x00\x1f\x85\u2028🙂"), max_size=12)
odd_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.sampled_from([0, 1, 10**400, 9007199254740993]),
    st.floats(),
    odd_text,
    st.sampled_from(["", " ", "NaN", "null", "1", "1.0", "\ud83d", "a\ud83db", "--2", "②"]),
)
values = st.recursive(
    odd_scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    """Any legal choice of columns."""
    name = st.sampled_from(["text", "label", "b", "a.b", "0", "1", "名", "nowhere"])
    kind = draw(st.sampled_from(["documents", "labelled", "pairs", "parallel"]))
    how: dict[str, Any] = {"on_bad_row": draw(st.sampled_from(["error", "skip"]))}
    if kind == "parallel":
        return {**how, "source": draw(name), "target": draw(name)}
    text = draw(st.sampled_from(["text", "0", "a.b"]))
    if kind == "documents":
        return {**how, "text": text}
    label = draw(name.filter(lambda other: other != text))
    if kind == "pairs" and label != "b":
        how["text_b"] = "b"
    return {**how, "text": text, "label": label}


@st.composite
def table_options(draw: st.DrawFn) -> dict[str, Any]:
    return {
        **draw(columns()),
        "delimiter": draw(st.sampled_from(["auto", "auto", "tab", "comma", "semicolon", "bar"])),
        "quoting": draw(st.sampled_from(["auto", "auto", "none", "csv"])),
        "header": draw(st.booleans()),
    }


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole`, or what is left of it after an accident; perhaps packed."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["cut", "flip", "insert", "drop"])):
            case "cut":
                del data[at:]
            case "flip":
                data[at] ^= draw(st.integers(1, 255))
            case "insert":
                data[at:at] = draw(
                    st.sampled_from([b'"', b"\n", b"\r", b"\t", b",", b"\x00", b"\xff", b"{", b"[", b"\\"])
                )
            case _:
                del data[at : at + draw(st.integers(1, 9))]
    pack = draw(st.sampled_from([bytes, bytes, bytes, gzip.compress, zstandard.compress]))
    return pack(bytes(data))


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A csv or tsv file, well written or not."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
    rows = draw(st.lists(st.lists(odd_text, min_size=len(names), max_size=len(names)), max_size=6))
    delimiter = draw(st.sampled_from("\t,;|"))
    if draw(st.booleans()):
        out = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
        csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows([names, *rows])
        text = out.getvalue()
    else:
        text = "\n".join(delimiter.join(cells) for cells in [names, *rows])
    return draw(broken(text.encode()))


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    lines = [json.dumps(value) for value in draw(st.lists(objects, max_size=5))]
    lines += draw(
        st.lists(st.sampled_from(["{", "[", "[]", "3", "[" * 100_000, "9" * 5000, '{"text":1e999}', ""]), max_size=1)
    )
    return draw(broken("\n".join(draw(st.permutations(lines))).encode()))


ARROW = {
    "string": (pa.string(), odd_text.map(lambda text: text.encode("utf-8", "ignore").decode())),
    "binary": (pa.binary(), st.binary(max_size=6)),
    "float": (pa.float64(), st.floats()),
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "bool": (pa.bool_(), st.booleans()),
    "date": (pa.date64(), st.integers(-(2**34), 2**34).map(lambda day: day * 86_400_000)),
    "time": (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    "decimal": (pa.decimal128(38, 2), st.decimals(-(10**9), 10**9, places=2)),
    "list": (pa.list_(pa.string()), st.lists(st.sampled_from(["x", "", "y z"]) | st.none(), max_size=3)),
    "struct": (pa.struct([("b", pa.string())]), st.fixed_dictionaries({"b": st.sampled_from(["x", ""]) | st.none()})),
    "null": (pa.null(), st.none()),
}


@st.composite
def parquets(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(st.sampled_from(["text", "label", "b", "a", "a.b", "名"]), min_size=1, max_size=4))
    count = draw(st.integers(0, 5))
    arrays = []
    for _ in names:
        kind, cells = ARROW[draw(st.sampled_from(sorted(ARROW)))]
        array = pa.array(draw(st.lists(cells | st.none(), min_size=count, max_size=count)), kind)
        encode = pa.types.is_string(kind) and draw(st.booleans())
        arrays.append(array.dictionary_encode() if encode else array)
    out = io.BytesIO()
    codec = draw(st.sampled_from(["none", "snappy", "zstd"]))
    pq.write_table(pa.Table.from_arrays(arrays, names=names), out, compression=codec)
    return draw(broken(out.getvalue()))


def check(made: Any, name: str, data: bytes, options: dict[str, Any]) -> None:
    """Rows, each a text that can be encoded and a label that is one, or an LmctlError of a line."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            learnt_from(made, str(Path(folder, name)), data, options)
        except LmctlError as error:
            f"{error} {error.hint}".encode()


@bounded
@given(tables(), st.sampled_from(["t.csv", "t.tsv", "t.txt", "T.CSV"]), table_options())
def test_tables_of_text(data: bytes, name: str, options: dict[str, Any]):
    check(Table, name, data, options)


@bounded
@given(json_lines(), columns())
def test_json_lines(data: bytes, options: dict[str, Any]):
    check(JsonLines, "t.jsonl", data, options)


@bounded
@given(parquets(), table_options())
def test_parquet(data: bytes, options: dict[str, Any]):
    check(Table, "t.parquet", data, options)
