"""Other number formats for finished models: int8 after training against torch's own, and `lmctl eval` of both sides."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import use_models
from torch import nn
from transformers.pytorch_utils import Conv1D
from use_models import evaluate

from lmctl.core.errors import ConfigError, LmctlError
from lmctl.inference.load import load
from lmctl.inference.number_formats import Numerics, dtypes, in_float
from lmctl.inference.speed import Speed
from lmctl.precision.bf16 import Bf16
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp8 import Fp8
from lmctl.precision.int8_dynamic import Int8Dynamic
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_weight_only import Int8WeightOnly
from lmctl.precision.int8_weights import Int8Weights
from lmctl.runner.places import Cpu

CPU = torch.device("cpu")
DYNAMIC = {"_target_": "lmctl.precision.int8_dynamic.Int8Dynamic"}
WEIGHT_ONLY = {"_target_": "lmctl.precision.int8_weight_only.Int8WeightOnly"}
KINDS = pytest.mark.parametrize("kind", ["linear", "conv1d"])


def network(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Linear(96, 40) if kind == "linear" else Conv1D(40, 96)
    nn.init.normal_(layer.bias)
    return nn.ModuleDict({"layer": layer}).to(dtype)


def weight_of(layer: nn.Module) -> torch.Tensor:
    """[O, I], float64."""
    weight = layer.weight.detach().double()
    return weight.t() if isinstance(layer, Conv1D) else weight


def rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers [O, I] and scales [O] of a weight, by torch's own rounding; float64."""
    scale = weight.abs().amax(1).float() / 127
    zero = torch.zeros(len(scale), dtype=torch.int32)
    on_grid = torch.fake_quantize_per_channel_affine(weight.float(), scale, zero, 0, -127, 127)
    return (on_grid.double() / scale.double()[:, None]).round(), scale.double()


@KINDS
def test_weight_only_is_the_dequantised_weight(kind):
    plain, ours = network(kind)["layer"], network(kind)
    Int8WeightOnly().quantize(ours, CPU)
    integers, scale = rounded(weight_of(plain))
    dequantised = (integers * scale[:, None]).float()
    x = torch.randn(2, 7, 96)
    assert torch.equal(ours["layer"].read(), dequantised.t() if kind == "conv1d" else dequantised)
    expected = nn.functional.linear(x, dequantised) + plain.bias
    assert torch.allclose(ours["layer"](x), expected, atol=1e-6)


@KINDS
def test_dynamic_is_an_integer_product_of_what_was_rounded(kind):
    plain, ours = network(kind)["layer"], network(kind)
    Int8Dynamic().quantize(ours, CPU)
    integers, scale = rounded(weight_of(plain))
    x = torch.randn(2, 7, 96) * torch.logspace(-3, 3, 7)[:, None]  # tokens of very different size
    step = x.abs().amax(-1, keepdim=True) / 127
    tokens = (x / step).round().double()
    expected = (tokens @ integers.t()) * step.double() * scale + plain.bias.detach()
    assert torch.allclose(ours["layer"](x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_dynamic_is_that_of_torch_but_for_rounding():
    """torch gives all tokens one scale and an offset; so both may be off by half a step of each operand."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    plain, ours = nn.Sequential(nn.Linear(96, 40)), network("linear")
    plain[0].load_state_dict(ours["layer"].state_dict())
    theirs = quantize_dynamic(plain, {nn.Linear: per_channel_dynamic_qconfig})
    assert type(theirs[0]).__module__.startswith("torch.ao")
    Int8Dynamic().quantize(ours, CPU)
    x, weight = torch.randn(32, 96), weight_of(plain[0]).float()
    a, b, exact = ours["layer"](x), theirs(x), plain(x)
    of_weights = 2 * x.abs().sum(1, keepdim=True) * weight.abs().amax(1) / 127 / 2
    step_of_theirs = 2 * (x.max() - x.min()) / 255  # 7 bits: `reduce_range`
    of_tokens = (x.abs().amax(1, keepdim=True) / 127 + step_of_theirs) / 2 * (weight.abs().sum(1) * 1.01)
    assert ((a - b).abs() <= of_weights + of_tokens).all()
    assert (a - exact).norm() < (b - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("option", [Int8WeightOnly(), Int8Dynamic()])
def test_a_model_in_bf16_stays_one(option):
    ours, plain = network("linear", torch.bfloat16), network("linear", torch.bfloat16)
    option.quantize(ours, CPU)
    x = torch.randn(3, 96, dtype=torch.bfloat16)
    y, layer = ours["layer"](x), ours["layer"]
    assert (y.dtype, layer.weight.dtype, layer.bias.dtype) == (torch.bfloat16,) * 3
    expected = plain["layer"](x).detach().float()
    assert (y.detach().float() - expected).norm() < 0.02 * expected.norm()


def test_powers_of_two_and_exclusions():
    ours = nn.ModuleDict({"layer": nn.Linear(32, 8), "lm_head": nn.Linear(8, 4), "mine": nn.Linear(8, 4)})
    report = Int8WeightOnly(scale="pow2", exclude=["min*"]).quantize(ours, CPU)
    assert report == [
        "int8_weight_only: 2 linear layers, 288 of 336 weights",
        "in float: mine; embeddings, norms, biases",
    ]
    assert in_float(ours) == ["model.mine"]
    exponents = ours["layer"].weight_scale.log2()
    assert torch.equal(exponents, exponents.round())
    with pytest.raises(ValueError, match="scale must be float or pow2"):
        Int8Dynamic(scale="half")


@pytest.mark.parametrize("precision", [Int8Weights(), Int8Full(), Fp8(emulate=True), Bf16Pure()])
def test_two_that_decide_about_the_same_weights_are_refused(precision):
    with pytest.raises(ConfigError, match=r"quantize=int8_dynamic and precision=\w+ both say how weights of linear"):
        Numerics(precision, Int8Dynamic()).check()
    Numerics(Bf16(), Int8Dynamic()).check()


def test_what_the_device_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"precision: fp8 needs an NVIDIA GPU .* nearest: precision=bf16"):
        Numerics(Fp8()).refuse(CPU)


@pytest.mark.parametrize("option", [Int8Dynamic(), Int8WeightOnly()])
def test_nothing_to_quantise_is_refused(tmp_path, option):
    from lmctl.model.artifact.auto import register
    from lmctl.model.rnn.language_model import RecurrentLMConfig, RecurrentLMForCausalLM

    register()
    model = RecurrentLMForCausalLM(RecurrentLMConfig(use_models.SIZE, hidden_size=16))
    use_models.save(tmp_path, model, "[SEP] $A")
    message = f"quantize: {option.name} works on linear layers, and this network has none but model.lm_head, which"
    with pytest.raises(ConfigError, match=message):
        load(str(tmp_path), Cpu(), Numerics(quantize=option))


def test_speed_is_the_median_of_the_rounds():
    speed = Speed(100, [(2.0, 1.0), (2.0, 1.0), (9.0, 1.0)], None, Counter())
    assert (speed.per_second(0), speed.per_second(1)) == (50, 100)
    assert (speed.ratios, speed.ratio) == ([2, 2, 9], 2)
    assert speed.middle_half == (2, 5.5)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return use_models.gpt2(tmp_path_factory.mktemp("gpt2"))


def figures_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval.json").read_text())


TEXTS = [["the cat sits on the mat . the red dog runs"], ["a b c d e f g h"], ["the mat . the blue cat"]]


def test_both_sides_stand_beside_each_other(gpt2, tmp_path, monkeypatch, capsys):
    """What is measured of int8 weights is what plain transformers measures of a model with these weights."""
    monkeypatch.chdir(tmp_path)
    data = {"train": TEXTS}
    evaluate(gpt2, data, quantize=WEIGHT_ONLY)
    table = capsys.readouterr().out
    found = figures_of(tmp_path)
    both = found["perplexity@int8_weight_only"]
    assert both["original"].items() >= found["perplexity"].items()
    assert both["numerics"] == {"original": "as it is (fp32)", "changed": "int8_weight_only"}

    plain = use_models.opened(gpt2)
    weights = elements = channels = 0
    for module in plain.model.modules():
        if isinstance(module, Conv1D):
            integers, scale = rounded(weight_of(module))
            module.weight.data = (integers * scale[:, None]).float().t().contiguous()
            weights, elements, channels = weights + 1, elements + integers.numel(), channels + len(scale)
    assert weights == 8
    total = 4 * sum(p.numel() for p in plain.model.parameters())
    assert both["original"]["weight_bytes"] == total
    assert both["changed"]["weight_bytes"] == total - 3 * elements + 4 * channels
    use_models.save(tmp_path / "dequantised", plain.model, "[SEP] $A")
    evaluate(tmp_path / "dequantised", data, out=str(tmp_path / "other.json"))
    other = json.loads((tmp_path / "other.json").read_text())["perplexity"]
    assert both["changed"]["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert both["changed"]["loss"] != both["original"]["loss"]

    assert both["in_float"] == ["model.transformer.wte", "model.transformer.wpe", "model.lm_head"]
    assert 3 <= len(both["speed_ratio_by_round"]) <= 11
    assert both["original"]["tokens_per_second"] > 0 < both["changed"]["tokens_per_second"]
    assert both["signal_to_noise_db"] > 20
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert table.splitlines()[0].split() == ["perplexity", "as", "it", "is", "(fp32)", "int8_weight_only", "change"]
    assert lines["loss"][:2] == [f"{both[side]['loss']:.4f}" for side in ("original", "changed")]
    assert lines["weight_bytes"][2:] == ["x", f"{both['size_ratio']:.3f}"]
    assert lines["in"][:1] == ["float:"]


MODELS = {
    "mlm": (lambda folder: use_models.bert(folder), {"train": TEXTS}),
    "classification": (
        lambda folder: use_models.bert(folder, "BertForSequenceClassification", num_labels=2),
        {"yields": "labelled", "train": [["the cat", "0"], ["a dog runs", "1"], ["red", "1"]]},
    ),
    "translation": (
        use_models.marian,
        {"yields": "parallel", "train": [["the cat", "the dog runs"], ["a b c", "d e"]]},
    ),
}


@pytest.mark.parametrize("suite", MODELS)
def test_every_suite_has_both_sides(suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, data = MODELS[suite]
    evaluate(make(tmp_path / "model"), data, quantize=DYNAMIC, max_new_tokens=4, precision={"_target_": BF16})
    found = figures_of(tmp_path)[f"{suite}@bf16+int8_dynamic"]
    assert found["original"].keys() >= found["changed"].keys() - {"split"}
    assert found["low_products"]["int8"] > 0 < found["low_products"]["bf16"]
    if suite == "translation":
        assert {path.name for path in tmp_path.glob("hyp*")} == {"hypotheses.txt", "hypotheses-bf16+int8_dynamic.txt"}


BF16 = "lmctl.precision.bf16.Bf16"


def test_suites_that_read_files_have_both_sides(gpt2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the cat sits\tsits the cat\na b c\tc b a\n")
    lists = tmp_path / "lists.jsonl"
    hyps = [{"text": text, "score": score} for text, score in (("the cat", -1.0), ("a cat", -2.0))]
    lists.write_text(json.dumps({"id": "1", "ref": "a cat", "hyps": hyps}) + "\n")
    evaluate(gpt2, suite="minimal_pairs", file=str(pairs), quantize=DYNAMIC)
    evaluate(gpt2, suite="nbest", file=str(lists), dev=str(lists), quantize=DYNAMIC)
    assert figures_of(tmp_path).keys() >= {"minimal_pairs@int8_dynamic", "nbest@int8_dynamic"}


def test_a_precision_is_measured_beside_what_the_model_is(tmp_path, monkeypatch):
    """A model that is saved in bf16 is itself in bf16, and other formats begin from fp32."""
    monkeypatch.chdir(tmp_path)
    folder = use_models.gpt2(tmp_path / "model")
    model = use_models.opened(folder).model.bfloat16()
    use_models.save(folder, model, "[SEP] $A")
    evaluate(folder, {"train": TEXTS}, precision={"_target_": "lmctl.precision.fp32.Fp32"})
    found = figures_of(tmp_path)["perplexity@fp32"]
    assert found["numerics"]["original"] == "as it is (bf16)"
    assert found["size_ratio"] == 2
    assert found["original"]["loss"] == pytest.approx(found["changed"]["loss"], rel=0.02)
    assert dtypes(load(str(folder), Cpu(), Numerics(quantize=Int8Dynamic())).model) == "bf16"


@pytest.mark.parametrize(
    "message", ["asked for int8 products, but there were none", "asked for weights stored as int8"]
)
def test_what_does_nothing_is_found_out(gpt2, tmp_path, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    quantize = DYNAMIC if "products" in message else WEIGHT_ONLY
    monkeypatch.setattr("lmctl.precision.post_training.PostTraining.quantize", lambda *_: [])
    with pytest.raises(LmctlError, match=message):
        evaluate(gpt2, {"train": TEXTS}, quantize=quantize)
