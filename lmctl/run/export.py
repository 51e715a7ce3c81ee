"""model/: the trained weights as a Hugging Face directory that plain transformers loads."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from lmctl.core.files import disk_error, write_text
from lmctl.core.types import Network, Paths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def export(paths: Paths, network: Network, tokenizer: PreTrainedTokenizerFast, summary: dict[str, Any]) -> None:
    """Write weights (safetensors), config, tokenizer and model card, whole or not at all."""
    partial = paths.root / ".model-partial"
    model = network.pretrained()
    try:
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_text(partial / "README.md", card(paths, type(model).__name__, summary))
        shutil.rmtree(paths.model, ignore_errors=True)
        os.rename(partial, paths.model)
    except Exception as error:  # safetensors and tokenizers have exceptions of their own for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise disk_error(paths.model, error) from error


def card(paths: Paths, kind: str, summary: dict[str, Any]) -> str:
    """The model card: what it is, how it was trained, how good it is, how to load it."""
    baseline = summary.get("baseline", {})
    rows = "\n".join(
        f"| {name} | {value:.4f} | {f'{baseline[name]:.4f}' if name in baseline else ''} |"
        for name, value in summary["valid"].items()
    )
    return f"""---
library_name: transformers
tags: [lmctl]
---
# {paths.root.name}

`{kind}` with {summary["parameters"]["total"]:,} parameters, trained by lmctl for {summary["steps"]:,} steps on
{summary["tokens"]:,} tokens. `config.yaml` of the run directory repeats the run: `lmctl train --from config.yaml`.

| on held-out text | value | without looking at the text |
|---|---|---|
{rows}

```python
from transformers import AutoTokenizer, {kind}

model = {kind}.from_pretrained("{paths.model.name}")
tokenizer = AutoTokenizer.from_pretrained("{paths.model.name}")
```
"""
