"""Equivariant monomials: how many there are, that they are equivariant, and what they write."""

from dataclasses import replace
from itertools import permutations, product
from math import comb

import numpy as np
import pytest
import torch

from icl.contexts import Contexts, draw
from icl.descent import GradientDescent, PreprocessedGD
from icl.errors import Refused
from icl.polynomials import Monomial, Polynomial, evaluate, monomials, project
from icl.tasks import SparseLinear

TASK = SparseLinear(8, 2, 32, 1.0, "sphere")
R = Monomial(0, (), (0,))
CUBE = Monomial(0, (), (0, 0, 0))


def path(length):
    """C^length r̂."""
    return Monomial(0, tuple((i, i + 1) for i in range(length)), (length,)).canonical()


def generic(d, count):
    """Contexts whose Gram matrices are arbitrary symmetric ones."""
    gram = torch.randn(count, d + 1, d + 1, generator=torch.Generator().manual_seed(d)).double()
    task = SparseLinear(d, 1, d, 1.0)
    return Contexts(task, torch.zeros(count, d).double(), gram + gram.mT)


def test_how_many_there_are():
    assert [len(monomials(degree)) for degree in (1, 2, 3, 4, 5)] == [1, 5, 21, 77, 272]
    assert all(m.canonical() == m for m in monomials(4))


def by_characters(d, degree):
    """The dimension of equivariant polynomials of exactly this degree in Sym²V + V + 1 to V.

    The mean over signed permutations g of χ_V(g) χ(Symᵏ)(g), where Symᵏ of a space has
    k h_k = Σ_i χ(gⁱ) h_(k−i).
    """
    total = 0
    for order, signs in product(permutations(range(d)), product([1, -1], repeat=d)):
        g = np.zeros((d, d))
        g[range(d), order] = signs
        traces = [np.trace(np.linalg.matrix_power(g, k)) for k in range(2 * degree + 1)]
        space = [(traces[k] ** 2 + traces[2 * k]) / 2 + traces[k] + 1 for k in range(degree + 1)]
        h = [1.0]
        for k in range(1, degree + 1):
            h.append(sum(space[i] * h[k - i] for i in range(1, k + 1)) / k)
        total += traces[1] * h[degree]
    return total / (2**d * len(list(permutations(range(d)))))


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_they_span_what_the_characters_of_the_group_count_and_no_more(d):
    for degree in (1, 2, 3, 4):
        found = evaluate(monomials(degree), generic(d, 200)).transpose(1, 2).flatten(0, 1)
        rank = torch.linalg.matrix_rank(found / found.norm(dim=0), rtol=1e-11).item()
        assert rank == round(sum(by_characters(d, k) for k in range(1, degree + 1)))
        assert (rank == len(monomials(degree))) == (d >= min(degree, 4) or degree == 1)


def test_at_eight_features_none_depends_on_others():
    found = evaluate(monomials(4), generic(8, 100)).transpose(1, 2).flatten(0, 1)
    assert torch.linalg.matrix_rank(found / found.norm(dim=0), rtol=1e-9) == 77


def test_signed_permutations_of_features_act_on_their_values():
    contexts = generic(5, 3)
    g = torch.zeros(5, 5).double()
    g[range(5), [3, 0, 4, 1, 2]] = torch.tensor([1.0, -1, -1, 1, -1]).double()
    whole = torch.block_diag(g, torch.ones(1, 1).double())
    moved = replace(contexts, gram=whole @ contexts.gram @ whole.T)
    torch.testing.assert_close(
        evaluate(monomials(4), moved), evaluate(monomials(4), contexts) @ g.T
    )


def test_what_they_are_called_is_what_they_compute():
    contexts = generic(4, 6)
    c, r = contexts.xx - torch.eye(4).double(), contexts.xy
    q = contexts.gram[:, -1, -1] - 2  # s + noise²
    diagonal = c.diagonal(dim1=1, dim2=2)
    trace, square = diagonal.sum(dim=1)[:, None], c @ c

    def times(matrix, vector):
        return torch.einsum("bij,bj->bi", matrix, vector)

    expected = {
        "r̂": r,
        "q² r̂": q[:, None] ** 2 * r,
        "C² r̂": times(square, r),
        "r̂³": r**3,
        "|r̂|² r̂": r.square().sum(dim=1, keepdim=True) * r,
        "(r̂ ∘ diag(C²))": r * square.diagonal(dim1=1, dim2=2),
        "tr(C²) r̂": square.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None] * r,
        "tr(C) C r̂": trace * times(c, r),
        "C (r̂ ∘ diag(C))": times(c, r * diagonal),
        "(r̂² ∘ C r̂)": r**2 * times(c, r),
        "(C∘C∘C) r̂": times(c**3, r),
        "(r̂ ∘ (C∘C) diag(C))": r * times(c**2, diagonal),
        "Σ(r̂ ∘ C r̂) r̂": (r * times(c, r)).sum(dim=1)[:, None] * r,
        "(r̂ ∘ diag(C³))": r * (square @ c).diagonal(dim1=1, dim2=2),
        "(r̂ ∘ (C∘C∘C∘C) 1)": r * (c**4).sum(dim=2),
        "Σ(C∘C∘C∘C) 1 r̂": r * (c**4).sum(dim=(1, 2))[:, None],
        "(Σdiag(C)²)² r̂": r * diagonal.square().sum(dim=1, keepdim=True) ** 2,
    }
    by_name = {str(m): m for m in monomials(5)}
    assert len(by_name) == 272
    for name, value in expected.items():
        torch.testing.assert_close(evaluate([by_name[name]], contexts)[:, 0], value, msg=name)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_gradient_descent_is_a_point_of_their_span(steps):
    """η Σ_k (I − ηS)^k r̂ with S = I + C, expanded in powers of C."""
    contexts, rate = draw(TASK, 5, "evaluate", 1), 0.4
    powers = [
        sum(comb(k, j) * (1 - rate) ** (k - j) for k in range(steps)) * rate * (-rate) ** j
        for j in range(steps)
    ]
    found = Polynomial(tuple(path(j) for j in range(steps)), torch.tensor(powers).double())
    expected = GradientDescent(steps, rate).weights(contexts)
    torch.testing.assert_close(found.weights(contexts), expected)
    assert {*found.monomials} <= {*monomials(steps)}


def test_algorithm_1_is_a_point_of_their_span():
    """With one step it is η r̂³; with two 2η r̂³ − η² r̂² ∘ S r̂³, of degree 6."""
    contexts, rate = draw(TASK, 5, "evaluate", 1), 0.2
    one = Polynomial((CUBE,), torch.tensor([rate]).double())
    expected = PreprocessedGD(1, rate).weights(contexts)
    torch.testing.assert_close(one.weights(contexts), expected)
    fifth = Monomial(0, (), (0,) * 5)
    mixed = Monomial(0, ((0, 1),), (0, 0, 1, 1, 1))
    coefficients = torch.tensor([2 * rate, -(rate**2), -(rate**2)]).double()
    two = Polynomial((CUBE, fifth, mixed), coefficients)
    expected = PreprocessedGD(2, rate).weights(contexts)
    torch.testing.assert_close(two.weights(contexts), expected)
    assert CUBE in monomials(3)
    assert fifth in monomials(5)
    assert mixed.degree == 6


def test_what_cannot_be_listed_or_is_not_alike_is_refused():
    with pytest.raises(Refused, match="degree=0: allowed are whole numbers from 1 to 5"):
        monomials(0)
    uneven = SparseLinear(2, 1, 4, covariance=(1.0, 2.0))
    with pytest.raises(Refused, match="features are all alike"):
        evaluate([R], draw(uneven, 2, "tune", 1))


def test_a_projection_finds_a_polynomial_again_and_leaves_what_is_orthogonal():
    contexts, of = draw(TASK, 200, "tune", 1), monomials(3)
    truth = torch.randn(2, len(of), generator=torch.Generator().manual_seed(0)).double()
    answers = Polynomial(of, truth).weights(contexts)
    torch.testing.assert_close(project(answers, of, contexts).coefficients, truth)
    noisy = answers + contexts.w  # no polynomial: what is left is orthogonal to all of them
    left = noisy - project(noisy, of, contexts).weights(contexts)
    inner = torch.einsum("mbd,bpd->mp", left, evaluate(of, contexts))
    sizes = left.norm(dim=(1, 2))[:, None] * evaluate(of, contexts).norm(dim=(0, 2))
    assert (inner.abs() < 1e-8 * sizes).all()
    assert left.norm() > 1
