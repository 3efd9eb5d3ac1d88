"""Task, model and the collapse: the two ways to an answer, and to a Gram matrix, compared live."""

from dataclasses import dataclass

import torch
from torch import Tensor

from icl import figures, tables
from icl.architecture import Architecture
from icl.contexts import check, draw
from icl.errors import Failed, whole
from icl.tasks import SparseLinear
from icl.transformer import build

PLANS, CLAIMS = {}, ()

ROUNDING = 1e-10  # how far two equal paths may be apart in float64
NUMBERS = 4_000_000  # drawn at most for the moments
MOMENTS = {"mean": torch.mean, "variance": torch.var}


def gap(first: Tensor, second: Tensor) -> float:
    """Largest difference of two tensors, relative to the largest entry of the first."""
    return ((first - second).abs().max() / first.abs().max()).item()


@dataclass(frozen=True)
class Result:
    """The gap between answers (M, B, q) on tokens and on statistics, and Gram matrices.

    direct, counted: (B, d+1, d+1), drawn from their distribution and computed from drawn tokens.
    """

    gap: float
    answers: int
    direct: Tensor
    counted: Tensor

    @property
    def finding(self) -> tables.Text:
        """How far the two paths are apart."""
        return tables.Text(
            f"**Tokens are not needed.** Answered token by token and from the Gram matrix alone, "
            f"{self.answers} answers differ by {self.gap:.0e} of the largest, at most."
        )

    def plot_moments(self) -> None:
        """Mean and variance of every entry of the Gram matrix, one way against the other."""
        _, panels = figures.subplots(1, 2, figsize=(figures.WIDTH, 3.4))
        for axes, name in zip(panels, MOMENTS, strict=True):
            x, y = (MOMENTS[name](gram, dim=0).flatten() for gram in (self.counted, self.direct))
            axes.axline((float(x.mean()),) * 2, slope=1, color="0.6", linewidth=1)
            axes.plot(x, y, "o", markersize=5, alpha=0.7)
            axes.set(title=name, xlabel="from tokens")
        panels[0].set_ylabel("drawn directly")


def run(contexts: int, examples: int, features: int, nonzero: int, seed: int) -> Result:
    """Let a random model of three layers answer four queries in each of so many contexts."""
    check(contexts, seed, 1)
    whole("features", features, 1, 64)
    whole("nonzero", nonzero, 1, features)
    whole("examples", examples, features, 10_000)  # with fewer, G is not drawn directly
    task = SparseLinear(d=features, s=nonzero, n=examples, values="sphere")
    batch = draw(task, contexts, "evaluate", seed, queries=4)
    config = Architecture(features, heads=(3, 1, 4), d_head=features + 1, d_model=3 * features)
    model = build(config).initialise((seed,), scale=1.0).double()
    by_tokens = model.on_tokens().predict(batch)
    found = gap(by_tokens, model.predict(batch))
    if not found < ROUNDING:
        raise Failed(f"the two paths differ by {found:.1e}")
    many = max(100, min(20_000, NUMBERS // (examples * features)))
    return Result(
        found,
        by_tokens.numel(),
        direct=draw(task, many, "evaluate", seed).gram,
        counted=draw(task, many, "evaluate", seed + 1, queries=1).gram,
    )
