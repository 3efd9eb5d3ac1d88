"""What a chapter's results depend on, as one digest: it runs again when that differs."""

import ast
import hashlib
import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import nbformat

from icl.experiments import SHARED
from icl.files import SUFFIX, file_in

PACKAGE = Path(__file__).parent.parent
SAYING = ("icl.words", "icl.intervals", "icl.tables")  # for numbers in text; they load no model
COMMANDS = ("cli", "runs", "cluster", "replay")  # of the core, what only the command needs
STACK = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn")


def digest(files: list[Path], extra: str = "") -> str:
    """SHA-256 over names and contents of files."""
    total = hashlib.sha256(extra.encode())
    for path in files:
        total.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return total.hexdigest()


def of_chapter(notebook: Path, parameters: dict) -> str:
    """The digest of a notebook, its parameters, what it depends on, and the versions used."""
    stack = [python_version(), *map(version, STACK)]
    files = [notebook, *dependencies(notebook)]
    return digest(files, json.dumps([parameters, stack], sort_keys=True))


def dependencies(notebook: Path) -> list[Path]:
    """The files of the package that a notebook's results can depend on.

    If all it imports of the package are experiments, and what says numbers, these are the core,
    those experiments and their models. Otherwise it could use anything.
    """
    wing, shipped = PACKAGE / "experiments", PACKAGE / "trained"
    known = {path.stem for path in wing.glob("[a-z]*.py")} - set(SHARED)
    names = {name for name in imported(notebook) if name.rpartition(".")[0] not in SAYING}
    used = {_experiment(name) for name in names}
    if not used or not used <= known:
        return sorted([*PACKAGE.rglob("*.py"), *shipped.glob(f"*{SUFFIX}")])
    core = {path for path in PACKAGE.glob("*.py") if path.stem not in COMMANDS}
    core |= {wing / f"{name}.py" for name in ("__init__", *SHARED, *used)}
    models = {name for experiment in used for name in models_of(experiment)}
    files = {file_in(shipped, name) for name in models}
    return sorted(core | {path for path in files if path.exists()})


def imported(notebook: Path) -> set[str]:
    """All that a notebook's code imports of the package, by full names."""
    cells = nbformat.read(notebook, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # a syntax of IPython's own, which could do anything
        return {"icl"}
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "icl"}


def models_of(experiment: str) -> set[str]:
    """Names of the models that an experiment needs, and of those they were pruned from."""
    plans = import_module(f"icl.experiments.{experiment}").PLANS
    starts = (plan.config.start for plan in plans.values())
    return set(plans) | {start.model for start in starts if start}


def _experiment(name: str) -> str:
    """What of `icl.experiments` a full name belongs to; no experiment's name, if to none."""
    return name.removeprefix("icl.experiments.").split(".")[0]
