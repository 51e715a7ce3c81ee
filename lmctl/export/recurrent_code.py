"""The Python code of lmctl's recurrent architectures beside their weights, for plain transformers.

transformers runs it only with `trust_remote_code=True`. The files are those that lmctl itself runs, except that imports
within the package become relative, and that dropout, which finished models do not apply, is torch's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lmctl.model import rnn

PACKAGE = Path(rnn.__file__).parent
TYPES_FILE = "model_types"
"""The module that the package's own names go to."""
DROPOUT = "from torch.nn.functional import dropout"
"""In place of the import of lmctl's kernel, which is called with the same arguments."""
CLASSES = {
    rnn.LANGUAGE_MODEL: ("AutoModelForCausalLM", "language_model", "RecurrentLMConfig", "RecurrentLMForCausalLM"),
    rnn.CLASSIFIER: (
        "AutoModelForSequenceClassification",
        "classifier",
        "RecurrentClassifierConfig",
        "RecurrentForSequenceClassification",
    ),
    rnn.SEQ2SEQ: (
        "AutoModelForSeq2SeqLM",
        "seq2seq",
        "RecurrentSeq2SeqConfig",
        "RecurrentForConditionalGeneration",
    ),
}
"""By model type: the Auto class, the module, and its classes of config and model."""


def add_code(folder: Path, model_type: str) -> None:
    """Write the modules that `model_type` needs into `folder`, and name its classes in config.json (`auto_map`)."""
    auto, module, config_class, model_class = CLASSES[model_type]
    waiting, written = [module], {TYPES_FILE}
    (folder / f"{TYPES_FILE}.py").write_text((PACKAGE / "__init__.py").read_text(encoding="utf-8"), encoding="utf-8")
    while waiting:
        name = waiting.pop()
        text, needed = with_relative_imports((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        written.add(name)
        waiting += sorted(needed - written)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": f"{module}.{config_class}", auto: f"{module}.{model_class}"}
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_relative_imports(text: str) -> tuple[str, set[str]]:
    """The text of a module of the package as one that lies beside the others, and which of these it imports."""
    text = text.replace("from lmctl.kernels.dropout import dropout", DROPOUT)
    text = text.replace(f"from {rnn.__name__} import", f"from .{TYPES_FILE} import")
    text = re.sub(rf"from {re.escape(rnn.__name__)}\.(\w+) import", r"from .\1 import", text)
    return text, set(re.findall(r"^from \.(\w+) import", text, re.MULTILINE))
