"""Tables of the pages that speak of the whole book: runs, models, settings, versions."""

from importlib.metadata import version
from time import gmtime, strftime

import pandas as pd
from torch import Tensor

from icl.checkpoints import Checkpoint, catalogue, load
from icl.site.digests import STACK
from icl.site.scorecard import place
from icl.tables import Text, show, table
from icl.transformer import QUERIES

EMPTY = {"covariance": "identity", "prior": "none", "lengths": "the task's n"}  # what () means
LOSS = {True: "closed form", False: f"mean over {QUERIES} queries"}
SITE = ("papermill", "jupyter-book")
KEPT = {"importance": "by importance", "random": "at random"}


def rechecked(found: list[tuple[str, dict]], recorded: dict[str, dict]) -> Text:
    """Every verdict of the book beside those on the contexts of other evaluation seeds."""
    rows = []
    for _, verdict in sorted(found, key=place):
        others = recorded.get(verdict["id"], {"outcome": {}, "settings": {}})
        moved = [
            f"{setting}: {_otherwise(decision, others['settings'].get(setting, {}))}"
            for setting, decision in verdict["settings"].items()
            if set(others["settings"].get(setting, {}).values()) - {decision}
        ]
        agreeing = f"{len(verdict['settings']) - len(moved)} of {len(verdict['settings'])}"
        rows.append(
            [
                verdict["id"],
                verdict["outcome"],
                _otherwise(verdict["outcome"], others["outcome"]),
                agreeing if others["settings"] else "",
                "; ".join(moved),
            ]
        )
    header = ["claim", "verdict here", "on other contexts", "settings that agree", "the others"]
    return table(header, rows)


def _otherwise(here: str, there: dict[str, str]) -> str:
    """How many of the other seeds agree, and what the others say."""
    if not there:
        return "not checked"
    moved = [f"{outcome} on seed {seed}" for seed, outcome in there.items() if outcome != here]
    return ", ".join([f"the same on {len(there) - len(moved)} of {len(there)} seeds", *moved])


def runs(executed: dict[str, dict]) -> Text:
    """How and when every chapter was executed."""
    rows = []
    for name, about in executed.items():
        parameters = ", ".join(f"`{k}={v}`" for k, v in about["parameters"].items())
        rows.append([f"[{name}]({name})", f"{about['seconds']:.0f} s", about["when"], parameters])
    return table(["chapter", "time", "executed", "parameters"], rows)


def models() -> str:
    """Every trained model that ships, what it cost, and what all of them cost together."""
    shipped = _shipped()
    rows = [
        [
            model.label,
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
    header = ["model", "file", "configuration", "seeds", "steps × contexts", "trained in"]
    # Some models are in two files, of which one has their weights along the training.
    each = {
        (x.config.hash, seed): x.seconds / len(x.seeds)
        for x in sorted(shipped.values(), key=lambda x: len(x.seeds))
        for seed in x.seeds
    }
    total, count = sum(each.values()) / 3600, len(each)
    return "\n\n".join(
        [
            f"All {count} models together took {total:.1f} hours of training.",
            _unbroken(table([*header, "excess risk (range)", "torch"], rows)),
        ]
    )


def _shipped() -> dict[str, Checkpoint]:
    """Every model that ships by the name of its file, in the order of labels."""
    found = {name: load(name) for name in catalogue()}
    return dict(sorted(found.items(), key=lambda item: item[1].label))


def _unbroken(text: str) -> str:
    """A table whose narrow columns do not break a label between a setting and its value."""
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _range(risks: Tensor) -> str:
    mean, low, high = (
        f"{x:.3f}" if x < 1e4 else f"{x:.1e}" for x in (risks.mean(), risks.min(), risks.max())
    )
    return f"{mean} ({low} to {high})"


def versions() -> Text:
    """Versions of the packages this site was built with."""
    return table(["package", "version"], [[name, version(name)] for name in (*STACK, *SITE)])


def settings() -> str:
    """What all models that ship share, then a row per model with what they differ in."""
    shipped = _shipped()
    frame = pd.DataFrame([_settings(model, shipped) for model in shipped.values()])
    alike = [key for key in frame if frame[key].nunique(dropna=False) == 1]
    shared = [[f"`{key}`", frame[key][0]] for key in alike]
    varied = frame.drop(columns=alike).fillna("")
    common = table(["the same in every model", "value"], shared)
    return f"{common}\n\n{_unbroken(show(varied))}"


def _settings(model: Checkpoint, shipped: dict[str, Checkpoint]) -> dict[str, str]:
    """All settings of a model in words, and what follows from them."""
    config = model.config
    parts = config.to_dict()
    del parts["start"]
    found = {name: _plain(value, name) for part in parts.values() for name, value in part.items()}
    start = "drawn weights"
    if config.start:
        start = f"{shipped[config.start.model].label}, pruned {KEPT[config.start.keep]}"
    if config.split:
        start = "an algorithm by hand, its steps split over heads"
    about = {"model": model.label, "file": f"`{model.name}`"}
    ours = {"loss": LOSS[config.architecture.collapses], "start": start}
    return about | found | ours | {"training seeds": _plain(model.seeds)}


def _plain(value: object, name: str = "") -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or EMPTY[name]
    return str(value)
