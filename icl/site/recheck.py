"""Do the verdicts stand on other contexts? Every chapter that judges, with other seeds."""

import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from icl.errors import choose, require
from icl.experiments import experiments
from icl.site.chapters import Job, chapters, execute_all, verdicts
from icl.training import write_atomically

SEEDS = (100, 200, 300, 400, 500)  # so far apart that no repetition of theirs is one of another's

# For every claim its outcome by evaluation seed and, by setting, the decision by seed.
Recorded = dict[str, dict]


def recheck(
    folder: Path,
    seeds: tuple[int, ...],
    names: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
) -> Path:
    """Judge the claims of these chapters, or of all, on the contexts of other evaluation seeds.

    What was executed before and has not changed is not executed again. What is known of claims of
    other chapters stays as it is. Returns the file in which the outcomes are written down.
    """
    require(len(set(seeds)) == len(seeds) > 0, f"seeds={seeds}: allowed are different seeds")
    judges = [name for name, experiment in experiments().items() if experiment.CLAIMS]
    judging = {choose("chapter", name, judges) for name in names or judges}
    work = folder / "_build" / "recheck"
    jobs = {
        (seed, name): Job(chapter, work / str(seed) / f"{name}.ipynb", {"seed": seed})
        for seed in seeds
        for name, chapter in chapters(folder).items()
        if name in judging
    }
    execute_all(list(jobs.values()), say)
    found = {}
    for (seed, _), job in jobs.items():
        for verdict in verdicts(job.output):
            claim = found.setdefault(verdict["id"], {"outcome": {}, "settings": {}})
            claim["outcome"][str(seed)] = verdict["outcome"]
            for setting, decision in verdict["settings"].items():
                claim["settings"].setdefault(setting, {})[str(seed)] = decision
    file = _file(folder)
    with FileLock(work / ".lock"):
        known = (recorded(folder) if names else {}) | found
        text = json.dumps(known, indent=1, ensure_ascii=False) + "\n"
        write_atomically(file, lambda new: new.write_text(text, encoding="utf-8"))
    return file


def recorded(folder: Path) -> Recorded:
    """What `recheck` wrote down last."""
    file = _file(folder)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _file(folder: Path) -> Path:
    return folder / "book" / "_static" / "verdicts.json"
