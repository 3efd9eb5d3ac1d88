"""How fast is a training step? The flagship's, in every way to compute it.

    make bench

Prints the table that the page on how everything was run shows, and writes it there. A step is
everything: drawing the batch, forward, backward, clipping, Adam. Figures are medians; float32.
"""

import argparse
import platform
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icl.contexts import draw
from icl.experiments.models import FULL
from icl.starts import begin
from icl.tables import table
from icl.transformer import build

FLAGSHIP = FULL["flagship"].config
CONFIG = replace(FLAGSHIP, recipe=replace(FLAGSHIP.recipe, batch=64))
ENCODER = "torch's encoder"
SHOWN = Path(__file__).parent.parent / "book" / "_static" / "benchmark.txt"


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


def operations(step):
    """How many operations the matrix products of `step()` take."""
    step()
    with FlopCounterMode(display=False) as counted:
        step()
    return counted.get_total_flops()


def share_of_peak():
    """Of one thread, in one statistics step: operations, and their rate beside that of a product.

    The product is the largest of a step, all tokens of a batch times a layer's queries.
    """
    model, batch = CONFIG.architecture, CONFIG.recipe.batch
    rows, width = batch * (model.d + 1), model.heads[0] * model.d_head
    left, right = torch.randn(rows, model.d_model), torch.randn(model.d_model, width)
    product = 2 * rows * model.d_model * width / median_ms(lambda: left @ right, 200)
    step = statistics_step(CONFIG.task, 1)
    taken = operations(step)
    return taken, taken / median_ms(step, 50) / 1e6, product / 1e6


def machine():
    """The processor, as far as the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measured(threads):
    """The page's tables."""
    torch.set_num_threads(threads)
    rows = []
    for n in (40, 256):
        task = replace(CONFIG.task, n=n)
        repeats = 60 if n == 40 else 15
        steps = {
            "statistics": statistics_step(task, 1),
            "five seeds at once, per seed": statistics_step(task, 5),
            "tokens, linear": token_step(task, "linear"),
            "tokens, softmax": token_step(task, "softmax"),
            ENCODER: encoder_step(task),
        }
        found = {name: median_ms(step, repeats) for name, step in steps.items()}
        found["five seeds at once, per seed"] /= 5
        ours, softmax = found["statistics"], found["tokens, softmax"]
        fewer = operations(steps["tokens, linear"]) / operations(steps["statistics"])
        rows.append(
            [
                f"n = {n}",
                *(f"{ms:.1f}" for ms in found.values()),
                f"{found['tokens, linear'] / ours:.1f}",
                f"{fewer:.1f}",
                f"{softmax / found[ENCODER]:.1f}",
            ]
        )
    ratios = ["tokens / statistics", "the same in operations", "softmax / encoder"]
    header = ["ms per step", *found, *ratios]
    torch.set_num_threads(1)
    taken, reached, product = share_of_peak()
    text = (
        f"One step of the flagship (three layers of eight heads, sixteen features), a batch of "
        f"{CONFIG.recipe.batch} contexts, drawing included; medians on {threads} threads of "
        f"{machine()}, torch {torch.__version__}.\n\n{table(header, rows)}\n\nIf both ran at one "
        f"rate of operations, tokens would take as many times longer as they take operations. On "
        f"one thread a step on statistics is {taken / 1e9:.2f} billion operations of matrix "
        f"products, at {reached:.0f} billion a second; the largest of these products alone reaches "
        f"{product:.0f}, so a step runs at {reached / product:.0%} of that. No GPU was at hand.\n"
    )
    return text


def main():
    """Measure, print, and write what the page on how everything was run shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=SHOWN)
    options = parser.parse_args()
    text = measured(options.threads)
    print(text)
    options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
