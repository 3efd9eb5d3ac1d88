"""Excess risk, and intervals over contexts and seeds."""

import numpy as np
import pytest
import torch
from scipy import stats

from icl.contexts import draw, stack
from icl.errors import Refused
from icl.estimators import OLS, Ridge
from icl.intervals import compare, estimate, geometric, over_seeds, reduction, summarise
from icl.predictors import Predictor, excess_risk, squared_error


class ByAnswers(Predictor):
    """A linear predictor that hides its weights."""

    def __init__(self, inner):
        self.inner = inner

    def predict(self, contexts):
        return self.inner.predict(contexts)


def test_closed_form_equals_the_average_over_queries(task):
    contexts = draw(task, 8, "evaluate", seed=0, queries=50_000)
    exact = excess_risk(Ridge(0.2), contexts)
    sampled = excess_risk(ByAnswers(Ridge(0.2)), contexts)
    # The squared error of a Gaussian query has standard deviation √2 of its mean.
    assert ((sampled / exact - 1).abs() < 5 * (2 / 50_000) ** 0.5).all()
    with pytest.raises(Refused, match="queries=1 or more"):
        excess_risk(ByAnswers(Ridge(0.2)), draw(task, 8, "evaluate", seed=0))


def test_contexts_in_blocks_and_one_batch_per_model_have_the_same_risks(task, monkeypatch):
    batches = [draw(task, 8, "evaluate", seed, queries=3) for seed in (0, 1)]
    hidden = ByAnswers(Ridge(0.2))
    whole = torch.stack([excess_risk(hidden, batch) for batch in batches])
    assert torch.allclose(excess_risk(hidden, stack(batches)), whole)
    monkeypatch.setattr("icl.predictors.ANSWERED_AT_ONCE", 3)
    assert torch.allclose(torch.stack([excess_risk(hidden, b) for b in batches]), whole)


def test_risk_is_zero_at_the_truth_and_uses_sigma(task):
    contexts = draw(task, 8, "evaluate", seed=0)
    assert not squared_error(contexts.w, contexts).any()
    shift = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    assert squared_error(contexts.w + shift, contexts) == pytest.approx(task.sigma[0, 0])
    assert squared_error(contexts.w - shift.roll(1), contexts) == pytest.approx(task.sigma[1, 1])


def test_bootstrap_interval_is_the_textbook_one_for_many_contexts():
    values = torch.from_numpy(np.random.default_rng(0).exponential(2.0, 4000))
    ours = summarise(values)
    half = 1.96 * values.std().item() / 4000**0.5
    assert ours.value == pytest.approx(values.mean().item())
    assert ours.high - ours.low == pytest.approx(2 * half, rel=0.06)
    assert ours.low < ours.value < ours.high
    assert ours.median == pytest.approx(2 * np.log(2), rel=0.05)


def test_paired_comparison_is_tighter_than_the_parts(task):
    contexts = draw(task, 500, "evaluate", seed=0)
    risks = [excess_risk(p, contexts) for p in (OLS(), Ridge(0.01))]
    paired = compare(*risks)
    assert paired.value == pytest.approx((risks[0] - risks[1]).mean().item())
    assert paired.high - paired.low < summarise(risks[0]).high - summarise(risks[0]).low
    with pytest.raises(Refused, match="same contexts"):
        compare(risks[0], risks[1][:9])


def test_interval_over_seeds_is_student_s():
    values = torch.tensor([1.0, 2.0, 4.0, 4.5, 9.0], dtype=torch.float64)
    ours = over_seeds(values)
    low, high = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == (pytest.approx(low), pytest.approx(high))
    with pytest.raises(Refused, match="two seeds"):
        over_seeds(values[:1])


def test_reductions_are_fractions_of_the_other_mean():
    ours, theirs = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([4.0, 2.0])
    assert torch.allclose(reduction(ours, theirs), torch.tensor([0.5, -1 / 3]).double())
    assert reduction(theirs, theirs) == 0


def test_estimates_are_over_seeds_or_over_contexts():
    seeds = torch.tensor([[1.0, 3.0], [2.0, 4.0], [4.0, 6.0]])
    assert estimate(seeds) == over_seeds(torch.tensor([2.0, 3.0, 5.0]))
    assert estimate(seeds[0]) == summarise(seeds[0])
    spread = torch.arange(101.0) ** 2
    middle = estimate(spread, "median")
    assert middle.value == 2500
    assert middle.low < 2500 < middle.high < summarise(spread).high
    assert estimate(torch.stack([spread, spread + 1]), "median").value == 2500.5


def test_the_geometric_mean_is_the_mean_of_logarithms():
    found = geometric(torch.tensor([1.0, 10.0, 100.0]))
    logs = over_seeds(torch.tensor([0.0, 1.0, 2.0]))
    assert found.value == pytest.approx(10)
    assert found.low == pytest.approx(10**logs.low)
    assert found.high == pytest.approx(10**logs.high)
