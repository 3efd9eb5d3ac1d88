"""Which heads matter: masking any set of them, and the importance of each."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import choose, require
from icl.risk import excess_risk, squared_error
from icl.transformer import LinearTransformer, Transformer

FILLS = ("zero", "mean")


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


@torch.no_grad()
def importance(model: LinearTransformer, contexts: Contexts, fill: str = "zero") -> Tensor:
    """How much masking each head raises the mean excess risk, (M, L, H), squared label units.

    Where layers have unequal numbers of heads, the missing entries are NaN.
    """
    counts = model.config.heads
    rise = torch.full((model.n_models, len(counts), max(counts)), torch.nan)
    full = excess_risk(model, contexts).mean(dim=-1)
    for layer, x in zip(range(len(counts)), model.hidden(contexts), strict=False):
        for head in range(counts[layer]):
            weights = mask(model, [(layer, head)], fill).finish(contexts, x, layer)
            rise[:, layer, head] = squared_error(weights, contexts).mean(dim=-1) - full
    return rise


def shares(rise: Tensor) -> Tensor:
    """Each head's share of its layer's importance, max(rise, 0) over its sum, (M, L, H).

    NaN for a layer none of whose heads raises the risk when masked.
    """
    positive = rise.clamp(min=0)
    return positive / positive.nansum(dim=-1, keepdim=True)


def entropy(share: Tensor) -> Tensor:
    """Normalised entropy of a layer's shares, (M, L): 0 for one head, 1 for equal heads."""
    count = share.isfinite().sum(dim=-1)
    nats = -torch.special.xlogy(share, share).nansum(dim=-1)
    return torch.where(count > 1, nats / count.clamp(min=2).log(), torch.nan)
