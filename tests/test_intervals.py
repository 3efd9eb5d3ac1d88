"""Excess risk, and intervals over contexts and seeds."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import stdtrit

from icl.contexts import draw, stack
from icl.errors import Refused
from icl.estimators import Ridge
from icl.intervals import (
    GROUPS,
    Estimate,
    estimate,
    geometric,
    number,
    over_contexts,
    over_seeds,
    reduction,
    trimmed,
    without,
)
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


def test_a_trimmed_mean_leaves_out_the_largest_hundredth_only():
    values = torch.arange(200.0)
    rng = torch.Generator().manual_seed(0)
    shuffled = values[torch.randperm(200, generator=rng)]
    assert trimmed(shuffled, dim=0) == values[:198].mean()
    assert trimmed(-shuffled, dim=0) == -values[2:].mean(), "not the smallest"
    assert trimmed(values[:99], dim=0) == values[:99].mean(), "less than one context is none"
    rows = torch.stack([values, 2 * values])
    assert trimmed(rows, dim=-1).tolist() == [values[:198].mean(), 2 * values[:198].mean()]
    assert torch.allclose(trimmed(rows, dim=0), rows.mean(dim=0))
    assert trimmed(torch.cat([values, torch.tensor([1e30])]), dim=0) < 100
    assert trimmed(torch.full((200,), torch.nan), dim=0).isnan()


def test_the_interval_over_contexts_is_the_textbook_one_for_a_mean():
    values = torch.from_numpy(np.random.default_rng(0).exponential(2.0, 4000))
    ours = estimate(values, "mean")
    half = 1.96 * values.std().item() / 4000**0.5
    assert ours.value == pytest.approx(values.mean().item())
    assert ours.high - ours.low == pytest.approx(2 * half, rel=0.4)  # 20 groups: ±16 % of it
    assert ours.median == pytest.approx(2 * np.log(2), rel=0.05)


@pytest.mark.parametrize("average", ["trimmed", "mean", "median"])
def test_the_jackknife_s_variance_is_that_of_other_contexts(average):
    rng = np.random.default_rng(1)
    batches = torch.from_numpy(rng.lognormal(0, 1, (400, 1000)))
    jackknifed = torch.tensor(
        [estimate(batch, average).high - estimate(batch, average).value for batch in batches[:60]]
    )
    spread = torch.stack([torch.tensor(estimate(b, average).value) for b in batches]).std()
    assert jackknifed.square().mean().sqrt() / 2.093 == pytest.approx(spread.item(), rel=0.2)


def test_an_interval_covers_contexts_that_all_seeds_share():
    # Seeds that differ little, on contexts that differ much: 95 % of intervals hold the truth.
    rng, hits = np.random.default_rng(2), 0
    for _ in range(300):
        shared = rng.standard_normal(400)
        own = rng.standard_normal((5, 1)) * 0.01 + rng.standard_normal((5, 400)) * 0.1
        risks = torch.from_numpy(1.0 + own + shared)
        found = over_seeds(
            risks.mean(dim=-1), variance=over_contexts(lambda x: x.mean(dim=-1), risks).item()
        )
        hits += found.low < 1.0 < found.high
        alone = over_seeds(risks.mean(dim=-1))
        assert found.high - found.low > alone.high - alone.low
    assert hits > 0.9 * 300


def test_groups_of_contexts_are_left_out_of_whatever_holds_them(task):
    contexts = draw(task, 45, "evaluate", seed=0, queries=2)
    tensor = torch.arange(90.0).view(2, 45)
    found = {"pair": (tensor, contexts), "text": "as it is"}
    seen = []
    for group in range(GROUPS):
        (less, fewer), text = without(found, group).values()
        assert text == "as it is"
        assert less.shape == (2, len(fewer)) == (2, 42 if group < 5 else 43)
        assert torch.equal(fewer.w, contexts.w[less[0].long()])
        assert torch.equal(fewer.tokens, contexts.tokens[less[0].long()])
        seen += sorted(set(range(45)) - set(less[0].tolist()))
    assert sorted(seen) == list(range(45)), "every context is in one group"


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
    rare = torch.cat([torch.ones(400), torch.full((4,), 1e9)])
    assert reduction(rare, 2 * torch.ones(404)) == 0.5
    assert reduction(rare, 2 * torch.ones(404), "mean") < -1e6


def test_a_stricter_level_and_more_variance_widen_an_interval():
    values = torch.tensor([1.0, 2.0, 4.0, 4.5, 9.0], dtype=torch.float64)
    plain = over_seeds(values)
    strict = over_seeds(values, level=1 - 0.05 / 3)
    low, high = stats.ttest_1samp(values.numpy(), 0).confidence_interval(1 - 0.05 / 3)
    assert (strict.low, strict.high) == (pytest.approx(low), pytest.approx(high))
    half = (plain.high - plain.low) / 2
    unit = half / (values.std().item() / 5**0.5)
    more = over_seeds(values, variance=4.0)
    assert (more.high - more.low) / 2 == pytest.approx(np.hypot(half, 2 * unit))


def test_estimates_are_over_seeds_or_over_contexts():
    rng = np.random.default_rng(0)
    risks = torch.from_numpy(rng.exponential(1.0, (5, 1000)))
    found = estimate(risks)
    means = risks.sort(dim=-1).values[:, :990].mean(dim=-1)
    assert found.value == pytest.approx(means.mean().item())
    assert found.high - found.low > over_seeds(means).high - over_seeds(means).low
    spread = torch.arange(101.0) ** 2
    middle = estimate(spread, "median")
    assert middle.value == 2500
    assert middle.low < 2500 < middle.high
    assert estimate(torch.stack([spread, spread + 1]), "median").value == 2500.5


def test_no_interval_of_a_risk_reaches_below_zero():
    found = estimate(torch.tensor([[0.1] * 50, [0.1] * 50, [9.0] * 50]))
    assert found.low == 0.0 < found.value < found.high
    assert over_seeds(torch.tensor([0.1, 0.1, 9.0])).low < 0


def test_the_geometric_mean_is_the_mean_of_logarithms():
    found = geometric(torch.tensor([1.0, 10.0, 100.0]))
    logs = over_seeds(torch.tensor([0.0, 1.0, 2.0]))
    assert found.value == pytest.approx(10)
    assert found.low == pytest.approx(10**logs.low)
    assert found.high == pytest.approx(10**logs.high)


def test_an_exact_value_has_no_interval():
    found = over_seeds(torch.tensor(0.25))
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
    assert str(found) == "0.250"
    assert "[" in str(over_seeds(torch.tensor([0.25, 0.25])))


def test_a_number_too_large_to_mean_anything_is_only_called_large():
    assert number(7.25e33) == ">\N{NO-BREAK SPACE}10⁶"
    assert number(-7.25e33) == "<\N{NO-BREAK SPACE}\N{MINUS SIGN}10⁶"
    assert (number(999.5), number(12345.6), number(1e6)) == ("999.500", "12346", "1000000")
    assert (number(-0.5), number(-0.0001), number(2.0, 1)) == (
        "\N{MINUS SIGN}0.500",
        "0.000",
        "2.0",
    )
    assert number(float("inf")) == number(1e7)
    assert number(float("nan")) == "undefined"


def test_an_interval_keeps_the_end_that_means_something():
    assert (
        str(Estimate(3e7, 0.5, 6e7, 1.0))
        == f"{number(1e7)} [0.500,\N{NO-BREAK SPACE}{number(1e7)}]"
    )
    assert str(Estimate(3e7, 2e7, 6e7, 1.0)) == number(1e7)
    assert str(Estimate(-0.5, -1.0, 0.0, 0.0)) == "−0.500 [−1.000,\N{NO-BREAK SPACE}0.000]"
    assert str(Estimate(*4 * (float("nan"),))) == "undefined"


def test_to_look_again_with_more_seeds_costs_what_the_page_says():
    """How often 95 % intervals decide about a mean that lies at its threshold."""
    values = np.random.default_rng(0).standard_normal((100_000, 20))
    decided, shares = np.zeros(len(values), dtype=bool), []
    for count in (5, 10, 20):
        seen = values[:, :count]
        half = stdtrit(count - 1, 0.975) * seen.std(axis=1, ddof=1) / count**0.5
        decided |= np.abs(seen.mean(axis=1)) > half
        shares.append(f"in {100 * decided.mean():.0f} %")
    page = Path(__file__).parent.parent / "book" / "reproducibility.md"
    (told,) = re.findall(r"To look again has a price.*?\.", page.read_text(encoding="utf-8"))
    assert f"decided {shares[0]} of cases" in told
    assert shares[2] in told
