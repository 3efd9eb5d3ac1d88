"""What one layer of linear attention does: its step, the rest, and that training finds Γ*."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icl.configuration import Configuration, Recipe
from icl.contexts import draw
from icl.errors import Refused
from icl.one_layer import (
    cosine,
    digits,
    distance,
    effective_step,
    excess,
    lead,
    minimise,
    outside_block,
    rate,
    rest,
    watch,
)
from icl.responses import Nonlinear
from icl.risk import squared_error
from icl.tasks import SparseLinear
from icl.theory import one_step_risk, optimal_one_step
from icl.transformer import Architecture, build


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
    layer.embed[0] = layer.key[0][0, :, 0] = layer.output[0][0, 0] = torch.eye(3)
    w = torch.tensor([[1.0, 2, 9], [3, 4, 9], [5, 6, 9]])
    layer.query[0][0, :, 0] = w.T
    layer.value[0][0, :, 0] = torch.tensor([[0.0, 0, 7], [0, 0, 8], [0, 0, 10]])
    layer.readout[0] = torch.tensor([0.0, 0, 1])
    block = 10 * torch.tensor([[1.0, 3], [2, 4]])
    outside = torch.tensor([[5.0 * 7, 5 * 8], [6 * 7, 6 * 8]])
    assert torch.equal(effective_step(layer)[0], (block + outside).double())
    share = outside.norm() / (block + outside).norm()
    assert outside_block(layer).item() == pytest.approx(share.item())


def test_digits_and_lead_count_from_the_optimum(task, layer):
    task = replace(task, s=4)
    contexts = draw(task, 1000, "evaluate", seed=0)
    best, gamma = optimal_one_step(task), effective_step(layer)
    near, above = digits(layer, contexts)
    assert torch.allclose(10**-near, distance(gamma, best))
    assert torch.allclose(10**-above, excess(layer, contexts))
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


def test_the_restricted_layer_arrives_at_the_optimum_from_random_starts(task):
    full = replace(task, prior=(3.0, 1.0, 0.5, 0.2))
    for each in (task, full, SparseLinear(8, 8, 32, 1.0), Nonlinear(8, 32, 0.5, "sine")):
        best = optimal_one_step(each)
        for seed in range(5):
            assert distance(torch.from_numpy(minimise(each, seed)), best) < 1e-6


def test_training_all_parameters_arrives_near_the_optimum():
    task = SparseLinear(2, 2, 16, 0.5, covariance=(0.5, 2.0), prior=(2.0, 0.5))
    recipe = Recipe(steps=600, batch=128, lr=1e-2, init_scale=1.0)
    config = Configuration(task, Architecture(2, (1,), 8, 8), recipe)
    path = watch(config, (0, 1), looks=4)
    best = optimal_one_step(task)
    assert path.steps.tolist() == [0, 67, 267, 600]
    assert path.matrices.shape == (4, 2, 2, 2)
    assert torch.equal(path.matrices[-1], effective_step(path.model))
    curve = path.curve(rate)
    assert [step for step, _ in curve] == path.steps.tolist()
    assert curve[-1][1].mean == pytest.approx(rate(path.matrices[-1]).mean().item())
    assert (distance(path.matrices[0], best) > 0.5).all()
    assert (distance(path.matrices[-1], best) < 0.05).all()
    assert (cosine(path.matrices[-1], best) > 0.99).all()
    assert (excess(path.model, draw(task, 4096, "evaluate", 0)).abs() < 0.01).all()
