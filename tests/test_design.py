"""The structure the README promises: rules read off the source, none of them a list of modules."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat

from icl.experiments import SHARED, experiments
from icl.files import catalogue
from icl.site.digests import COMMANDS, models_of
from icl.site.digests import imported as imported_by

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "icl"
SITE_ONLY = {"papermill", "nbformat", "jupyter_book", "sphinx_external_toc", "click"}
NOTEBOOKS_ONLY = {"IPython", "ipykernel"}
PLOTS = {"matplotlib", "seaborn"}
LONGEST = 250  # lines of a module
UNLIKE_A_PAGE = 60  # lines of code in all notebooks that neither import nor run nor show


def module(path):
    """A module's full name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}
CORE = {name for name, path in MODULES.items() if path.parent == PACKAGE} - {"icl.cli"}
EXPERIMENTS = {name for name in MODULES if name.startswith("icl.experiments")}
SITE = {name for name in MODULES if name.startswith("icl.site")} | {"icl.cli"}


def imported(name):
    """All that a module imports, anywhere in it: modules of the package in full, others' roots."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: a relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [one if one in MODULES else node.module for one in full]
        else:
            continue
        yield from (one if one.split(".")[0] == "icl" else one.split(".")[0] for one in names)


IMPORTS = {name: set(imported(name)) for name in MODULES}


def test_every_module_is_of_the_core_or_of_one_wing():
    assert set(MODULES) == CORE | EXPERIMENTS | SITE
    assert min(map(len, (CORE, EXPERIMENTS, SITE))) > 3


def test_the_core_imports_neither_wing():
    for name in CORE:
        assert IMPORTS[name] & (EXPERIMENTS | SITE) == set(), name


def test_no_chapter_can_depend_on_what_only_the_command_needs():
    """These are left out of what makes a chapter run again."""
    alone = {f"icl.{name}" for name in COMMANDS}
    for name in (CORE | EXPERIMENTS) - alone:
        assert IMPORTS[name] & alone == set(), name


def test_an_experiment_imports_the_core_and_of_its_wing_what_is_shared():
    allowed = CORE | {f"icl.experiments.{name}" for name in SHARED}
    for name in EXPERIMENTS:
        ours = {one for one in IMPORTS[name] if one.split(".")[0] == "icl"}
        assert ours <= allowed, name


def test_only_the_site_and_the_command_know_notebooks_pages_and_options():
    for name in CORE | EXPERIMENTS:
        assert IMPORTS[name] & (SITE_ONLY | NOTEBOOKS_ONLY) == set(), name
    for name in CORE - {"icl.figures"}:
        assert IMPORTS[name] & PLOTS == set(), name


def test_science_needs_no_notebook_no_book_and_no_plot():
    program = "import sys, " + ", ".join(sorted(CORE - {"icl.figures"}))
    check = f"{program}; found = {SITE_ONLY | NOTEBOOKS_ONLY | PLOTS} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{check}; assert not found, found"], check=True)


def test_sphinx_s_hook_brings_nothing_else_of_the_site():
    """Importing `icl.site` must not execute chapters' tools inside a build."""
    assert not IMPORTS["icl.site"] & (SITE | SITE_ONLY)


def test_no_imports_go_in_a_circle():
    graph = {name: found & set(MODULES) for name, found in IMPORTS.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(MODULES)


def test_modules_stay_small():
    for name, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, name


def test_an_experiment_names_no_model_that_it_does_not_plan():
    """Its chapter runs again when a planned model changes, so it may load no other."""
    shipped = set(catalogue())
    for chapter, experiment in experiments().items():
        source = MODULES[experiment.__name__].read_text(encoding="utf-8")
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
        named = {node.value for node in nodes if isinstance(node.value, str)} & shipped
        assert named <= models_of(experiment.__name__.split(".")[-1]), chapter


NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "book").glob("*.ipynb"))}


def test_every_experiment_has_its_notebook_and_a_fork_has_an_experiment():
    found = {name: module.__name__ for name, module in experiments().items()}
    assert set(found) <= set(NOTEBOOKS)
    for name, path in NOTEBOOKS.items():
        used = {x for x in imported_by(path) if x.startswith("icl.experiments.")}
        assert used, f"{name} imports no experiment"
        assert found.get(name, *used) in used, f"{name} imports {used}"


def statements(path):
    """The statements of a notebook's code cells but its parameters, and which of them are shown."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            body = ast.parse(cell.source).body
            yield from ((node, node is body[-1]) for node in body)


def is_of_a_page(node, shown):
    """Is it an import, the chapter's one call, or something shown?"""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Assign(
            targets=[ast.Name(id="found")], value=ast.Call(func=ast.Attribute(attr="run"))
        ):
            return True
        case ast.Expr():
            return shown
    return False


def test_notebooks_import_run_and_show():
    lines = 0
    for path in NOTEBOOKS.values():
        for node, shown in statements(path):
            if not is_of_a_page(node, shown):
                lines += node.end_lineno - node.lineno + 1
    assert lines <= UNLIKE_A_PAGE


def test_notebooks_have_no_loops_and_define_nothing():
    loops = ast.For | ast.While | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    made = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    for name, path in NOTEBOOKS.items():
        for statement, _ in statements(path):
            for node in ast.walk(statement):
                assert not isinstance(node, loops | made), f"{name}: {ast.unparse(node)}"
