"""Entry point of `lmctl VERB ...`: finds the verb by its file name, runs it, and turns exceptions into exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lmctl import __version__
from lmctl.config.verb import Command, WordsCommand, command, names, summary
from lmctl.core import signals
from lmctl.core.columns import table, terminal_width
from lmctl.core.errors import Exit, LmctlError, is_panic
from lmctl.core.heap import without_thread_caches
from lmctl.core.imports import without_collector
from lmctl.core.signals import SIGNALS
from lmctl.core.suggest import nearest
from lmctl.core.terminal import standard_streams, tell

TRAINING = (["train"], ["distill"], ["resume"])
"""Verbs that make and free large blocks of memory in every step."""


def main(argv: list[str] | None = None) -> int:
    """The command `lmctl`; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and words[:1] in TRAINING:
        without_thread_caches(words)
    with standard_streams(), _own_process_state([sys.argv[0], *words]):
        code = _run(words)
    if argv is None:
        signals.exit_at_once(code)
    return code


def _run(words: list[str]) -> int:
    """The exit code of the command, which may be interrupted and whose output may fail at any time."""
    try:
        signals.install()
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        tell(str(error) or "interrupted")
        return Exit.INTERRUPTED
    except LmctlError as error:  # standard output failed
        from lmctl.cli.explain import report

        return report(error)


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"] and len(words) > 1:  # `lmctl help train` is `lmctl train --help`
        words = [words[1], "--help", *words[2:]]
    if words[:1] == ["resume"]:  # `lmctl resume RUN` is `lmctl train resume=auto run_dir=RUN`
        from lmctl.cli.which_run import going_on

        words = going_on(words[1:])
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return Exit.DONE if words else Exit.USAGE
    if words[0] in ("--version", "-V"):
        print(f"lmctl {__version__}")
        return Exit.DONE
    if words[0] in ("-sc", "--shell-completion"):
        return _complete(words)
    if (bad := _invalid_utf8(words)) is not None:
        tell(f"error: {bad} is not UTF-8 text")
        tell("  is the terminal set to another encoding? It must be UTF-8, and so must names of files")
        return Exit.USAGE
    if words[0] not in names():
        instead = ELSEWHERE.get(words[0].lower().lstrip("-")) or _suggest_verb(words[0])
        close = None if instead else nearest(words[0], [*names(), "resume"])
        tell(f"error: no verb '{words[0]}'" + (f"; did you mean {close}?" if close else ""))
        tell(f"  {instead or 'lmctl --help lists the verbs'}")
        return Exit.USAGE
    return _run_verb(command(words[0]), words[1:])


def _suggest_verb(word: str) -> str | None:
    """A suggestion where an override is in the place of the verb: `lmctl data=text`."""
    return f"the verb comes first: lmctl train {word}" if "=" in word and not word.startswith("-") else None


def _invalid_utf8(words: list[str]) -> str | None:
    """The first word that is not valid UTF-8, escaped so that it can be printed."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            return ascii(word)
    return None


def usage() -> str:
    """The text of `lmctl --help`."""
    width = terminal_width()
    words = [
        ("lmctl VERB --help", "its groups, keys and examples"),
        ("lmctl VERB --help WORD", "one group, option or key: optim, optim=sgd, optim.lr"),
        ("lmctl VERB -m key=a,b", "a sweep: every combination, each in its own process"),
        ("lmctl VERB --cfg job", "the composed config, without running it"),
        ("lmctl resume RUN", "goes on with a run, or a sweep, that was stopped"),
        ('eval "$(lmctl -sc install=bash)"', "completion for the shell"),
        ("lmctl --version", ""),
    ]
    lines = ["usage: lmctl VERB [group=option ...] [key=value ...] [flags]", "", "verbs:"]
    lines += [*table([(name, summary(name)) for name in names()], width), "", *table(words, width)]
    return "\n".join(lines)


ELSEWHERE = {
    "bench": "lmctl plan measure=true takes a few real steps",
    "chat": "lmctl generate continues prompts",
    "classify": "lmctl predict labels new texts; lmctl train mix=classify trains a classifier",
    "complete": "lmctl generate continues prompts",
    "compress": "lmctl distill trains a smaller model; lmctl eval quantize=int8_dynamic measures one in int8",
    "config": "lmctl train --cfg job shows the composed config",
    "continue": "lmctl resume RUN goes on with a run",
    "convert": "lmctl export format=hf|onnx|gguf writes a model for other programs",
    "diagnose": "lmctl doctor reports this machine and tries its proofs",
    "evaluate": "lmctl eval measures a model",
    "deploy": "lmctl export format=onnx writes a model for onnxruntime, format=gguf for llama.cpp",
    "fill": "lmctl generate fills masks",
    "fine-tune": "lmctl train init_from=MODEL mix=classify data=table ... fine-tunes",
    "fine_tune": "lmctl train init_from=MODEL mix=classify data=table ... fine-tunes",
    "finetune": "lmctl train init_from=MODEL mix=classify data=table ... fine-tunes",
    "fit": "lmctl train",
    "infer": "lmctl predict labels texts, lmctl generate writes them, lmctl translate translates",
    "inference": "lmctl predict labels texts, lmctl generate writes them, lmctl translate translates",
    "info": "lmctl list shows what there is; a run's summary.json how it ended",
    "inspect": "lmctl peek shows rows as the model sees them",
    "ls": "lmctl list shows what there is",
    "preprocess": "lmctl prepare",
    "pretrain": "lmctl train",
    "push": "lmctl export push=USER/NAME puts a finished model on the hub",
    "quantise": "lmctl eval quantize=int8_dynamic measures int8; lmctl export format=onnx quantize=... writes it",
    "quantize": "lmctl eval quantize=int8_dynamic measures int8; lmctl export format=onnx quantize=... writes it",
    "rescore": "lmctl score mode=nbest",
    "run": "lmctl train",
    "sample": "lmctl generate continues prompts",
    "serve": "lmctl export writes a model for servers: format=hf, onnx or gguf",
    "show": "lmctl peek shows rows as the model sees them",
    "sweep": "lmctl train -m key=a,b",
    "test": "lmctl eval measures a model",
    "tokenize": "lmctl prepare trains the tokenizer and builds the token cache; lmctl peek shows pieces",
    "tune": "lmctl train -m key=a,b",
    "v": "lmctl --version",
    "validate": "lmctl eval measures a model",
    "version": "lmctl --version",
}
"""Verbs of other tools, and the command here."""


@contextmanager
def _own_process_state(argv: list[str]) -> Iterator[None]:
    """Context manager: `sys.argv`, signal handlers and environment are restored after the command."""
    before, hook, full_error = sys.argv, sys.unraisablehook, os.environ.get("HYDRA_FULL_ERROR")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises exceptions instead of printing them
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv, sys.unraisablehook = before, hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _run_verb(verb: Command, words: list[str]) -> int:
    """Run one verb; every exception becomes a message and an exit code."""
    from lmctl.cli.explain import report

    application = None
    try:
        if isinstance(verb, WordsCommand):
            verb.run(words)
            return Exit.DONE
        with without_collector():
            from lmctl.cli.application import Application

        application = Application(verb.name, words)
        return application.run()
    except SystemExit as exit_:  # Hydra's own --help and the like
        return exit_.code if isinstance(exit_.code, int) else Exit.DONE
    except Exception as error:
        if (interrupted := signals.interrupted()) is not None:  # during an import, say
            raise interrupted from error
        return report(error, application.composer if application else None)
    except BaseException as error:
        if not is_panic(error):
            raise
        return report(error)


def _complete(words: list[str]) -> int:
    """Shell completion of `COMP_LINE`: of the verb here, of the rest by Hydra."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    installing = not any(word.startswith("query=") for word in words)
    if installing or ((len(typed) > 2 or (len(typed) == 2 and line.endswith(" "))) and typed[1] in names()):
        verb = command("train" if installing else typed[1])
        if isinstance(verb, WordsCommand):
            return Exit.DONE
        os.environ["COMP_LINE"] = " ".join([*typed[:1], *typed[2:]]) + (" " if line.endswith(" ") else "")
        return _run_verb(verb, words)
    start = typed[1] if len(typed) == 2 and not line.endswith(" ") else ""
    if len(typed) <= 2:
        print(" ".join(name for name in names() if name.startswith(start)))
    return Exit.DONE
