"""Estimators: against scikit-learn, against brute force, and tuned on their own stream."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import linear_model

from icl import estimators
from icl.contexts import draw
from icl.descent import GradientDescent, Grid, PreprocessedGD, ReweightedGD
from icl.errors import Refused
from icl.estimators import ESTIMATORS, NAIVE, OLS, Lasso, Ridge, Zero, interior, tune
from icl.intervals import trimmed
from icl.predictors import excess_risk, squared_error
from icl.tasks import SparseLinear


def fitted(model, contexts):
    rows = [model.fit(e[:, :-1], e[:, -1]).coef_ for e in contexts.tokens.numpy()]
    return torch.from_numpy(np.stack(rows).copy())


@pytest.mark.parametrize("n", [3, 9, 40])
def test_ols_and_ridge_agree_with_scikit_learn(task, n):
    contexts = draw(replace(task, n=n), 20, "evaluate", seed=0, queries=1)
    ols = fitted(linear_model.LinearRegression(fit_intercept=False, tol=1e-12), contexts)
    assert torch.allclose(OLS().weights(contexts), ols, rtol=1e-8, atol=1e-8)
    ridge = fitted(linear_model.Ridge(alpha=0.3 * n, fit_intercept=False), contexts)
    assert torch.allclose(Ridge(0.3).weights(contexts), ridge, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("penalty", [0.01, 0.2, 1.0])
def test_lasso_agrees_with_scikit_learn(task, penalty):
    contexts = draw(task, 20, "evaluate", seed=0, queries=1)
    reference = linear_model.Lasso(alpha=penalty, fit_intercept=False, tol=1e-12, max_iter=100_000)
    ours = Lasso(penalty).weights(contexts)
    assert torch.allclose(ours, fitted(reference, contexts), atol=1e-6)
    assert (ours == 0).any()


def test_one_gradient_step_is_rate_times_correlation(task):
    contexts = draw(task, 5, "evaluate", seed=0)
    assert torch.allclose(GradientDescent(1, 0.3).weights(contexts), 0.3 * contexts.xy)


def test_gradient_descent_follows_autograd_and_ends_at_least_squares(task):
    contexts = draw(replace(task, n=60), 3, "evaluate", seed=0, queries=1)
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


def descended(contexts, rate, steps):
    """Weights after steps on explicitly preprocessed tokens, back in the coordinates of x."""
    x, y = contexts.tokens[..., :-1], contexts.tokens[..., -1]
    r = torch.einsum("bnd,bn->bd", x, y) / x.shape[1]
    x = x * r[:, None]
    u = torch.zeros_like(r)
    for _ in range(steps):
        u = u + rate * torch.einsum("bnd,bn->bd", x, y - (x @ u[..., None])[..., 0]) / x.shape[1]
    return r * u


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_preprocessed_descent_is_descent_on_preprocessed_tokens(task, steps):
    contexts = draw(task, 20, "evaluate", seed=0, queries=1)
    ours = PreprocessedGD(steps, 0.1).weights(contexts)
    assert torch.allclose(ours, descended(contexts, 0.1, steps), rtol=1e-10)
    r = contexts.xy
    seen = r[:, :, None] * contexts.xx * r[:, None, :]
    rate = 0.7 / torch.linalg.matrix_norm(seen, ord=2)[:, None]
    ours = PreprocessedGD(steps, 0.7, relative=True).weights(contexts)
    assert torch.allclose(ours, descended(contexts, rate, steps), rtol=1e-10)


def test_a_relative_rate_does_not_see_the_scale_of_the_features(task):
    contexts = draw(task, 20, "evaluate", seed=0)
    factor = torch.tensor([3.0, 3, 3, 3, 1], dtype=torch.float64)
    scaled = replace(contexts, gram=contexts.gram * factor * factor[:, None])
    for kind in (GradientDescent, PreprocessedGD):
        ours = kind(4, 0.8, relative=True)
        assert torch.allclose(3 * ours.weights(scaled), ours.weights(contexts), rtol=1e-9)


def test_a_relative_rate_below_two_descends_and_above_diverges(task):
    contexts = draw(replace(task, n=40), 50, "evaluate", seed=0)
    for kind in (GradientDescent, PreprocessedGD):
        for rate, falls in ((0.5, True), (1.9, True), (2.2, False)):
            *_, before, last = kind(300, rate, relative=True).iterates(contexts)
            assert ((last - before).norm(dim=-1) < 1e3).all() == falls


def test_a_fixed_rate_diverges_where_the_weights_are_large():
    task = SparseLinear(d=8, s=2, n=32)
    contexts = draw(task, 2000, "evaluate", seed=0)
    risks = excess_risk(PreprocessedGD(50, 0.3), contexts)
    order = contexts.w.norm(dim=-1).argsort()
    assert risks[order[:500]].max() < 10
    assert not risks[order[-100:]].max() < 1e10
    relative = excess_risk(PreprocessedGD(50, 0.3, relative=True), contexts)
    assert relative[order[-100:]].max() < 10


def test_reweighted_descent_begins_as_preprocessed_and_scales_anew_at_every_step(task):
    contexts = draw(task, 20, "evaluate", seed=0)
    for relative in (False, True):
        first, second = ReweightedGD(2, 0.2, relative).iterates(contexts)
        assert torch.equal(first, next(PreprocessedGD(1, 0.2, relative).iterates(contexts)))
        left = contexts.xy - (contexts.xx @ first[..., None])[..., 0]
        scale = first + left
        rate = 0.2
        if relative:
            seen = scale[:, :, None] * contexts.xx * scale[:, None, :]
            rate = 0.2 / torch.linalg.matrix_norm(seen, ord=2)[:, None]
        assert torch.allclose(second, first + rate * scale**2 * left, rtol=1e-10)


def test_zero_has_the_risk_of_the_weights_themselves(task):
    contexts = draw(task, 5, "evaluate", seed=0)
    sigma = torch.from_numpy(task.sigma)
    expected = torch.einsum("bi,ij,bj->b", contexts.w, sigma, contexts.w)
    assert torch.allclose(excess_risk(Zero(), contexts), expected)


@pytest.mark.parametrize("kind", [GradientDescent, PreprocessedGD])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("n", [3, 9])
def test_risks_in_the_eigenbasis_are_those_of_the_steps(task, kind, relative, n):
    contexts = draw(replace(task, n=n), 30, "tune", seed=0)
    rates, steps = (0.02, 0.15), (1, 2, 7)
    descent = kind(1, 1.0, relative).solved(contexts)
    found = descent.risks(torch.tensor(rates).double(), steps)
    for i, t in enumerate(steps):
        for j, rate in enumerate(rates):
            *_, walked = kind(t, rate, relative).iterates(contexts)
            assert torch.allclose(kind(t, rate, relative).weights(contexts), walked, rtol=1e-9)
            assert torch.allclose(found[i, j], squared_error(walked, contexts), rtol=1e-6)


@pytest.mark.parametrize("kind", [GradientDescent, PreprocessedGD, ReweightedGD])
def test_what_is_searched_are_trimmed_risks_of_the_steps(task, kind):
    contexts = draw(task, 200, "tune", seed=0)
    rates, counts = [0.1, 0.6], (1, 2, 7)
    found = kind(1, 1.0, relative=True).risks(contexts, rates, counts)
    for i, t in enumerate(counts):
        for j, rate in enumerate(rates):
            risks = excess_risk(kind(t, rate, relative=True), contexts)
            kept = risks.sort().values[:-2]  # a hundredth of 200 is left out
            assert found[i, j].item() == pytest.approx(kept.mean().item(), rel=1e-6)
    diverging = kind(1, 1.0, relative=True).risks(contexts, [0.1, 9.0], (1, 2, 3000))
    assert diverging[:2, 0].isfinite().all()
    assert diverging[2, 1] == torch.inf


def test_reweighted_descent_hardly_depends_on_how_often_the_largest_eigenvalue_is_found():
    task = SparseLinear(8, 2, 32, 0.5, "sphere")
    contexts = draw(task, 100, "tune", seed=0)
    for rate in (0.1, 1.0):
        u = torch.zeros_like(contexts.xy)
        for t, ours in enumerate(ReweightedGD(150, rate, relative=True).iterates(contexts), 1):
            left = contexts.xy - (contexts.xx @ u[..., None])[..., 0]
            scale = u + left
            seen = scale[:, :, None] * contexts.xx * scale[:, None, :]
            u = u + rate / torch.linalg.matrix_norm(seen, ord=2)[:, None] * scale**2 * left
            if t <= 20:
                assert torch.allclose(ours, u, rtol=1e-9, atol=1e-12)
            ours, exact = squared_error(ours, contexts).mean(), squared_error(u, contexts).mean()
            assert ours.item() == pytest.approx(exact.item(), rel=2e-3)


def test_tuning_steps_and_rate_together_beats_any_number_of_steps():
    task = SparseLinear(d=4, s=2, n=12)
    contexts = draw(task, estimators.TUNING_CONTEXTS, "tune", 0)

    def risk(descent):
        return trimmed(excess_risk(descent, contexts), dim=-1)

    for kind in (GradientDescent, PreprocessedGD, ReweightedGD):
        best = risk(estimators.tuned_gd(task, 0, None, kind, True))
        for steps in (1, 3, 30):
            one = estimators.tuned_gd(task, 0, steps, kind, True)
            assert (one.steps, type(one), one.relative) == (steps, kind, True)
            assert best <= risk(one) * (1 + 2 * kind.tolerance)
            for factor in (0.7, 1 / 0.7):
                assert risk(one) < risk(kind(steps, one.rate * factor, relative=True)) * 1.02


def test_the_fewest_steps_that_have_converged_are_taken():
    task = SparseLinear(d=4, s=2, n=12)
    contexts = draw(task, estimators.TUNING_CONTEXTS, "tune", 0)
    for kind in (GradientDescent, PreprocessedGD, ReweightedGD):
        best = estimators.tuned_gd(task, 0, None, kind, True)
        fewer = estimators.tuned_gd(task, 0, best.steps // 3, kind, True)
        ours, worse = (trimmed(excess_risk(x, contexts), dim=-1) for x in (best, fewer))
        assert ours < worse, "fewer would have done"


SPARSE = SparseLinear(8, 2, 32, 1.0, "sphere")
QUIET = replace(SPARSE, noise=0.25)
TUNABLE = [name for name in ESTIMATORS if name not in ("zero", "one step (Γ*)", "least squares")]


@cache
def tuned(label, task):
    return ESTIMATORS[label].tuned(task)


@pytest.mark.parametrize("label", TUNABLE[:-1])
@pytest.mark.parametrize("task", [SPARSE, QUIET, replace(SPARSE, s=8)], ids=str)
def test_no_tuned_optimum_lies_on_an_edge_of_its_grid(label, task):
    assert interior(tuned(label, task)), vars(tuned(label, task))


def test_optima_on_an_edge_are_told(monkeypatch):
    last = GradientDescent.counts[-1]
    for wrong in (GradientDescent(last, 0.1), GradientDescent(3, 1e-3), GradientDescent(3, 10.0)):
        assert not interior(wrong)
    assert interior(GradientDescent(3, 0.1))
    assert not interior(Ridge(estimators.PENALTIES[Ridge].low))
    for kind in (Ridge, Lasso):
        found = tuned(kind.__name__.lower(), SPARSE).penalty
        narrow = Grid(found * 3, found * 30, 1.3)
        monkeypatch.setitem(estimators.PENALTIES, kind, narrow)
        assert not interior(ESTIMATORS[kind.__name__.lower()].tuned(SPARSE))
    monkeypatch.setattr(PreprocessedGD, "counts", (1, 2, 3))
    assert not interior(ESTIMATORS["preprocessed GD"].tuned(SPARSE)), "it takes more than 3 steps"


def test_preprocessing_again_gains_at_small_noise_and_in_dense_tasks_given_its_steps():
    again, once = "re-weighted GD", "preprocessed GD"
    for task, factor in ((QUIET, 0.7), (replace(SPARSE, s=8), 1.05)):
        contexts = draw(task, 1000, "evaluate", seed=0)
        ours, other = (
            trimmed(excess_risk(tuned(label, task), contexts), dim=-1) for label in (again, once)
        )
        assert ours < factor * other, task


def test_a_fixed_rate_is_tuned_where_rare_contexts_diverge(monkeypatch):
    task, drawn = replace(SPARSE, values="gaussian"), []
    monkeypatch.setattr(estimators, "draw", lambda *a: drawn.append(a[1]) or draw(*a))
    names = ("GD", "preprocessed GD", "preprocessed GD, fixed rate")
    _, relative, fixed = (ESTIMATORS[name].tuned(task) for name in names)
    assert drawn == [1024, 1024, 8192]
    for seed in range(4):
        contexts = draw(task, 1024, "evaluate", seed)
        ours, other = (trimmed(excess_risk(x, contexts), dim=-1) for x in (fixed, relative))
        assert ours < 1.1 * other


def test_tuning_finds_the_best_and_never_sees_an_evaluation_context(monkeypatch):
    seen = []
    monkeypatch.setattr(estimators, "draw", lambda *a, **k: seen.append(a[2]) or draw(*a, **k))
    task = SparseLinear(d=4, s=4, n=12, noise=1.0)
    best = estimators.tuned_ridge(task)
    assert set(seen) == {"tune"}
    # For w ~ N(0, I) the best penalty is σ²/n exactly.
    assert best.penalty == pytest.approx(1 / 12, rel=0.3)
    for steps in (1, 3):
        estimators.tuned_gd(task, steps=steps)
        estimators.tuned_lasso(task)
    assert set(seen) == {"tune"}


class Spiked(OLS):
    """Least squares that is far off in every so many contexts."""

    def __init__(self, every):
        self.every = every

    def weights(self, contexts):
        found = super().weights(contexts)
        found[:: self.every] += 1e6
        return found


def test_what_happens_in_a_hundredth_of_the_contexts_decides_nothing():
    task = SparseLinear(d=4, s=2, n=40)
    assert isinstance(tune([Zero(), Spiked(200)], task), Spiked)
    assert isinstance(tune([Zero(), Spiked(50)], task), Zero)


def test_tuning_ignores_members_that_diverge():
    task = SparseLinear(d=4, s=2, n=12)
    best = tune([GradientDescent(400, 50.0), GradientDescent(4, 0.2)], task)
    assert best.rate == 0.2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ridge(0), "penalty=0"),
        (lambda: Lasso(-1.0), "penalty=-1.0"),
        (lambda: GradientDescent(0, 0.1), "steps=0"),
        (lambda: estimators.tuned_gd(SparseLinear(), steps=0), "steps=0"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(Refused, match=words):
        make()


def test_the_registry_tunes_every_estimator_and_bayes_is_the_floor():
    task = SparseLinear(4, 1, 12, 1.0, "sphere")
    contexts = draw(task, 1000, "evaluate", seed=0)
    risks = {
        label: excess_risk(entry.tuned(task, seed=1), contexts).mean().item()
        for label, entry in ESTIMATORS.items()
    }
    assert min(risks, key=risks.get) == "Bayes"
    assert risks["zero"] == pytest.approx(1.0)
    assert max(risks[label] for label in set(risks) - {"zero"}) < 1
    assert risks["re-weighted GD"] < risks["preprocessed GD"] < risks["GD"]
    assert set(NAIVE) < set(risks)
    for steps in (1, 4):
        assert ESTIMATORS["preprocessed GD"].tuned(task, steps=steps).steps == steps


def test_no_two_estimators_look_alike():
    looks = [(entry.colour, entry.marker) for entry in ESTIMATORS.values()]
    assert len(set(looks)) == len(looks)
    assert len({entry.marker for entry in ESTIMATORS.values()}) == len(looks)
