"""Exact means of products of monomials, checked by other formulas and by drawn contexts."""

import numpy as np
import pytest
import torch

from icl.contexts import draw, gram_moments
from icl.errors import Refused
from icl.estimators import tuned_ridge
from icl.moments import mean_risk, optimum, prior_mean, second_moments
from icl.one_layer import one_step_risk, optimal_one_step
from icl.polynomials import Polynomial, evaluate, monomials
from icl.predictors import excess_risk
from icl.tasks import SparseLinear

TASK = SparseLinear(8, 2, 32, 1.0, "sphere")
TASKS = [TASK, SparseLinear(4, 3, 24, 0.5, "gaussian"), SparseLinear(5, 2, 20, 0.3, "signs")]


@pytest.mark.parametrize("task", TASKS)
def test_the_best_of_degree_1_is_the_best_step(task):
    found = optimum(task, monomials(1))
    assert found.coefficients.item() == pytest.approx(optimal_one_step(task)[0, 0])
    assert mean_risk(task, found) == pytest.approx(one_step_risk(task, optimal_one_step(task)))


@pytest.mark.parametrize("task", TASKS)
def test_means_are_those_over_many_contexts(task):
    """Nearly all means within four standard errors, and most of them within about one."""
    listed = monomials(3)
    inner, cross = second_moments(task, monomials(3))
    products, with_w = [], []
    for step in range(20):
        contexts = draw(task, 5_000, "tune", 3, step)
        found = evaluate(listed, contexts)
        products.append(torch.einsum("bpd,bqd->pq", found, found) / 5_000)
        with_w.append(torch.einsum("bpd,bd->p", found, contexts.w) / 5_000)
    for parts, exact in ((products, inner), (with_w, cross)):
        drawn = torch.stack(parts)
        error = drawn.std(dim=0) / 20**0.5
        away = ((drawn.mean(dim=0) - torch.from_numpy(exact)) / error).abs()
        assert away.median() < 1.5
        assert (away < 4).double().mean() > 0.95


def test_means_of_degree_2_are_those_of_isserlis():
    task = SparseLinear(4, 2, 6, 0.7, "signs")
    names = [str(m) for m in monomials(2)]
    inner, cross = second_moments(task, monomials(2))
    mean, covariance = gram_moments(task)
    both = covariance[:-1, -1, :-1, -1] + mean[:-1, -1, None] * mean[:-1, -1]
    assert inner[names.index("r̂"), names.index("r̂")] == pytest.approx(both.trace().item())
    assert cross[names.index("r̂")] == pytest.approx(task.s)


def test_moments_of_priors():
    assert prior_mean((4,), 3, "signs") == 3
    assert prior_mean((4,), 3, "gaussian") == 9
    assert prior_mean((2, 2), 3, "gaussian") == 15  # E χ⁴ = s (s + 2)
    assert prior_mean((2, 2), 3, "sphere") == pytest.approx(9)
    assert prior_mean((4,), 2, "sphere") == pytest.approx(4 * 2 * 3 / 8)  # E cos⁴ = 3/8
    rng = np.random.default_rng(0)
    for values in ("gaussian", "sphere"):
        w = SparseLinear(4, 3, 8, values=values).draw_weights(rng, 400_000)
        drawn = ((w**2).sum(axis=1) * (w**4).sum(axis=1)).mean()
        assert prior_mean((2, 4), 3, values) == pytest.approx(drawn, rel=0.02)


@pytest.mark.parametrize("task", TASKS)
def test_every_degree_lowers_the_risk_and_no_other_coefficients_do(task):
    risks = [mean_risk(task, optimum(task, monomials(degree))).item() for degree in (1, 2, 3)]
    assert risks == sorted(risks, reverse=True)
    assert risks[-1] > 0
    best = optimum(task, monomials(3))
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        other = best.coefficients * (1 + 0.01 * torch.randn(21, generator=rng).double())
        assert mean_risk(task, Polynomial(best.monomials, other)) > risks[-1]


def test_measured_risks_are_those_computed():
    contexts = draw(TASK, 40_000, "evaluate", 2)
    for degree, rounded in ((1, 0.578), (2, 0.338), (3, 0.232), (4, 0.191)):
        best = optimum(TASK, monomials(degree))
        exact = mean_risk(TASK, best).item()
        assert exact == pytest.approx(rounded, abs=5e-4)
        assert excess_risk(best, contexts).mean().item() == pytest.approx(exact, rel=0.03)


def test_at_two_features_monomials_depend_on_each_other_and_the_optimum_is_one_all_the_same():
    task = SparseLinear(2, 1, 8, 1.0, "signs")
    inner, cross = second_moments(task, monomials(3))
    scale = np.sqrt(np.diag(inner))
    values = np.linalg.eigvalsh(inner / scale / scale[:, None])
    assert (values > 1e-10).sum() == 17
    best = optimum(task, monomials(3))
    slope = inner @ best.coefficients.numpy() - cross
    assert abs(slope / scale).max() < 1e-9
    ridge = excess_risk(tuned_ridge(task), draw(task, 40_000, "evaluate", 1)).mean()
    assert mean_risk(task, best) < 1.2 * ridge


def test_other_features_are_refused():
    with pytest.raises(Refused, match="features are all alike"):
        optimum(SparseLinear(2, 1, 4, covariance=(1.0, 2.0)), monomials(1))
