"""What `init_from=` implies: model and tokenizer of the run or model directory that it names."""

from __future__ import annotations

from lmctl.config.overrides import Override, Overrides


def implied(overrides: Overrides) -> Overrides:
    """`init_from=X` implies model and tokenizer of X, unless others are chosen."""
    found = Overrides()
    if overrides.text("init_from") is None:
        return found
    for group in ("model", "tokenizer"):
        if group not in overrides:
            found = found.set(group, "pretrained")
    if (overrides + found).get("tokenizer") == "pretrained" and "tokenizer.path" not in overrides:
        found += [Override("tokenizer.path", "${init_from}")]
    return found
