"""Claims C3 and C4: the coefficients of trained networks, and averages over permutations."""

from types import SimpleNamespace

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments import reading_the_algorithm
from icl.experiments.comparison import Comparison
from icl.experiments.models import WORKHORSE
from icl.experiments.reading_the_algorithm import (
    AVERAGED,
    C3,
    C4,
    JUDGED,
    MANY,
    MONOMIALS,
    NAMES,
    PLANS,
    agreement,
    closed,
    missed,
    read,
    run,
    spread,
)
from icl.moments import length, mean_risk, needed, optimum, sizes
from icl.polynomials import Polynomial, evaluate, project
from icl.predictors import LinearPredictor, excess_risk
from icl.starts import fresh
from icl.symmetry import Symmetrised

SOME = torch.ones(40)


def test_a_polynomial_is_read_off_its_answers():
    best = optimum(WORKHORSE, MONOMIALS)
    fitting = draw(WORKHORSE, 400, "tune", 1)
    twice = torch.stack([best.weights(fitting), 2 * best.weights(fitting)])
    found = project(twice, MONOMIALS, fitting).coefficients
    scale = 1e-6 * best.coefficients.abs().max().item()
    torch.testing.assert_close(found[0], best.coefficients, rtol=1e-6, atol=scale)
    torch.testing.assert_close(found[1], 2 * best.coefficients, rtol=1e-6, atol=2 * scale)


@pytest.mark.parametrize("of", ["the optimum", "another"])
def test_what_a_monomial_is_needed_for_is_what_a_fit_without_it_costs(of):
    """By fitting the others to drawn answers, instead of by the inverse of the moments."""
    best = optimum(WORKHORSE, MONOMIALS)
    rng = torch.Generator().manual_seed(1)
    changed = best.coefficients * (1 + 0.3 * torch.randn(77, generator=rng).double())
    mine = best if of == "the optimum" else Polynomial(MONOMIALS, changed)
    j = NAMES.index("r̂³")
    others = tuple(m for m in MONOMIALS if m != MONOMIALS[j])
    contexts = draw(WORKHORSE, 40_000, "tune", 2)
    refitted = project(mine.weights(contexts), others, contexts)
    cost = mean_risk(WORKHORSE, refitted) - mean_risk(WORKHORSE, mine)
    assert needed(WORKHORSE, mine)[j].item() == pytest.approx(cost.item(), rel=0.1)
    if mine is best:  # nothing is better than the best
        assert needed(WORKHORSE, best)[j] == needed(WORKHORSE, best).max()
        assert (needed(WORKHORSE, best) > 0).all()


def test_sizes_are_root_mean_squares():
    best = optimum(WORKHORSE, MONOMIALS)
    values = evaluate(MONOMIALS, draw(WORKHORSE, 20_000, "tune", 3))
    drawn = values.square().sum(dim=-1).mean(dim=0).sqrt() * best.coefficients.abs()
    torch.testing.assert_close(sizes(WORKHORSE, best).abs()[:5], drawn[:5], rtol=0.03, atol=0)
    answers = best.weights(draw(WORKHORSE, 20_000, "tune", 3)).square().sum(dim=-1).mean().sqrt()
    assert length(WORKHORSE, best).item() == pytest.approx(answers.item(), rel=0.03)


class Uneven(LinearPredictor):
    """Answers as a polynomial does, and besides with a part that favours the first feature."""

    def __init__(self, polynomial, part):
        self.polynomial, self.part = polynomial, part

    def weights(self, contexts):
        uneven = torch.zeros_like(contexts.xy)
        uneven[:, 0] = self.part
        return self.polynomial.weights(contexts) + uneven


def reading(polynomial, part=0.0, count=400):
    """What is read of networks that answer so."""
    model = SimpleNamespace(model=Uneven(polynomial, part))
    return read(model, draw(WORKHORSE, 8_000, "tune", 5), draw(WORKHORSE, count, "tune", 4))


def test_what_is_read_is_the_polynomial_and_what_it_leaves_is_asymmetry():
    best = optimum(WORKHORSE, MONOMIALS)
    scales = torch.tensor([[1.0], [1.1], [0.8]]).double()
    mine, contexts = (
        Polynomial(MONOMIALS, best.coefficients * scales),
        draw(WORKHORSE, 400, "tune", 4),
    )
    found = reading(mine, part=0.3)
    answers = best.weights(contexts)
    # r̂ and a constant are uncorrelated: of the constant hardly anything is in the polynomial.
    torch.testing.assert_close(
        found.left.mean(dim=-1), torch.full((3,), 0.09).double(), rtol=0.1, atol=0
    )
    size = answers.square().sum(dim=-1)
    torch.testing.assert_close(found.size, scales**2 * size, rtol=0.1, atol=0.02)
    gaps = torch.tensor([[0.95 - 1.0], [0.9 - 1.1], [1.05 - 0.8]]).double()
    torch.testing.assert_close(
        found.away.mean(dim=-1), (gaps**2 * size).mean(dim=-1), rtol=0.05, atol=0
    )
    own = (answers * scales[..., None] - contexts.w).square().sum(dim=-1).mean(dim=-1)
    torch.testing.assert_close(found.own.mean(dim=-1), own, rtol=0.02, atol=0)
    torch.testing.assert_close(found.risk.mean(dim=-1), own + 0.09, rtol=0.05, atol=0)
    assert missed(found).max() < 1


def test_seeds_agree_if_their_polynomials_do():
    best = optimum(WORKHORSE, MONOMIALS).coefficients
    same = best * torch.tensor([[1.0], [1.001], [0.999]])
    found = reading(Polynomial(MONOMIALS, same))
    assert agreement(found).min() > 0.999
    assert spread(found).min() > -0.01
    assert C3.judge({"": found}, shared=True).outcome == REPRODUCED
    same[0, NAMES.index("r̂³")] = 0  # in one seed of three
    without = reading(Polynomial(MONOMIALS, same))
    lost = sizes(WORKHORSE, Polynomial(MONOMIALS, best))[NAMES.index("r̂³")]
    lost = lost / length(WORKHORSE, Polynomial(MONOMIALS, same))[0]
    assert spread(without)[0].item() == pytest.approx(-lost.item(), rel=0.01)
    assert C3.judge({"": without}, shared=True).outcome != REPRODUCED


def test_what_averages_take_away_is_a_share_of_the_distance_to_bayes():
    around = torch.tensor([[1.0], [1.001], [0.999]]) * SOME
    found = (0.3 * around, 0.15 * around, 0.1 * SOME)
    assert closed(found)[0].item() == pytest.approx(0.75 * 8 / 7)
    assert C4.judge({"": found}, shared=True).outcome == REPRODUCED
    assert C4.judge({"": (0.3 * around, 0.28 * around, 0.1 * SOME)}).outcome == NOT_REPRODUCED


def test_averages_tell_what_all_permutations_would_take_away():
    """A part that favours one feature adds 0.09 to the risk, and an eighth of it on average."""
    best = optimum(WORKHORSE, MONOMIALS)
    contexts = draw(WORKHORSE, 2_000, "tune", 6)
    uneven = Uneven(Polynomial(MONOMIALS, best.coefficients[None]), 0.3)
    risks = [
        torch.stack([excess_risk(Symmetrised(uneven, k, seed), contexts)[0] for seed in range(20)])
        for k in (1, JUDGED)
    ]
    base = excess_risk(best, contexts).mean()
    assert (risks[0].mean() - base).item() == pytest.approx(0.09, rel=0.1)
    assert (risks[1].mean() - base).item() == pytest.approx(0.09 / 8, rel=0.3)


def test_seeds_of_untrained_networks_do_not_agree():
    untrained = SimpleNamespace(model=fresh(PLANS["heads-8-2"].config, range(5)))
    found = read(untrained, draw(WORKHORSE, 2_000, "tune", 1), draw(WORKHORSE, 400, "tune", 2))
    assert agreement(found).max() < 0.5
    assert C3.judge({"": found}, shared=True).outcome == NOT_REPRODUCED


def test_the_chapter_runs_and_refuses_too_few_contexts(monkeypatch):
    monkeypatch.setattr(reading_the_algorithm, "FITTING", 1024)
    found = run(80, 1)
    assert found.verdicts.keys() == {"C3", "C4"}
    for name, finding in zip(MANY, found.verdicts["C4"].findings, strict=True):
        on, model = Comparison.on(WORKHORSE, 80, 1), found.models[name].model
        risks = [excess_risk(x, on.contexts[:20]) for x in (model, Symmetrised(model, 8))]
        value = closed((*risks, on.baselines["Bayes"][:20])).mean().item()
        assert finding.estimate.value == pytest.approx(value, rel=1e-4)
        assert tuple(found.averages[name]) == AVERAGED
        torch.testing.assert_close(found.averages[name][1], risks[0][:, :2].double())
    with pytest.raises(Refused, match="contexts=63: allowed are whole numbers from 64 on"):
        run(63, 1)
