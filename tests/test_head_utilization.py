"""Claims A2 and A3: what masking the heads of the first and of later layers says."""

import math
from dataclasses import replace

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.experiments.head_utilization import (
    A2,
    A3,
    PLANS,
    Result,
    run,
)
from icl.files import load
from icl.heads import Importance, contrast, least_first, top_later
from icl.intervals import AVERAGES

NAN = math.nan


def made(rises, seeds=1):
    """Importance of heads whose masking raises a risk of 1 so much, layer by layer."""
    masked = torch.tensor(rises)[None, :, :, None].expand(seeds, -1, -1, 2) + 1.0
    return Importance(torch.ones(seeds, 2), masked)


def result(zero, mean):
    """A result that has importances only."""
    return Result({}, {}, {}, zero, mean)


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


def test_statistics_at_the_extremes():
    some = made([[1.0, 1, 1, 1], [5.0, 0, -1, 0], [2.0, 2, NAN, NAN], [-1.0, -1, -1, -1]])
    assert least_first(some).item() == pytest.approx(2.0)
    only = made([[1.0, 1, 1, 3], [3.0, 1, 0, 0], [0.0, 0, 9, 0]])
    assert {k: v.item() for k, v in top_later(only).items()} == {"layer 2": 0.75, "layer 3": 1.0}
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    first = only.entropy[0, 0].item()
    assert contrast(only)["layer 2"].item() == pytest.approx(first - entropy)
    assert contrast(only)["layer 3"].item() == pytest.approx(first)


def test_the_least_important_head_is_of_the_first_layer_and_relative_to_the_risk():
    found = made([[4.0, 2, NAN], [0.5, 1, 1]])
    assert least_first(found).item() == pytest.approx(3.0)
    harder = Importance(10 * found.full, 10 * found.full[:, None, None] + found.rise[..., None])
    assert least_first(harder).item() == pytest.approx(1.2)


def test_a_single_layer_has_no_later_one():
    single = Importance(torch.ones(1, 2), torch.ones(1, 1, 3, 2))
    with pytest.raises(Refused, match="no later one"):
        top_later(single)


def test_one_head_that_can_be_spared_turns_the_verdict_on_the_first_layer():
    every = [[0.5, 0.3, 0.2], [0.0, 0.0, 9.0]]
    spared = [[0.5, 0.3, 0.01], [0.0, 0.0, 9.0]]
    assert A2.judge({"m": made(every, 3)}).outcome == REPRODUCED
    assert A2.judge({"m": made(spared, 3)}).outcome == NOT_REPRODUCED
    assert A2.judge({"m": made(every[::-1], 3)}).outcome == NOT_REPRODUCED, "layers swapped"
    negated = [[-rise for rise in layer] for layer in every]
    assert A2.judge({"m": made(negated, 3)}).outcome == NOT_REPRODUCED


def test_shared_work_in_one_later_layer_turns_the_verdict_on_them():
    equal, one = [1.0, 1, 1, 1], [9.0, 0, 1, 0]
    assert A3.judge({"m": made([equal, one, one], 3)}).outcome == REPRODUCED
    assert A3.judge({"m": made([equal, one, equal], 3)}).outcome == NOT_REPRODUCED
    assert A3.judge({"m": made([one, equal, equal], 3)}).outcome == NOT_REPRODUCED, "swapped"


def test_later_layers_of_one_head_do_not_do_where_the_first_has_one_too():
    one, alone = [9.0, 0, 1, 0], [9.0, 0, 0, 0]
    verdict = A3.judge({"m": made([alone, one, one], 3)})
    assert verdict.outcome == NOT_REPRODUCED
    assert verdict.deciding is A3.criteria[1]


def test_a_layer_that_uses_no_head_speaks_against_the_claim():
    dead, equal, one = [0.0, 0, 0, 0], [1.0, 1, 1, 1], [9.0, 0, 1, 0]
    assert A3.judge({"m": made([equal, one, dead], 3)}).outcome == NOT_REPRODUCED
    assert contrast(made([dead, one]))["layer 2"].item() < 0
    assert A3.judge({"m": made([dead, dead], 3)}).outcome == NOT_REPRODUCED


def test_fragility_gives_smallest_then_largest_per_layer(found):
    zero = {"m": found["m"].by("median")}
    ((name, first, second),) = cells(result(zero, zero).fragility())
    assert (name, first, second) == ("m", "0.20 to 3.00", "0.10 to 0.30")


def test_fragility_leaves_gaps_where_a_model_has_fewer_layers(found):
    zero = {"short": made([[1.0, 2]], 2)} | found
    rows = cells(result(zero, zero).fragility())
    assert rows[0] == ["short", "1.00 to 2.00", ""]


def test_robustness_shows_every_fill_and_average(found):
    rows = cells(result(found, found).robustness())
    assert [row[1:3] for row in rows] == [
        [output, average] for output in ("zero", "mean") for average in AVERAGES
    ]
    assert rows[1][3].startswith("3.000")  # the outlier lifts the mean of the first head's rise
    assert rows[2][3].startswith("0.200")
    assert rows[2][5].startswith("0.750")


def test_the_median_ignores_what_the_mean_does_not(found):
    mean, median = found["m"], found["m"].by("median")
    assert mean.rise[0, 0, 0] == pytest.approx(25.15)
    assert median.rise[0, 0, 0] == pytest.approx(0.2)
    doubled = replace(mean, full=2 * mean.full, masked=2 * mean.masked)
    assert torch.allclose(doubled.rise, 2 * mean.rise)
    assert torch.allclose(doubled.relative, mean.relative)


def test_the_plans_are_those_of_the_models_that_ship_and_their_labels_differ():
    for name, plan in PLANS.items():
        assert load(name).config == plan.config, name
    assert len({plan.config.label for plan in PLANS.values()}) == len(PLANS)


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, examples=0, seed=1)
    with pytest.raises(Refused, match="examples=-1"):
        run(contexts=2, examples=-1, seed=1)
