"""lmctl: pre-train, fine-tune, distil, shrink, evaluate and use language models from YAML."""

__version__ = "0.1.0"
