"""dvc.yaml lists, for every stage, all that its command depends on."""

import ast
from pathlib import Path

import pytest

from pipeline.params import Params
from pipeline.params_file import read_yaml

ROOT = Path(__file__).parents[1]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]


def imported_modules(module: str, seen: set[str]) -> set[str]:
    """Follow the project's own imports, also those inside functions; `pipeline.datasets.x` is found by folder."""
    path = ROOT / (module.replace(".", "/") + ".py")
    path = path if path.is_file() else ROOT / module.replace(".", "/") / "__init__.py"
    seen.add(module)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline"):
            inner = [f"{node.module}.{item.name}" for item in node.names]
            names = [name for name in inner if (ROOT / (name.replace(".", "/") + ".py")).is_file()] or [node.module]
        elif isinstance(node, ast.Import):
            names = [item.name for item in node.names if item.name.startswith("pipeline.")]
        for name in names:
            if name != "pipeline" and name not in seen:
                imported_modules(name, seen)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_deps_list_every_module_that_the_stage_imports(stage):
    deps = STAGES[stage]["deps"]
    for module in sorted(imported_modules(f"pipeline.{stage}", set())):
        path = module.replace(".", "/")
        listed = f"{path}.py" in deps or any(path == dep or path.startswith(f"{dep}/") for dep in deps)
        assert listed, f"{stage}: {path}.py is imported but not in deps"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_exist_and_are_made_by_an_earlier_stage(stage):
    made: set[str] = set()
    for name, definition in STAGES.items():
        if name == stage:
            break
        for kind in ("outs", "metrics", "plots"):
            made |= {next(iter(item)) if isinstance(item, dict) else item for item in definition.get(kind, [])}
    for dep in STAGES[stage]["deps"]:
        assert (ROOT / dep).exists() if dep.startswith("pipeline") else dep in made, dep


def test_a_change_of_how_a_training_runs_leaves_evaluation_as_it_is():
    # The model and what it was trained on are files; how it is asked is no part of the training.
    deps = STAGES["evaluate"]["deps"]
    assert not [dep for dep in deps if dep.startswith("pipeline/training") or dep == "pipeline/input_pipeline.py"]


def test_every_section_of_the_parameters_belongs_to_a_stage():
    watched = {section for definition in STAGES.values() for section in definition["params"]}
    after_the_stages = {
        "distill",
        "log",
        "monitor",
        "promote",
        "prune",
        "serve",
        "sweep",
    }  # read by the commands of those names
    assert watched == set(Params.__dataclass_fields__) - after_the_stages
