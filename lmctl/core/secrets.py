"""Access tokens and passwords: recognised in text, masked where text is printed or recorded.

A token is recognised by its prefix (Hugging Face, GitHub, GitLab, OpenAI, AWS, Google, Slack, a JWT), a password in a
URL by its place, and an environment variable that holds a secret by its name.
"""

from __future__ import annotations

import re

_TOKENS = re.compile(
    r"\b(?:(?P<hf>hf_)[A-Za-z0-9]{20,}\b"
    r"|(?P<github>gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}\b"
    r"|(?P<aws>AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|(?P<gitlab>glpat-)[A-Za-z0-9_-]{20,}"
    r"|(?P<google>AIza(?=[A-Za-z0-9_-]{35})|ya29\.)[A-Za-z0-9_-]{20,}"
    r"|(?P<registry>npm_|gsk_|pypi-AgE|nvapi-(?=[A-Za-z0-9_-]{40}))[A-Za-z0-9_-]{30,}"
    r"|(?P<slack>xox[a-z]-)[A-Za-z0-9-]{10,}"
    r"|(?P<jwt>eyJ)[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"
)
_DASHED = re.compile(r"\b(sk-)[A-Za-z0-9_-]{20,}")
"""Tokens that may contain dashes, as names of files do: recognised by a long part without dashes."""
_RANDOM = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}")
_IN_URL = re.compile(r"(?<=://)([^/\s:@'\"]*):([^/\s@'\"]+)(?=@)")
"""`user:password` of a URL."""
_NAME = re.compile(
    r"(^|_)(TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PASS|PWD?|CREDENTIALS?|AUTH|COOKIE|DSN|PAT)(_|$)"
    r"|(^|_)(BEARER|JWT|WEBHOOK)(_|$)|TOKEN$"
    r"|PASSWORD|(API|ACCESS|PRIVATE)_?KEY|(^|_)KEYS?(_|$)"
    r"|(DATABASE|DB|REDIS|MONGO\w*|POSTGRES\w*|MYSQL|BROKER|WEBHOOK|PROXY)_?UR[IL]|_PROXY$",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"_(DIR|DIRS|PATH|PATHS|FILE|FOLDER|CACHE|ROOT|HOME|SIZE|COUNT|LENGTH|LIMIT)$|^(OLD)?PWD$", re.I)
"""Environment variables that hold a place or a size, no secret."""


def has_token(text: str) -> bool:
    """Whether `text` contains an access token, or a URL with a password."""
    return masked(text) != text


def masked(text: str) -> str:
    """`text` with every access token and every password of a URL replaced by `***` after its prefix."""
    text = _TOKENS.sub(lambda match: f"{match[match.lastgroup or 0]}***", text)
    text = _DASHED.sub(lambda match: "sk-***" if _RANDOM.search(match[0].removeprefix("sk-")) else match[0], text)
    return _IN_URL.sub(lambda match: match[0] if match[2] == "***" else f"{match[1]}:***", text)


def names_secret(variable: str) -> bool:
    """Whether an environment variable is named like a secret: HF_TOKEN, DB_PASSWORD, DATABASE_URL."""
    return _NAME.search(variable) is not None and _HARMLESS.search(variable) is None
