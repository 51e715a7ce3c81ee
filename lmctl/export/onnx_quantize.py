"""int8 in ONNX by onnxruntime's quantiser, for the linear layers that `quantize` chooses in `lmctl eval` as well."""

from __future__ import annotations

import ast
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from lmctl.core.errors import ConfigError
from lmctl.export.onnx_graphs import quiet
from lmctl.export.subject import Subject
from lmctl.precision.layer_choice import choose
from lmctl.precision.post_training import PostTraining

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes down which module a node comes from."""
BLOCK = 32
"""int8_weight_only: values of a row that share a scale."""


def chosen_layers(subject: Subject) -> set[str]:
    """Names of the linear layers that become int8, as in the model. ConfigError if there are none."""
    option = subject.quantize
    assert isinstance(option, PostTraining)
    if option.scale != "float":
        raise ConfigError(f"quantize.scale={option.scale}: ONNX has scales of any value only", "nearest: scale=float")
    network = nn.ModuleDict({"model": subject.model})
    return set(choose(network, option.exclude, option.name, "quantize").chosen)


def quantize(file: Path, option: str, layers: Collection[str]) -> None:
    """Replace the graph in `file` by one whose `layers` are stored in int8, by the option of that name."""
    import onnx

    graph = onnx.load(str(file))
    products = [node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]
    left = [node.name for node in products if not _modules(node) & set(layers)]
    target = file.with_suffix(".int8")
    with quiet():
        {"int8_dynamic": _dynamic, "int8_weight_only": _weight_only}[option](graph, target, left)
    os.replace(target, file)


def _modules(node: Any) -> set[str]:
    """The modules that a node is part of."""
    found = {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "[]")
    return set(ast.literal_eval(found))


def _dynamic(graph: Any, target: Path, left: list[str]) -> None:
    """int8 weights with a scale per output channel, activations quantised per tensor at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        graph,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=left,
    )


def _weight_only(graph: Any, target: Path, left: list[str]) -> None:
    """int8 weights with a scale per block of a row, made float again for each product."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(graph, bits=8, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=left)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=False)
