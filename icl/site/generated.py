"""What pages include that is generated: a text or a figure for every name that one of them asks."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat

from icl.errors import Failed
from icl.site import familiar, pages, recheck, schematic, scorecard
from icl.site.chapters import chapters, verdicts

ASKED = re.compile(r"^(?:```\{(?:include|figure)\} |:file: )([\w-]+\.(?:txt|svg))$", re.MULTILINE)


def write(folder: Path, stage: Path, executed: dict[str, Path], project: str | None) -> None:
    """Write into the staged pages' folder what they include, and into the pages what they quote,
    from the executed chapters by name.

    `project` is the project's web address, if it is known.
    """
    found = [(name, verdict) for name, path in executed.items() for verdict in verdicts(path)]
    asked = set()
    for page in stage.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        asked.update(ASKED.findall(text))
        if scorecard.QUOTED.search(text):
            page.write_text(scorecard.quoted(text, found), encoding="utf-8")
    made = contents(folder, executed, found, project)
    for name in sorted(asked):
        if not (stage / name).exists():
            if name not in made:
                raise Failed(f"a page includes {name}: generated are {', '.join(made)}")
            (stage / name).write_text(made[name](), encoding="utf-8")


def contents(
    folder: Path, executed: dict[str, Path], found: scorecard.Found, project: str | None
) -> dict[str, Callable[[], str]]:
    """How each is made, by its name, from the executed chapters and their verdicts."""

    def runs() -> str:
        about = {n: nbformat.read(p, as_version=4).metadata["icl"] for n, p in executed.items()}
        return pages.runs(about)

    shipped = cache(pages.shipped)
    return {
        "highlights.txt": lambda: scorecard.highlights(found),
        "scorecard.txt": lambda: scorecard.scorecard(found),
        "details.txt": lambda: scorecard.details(found),
        "glance.svg": lambda: figure(executed["conditions"], "fig-conditions-glance"),
        "schematic.txt": schematic.svg,
        "runs.txt": runs,
        "rechecked.txt": lambda: pages.rechecked(found, recheck.recorded(folder)),
        "models.txt": lambda: pages.models(shipped()),
        "settings.txt": lambda: pages.settings(shipped()),
        "versions.txt": pages.versions,
        "citation.txt": lambda: pages.citation(folder / "CITATION.cff", project),
        "costs.txt": lambda: pages.costs(shipped()),
        "familiar.txt": lambda: familiar.standings(folder / "_build" / "familiar.txt"),
        "familiar-in.txt": lambda: familiar.uses(chapters(folder)),
        "usual-recipes.txt": familiar.recipes,
    }


def figure(path: Path, name: str) -> str:
    """The SVG of an executed chapter's figure."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            return cell.outputs[-1]["data"]["image/svg+xml"]
    raise Failed(f"{path.stem}: no figure is called {name}")
