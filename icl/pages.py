"""Pages that are generated: the scorecard, and how everything was run, as Markdown."""

from importlib.metadata import version
from time import gmtime, strftime

from icl.checkpoints import catalogue, load
from icl.markdown import table

STACK = ("torch", "numpy", "scikit-learn", "matplotlib", "papermill", "jupyter-book")


def scorecard(found: list[tuple[str, dict]]) -> str:
    """Every claim the chapters judged: (chapter, verdict) pairs to one table."""
    rows = []
    for chapter, verdict in found:
        for row in verdict["rows"]:
            estimate = row["estimate"]
            interval = f"{estimate['mean']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
            rows.append(
                [
                    f"[{verdict['id']}]({chapter})",
                    verdict["statement"],
                    f"**{verdict['outcome']}**",
                    f"{row['setting']}, {row['seeds']} seeds",
                    row["statistic"],
                    interval,
                    f"> {row['threshold']:g}",
                ]
            )
    # A claim's first three cells are shown once, above its other rows.
    for i in range(len(rows) - 1, 0, -1):
        if rows[i][0] == rows[i - 1][0]:
            rows[i][:3] = ["", "", ""]
    header = ["claim", "what it says", "verdict", "setting", "statistic", "mean [95 %]", "needed"]
    return table(header, rows)


def runs(executed: dict[str, dict]) -> str:
    """How and when every chapter was executed."""
    rows = []
    for name, about in executed.items():
        parameters = ", ".join(f"`{k}={v}`" for k, v in about["parameters"].items())
        rows.append([f"[{name}]({name})", f"{about['seconds']:.0f} s", about["when"], parameters])
    return table(["chapter", "time", "executed", "parameters"], rows)


def models() -> str:
    """Every trained model that ships, and what it cost."""
    rows = []
    for name in catalogue():
        model = load(name)
        recipe, seconds = model.config.recipe, model.seconds
        risks = model.risks
        rows.append(
            [
                f"`{name}`",
                f"`{model.config.hash}`",
                ", ".join(map(str, model.seeds)),
                f"{recipe.steps} × {recipe.batch}",
                strftime("%H:%M:%S", gmtime(seconds)),
                f"{risks.mean():.3f} ({risks.min():.3f} to {risks.max():.3f})",
                model.versions["torch"],
            ]
        )
    header = ["model", "configuration", "seeds", "steps × contexts", "trained in"]
    return table([*header, "excess risk (range)", "torch"], rows)


def versions() -> str:
    """Versions of the packages this site was built with."""
    return table(["package", "version"], [[name, version(name)] for name in STACK])
