"""Claims C3 and C4: the coefficients of trained networks, and averages over permutations."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.models import WORKHORSE
from icl.experiments.reading_the_algorithm import (
    C3,
    C4,
    MONOMIALS,
    NAMES,
    PLANS,
    Reading,
    agreement,
    closed,
    needed,
    run,
    sizes,
    spread,
)
from icl.moments import mean_risk, optimum
from icl.polynomials import Polynomial, evaluate, project
from icl.starts import fresh

SOME = torch.ones(40)


def test_a_polynomial_is_read_off_its_answers():
    best = optimum(WORKHORSE, MONOMIALS)
    fitting = draw(WORKHORSE, 400, "tune", 1)
    twice = torch.stack([best.weights(fitting), 2 * best.weights(fitting)])
    found = project(twice, MONOMIALS, fitting).coefficients
    scale = 1e-6 * best.coefficients.abs().max().item()
    torch.testing.assert_close(found[0], best.coefficients, rtol=1e-6, atol=scale)
    torch.testing.assert_close(found[1], 2 * best.coefficients, rtol=1e-6, atol=2 * scale)


def test_what_a_monomial_is_needed_for_is_what_a_fit_without_it_costs():
    """By fitting the others to drawn answers, instead of by the inverse of the moments."""
    best = optimum(WORKHORSE, MONOMIALS)
    j = NAMES.index("r̂³")
    others = tuple(m for m in MONOMIALS if m != MONOMIALS[j])
    contexts = draw(WORKHORSE, 40_000, "tune", 2)
    refitted = project(best.weights(contexts), others, contexts)
    cost = mean_risk(WORKHORSE, refitted) - mean_risk(WORKHORSE, best)
    assert needed(best)[j].item() == pytest.approx(cost.item(), rel=0.05)
    assert needed(best)[j] == needed(best).max()
    assert (needed(best) > 0).all()  # nothing is better than the best


def test_sizes_are_root_mean_squares():
    best = optimum(WORKHORSE, MONOMIALS)
    values = evaluate(MONOMIALS, draw(WORKHORSE, 20_000, "tune", 3))
    drawn = values.square().sum(dim=-1).mean(dim=0).sqrt() * best.coefficients.abs()
    torch.testing.assert_close(sizes(best).abs()[:5], drawn[:5], rtol=0.03, atol=0)


def reading(polynomial, contexts):
    """What is read of networks that answer as the polynomial does."""
    answers = polynomial.weights(contexts)
    others = (answers.sum(dim=0) - answers) / (len(answers) - 1)
    size, away = answers.square().sum(dim=-1), (others - answers).square().sum(dim=-1)
    return Reading(away, polynomial, away, size, away, away)


def test_seeds_agree_if_their_polynomials_do():
    best = optimum(WORKHORSE, MONOMIALS).coefficients
    contexts = draw(WORKHORSE, 400, "tune", 4)
    same = best * torch.tensor([[1.0], [1.001], [0.999]])
    found = reading(Polynomial(MONOMIALS, same), contexts)
    assert agreement(found).min() > 0.999
    assert spread(found).min() > -0.01
    assert C3.judge({"": found}, shared=True).outcome == REPRODUCED
    same[0, NAMES.index("r̂³")] = 0  # in one seed of three
    without = reading(Polynomial(MONOMIALS, same), contexts)
    size = without.size.mean(dim=-1)[0].sqrt()
    lost = sizes(Polynomial(MONOMIALS, best))[NAMES.index("r̂³")] / size
    assert spread(without)[0].item() == pytest.approx(-lost.item(), rel=1e-2)
    assert C3.judge({"": without}, shared=True).outcome != REPRODUCED


def test_what_averages_take_away_is_a_share_of_the_distance_to_bayes():
    around = torch.tensor([[1.0], [1.001], [0.999]]) * SOME
    found = (0.3 * around, 0.15 * around, 0.1 * SOME)
    assert closed(found)[0].item() == pytest.approx(0.75)
    assert C4.judge({"": found}, shared=True).outcome == REPRODUCED
    assert C4.judge({"": (0.3 * around, 0.28 * around, 0.1 * SOME)}).outcome == NOT_REPRODUCED


def test_seeds_of_untrained_networks_do_not_agree():
    fitting, contexts = (draw(WORKHORSE, 1_000, "tune", seed) for seed in (1, 2))
    untrained = fresh(PLANS["heads-8-2"].config, range(5))
    mine = project(untrained.weights(fitting), MONOMIALS, fitting)
    found = reading(mine, contexts)
    assert agreement(found).max() < 0.5
    assert C3.judge({"": found}, shared=True).outcome == NOT_REPRODUCED


def test_the_chapter_runs_and_refuses_too_few_contexts():
    found = run(80, 1)
    assert found.verdicts.keys() == {"C3", "C4"}
    with pytest.raises(Refused, match="contexts=7: allowed are 8 and more"):
        run(7, 1)
