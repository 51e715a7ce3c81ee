"""Run a Hugging Face directory with plain transformers. Arguments: `class`, a name in transformers; `below`, where in
the directory the model lies; `code`, "yes" if Python files beside it are to be run; `gguf`, a file to read instead."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lmctl.export.foreign.exchange import Arrays, Run, answer


def opened(folder: Path, arguments: Mapping[str, str]) -> tuple[str, Run]:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = getattr(transformers, arguments["class"])
    if "gguf" in arguments:
        config = transformers.AutoConfig.from_pretrained(folder, gguf_file=arguments["gguf"], local_files_only=True)
        if config.model_type == "gpt2":
            config.n_positions = config.n_ctx  # transformers 5.23 leaves it at 1024
        model = kind.from_pretrained(folder, config=config, gguf_file=arguments["gguf"], local_files_only=True)
    else:
        trusted, place = arguments["code"] == "yes", folder / arguments["below"]
        model = kind.from_pretrained(place, trust_remote_code=trusted, use_safetensors=True, local_files_only=True)
    model.eval()

    @torch.inference_mode()
    def run(batch: Arrays) -> np.ndarray:
        found = model(**{name: torch.from_numpy(value) for name, value in batch.items()})
        logits = next(value for name, value in found.items() if name.endswith("logits"))
        return logits.float().numpy()

    return f"transformers {transformers.__version__}", run


if __name__ == "__main__":
    sys.modules["lmctl.model"] = None  # type: ignore[assignment]  # what was exported must do without it
    answer(opened)
