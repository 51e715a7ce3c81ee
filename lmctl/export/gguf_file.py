"""Writing a GGUF file: sizes, tokenizer, tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lmctl.export.gguf_layout import ARCHITECTURES, sizes, tensors
from lmctl.export.subject import Subject

KINDS = {
    "fp32": gguf.GGMLQuantizationType.F32,
    "fp16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FILE_TYPES = {
    "fp32": gguf.LlamaFileType.ALL_F32,
    "fp16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
FLOAT32 = ("position_embd.weight", "token_types.weight")
"""Matrices that llama.cpp adds to others, and keeps in float32."""
BLOCK = 32
"""q8_0: values of a row that share a scale."""


def write(subject: Subject, file: Path) -> None:
    """The model and its tokenizer in one file."""
    kind = subject.loaded.artifact.model_type
    writer = gguf.GGUFWriter(file, ARCHITECTURES[kind])
    writer.add_name(subject.name)
    writer.add_file_type(FILE_TYPES[subject.dtype])
    if subject.dtype == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    sizes(writer, kind, subject.model.config)
    _add_tokenizer(writer, subject)
    for name, value in tensors(subject.model, kind):
        array = value.numpy()
        stored = _stored_as(name, array, subject.dtype)
        writer.add_tensor(name, gguf.quants.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored_as(name: str, value: np.ndarray, dtype: str) -> gguf.GGMLQuantizationType:
    """The number format of one tensor: vectors are float32, rows that blocks do not fit into are float16."""
    if value.ndim < 2 or name in FLOAT32:
        return gguf.GGMLQuantizationType.F32
    return KINDS["fp16"] if dtype == "q8_0" and value.shape[-1] % BLOCK else KINDS[dtype]


def _add_tokenizer(writer: gguf.GGUFWriter, subject: Subject) -> None:
    """Pieces and special pieces in llama.cpp's words. Its tokenizers are byte-level BPE, WordPiece and unigram; others
    it cannot run, and reads ids only."""
    tokenizer = subject.loaded.tokenizer
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    model = whole["model"]
    kind = {"BPE": "gpt2", "WordPiece": "bert", "Unigram": "t5"}.get(model["type"], "none")
    pieces, types = _pieces(subject, kind)
    writer.add_tokenizer_model(kind)
    writer.add_string(gguf.Keys.Tokenizer.HF_JSON, json.dumps(whole, ensure_ascii=False))
    writer.add_token_list(pieces)
    writer.add_token_types(types)
    if kind == "gpt2":
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in model["merges"]])
        writer.add_add_space_prefix(begins_with_a_space(tokenizer))  # llama.cpp keeps to it for unigrams only
    if kind == "t5":
        scores = {place: score for place, (_, score) in enumerate(model["vocab"])}
        writer.add_token_scores([scores.get(place, 0.0) for place in range(len(pieces))])
    _add_special(writer, subject)


def _pieces(subject: Subject, kind: str) -> tuple[list[str], list[int]]:
    """All rows of the embedding as text, and what they are. WordPiece: the beginning of a word is marked, not its
    continuation."""
    tokenizer = subject.loaded.tokenizer
    known = {place: piece for piece, place in tokenizer.get_vocab().items()}
    special = {*tokenizer.all_special_ids, *(i for i, one in tokenizer.added_tokens_decoder.items() if one.special)}
    pieces, types = [], []
    for place in range(subject.model.config.vocab_size):
        piece = known.get(place, f"[PAD{place}]")
        if place not in known:
            types.append(gguf.TokenType.UNUSED)
        elif place == tokenizer.unk_token_id:
            types.append(gguf.TokenType.UNKNOWN)
        else:
            types.append(gguf.TokenType.CONTROL if place in special else gguf.TokenType.NORMAL)
        if kind == "bert" and types[-1] == gguf.TokenType.NORMAL:
            piece = piece[2:] if piece.startswith("##") else f"\N{LOWER ONE EIGHTH BLOCK}{piece}"
        pieces.append(piece)
    return pieces, [int(one) for one in types]


def _add_special(writer: gguf.GGUFWriter, subject: Subject) -> None:
    """Which pieces are special, and which of them frame a text."""
    loaded = subject.loaded
    ids: dict[Any, int | None] = {
        writer.add_bos_token_id: loaded.begin,
        writer.add_eos_token_id: loaded.end,
        writer.add_unk_token_id: loaded.tokenizer.unk_token_id,
        writer.add_pad_token_id: loaded.tokenizer.pad_token_id,
        writer.add_sep_token_id: loaded.tokenizer.sep_token_id,
        writer.add_mask_token_id: loaded.tokenizer.mask_token_id,
    }
    for add, piece in ids.items():
        if piece is not None:
            add(piece)
    before, after = loaded.frame
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))


def begins_with_a_space(tokenizer: Any) -> bool:
    """Whether a byte-level tokenizer puts a space in front of a text."""
    pre = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    return any(part.get("add_prefix_space", False) for part in [pre, *pre.get("pretokenizers", [])])
