"""Iterations: a few steps of one kind, which algorithms of this book are examples of."""

import pytest
import torch

from icl import iterations
from icl.contexts import draw
from icl.descent import GradientDescent, PreprocessedGD
from icl.errors import Refused
from icl.experiments.models import WORKHORSE
from icl.iterations import TERMS, Iteration, fit
from icl.recipe import Recipe
from icl.symmetry import moved, signed_permutations

CONTEXTS = draw(WORKHORSE, 300, "tune", 3)
RNG = torch.Generator().manual_seed(0)


def steps(count, **coefficients):
    """One model, every step alike."""
    found = torch.zeros(1, count, len(TERMS), dtype=torch.float64)
    for name, value in coefficients.items():
        found[..., TERMS.index(name)] = value
    return Iteration(found)


@pytest.mark.parametrize(
    ("term", "walk"),
    [("g", GradientDescent(4, 0.3)), ("r̂² g", PreprocessedGD(4, 0.1))],
    ids=["gradient descent", "on preprocessed inputs"],
)
def test_the_algorithms_are_iterations_of_one_term(term, walk):
    found = steps(4, **{term: walk.rate}).weights(CONTEXTS)
    torch.testing.assert_close(found[0], walk.weights(CONTEXTS))


def test_every_term_is_what_its_name_says():
    """Entry by entry, in one context, from one vector."""
    u = torch.randn(1, 300, 8, dtype=torch.float64, generator=RNG)
    xx, r, w = CONTEXTS.xx[7], CONTEXTS.xy[7], u[0, 7]
    q = CONTEXTS.gram[7, -1, -1] - 3  # E y² = |w|² + σ²
    g, c = r - xx @ w, xx - torch.eye(8)
    truth = {
        "g": g, "q g": q * g, "|r̂|² g": (r @ r) * g, "|u|² g": (w @ w) * g, "r̂² g": r * r * g,
        "r̂ u g": r * w * g, "u² g": w * w * g, "g³": g**3, "C g": c @ g, "u": w, "u³": w**3,
        "r̂³": r**3,
    }  # fmt: skip
    assert tuple(truth) == TERMS
    for name, x in zip(TERMS, iterations.terms(CONTEXTS, u), strict=True):
        torch.testing.assert_close(x[0, 7], truth[name].to(x), msg=name)


def test_whatever_its_coefficients_an_iteration_is_equivariant():
    found = Iteration(0.1 * torch.randn(3, 2, len(TERMS), dtype=torch.float64, generator=RNG))
    g = signed_permutations(8, 2, seed=1)[1]
    torch.testing.assert_close(found.weights(moved(CONTEXTS, g)), found.weights(CONTEXTS) @ g.T)


def test_what_is_added_ends_in_the_weights():
    found = Iteration(0.1 * torch.randn(2, 3, len(TERMS), dtype=torch.float64, generator=RNG))
    parts = [x for step, _ in found.steps(CONTEXTS) for x in step]
    torch.testing.assert_close(sum(parts), found.weights(CONTEXTS))


def test_a_fit_finds_an_iteration_again_whichever_models_stand_beside_it(monkeypatch):
    monkeypatch.setattr(iterations, "FITTING", Recipe(steps=400, batch=128, lr=0.05))
    contexts = draw(WORKHORSE, 2048, "tune", 4)
    truth = torch.cat([steps(2, g=0.4, u=-0.2).coefficients, steps(2, g=0.6).coefficients])
    answers = Iteration(truth).weights(contexts)
    found = fit(answers, contexts, 2)
    left = (found.weights(contexts) - answers).square().mean(dim=(1, 2))
    assert (left < 1e-3 * answers.square().mean(dim=(1, 2))).all()
    alone = fit(answers[1:], contexts, 2)
    torch.testing.assert_close(alone.coefficients, found.coefficients[1:])


def test_a_context_whose_answer_explodes_does_not_rule_a_fit(monkeypatch):
    monkeypatch.setattr(iterations, "FITTING", Recipe(steps=400, batch=128, lr=0.05))
    contexts = draw(WORKHORSE, 1024, "tune", 4)
    answers = steps(2, g=0.4).weights(contexts)
    exploded = answers.clone()
    exploded[:, ::100] *= 1e4
    found = fit(exploded, contexts, 2).weights(contexts)
    left = (found - answers).square().sum(dim=-1)[:, 1:100]
    assert left.mean() < 0.01 * answers.square().sum(dim=-1).mean()


@pytest.mark.parametrize("shape", [(2, 12), (1, 0, 12), (1, 2, 11)])
def test_coefficients_of_another_shape_are_refused(shape):
    with pytest.raises(Refused, match=r"allowed is \(M, L, 12\)"):
        Iteration(torch.zeros(shape))
