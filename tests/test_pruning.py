"""Pruned models: really smaller, equal to the masked ones, and pruned where it was said."""

import pytest
import torch

from icl.contexts import draw
from icl.errors import Refused
from icl.heads import importance, mask
from icl.pruning import masked, most_important, prune, random_heads, removal
from icl.risk import excess_risk

HEADS = (3, 1, 2)


@pytest.fixture
def model(model):
    return model.requires_grad_(False)


@pytest.fixture
def contexts(task):
    return draw(task, 40, "tune", seed=0)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 1, 2), (3, 1, 1), (3, 1, 2)])
def test_a_pruned_model_is_smaller_and_answers_as_the_masked_one(model, contexts, counts):
    kept = most_important(importance(model, contexts), counts)
    smaller = prune(model, kept)
    assert smaller.config.heads == counts
    count = sum(p.numel() for p in smaller.parameters())
    per_head = 4 * model.config.d_model * model.config.d_head * model.n_models
    whole = sum(p.numel() for p in model.parameters())
    assert count == whole - (sum(HEADS) - sum(counts)) * per_head
    expected = masked(model, kept).weights(contexts)
    assert torch.allclose(smaller.weights(contexts), expected, rtol=1e-10)


def test_each_model_loses_its_own_heads(model, contexts):
    found = importance(model, contexts)
    kept = most_important(found, (1, 1, 1))
    for m in range(2):
        top = [int(found.rise[m, layer, :h].argmax()) for layer, h in enumerate(HEADS)]
        assert [keep[m].tolist().index(True) for keep in kept] == top
        others = [(la, h) for la, n in enumerate(HEADS) for h in range(n) if h != top[la]]
        alone = mask(model, others).weights(contexts)[m]
        assert torch.allclose(masked(model, kept).weights(contexts)[m], alone)


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


def test_removal_masks_the_lowest_scores_first(model, contexts):
    scores = [
        torch.tensor([[5.0, 1.0, 4.0], [1.0, 2.0, 3.0]]),
        torch.tensor([[2.0], [6.0]]),
        torch.tensor([[6.0, 3.0], [5.0, 4.0]]),
    ]
    risks = removal(model, scores, contexts)
    assert risks.shape == (7, 2, 40)
    order = [[(0, 1), (1, 0), (2, 1), (0, 2), (0, 0), (2, 0)],
             [(0, 0), (0, 1), (0, 2), (2, 1), (2, 0), (1, 0)]]  # fmt: skip
    for m, heads in enumerate(order):
        for k in range(7):
            expected = excess_risk(mask(model, heads[:k]), contexts)[m]
            assert torch.allclose(risks[k, m], expected)
