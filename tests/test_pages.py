"""Generated text says what was computed, with the right sign and in the right place."""

from dataclasses import replace

import pytest
import torch

from icl import pages
from icl.checkpoints import catalogue, load
from icl.claims import judge
from icl.contexts import draw
from icl.heads import Importance
from icl.predictors import LinearPredictor
from icl.sweeps import EXPERIMENTS


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
    ((name, first, second),) = cells(pages.fragility({"m": found["m"].by("median")}))
    assert (name, first, second) == ("`m`", "0.2 to 3", "0.1 to 0.3")


def test_robustness_shows_every_fill_and_average(found):
    rows = cells(pages.robustness({"zero": found, "mean": found}))
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
    rows = cells(pages.standings({"m": trained}, {"m": contexts}, baselines))
    assert [row[0] for row in rows] == ["`m`", "far", "exact"]
    assert rows[1][1].startswith("800.000")
    assert rows[1][3].startswith("−799")
    assert float(rows[2][3].split()[0]) == pytest.approx(float(rows[0][1].split()[0]))


def test_settings_list_every_experiment_s_own_values():
    rows = {row[0]: row[1:] for row in cells(pages.settings())}
    assert rows["recipe: `steps`"][:-1] == [
        str(experiment.config.recipe.steps) for experiment in EXPERIMENTS.values()
    ]
    assert rows["task: `d`"][:-1] == [str(e.config.task.d) for e in EXPERIMENTS.values()]
    assert {row[-1] for row in rows.values()} == {"paper", "our choice"}


def test_a_finding_quotes_the_deciding_statistic_only():
    high, low = torch.tensor([0.9, 0.91, 0.89]), torch.tensor([-0.7, -0.71, -0.69])
    text = pages.finding([judge("A3", {"small": (high, low)})])
    assert "A3, not reproduced" in text
    assert "0.900" in text
    assert "0.700" not in text
    assert "above 0.5" in text


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
