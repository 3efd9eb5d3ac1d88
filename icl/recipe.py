"""How a model is trained, as immutable data."""

import math
from dataclasses import dataclass

import torch

from icl.errors import choose, real, require, several, whole

OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
MOST_STEPS = 10**8  # the loss of every step is kept
# Settings that are real numbers, and what they may be.
REALS = {
    "lr": "(0, inf)",
    "warmup": "[0, 1)",
    "weight_decay": "[0, inf)",
    "clip": "(0, inf)",
    "init_scale": "(0, inf)",
}
PRECISIONS = {"single": torch.float32, "double": torch.float64}


@dataclass(frozen=True)
class Recipe:
    """How to train: warm-up, cosine decay of the rate to zero, gradients clipped per model.

    `weight_decay` is added to the gradient by `adam` (coupled L2) and `sgd`; `adamw` shrinks
    the weights instead. `sgd` has betas[0] for its momentum. `warmup` is a fraction of the
    steps. `init_scale` s starts every weight at N(0, s²/fan_in). `lengths` (low, high) draws
    the number of examples of every batch uniformly from that range; () takes the task's.
    `precision` is that of weights and losses in training: deep models with few heads meet contexts
    whose loss is beyond single precision.
    """

    steps: int = 14_000
    batch: int = 192
    lr: float = 2e-3
    warmup: float = 0.05
    optimiser: str = "adam"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    init_scale: float = 0.3
    lengths: tuple[int, ...] = ()
    precision: str = "single"

    def __post_init__(self):
        for name, allowed in REALS.items():
            real(name, getattr(self, name), allowed)
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0: one hash
        for beta in several("betas", self.betas):
            real("betas", beta, "[0, 1)")
        object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        object.__setattr__(self, "lengths", several("lengths", self.lengths))
        choose("optimiser", self.optimiser, OPTIMISERS)
        choose("precision", self.precision, PRECISIONS)
        whole("steps", self.steps, 1, MOST_STEPS)
        whole("batch", self.batch)
        require(len(self.betas) == 2, f"betas={self.betas}: allowed are two numbers")
        for length in self.lengths:
            whole("lengths", length)
        require(
            not self.lengths or (len(self.lengths) == 2 and self.lengths[0] <= self.lengths[1]),
            f"lengths={self.lengths}: allowed are () and (low, high) with low <= high",
        )

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): up linearly, then down a cosine to zero."""
        warmup = self.warmup * self.steps
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (self.steps - warmup)))

    def words(self) -> list[str]:
        """What sets it apart from the usual recipe that is nearest to it."""
        words = {
            "lr": f"rate {self.lr:g}",
            "weight_decay": f"decay {self.weight_decay:g}",
            "init_scale": f"initial scale {self.init_scale:g}",
            "steps": f"{self.steps} steps",
            "batch": f"batches of {self.batch}",
            "warmup": f"warm-up {self.warmup:g}",
            "betas": "betas {:g} and {:g}".format(*self.betas),
            "clip": f"gradients clipped at {self.clip:g}",
            "lengths": "trained at n = " + " to ".join(map(str, self.lengths)),
            "precision": f"{self.precision} precision",
        }
        kin = [usual for usual in USUAL.values() if usual.optimiser in ("adam", self.optimiser)]
        unlike = (
            [text for name, text in words.items() if getattr(self, name) != getattr(usual, name)]
            for usual in kin
        )
        optimiser = [] if self.optimiser == "adam" else [OPTIMISERS[self.optimiser]]
        return optimiser + min(unlike, key=len)


# What the book usually trains with; a label says in what a recipe differs.
USUAL = {
    "workhorse": Recipe(),
    "flagship": Recipe(steps=40_000, batch=64),
    "single": Recipe(steps=3_000, batch=256, lr=5e-3, init_scale=1.0),
    "sgd": Recipe(optimiser="sgd", lr=0.1, init_scale=0.6),
    "split": Recipe(steps=3_000, batch=64),
    "plain": Recipe(6_000, 32, 1e-3, init_scale=1.0),
    "practical": Recipe(
        6_000, 32, 1e-3, optimiser="adamw", weight_decay=0.1, init_scale=1.0, lengths=(16, 48)
    ),
}
