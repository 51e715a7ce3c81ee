"""`lmctl VERB ...`: one Hydra application per verb, with errors in plain words and exit codes that mean something.

The verb is taken off the command line and the rest is left to `hydra.main`, so that overrides, `-m`, `--cfg`,
`--info`, `--config-dir`, launchers, sweepers and shell completion work as everywhere. The config is composed once
before that, so that mistakes are reported before anything is written.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lmctl import __version__
from lmctl.core.errors import Exit
from lmctl.core.stop import SIGNALS
from lmctl.core.suggest import nearest

VERBS = {
    "train": "pre-train or fine-tune a model",
    "distill": "train a small model from a big one, and say how much of the gap was closed",
    "plan": "say whether a run or a grid is legal, and what it costs",
    "prepare": "train the tokenizer, build the token cache, print its card",
    "peek": "show examples as the model will see them",
    "eval": "measure how good a model is",
    "predict": "label new texts with a model that was fine-tuned",
    "generate": "continue prompts, or fill their masks",
    "translate": "translate lines",
    "score": "log-probabilities of lines, good/bad pairs, rescoring of n-best lists",
    "list": "list the config groups, their options and what each is for",
}


def main(argv: list[str] | None = None) -> int:
    """The command `lmctl`; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"] and len(words) > 1:  # `lmctl help train` is `lmctl train --help`
        words = [words[1], "--help", *words[2:]]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return Exit.DONE if words else Exit.USAGE
    if words[0] == "--version":
        print(f"lmctl {__version__}")
        return Exit.DONE
    if words[0] in ("-sc", "--shell-completion"):
        return _complete(words)
    if (bad := _not_text(words)) is not None:
        print(f"error: {bad} is not UTF-8 text", file=sys.stderr)
        print(
            "  is the terminal set to another encoding? It must be UTF-8, and so must names of files", file=sys.stderr
        )
        return Exit.USAGE
    if words[0] not in VERBS:
        close = nearest(words[0], VERBS)
        print(f"error: no verb '{words[0]}'" + (f"; did you mean {close}?" if close else ""), file=sys.stderr)
        print("  lmctl --help lists the verbs", file=sys.stderr)
        return Exit.USAGE
    if (odd := next((word for word in words if not _is_text(word)), None)) is not None:
        shown = odd.encode(errors="surrogateescape").decode(errors="replace")
        print(f"error: {shown!r} is not valid UTF-8", file=sys.stderr)
        print("  type it in a UTF-8 terminal; a file with such a name: rename it, or name its folder", file=sys.stderr)
        return Exit.USAGE
    with _own_process_state([sys.argv[0], *words]):
        return _list(words[1:]) if words[0] == "list" else _hydra_verb(words[0], words[1:])


def _not_text(words: list[str]) -> str | None:
    """The first word that cannot be written down as UTF-8, in a form that can."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            return ascii(word)
    return None


def usage() -> str:
    """What `lmctl --help` prints."""
    lines = ["usage: lmctl VERB [group=option ...] [key=value ...] [-m] [flags]", "", "verbs:"]
    lines += [f"  {verb:<9} {purpose}" for verb, purpose in VERBS.items()]
    lines += [
        "",
        "  lmctl VERB --help                  its groups, keys and examples",
        "  lmctl VERB --help WORD             one group, option or key: optim, optim=sgd, optim.lr",
        "  lmctl VERB -m key=a,b              a sweep: every combination, each in its own process",
        "  lmctl VERB --cfg job               the composed config, without running it",
        '  eval "$(lmctl -sc install=bash)"   completion for the shell',
        "  lmctl --version",
    ]
    return "\n".join(lines)


def _is_text(word: str) -> bool:
    """Whether an argument can be written down: bytes that are no characters arrive as halves of them."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _own_process_state(argv: list[str]) -> Iterator[None]:
    """Lend the process to one command: `sys.argv`, signal handlers and environment are given back as they were."""
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what went wrong, and we can say it
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _list(words: list[str]) -> int:
    from lmctl.cli.explain import report
    from lmctl.verbs.list import run

    try:
        run(words)
    except BrokenPipeError:
        return _unread()
    except Exception as error:
        return report(error)
    return Exit.DONE


def _hydra_verb(verb: str, words: list[str]) -> int:
    """Run one verb to its end; every exception becomes a message and an exit code."""
    from lmctl.cli.explain import report

    application = None
    try:
        from lmctl.cli.application import Application

        application = Application(verb, words)
        return application.run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except SystemExit as exit_:  # Hydra's own --help and the like
        return exit_.code if isinstance(exit_.code, int) else Exit.DONE
    except BrokenPipeError:
        return _unread()
    except Exception as error:
        return report(error, application.composer if application else None)


def _unread() -> int:
    """The reader of our output has gone: `lmctl list | head`."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return Exit.FAILED


def _complete(words: list[str]) -> int:
    """The shell asks for completions of `COMP_LINE`: of the verb here, of the rest by Hydra."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    installing = not any(word.startswith("query=") for word in words)
    if installing or ((len(typed) > 2 or (len(typed) == 2 and line.endswith(" "))) and typed[1] in VERBS):
        verb = "train" if installing else typed[1]
        if verb == "list":
            return Exit.DONE
        os.environ["COMP_LINE"] = " ".join([*typed[:1], *typed[2:]]) + (" " if line.endswith(" ") else "")
        with _own_process_state([sys.argv[0], *words]):
            return _hydra_verb(verb, words)
    start = typed[1] if len(typed) == 2 and not line.endswith(" ") else ""
    if len(typed) <= 2:
        print(" ".join(verb for verb in VERBS if verb.startswith(start)))
    return Exit.DONE
