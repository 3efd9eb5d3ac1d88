"""Masking, importance and pruning, for every kind of attention, with norm and MLP or without."""

import math
from dataclasses import replace

import pytest
import torch

from icl.architecture import Architecture
from icl.contexts import draw
from icl.errors import Refused
from icl.heads import (
    FILLS,
    Importance,
    importance,
    mask,
    most_important,
    prune,
    random_heads,
    rises,
)
from icl.one_layer import effective_step
from icl.predictors import excess_risk
from icl.tasks import SparseLinear
from icl.transformer import LinearTransformer, build

KINDS = {
    "linear": {},
    "linear, norm": {"norm": True},
    "relu, norm": {"attention": "relu", "norm": True},
    "softmax": {"attention": "softmax"},
    "softmax, norm, MLP": {"attention": "softmax", "norm": True, "mlp": True},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def any_model(request):
    """Two small models of every kind, with unequal head counts, float64."""
    config = Architecture(d=4, heads=(3, 1, 2), d_head=3, d_model=7, **request.param)
    return build(config, 2).initialise((5, 6), 1.0).double()


def all_but(model, *masked):
    """Keep all heads but the given (layer, head) pairs."""
    kept = [torch.ones(model.n_models, heads, dtype=torch.bool) for heads in model.config.heads]
    for layer, head in masked:
        kept[layer][:, head] = False
    return kept


def without(model, layer, head):
    """The model with a head really removed: its output matrix is zero."""
    twin = build(model.config, model.n_models).double()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        twin.blocks[layer].output.weight[:, head] = 0
    return twin


@pytest.fixture
def contexts(task):
    return draw(task, 40, "evaluate", seed=0, queries=2)


def test_masking_is_removing(any_model, contexts):
    for layer, head in [(0, 2), (1, 0), (2, 1)]:
        masked = mask(any_model, all_but(any_model, (layer, head)))
        twin = without(any_model, layer, head)
        answers = masked.predict(contexts)
        assert torch.allclose(answers, twin.predict(contexts), rtol=1e-10)
        assert not torch.allclose(answers, any_model.predict(contexts))
        if isinstance(any_model, LinearTransformer):
            by_tokens = masked.on_tokens().predict(contexts)
            assert torch.allclose(by_tokens, answers, rtol=1e-10)


def test_masking_leaves_the_model_alone(any_model, contexts):
    before = any_model.predict(contexts)
    mask(any_model, all_but(any_model, (0, 0), (1, 0)))
    assert torch.equal(any_model.predict(contexts), before)


def test_importance_is_the_rise_of_the_mean_risk(any_model, contexts):
    found = importance(any_model, contexts)
    full = excess_risk(any_model, contexts).mean(dim=1)
    for layer, heads in enumerate(any_model.config.heads):
        for head in range(heads):
            removed = excess_risk(without(any_model, layer, head), contexts).mean(dim=1)
            assert torch.allclose(found.rise[:, layer, head].double(), removed - full, rtol=1e-4)
        assert found.rise[:, layer, heads:].isnan().all()
    some = found.rise.nan_to_num(-1).amax(dim=2) > 0
    assert some.any()
    assert found.shares.nansum(dim=2)[some].tolist() == pytest.approx([1] * int(some.sum()))


def test_importance_masks_as_mask_does_at_every_layer(any_model, contexts):
    found = importance(any_model, contexts)
    for layer, heads in enumerate(any_model.config.heads):
        for head in range(heads):
            masked = mask(any_model, all_but(any_model, (layer, head)))
            risk = excess_risk(masked, contexts)
            assert torch.allclose(found.masked[:, layer, head].double(), risk, rtol=1e-5)


def test_importance_is_the_same_on_statistics_and_token_by_token(model, task):
    many = draw(task, 20, "evaluate", seed=0, queries=4000)
    exact, sampled = importance(model, many), importance(model.on_tokens(), many)
    # The squared error of a Gaussian query has standard deviation √2 of its mean.
    error = 6 * (2 / 4000) ** 0.5
    assert ((sampled.full / exact.full - 1).abs() < error).all()
    there = exact.masked.isfinite()
    assert ((sampled.masked / exact.masked - 1).abs()[there] < error).all()


@pytest.mark.parametrize("fill", FILLS)
def test_blocks_of_contexts_do_not_show(any_model, contexts, monkeypatch, fill):
    monkeypatch.setattr("icl.heads.MASKED_AT_ONCE", len(contexts))
    whole = importance(any_model, contexts, fill)
    monkeypatch.setattr("icl.heads.MASKED_AT_ONCE", 7)
    blocks = importance(any_model, contexts, fill)
    assert torch.allclose(blocks.full, whole.full)
    assert torch.allclose(blocks.masked, whole.masked, equal_nan=True)
    assert blocks.full.shape[1] > 7


def test_mean_ablation_puts_in_the_mean_of_what_the_head_adds(any_model, contexts):
    """Removing the head and adding its mean by hand, before the layer's MLP, at every layer."""
    found = importance(any_model, contexts, "mean")
    states = list(any_model.hidden(contexts))
    for layer, heads in enumerate(any_model.config.heads):
        block = any_model.blocks[layer]
        added = any_model.added_by_heads(contexts, states[layer], layer)
        for head in range(heads):
            others = added.sum(dim=2) - added[:, :, head]
            mean = added[:, :, head].mean(dim=1, keepdim=True)
            patched = block.feed(states[layer] + others + mean)
            risk = any_model.risk_from(contexts, patched, layer + 1)
            assert torch.allclose(found.masked[:, layer, head], risk, rtol=1e-8)


def test_what_heads_add_is_what_a_layer_adds(any_model, contexts):
    states = list(any_model.hidden(contexts))
    for layer, block in enumerate(any_model.blocks):
        added = any_model.added_by_heads(contexts, states[layer], layer).sum(dim=2)
        assert torch.allclose(block.feed(states[layer] + added), states[layer + 1], rtol=1e-9)


def test_plain_mean_of_a_head_s_output_is_zero_by_symmetry(model, task):
    """(x, y) → (−x, −y) keeps the map that a head applies, and flips what it puts out."""
    contexts = draw(task, 3, "evaluate", seed=0, queries=2)
    flipped = replace(contexts, tokens=-contexts.tokens, queries=-contexts.queries)
    tokens = model.on_tokens()
    for layer, (there, back) in enumerate(
        zip(tokens.hidden(contexts), tokens.hidden(flipped), strict=True)
    ):
        assert torch.allclose(back, -there, rtol=1e-9)
        if layer < len(model.blocks):
            ours, theirs = (
                tokens.added_by_heads(c, x, layer) for c, x in ((contexts, there), (flipped, back))
            )
            assert torch.allclose(theirs, -ours, rtol=1e-9)
            assert ours.abs().max() > 1e-3


def test_a_masked_head_adds_nothing_and_masked_models_are_not_taken_for_whole_ones(model, contexts):
    masked = mask(model, all_but(model, (0, 1)))
    states = list(masked.hidden(contexts))
    added = masked.added_by_heads(contexts, states[0], 0)
    assert not added[:, :, 1].any()
    assert torch.allclose(states[0] + added.sum(dim=2), states[1])
    assert model.whole
    assert not masked.whole
    with pytest.raises(Refused, match="masked heads"):
        prune(masked, all_but(model))
    single = build(Architecture(4, (2,), 3, 7)).initialise((0,), 1.0)
    with pytest.raises(Refused, match="masked heads"):
        effective_step(mask(single, all_but(single, (0, 0))))
    with pytest.raises(Refused, match="shapes"):
        prune(model, all_but(model)[:2])


def test_shares_and_entropy_at_the_extremes():
    def made(rises):
        masked = torch.tensor(rises)[None, :, :, None].expand(-1, -1, -1, 2) + 1.0
        return Importance(torch.ones(1, 2), masked)

    nan = math.nan
    found = made([[1.0, 1, 1, 1], [5.0, 0, -1, 0], [2.0, 2, nan, nan], [-1.0, -1, -1, -1]])
    assert found.entropy[0, :3].tolist() == pytest.approx([1, 0, 1])
    assert found.top_share[0, :3].tolist() == pytest.approx([0.25, 1, 0.5])
    assert found.top_share[0, 3].isnan()


def test_mean_and_median_are_both_at_hand(contexts, model):
    found = importance(model, contexts)
    assert found.by("median").relative.shape == found.relative.shape
    assert not torch.equal(found.by("median").rise, found.rise)
    with pytest.raises(Refused, match="mean, median"):
        found.by("mode")


def test_importance_refuses_what_it_cannot_measure(any_model, contexts):
    with pytest.raises(Refused, match="masked heads"):
        importance(mask(any_model, all_but(any_model, (0, 0))), contexts)
    with torch.no_grad():
        any_model.blocks[1].value.weight.mul_(1e300)
        any_model.blocks[1].output.weight.mul_(1e300)
    with pytest.raises(Refused, match="overflow"):
        importance(any_model, contexts)


def test_a_choice_of_heads_that_do_not_exist_is_refused(model):
    with pytest.raises(Refused, match="shapes"):
        mask(model, all_but(model)[:2])
    with pytest.raises(Refused, match="shapes"):
        mask(model, [torch.ones(2, 3)] * 3)


def test_unknown_fills_are_refused(model, contexts):
    with pytest.raises(Refused, match="zero, mean"):
        importance(model, contexts, "noise")


def test_without_any_head_only_the_embedding_is_left():
    model = build(Architecture(4, (2, 2), 3, 7, "softmax")).initialise((0,), 1.0).double()
    contexts = draw(SparseLinear(d=4, s=2, n=9), 3, "evaluate", 0, queries=2)
    whole = model.predict(contexts)
    none = mask(model, [torch.zeros(1, 2), torch.zeros(1, 2)])
    embedded = contexts.queries @ model.embed.weight[0, :-1] @ model.readout.weight[0]
    assert torch.allclose(none.predict(contexts)[0], embedded)
    assert not torch.allclose(whole[0], embedded)


HEADS = (3, 1, 2)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 1, 2), (3, 1, 1), (3, 1, 2)])
def test_a_pruned_model_is_smaller_and_answers_as_the_masked_one(any_model, contexts, counts):
    kept = most_important(importance(any_model, contexts), counts)
    smaller = prune(any_model, kept)
    assert smaller.config == replace(any_model.config, heads=counts)
    count = sum(p.numel() for p in smaller.parameters())
    per_head = 4 * any_model.config.d_model * any_model.config.d_head * any_model.n_models
    whole = sum(p.numel() for p in any_model.parameters())
    assert count == whole - (sum(HEADS) - sum(counts)) * per_head
    expected = mask(any_model, kept).predict(contexts)
    assert torch.allclose(smaller.predict(contexts), expected, rtol=1e-9)


def test_each_model_loses_its_own_heads(model, contexts):
    found = importance(model, contexts)
    kept = most_important(found, (1, 1, 1))
    for m in range(2):
        top = [int(found.rise[m, layer, :h].argmax()) for layer, h in enumerate(HEADS)]
        assert [keep[m].tolist().index(True) for keep in kept] == top
        others = [(la, h) for la, n in enumerate(HEADS) for h in range(n) if h != top[la]]
        alone = mask(model, all_but(model, *others)).weights(contexts)[m]
        assert torch.allclose(mask(model, kept).weights(contexts)[m], alone)
    assert [tuple(rise.shape) for rise in rises(found)] == [(2, h) for h in HEADS]


def test_random_heads_have_the_counts_and_depend_on_the_seed(model):
    draws = [random_heads(model, (2, 1, 1), seed) for seed in range(20)]
    for kept in draws:
        assert [keep.sum(dim=1).tolist() for keep in kept] == [[2, 2], [1, 1], [1, 1]]
    chosen = torch.stack([kept[0] for kept in draws]).float().mean(dim=0)
    assert ((chosen > 0.3) & (chosen < 1)).all(), "every head is kept sometimes"


def test_unequal_counts_and_empty_layers_are_refused(model):
    kept = random_heads(model, (2, 1, 1), 0)
    kept[0][0] = True
    with pytest.raises(Refused, match="layer 0"):
        prune(model, kept)
    with pytest.raises(Refused, match="layer 2"):
        prune(model, random_heads(model, (2, 1, 0), 0))


def test_what_decides_is_the_trimmed_mean(model, contexts):
    assert importance(model, contexts).average == "trimmed"
