"""Everything that determines a trained model but its seed, as immutable data."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field

from icl.contexts import Task
from icl.errors import choose, require
from icl.responses import Nonlinear
from icl.tasks import SparseLinear
from icl.transformer import Architecture

OPTIMISERS = ("adam", "adamw", "sgd")
CHOICES = ("importance", "random")


@dataclass(frozen=True)
class Recipe:
    """How to train: warm-up, cosine decay of the rate to zero, gradients clipped per model.

    `weight_decay` is added to the gradient by `adam` (coupled L2) and `sgd`; `adamw` shrinks
    the weights instead. `sgd` has betas[0] for its momentum. `warmup` is a fraction of the
    steps. `init_scale` s starts every weight at N(0, s²/fan_in).
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

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))
        choose("optimiser", self.optimiser, OPTIMISERS)
        require(self.steps >= 1, f"steps={self.steps}: at least one step is needed")
        require(self.batch >= 1, f"batch={self.batch}: at least one context is needed")
        require(0 <= self.warmup < 1, f"warmup={self.warmup}: a fraction in [0, 1) is needed")
        for name in ("lr", "clip", "init_scale"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)}: must be above 0")

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): up linearly, then down a cosine to zero."""
        warmup = self.warmup * self.steps
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (self.steps - warmup)))


@dataclass(frozen=True)
class Start:
    """Where a fine-tuning starts: from a shipped `model` whose heads were pruned.

    Every layer keeps as many heads as the architecture to be trained has: its most important
    ones, or random ones.
    """

    model: str
    keep: str = "importance"

    def __post_init__(self):
        choose("keep", self.keep, CHOICES)


@dataclass(frozen=True)
class Configuration:
    """Everything that determines a trained model but its seed.

    Training starts from drawn weights, or where `start` says.
    """

    task: Task = field(default_factory=SparseLinear)
    architecture: Architecture = field(default_factory=Architecture)
    recipe: Recipe = field(default_factory=Recipe)
    start: Start | None = None

    def __post_init__(self):
        require(
            self.task.d == self.architecture.d,
            f"d={self.architecture.d} of the architecture: the task has d={self.task.d}",
        )
        require(
            isinstance(self.task, SparseLinear) or self.architecture.attention == "linear",
            f"attention={self.architecture.attention!r}: nonlinear responses allow linear only, "
            "because their excess risk is that of a linear answer",
        )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> "Configuration":
        parts = {
            "task": Nonlinear if "family" in data["task"] else SparseLinear,
            "architecture": Architecture,
            "recipe": Recipe,
            "start": Start,
        }
        return cls(**{name: parts[name](**given) for name, given in data.items() if given})

    @property
    def hash(self) -> str:
        """Twelve hex digits that name this configuration.

        Only what differs from the defaults is hashed: a new setting whose default changes
        nothing leaves the names of earlier runs alone.
        """
        usual = Configuration().to_dict()
        unusual = {
            part: {k: v for k, v in given.items() if not usual[part] or v != usual[part].get(k)}
            for part, given in self.to_dict().items()
            if given
        }
        text = json.dumps(unusual, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
