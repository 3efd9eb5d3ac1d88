"""A run beside the book's own: which verdicts changed, and which estimates left their intervals."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import nbformat

from icl.errors import Refused
from icl.intervals import Estimate
from icl.site.chapters import Chapter, Job, chapters, record, root, verdicts
from icl.site.reruns import checkout, words

FINDING = "found.finding"  # how a chapter shows it
SHOWN = 5  # of the estimates outside their published intervals
HANGING = {"subsequent_indent": "    ", "break_on_hyphens": False}
SAME = 1e-6  # relative: what is exact may differ by so much on another machine


@dataclass(frozen=True)
class Published:
    """The book's own run of a chapter: its file, its record, and whether it is still up to date."""

    path: Path
    record: dict
    current: bool

    @property
    def verdicts(self) -> dict[str, dict]:
        return {verdict["id"]: verdict for verdict in verdicts(self.path)}

    def __str__(self) -> str:
        changed = "" if self.current else "; since then it, its models or the library have changed"
        when, values = self.record["when"], words(self.record["parameters"])
        return f"the published run of {when} ({values}){changed}"


def published(chapter: Chapter) -> Published | None:
    """The run of the chapter of this name that the last `icl build` showed, if there was one."""
    try:
        home = checkout(chapter) or root()
    except Refused:
        return None
    path = home / "_build" / "executed" / f"{chapter.name}.ipynb"
    known = chapters(home).get(chapter.name)
    if not known or not path.exists():
        return None
    return Published(path, record(path), Job(known, path).is_done())


@dataclass(frozen=True)
class Comparison:
    """A verdict as plain data (`Verdict.to_dict`), beside the published one on the same claim.

    `there` is None without a published run, and empty if that run did not judge the claim.
    """

    here: dict
    there: dict | None

    @property
    def changed(self) -> bool:
        """Was anything decided otherwise?"""
        return bool(self.there) and (
            self.here["outcome"] != self.there["outcome"] or bool(self.moved)
        )

    @property
    def moved(self) -> list[str]:
        """The settings of both in which the decision differs."""
        there = self.there["settings"] if self.there else {}
        return [
            f"{setting}: {decision}; published: {there[setting]}"
            for setting, decision in self.here["settings"].items()
            if there.get(setting, decision) != decision
        ]

    @property
    def pairs(self) -> list[tuple[dict, dict]]:
        """The estimates of both, each beside the published one."""
        here, there = ((verdict or {}).get("findings", []) for verdict in (self.here, self.there))
        known = {_key(finding): finding for finding in there}
        return [(finding, known[_key(finding)]) for finding in here if _key(finding) in known]

    @property
    def outside(self) -> list[tuple[dict, dict]]:
        """The estimates that are not in the published intervals."""
        return [pair for pair in self.pairs if not _inside(*pair)]

    def lines(self) -> Iterator[str]:
        """The claim, both verdicts, and what differs."""
        yield from wrap(f"{self.here['id']}: {self.here['statement']}", width(), **HANGING)
        yield from entry("verdict", f"{self.here['headline']}{self._beside()}")
        yield from entry("here", self.here.get("said", ""))
        if self.there:
            yield from entry("published", self.there.get("said", ""))
        for text in self.moved:
            yield from entry("changed", text)
        if self.pairs:
            yield from entry("intervals", _lie(self.pairs))
        for here, there in self.outside[:SHOWN]:
            text = f"{_place(here)}: {_estimate(here)}; published: {_estimate(there)}"
            yield from entry("outside", text)
        if len(self.outside) > SHOWN:
            yield from entry("outside", f"and {len(self.outside) - SHOWN} more")

    def _beside(self) -> str:
        if not self.there:
            return "" if self.there is None else "; not judged in the published run"
        before = self.there["headline"]
        return f"; published: {before}" if before != self.here["headline"] else "; as published"


def finding(run: Path) -> str:
    """What an executed chapter says it found, in plain text; nothing, if it does not say so."""
    for cell in nbformat.read(run, as_version=4).cells:
        if cell.cell_type == "code" and cell.source.rstrip().endswith(FINDING):
            texts = [output.get("data", {}).get("text/markdown", "") for output in cell.outputs]
            return "".join(texts).replace("**", "")
    return ""


def width() -> int:
    """Characters of a line: as the terminal is wide, within reason."""
    return min(max(shutil.get_terminal_size().columns, 60), 100)


def entry(label: str, text: str) -> list[str]:
    """A text with a label before it, wrapped; nothing, if there is no text."""
    return wrap(text, width(), initial_indent=f"    {label:<11}", subsequent_indent=" " * 15)


def _key(finding: dict) -> tuple[str, str, str]:
    return finding["setting"], finding["part"], finding["statistic"]


def _inside(here: dict, there: dict) -> bool:
    """Is an estimate in the published interval, which is a point where it is exact?"""
    value, low, high = here["value"], there["low"], there["high"]
    if math.isnan(value) or math.isnan(low):
        return math.isnan(value) and math.isnan(there["value"])
    return low <= value <= high or math.isclose(value, there["value"], rel_tol=SAME, abs_tol=SAME)


def _lie(pairs: list[tuple[dict, dict]]) -> str:
    inside = sum(_inside(*pair) for pair in pairs)
    return f"{inside} of {len(pairs)} estimates lie in the published intervals"


def _place(finding: dict) -> str:
    return ", ".join(filter(None, (finding["setting"], finding["part"], finding["statistic"])))


def _estimate(finding: dict) -> str:
    value, low, high = (finding[name] for name in ("value", "low", "high"))
    return str(Estimate(value, low, high, value))


def report(run: Path, before: Published | None) -> list[str]:
    """All that an executed chapter found, claim by claim, beside the published run."""
    found = _compare(run, before)
    lines = [line for comparison in found for line in (*comparison.lines(), "")]
    if not found:
        lines += entry("here", finding(run))
        lines += entry("published", finding(before.path)) if before else []
    return [*lines, *wrap(_summary(found, before), width())]


def brief(job: Job, before: Published | None) -> list[str]:
    """A line for a chapter, and what it found on the claims whose verdicts changed."""
    found = _compare(job.output, before)
    first = wrap(f"{job.title}: {_summary(found, before, short=True)}", width(), **HANGING)
    changed = (comparison.lines() for comparison in found if comparison.changed)
    return [*first, *(line for lines in changed for line in lines)]


def _compare(run: Path, before: Published | None) -> list[Comparison]:
    if not before:
        return [Comparison(verdict, None) for verdict in verdicts(run)]
    known = before.verdicts
    return [Comparison(verdict, known.get(verdict["id"], {})) for verdict in verdicts(run)]


def _summary(found: list[Comparison], before: Published | None, short: bool = False) -> str:
    """How many verdicts changed, and how many estimates lie in their published intervals."""
    if not before:
        judged = f"{len(found)} verdicts" if found else "no claim is judged here"
        return f"{judged}; no published run to compare with: `icl build` makes it"
    compared = "" if short else f"; compared with {before}"
    if not found:
        return f"no claim is judged here{compared}"
    changed = sum(comparison.changed for comparison in found)
    pairs = [pair for comparison in found for pair in comparison.pairs]
    lie = f", {_lie(pairs)}" if pairs else ""
    return f"{changed} of {len(found)} verdicts changed{lie}{compared}"
