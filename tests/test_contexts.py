"""The sampler: exact distribution, purity, separate streams, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icl.contexts import STREAMS, draw, generator, stack
from icl.errors import Refused
from icl.tasks import VALUES, SparseLinear

MANY = 60_000


def standardised_gap(first, second):
    """Difference of means over its standard error, for every entry."""
    variance = first.var(dim=0) / len(first) + second.var(dim=0) / len(second)
    return ((first.mean(dim=0) - second.mean(dim=0)) / variance.sqrt()).abs().max().item()


@pytest.mark.parametrize("n", [4, 5, 30])
@pytest.mark.parametrize("values", VALUES)
def test_direct_gram_has_the_moments_of_drawn_tokens(task, n, values):
    task = replace(task, n=n, values=values)
    direct = draw(task, MANY, "evaluate", seed=1).gram.flatten(1)
    counted = draw(task, MANY, "evaluate", seed=2, queries=1).gram.flatten(1)
    assert standardised_gap(direct, counted) < 4.5
    products = [(g[:, :, None] * g[:, None, :]).flatten(1) for g in (direct, counted)]
    assert standardised_gap(*products) < 5.5


def test_gram_moments_in_closed_form(task):
    """E G = [[Σ, Σw], [wᵀΣ, wᵀΣw + σ²]], in the mean over w given each draw's own w."""
    contexts = draw(task, MANY, "evaluate", seed=3)
    sigma = torch.from_numpy(task.sigma)
    expected = contexts.w @ sigma
    assert standardised_gap(contexts.xx.flatten(1) - sigma.flatten(), torch.zeros(2, 16)) < 4.5
    assert standardised_gap(contexts.xy - expected, torch.zeros(2, 4)) < 4.5
    label = contexts.gram[:, -1, -1] - (expected * contexts.w).sum(dim=1) - task.noise**2
    assert standardised_gap(label[:, None], torch.zeros(2, 1)) < 4.5


def test_prior_is_sparse_with_second_moment_s_over_d():
    for values in VALUES:
        w = SparseLinear(d=6, s=2, values=values).draw_weights(np.random.default_rng(0), MANY)
        assert (np.count_nonzero(w, axis=1) == 2).all()
        assert np.allclose(w.T @ w / MANY, np.eye(6) / 3, atol=0.02)
        if values != "gaussian":
            assert np.allclose((w**2).sum(axis=1), 2)


def test_statistics_of_a_hundred_million_examples_cost_no_more():
    """Tokens for this n would need terabytes."""
    contexts = draw(SparseLinear(d=16, s=2, n=10**8), 64, "evaluate", seed=0)
    assert torch.allclose(contexts.xx, torch.eye(16, dtype=torch.float64), atol=1e-2)


def test_draws_are_pure_and_streams_seeds_and_steps_all_differ(task):
    def first(stream, seed, step):
        return draw(task, 3, stream, seed, step).w.sum().item()

    keys = [(stream, seed, step) for stream in STREAMS for seed in (0, 1) for step in (0, 1)]
    drawn = [first(*key) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [first(*key) for key in keys]


def test_queries_do_not_repeat_the_contexts_numbers(task):
    contexts = draw(task, 50, "evaluate", seed=0, queries=9)
    x, asked = contexts.tokens[..., :4], contexts.queries
    assert asked.shape == x.shape == (50, 9, 4)
    assert abs(np.corrcoef(x.flatten(), asked.flatten())[0, 1]) < 0.1


def test_queries_have_the_covariance_of_the_task(task):
    asked = draw(task, 200, "evaluate", seed=0, queries=300).queries.flatten(0, 1)
    products = (asked[:, :, None] * asked[:, None, :]).flatten(1)
    assert standardised_gap(products, torch.from_numpy(task.sigma).flatten().expand(2, -1)) < 4.5


def test_the_number_of_queries_leaves_the_contexts_alone(task):
    few, many = (draw(task, 5, "evaluate", seed=0, queries=q) for q in (1, 7))
    assert torch.equal(few.tokens, many.tokens)
    assert torch.equal(few.w, many.w)


@given(
    n=st.integers(1, 12), d=st.integers(1, 6), batch=st.integers(1, 4), queries=st.integers(0, 1)
)
def test_gram_is_positive_semidefinite_of_the_right_shape_and_rank(n, d, batch, queries):
    contexts = draw(SparseLinear(d=d, s=1, n=n), batch, "evaluate", seed=0, queries=queries)
    assert contexts.gram.shape == (batch, d + 1, d + 1)
    assert torch.equal(contexts.gram, contexts.gram.mT) or torch.allclose(
        contexts.gram, contexts.gram.mT, rtol=1e-14
    )
    eigenvalues = torch.linalg.eigvalsh(contexts.gram)
    assert eigenvalues.min() > -1e-10
    assert ((eigenvalues > 1e-9).sum(dim=1) <= min(n, d + 1)).all()


def test_tokens_and_gram_agree(task):
    contexts = draw(task, 5, "evaluate", seed=0, queries=2)
    by_hand = sum(e[:, :, None] * e[:, None, :] for e in contexts.tokens.unbind(1)) / task.n
    assert torch.allclose(contexts.gram, by_hand, rtol=1e-12)


def test_noise_free_labels_are_exact(task):
    contexts = draw(replace(task, noise=0.0), 5, "evaluate", seed=0)
    assert torch.allclose(contexts.xy, (contexts.xx @ contexts.w[..., None])[..., 0], rtol=1e-10)


def test_stack_adds_a_model_axis(task):
    stacked = stack([draw(task, 3, "train", seed, 7, queries=2) for seed in (0, 1)])
    assert stacked.gram.shape == (2, 3, 5, 5)
    assert stacked.tokens.shape == (2, 3, 9, 5)
    assert stacked.queries.shape == (2, 3, 2, 4)
    assert torch.equal(stacked.gram[1], draw(task, 3, "train", 1, 7, queries=2).gram)
    part = stacked[1:3]
    assert part.w.shape == (2, 2, 4)
    assert torch.equal(part.queries, stacked.queries[:, 1:3])
    assert sum(map(len, stacked.blocks(2))) == len(stacked) == 3


def test_slices_keep_contexts_whole(task):
    contexts = draw(task, 5, "evaluate", seed=0, queries=2)
    part = contexts[1:3]
    assert len(part) == 2
    assert torch.equal(part.gram, contexts.gram[1:3])
    assert torch.equal(part.tokens, contexts.tokens[1:3])
    assert torch.equal(part.queries, contexts.queries[1:3])
    assert [len(block) for block in contexts.blocks(2)] == [2, 2, 1]
    assert torch.equal(torch.cat([block.w for block in contexts.blocks(2)]), contexts.w)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"s": 0}, "s=0: allowed are whole numbers from 1 to 8"),
        ({"s": 9}, "s=9: allowed are whole numbers from 1 to 8"),
        ({"n": 0}, "n=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"values": "gausian"}, "did you mean gaussian"),
        ({"covariance": (1.0, 2.0)}, "covariance of shape"),
        ({"covariance": (-1.0,) * 8}, "positive"),
        ({"prior": (1.0, 2.0)}, "prior of shape"),
    ],
)
def test_bad_tasks_are_refused(wrong, words):
    with pytest.raises(Refused, match=words):
        SparseLinear(**wrong)


def test_unknown_streams_are_refused():
    with pytest.raises(Refused, match="train, tune, evaluate"):
        generator("test", 0, 0)


def test_no_number_of_a_context_is_drawn_again_for_its_queries():
    found = draw(SparseLinear(d=3, s=3, n=7), 50, "evaluate", 0, queries=5)
    asked, others = found.queries.numpy(), [found.w.numpy(), found.tokens[..., :-1].numpy()]
    assert len(np.unique(asked)) == asked.size
    for other in others:
        assert not np.isin(asked, other).any()
    first = generator("evaluate", 0, 0).standard_normal(asked.size)
    assert not np.isin(asked, first).any()


def test_a_negative_number_of_queries_is_refused(task):
    with pytest.raises(Refused, match="queries=-1: allowed are whole numbers from 0 on"):
        draw(task, 2, "evaluate", 0, queries=-1)


def test_covariance_forms_agree():
    diagonal = SparseLinear(d=2, s=1, covariance=(1.0, 2.0))
    full = SparseLinear(d=2, s=1, covariance=[[1.0, 0.0], [0.0, 2.0]])
    assert np.array_equal(diagonal.sigma, full.sigma)
    assert full == SparseLinear(d=2, s=1, covariance=((1, 0), (0, 2)))
