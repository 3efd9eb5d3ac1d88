"""Every model that ships, as data, and the training of many of them side by side."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from icl import checkpoints
from icl.errors import choose, require
from icl.tasks import SparseLinear
from icl.training import Configuration, Recipe, Trainer, train
from icl.transformer import Architecture

WORKHORSE = SparseLinear(d=8, s=2, n=32, noise=1.0, values="sphere")
FLAGSHIP = SparseLinear(d=16, s=2, n=48, noise=1.0, values="sphere")
SEEDS = (0, 1, 2, 3, 4)
TIMED_STEPS = 8  # per model, to say beforehand how long an experiment will take


@dataclass(frozen=True)
class Plan:
    """A model to train: a configuration and the training seeds it is repeated over."""

    config: Configuration
    seeds: tuple[int, ...] = SEEDS

    def adjusted(self, steps: int | None = None, seeds: tuple[int, ...] | None = None) -> "Plan":
        """The same with other steps or seeds; None keeps what there is."""
        recipe = replace(self.config.recipe, steps=steps or self.config.recipe.steps)
        return replace(self, config=replace(self.config, recipe=recipe), seeds=seeds or self.seeds)

    @property
    def about(self) -> str:
        """What it is, in a line."""
        task, model, recipe = self.config.task, self.config.architecture, self.config.recipe
        heads = "-".join(map(str, model.heads))
        decay = f", decay {recipe.weight_decay:g}" if recipe.weight_decay else ""
        inputs = ", preprocessed inputs" if model.inputs == "preprocessed" else ""
        return (
            f"{heads} heads of dimension {model.d_head}, d={task.d}, n={task.n}, "
            f"{recipe.optimiser}, {recipe.steps} steps{decay}{inputs}"
        )


def _workhorse(*heads: int, d_head: int = 9, inputs: str = "raw", n: int = 32, **recipe) -> Plan:
    model = Architecture(8, heads, d_head, 32, inputs=inputs)
    return Plan(Configuration(replace(WORKHORSE, n=n), model, Recipe(**recipe)))


def _flagship(*heads: int, inputs: str = "raw") -> Plan:
    model = Architecture(16, heads, 17, 64, inputs=inputs)
    return Plan(Configuration(FLAGSHIP, model, Recipe(steps=40_000, batch=64)))


MODELS = {
    "workhorse-3": _workhorse(8, 8, 8),
    "workhorse-5": _workhorse(8, 8, 8, 8, 8),
    "workhorse-3-decay": _workhorse(8, 8, 8, weight_decay=3e-4),
    "flagship": _flagship(8, 8, 8),
}
MODELS |= {f"heads-{h}-{depth}": _workhorse(*[h] * depth) for depth in (3, 5) for h in (1, 2, 4)}
MODELS |= {
    "heads-811": _workhorse(8, 1, 1),
    "heads-181": _workhorse(1, 8, 1),
    "heads-118": _workhorse(1, 1, 8),
    "flagship-1": _flagship(1, 1, 1),
    "flagship-811": _flagship(8, 1, 1),
}
LENGTHS = (16, 64, 128)  # context lengths n trained for, besides 32
MODELS |= {f"heads-{h}-n{n}": _workhorse(h, h, h, n=n) for n in LENGTHS for h in (1, 8)}
MODELS |= {
    "preprocessed-2": _workhorse(1, 1, inputs="preprocessed"),
    "preprocessed-3": _workhorse(1, 1, 1, inputs="preprocessed"),
    "preprocessed-5": _workhorse(1, 1, 1, 1, 1, inputs="preprocessed"),
    "flagship-preprocessed": _flagship(1, 1, 1, inputs="preprocessed"),
}

# When do later layers rely on one head? 4 heads per layer, one or more settings changed.
DECAYS = (0.0, 1e-4, 3e-4, 1e-3)
HEAD_DIMENSIONS = (4, 9)
DEPTHS = (2, 3)
LENGTHS_OF_TRAINING = (3_500, 14_000)
CONDITIONS = {
    f"decay-{decay:g}-k{k}-{depth}-{steps}": _workhorse(
        *[4] * depth, d_head=k, weight_decay=decay, steps=steps
    )
    for steps in LENGTHS_OF_TRAINING
    for depth in DEPTHS
    for k in HEAD_DIMENSIONS
    for decay in DECAYS
}
del CONDITIONS["decay-0-k9-3-14000"]  # is heads-4-3
MODELS |= CONDITIONS

_VARIED = tuple(f"heads-{h}-{depth}" for depth in (3, 5) for h in (1, 2, 4))
_ONE_LAYER = ("heads-811", "heads-181", "heads-118")
_OTHER_N = tuple(f"heads-{h}-n{n}" for n in LENGTHS for h in (1, 8))
_FULL = ("workhorse-3", "workhorse-5", "flagship")

# The models each chapter needs, which `icl train --experiment` trains.
EXPERIMENTS = {
    "varying-heads": (*_FULL, *_VARIED, *_ONE_LAYER, *_OTHER_N, "flagship-1", "flagship-811"),
    "head-utilization": (*_FULL, "workhorse-3-decay", "heads-4-3", *CONDITIONS),
    "pruning": (*_FULL, "workhorse-3-decay", "heads-1-3", "heads-1-5", "flagship-1"),
    "probing": (*_FULL, "heads-1-3", "heads-811", "flagship-811"),
    "preprocessing": (
        *_FULL,
        *("heads-1-3", "heads-1-5", "flagship-1"),
        *("preprocessed-2", "preprocessed-3", "preprocessed-5", "flagship-preprocessed"),
    ),
}


def train_model(name: str, plan: Plan, output: Path, device: str = "cpu") -> None:
    """Train the seeds of a plan that `output` does not have yet; resume what was cut."""
    job = Job(name, plan, output)
    if not job.missing:
        print(f"{name} is trained already: {output}")
        return
    with _bar(name, plan.config.recipe.steps) as bar:
        print(job.run(device, _follow(bar)))


def train_experiment(name: str, folder: Path = checkpoints.TRAINED, device: str = "cpu") -> None:
    """Train what is missing of an experiment's models, one process per core, longest first.

    A few steps of every model are timed first, to say how long the whole will take.
    """
    names = EXPERIMENTS[choose("experiment", name, EXPERIMENTS)]
    jobs = [Job(model, MODELS[model], folder / f"{model}.safetensors") for model in names]
    seconds = {job: job.seconds_left() for job in jobs if job.missing}
    print(f"{name}: {len(jobs) - len(seconds)} of {len(jobs)} models are trained already")
    if not seconds:
        return
    cores = os.cpu_count() or 1
    longest = max(*seconds.values(), sum(seconds.values()) / cores)
    print(f"training {len(seconds)} on {cores} cores: about {_clock(longest)}", flush=True)
    # Spawned: a forked child would inherit torch's threads in an unknown state.
    with ProcessPoolExecutor(cores, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        order = sorted(seconds, key=seconds.get, reverse=True)
        running = [pool.submit(job.run, device) for job in order]
        for finished in as_completed(running):
            print(finished.result(), flush=True)


@dataclass(frozen=True)
class Job:
    """A plan and the file its models go to."""

    name: str
    plan: Plan
    output: Path

    @property
    def missing(self) -> tuple[int, ...]:
        """The seeds that the file does not have yet."""
        if not self.output.exists():
            return self.plan.seeds
        done = checkpoints.load(self.output)
        require(
            done.config == self.plan.config,
            f"output={self.output}: holds another configuration; name another file with --output",
        )
        return tuple(seed for seed in self.plan.seeds if seed not in done.seeds)

    def run(self, device: str = "cpu", report: Callable | None = None) -> str:
        """Train the missing seeds, resuming what was cut, and add them to the file."""
        missing, state = self.missing, self.state
        trainer = train(self.plan.config, missing, state, device, report)
        checkpoint = checkpoints.finished(self.output.stem, trainer)
        if self.output.exists():
            checkpoint = checkpoints.join(checkpoints.load(self.output), checkpoint)
        checkpoints.save(checkpoint, self.output)
        state.unlink(missing_ok=True)
        risks = ", ".join(f"{risk:.4f}" for risk in checkpoint.risks[-len(missing) :])
        return (
            f"{self.name}: mean excess risk {risks} (seeds {', '.join(map(str, missing))}), "
            f"trained in {_clock(trainer.seconds)}: {self.output}"
        )

    def seconds_left(self) -> float:
        """How long the rest of the training will take on one thread, from a few timed steps."""
        trainer, steps = Trainer(self.plan.config, self.missing), self.plan.config.recipe.steps
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        seconds = []
        for _ in range(min(TIMED_STEPS, steps)):
            before = trainer.seconds
            trainer.advance()
            seconds.append(trainer.seconds - before)
        torch.set_num_threads(threads)
        done = 0
        if self.state.exists():
            with safe_open(self.state, framework="pt") as file:
                done = len(file.get_tensor("losses"))
        return median(seconds) * (steps - done)

    @property
    def state(self) -> Path:
        """Where a training that is cut continues from."""
        seeds = "-".join(map(str, self.missing))
        return self.output.with_name(f".{self.output.stem}-{self.plan.config.hash}-{seeds}.state")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def _bar(name: str, steps: int) -> tqdm:
    return tqdm(total=steps, desc=name, unit="step", dynamic_ncols=True, file=sys.stderr)


def _follow(bar: tqdm) -> Callable[[int, Tensor], None]:
    """Show every step on the bar, with the median risk of the last 100 steps' batches.

    A median, because single contexts can raise a batch's mean by orders of magnitude.
    """
    recent = deque(maxlen=100)

    def report(step: int, losses: Tensor) -> None:
        if not recent:  # a resumed run: its rate and time left count from here
            bar.initial = bar.n = step - 1
        recent.append(losses.median())
        bar.set_postfix(risk=f"{torch.stack(list(recent)).median():.4f}", refresh=False)
        bar.update(step - bar.n)

    return report
