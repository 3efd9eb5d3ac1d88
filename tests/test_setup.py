"""The live check of the collapse, and the moments of the Gram matrix that it is drawn from."""

import matplotlib.pyplot as plt
import pytest
import torch

from icl.errors import Failed, Refused
from icl.experiments.setup import Result, gap, run
from icl.transformer import LinearTransformer, build


def test_the_gap_is_relative_to_the_largest_answer():
    answers = torch.tensor([[1.0, -4.0], [2.0, 0.0]])
    assert gap(answers, answers) == 0
    assert gap(answers, answers + torch.tensor([[0.0, 0.0], [0.0, 1.0]])) == 0.25
    assert gap(1e3 * answers, 1e3 * answers - 2e3) == 0.5


def test_both_paths_agree_and_say_over_how_many_answers():
    found = run(contexts=5, examples=6, features=3, nonzero=2, seed=4)
    assert 0 < found.gap < 1e-12
    assert found.answers == 20
    assert f"20 answers differ by {found.gap:.0e} of the largest" in found.finding


def test_paths_that_differ_fail(monkeypatch):
    other = lambda model: build(model.config).initialise((9,), 1.0).double()  # noqa: E731
    monkeypatch.setattr(LinearTransformer, "on_tokens", other)
    with pytest.raises(Failed, match="the two paths differ by"):
        run(contexts=2, examples=6, features=3, nonzero=2, seed=0)


def test_answers_that_are_not_numbers_fail(monkeypatch):
    weights = LinearTransformer.weights
    monkeypatch.setattr(LinearTransformer, "weights", lambda *given: weights(*given) * torch.nan)
    with pytest.raises(Failed, match="differ by nan"):
        run(contexts=2, examples=6, features=3, nonzero=2, seed=0)


def test_both_ways_to_draw_have_the_same_moments():
    found = run(contexts=2, examples=12, features=4, nonzero=1, seed=0)
    assert found.direct.shape == found.counted.shape == (20_000, 5, 5)
    assert not torch.equal(found.direct, found.counted)
    for power in (1, 2):
        means = [(gram**power).mean(dim=0) for gram in (found.direct, found.counted)]
        spread = (found.direct**power).std(dim=0) * (2 / 20_000) ** 0.5
        assert ((means[0] - means[1]).abs() < 5 * spread).all()


def test_the_figure_shows_every_entry_one_way_against_the_other():
    rng = torch.Generator().manual_seed(0)
    direct, counted = (torch.randn(50, 3, 3, generator=rng) for _ in range(2))
    Result(0.0, 1, direct, counted).plot_moments()
    for axes, moment in zip(plt.gcf().axes, (torch.mean, torch.var), strict=True):
        x, y = axes.get_lines()[-1].get_data()
        assert torch.as_tensor(x).equal(moment(counted, dim=0).flatten())
        assert torch.as_tensor(y).equal(moment(direct, dim=0).flatten())
    plt.close()


def test_what_does_not_fit_is_refused():
    with pytest.raises(Refused, match="nonzero=5: allowed are whole numbers from 1 to 4"):
        run(contexts=2, examples=8, features=4, nonzero=5, seed=0)
    with pytest.raises(Refused, match="contexts=0: allowed are whole numbers from 1 on"):
        run(contexts=0, examples=8, features=4, nonzero=1, seed=0)
    with pytest.raises(Refused, match="examples=3: allowed are whole numbers from 4 to 10000"):
        run(contexts=2, examples=3, features=4, nonzero=1, seed=0)
