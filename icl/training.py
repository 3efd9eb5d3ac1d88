"""Training: all seeds of a configuration at once, resumable to the bit."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from icl.contexts import draw, draw_queries, stack
from icl.errors import Failed, Refused, choose, require
from icl.predictors import LinearPredictor
from icl.risk import excess_risk
from icl.tasks import SparseLinear
from icl.transformer import Architecture, build

QUERIES = 16  # per context, for models whose query expectation has no closed form
SAVE_EVERY = 20.0  # seconds of training that a kill can cost
OPTIMISERS = ("adam", "adamw", "sgd")


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
class Configuration:
    """Everything that determines a trained model but its seed."""

    task: SparseLinear = field(default_factory=SparseLinear)
    architecture: Architecture = field(default_factory=Architecture)
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self):
        require(
            self.task.d == self.architecture.d,
            f"d={self.architecture.d} of the architecture: the task has d={self.task.d}",
        )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> "Configuration":
        parts = {"task": SparseLinear, "architecture": Architecture, "recipe": Recipe}
        return cls(**{name: kind(**data[name]) for name, kind in parts.items()})

    @property
    def hash(self) -> str:
        """Twelve hex digits that name this configuration.

        Only what differs from the defaults is hashed: a new setting whose default changes
        nothing leaves the names of earlier runs alone.
        """
        usual = Configuration().to_dict()
        unusual = {
            part: {name: value for name, value in given.items() if value != usual[part][name]}
            for part, given in self.to_dict().items()
        }
        text = json.dumps(unusual, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Trainer:
    """M models of one configuration, one per seed, in training.

    Model m sees the contexts of stream `train` and its own seed, so training it alone gives
    the same model up to rounding. `losses` is the history (steps, M) of batch excess risks.
    """

    def __init__(self, config: Configuration, seeds: tuple[int, ...], device: str = "cpu"):
        require(
            len(seeds) > 0 and len(set(seeds)) == len(seeds),
            f"seeds={tuple(seeds)}: at least one seed is needed, and each only once",
        )
        self.config, self.seeds = config, tuple(seeds)
        recipe = config.recipe
        self.model = build(config.architecture, len(seeds)).initialise(seeds, recipe.init_scale)
        self.model.to(device)
        self.optimiser = _optimiser(recipe, self.model.parameters())
        self.step, self.seconds = 0, 0.0
        self.losses = torch.full((recipe.steps, len(seeds)), torch.nan)

    def advance(self) -> Tensor:
        """Take one step; return the excess risk (M,) of its batches, before the step."""
        started = time.perf_counter()
        recipe = self.config.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate(self.step)
        self.optimiser.zero_grad()
        loss = self._loss()
        if not loss.isfinite().all():
            bad = [seed for seed, x in zip(self.seeds, loss, strict=True) if not x.isfinite()]
            raise Failed(
                f"step {self.step}: the loss of seeds {bad} is not finite; lower lr={recipe.lr}"
            )
        loss.sum().backward()  # the models share no weights: each gets its own gradient
        clip_per_model(list(self.model.parameters()), recipe.clip)
        self.optimiser.step()
        self.losses[self.step] = loss.detach().cpu()
        self.step += 1
        self.seconds += time.perf_counter() - started
        return self.losses[self.step - 1]

    def _loss(self) -> Tensor:
        task, batch = self.config.task, self.config.recipe.batch
        linear = isinstance(self.model, LinearPredictor)
        keys = [("train", seed, self.step) for seed in self.seeds]
        contexts = stack([draw(task, batch, *key, tokens=not linear) for key in keys])
        queries = None
        if not linear:
            queries = torch.stack([draw_queries(task, batch, QUERIES, *key) for key in keys])
        return excess_risk(self.model, contexts, queries).mean(dim=-1)

    def save(self, path: Path) -> None:
        """Write the whole state; a kill at any instant leaves the old file or the new one."""
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, slots in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{i}.{name}": value for name, value in slots.items()}
        state["losses"] = self.losses[: self.step].clone()
        about = {"hash": self.config.hash, "seeds": json.dumps(self.seeds)}
        state["seconds"] = torch.tensor(self.seconds, dtype=torch.float64)
        write_atomically(path, lambda tmp: save_file(state, tmp, about))

    def restore(self, path: Path) -> None:
        """Continue from a file that `save` wrote for the same configuration and seeds."""
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise Refused(f"{path}: damaged; delete it to start anew ({error})") from None
        require(
            about == {"hash": self.config.hash, "seeds": json.dumps(self.seeds)},
            f"{path}: the state of another training; delete it to start anew",
        )
        parts = {"model": {}, "optimiser": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if rest:
                parts[part][rest] = value
        self.model.load_state_dict(parts["model"])
        slots: dict[int, dict] = {}
        for name, value in parts["optimiser"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**whole, "state": slots})
        self.step = len(state["losses"])
        self.losses[: self.step] = state["losses"]
        self.seconds = state["seconds"].item()


def _optimiser(recipe: Recipe, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    shared = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.betas[0], **shared)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, betas=recipe.betas, **shared)


def train(
    config: Configuration,
    seeds: tuple[int, ...],
    state: Path | None = None,
    device: str = "cpu",
    report: Callable[[int, Tensor], None] | None = None,
) -> Trainer:
    """Train to the end. With `state`, resume from that file if it exists and keep it current.

    `report(step, losses)` is called after every step. An interrupted and resumed run ends
    with the same bits as an uninterrupted one on the same machine and number of threads.
    """
    trainer = Trainer(config, seeds, device)
    if state and state.exists():
        trainer.restore(state)
    saved = time.monotonic()
    while trainer.step < config.recipe.steps:
        losses = trainer.advance()
        if report:
            report(trainer.step, losses)
        if state and time.monotonic() - saved > SAVE_EVERY:
            trainer.save(state)
            saved = time.monotonic()
    if state:
        trainer.save(state)
    return trainer


@torch.no_grad()
def clip_per_model(parameters: list[Tensor], limit: float) -> None:
    """Scale each model's gradient to a norm of at most `limit`, over all its parameters."""
    grads = [p.grad.flatten(1) for p in parameters]
    norm = torch.stack([g.square().sum(dim=1) for g in grads]).sum(dim=0).sqrt()
    scale = (limit / norm).clamp(max=1)
    for g in grads:
        g.mul_(scale[:, None])


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    os.replace(temporary, path)
