"""Heat-maps, one function per kind; like `figures`, they draw and leave the figure open."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.colors import LogNorm

from icl.figures import WIDTH
from icl.heads import Importance


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


def conditions(found: dict[str, Importance]) -> None:
    """The top share of every layer and the risk, means over seeds: a row per model.

    Where a model has fewer layers than others, its last columns are empty. Seeds in which no
    head of a layer matters have no top share, and are left out of its mean.
    """
    depth = max(importance.rise.shape[1] for importance in found.values())
    shares = np.full((len(found), depth), np.nan)
    for row, importance in zip(shares, found.values(), strict=True):
        top = 100 * importance.top_share.nanmean(dim=0)
        row[: len(top)] = top
    risks = np.array([[importance.full.mean().item()] for importance in found.values()])
    _, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 0.3 * len(found) + 0.8), width_ratios=[depth, 1]
    )
    look = {"annot": True, "cbar": False, "linewidths": 1, "annot_kws": {"size": 10}}
    layers = [f"layer {layer}" for layer in range(1, depth + 1)]
    sns.heatmap(shares, ax=left, vmin=0, vmax=100, cmap="rocket_r", fmt=".0f",
                xticklabels=layers, yticklabels=list(found), **look)  # fmt: skip
    sns.heatmap(risks, ax=right, cmap="crest", fmt=".2f",
                xticklabels=["risk"], yticklabels=False, **look)  # fmt: skip
    left.tick_params(axis="y", rotation=0, labelsize=10)
    for ax in (left, right):
        ax.grid(visible=False)
        ax.xaxis.tick_top()
        ax.tick_params(axis="x", length=0)


def nearest(found: dict[str, dict[str, torch.Tensor]]) -> None:
    """Heat-map of the share of every layer's probe that algorithms leave unexplained, in %.

    `found` has, by model and algorithm, the fraction explained (M, L); shown are means over M.
    """
    shares = [
        100 * (1 - torch.stack([f.mean(dim=0) for f in by_name.values()], dim=1))
        for by_name in found.values()
    ]
    rows = [
        f"{name}, layer {1 + i}"
        for name, s in zip(found, shares, strict=True)
        for i in range(len(s))
    ]
    algorithms = next(iter(found.values()))
    _, axes = plt.subplots(figsize=(WIDTH, 1 + 0.34 * len(rows)))
    sns.heatmap(
        torch.cat(shares).numpy(), ax=axes, norm=LogNorm(0.5, 50), cmap="rocket", annot=True,
        fmt=".1f", cbar=False, annot_kws={"size": 10}, yticklabels=rows,
        xticklabels=[name.replace(" ", "\n") for name in algorithms],
    )  # fmt: skip
    for end in np.cumsum([len(s) for s in shares])[:-1]:
        axes.axhline(end, color="white", linewidth=5)
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.tick_params(axis="both", length=0, labelsize=10)


def matrices(rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Matrices side by side, a row per title; within a row all have one colour scale."""
    columns = max(map(len, rows.values()))
    _, panels = plt.subplots(
        len(rows), columns, figsize=(WIDTH, 0.4 + WIDTH / columns * len(rows)), squeeze=False
    )
    for ax in panels.flat:
        ax.set_axis_off()
    for line, (title, found) in zip(panels, rows.items(), strict=True):
        limit = max(np.abs(matrix).max() for matrix in found.values())
        for ax, (name, matrix) in zip(line, found.items(), strict=False):
            ax.imshow(matrix, cmap="vlag", vmin=-limit, vmax=limit)
            ax.set_title(f"{title}\n{name}" if title else name, fontsize=11)
