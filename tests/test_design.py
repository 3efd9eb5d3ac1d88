"""The structure the README promises: imports point one way, and science stands alone."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "icl"
# From the ground up; a module may import only from layers before its own.
LAYERS = (
    {"errors", "markdown", "claims"},
    {"tasks"},
    {"responses"},
    {"contexts"},
    {"predictors", "spectrum", "theory"},
    {"transformer", "risk", "bayes"},
    {"configuration", "estimators", "heads", "verdicts"},
    {"checkpoints", "chapters", "comparison", "contests", "constructions"},
    {"pruning", "probing", "few_heads"},
    {"training"},
    {"provenance", "sweeps", "one_layer"},
    {"jobs", "figures"},
    {"heatmaps"},
    {"tables", "pages"},
    {"site"},
    {"cli"},
)
SCIENCE = set().union(*LAYERS[:11]) - {"chapters"}


def imported(path):
    """Names of the package's modules that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "icl":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("icl."):
                yield node.module.split(".")[1]


def test_imports_point_one_way():
    modules = {path.stem: path for path in PACKAGE.glob("[a-z]*.py")}
    assert set(modules) == set().union(*LAYERS)
    below = set()
    for layer in LAYERS:
        for name in layer:
            assert set(imported(modules[name])) <= below, name
        below |= layer


def test_science_needs_no_notebook_no_book_and_no_plot():
    program = "import sys, " + ", ".join(f"icl.{name}" for name in sorted(SCIENCE))
    heavy = "{'papermill', 'jupyter_book', 'matplotlib', 'IPython', 'nbformat'}"
    check = f"{program}; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_modules_stay_small():
    for path in PACKAGE.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path.name
