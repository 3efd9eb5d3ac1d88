"""The Bayes predictor: against weighing draws from the prior, integrals by hand, and ridge."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from icl import estimators
from icl.bayes import PosteriorMean
from icl.contexts import Contexts, draw
from icl.errors import Refused
from icl.estimators import OLS, Ridge
from icl.predictors import excess_risk
from icl.tasks import Nonlinear, SparseLinear

SIGMA = ((1.0, 0.5, 0.2, 0.0), (0.5, 2.0, -0.3, 0.1), (0.2, -0.3, 0.7, 0.0), (0.0, 0.1, 0.0, 1.5))


@pytest.mark.parametrize("n", [2, 6])
@pytest.mark.parametrize("s", [2, 3])
@pytest.mark.parametrize("values", ["gaussian", "signs", "sphere"])
def test_bayes_agrees_with_weighing_draws_from_the_prior(values, s, n):
    task = SparseLinear(d=4, s=s, n=n, noise=1.3, values=values, covariance=SIGMA)
    contexts = draw(task, 3, "evaluate", seed=0, queries=1)
    prior = torch.from_numpy(task.draw_weights(np.random.default_rng(1), 200_000))
    for b, e in enumerate(contexts.tokens):
        fit = (e[:, -1:] - e[:, :-1] @ prior.T).square().sum(dim=0)
        weight = (-fit / (2 * 1.3**2)).softmax(dim=0)
        mean = weight @ prior
        error = (weight.square() @ (prior - mean).square()).sqrt()
        ours = PosteriorMean(task).weights(contexts[b : b + 1])[0]
        assert ((ours - mean).abs() < 4.5 * error).all()


def by_hand(contexts, points, density=1.0):
    """The posterior mean, d = 2, of values at given points of every support, by their sum."""
    task = contexts.task
    means = []
    for e in contexts.tokens:
        total, moment = 0.0, torch.zeros(task.d, dtype=torch.float64)
        for support in combinations(range(task.d), task.s):
            w = torch.zeros(len(points), task.d, dtype=torch.float64)
            w[:, list(support)] = points
            fit = (e[:, -1:] - e[:, :-1] @ w.T).square().sum(dim=0)
            weight = density * (-fit / (2 * task.noise**2)).exp()
            total, moment = total + weight.sum(), moment + weight @ w
        means.append(moment / total)
    return torch.stack(means)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_the_sphere_is_integrated_exactly(n):
    noise = 0.9
    circle = SparseLinear(d=4, s=2, n=n, noise=noise, values="sphere")
    contexts = draw(circle, 20, "evaluate", seed=0, queries=1)
    angle = 2 * np.pi * torch.arange(2000).double() / 2000
    points = np.sqrt(2) * torch.stack([angle.cos(), angle.sin()], dim=1)
    assert torch.allclose(
        PosteriorMean(circle).weights(contexts), by_hand(contexts, points), atol=1e-6
    )
    # On the sphere |u|² = 3 the height is uniform (Archimedes).
    ball = SparseLinear(d=4, s=3, n=n, noise=noise, values="sphere")
    contexts = draw(ball, 20, "evaluate", seed=0, queries=1)
    nodes, mass = map(torch.from_numpy, np.polynomial.legendre.leggauss(60))
    angle, radius = angle[::20], (1 - nodes**2).sqrt()[:, None]
    height = nodes[:, None].expand(-1, len(angle))
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    hand = by_hand(contexts, np.sqrt(3) * points.flatten(0, 1), mass.repeat_interleave(len(angle)))
    assert torch.allclose(PosteriorMean(ball).weights(contexts), hand, atol=1e-6)


@pytest.mark.parametrize(("s", "n", "noise"), [(4, 4, 0.1), (3, 2, 5.0), (5, 300, 0.1), (6, 9, 1)])
def test_a_finer_contour_changes_nothing(monkeypatch, s, n, noise):
    task = SparseLinear(d=6, s=s, n=n, noise=noise, values="sphere")
    contexts = draw(task, 100, "evaluate", seed=0)
    ours = PosteriorMean(task).weights(contexts)
    monkeypatch.setattr("icl.bayes.STEP", 0.05)
    monkeypatch.setattr("icl.bayes.REACH", 6.0)
    assert torch.allclose(PosteriorMean(task).weights(contexts), ours, atol=1e-6)


def test_one_value_on_the_sphere_is_a_sign():
    signs, sphere = (SparseLinear(5, 1, 7, 0.8, values) for values in ("signs", "sphere"))
    contexts = draw(signs, 200, "evaluate", seed=0)
    ours = PosteriorMean(sphere).weights(replace(contexts, task=sphere))
    assert torch.allclose(ours, PosteriorMean(signs).weights(contexts), atol=1e-6)


def test_dense_gaussian_weights_make_bayes_ridge():
    task = SparseLinear(d=4, s=4, n=3, noise=0.7, covariance=SIGMA)
    contexts = draw(task, 50, "evaluate", seed=0)
    assert torch.allclose(
        PosteriorMean(task).weights(contexts), Ridge(0.7**2 / 3).weights(contexts)
    )


@pytest.mark.parametrize("values", ["gaussian", "signs", "sphere"])
def test_permuting_features_permutes_the_answer(values):
    task = SparseLinear(d=5, s=3, n=8, noise=0.6, values=values)
    contexts = draw(task, 20, "evaluate", seed=0)
    order = torch.tensor([3, 0, 4, 1, 2, 5])
    moved = Contexts(task, contexts.w, contexts.gram[:, order][:, :, order])
    ours, there = PosteriorMean(task).weights(contexts), PosteriorMean(task).weights(moved)
    assert torch.allclose(ours[:, order[:-1]], there, atol=1e-9)


def test_blocks_do_not_show(monkeypatch):
    task = SparseLinear(d=6, s=2, n=8, noise=0.6)
    contexts = draw(task, 50, "evaluate", seed=0)
    whole = PosteriorMean(task).weights(contexts)
    monkeypatch.setattr("icl.bayes.CELLS", 7 * 15 * 4)
    assert torch.allclose(PosteriorMean(task).weights(contexts), whole, rtol=1e-12)


@pytest.mark.parametrize(("n", "noise"), [(5000, 1.0), (32, 0.05)])
@pytest.mark.parametrize("values", ["gaussian", "sphere"])
def test_bayes_stays_the_floor_where_the_posterior_is_narrow(values, n, noise):
    task = SparseLinear(d=4, s=2, n=n, noise=noise, values=values)
    contexts = draw(task, 500, "evaluate", seed=0)
    floor = excess_risk(PosteriorMean(task), contexts).mean()
    # On the true support least squares would have s σ²/n; on the sphere the norm is known.
    assert 0.5 * noise**2 / n < floor < 3 * noise**2 / n
    assert floor < excess_risk(OLS(), contexts).mean()


CASES = [("signs", 3), ("sphere", 1), ("sphere", 2), ("sphere", 3), ("gaussian", 2)]


@pytest.mark.parametrize(("values", "s"), CASES)
def test_nothing_beats_bayes(values, s):
    task = SparseLinear(d=6, s=s, n=16, noise=0.8, values=values)
    contexts = draw(task, 1000, "evaluate", seed=0)
    floor = excess_risk(PosteriorMean(task), contexts)
    for label in ("GD", "ridge", "lasso", "Bayes"):
        other = estimators.ESTIMATORS[label].tuned(task)
        gap = excess_risk(other, contexts) - floor
        assert gap.mean() >= 0
    assert floor.mean() < 0.6 * excess_risk(estimators.tuned_ridge(task), contexts).mean()


def test_the_reference_values_are_met():
    """Risks of an independent implementation, 4096 contexts, Gaussian values."""
    for (d, s, n, noise), expected in {
        (8, 2, 32, 1.0): (0.283, 0.313, 0.293, 0.213, 0.188, 0.111),
        (16, 2, 24, 0.5): (0.340, 0.531, 0.358, 0.183, 0.133, 0.039),
    }.items():
        task = SparseLinear(d, s, n, noise)
        contexts = draw(task, 4096, "evaluate", seed=0)
        descents = [
            estimators.tuned_gd(task, 0, steps, kind, relative)
            for kind, relative in (
                (estimators.GradientDescent, False),
                (estimators.PreprocessedGD, True),
            )
            for steps in (3, 10)
        ]
        for predictor, value in zip(
            (estimators.tuned_ridge(task), *descents, PosteriorMean(task)), expected, strict=True
        ):
            risks = excess_risk(predictor, contexts)
            # Both are Monte-Carlo means, and tuned on different contexts.
            error = 2**0.5 * risks.std() / 4096**0.5
            assert abs(risks.mean() - value) < 4 * error + 0.02 * value + 0.0005, (task, predictor)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (SparseLinear(noise=0.0), "noise=0.0"),
        (SparseLinear(d=24, s=12, values="sphere"), "d=24, s=12"),
        (SparseLinear(d=2, s=2, prior=(1.0, 2.0)), "prior="),
        (Nonlinear(4, 9, 0.5, "sign"), "linear responses only"),
    ],
)
def test_what_has_no_posterior_or_needs_too_much_is_refused(task, words):
    with pytest.raises(Refused, match=words):
        PosteriorMean(task)
