"""The floors of the house: a room imports only from floors below, and the lower floors stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = [
    {"core"},
    {"kernels"},
    {"base"},  # what the options of a group have in common: lmctl/*/base.py
    {"config"},
    {
        *("model", "tokenizer", "data", "objective", "augment", "mix"),
        *("precision", "adversary", "distill", "compression", "optim", "schedule", "average", "tracker"),
    },
    {"parallel"},
    {"runner"},
    {"plan"},
    {"train"},  # and what trains with it: see `BESIDE_TRAIN`
    {"inference", "cost", "compare"},
    {"export", "doctor"},
    {"jobs"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
BESIDE_TRAIN = {
    *(f"lmctl.distill.{name}" for name in ("teacher", "cached_teacher", "distillation", "init_from_teacher")),
    *(f"lmctl.distill.{name}" for name in ("activation_recorder", "on_policy_rollout", "report")),
}
"""What carries a plan out elsewhere than in `lmctl/train/`: the half of distillation that computes."""
SPOKEN_OF = ("plan", "base", "parallel")
BESIDE_INFERENCE = {"lmctl.distill.teacher_texts"}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(
    path for path in (ROOT / "lmctl").rglob("*.py") if path != ROOT / "lmctl/__init__.py" and "conf" not in path.parts
)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room of one of our modules by its dotted name."""
    if module in BESIDE_TRAIN:
        return "train"
    if module in BESIDE_INFERENCE:
        return "inference"
    is_base = module == "lmctl.mix.mix" or module.endswith(".base")
    return "base" if is_base else module.partition(".")[2].partition(".")[0]


def for_types(tree: ast.AST) -> set[ast.AST]:
    """What stands below `if TYPE_CHECKING`."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {node for block in blocks for node in ast.walk(block)}


def imports(tree: ast.AST) -> list[str]:
    """The modules that are imported, but for types of what everybody may speak of: the plan, bases, workers."""
    names, spoken_of = [], for_types(tree)
    for node in ast.walk(tree):
        if node in spoken_of and isinstance(node, ast.ImportFrom) and room_of(node.module or "") in SPOKEN_OF:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            names.append(node.module or "")
    return names


def test_every_room_has_its_floor():
    assert {room_of(dotted(path)) for path in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    room, folder = room_of(dotted(path)), dotted(path).split(".")[1]
    names = [name for name in imports(ast.parse(path.read_text())) if name.startswith("lmctl.")]
    others = {room_of(name) for name in names if room_of(name) != room and name.split(".")[1] != folder}
    assert {other for other in others if FLOOR[other] >= FLOOR[room]} == set()


def test_no_files_import_each_other_in_a_circle():
    """Imports inside of functions count as well; what is only for types does not."""
    files = {dotted(path): ast.parse(path.read_text()) for path in MODULES}

    def imported(tree: ast.AST) -> set[str]:
        spoken_of, found = for_types(tree), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node not in spoken_of:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name if name in files else str(node.module) for name in names}
        return found & files.keys()

    TopologicalSorter({name: imported(tree) for name, tree in files.items()}).prepare()  # CycleError names the files


def test_private_parts_of_hydra_are_used_in_one_file_only():
    users = {path.name for path in MODULES if any("hydra._internal" in n for n in imports(ast.parse(path.read_text())))}
    assert users == {"compose.py"}


HEAVY = {"torch", "transformers", "accelerate", "tokenizers", "datasets", "matplotlib"}
LIGHT_ROOMS = ("core", "base", "config", "cli", "verbs", "mix", "runner", "schedule", "tracker")


def test_nothing_heavy_is_imported_before_there_is_work():
    modules = [dotted(path) for path in MODULES if room_of(dotted(path)) in LIGHT_ROOMS and path.name != "stream.py"]
    script = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\nprint({HEAVY} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


FOREIGN = {
    "config/saved.py": "events of PyYAML",
    "config/keys.py": "annotations",
    "cli/application.py": "annotations",
    "inference/training_overlap.py": "annotations",
    "cli/teacher.py": "strings as Hydra reads them",
    "cli/explain.py": "errors of Hydra, OmegaConf and PyYAML",
    "cost/fake_tensors.py": "torch's tensors, on which a note was left",
    "core/pretrained_files.py": "models of transformers",
    "core/json_lines.py": "numpy and torch, neither of which is imported for it",
    "data/hub.py": "features of datasets",
    "distill/activation_recorder.py": "models and configs of transformers",
    "precision/counting.py": "torch's own modules, on which a note was left",
    "precision/int8_product.py": "what this torch can do",
    "precision/scaling.py": "optimisers of torch",
    **dict.fromkeys(
        [
            f"model/{name}.py"
            for name in ("attention_function", "copy_layers", "layer_selection", "loading", "lora", "network")
        ],
        "models and configs of transformers",
    ),
    **dict.fromkeys(
        [f"model/{name}.py" for name in ("artifact/reader", "generation", "positions")] + ["inference/likelihood.py"],
        "models and configs of transformers",
    ),
    **dict.fromkeys(
        ["inference/load.py", "inference/suites/next_sentence.py"], "models and tokenizers of transformers"
    ),
}
"""What may be asked for an attribute by its name, because others made it."""


def asked_by_name(tree: ast.AST) -> list[str]:
    """The attributes that `getattr` and `hasattr` are given in quotes."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and len(n.args) > 1]
    asked = [call.args[1] for call in calls if call.func.id in ("getattr", "hasattr")]  # type: ignore[attr-defined]
    return [name.value for name in asked if isinstance(name, ast.Constant)]


def test_nothing_of_ours_is_asked_for_an_attribute_by_its_name():
    asking = {str(path.relative_to(ROOT / "lmctl")) for path in MODULES if asked_by_name(ast.parse(path.read_text()))}
    assert asking - FOREIGN.keys() == set()
    assert FOREIGN.keys() - asking == set(), "these need no exception any more"
