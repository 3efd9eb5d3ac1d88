"""Training: all seeds of a configuration at once, resumable to the bit."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from glob import escape
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from icl.configuration import Configuration
from icl.contexts import draw, generator, stack
from icl.errors import Failed, Refused, require
from icl.predictors import excess_risk
from icl.recipe import Recipe
from icl.tasks import Task
from icl.transformer import Transformer

SAVE_EVERY = 20.0  # seconds of training that a kill can cost

# Weights along a training, coarsely rounded, by the number of steps taken.
Snapshots = dict[int, dict[str, Tensor]]


class Trainer:
    """M models of one configuration, one per seed, in training from the weights they come with.

    Model m sees the contexts of stream `train` and its own seed, so training it alone gives
    the same model up to rounding. `losses` is the history (steps, M) of batch excess risks.
    After every step in `keep`, empty at first, the weights join the `snapshots`, `coarse`.
    """

    def __init__(self, config: Configuration, seeds: tuple[int, ...], model: Transformer):
        require(
            len(seeds) > 0 and len(set(seeds)) == len(seeds),
            f"seeds={tuple(seeds)}: at least one seed is needed, and each only once",
        )
        require(
            model.config == config.architecture and model.n_models == len(seeds),
            f"{model.n_models} models of {model.config}: the configuration wants {len(seeds)} of "
            f"{config.architecture}",
        )
        self.config, self.seeds, self.model = config, tuple(seeds), model.requires_grad_(True)
        self.optimiser = _optimiser(config.recipe, model.ordered())
        self.step, self.seconds = 0, 0.0
        self.losses = torch.full((config.recipe.steps, len(seeds)), torch.nan)
        self.keep: tuple[int, ...] = ()
        self.snapshots: Snapshots = {}

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
        clip_per_model(self.model.ordered(), recipe.clip)
        self.optimiser.step()
        self.losses[self.step] = loss.detach().cpu()
        self.step += 1
        if self.step in self.keep:
            self.snapshots[self.step] = {k: coarse(v) for k, v in self.model.state_dict().items()}
        self.seconds += time.perf_counter() - started
        return self.losses[self.step - 1]

    def _loss(self) -> Tensor:
        task, batch = self._task(), self.config.recipe.batch
        queries = self.model.config.queries
        keys = [("train", seed, self.step) for seed in self.seeds]
        contexts = stack([draw(task, batch, *key, queries=queries) for key in keys])
        return excess_risk(self.model, contexts).mean(dim=-1)

    def _task(self) -> Task:
        """The task of this step: with a range of lengths, all models draw the same n."""
        if not self.config.recipe.lengths:
            return self.config.task
        low, high = self.config.recipe.lengths
        rng = generator("train", 0, self.step).spawn(2)[1]  # numbers no context is drawn from
        return replace(self.config.task, n=int(rng.integers(low, high, endpoint=True)))

    def save(self, path: Path) -> None:
        """Write the whole state; a kill at any instant leaves the old file or the new one."""
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, slots in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{i}.{name}": value for name, value in slots.items()}
        state |= packed(self.snapshots)
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
        parts = {"model": {}, "optimiser": {}, "snapshots": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if rest:
                parts[part][rest] = value
        self.model.load_state_dict(parts["model"])
        self.snapshots = unpacked(state)
        slots: dict[int, dict] = {}
        for name, value in parts["optimiser"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**whole, "state": slots})
        self.step = len(state["losses"])
        self.losses[: self.step] = state["losses"]
        self.seconds = state["seconds"].item()


def coarse(weights: Tensor) -> Tensor:
    """Weights (M, ...) in 128ths of the power of two above each model's largest, for small files.

    Through it the risks of finished models change by less than two per cent.
    """
    largest = weights.abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True)
    unit = 2.0 ** (largest.clamp(min=1e-9).log2().ceil() - 7)
    return (unit * (weights / unit).round()).half().cpu()


def packed(snapshots: Snapshots) -> dict[str, Tensor]:
    """Snapshots as the tensors of a file."""
    return {
        f"snapshots.{step}.{name}": value
        for step, weights in snapshots.items()
        for name, value in weights.items()
    }


def unpacked(tensors: dict[str, Tensor]) -> Snapshots:
    """The snapshots among the tensors of a file, in the order of their steps."""
    found: Snapshots = {}
    for key, value in tensors.items():
        part, step, name = [*key.split(".", 2), "", ""][:3]
        if part == "snapshots":
            found.setdefault(int(step), {})[name] = value
    return dict(sorted(found.items()))


def _optimiser(recipe: Recipe, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    shared = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.betas[0], **shared)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, betas=recipe.betas, **shared)


def train(
    trainer: Trainer,
    state: Path | None = None,
    report: Callable[[int, Tensor], None] | None = None,
) -> Trainer:
    """Train to the end. With `state`, resume from that file if it exists and keep it current.

    `report(step, losses)` is called after every step. An interrupted and resumed run ends
    with the same bits as an uninterrupted one on the same machine and number of threads.
    """
    if state and state.exists():
        trainer.restore(state)
    saved = time.monotonic()
    while trainer.step < trainer.config.recipe.steps:
        losses = trainer.advance()
        if report:
            report(trainer.step, losses)
        if state and time.monotonic() - saved > SAVE_EVERY:
            trainer.save(state)
            saved = time.monotonic()
    if state:
        trainer.save(state)
    return trainer


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    What processes of this machine that were killed have left of theirs is removed. Where nothing
    can be written, as on a full disk, `Failed` says so and what was there stays.
    """
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # a folder may be shared
    temporary = path.with_name(f".{path.name}.{machine}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.{machine}-*"):
            process = left.name.rpartition("-")[2]
            if process.isdecimal() and int(process) not in psutil.pids():
                left.unlink(missing_ok=True)
        temporary.touch()
        usual = temporary.stat().st_mode  # some libraries write files that only their owner reads
        write(temporary)
        temporary.chmod(usual)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise Failed(f"{path}: cannot be written ({error})") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@torch.no_grad()
def clip_per_model(parameters: list[Tensor], limit: float) -> None:
    """Scale each model's gradient to a norm of at most `limit`, over all its parameters."""
    grads = [p.grad.flatten(1) for p in parameters]
    norm = torch.stack([g.square().sum(dim=1) for g in grads]).sum(dim=0).sqrt()
    scale = (limit / norm).clamp(max=1)
    for g in grads:
        g.mul_(scale[:, None])
