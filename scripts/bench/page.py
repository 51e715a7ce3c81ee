"""Tables of docs/performance.md: each stands between two comments that name it, and is replaced by a newer one."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
UNITS = {
    "amx_bf16": "AMX bf16",
    "amx_int8": "AMX int8",
    "avx512_fp16": "AVX512_FP16",
    "avx512_bf16": "AVX512_BF16",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
"""What multiplies: flags of /proc/cpuinfo, and their names."""
LIMITS: dict[str, dict[str, str]] = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "AVX512_CORE": {},
    "AVX512_CORE_VNNI": {},
    "AVX512_CORE_BF16": {},
    "AVX512_CORE_FP16": {},
    "AVX512_CORE_AMX": {},
}
"""Values of ONEDNN_MAX_CPU_ISA, which keep oneDNN from newer units; and what keeps torch and MKL from them."""


def limited(isa: str | None) -> dict[str, str]:
    """Environment variables under which a process computes as on a CPU that has no more than `isa`."""
    return {} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa, **LIMITS[isa]}


def machine(isa: str | None = None) -> str:
    """The CPU and the units that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = {match[1]: match[2] for match in re.finditer(r"^(model name|flags)\s*: (.*)$", text, re.MULTILINE)}
    flags = found.get("flags", "").split()
    units = [name for flag, name in UNITS.items() if flag in flags]
    limit = f"; limited to {isa}" if isa else ""
    return f"{found.get('model name', platform.machine())} ({', '.join(units) or 'none of ' + ', '.join(UNITS)}){limit}"


def place(name: str, isa: str | None) -> str:
    """The place of a table in the page, which has one for each kind of units: those of a lesser CPU by their name, AMX
    for a CPU that has it, none for others."""
    units = isa or ("AMX" if "AMX" in machine() else "")
    return f"{name} {units}".rstrip()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are numbers."""
    return [
        f"| {' | '.join(heads)} |",
        "|---" + "|---:" * (len(heads) - 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def show(name: str, lines: Sequence[str], write: bool, page: Path = PAGE) -> None:
    """Print `lines`, and `write` them to their place in the page."""
    print("\n" + "\n".join(lines), flush=True)
    if write:
        page.write_text(filled(page.read_text(encoding="utf-8"), name, lines), encoding="utf-8")


def filled(page: str, name: str, lines: Sequence[str]) -> str:
    """`page` with `lines` at the place `name`; SystemExit if there is none."""
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    before, found, rest = page.partition(begin)
    if not found:
        places = ", ".join(re.findall(r"^<!-- (?!end)(.*) -->$", page, re.MULTILINE))
        raise SystemExit(f"the page has no place for {name!r}; it has: {places}")
    return before + begin + "\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2]
