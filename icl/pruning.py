"""Fewer heads: which to keep, models that are really smaller, and their fine-tuning."""

import copy
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from icl.checkpoints import load
from icl.configuration import Start
from icl.contexts import Contexts, draw
from icl.errors import require
from icl.heads import Importance, importance
from icl.risk import excess_risk
from icl.transformer import Architecture, LinearTransformer, Transformer, build

TUNING_CONTEXTS = 2048

# A choice of heads: for every layer, whether each model keeps each head, (M, H).
Kept = list[Tensor]


def most_important(importance: Importance, counts: tuple[int, ...]) -> Kept:
    """Keep the counts[l] heads of every layer l whose masking raises the risk most."""
    return _largest(rises(importance), counts)


def rises(importance: Importance) -> list[Tensor]:
    """The rise of the risk without each head, layer by layer, (M, H) each."""
    padded = importance.rise.unbind(dim=1)  # with NaN where a layer has fewer heads
    return [rise[:, ~rise.isnan().all(dim=0)] for rise in padded]


def random_heads(model: Transformer, counts: tuple[int, ...], seed: int) -> Kept:
    """Keep counts[l] heads of every layer l, drawn uniformly for every model."""
    rng = torch.Generator().manual_seed(seed)
    draws = [torch.rand(model.n_models, h, generator=rng) for h in model.config.heads]
    return _largest(draws, counts)


def _largest(scores: list[Tensor], counts: tuple[int, ...]) -> Kept:
    ranks = [score.argsort(dim=1, descending=True).argsort(dim=1) for score in scores]
    return [rank < count for rank, count in zip(ranks, counts, strict=True)]


def masked(model: Transformer, kept: Kept) -> Transformer:
    """The model with all heads but the kept ones masked to zero; weights are shared."""
    out = copy.copy(model)
    out.fill, out.gates = "zero", [keep.to(model.embed) for keep in kept]
    return out


def prune(model: Transformer, kept: Kept) -> Transformer:
    """A smaller model that has the kept heads only, and answers as the masked one does."""
    heads = []
    for layer, keep in enumerate(kept):
        counts = keep.sum(dim=1)
        require(
            bool((counts == counts[0]).all()) and counts[0] >= 1,
            f"layer {layer} keeps {counts.tolist()} heads: every model must keep as many, "
            "and at least one",
        )
        heads.append(int(counts[0]))
    smaller = build(replace(model.config, heads=tuple(heads)), model.n_models)
    state = model.state_dict()
    for layer, keep in enumerate(kept):
        index = keep.int().argsort(dim=1, descending=True, stable=True)[:, : heads[layer]]
        for name, axis in (("query", 2), ("key", 2), ("value", 2), ("output", 1)):
            whole = state[f"{name}.{layer}"]
            shape = [1] * whole.ndim
            shape[0], shape[axis] = index.shape
            target = list(whole.shape)
            target[axis] = heads[layer]
            state[f"{name}.{layer}"] = whole.gather(axis, index.view(shape).expand(target))
    smaller.to(model.embed.dtype).load_state_dict(state)
    return smaller.requires_grad_(False)


def pruned(start: Start, architecture: Architecture, seeds: tuple[int, ...]) -> Transformer:
    """The model a fine-tuning starts from: a shipped one, pruned to the architecture's heads.

    Importance is measured on contexts of stream `tune`, which judge no model.
    """
    base = load(start.model)
    if start.keep == "random":
        kept = random_heads(base.model, architecture.heads, seed=0)
    else:
        kept = most_important(tuned_importance(start.model), architecture.heads)
    chosen = base.only(seeds)
    rows = [base.seeds.index(seed) for seed in seeds]
    model = prune(chosen.model, [keep[rows] for keep in kept])
    require(
        model.config == architecture,
        f"model={start.model!r}: cannot be pruned to {architecture}",
    )
    return model


@cache
def tuned_importance(name: str) -> Importance:
    """Importance of a shipped model's heads on contexts of stream `tune`."""
    whole = load(name)
    contexts = draw(whole.config.task, TUNING_CONTEXTS, "tune", seed=0)
    return importance(whole.model, contexts)


@torch.no_grad()
def removal(model: LinearTransformer, scores: list[Tensor], contexts: Contexts) -> Tensor:
    """Risk after masking the k heads of lowest score, k = 0 to all of them, (K+1, M, B).

    scores: for every layer, a score per model and head, (M, H).
    """
    ranks = torch.cat(scores, dim=1).argsort(dim=1).argsort(dim=1)
    total = ranks.shape[1]
    kept = [(ranks >= k).split(list(model.config.heads), dim=1) for k in range(total + 1)]
    return torch.stack([excess_risk(masked(model, list(k)), contexts) for k in kept])
