"""Secrets are neither resolved into records nor printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from canary import SECRET, TOKEN, Trap

from lmctl.cli.main import main
from lmctl.core.secrets import has_token, masked, names_secret

TOKENS = [
    TOKEN,
    "ghp_" + "a1" * 18,
    "github_pat_11ABCDEFG0abcdefghij_klmnopqrstuv",
    "AKIAABCDEFGHIJKLMNOP",
    "sk-proj-Ab1xYz90Qw3rTy7uIo2pLk",
    "glpat-abcDEF1234567890wxyz",
    "xoxb-123456789012-abcdefghij",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "nvapi-" + "a1B2" * 12,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
]
HARMLESS = [
    *(
        "sk-SK-wikipedia-dump-2023-clean.txt",
        "hf_dataset",
        "pypi-packages-and-their-descriptions-2026",
        "https://host:8080/a@b",
        "https://host/a:b",
        "user@host:~/x",
    ),
    *("runs/eyJ.txt", "http://user@host/x", "a" * 64, "ghp_short", "4.2e-5", "s3://bucket/key"),
]


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_masked_wherever_they_stand(token: str):
    for text in (token, f"see '{token}', it says", f"({token})", f"https://x:{token}@host/", f"KEY={token}\n"):
        assert has_token(text)
        assert token[8:] not in masked(text)
        assert masked(masked(text)) == masked(text)
    assert masked(f"before {token} after").startswith("before ")
    assert masked(f"before {token} after").endswith(" after")


def test_passwords_of_urls_are_masked():
    assert masked("postgres://me:s3cret@host/db") == "postgres://me:***@host/db"
    assert masked("https://:s3cret@host") == "https://:***@host"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str):
    assert masked(text) == text


def test_names_of_secrets():
    secrets = "HF_TOKEN hub_token DATABASE_URL REDIS_URL PGPASSWORD MYSQL_PWD OPENAI_API_KEY SSH_KEY SENTRY_DSN DB_PASS"
    more = "AWS_SECRET_ACCESS_KEY HTTPS_PROXY GITHUB_PAT BASIC_AUTH X_PW HFTOKEN MY_JWT"
    assert all(map(names_secret, [*secrets.split(), *more.split()]))
    places = "HOME USER PWD SCRATCH TOKENIZER TOKENIZERS_DIR HF_HOME TOKEN_CACHE MONKEY KEYBOARD KEY_FILE PATH COMPASS"
    assert not any(map(names_secret, places.split()))


READS = [
    *("${oc.env:HF_TOKEN}", "x/${oc.env:HF_TOKEN,none}", "${oc.env:SITE_PASSWORD}", "${oc.env: HF_TOKEN }"),
    *("${oc.env:${stage}EN}", "${oc.env:HF_${stage}}", "${oc.${stage}:HF_TOKEN}", "${oc.decode:${oc.env:HF_TOKEN}}"),
    *("${oc.decode:'\\${oc.env:HF_TOKEN}'}", "${oc.select:x,${oc.env:HF_TOKEN}}", "${oc.env:CANARY}"),
]


@pytest.mark.parametrize("value", READS)
def test_a_secret_is_not_read_into_a_config(value: str, trap: Trap):
    trap.refused("train", "stage=HF_TOK", f"name={value}", "--cfg", "job", "--resolve")
    trap.refused("train", "stage=HF_TOK", "-m", "seed=1,2", "data=text", f"data.path={value}")


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_no_override(token: str, trap: Trap):
    for word in (f"name={token}", f"+{token}=1", f"data.path=https://me:{token}@host/x"):
        assert token not in trap.refused("train", "data=text", word)


def test_a_message_does_not_show_what_the_environment_holds(trap: Trap):
    assert "${oc.env:PLAIN}" in trap.refused("train", "optim.lr=${oc.env:PLAIN}")
    trap.refused("train", "precision=${oc.env:PLAIN}")


def test_a_run_records_where_its_settings_come_from_and_not_what(trap: Trap, monkeypatch: pytest.MonkeyPatch):
    """In no file, checkpoints included; and the same command goes on with it."""
    place = trap.root / "unusual-place"
    place.mkdir()
    (place / "text.txt").write_text("".join(f"the {word} sits on the mat\n" for word in "abcdefghijklmnop" * 8))
    monkeypatch.setenv("CORPUS", str(place))
    words = ["data=text", "data.path=${oc.env:CORPUS}/text.txt", "data.layout=one_document_per_line", "mix=clm",
             "model=gpt2_tiny", "model.hidden=16", "model.layers=1", "tokenizer.vocab_size=300", "batch.seq_len=16",
             "runner=cpu", "run_dir=run", f"cache_dir={trap.root}/cache"]  # fmt: skip
    assert main(["train", *words, "budget.steps=2", "checkpoint.every=1"]) == 0
    assert main(["train", *words, "budget.steps=3", "resume=auto"]) == 0
    printed = trap.capsys.readouterr()
    files = [file for file in Path("run").rglob("*") if file.is_file()]
    assert any(file.name == "state.pt" for file in files)
    held = [str(file) for file in files if b"unusual-place" in file.read_bytes()]
    assert held == []
    assert "${oc.env:CORPUS}" in Path("run/config.yaml").read_text()
    assert SECRET not in printed.out + printed.err
    assert "from the environment" in trap.refused("train", "resume=auto", "run_dir=run")
