"""Generated text says what was computed, with the right sign and in the right place."""

from dataclasses import replace

import pytest
import torch

from icl import pages, tables
from icl.checkpoints import catalogue, load
from icl.comparison import Comparison
from icl.heads import Importance
from icl.risk import over_seeds
from icl.sweeps import MODELS
from icl.verdicts import judge


def cells(text):
    """Rows of a Markdown table without its header, as lists of cells."""
    lines = [line.removeprefix("| ").removesuffix(" |") for line in text.splitlines()[2:]]
    rows = [line.split(" | ") for line in lines]
    return [[cell.strip().replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]


@pytest.fixture
def found():
    """Two seeds, two layers, two heads, four contexts, one of them an outlier."""
    full = torch.ones(2, 4)
    rises = torch.tensor([[0.2, 3.0], [0.1, 0.3]])[None, :, :, None].expand(2, -1, -1, 4).clone()
    rises[:, 0, 0, 3] = 100.0
    return {"m": Importance(full, full[:, None, None] + rises)}


def test_fragility_gives_smallest_then_largest_per_layer(found):
    ((name, first, second),) = cells(tables.fragility({"m": found["m"].by("median")}))
    assert (name, first, second) == ("`m`", "0.2 to 3", "0.1 to 0.3")


def test_robustness_shows_every_fill_and_average(found):
    rows = cells(tables.robustness({"zero": found, "mean": found}))
    assert [row[1:3] for row in rows] == [
        ["zero", "mean"], ["zero", "median"], ["mean", "mean"], ["mean", "median"]
    ]  # fmt: skip
    assert rows[0][3].startswith("3.000")  # the outlier lifts the mean of the first head's rise
    assert rows[1][3].startswith("0.200")
    assert rows[1][5].startswith("0.750")


def test_standings_put_models_beside_the_baselines_of_their_own_task():
    models = {name: load(name) for name in ("workhorse-3", "heads-1-3")}
    field = Comparison.on(models["workhorse-3"].config.task, 50, seed=0)
    rows = cells(tables.standings(models, dict.fromkeys(models, field)))
    assert [row[0] for row in rows] == [*field.baselines, "`workhorse-3`", "`heads-1-3`"]
    assert {tuple(row[1:3]) for row in rows} == {("8", "32")}
    risks = {row[0]: float(row[3].split()[0]) for row in rows}
    for row in rows[-2:]:
        above = float(row[5].split()[0].replace("−", "-"))
        assert above == pytest.approx(risks[row[0]] - risks["Bayes"], abs=2e-3)


def test_grids_leave_gaps_where_a_row_has_no_such_column():
    one = over_seeds(torch.tensor([1.0, 1.0]))
    text = tables.grid("n", {"16": {"a": one}, "32": {"b": one, "a": one}})
    assert text.splitlines()[0] == "| n | a | b |"
    assert text.splitlines()[2] == f"| 16 | {one} |  |"
    assert text.splitlines()[3] == f"| 32 | {one} | {one} |"


def test_settings_say_what_is_shared_and_list_what_differs():
    shared, models = pages.settings().split("\n\n")
    assert {row[-1] for row in cells(shared)} == {"paper", "our choice"}
    assert "`clip` = 1.0" in shared
    header = [name.strip(" `") for name in models.splitlines()[0].strip("|").split("|")]
    rows = {row[0].strip("`"): dict(zip(header, row, strict=True)) for row in cells(models)}
    assert list(rows) == list(MODELS)
    for name, plan in MODELS.items():
        assert rows[name]["steps"] == str(plan.config.recipe.steps)
        assert rows[name]["heads"] == ", ".join(map(str, plan.config.architecture.heads))
        assert rows[name]["d"] == str(plan.config.task.d)


def test_a_finding_quotes_the_deciding_statistic_only():
    high, low = torch.tensor([0.9, 0.91, 0.89]), torch.tensor([-0.7, -0.71, -0.69])
    text = tables.finding([judge("A3", {"small": (high, low)})])
    assert "A3, not reproduced" in text
    assert "−0.700" in text
    assert "0.900" not in text
    assert "above 0." in text
    text = tables.finding([judge("A3", {"small": (high, -low), "large": (high, low)})])
    assert "reproduced under conditions (`small`)" in text
    many = {f"s{i}": (high, low - i) for i in range(6)}
    text = tables.finding([judge("A3", many)])
    assert "`s5`) to " in text
    assert "`s0`" in text
    assert "`s3`" not in text


def test_models_and_runs_are_listed_whole():
    total, listed = pages.models().split("\n\n")
    assert [row[0].strip("`") for row in cells(listed)] == catalogue()
    hours = sum(load(name).seconds for name in catalogue()) / 3600
    assert f"{hours:.1f} hours" in total
    about = {"seconds": 3.4, "when": "today", "parameters": {"x": 1}}
    ((name, seconds, when, parameters),) = cells(pages.runs({"c": about}))
    assert (name, seconds, when, parameters) == ("[c](c)", "3 s", "today", "`x=1`")


def test_the_median_ignores_what_the_mean_does_not(found):
    mean, median = found["m"], found["m"].by("median")
    assert mean.rise[0, 0, 0] == pytest.approx(25.15)
    assert median.rise[0, 0, 0] == pytest.approx(0.2)
    doubled = replace(mean, full=2 * mean.full, masked=2 * mean.masked)
    assert torch.allclose(doubled.rise, 2 * mean.rise)
    assert torch.allclose(doubled.relative, mean.relative)
