"""Generated text says what was computed, with the right sign and in the right place."""

from dataclasses import replace

import pandas as pd
import torch

from icl import checkpoints, tables
from icl.checkpoints import Checkpoint, catalogue, load
from icl.configuration import Configuration
from icl.experiments import practical_recipes
from icl.experiments.models import PRACTICAL
from icl.intervals import over_seeds
from icl.site import pages
from icl.transformer import build


def cells(text):
    """Rows of a Markdown table without its header, as lists of cells."""
    lines = [line.removeprefix("| ").removesuffix(" |") for line in text.splitlines()[2:]]
    rows = [line.split(" | ") for line in lines]
    return [[cell.strip().replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]


def rows_by_file(text):
    """A row per model, as a dict by column, by the name of its file."""
    header = [name.strip(" `") for name in text.splitlines()[0].strip("|").split("|")]
    rows = [dict(zip(header, row, strict=True)) for row in cells(text)]
    return {row["file"].strip("`"): row for row in rows}


def test_grids_leave_gaps_where_a_row_has_no_such_column():
    one = over_seeds(torch.tensor([1.0, 1.0]))
    keys = [{"n": "16", "label": "a"}, {"n": "32", "label": "b"}, {"n": "32", "label": "a"}]
    text = tables.grid(pd.DataFrame([key | vars(one) for key in keys]), "n", "label")
    assert text.splitlines()[0] == "| n | a | b |"
    assert text.splitlines()[2] == f"| 16 | {one} |  |"
    assert text.splitlines()[3] == f"| 32 | {one} | {one} |"


def test_settings_say_what_is_shared_and_list_what_differs():
    shared, models = pages.settings().split("\n\n")
    shared = {name.strip("`"): value for name, value in cells(shared)}
    rows = rows_by_file(models)
    assert shared["clip"] == "1.0"
    assert rows["workhorse-3"]["lengths"] == "the task's n"
    assert rows["softmax-norm"]["lengths"] == "16, 48"
    assert sorted(rows) == catalogue()
    labels = [row["model"] for row in rows.values()]
    assert labels == sorted(labels)
    assert len(set(labels)) == len({load(name).config.hash for name in rows})
    for name, row in rows.items():
        config = load(name).config
        assert row["model"] == config.label
        assert row["steps"] == str(config.recipe.steps)
        assert row["heads"] == ", ".join(map(str, config.architecture.heads))
        assert row["d"] == str(config.task.d)
        for part in (config.task, config.architecture, config.recipe):
            assert set(vars(part)) <= set(shared) | set(row)
            for key in set(vars(part)) & set(shared):
                value = vars(part)[key]
                if value != ():
                    assert shared[key] == str(value).strip("()")


def test_settings_call_nothing_shared_that_one_model_contradicts(tmp_path, monkeypatch):
    """Two models alike but for their attention and MLP."""
    monkeypatch.setattr(checkpoints, "TRAINED", tmp_path)
    first = Configuration()
    second = replace(first, architecture=replace(first.architecture, attention="softmax", mlp=True))
    for name, config in {"first": first, "second": second}.items():
        found = {
            "first_losses": torch.ones(2, 1),
            "curve": torch.ones(1, 1),
            "risks": torch.ones(1),
        }
        model = build(config.architecture).initialise((0,), 1.0)
        made = Checkpoint(name, model, config, (0,), **found, seconds=1.0, versions={})
        checkpoints.save(made, tmp_path / f"{name}.safetensors")
    shared, models = pages.settings().split("\n\n")
    shared, rows = dict(cells(shared)), rows_by_file(models)
    assert (shared["`norm`"], shared["`start`"]) == ("False", "drawn weights")
    assert set(rows["first"]) == {"model", "file", "attention", "mlp", "loss"}
    assert [rows[name]["mlp"] for name in ("first", "second")] == ["False", "True"]
    assert rows["first"]["loss"] == "closed form"
    assert rows["second"]["loss"] == "mean over 16 queries"


def test_settings_of_other_kinds_of_models_are_theirs_alone():
    rows = rows_by_file(pages.settings().split("\n\n")[1])
    assert rows["response-sine"]["family"] == "sine"
    assert (rows["response-sine"]["s"], rows["workhorse-3"]["family"]) == ("", "")
    losses = {name for name, row in rows.items() if "closed form" not in row["loss"]}
    assert losses == {"softmax-1", "softmax-2", *PRACTICAL, *practical_recipes.PLANS}
    assert rows["workhorse-3"]["start"] == "drawn weights"
    assert rows["flagship-pruned"]["start"] == "8-8-8 heads, d = 16, pruned by importance"
    assert rows["split-844-0"]["start"] == "an algorithm by hand, its steps split over heads"
    assert rows["flagship-pruned-random"]["start"] == "8-8-8 heads, d = 16, pruned at random"


def test_models_and_runs_are_listed_whole():
    total, listed = pages.models().split("\n\n")
    rows = rows_by_file(listed)
    assert sorted(rows) == catalogue()
    assert all(row["model"] == load(name).label for name, row in rows.items())
    once = [name for name in catalogue() if not name.endswith("-watched")]
    hours = sum(load(name).seconds for name in once) / 3600
    assert f"{hours:.1f} hours" in total
    about = {"seconds": 3.4, "when": "today", "parameters": {"x": 1}}
    ((name, seconds, when, parameters),) = cells(pages.runs({"c": about}))
    assert (name, seconds, when, parameters) == ("[c](c)", "3 s", "today", "`x=1`")


def test_versions_are_those_that_run():
    assert ["torch", torch.__version__] in cells(pages.versions())
    assert ["pandas", pd.__version__] in cells(pages.versions())
