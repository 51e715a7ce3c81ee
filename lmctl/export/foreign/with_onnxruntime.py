"""Run ONNX files with onnxruntime on the CPU: model.onnx, or encoder_model.onnx and decoder_model.onnx."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lmctl.export.foreign.exchange import Arrays, Run, answer


def opened(folder: Path, arguments: Mapping[str, str]) -> tuple[str, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    options.log_severity_level = 3  # errors

    def session(name: str) -> Run:
        opened = onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        takes = [one.name for one in opened.get_inputs()]
        return lambda batch: np.asarray(opened.run(None, {name: batch[name] for name in takes})[0])

    version = f"onnxruntime {onnxruntime.__version__}"
    if (folder / "model.onnx").is_file():
        return version, session("model.onnx")
    encode, decode = session("encoder_model.onnx"), session("decoder_model.onnx")

    def run(batch: Arrays) -> np.ndarray:
        source = {"encoder_hidden_states": encode(batch), "encoder_attention_mask": batch["attention_mask"]}
        return decode({"input_ids": batch["decoder_input_ids"], **source})

    return version, run


if __name__ == "__main__":
    answer(opened)
