"""A model directory: where it lies and what is in it (`reader`), and how it is written (`writer`).

It is in the format of Hugging Face (safetensors, config.json, tokenizer), so that plain transformers loads it; beside
that, lmctl writes what the model was trained for (`core.model_files.TASKS`) and the heads that no transformers class
has a place for (`EXTRA_HEADS`). Models from elsewhere have neither. Training goes on from one
(`lmctl.model.loading`), the verbs that look at finished models use one (`lmctl.inference.load`).
"""

from lmctl.core.batch import LabelKind

EXTRA_HEADS = "extra_heads.safetensors"
"""Heads of further tasks, which the transformers class of the model has no place for."""
GENERATOR = "generator"
"""The directory inside a discriminator's own that its generator lies in."""
HEADS = "heads.json"
"""Beside a directory's files without the weights: the network's heads and their numbers of outputs."""
PROBLEMS: dict[LabelKind, str] = {
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "number": "regression",
}
"""Kinds of labels in the words of transformers' configs."""
