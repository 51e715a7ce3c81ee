"""`format=onnx`: ONNX graphs by torch's exporter, with dynamic batch and length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lmctl.export.base import ExportFormat

if TYPE_CHECKING:
    from lmctl.export.subject import Subject

OPSETS = (18, 23)
"""Oldest and newest version of the operators that the exporter writes."""


@dataclass(frozen=True)
class Onnx(ExportFormat):
    """model.onnx from `input_ids` and `attention_mask` to `logits`; of an encoder-decoder encoder_model.onnx and
    decoder_model.onnx, as optimum names them. Nothing is cached between calls, so text is written by calling again
    with what was written so far."""

    dtypes: ClassVar[tuple[str, ...]] = ("fp32", "fp16")
    quantizes: ClassVar[tuple[str, ...]] = ("int8_dynamic", "int8_weight_only")
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")

    opset: int = 20

    def __post_init__(self) -> None:
        oldest, newest = OPSETS
        if not oldest <= self.opset <= newest:
            raise ValueError(f"opset must be from {oldest} to {newest}, got {self.opset}")

    def refuse(self, subject: Subject) -> str | None:
        from lmctl.model import rnn

        if subject.loaded.artifact.model_type == rnn.SEQ2SEQ:
            return (
                "the decoder of a recurrent encoder-decoder is a loop over positions, which ONNX would have once per "
                "length; nearest: format=hf"
            )
        return None

    def write(self, subject: Subject, folder: Path) -> None:
        from lmctl.export.onnx_graphs import write_graphs
        from lmctl.export.onnx_quantize import chosen_layers, quantize

        layers = chosen_layers(subject) if subject.quantize is not None else ()
        write_graphs(subject, folder, self.opset)
        for file in sorted(folder.glob("*.onnx")) if layers else ():
            quantize(file, subject.quantize_name, layers)
        subject.loaded.tokenizer.save_pretrained(folder)
        subject.model.config.save_pretrained(folder)

    def runtime(self, subject: Subject) -> str:
        return "with_onnxruntime"

    def usage(self, subject: Subject) -> tuple[str, str]:
        if subject.model.config.is_encoder_decoder:
            return "python", _TRANSLATES.format(start=subject.decoder_start, end=subject.loaded.end)
        return "python", _READS


_READS = """\
import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

tokenizer, session = Tokenizer.from_file("tokenizer.json"), InferenceSession("model.onnx")
tokenizer.enable_padding()
read = tokenizer.encode_batch(["The cat sat on the mat.", "Another text."])
inputs = {
    "input_ids": np.array([text.ids for text in read]),
    "attention_mask": np.array([text.attention_mask for text in read]),
    "token_type_ids": np.array([text.type_ids for text in read]),
}
taken = {one.name: inputs[one.name] for one in session.get_inputs()}
logits = session.run(["logits"], taken)[0]  # float32"""

_TRANSLATES = """\
import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
encoder, decoder = InferenceSession("encoder_model.onnx"), InferenceSession("decoder_model.onnx")
ids = np.array([tokenizer.encode("The text.").ids])
mask = np.ones_like(ids)
source = encoder.run(None, {{"input_ids": ids, "attention_mask": mask}})[0]
written = [{start}]
while len(written) < 50 and written[-1] != {end} or len(written) == 1:
    state = {{"encoder_hidden_states": source, "encoder_attention_mask": mask}}
    logits = decoder.run(None, {{"input_ids": np.array([written]), **state}})[0]
    written.append(int(logits[0, -1].argmax()))
print(tokenizer.decode(written))"""
