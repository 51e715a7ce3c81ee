"""`lmctl doctor`: report this machine, and prove that lmctl computes here what it promises."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from lmctl.config.groups import Run
from lmctl.config.schema import FORMAT, FORMATS, one_of
from lmctl.config.table import key, same
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.files import write_json
from lmctl.core.json_lines import emit
from lmctl.core.paths import ResultFile
from lmctl.core.suggest import nearest
from lmctl.runner.base import Runner

if TYPE_CHECKING:
    from lmctl.doctor.proof import Outcome

COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


@dataclass(frozen=True)
class DoctorConfig:
    """Root config of `lmctl doctor`."""

    runner: Runner = same(Run, "runner")
    quick: bool = key(False, "only the proofs that take seconds: less than a minute in all")
    only: list[str] = key(list, "names of proofs; []: all of them")
    proofs: bool = key(True, "false: the report alone")
    out: Optional[ResultFile] = key(None, "write all of it to this file, as JSON; null: print it only")
    format: str = key("text", FORMAT)

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)


class Doctor(Verb[DoctorConfig]):
    purpose = "Report this machine, and prove that lmctl computes here what it promises; for bug reports, too."
    examples = (
        "lmctl doctor quick=true",
        "lmctl doctor only=[resume,export]",
        "lmctl doctor proofs=false out=report.json",
    )
    often = ("quick", "only", "proofs", "runner", "format", "out")
    schema = DoctorConfig

    def run(self, config: DoctorConfig) -> None:
        """Print the report and a line per proof. LmctlError if one fails."""
        import tempfile

        from lmctl.doctor.environment import lines, report
        from lmctl.doctor.proof import outcomes
        from lmctl.doctor.proofs import PROOFS
        from lmctl.doctor.small_runs import SmallRuns
        from lmctl.train.display import print_lines, quiet_libraries

        names = [proof.name for proof in PROOFS]
        for name in config.only:
            if name not in names:
                close = nearest(name, names)
                hint = f"; did you mean {close}?" if close else ""
                raise ConfigError(f"only: there is no proof '{name}'{hint}", f"proofs: {', '.join(names)}")
        quiet_libraries()
        on_cpu, as_json = config.runner.on_cpu(), config.format == "json"
        found = report(on_cpu)
        if as_json:
            emit({"kind": "environment"} | found)
        else:
            print_lines([*lines(found), ""])
        chosen = [p for p in PROOFS if (p.name in config.only if config.only else p.quick or not config.quick)]
        tried: list[Outcome] = []
        with tempfile.TemporaryDirectory(prefix="lmctl-doctor-") as folder:
            runs = SmallRuns(Path(folder), on_cpu)
            for outcome in outcomes(chosen if config.proofs else [], runs):
                tried.append(outcome)
                if as_json:
                    emit({"kind": "proof"} | outcome.as_dict())
                else:
                    _show(outcome)
        if config.out is not None:
            write_json(Path(config.out), found | {"proofs": [outcome.as_dict() for outcome in tried]})
        failed = [outcome.name for outcome in tried if outcome.status == "failed"]
        if failed:
            raise LmctlError(
                f"{len(failed)} of {len(tried)} proofs failed: {', '.join(failed)}",
                "lmctl computes something else here than it promises; please report it with all of the above",
            )


def _show(outcome: Outcome) -> None:
    from rich.table import Table
    from rich.text import Text

    from lmctl.train.display import print_whole

    line = Table.grid()
    for width in (8, 13, None):
        line.add_column(width=width, overflow="fold")
    said = f"{outcome.claim}\n{outcome.found} ({outcome.seconds:.1f} s)"
    line.add_row(Text(outcome.status, COLOURS[outcome.status]), Text(outcome.name, "bold"), Text(said))
    print_whole(line, line)
