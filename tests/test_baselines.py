"""Comparisons of estimators: repetitions are independent, and statistics are what they say."""

import pytest
import torch

from icl import figures
from icl.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import ESTIMATORS, OLS, Estimator, Zero, tuned_ridge
from icl.experiments import baselines
from icl.experiments.baselines import A7, ALGORITHM, FIXED, Result, advantage
from icl.experiments.comparison import better_naive
from icl.predictors import excess_risk
from icl.tasks import SparseLinear

TASK = SparseLinear(4, 1, 12, 1.0, "sphere")


def batches(task, contexts, seeds):
    return [draw(task, contexts, "evaluate", seed) for seed in seeds]


def test_a_repetition_tunes_and_judges_on_its_own_seed():
    risks = baselines.repeat(("ridge", "GD", ALGORITHM), TASK, 50, (3, 8))
    for row, seed in zip(risks["ridge"], (3, 8), strict=True):
        contexts = draw(TASK, 50, "evaluate", seed)
        assert torch.equal(row, excess_risk(tuned_ridge(TASK, seed), contexts))
    assert {tuple(r.shape) for r in risks.values()} == {(2, 50)}


def test_the_reduction_is_below_the_better_baseline_of_each_repetition():
    risks = {
        "GD": torch.tensor([[1.0, 3.0], [4.0, 4.0]]),
        "ridge": torch.tensor([[4.0, 6.0], [1.0, 1.0]]),
        ALGORITHM: torch.tensor([[1.0, 1.0], [2.0, 2.0]]),
    }
    pair = risks[ALGORITHM], better_naive(risks)
    assert torch.equal(advantage(pair), torch.tensor([0.5, -1.0]))
    # Paired differences −1 and 1, over two repetitions.
    shown = Result({}, {"a": pair}, {}, None).numbers()
    shown = shown.replace("\N{NO-BREAK SPACE}", " ")
    assert "| a | 1.5, 1, 3 | 1.5, 1.5, 2 | 0.000 [−12.706, 12.706] |" in shown
    wild = torch.ones(2, 100)
    wild[0, 0], wild[0, 1:] = torch.nan, torch.arange(1.0, 100)
    shown = Result({}, {"a": (wild, wild)}, {}, None).numbers()
    assert "| a | 25.5, 1, inf | 25.5, 1, inf |" in shown, "an overflow is the worst of all"


def test_a_setting_is_judged_at_a_relative_and_at_a_fixed_rate_against_one_baseline():
    names = ("GD", "ridge", ALGORITHM, FIXED)
    risks = {name: torch.full((2, 3), float(k)) for k, name in enumerate(names)}
    pairs = baselines.compared({"a": risks, "b": risks})
    assert list(pairs) == ["a", "a, fixed rate", "b", "b, fixed rate"]
    assert [ours.unique().tolist() for ours, _ in pairs.values()] == [[2.0], [3.0]] * 2
    assert all(torch.equal(naive, risks["GD"]) for _, naive in pairs.values())
    values = {task.values for task in baselines.SETTINGS.values()}
    assert values == {"sphere", "gaussian"}


def test_a_context_in_a_thousand_does_not_bend_a_slope():
    found = {n: {"x": torch.full((2, 1000), 1 / n)} for n in (10, 20, 80)}
    found[80]["x"][:, 3] = 1e6
    (row,) = baselines.slopes(found).itertuples()
    assert row[2].value == pytest.approx(-1, abs=1e-5)


def test_the_verdict_turns_when_the_algorithm_is_swapped_or_useless_or_explodes():
    risks = baselines.repeat(("ridge", "GD", ALGORITHM), TASK, 500, (0, 1, 2))
    ours, naive = risks[ALGORITHM], better_naive(risks)
    assert A7.judge({"": (ours, naive)}).outcome == REPRODUCED
    assert A7.judge({"": (naive, ours)}).outcome == NOT_REPRODUCED
    assert A7.judge({"": (naive, naive)}).outcome == NOT_REPRODUCED
    zero = baselines.repeat(("zero",), TASK, 500, (0, 1, 2))["zero"]
    assert A7.judge({"": (zero, naive)}).outcome == NOT_REPRODUCED
    ours[1, 7] = 1e30  # one context decides nothing, ten of 500 do
    assert A7.judge({"": (ours, naive)}).outcome == REPRODUCED
    ours[1, 7:17] = 1e30
    assert A7.judge({"": (ours, naive)}).outcome == UNDECIDED


def test_a_slope_is_the_exponent():
    seeds = torch.tensor([1.0, 2.0, 5.0])[:, None]
    found = {n: {"x": seeds * n**-1.5 * torch.ones(3, 4)} for n in (10, 20, 80)}
    name, slope, first, last = baselines.slopes(found).iloc[0]
    assert (slope.value, slope.low, slope.high) == pytest.approx((-1.5,) * 3, abs=1e-5)
    assert (name, float(first)) == ("x", pytest.approx(8 / 3 * 10**-1.5, abs=1e-4))
    assert float(last) == pytest.approx(8 / 3 * 80**-1.5, abs=1e-4)
    assert list(baselines.lines(found, "").x) == [10, 20, 80]


def test_all_contenders_answer_and_bayes_is_the_last_and_the_floor():
    risks = baselines.evaluate(baselines.contenders(TASK), batches(TASK, 1000, (0,)))
    means = [r.mean().item() for r in risks.values()]
    assert min(means) == means[-1]
    assert list(risks)[-1] == "Bayes"
    assert means[0] == pytest.approx(1.0)


def test_a_new_estimator_needs_its_registry_entry_only(monkeypatch):
    known = {name: ESTIMATORS[name] for name in ("zero", FIXED, "ridge")}
    registry = known | {"mine": Estimator(lambda task, seed=0: OLS(), "#123456", "p")}
    for module in (baselines, figures):
        monkeypatch.setattr(module, "ESTIMATORS", registry)
    found = baselines.vary(SparseLinear(8, 2, 32, 1.0, "sphere"), 2, (0, 1))
    for varied in found.values():
        assert list(dict.fromkeys(baselines.lines(varied, "").label)) == ["ridge", "mine"]
    assert list(baselines.slopes(found["n"]).predictor) == ["zero", "ridge", "mine"]
    assert figures.looks(["ridge", "mine"])["mine"]["color"] == "#123456"


def test_groups_by_norm_are_in_order_and_keep_contexts_with_their_weights():
    task = SparseLinear(4, 2, 12)
    drawn = batches(task, 400, (1, 2))
    risks = baselines.evaluate({"x": OLS(), "zero": Zero()}, drawn)
    points = baselines.by_norm(risks, torch.cat([batch.w for batch in drawn]), "", groups=4)
    points = points[points.label == "zero"]
    norms = list(points.x)
    assert norms == sorted(norms)
    assert len(norms) == 4
    for norm, median in zip(norms[:-1], points["median"][:-1], strict=True):
        assert median == pytest.approx(norm**2, rel=0.01)


def test_few_contexts_make_fewer_groups_by_norm():
    risks, weights = {"x": torch.arange(4.0).view(2, 2)}, torch.eye(4)
    assert len(baselines.by_norm(risks, weights, "")) == 2


def test_more_steps_are_no_worse_where_rates_are_tuned():
    found = baselines.by_steps(TASK, batches(TASK, 500, (1, 2)), (1, 4))
    for name in baselines.DESCENTS:
        one, four = found[found.label == name].value
        assert four < one


@pytest.mark.parametrize("wrong", [{"contexts": 1}, {"repetitions": 1}, {"features": 12}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(Refused, match=next(iter(wrong))):
        baselines.run(**{"contexts": 2, "repetitions": 2, "features": 8, "seed": 1} | wrong)
