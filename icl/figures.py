"""One style, one function per kind of figure; every function draws and leaves the figure open."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from icl.checkpoints import BLOCK, Checkpoint
from icl.heads import Importance
from icl.risk import Estimate, over_seeds

WIDTH = 5.6  # inches: narrow, so that text is still legible where a phone shrinks the figure


def use_style() -> None:
    """Set the book's style: white ground in light and dark mode, text that stays text."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "icl",
            "font.size": 12,
        }
    )
    set_matplotlib_formats("svg", metadata={"Date": None})


def head_shares(found: dict[str, Importance]) -> None:
    """Heat-maps of importance shares: a panel per model, a row per layer, heads by rank.

    Head labels mean nothing across seeds, so heads are ranked within each layer and seed
    before the mean over seeds is taken.
    """
    fig, panels = plt.subplots(
        len(found),
        1,
        figsize=(WIDTH, 0.9 * len(found) + 0.42 * sum(i.rise.shape[1] for i in found.values())),
        height_ratios=[i.rise.shape[1] + 1 for i in found.values()],
        squeeze=False,
    )
    for axes, (name, importance) in zip(panels[:, 0], found.items(), strict=True):
        ranked = importance.shares.nan_to_num(0).sort(dim=-1, descending=True).values
        mean = 100 * ranked.mean(dim=0)
        sns.heatmap(
            mean.numpy(), ax=axes, vmin=0, vmax=100, cmap="rocket_r", annot=True, fmt=".0f",
            cbar=False, linewidths=1, annot_kws={"size": 11},
            xticklabels=[f"{rank}" for rank in range(1, mean.shape[1] + 1)],
            yticklabels=[f"layer {layer}" for layer in range(1, len(mean) + 1)],
        )  # fmt: skip
        axes.set_title(f"{name} ({len(ranked)} seeds)", loc="left", fontsize=12)
        axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("head, by rank within its layer")
    fig.supylabel("share of the layer's importance, %", fontsize=11)


def top_shares(found: dict[str, Importance], threshold: float) -> None:
    """The largest share of every layer: a dot per seed, the mean and its 95 % interval."""
    fig, axes = plt.subplots(figsize=(WIDTH, 4))
    ticks, labels, start = [], [], 0
    for colour, (name, importance) in zip(sns.color_palette(), found.items(), strict=False):
        top = importance.top_share
        for layer in range(top.shape[1]):
            values, x = top[:, layer], start + layer
            spread = np.linspace(-0.15, 0.15, len(values))
            axes.plot(x + spread, values, "o", color=colour, alpha=0.5, markersize=5)
            mean = over_seeds(values)
            low, high = max(mean.low, 0), min(mean.high, 1)  # shares cannot be beyond
            error = [[mean.mean - low], [high - mean.mean]]
            axes.errorbar(x, mean.mean, error, fmt="_", color=colour, markersize=16, capsize=4)
            ticks.append(x)
            labels.append(str(layer + 1))
        axes.plot([], [], "o", color=colour, label=name)
        start += top.shape[1] + 1
    axes.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
    axes.set(xticks=ticks, ylim=(0, 1.05), xlabel="layer", ylabel="share of the top head")
    axes.set_xticklabels(labels)
    axes.grid(axis="x", visible=False)
    fig.legend(loc="outside upper center", ncols=2, fontsize=11)


def curves(
    panels: dict[str, dict[str, list[tuple[float, Estimate]]]],
    xlabel: str,
    ylabel: str = "mean excess risk",
    log: str = "y",
) -> None:
    """Estimates against x: a panel per title, a line with a 95 % band per label.

    `log` names the logarithmic axes, "", "x", "y" or "xy". A label has one colour and marker
    in all panels.
    """
    fig, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, 3.4 * len(panels)), sharex=True, squeeze=False
    )
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    looks = dict(zip(labels, zip(cycle(sns.color_palette()), cycle("osD^vPX*")), strict=False))
    handles = {}
    for ax, (title, lines) in zip(axes[:, 0], panels.items(), strict=True):
        for label, points in lines.items():
            colour, marker = looks[label]
            x, found = zip(*points, strict=True)
            means, lows, highs = ([getattr(e, k) for e in found] for k in ("mean", "low", "high"))
            (handles[label],) = ax.plot(x, means, marker=marker, color=colour, markersize=5)
            ax.fill_between(x, lows, highs, color=colour, alpha=0.15, linewidth=0)
        ax.set(title=title, ylabel=ylabel)
        ax.title.set_size(12)
        for axis in log:
            getattr(ax, f"set_{axis}scale")("log")
        if "x" in log:  # the values themselves: powers of ten are too far apart
            ax.set_xticks(x, [f"{value:g}" for value in x])
            ax.set_xticks([], minor=True)
    axes[-1, 0].set_xlabel(xlabel)
    columns = 3 if max(map(len, handles)) < 20 else 2
    fig.legend(handles.values(), handles, loc="outside upper center", ncols=columns, fontsize=10)


def training_curves(models: list[Checkpoint], references: list[dict[str, float]]) -> None:
    """Excess risk of the training batches against the step, one line per seed, one panel a model.

    `references`, one dictionary per model, are risks to draw as horizontal lines.
    """
    rows = (len(models) + 1) // 2
    fig, panels = plt.subplots(rows, 2, figsize=(WIDTH, 2.9 * rows), sharey=True, squeeze=False)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes, model, risks in zip(panels.flat, models, references, strict=False):
        steps = BLOCK * (torch.arange(len(model.curve)) + 1) / 1000
        for curve in model.curve.T:
            axes.plot(steps, curve, linewidth=0.8, color=sns.color_palette()[0], alpha=0.6)
        for (name, risk), style in zip(risks.items(), ("--", "-.", ":"), strict=False):
            axes.axhline(risk, linestyle=style, color="0.25", linewidth=1.4, label=name)
        axes.set(yscale="log", title=model.name, xlabel="thousand steps")
        axes.title.set_size(12)
    for axes in panels[:, 0]:
        axes.set_ylabel("excess risk")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=11)


def moments(first: torch.Tensor, second: torch.Tensor) -> None:
    """Mean and variance of every entry of two batches of matrices, one against the other."""
    _, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    for axes, name in zip(panels, ("mean", "variance"), strict=True):
        moment = {"mean": torch.mean, "variance": torch.var}[name]
        x, y = moment(second, dim=0).flatten(), moment(first, dim=0).flatten()
        axes.axline((float(x.mean()),) * 2, slope=1, color="0.6", linewidth=1)
        axes.plot(x, y, "o", markersize=5, alpha=0.7)
        axes.set(title=name, xlabel="from tokens")
    panels[0].set_ylabel("drawn directly")
