"""Two layers in eleven numbers: their polynomial, the network that computes it, the least risk."""

import pytest
import torch

from icl.architecture import Architecture
from icl.constructions import blank
from icl.contexts import draw
from icl.descent import GradientDescent, PreprocessedGD
from icl.errors import Refused
from icl.experiments.models import WORKHORSE
from icl.experiments.the_ladder import ELEVEN
from icl.moments import mean_risk
from icl.polynomials import monomials
from icl.predictors import excess_risk
from icl.symmetry import moved, signed_permutations
from icl.tasks import SparseLinear
from icl.two_layers import NUMBERS, TwoLayers, improved

SMALL = SparseLinear(4, 2, 12, 0.5, "gaussian")


def numbers(**known: float) -> TwoLayers:
    """All zero but for these, which are called by their names spelled out."""
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "mu", "nu", "pi", "rho"]
    return TwoLayers(torch.tensor([known.get(name, 0.0) for name in names]).double())


def drawn(seed: int) -> TwoLayers:
    rng = torch.Generator().manual_seed(seed)
    return TwoLayers(torch.randn(NUMBERS, generator=rng, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d", [1, 2, 4])
def test_a_network_of_heads_computes_the_polynomial(d, seed):
    task = SparseLinear(d, 1, 12, 0.5, "gaussian")
    contexts = draw(task, 30, "evaluate", 1, queries=2)
    network = drawn(seed).written(Architecture(d, (d + 2, d + 1), d + 1, 2 * d + 2), n_models=2)
    expected = drawn(seed).weights(contexts).expand(2, -1, -1)
    torch.testing.assert_close(network.weights(contexts), expected)
    by_tokens = network.on_tokens().predict(contexts)
    torch.testing.assert_close(by_tokens, drawn(seed).predict(contexts).expand(2, -1, -1))


def test_features_are_treated_alike():
    contexts = draw(SMALL, 20, "evaluate", 1)
    for g in signed_permutations(4, 6):
        torch.testing.assert_close(
            drawn(1).weights(moved(contexts, g)), drawn(1).weights(contexts) @ g.T
        )


def test_it_is_a_polynomial_of_degree_four():
    contexts, task = draw(WORKHORSE, 50, "evaluate", 1), WORKHORSE
    found = drawn(2).polynomial(task)
    assert found.monomials == monomials(4)
    torch.testing.assert_close(
        found.weights(contexts), drawn(2).weights(contexts), rtol=1e-6, atol=1e-6
    )


def test_known_answers_have_simple_numbers():
    contexts = draw(SMALL, 20, "evaluate", 1)
    s, r = contexts.xx, contexts.xy
    step = GradientDescent(1, 0.7, relative=False).weights(contexts)
    torch.testing.assert_close(numbers(rho=0.7).weights(contexts), step)
    cube = PreprocessedGD(1, 0.7, relative=False).weights(contexts)
    torch.testing.assert_close(numbers(mu=0.7).weights(contexts), cube)
    torch.testing.assert_close(cube, 0.7 * r**3)
    twice = r - 2 * (s @ r[..., None])[..., 0] + (s @ s @ r[..., None])[..., 0]
    torch.testing.assert_close(numbers(alpha=-1, rho=1).weights(contexts), twice)  # (I − S)² r̂


def test_the_numbers_of_the_ladder_are_where_descent_ends():
    start = TwoLayers(torch.tensor(ELEVEN.numbers, dtype=torch.float64))
    end = improved(start, WORKHORSE)
    torch.testing.assert_close(end.numbers, start.numbers, rtol=0.01, atol=1e-3)
    risk, least = (mean_risk(WORKHORSE, x.polynomial(WORKHORSE)) for x in (start, end))
    assert least <= risk < least * 1.0001
    contexts = draw(WORKHORSE, 20_000, "evaluate", 2)
    assert excess_risk(start, contexts).mean() == pytest.approx(risk.item(), rel=0.03)
    away = TwoLayers(start.numbers * torch.tensor([1.3] * 5 + [1.0] * 6))
    assert mean_risk(WORKHORSE, away.polynomial(WORKHORSE)) > 1.05 * least
    back = improved(away, WORKHORSE)
    assert mean_risk(WORKHORSE, back.polynomial(WORKHORSE)) == pytest.approx(least.item(), rel=1e-3)


def test_two_layers_can_answer_with_any_product_of_four_entries():
    """The proof of the chapter on floors, for two features: six products and their sum."""
    contexts = draw(SparseLinear(2, 1, 5, 0.5, "gaussian"), 20, "evaluate", 1)
    rng = torch.Generator().manual_seed(0)
    # Slots G_vk e_q of one value, key and query each, and the product of three for every term.
    slots = torch.randint(3, (6, 3, 3), generator=rng)
    slots[:, 2, 2] = torch.arange(6) % 2  # a query has no label
    model = blank(Architecture(2, (18, 6), 1, 3 + 18 + 1))
    model.embed.weight.zero_()
    model.embed.weight[0, range(3), range(3)] = 1
    first, second = ([maps.weight[0] for maps in block.maps()] for block in model.blocks)
    expected = torch.zeros(20, 2, dtype=torch.float64)
    for head, (v, k, q) in enumerate(slots.flatten(0, 1).tolist()):
        for weight, slot in zip(first[:3], (q, k, v), strict=True):
            weight[slot, head] = 1
        first[3][head, 0, 3 + head] = 1
    for term, (one, two, three) in enumerate(slots.tolist()):
        for weight, slot in zip(second[:3], (2, 1, 0), strict=True):
            weight[3 + 3 * term + slot, term] = 1
        second[3][term, 0, -1] = 1
        entries = (one[:2], (one[2], two[2]), two[:2], three[:2])
        expected[:, three[2]] += torch.stack([contexts.gram[:, a, b] for a, b in entries]).prod(0)
    torch.testing.assert_close(model.weights(contexts)[0], expected)


def test_what_is_no_such_network_is_refused():
    for heads, d_head, width in (((5, 5), 5, 10), ((6, 5), 4, 10), ((6, 5), 5, 11), ((6,), 5, 10)):
        with pytest.raises(Refused, match="allowed are linear attention, 6 and 5 heads"):
            drawn(0).written(Architecture(4, heads, d_head, width))
    with pytest.raises(Refused, match="allowed are linear attention"):
        drawn(0).written(Architecture(4, (6, 5), 5, 10, attention="softmax"))
    with pytest.raises(Refused, match="numbers of shape"):
        TwoLayers(torch.zeros(10))
