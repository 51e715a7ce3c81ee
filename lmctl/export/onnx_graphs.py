"""ONNX graphs of a model by torch's exporter (torch.export, then onnxscript)."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.errors import LmctlError
from lmctl.export.subject import Subject
from lmctl.export.verify import fixed_batches
from lmctl.model import rnn
from lmctl.model.rnn.layers import BothWays

LARGEST = 1_800_000_000
"""Bytes of weights in one file; protobuf ends at 2 GiB, and weights beyond go into a file beside it."""


class Named(nn.Module):
    """A part of a model as a function of tensors in the order of `names`, which torch's exporter needs."""

    def __init__(self, model: Any, names: Iterable[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.answer(dict(zip(self.names, inputs, strict=True)))

    def answer(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs in float32, whatever the weights are in."""
        raise NotImplementedError


class Logits(Named):
    """A model, of which the logits are wanted: those of its words or labels first, then those of further heads."""

    def answer(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = self.model(**inputs)
        return tuple(value.float() for name, value in found.items() if name.endswith("logits"))


class Encoder(Named):
    """The encoder of an encoder-decoder: its last hidden states."""

    def answer(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (self.model.get_encoder()(**inputs)[0].float(),)


class Decoder(Named):
    """The decoder of an encoder-decoder, and its output layer, over the encoder's hidden states."""

    def answer(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = self.model(
            decoder_input_ids=inputs["input_ids"],
            encoder_outputs=(inputs["encoder_hidden_states"].to(self.model.dtype),),
            attention_mask=inputs["encoder_attention_mask"],
            use_cache=False,
        )
        return (found.logits.float(),)


class PaddedBothWays(nn.Module):
    """`BothWays` without packed sequences, which graphs have not: backward layers read each row reversed within its own
    length, so that padding stays at its end."""

    def __init__(self, layers: BothWays) -> None:
        super().__init__()
        self.forwards = nn.ModuleList(_one_way(layer, "") for layer in layers.stack)
        self.backwards = nn.ModuleList(_one_way(layer, "_reverse") for layer in layers.stack)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """As `BothWays.forward`."""
        places = torch.arange(rows.shape[1])
        lengths = mask.sum(dim=1, keepdim=True)
        turned = torch.where(places < lengths, lengths - 1 - places, places)[..., None]
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            # torch.export takes the length of what a recurrent layer returns for that of the example; selecting all
            # positions gives it back its name.
            one = forwards(rows)[0].index_select(1, places)
            other = backwards(rows.gather(1, turned.expand(-1, -1, rows.shape[2])))[0].index_select(1, places)
            rows = torch.cat([one, other.gather(1, turned.expand(-1, -1, other.shape[2]))], dim=-1)
        return rows * mask[..., None]


def _one_way(layer: Any, ending: str) -> nn.Module:
    """One direction of a bidirectional layer, as a layer."""
    alone = type(layer)(layer.input_size, layer.hidden_size, batch_first=True)
    weights = {name: value for name, value in layer.state_dict().items() if name.endswith("_l0" + ending)}
    alone.load_state_dict({name.removesuffix("_reverse"): value for name, value in weights.items()})
    return alone.eval()


def write_graphs(subject: Subject, folder: Path, opset: int) -> None:
    """model.onnx, or encoder_model.onnx and decoder_model.onnx, in `folder`."""
    model = copy.deepcopy(subject.model).to(subject.torch_dtype)
    model.config.use_cache = False
    if subject.loaded.artifact.model_type == rnn.CLASSIFIER:
        model.model.layers = PaddedBothWays(model.model.layers)
    batch = {name: torch.from_numpy(value) for name, value in fixed_batches(subject)[1].items()}
    if not model.config.is_encoder_decoder:
        _write(Logits(model, batch), batch, _names(model, batch), folder / "model.onnx", opset)
        return
    if model._can_set_attn_implementation():  # torch.export is wrong about the strides of its function with T5's biases
        model.set_attn_implementation("eager")
    decoded = batch.pop("decoder_input_ids")
    with torch.no_grad():
        hidden = model.get_encoder()(**batch)[0].float()
    _write(Encoder(model, batch), batch, ["last_hidden_state"], folder / "encoder_model.onnx", opset)
    read = {"input_ids": decoded, "encoder_hidden_states": hidden, "encoder_attention_mask": batch["attention_mask"]}
    _write(Decoder(model, read), read, ["logits"], folder / "decoder_model.onnx", opset)


def _names(model: Any, batch: Mapping[str, Tensor]) -> list[str]:
    """Names of its outputs: `logits`, and what transformers calls those of further heads."""
    with torch.no_grad():
        found = [name for name in model(**batch).keys() if name.endswith("logits")]  # noqa: SIM118
    return ["logits", *found[1:]]


def _write(module: Named, batch: Mapping[str, Tensor], outputs: list[str], file: Path, opset: int) -> None:
    """Export `module`, of inputs [R, L] or [R, L, H] in which R and L may be any, to `file`. `batch` is an example."""
    values = tuple(batch.values())
    with torch.no_grad():
        shapes = [value.shape for value in module.eval()(*values)]
    with quiet():
        try:
            program: Any = torch.onnx.export(
                module,
                values,
                dynamo=True,
                dynamic_shapes=(tuple(dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for _ in values),),
                input_names=list(batch),
                output_names=outputs,
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:
            raise LmctlError(
                f"torch cannot export this network to ONNX: {_reason(error)}", "nearest: format=hf"
            ) from error
    _name_axes(program.model.graph, dict(zip(outputs, shapes, strict=True)))
    size = sum(parameter.nbytes for parameter in module.parameters())
    program.save(file, external_data=size > LARGEST)


def _reason(error: BaseException) -> str:
    """The first line of the innermost exception; the exporter's own ones are pages long."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__} {next(iter(str(error).splitlines()), '')}"


def _name_axes(graph: Any, outputs: Mapping[str, torch.Size]) -> None:
    """Name the dynamic axes of inputs and outputs, and forget the shapes in between, some of which are those of the
    example (torch records them for recurrent layers); runtimes infer their own."""
    from onnxscript import ir

    for node in graph:
        for value in node.outputs:
            value.shape = None
    for value in graph.inputs:
        length = "source_length" if value.name.startswith("encoder_") else "length"
        value.shape = ir.Shape(["batch", length, *list(value.shape)[2:]])
    for value in graph.outputs:
        shape = outputs[value.name]
        value.shape = ir.Shape(["batch", *["length"] * (len(shape) - 2), shape[-1]])


@contextmanager
def quiet() -> Iterator[None]:
    """Context without the remarks of torch's exporter and of onnxruntime's quantiser."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
