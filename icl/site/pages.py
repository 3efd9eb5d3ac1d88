"""Tables of the pages that speak of the whole book: runs, models, settings, versions."""

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from time import gmtime, strftime

import yaml

from icl.architecture import QUERIES
from icl.checkpoints import Checkpoint
from icl.files import TRAINED, catalogue, file_in, load
from icl.site.digests import STACK
from icl.site.scorecard import place
from icl.tables import Text, ranged, table

EMPTY = {"covariance": "identity", "prior": "none", "lengths": "the task's n"}  # what () means
LOSS = {True: "closed form", False: f"mean over {QUERIES} queries"}
SITE = ("papermill", "jupyter-book")
KEPT = {"importance": "by importance", "random": "at random"}
COSTED = ("heads-1-1", "s1-noise0.5-111", "s1-noise0.5-888", "workhorse-3", "relu-norm", "flagship")
MANY = 100_000
ABSENT = "none"  # the value of a setting that a model has not
FEW = 10  # values of a setting that a table lists


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
        took = f"{about['seconds']:.0f}\N{NO-BREAK SPACE}s"
        rows.append([f"[{name}]({name})", took, about["when"], parameters])
    return table(["chapter", "time", "executed", "parameters"], rows)


def costs(shipped: dict[str, Checkpoint]) -> Text:
    """What one seed of some models took to train and takes on disk, and what many would."""
    rows = []
    for name in COSTED:
        model = shipped[name]
        seconds = model.seconds / len(model.seeds)
        size = file_in(TRAINED, name).stat().st_size / len(model.seeds)
        hours, room = MANY * seconds / 3600, MANY * size / 1e9
        many = f"{hours:,.0f} core hours, {room:,.1f} GB"
        rows.append([model.label, f"{seconds:,.0f} s", f"{size / 1e3:,.0f} kB", many])
    return table(["model", "time per seed", "on disk per seed", f"{MANY:,} of them"], rows)


def models(shipped: dict[str, Checkpoint]) -> str:
    """Every trained model that ships, what it cost, and what all of them cost together."""
    rows = [
        [
            model.label,
            f"`{name}`",
            _seeds(model.seeds),
            f"{model.config.recipe.steps} × {model.config.recipe.batch}",
            strftime("%H:%M:%S", gmtime(model.seconds)),
            ranged(model.risks, 3),
        ]
        for name, model in shipped.items()
    ]
    header = ["model", "file", "seeds", "steps × contexts", "trained in", "excess risk (range)"]
    # Some models are in two files, of which one has their weights along the training.
    each = {
        (x.config.hash, seed): x.seconds / len(x.seeds)
        for x in sorted(shipped.values(), key=lambda x: len(x.seeds))
        for seed in x.seeds
    }
    total, count = sum(each.values()) / 3600, len(each)
    torch = " and ".join(sorted({model.versions["torch"] for model in shipped.values()}))
    return "\n\n".join(
        [
            f"All {count} models together took {total:.1f} hours of training, in torch {torch}.",
            _unbroken(table(header, rows)),
        ]
    )


def shipped() -> dict[str, Checkpoint]:
    """Every model that ships by the name of its file, in the order of labels."""
    found = {name: load(name) for name in catalogue()}
    return dict(sorted(found.items(), key=lambda item: item[1].label))


def _unbroken(text: str) -> str:
    """A table whose narrow columns do not break a label between a setting and its value."""
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def versions() -> Text:
    """Versions of the packages this site was built with."""
    return table(["package", "version"], [[name, version(name)] for name in (*STACK, *SITE)])


def settings(shipped: dict[str, Checkpoint]) -> str:
    """The usual value of every setting and all others, then by model what is not usual."""
    found = {name: _settings(model, shipped) for name, model in shipped.items()}
    keys = dict.fromkeys(key for chosen in found.values() for key in chosen)
    counts = {key: Counter(chosen.get(key, ABSENT) for chosen in found.values()) for key in keys}
    usual = {key: count.most_common(1)[0][0] for key, count in counts.items()}
    listed = [[f"`{key}`", usual[key], _others(count, usual[key])] for key, count in counts.items()]
    rows = [
        [
            model.label,
            f"`{name}`",
            f"`{model.config.hash}`",
            "; ".join(
                f"`{key}` {found[name].get(key, ABSENT)}"
                for key in keys
                if found[name].get(key, ABSENT) != usual[key]
            ),
        ]
        for name, model in shipped.items()
    ]
    values = table(["setting", "usually", "or"], listed)
    unlike = table(["model", "file", "configuration", "not as usual"], rows)
    return f"{values}\n\n{_unbroken(unlike)}"


def _others(count: Counter, usual: str) -> str:
    """The values of a setting but the usual one, or how many there are."""
    values = [value for value in count if value != usual]
    return "; ".join(values) if len(values) <= FEW else f"{len(values)} others"


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
    if config.written:
        start = "two layers by hand, in eleven numbers"
    ours = {"loss": LOSS[config.architecture.collapses], "start": start}
    return found | ours | {"training seeds": _seeds(model.seeds)}


def _plain(value: object, name: str) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or EMPTY[name]
    return str(value)


def _seeds(seeds: tuple[int, ...]) -> str:
    """Training seeds, which are consecutive or few."""
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def citation(file: Path, address: str | None) -> str:
    """How to cite the book, in BibTeX, from its CITATION.cff."""
    about = yaml.safe_load(file.read_text(encoding="utf-8"))
    year = str(about["date-released"])[:4]
    fields = {
        "title": about["title"],
        "author": " and ".join(f"{{{author['name']}}}" for author in about["authors"]),
        "year": year,
        "version": about["version"],
        "url": address,
    }
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join(["```bibtex", f"@software{{icl{year},", *lines, "}", "```"])
