"""Training what is missing of the models in `sweeps`, one or many side by side."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from icl import checkpoints, provenance
from icl.errors import Failed, choose, require
from icl.sweeps import EXPERIMENTS, MODELS, Plan
from icl.training import Trainer, train

TIMED_STEPS = 8  # per model, to say beforehand how long an experiment will take


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
    order = sorted(seconds, key=seconds.get, reverse=True)
    # Spawned: a forked child would inherit torch's threads in an unknown state.
    with get_context("spawn").Pool(cores, _begin_worker) as pool:  # an interrupt ends them all
        outcomes = pool.imap_unordered(partial(_outcome, device=device), order)
        failed = 0
        for trained, line in outcomes:
            print(line, flush=True)
            failed += not trained
    if failed:
        raise Failed(f"{failed} of {len(order)} models failed; the others are trained")


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers an interrupt
    torch.set_num_threads(1)


def _outcome(job: "Job", device: str) -> tuple[bool, str]:
    """Run a job: whether it trained, and a line about it. One failure must not stop the rest."""
    try:
        return True, job.run(device)
    except Failed as error:
        return False, f"{job.name}: {error}"


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
        checkpoint = provenance.finished(self.output.stem, trainer)
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
