"""Which heads matter: the importance of each, masking any set of them, and smaller models."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import choose, require
from icl.intervals import AVERAGES
from icl.threads import side_by_side
from icl.transformer import Transformer, build

FILLS = ("zero", "mean")
MASKED_AT_ONCE = 64  # contexts whose heads are masked at a time

# A choice of heads: for every layer, whether each model keeps each head, (M, H).
Kept = list[Tensor]


def mask(model: Transformer, kept: Kept) -> Transformer:
    """The model with all heads but the kept ones masked to zero; weights are shared."""
    _check(model, kept)
    masked = copy.copy(model)
    masked.gates = [keep.to(model.embed.weight) for keep in kept]
    return masked


def _check(model: Transformer, kept: Kept) -> None:
    shapes, wanted = [tuple(keep.shape) for keep in kept], [tuple(g.shape) for g in model.gates]
    require(shapes == wanted, f"kept of shapes {shapes}: a layer's is (models, heads), {wanted}")


@dataclass(frozen=True)
class Importance:
    """What masking each head does to the excess risk, in squared label units.

    full: (M, B) risk of the whole model in every context.
    masked: (M, L, H, B) risk with one head masked; NaN where a layer has fewer heads.
    average: over contexts, one of `intervals.AVERAGES`; `by` gives another one.

    Layers are counted from 0. A layer's shares are NaN if masking none of its heads raises
    the risk.
    """

    full: Tensor
    masked: Tensor
    average: str = "trimmed"

    def by(self, average: str) -> "Importance":
        """The same risks, averaged over contexts in another way."""
        return replace(self, average=choose("average", average, AVERAGES))

    def only(self, models: Tensor) -> "Importance":
        """The same of some models, by a mask (M,) or indices."""
        return replace(self, full=self.full[models], masked=self.masked[models])

    @property
    def rise(self) -> Tensor:
        """Rise of the average risk when a head is masked, (M, L, H)."""
        average = AVERAGES[self.average]
        return average(self.masked, dim=-1) - average(self.full, dim=-1)[:, None, None]

    @property
    def relative(self) -> Tensor:
        """The rise as a multiple of the whole model's risk, (M, L, H)."""
        return self.rise / AVERAGES[self.average](self.full, dim=-1)[:, None, None]

    @property
    def shares(self) -> Tensor:
        """A head's share of its layer's importance, max(rise, 0) over its sum, (M, L, H)."""
        positive = self.rise.clamp(min=0)
        return positive / positive.nansum(dim=-1, keepdim=True)

    @property
    def top_share(self) -> Tensor:
        """The largest share of every layer, (M, L)."""
        share = self.shares
        top = share.nan_to_num(-1).amax(dim=-1)
        return torch.where(top < 0, torch.nan, top)

    @property
    def entropy(self) -> Tensor:
        """Normalised entropy of a layer's shares, (M, L): 0 for one head, 1 for equal heads."""
        share = self.shares
        count = share.isfinite().sum(dim=-1)
        nats = -torch.special.xlogy(share, share).nansum(dim=-1)
        return torch.where(count > 1, nats / count.clamp(min=2).log(), torch.nan)


def least_first(found: Importance) -> Tensor:
    """By what factor (M,) the risk grows without the least important head of the first layer."""
    return 1 + found.relative[:, 0].nan_to_num(torch.inf).amin(dim=-1)


def top_later(found: Importance) -> dict[str, Tensor]:
    """Top share of every later layer, (M,); 0 where none of a layer's heads raises the risk."""
    return _later(found.top_share.nan_to_num(0.0))


def contrast(found: Importance) -> dict[str, Tensor]:
    """Entropy of the first layer minus that of every later one, (M,).

    Where none of a layer's heads raises the risk, the entropy is that which speaks against the
    claim: 0 of a first layer, 1 of a later one.
    """
    later = found.entropy.nan_to_num(1.0)
    return _later(found.entropy[:, :1].nan_to_num(0.0) - later)


def _later(values: Tensor) -> dict[str, Tensor]:
    """Columns (M,) of what layers have, (M, L), without the first."""
    require(values.shape[1] > 1, "1 layer: there is no later one")
    return {f"layer {i}": column for i, column in enumerate(values.unbind(dim=1)[1:], 2)}


@torch.no_grad()
def importance(model: Transformer, contexts: Contexts, fill: str = "zero") -> Importance:
    """Mask every head of a model in turn, on the same contexts.

    A masked head's output becomes zero or, with `fill="mean"`, its mean over the contexts, token
    by token. Linear attention on statistics has the d+1 basis inputs for tokens, so that is the
    mean of the linear map that a head applies; the mean of its output itself is always zero,
    because (x, y) → (−x, −y) flips the output and leaves the map alone.

    What a head adds to the hidden states is computed once and taken out again, so that
    only what comes after it runs anew.
    """
    choose("fill", fill, FILLS)
    require(model.whole, "a model with masked heads: allowed are whole ones")
    blocks = list(contexts.blocks(MASKED_AT_ONCE))
    means = _mean_added(model, blocks) if fill == "mean" else None
    found = side_by_side(lambda block: _without_each(model, block, means), blocks)
    return Importance(*(torch.cat(risks, dim=-1) for risks in zip(*found, strict=True)))


def _with_heads(model: Transformer, contexts: Contexts) -> Iterator[tuple[Tensor, Tensor]]:
    """By layer, states (M, B, T, D) with heads and before the MLP, and what each head added."""
    x = model.start(contexts)
    for layer, block in enumerate(model.blocks):
        added = model.added_by_heads(contexts, x, layer)
        after = x + added.sum(dim=2)
        yield after, added
        x = block.feed(after)


def _mean_added(model: Transformer, blocks: list[Contexts]) -> list[Tensor]:
    """What every head adds to the hidden states, mean over contexts, (M, 1, H, T, D) a layer."""
    totals = [0.0] * len(model.blocks)
    for block in blocks:
        for layer, (_, added) in enumerate(_with_heads(model, block)):
            totals[layer] = totals[layer] + added.sum(dim=1, keepdim=True)
    return [total / sum(map(len, blocks)) for total in totals]


def _without_each(
    model: Transformer, contexts: Contexts, means: list[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Risk of the whole model (M, B) and without each head in turn (M, L, H, B).

    A head's output is replaced by zero or, if given, by its mean.
    """
    counts = model.config.heads
    shape = (model.n_models, len(counts), max(counts), len(contexts))
    masked = model.embed.weight.new_full(shape, torch.nan)
    for layer, (after, added) in enumerate(_with_heads(model, contexts)):
        block = model.blocks[layer]
        if means:
            added = added - means[layer]
        for head in range(counts[layer]):
            without = block.feed(after - added[:, :, head])
            risk = model.risk_from(contexts, without, layer + 1)
            require(
                bool(risk.isfinite().all()),
                f"n={contexts.task.n}: risks without head ({layer}, {head}) overflow; "
                "use more examples per context",
            )
            masked[:, layer, head] = risk
    full = model.risk_from(contexts, block.feed(after), len(counts))
    return full, masked


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


def prune(model: Transformer, kept: Kept) -> Transformer:
    """A smaller model that has the kept heads only, and answers as the masked one does."""
    require(model.whole, "a model with masked heads: allowed are whole ones")
    _check(model, kept)
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
    models = torch.arange(model.n_models)[:, None]
    for layer, keep in enumerate(kept):
        index = keep.int().argsort(dim=1, descending=True, stable=True)[:, : heads[layer]]
        for name in ("query", "key", "value", "output"):
            whole = state[f"blocks.{layer}.{name}.weight"]
            by_head = whole if name == "output" else whole.movedim(2, 1)
            chosen = by_head[models, index]
            chosen = chosen if name == "output" else chosen.movedim(1, 2)
            state[f"blocks.{layer}.{name}.weight"] = chosen
    smaller.to(model.embed.weight.dtype).load_state_dict(state)
    return smaller.requires_grad_(False)
