"""No network unless a hub id is named: every attempt to connect, or to look up a name, is noted by an audit hook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys
tried = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        if not (event == "socket.connect" and isinstance(arguments[1], (str, bytes))):  # a local socket
            tried.append([event, repr(arguments[1:])])
            raise OSError("no network in this test")
sys.addaudithook(hook)
from lmctl.cli.main import main
ended = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps({"tried": tried, "ended": ended}))
"""


def test_nothing_is_asked_of_the_network(tmp_path: Path):
    words = "abcdefghijklmnop" * 8
    (tmp_path / "text.txt").write_text("".join(f"the {word} sits on the mat\n" for word in words))
    rows = "".join(f"the {word} sits,{'vowel' if word in 'aeio' else 'consonant'}\n" for word in words)
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    here = ["runner=cpu", "cache_dir=cache"]
    text = ["data=text", "data.path=text.txt", "data.layout=one_document_per_line", *here]
    table = ["data=table", "data.path=rows.csv", "data.text=text", "data.label=label", "mix=classify", *here]
    short = ["batch.seq_len=16", "budget.steps=1", "eval.rows=8"]
    small = ["mix=mlm", "model.hidden=16", "model.layers=1", "tokenizer.vocab_size=300", *text, *short]
    commands = [
        ["list"],
        ["plan", *small],
        ["peek", *table[:-2], "cache_dir=cache"],
        ["train", "run_dir=lm", *small],
        ["train", "run_dir=classifier", "init_from=lm", *table, *short],
        ["eval", "model_path=lm", "suite=mlm", "runner=cpu"],
        ["predict", "model_path=classifier", "text=the a sits", "runner=cpu"],
        ["generate", "model_path=lm", "prompt=the [MASK] sits", "runner=cpu"],
    ]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"tried": [], "ended": [0] * len(commands)}, done.stderr


def test_no_native_code_is_fetched_while_a_library_is_imported(tmp_path: Path):
    """bitsandbytes asks the package `kernels` for code of a hub, where that is installed."""
    (tmp_path / "kernels.py").write_text("open('asked', 'w')\ndef get_kernel(*_, **__): raise OSError('no hub')\n")
    script = "from lmctl.core.bitsandbytes import bitsandbytes; assert bitsandbytes().optim.AdamW"
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0
    assert not (tmp_path / "asked").exists()
