"""The best single step in closed form, and what one layer does: its step, the rest, training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icl.architecture import Architecture
from icl.configuration import Configuration
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import OneStep
from icl.experiments.comparison import watch
from icl.one_layer import (
    cosine,
    distance,
    effective_step,
    excess,
    lead,
    moments,
    one_step_risk,
    optimal_one_step,
    outside_block,
    rate,
    rest,
)
from icl.predictors import squared_error
from icl.recipe import Recipe
from icl.tasks import RESPONSES, Nonlinear, SparseLinear
from icl.transformer import build

PRIOR = ((1.2, -0.4, 0.1, 0.0), (-0.4, 0.5, 0.0, 0.2), (0.1, 0.0, 2.0, 0.0), (0.0, 0.2, 0.0, 0.3))
CONTEXTS = 200_000


def tasks(task):
    """Full Σ, full Ω, both, sparse priors of every kind, few examples, nonlinear responses."""
    yield task
    for values in ("gaussian", "signs", "sphere"):
        yield replace(task, values=values, prior=PRIOR)
    yield replace(task, s=4, n=2, prior=PRIOR)
    yield replace(task, covariance=(), prior=(3.0, 1.0, 0.5, 0.2))
    for family in RESPONSES:
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
    for family in RESPONSES:
        task = Nonlinear(d=3, n=40, noise=0.4, family=family)
        contexts = draw(task, 20_000, "evaluate", seed=0, queries=1)
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


def test_the_best_step_is_symmetric_whatever_the_second_moments():
    """Γ* = Ω (a Σ Ω + b I)⁻¹ = (a Σ + b Ω⁻¹)⁻¹, for M = Σ (a Ω Σ + b I) and C = Σ Ω."""
    task = SparseLinear(2, 2, 6, 0.5, covariance=((1.0, 0.8), (0.8, 2.0)), prior=(3.0, 0.1))
    best = optimal_one_step(task)
    np.testing.assert_allclose(best, best.T, rtol=1e-12)
    assert abs(best[0, 1]) > 0.05
    contexts = draw(task, CONTEXTS, "evaluate", 3)
    weights = OneStep(task).weights(contexts)
    torch.testing.assert_close(weights[7], torch.from_numpy(best) @ contexts.xy[7])
    assert within(squared_error(weights, contexts), one_step_risk(task, best))


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


@pytest.fixture
def layer():
    return build(Architecture(d=4, heads=(2,), d_head=3, d_model=7), 2).initialise((5, 6), 1.0)


def flipped(contexts):
    gram = contexts.gram.clone()
    gram[..., :-1, -1] *= -1
    gram[..., -1, :-1] *= -1
    return replace(contexts, gram=gram)


def test_the_step_is_all_that_changes_sign_with_the_labels(task, layer):
    layer = layer.double()
    contexts = draw(task, 50, "evaluate", seed=0)
    up, down = layer.weights(contexts), layer.weights(flipped(contexts))
    step = contexts.xy @ effective_step(layer).mT
    assert torch.allclose((up - down) / 2, step)
    assert torch.allclose(rest(layer, contexts), (up + down) / 2)
    assert rest(layer, contexts).abs().max() > 0.1


@pytest.mark.parametrize("family", [None, "hermite-1-2", "relu-network"])
def test_the_risks_of_step_and_rest_add_up(task, layer, family):
    task = Nonlinear(4, 9, 0.7, family) if family else task
    contexts = draw(task, 100_000, "evaluate", seed=0)
    risks = squared_error(layer.double().weights(contexts), contexts)
    least = one_step_risk(task, optimal_one_step(task))
    error = risks.std(dim=-1) / len(contexts) ** 0.5
    assert ((risks.mean(dim=-1) - (1 + excess(layer, contexts)) * least).abs() < 4 * error).all()


def test_the_block_and_what_is_outside_it():
    # Embedding, key and output the identity: W = Qᵀ without its last column, p = V w_out.
    layer = build(Architecture(d=2, heads=(1,), d_head=3, d_model=3), 1).requires_grad_(False)
    block = layer.blocks[0]
    for identity in (layer.embed.weight[0], block.key.weight[0, :, 0], block.output.weight[0, 0]):
        identity.copy_(torch.eye(3))
    w = torch.tensor([[1.0, 2, 9], [3, 4, 9], [5, 6, 9]])
    block.query.weight[0, :, 0] = w.T
    block.value.weight[0, :, 0] = torch.tensor([[0.0, 0, 7], [0, 0, 8], [0, 0, 10]])
    layer.readout.weight[0] = torch.tensor([0.0, 0, 1])
    block = 10 * torch.tensor([[1.0, 3], [2, 4]])
    outside = torch.tensor([[5.0 * 7, 5 * 8], [6 * 7, 6 * 8]])
    assert torch.equal(effective_step(layer)[0], (block + outside).double())
    share = outside.norm() / (block + outside).norm()
    assert outside_block(layer).item() == pytest.approx(share.item())


def test_excess_and_lead_count_from_the_optimum(task, layer):
    task = replace(task, s=4)
    contexts = draw(task, 1000, "evaluate", seed=0)
    best, gamma = optimal_one_step(task), effective_step(layer)
    off = rest(layer, contexts)
    rests = torch.einsum("mbi,ij,mbj->mb", off, torch.from_numpy(task.sigma), off).mean(dim=-1)
    risks = torch.stack([torch.tensor(one_step_risk(task, g)) for g in gamma.numpy()]) + rests
    assert torch.allclose(excess(layer, contexts), risks / one_step_risk(task, best) - 1)
    # A third of the way from Γ* to its nearest multiple of I, that is twice as far away.
    best = torch.from_numpy(best)
    plain = rate(best) * torch.eye(4)
    found = lead((best + (plain - best) / 3)[None], task)
    assert found.item() == pytest.approx(np.log10(2))


def test_a_model_with_more_layers_has_no_single_step(model):
    with pytest.raises(Refused, match="one layer"):
        effective_step(model)


def test_distance_and_cosine_of_matrices():
    eye = np.eye(3)
    found = torch.stack([2 * torch.eye(3), torch.diag(torch.tensor([1.0, -1, 0]))]).double()
    assert distance(found, eye).tolist() == pytest.approx([1, (5 / 3) ** 0.5])
    assert cosine(found, eye).tolist() == pytest.approx([1, 0])


def test_training_all_parameters_arrives_near_the_optimum():
    task = SparseLinear(2, 2, 16, 0.5, covariance=(0.5, 2.0), prior=(2.0, 0.5))
    recipe = Recipe(steps=600, batch=128, lr=1e-2, init_scale=1.0)
    config = Configuration(task, Architecture(2, (1,), 8, 8), recipe)
    path = watch(config, (0, 1), looks=4)
    best = optimal_one_step(task)
    assert path.steps.tolist() == [0, 67, 267, 600]
    assert path.matrices.shape == (4, 2, 2, 2)
    assert torch.equal(path.matrices[-1], effective_step(path.model))
    curves = path.curves({"rate": rate, "twice": lambda gamma: 2 * rate(gamma)})
    assert list(curves.label) == ["rate"] * 4 + ["twice"] * 4
    assert list(curves.step[:4]) == path.steps.tolist()
    assert curves.value[3] == pytest.approx(rate(path.matrices[-1]).mean().item())
    assert curves.value[7] == pytest.approx(2 * curves.value[3])
    assert (distance(path.matrices[0], best) > 0.5).all()
    assert (distance(path.matrices[-1], best) < 0.05).all()
    assert (cosine(path.matrices[-1], best) > 0.99).all()
    assert (excess(path.model, draw(task, 4096, "evaluate", 0)).abs() < 0.02).all()
