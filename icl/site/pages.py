"""Tables of the pages that speak of the whole book: scorecard, runs, models, settings."""

from importlib.metadata import version
from time import gmtime, strftime

from torch import Tensor

from icl.checkpoints import catalogue, load
from icl.configuration import Configuration
from icl.markdown import table
from icl.sweeps import MODELS, SEEDS

STACK = ("torch", "numpy", "scikit-learn", "matplotlib", "papermill", "jupyter-book")


def scorecard(found: list[tuple[str, dict]]) -> str:
    """Every claim the chapters judged: (chapter, verdict) pairs to one table."""
    rows = [
        [
            f"[{verdict['id']}]({chapter})",
            f"{verdict['statement']} ({verdict['paper']})",
            f"**{verdict['headline']}**",
            f"{verdict['statistic']}, above {verdict['threshold']:g}",
            verdict["numbers"],
        ]
        for chapter, verdict in sorted(found, key=lambda pair: pair[1]["id"])
    ]
    return table(["claim", "what it says", "verdict", "needed", "mean over seeds [95 %]"], rows)


def runs(executed: dict[str, dict]) -> str:
    """How and when every chapter was executed."""
    rows = []
    for name, about in executed.items():
        parameters = ", ".join(f"`{k}={v}`" for k, v in about["parameters"].items())
        rows.append([f"[{name}]({name})", f"{about['seconds']:.0f} s", about["when"], parameters])
    return table(["chapter", "time", "executed", "parameters"], rows)


def models() -> str:
    """Every trained model that ships, what it cost, and what all of them cost together."""
    shipped = {name: load(name) for name in catalogue()}
    rows = [
        [
            f"`{name}`",
            f"`{model.config.hash}`",
            ", ".join(map(str, model.seeds)),
            f"{model.config.recipe.steps} × {model.config.recipe.batch}",
            strftime("%H:%M:%S", gmtime(model.seconds)),
            _range(model.risks),
            model.versions["torch"],
        ]
        for name, model in shipped.items()
    ]
    header = ["model", "configuration", "seeds", "steps × contexts", "trained in"]
    total = sum(model.seconds for model in shipped.values()) / 3600
    count = sum(len(model.seeds) for model in shipped.values())
    return "\n\n".join(
        [
            f"All {count} models together took {total:.1f} hours of training.",
            table([*header, "excess risk (range)", "torch"], rows),
        ]
    )


def _range(risks: Tensor) -> str:
    mean, low, high = (
        f"{x:.3f}" if x < 1e4 else f"{x:.1e}" for x in (risks.mean(), risks.min(), risks.max())
    )
    return f"{mean} ({low} to {high})"


def versions() -> str:
    """Versions of the packages this site was built with."""
    return table(["package", "version"], [[name, version(name)] for name in STACK])


def settings() -> str:
    """What all trainings share, then a row per model with what they differ in."""
    ours, paper = "our choice", "paper"
    rows = [
        ["sparse linear regression", paper],
        ["multi-head attention, several layers", paper],
        ["one layer of linear self-attention; other covariances; nonlinear responses", paper],
        ["Gaussian features and noise", ours],
        ["linear attention, no MLP, no normalisation", ours],
        ["warm-up, then a cosine to zero; gradients clipped per model", ours],
        ["loss: excess risk, its query expectation in closed form", ours],
    ]
    plans = {name: _flat(plan.config) for name, plan in MODELS.items()}
    first = next(iter(plans.values()))
    keys = dict.fromkeys(key for flat in plans.values() for key in flat)
    shared = [k for k in keys if all(flat.get(k) == first.get(k) for flat in plans.values())]
    rows += [[f"`{key}` = {first[key]}", ours] for key in shared]
    rows.append([f"training seeds {', '.join(map(str, SEEDS))} for every model", ours])
    varied = [key for key in keys if key not in shared]
    models = [[f"`{name}`", *(flat.get(k, "") for k in varied)] for name, flat in plans.items()]
    return "\n\n".join(
        [
            table(["shared by all models", "chosen by"], rows),
            table(["model", *(f"`{key}`" for key in varied)], models),
        ]
    )


def _flat(config: Configuration) -> dict[str, str]:
    parts = config.to_dict()
    start = parts.pop("start")
    flat = {name: _plain(value) for part in parts.values() for name, value in part.items()}
    flat["start"] = f"{start['model']} pruned by {start['keep']}" if start else "drawn"
    return flat


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "identity"
    return str(value)
