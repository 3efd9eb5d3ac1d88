"""Estimators: against scikit-learn, against brute force, and tuned on their own stream."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import linear_model

from icl import estimators
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import OLS, GradientDescent, Lasso, Ridge, bayes, tune
from icl.risk import excess_risk
from icl.tasks import SparseLinear


def fitted(model, contexts):
    rows = [model.fit(e[:, :-1], e[:, -1]).coef_ for e in contexts.tokens.numpy()]
    return torch.from_numpy(np.stack(rows).copy())


@pytest.mark.parametrize("n", [3, 9, 40])
def test_ols_and_ridge_agree_with_scikit_learn(task, n):
    contexts = draw(replace(task, n=n), 20, "evaluate", seed=0, tokens=True)
    ols = fitted(linear_model.LinearRegression(fit_intercept=False, tol=1e-12), contexts)
    assert torch.allclose(OLS().weights(contexts), ols, rtol=1e-8, atol=1e-8)
    ridge = fitted(linear_model.Ridge(alpha=0.3 * n, fit_intercept=False), contexts)
    assert torch.allclose(Ridge(0.3).weights(contexts), ridge, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("penalty", [0.01, 0.2, 1.0])
def test_lasso_agrees_with_scikit_learn(task, penalty):
    contexts = draw(task, 20, "evaluate", seed=0, tokens=True)
    reference = linear_model.Lasso(alpha=penalty, fit_intercept=False, tol=1e-12, max_iter=100_000)
    ours = Lasso(penalty).weights(contexts)
    assert torch.allclose(ours, fitted(reference, contexts), atol=1e-6)
    assert (ours == 0).any()


def test_one_gradient_step_is_rate_times_correlation(task):
    contexts = draw(task, 5, "evaluate", seed=0)
    assert torch.allclose(GradientDescent(1, 0.3).weights(contexts), 0.3 * contexts.xy)


def test_gradient_descent_follows_autograd_and_ends_at_least_squares(task):
    contexts = draw(replace(task, n=60), 3, "evaluate", seed=0, tokens=True)
    u = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    x, y = contexts.tokens[..., :-1], contexts.tokens[..., -1]
    for _ in range(4):
        loss = (y - torch.einsum("bnd,bd->bn", x, u)).square().sum() / (2 * 60)
        (gradient,) = torch.autograd.grad(loss, u)
        u = (u - 0.2 * gradient).detach().requires_grad_()
    assert torch.allclose(GradientDescent(4, 0.2).weights(contexts), u, rtol=1e-10)
    late = GradientDescent(3000, 0.2).weights(contexts)
    assert torch.allclose(late, OLS().weights(contexts), rtol=1e-6)


@given(scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_least_squares_scales_with_the_labels(scale, seed):
    contexts = draw(SparseLinear(d=3, s=1, n=8), 4, "evaluate", seed)
    factor = torch.tensor([1.0, 1, 1, scale], dtype=torch.float64)
    scaled = replace(contexts, gram=contexts.gram * factor * factor[:, None])
    for estimator in (OLS(), Ridge(0.2), GradientDescent(3, 0.1)):
        ours = estimator.weights(scaled)
        assert torch.allclose(ours, scale * estimator.weights(contexts), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("values", ["signs", "sphere"])
def test_bayes_agrees_with_weighing_draws_from_the_prior(values):
    task = SparseLinear(d=4, s=2, n=6, noise=1.0, values=values)
    contexts = draw(task, 5, "evaluate", seed=0, tokens=True)
    prior = torch.from_numpy(task.draw_weights(np.random.default_rng(1), 400_000))
    for b, e in enumerate(contexts.tokens):
        fit = (e[:, -1:] - e[:, :-1] @ prior.T).square().sum(dim=0)
        weight = (-fit / 2).softmax(dim=0)
        mean = weight @ prior
        error = (weight.square() @ (prior - mean).square()).sqrt()
        ours = bayes(task).weights(contexts[b : b + 1])[0]
        assert ((ours - mean).abs() < 4.5 * error).all()


@pytest.mark.parametrize(("n", "noise"), [(5000, 1.0), (32, 0.05)])
def test_bayes_stays_the_floor_where_the_posterior_is_narrow(n, noise):
    task = SparseLinear(d=4, s=2, n=n, noise=noise, values="sphere")
    contexts = draw(task, 500, "evaluate", seed=0)
    floor = excess_risk(bayes(task), contexts).mean()
    # On the true support least squares would have s σ²/n; the norm is known besides.
    assert 0.5 * noise**2 / n < floor < 1.5 * noise**2 / n
    assert floor < excess_risk(OLS(), contexts).mean()


@pytest.mark.parametrize(("values", "s"), [("signs", 3), ("sphere", 1), ("sphere", 2)])
def test_nothing_beats_bayes(values, s):
    task = SparseLinear(d=6, s=s, n=16, noise=0.8, values=values)
    contexts = draw(task, 2000, "evaluate", seed=0)
    floor = excess_risk(bayes(task), contexts).mean()
    for other in estimators.baselines(task).values():
        assert excess_risk(other, contexts).mean() >= floor
    assert floor < 0.5 * excess_risk(estimators.tuned_ridge(task), contexts).mean()


def test_tuning_finds_the_best_and_never_sees_an_evaluation_context(monkeypatch):
    seen = []
    monkeypatch.setattr(estimators, "draw", lambda *a, **k: seen.append(a[2]) or draw(*a, **k))
    task = SparseLinear(d=4, s=4, n=12, noise=1.0)
    best = estimators.tuned_ridge(task)
    assert set(seen) == {"tune"}
    # For w ~ N(0, I) the best penalty is σ²/n exactly.
    assert best.penalty == pytest.approx(1 / 12, rel=0.3)
    for steps in (1, 3):
        estimators.tuned_gd(task, steps)
        estimators.tuned_lasso(task)
    assert set(seen) == {"tune"}


def test_tuning_ignores_members_that_diverge():
    task = SparseLinear(d=4, s=2, n=12)
    best = tune([GradientDescent(400, 50.0), GradientDescent(4, 0.2)], task)
    assert best.rate == 0.2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ridge(0),
        lambda: Lasso(-1.0),
        lambda: GradientDescent(0, 0.1),
        lambda: bayes(SparseLinear(values="gaussian")),
        lambda: bayes(SparseLinear(d=8, s=3, values="sphere")),
        lambda: bayes(SparseLinear(d=8, s=2, values="signs", noise=0.0)),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(Refused, match="="):
        make()
