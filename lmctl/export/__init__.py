"""Finished models as files for other programs: Hugging Face directories, ONNX, GGUF."""
