"""Turning exceptions into plain messages and exit codes."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ReadonlyConfigError,
    UnsupportedInterpolationType,
    ValidationError,
)
from yaml import MarkedYAMLError
from yaml.reader import ReaderError

import lmctl
from lmctl.cli import unknown_names
from lmctl.config.mistakes import Missing, UnknownKey, wrong_value
from lmctl.config.trial import Several
from lmctl.core import yaml_files
from lmctl.core.errors import (
    ConfigError,
    DiskError,
    Diverged,
    Exit,
    LmctlError,
    OutOfMemory,
    Stopped,
    is_panic,
    together,
)
from lmctl.core.terminal import tell

if TYPE_CHECKING:
    from lmctl.config.compose import Composer


_LONGEST = 2000
"""Characters that are shown of a longer message, which quotes what somebody wrote."""


def report(error: BaseException, composer: Composer | None = None) -> int:
    """Print an error to standard error; returns the exit code."""
    if os.environ.get("LMCTL_TRACEBACK") == "1":
        tell("".join(traceback.format_exception(error)).rstrip())
    known = explain(error, composer)
    rank = int(os.environ.get("RANK", "0"))
    # All processes raise these at the same point, so only the first one reports.
    if known is not None and rank > 0 and (known.everywhere or isinstance(known, ConfigError | Stopped | Diverged)):
        return known.code
    prefix = f"rank {rank}: " if rank > 0 else ""
    if known is None:
        tell(f"{prefix}error: {type(error).__name__}: {error}", *_source_line(error))
        tell("  LMCTL_TRACEBACK=1 shows the full traceback")
        return Exit.FAILED
    if str(known):
        word = "stopped" if isinstance(known, Stopped) else "error"
        parts = [f"{prefix}{word}: {known}", *([known.hint] if known.hint else [])]
        text = "\n  ".join(f"{part[:_LONGEST]}..." if len(part) > 2 * _LONGEST else part for part in parts)
        tell(text if composer is None else composer.as_typed(text))
    return known.code


def _source_line(error: BaseException) -> list[str]:
    """The source line of the error: the innermost one of lmctl's own code."""
    package = Path(lmctl.__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(package)]
    for frame in (ours or frames)[-1:]:
        path = Path(frame.filename)
        name = path.relative_to(package.parent) if path.is_relative_to(package) else path.name
        return [f"  at {name}:{frame.lineno} in {frame.name}"]
    return []


def explain(error: BaseException, composer: Composer | None = None) -> LmctlError | None:
    """The exception as an LmctlError with a plain message, or None if it is unexpected."""
    if isinstance(error, Several):
        return together([one for each in error.errors if isinstance(one := explain(each, composer), ConfigError)])
    chain = list(_exception_chain(error))
    for cause in chain:
        if isinstance(cause, UnknownKey) and composer is not None and cause.close is None and "." not in cause.key:
            return unknown_names.unknown_key(cause.key, composer)
        if isinstance(cause, Missing):
            return _missing(cause.path, composer)
        if isinstance(cause, LmctlError):
            return cause
    for cause in chain:
        if (known := _config_error(cause, composer)) is not None:
            return known
    theirs = [cause for cause in chain if isinstance(cause, HydraException | OmegaConfBaseException)]
    if theirs:
        outer, *inner = dict.fromkeys(_first_line(cause) for cause in theirs if str(cause)) or [type(error).__name__]
        return ConfigError(": ".join([outer, *inner[-1:]]))
    return _machine_error(error)


def _exception_chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _machine_error(error: BaseException) -> LmctlError | None:
    """Out-of-memory and disk errors of any library. torch is not imported here, so its exception is matched by name."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, RecursionError):
        return ConfigError("a file that this command reads is nested without end, or chooses itself")
    if is_panic(error):
        return ConfigError(f"the tokenizer, or another library, cannot go on: {text}", "use another tokenizer or model")
    names = {cls.__name__ for cls in type(error).__mro__}
    if "MemoryError" in names:  # of Python or numpy, which batches and weights never are
        return OutOfMemory(f"out of memory: {text}", "shorter texts or rows (while they are read), or more memory")
    if "OutOfMemoryError" in names or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return OutOfMemory(f"out of memory: {text}", "use a smaller batch.micro (same result) or batch.seq_len")
    if isinstance(error, RuntimeError) and ("gloo" in str(error) or "DistError" in names):
        if "imed out" in str(error):
            return LmctlError(
                "another process of this run did not answer in time, and this one cannot go on alone",
                "is its machine still there? runner.timeout_s says how long to wait",
            )
        return LmctlError(
            "another process of this run has ended, and this one cannot go on alone",
            "its message says why, if it was not killed; resume=auto goes on from the last checkpoint",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"no space left on the disk: {error.filename or text}", "free some space and run it again")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(f"no permission: {error.filename or text}", "check its permissions, or choose another place")
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
        name = str(error.filename or text)
        shown = name if len(name) <= 200 else f"{name[:80]}...{name[-40:]}"
        return ConfigError(f"{shown}: {str(error.strerror).lower()}", "give another file or folder")
    return None


def _config_error(error: BaseException, composer: Composer | None) -> ConfigError | None:
    key = str(getattr(error, "full_key", None) or "")
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return ConfigError(yaml_files.refusal(error.problem_mark.name, error))
    if isinstance(error, ReaderError):
        return ConfigError(yaml_files.refusal(error.name, error))
    match error:
        case MissingConfigException(missing_cfg_file=str(file)) if composer is not None:
            group = max((g for g in composer.all_groups if file.startswith(f"{g}/")), key=len, default="")
            return unknown_names.no_option(group, file[len(group) + 1 :] if group else file, composer)
        case OverrideParseException():
            return ConfigError(
                f"cannot read '{error.override}'",
                "an override looks like key=value; quote what has commas, spaces or brackets: 'key=\"a, b\"'",
            )
        case MissingMandatoryValue():
            return _missing(key or _quoted_name(error), composer)
        case ReadonlyConfigError():
            return ConfigError(f"{key} cannot be changed")
        case ConfigKeyError() | ConfigAttributeError() if composer is not None and key:
            return unknown_names.unknown_key(key, composer)
        case ValidationError():
            return wrong_value(key, error)
        case InterpolationToMissingValueError():
            return ConfigError(f"{key} refers to a value that is required and not given: {_first_line(error)}")
        case InterpolationKeyError():
            return ConfigError(f"{key} refers to '{_quoted_name(error)}', which does not exist")
        case InterpolationResolutionError() if match := re.search(
            r"Environment variable '(.*?)' not found", str(error)
        ):
            return ConfigError(f"{key} refers to the environment variable {match[1]}, which is not set")
        case UnsupportedInterpolationType():
            return ConfigError(f"{key}: {_first_line(error)}")
        case ValueError() if str(error).startswith("Config group override"):
            return ConfigError("a config group takes the name of an option, not null or a mapping")
        case ValueError() if str(error).startswith("Only one of --run"):
            return ConfigError("--cfg and --info show one run, and -m runs several", "leave one of them out")
        case ValueError() if "integer string conversion" in str(error):
            return ConfigError("a number has more digits than any that is meant")
        case ValueError() if "'@package" in str(error):
            return ConfigError(f"an option's file says where it goes in its first lines: {_first_line(error)}")
        case HydraException():
            return _from_hydra_text(str(error), composer)
        case _:
            return None


def _from_hydra_text(text: str, composer: Composer | None) -> ConfigError | None:
    """Hydra's errors that are recognised by their text only."""
    if match := re.search(r"Ambiguous value for argument '((.*?)=(.*))'", text):
        return ConfigError(
            f"{match[1]} gives several values to one run",
            f"-m runs them all, one after the other; a list is written {match[2]}=[{match[3]}]",
        )
    if match := re.search(r"Sweep parameters '(.*?)' requires --multirun", text):
        return ConfigError(f"{match[1]} gives several values to one run", "-m runs them all, one after the other")
    if match := re.search(r"Could not override '(.*?)'\.\s*Did you mean to override (.*?)\?", text):
        return ConfigError(f"'{match[1]}' is not chosen here; did you mean {match[2]}?")
    if match := re.search(r"Could not override '(.*?)'\.\s*No match in the defaults list", text):
        return (
            unknown_names.no_group(match[1], composer)
            if composer is not None
            else ConfigError(f"'{match[1]}' is not chosen here")
        )
    if match := re.search(r"An item is already at '(.*?)'", text):
        return ConfigError(f"'{match[1]}' has a value already", f"write {match[1]}=..., without the +")
    if match := re.search(r"Multiple values for (\S+?)\. To override", text):
        return ConfigError(f"'{match[1]}' has a value already", f"write {match[1]}=..., without the +")
    return None


def _missing(key: str, composer: Composer | None) -> Missing:
    """The error for a value that is required; for some keys a plain word is enough."""
    if composer is not None and key in (composer.verb.places, *composer.verb.words[:1]):
        return Missing(key, f"give it as: lmctl {composer.verb.name} runs/NAME, or {key}=...")
    return Missing(key)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _quoted_name(error: BaseException) -> str:
    match = re.search(r"'([^']*)'|: (\S+)$", _first_line(error))
    return (match[1] or match[2]) if match else _first_line(error)
