"""The book's experiments, a file per chapter: the models it needs, its claims, and `run`.

`PLANS` names the models to train, `CLAIMS` says what decides, and `run(…)` takes the chapter's
parameters and returns one result, with tables, verdicts and methods that draw its figures.
Forks copy `template`, which is no chapter: its claim stands on no scorecard and is not rechecked.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from icl.configuration import Plan
from icl.errors import require

SHARED = ("models", "comparison", "measures")  # what experiments may import of one another's wing
TEMPLATE = "template"


def experiments() -> dict[str, ModuleType]:
    """Every experiment by the name of its chapter."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return {
        name.replace("_", "-"): import_module(f"{__name__}.{name}")
        for name in names
        if name not in (*SHARED, TEMPLATE)
    }


def plans() -> dict[str, Plan]:
    """Every model that an experiment needs, by the name of its file."""
    found: dict[str, Plan] = {}
    for chapter, experiment in experiments().items():
        for name, plan in experiment.PLANS.items():
            same = found.setdefault(name, plan) == plan
            require(same, f"PLANS of {chapter}: {name} is planned otherwise by another experiment")
    return found
