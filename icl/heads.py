"""Which heads matter: masking any set of them, and the importance of each."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import choose, require
from icl.risk import AVERAGES, excess_risk, squared_error
from icl.transformer import LinearTransformer, Transformer

FILLS = ("zero", "mean")
BLOCK = 64  # contexts at a time: arrays that stay near the processor


def mask(model: Transformer, heads: Iterable[tuple[int, int]], fill: str = "zero") -> Transformer:
    """The model with the given (layer, head) pairs masked, counted from 0; weights are shared.

    A masked head's output becomes zero or, with `fill="mean"`, its mean over the batch of
    contexts. For linear attention on statistics that is the mean of the linear map a head
    applies to its token: (x, y) → (−x, −y) leaves that map alone and flips the head's
    output, so the mean of the output itself is always zero.
    """
    masked = copy.copy(model)
    masked.fill = choose("fill", fill, FILLS)
    masked.gates = [gate.clone() for gate in model.gates]
    counts = model.config.heads
    for layer, head in heads:
        require(
            0 <= layer < len(counts) and 0 <= head < counts[layer],
            f"head ({layer}, {head}): layers 0 to {len(counts) - 1} have {counts} heads",
        )
        masked.gates[layer][:, head] = 0
    return masked


@dataclass(frozen=True)
class Importance:
    """What masking each head does to the excess risk, in squared label units.

    full: (M, B) risk of the whole model in every context.
    masked: (M, L, H, B) risk with one head masked; NaN where a layer has fewer heads.
    average: over contexts, `mean` or `median`; `by` gives the other one.

    Layers are counted from 0. A layer's shares are NaN if masking none of its heads raises
    the risk.
    """

    full: Tensor
    masked: Tensor
    average: str = "mean"

    def by(self, average: str) -> "Importance":
        """The same risks, averaged over contexts in another way."""
        return replace(self, average=choose("average", average, AVERAGES))

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

    @property
    def smallest_first(self) -> Tensor:
        """Relative rise for the least important head of the first layer, (M,)."""
        return self.relative[:, 0].nan_to_num(torch.inf).amin(dim=-1)

    @property
    def top_later(self) -> Tensor:
        """Top share in the later layer where it is smallest, (M,)."""
        require(self.rise.shape[1] > 1, "1 layer: there is no later one")
        return self.top_share[:, 1:].amin(dim=-1)

    @property
    def contrast(self) -> Tensor:
        """Entropy of the first layer minus the mean entropy of the later ones, (M,)."""
        return self.entropy[:, 0] - self.entropy[:, 1:].mean(dim=-1)


@torch.no_grad()
def importance(model: LinearTransformer, contexts: Contexts, fill: str = "zero") -> Importance:
    """Mask every head of a model in turn, on the same contexts, as `mask` would.

    What a head adds to the hidden states is computed once and taken out again, so that
    only the layers after it run anew.
    """
    choose("fill", fill, FILLS)
    require(all(gate.all() for gate in model.gates), "a model with masked heads: unmask it first")
    blocks = [contexts[i : i + BLOCK] for i in range(0, len(contexts), BLOCK)]
    means = _mean_added(model, blocks) if fill == "mean" else None
    found = [_without_each(model, block, means) for block in blocks]
    return Importance(*(torch.cat(risks, dim=-1) for risks in zip(*found, strict=True)))


def _mean_added(model: LinearTransformer, blocks: list[Contexts]) -> list[Tensor]:
    """What every head adds to the hidden states, mean over contexts, (M, 1, H, d+1, D) a layer."""
    totals = [0.0] * len(model.config.heads)
    for block in blocks:
        for layer, x in zip(range(len(totals)), model.hidden(block), strict=False):
            added = model.added_by_heads(block, x, layer)
            totals[layer] = totals[layer] + added.sum(dim=1, keepdim=True)
    return [total / sum(map(len, blocks)) for total in totals]


def _without_each(
    model: LinearTransformer, contexts: Contexts, means: list[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Risk of the whole model (M, B) and without each head in turn (M, L, H, B).

    A head's output is replaced by zero or, if given, by its mean.
    """
    counts = model.config.heads
    full = excess_risk(model, contexts)
    shape = (model.n_models, len(counts), max(counts), len(contexts))
    masked = full.new_full(shape, torch.nan)
    for layer, x in zip(range(len(counts)), model.hidden(contexts), strict=False):
        added = model.added_by_heads(contexts, x, layer)
        after = x + added.sum(dim=2)
        if means:
            added = added - means[layer]
        for head in range(counts[layer]):
            weights = model.finish(contexts, after - added[:, :, head], layer + 1)
            risk = squared_error(weights, contexts)
            require(
                bool(risk.isfinite().all()),
                f"n={contexts.task.n}: risks without head ({layer}, {head}) overflow; "
                "use more examples per context",
            )
            masked[:, layer, head] = risk
    return full, masked
