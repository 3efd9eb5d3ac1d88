"""Masking and importance."""

import math

import pytest
import torch

from icl.contexts import draw, draw_queries
from icl.errors import Refused
from icl.heads import FILLS, Importance, importance, mask
from icl.risk import excess_risk
from icl.tasks import SparseLinear
from icl.transformer import Architecture, build


def without(model, layer, head):
    """The model with a head really removed: its output matrix is zero."""
    twin = build(model.config, model.n_models).double()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        twin.output[layer][:, head] = 0
    return twin


@pytest.fixture
def contexts(task):
    return draw(task, 40, "evaluate", seed=0, tokens=True)


def test_masking_is_removing(model, contexts, task):
    queries = draw_queries(task, 40, 2, "evaluate", seed=0)
    for layer, head in [(0, 2), (1, 0), (2, 1)]:
        masked = mask(model, [(layer, head)])
        twin = without(model, layer, head)
        assert torch.allclose(masked.weights(contexts), twin.weights(contexts), rtol=1e-10)
        answers = masked.predict_tokens(contexts, queries)
        assert torch.allclose(answers, twin.predict_tokens(contexts, queries), rtol=1e-10)
        assert not torch.allclose(masked.weights(contexts), model.weights(contexts))


def test_masking_leaves_the_model_alone(model, contexts):
    before = model.weights(contexts)
    mask(model, [(0, 0), (1, 0)], "mean")
    assert torch.equal(model.weights(contexts), before)


def test_importance_is_the_rise_of_the_mean_risk(model, contexts):
    found = importance(model, contexts)
    full = excess_risk(model, contexts).mean(dim=1)
    for layer, heads in enumerate(model.config.heads):
        for head in range(heads):
            removed = excess_risk(without(model, layer, head), contexts).mean(dim=1)
            assert torch.allclose(found.rise[:, layer, head].double(), removed - full, rtol=1e-4)
        assert found.rise[:, layer, heads:].isnan().all()
    some = found.rise.nan_to_num(-1).amax(dim=2) > 0
    assert some.any()
    assert found.shares.nansum(dim=2)[some].tolist() == pytest.approx([1] * int(some.sum()))


@pytest.mark.parametrize("fill", FILLS)
def test_importance_masks_as_mask_does_at_every_layer(model, contexts, fill):
    found = importance(model, contexts, fill)
    for layer, heads in enumerate(model.config.heads):
        for head in range(heads):
            risk = excess_risk(mask(model, [(layer, head)], fill), contexts)
            assert torch.allclose(found.masked[:, layer, head].double(), risk, rtol=1e-5)


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_blocks_of_contexts_do_not_show(model, contexts, monkeypatch, fill):
    monkeypatch.setattr("icl.heads.BLOCK", len(contexts))
    whole = importance(model, contexts, fill)
    monkeypatch.setattr("icl.heads.BLOCK", 7)
    blocks = importance(model, contexts, fill)
    assert torch.allclose(blocks.full, whole.full)
    assert torch.allclose(blocks.masked, whole.masked, equal_nan=True)
    assert blocks.full.shape[1] > 7


def test_mean_ablation_puts_in_the_mean_of_the_head_s_map(model, contexts):
    """In the first layer, removing the head and adding its mean map by hand."""
    found = mask(model, [(0, 1)], "mean").weights(contexts)
    full, removed = (next_hidden(m, contexts) for m in (model, without(model, 0, 1)))
    patched = removed + (full - removed).mean(dim=1, keepdim=True)
    assert torch.allclose(found, model.finish(contexts, patched, layer=1), rtol=1e-9)


def next_hidden(model, contexts):
    states = model.hidden(contexts)
    next(states)
    return next(states)


def test_plain_mean_of_a_head_s_output_is_zero_by_symmetry(model, task):
    """(x, y) → (−x, −y) keeps the Gram matrix and flips every hidden state."""
    contexts = draw(task, 3, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 3, 2, "evaluate", seed=0)
    there = model.predict_tokens(contexts, queries)
    assert torch.allclose(model.predict_tokens(contexts, -queries), -there, rtol=1e-9)


def test_shares_and_entropy_at_the_extremes():
    def made(rises):
        masked = torch.tensor(rises)[None, :, :, None].expand(-1, -1, -1, 2) + 1.0
        return Importance(torch.ones(1, 2), masked)

    nan = math.nan
    found = made([[1.0, 1, 1, 1], [5.0, 0, -1, 0], [2.0, 2, nan, nan], [-1.0, -1, -1, -1]])
    assert found.entropy[0, :3].tolist() == pytest.approx([1, 0, 1])
    assert found.top_share[0, :3].tolist() == pytest.approx([0.25, 1, 0.5])
    assert found.top_share[0, 3].isnan()
    assert found.smallest_first.item() == pytest.approx(1.0)
    only = made([[1.0, 1, 1, 3], [3.0, 1, 0, 0], [0.0, 0, 9, 0]])
    assert only.top_later.item() == pytest.approx(0.75)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    assert only.contrast.item() == pytest.approx(only.entropy[0, 0].item() - entropy / 2)


def test_mean_and_median_are_both_at_hand(contexts, model):
    found = importance(model, contexts)
    assert found.by("median").relative.shape == found.relative.shape
    assert not torch.equal(found.by("median").rise, found.rise)
    with pytest.raises(Refused, match="mean, median"):
        found.by("mode")


def test_importance_refuses_what_it_cannot_measure(model, contexts):
    with pytest.raises(Refused, match="masked heads"):
        importance(mask(model, [(0, 0)]), contexts)
    with torch.no_grad():
        model.value[1].mul_(1e300)
    with pytest.raises(Refused, match="overflow"):
        importance(model, contexts)
    single = Importance(torch.ones(1, 2), torch.ones(1, 1, 3, 2))
    with pytest.raises(Refused, match="no later one"):
        _ = single.top_later


@pytest.mark.parametrize("head", [(3, 0), (0, 3), (1, 1), (-1, 0)])
def test_heads_that_do_not_exist_are_refused(model, head):
    with pytest.raises(Refused, match="layers 0 to 2"):
        mask(model, [head])


def test_unknown_fills_are_refused(model):
    with pytest.raises(Refused, match="zero, mean"):
        mask(model, [], "noise")


def test_softmax_models_can_be_masked_too():
    model = build(Architecture(4, (2, 2), 3, 7, "softmax")).initialise((0,), 1.0).double()
    task = SparseLinear(d=4, s=2, n=9)
    contexts = draw(task, 3, "evaluate", 0, tokens=True)
    queries = draw_queries(task, 3, 2, "evaluate", 0)
    whole = model.predict(contexts, queries)
    none = mask(model, [(layer, head) for layer in (0, 1) for head in (0, 1)])
    embedded = queries @ model.embed[0, :-1] @ model.readout[0]
    assert torch.allclose(none.predict(contexts, queries)[0], embedded)
    assert not torch.allclose(whole[0], embedded)
