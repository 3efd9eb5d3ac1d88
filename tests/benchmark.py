"""Milliseconds per training step and seed, for every way to compute the flagship's forward pass.

    python tests/benchmark.py [--threads 2] [--seeds 1 3]

Prints one table: a row per context length n, a column per path. A step is everything: drawing
the batch, forward, backward, clipping, Adam. Figures are medians; batch 64, float32.
"""

import argparse
import time
from dataclasses import replace

import torch
from torch import nn

from icl.contexts import draw
from icl.experiments.models import FULL
from icl.starts import begin
from icl.tables import table
from icl.transformer import build

FLAGSHIP = FULL["flagship"].config
CONFIG = replace(FLAGSHIP, recipe=replace(FLAGSHIP.recipe, batch=64))
LONGEST_TOKENS = 256  # beyond this the token paths take seconds to minutes a step


def median_ms(step, repeats):
    """Median time of `step()` in milliseconds, after two calls that are not counted."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - started))
    return sorted(times[2:])[repeats // 2]


def statistics_step(task, seeds):
    """Our training step, for several seeds at once."""
    return begin(replace(CONFIG, task=task), tuple(range(seeds))).advance


def token_step(task, attention):
    """The same step on tokens, one query per context."""
    config = replace(CONFIG.architecture, attention=attention)
    model = build(config).initialise((0,), CONFIG.recipe.init_scale)
    forward = model.on_tokens().predict if attention == "linear" else model.predict
    return _step(task, lambda contexts: forward(contexts)[0], model)


def encoder_step(task):
    """torch's own encoder of the same width, depth and heads (k = 8), feed-forward width 64."""
    width, heads = CONFIG.architecture.d_model, CONFIG.architecture.heads
    layer = nn.TransformerEncoderLayer(width, heads[0], width, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, len(heads), enable_nested_tensor=False)
    model = nn.Sequential(nn.Linear(task.d + 1, width), encoder, nn.Linear(width, 1))

    def forward(contexts):
        unlabelled = nn.functional.pad(contexts.queries, (0, 1))
        return model(torch.cat([contexts.tokens, unlabelled], dim=1).float())[:, -1]

    return _step(task, forward, model)


def _step(task, forward, model):
    optimiser = torch.optim.Adam(model.parameters(), CONFIG.recipe.lr)
    count = 0

    def step():
        nonlocal count
        count += 1
        contexts = draw(task, CONFIG.recipe.batch, "train", 0, count, queries=1)
        truth = torch.einsum("bqd,bd->bq", contexts.queries, contexts.w).float()
        optimiser.zero_grad()
        (forward(contexts) - truth).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), CONFIG.recipe.clip)
        optimiser.step()

    return step


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for n in (16, 40, 256, 1_000_000):
        task = replace(CONFIG.task, n=n)
        cells = ["", "", ""]
        if n <= LONGEST_TOKENS:
            repeats = 9 if n < LONGEST_TOKENS else 5
            steps = (token_step(task, "linear"), token_step(task, "softmax"), encoder_step(task))
            cells = [f"{median_ms(step, repeats):.1f}" for step in steps]
        ours = [median_ms(statistics_step(task, seeds), 25) / seeds for seeds in options.seeds]
        rows.append([n, *cells, *(f"{value:.1f}" for value in ours)])
    print(f"ms per training step and seed, {options.threads} threads, torch {torch.__version__}\n")
    seeds = [f"statistics, {count} seeds at once" for count in options.seeds]
    print(table(["n", "tokens, linear", "tokens, softmax", "torch encoder", *seeds], rows))


if __name__ == "__main__":
    main()
