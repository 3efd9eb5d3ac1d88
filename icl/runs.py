"""Training what is missing of planned models, here or on a cluster, and replaying what ships."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from multiprocessing import active_children, get_context
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from icl.checkpoints import Checkpoint, finished, join, load, recorded_risk, save
from icl.configuration import Configuration, Plan, Start
from icl.contexts import draw
from icl.errors import Failed, Refused, require
from icl.heads import Importance, importance, most_important, prune, random_heads
from icl.training import Trainer, fresh, train
from icl.transformer import Architecture, Transformer

TIMED_STEPS = 8  # per model, to say beforehand how long all will take
TUNING_CONTEXTS = 2048  # that heads are chosen on
REPLAY_TOLERANCE = 2e-3  # relative: float32 on another machine or thread count
RISK_TOLERANCE = 1e-4  # relative


def begin(config: Configuration, seeds: tuple[int, ...], device: str = "cpu") -> Trainer:
    """A training at its first step: from drawn weights or, for a fine-tuning, pruned ones."""
    start = config.start
    model = pruned(start, config.architecture, seeds) if start else fresh(config, seeds)
    return Trainer(config, seeds, model.to(device))


def pruned(start: Start, architecture: Architecture, seeds: tuple[int, ...]) -> Transformer:
    """The model a fine-tuning starts from: a shipped one, pruned to the architecture's heads.

    Importance is measured on contexts of stream `tune`, which judge no model.
    """
    base = load(start.model)
    require(
        base.config.hash == start.hash,
        f"model={start.model!r}: has the configuration {base.config.hash}; this fine-tuning "
        f"starts from {start.hash}",
    )
    if start.keep == "random":
        kept = random_heads(base.model, architecture.heads, seed=0)
    else:
        kept = most_important(tuned_importance(start.model), architecture.heads)
    chosen = base.only(seeds)
    rows = [base.seeds.index(seed) for seed in seeds]
    model = prune(chosen.model, [keep[rows] for keep in kept])
    impossible = f"model={start.model!r}: cannot be pruned to {architecture}"
    require(model.config == architecture, impossible)
    return model


@cache
def tuned_importance(name: str) -> Importance:
    """Importance of a shipped model's heads on contexts of stream `tune`."""
    whole = load(name)
    queries = whole.config.architecture.queries
    contexts = draw(whole.config.task, TUNING_CONTEXTS, "tune", seed=0, queries=queries)
    return importance(whole.model, contexts)


@dataclass(frozen=True)
class Job:
    """A plan and the file its models go to."""

    plan: Plan
    output: Path

    @property
    def name(self) -> str:
        return self.output.stem

    @property
    def missing(self) -> tuple[int, ...]:
        """The seeds that the file does not have yet."""
        if not self.output.exists():
            return self.plan.seeds
        done = load(self.output)
        require(
            done.config == self.plan.config,
            f"output={self.output}: holds another configuration; name another file with --output",
        )
        return tuple(seed for seed in self.plan.seeds if seed not in done.seeds)

    def run(self, device: str = "cpu", report: Callable | None = None) -> Checkpoint:
        """Train the missing seeds, resuming what was cut."""
        trainer = train(begin(self.plan.config, self.missing, device), self.state, report)
        return finished(self.name, trainer)

    def store(self, trained: Checkpoint) -> str:
        """Add newly trained seeds to the file, and say so in a line."""
        whole = join(load(self.output), trained) if self.output.exists() else trained
        state = self.state
        save(whole, self.output)
        state.unlink(missing_ok=True)
        risks = ", ".join(f"{risk:.4f}" for risk in trained.risks)
        return (
            f"{self.name}: mean excess risk {risks} (seeds {', '.join(map(str, trained.seeds))}), "
            f"trained in {_clock(trained.seconds)}: {self.output}"
        )

    def seconds_left(self) -> float:
        """How long the rest of the training will take on one thread, from a few timed steps."""
        trainer, steps = begin(self.plan.config, self.missing), self.plan.config.recipe.steps
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
        return self.output.with_name(f".{self.name}-{self.plan.config.hash}-{seeds}.state")


def train_model(plan: Plan, output: Path, device: str = "cpu") -> None:
    """Train the seeds of a plan that `output` does not have yet; resume what was cut."""
    job = Job(plan, output)
    if not job.missing:
        print(f"{job.name} is trained already: {output}")
        return
    steps = plan.config.recipe.steps
    with tqdm(total=steps, desc=job.name, unit="step", dynamic_ncols=True, file=sys.stderr) as bar:
        print(job.store(job.run(device, _follow(bar))))


def train_all(
    plans: dict[str, Plan], folder: Path, device: str = "cpu", executor: Executor | None = None
) -> None:
    """Train what is missing of the named plans into `folder`, longest first.

    By default on this machine, one process per core. Any other `concurrent.futures` executor
    will do, such as that of a Dask cluster, `Client.get_executor()`: its workers train, and send
    what they trained back here. A few steps of every model are timed first.
    """
    jobs = [Job(plan, folder / f"{name}.safetensors") for name, plan in plans.items()]
    seconds = {job: job.seconds_left() for job in jobs if job.missing}
    print(f"{len(jobs) - len(seconds)} of {len(jobs)} models are trained already")
    if not seconds:
        return
    order = sorted(seconds, key=seconds.get, reverse=True)
    at_once = len(order) if executor else os.cpu_count() or 1
    longest = max(*seconds.values(), sum(seconds.values()) / at_once)
    where = "the given executor" if executor else f"{at_once} cores"
    print(f"training {len(order)} on {where}: about {_clock(longest)}", flush=True)
    with nullcontext(executor) if executor else _processes(min(at_once, len(order))) as workers:
        running = {workers.submit(job.run, device): job for job in order}
        failed = sum(not _collect(done, running[done]) for done in as_completed(running))
    if failed:
        raise Failed(f"{failed} of {len(order)} models failed; the others are trained")


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """Processes of one thread each; an interrupt ends them all at once."""
    # Spawned: a forked child would inherit torch's threads in an unknown state.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(count, spawn, torch.set_num_threads, (1,)) as workers:
        heed = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as they will, from their start
        for _ in range(count):
            workers.submit(int)  # starts one
        signal.signal(signal.SIGINT, heed)
        try:
            yield workers
        except KeyboardInterrupt:
            workers.shutdown(wait=False, cancel_futures=True)
            for child in active_children():
                child.terminate()
            raise


def _collect(done: Future, job: Job) -> bool:
    """Store what a job trained; say how it went. One failure must not stop the rest."""
    try:
        print(job.store(done.result()), flush=True)
    except (Failed, Refused, BrokenExecutor) as error:
        print(f"{job.name}: {error}", flush=True)
        return False
    return True


@dataclass(frozen=True)
class Check:
    """One recorded quantity against its recomputation: the largest relative difference."""

    what: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


def verify(checkpoint: Checkpoint) -> list[Check]:
    """Is a checkpoint from this code? Replays its first steps from the seeds, and its risk."""
    trainer = begin(checkpoint.config, checkpoint.seeds)
    replayed = torch.stack([trainer.advance() for _ in checkpoint.first_losses])
    risks = recorded_risk(checkpoint.model, checkpoint.config)
    losses = f"losses of the first {len(replayed)} steps"
    return [
        Check(losses, _relative(replayed, checkpoint.first_losses), REPLAY_TOLERANCE),
        Check("excess risk", _relative(risks, checkpoint.risks), RISK_TOLERANCE),
    ]


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs() / theirs.abs()).nan_to_num(torch.inf).max().item()


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def _follow(bar: tqdm) -> Callable[[int, Tensor], None]:
    """Show every step on the bar, with the median risk of the last 100: outliers rule means."""
    recent = deque(maxlen=100)

    def report(step: int, losses: Tensor) -> None:
        if not recent:  # a resumed run: its rate and time left count from here
            bar.initial = bar.n = step - 1
        recent.append(losses.median())
        bar.set_postfix(risk=f"{torch.stack(list(recent)).median():.4f}", refresh=False)
        bar.update(step - bar.n)

    return report
