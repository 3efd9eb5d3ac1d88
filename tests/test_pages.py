"""Generated text says what was computed, with the right sign and in the right place."""

from dataclasses import replace

import pytest
import torch

from icl import pages, tables
from icl.checkpoints import catalogue, load
from icl.contexts import draw
from icl.heads import Importance
from icl.predictors import LinearPredictor
from icl.sweeps import MODELS
from icl.verdicts import judge


def cells(text):
    """Rows of a Markdown table without its header, as lists of cells."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
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


class Shifted(LinearPredictor):
    """The truth, moved by a constant: a risk of shift² · d."""

    def __init__(self, shift):
        self.shift = shift

    def weights(self, contexts):
        return contexts.w + self.shift


def test_standings_subtract_the_baseline_from_the_model():
    trained = load("workhorse-3")
    contexts = draw(trained.config.task, 50, "evaluate", seed=0)
    baselines = {"m": {"far": Shifted(10.0), "exact": Shifted(0.0)}}
    rows = cells(tables.standings({"m": trained}, {"m": contexts}, baselines))
    assert [row[0] for row in rows] == ["`m`", "far", "exact"]
    assert rows[1][1].startswith("800.000")
    assert rows[1][3].startswith("−799")
    assert float(rows[2][3].split()[0]) == pytest.approx(float(rows[0][1].split()[0]))


def test_settings_say_what_is_shared_and_list_what_differs():
    shared, models = pages.settings().split("\n\n")
    assert {row[-1] for row in cells(shared)} == {"paper", "our choice"}
    assert "`noise` = 1.0" in shared
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
    assert [row[0].strip("`") for row in cells(pages.models())] == catalogue()
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
