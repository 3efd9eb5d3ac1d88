"""The optimal single step: against Monte Carlo and against the special cases of the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icl.contexts import draw
from icl.estimators import OneStep
from icl.responses import FAMILIES, Nonlinear
from icl.risk import squared_error
from icl.tasks import SparseLinear
from icl.theory import moments, one_step_risk, optimal_one_step

PRIOR = ((1.2, -0.4, 0.1, 0.0), (-0.4, 0.5, 0.0, 0.2), (0.1, 0.0, 2.0, 0.0), (0.0, 0.2, 0.0, 0.3))
CONTEXTS = 200_000


def tasks(task):
    """Full Σ, full Ω, both, sparse priors of every kind, few examples, nonlinear responses."""
    yield task
    for values in ("gaussian", "signs", "sphere"):
        yield replace(task, values=values, prior=PRIOR)
    yield replace(task, s=4, n=2, prior=PRIOR)
    yield replace(task, covariance=(), prior=(3.0, 1.0, 0.5, 0.2))
    for family in FAMILIES:
        yield Nonlinear(d=3, n=5, noise=0.4, family=family)


def within(samples, expected, errors=4):
    """Is the mean of samples (B, ...) within so many standard errors of what is expected?"""
    error = samples.std(dim=0) / len(samples) ** 0.5
    return bool(
        ((samples.mean(dim=0) - torch.as_tensor(expected)).abs() <= errors * error + 1e-12).all()
    )


def test_moments_and_risks_agree_with_monte_carlo(task):
    for each in tasks(task):
        contexts = draw(each, CONTEXTS, "evaluate", seed=0)
        cross, second = moments(each)
        b, w = contexts.xy, contexts.w
        assert within(w[:, :, None] * w[:, None, :], each.omega), each
        assert within(b[:, :, None] * w[:, None, :], cross), each
        assert within(b[:, :, None] * b[:, None, :], second), each
        gamma = np.random.default_rng(0).standard_normal((each.d, each.d)) / each.d
        for matrix in (gamma, optimal_one_step(each)):
            risks = squared_error(b @ torch.from_numpy(matrix).T, contexts)
            assert within(risks, one_step_risk(each, matrix)), each


def test_the_weights_of_nonlinear_responses_are_those_of_the_best_linear_predictor():
    # What a linear predictor leaves of the labels must be uncorrelated with the inputs.
    for family in FAMILIES:
        task = Nonlinear(d=3, n=40, noise=0.4, family=family)
        contexts = draw(task, 20_000, "evaluate", seed=0, tokens=True)
        x, y = contexts.tokens[..., :-1], contexts.tokens[..., -1]
        residual = y - torch.einsum("bnd,bd->bn", x, contexts.w)
        products = (residual[..., None] * x).mean(dim=1)
        # Against w: over all functions of a family the products vanish for any multiple of w.
        assert within(products[:, :, None] * contexts.w[:, None, :], torch.zeros(3, 3)), family
        power = (residual**2).mean(dim=1)
        assert within(power, 1 - task.linear_share + task.noise**2), family
        if family in ("hermite-2", "hermite-3"):
            assert contexts.w.abs().max() < 1e-9
            assert task.linear_share < 1e-18
        else:
            assert task.linear_share > 0.1


def test_no_other_matrix_does_better(task):
    for each in tasks(task):
        best = optimal_one_step(each)
        least = one_step_risk(each, best)
        rng = np.random.default_rng(0)
        for _ in range(5):
            move = 0.1 * rng.standard_normal(best.shape)
            # A quadratic with its minimum here rises alike in opposite directions.
            up, down = (one_step_risk(each, best + sign * move) for sign in (1, -1))
            assert up > least
            assert up == pytest.approx(down, rel=1e-9)
        cross, sigma = moments(each)[0], each.sigma
        expected = np.trace(sigma @ each.omega) - np.trace(sigma @ best @ cross)
        assert least == pytest.approx(expected, rel=1e-9)


def test_the_optimal_step_is_the_regression_of_weights_on_b(task):
    contexts = draw(task, 400_000, "evaluate", seed=0)
    fitted = torch.linalg.lstsq(contexts.xy, contexts.w).solution.T
    best = OneStep(task).matrix
    assert torch.allclose(fitted, best, atol=0.01 * best.abs().max().item())


def test_isotropic_data_give_one_rate():
    # E[w wᵀ] = I and Σ = I: one step at the rate n/(n + d + 1 + σ²) on the mean loss.
    task = SparseLinear(d=5, s=5, n=12, noise=0.6)
    assert np.allclose(optimal_one_step(task), 12 / (12 + 6 + 0.36) * np.eye(5))


def test_weights_that_undo_the_covariance_give_a_preconditioned_step(task):
    # Ω = Σ⁻¹: the same rate times Σ⁻¹.
    inverse = np.linalg.inv(task.sigma)
    task = replace(task, s=4, prior=tuple(map(tuple, inverse)))
    rate = task.n / (task.n + 5 + task.noise**2)
    assert np.allclose(optimal_one_step(task), rate * inverse)
