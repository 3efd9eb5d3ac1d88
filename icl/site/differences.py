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
    """A verdict beside the published one on the same claim, if there is one."""

    here: dict
    there: dict

    @property
    def changed(self) -> bool:
        """Was anything decided otherwise?"""
        return bool(self.there) and (bool(self.moved) or self._outcomes[0] != self._outcomes[1])

    @property
    def _outcomes(self) -> tuple[str, str]:
        return self.here["outcome"], self.there["outcome"]

    @property
    def moved(self) -> list[str]:
        """The settings of both in which the decision differs."""
        here, there = (verdict.get("settings", {}) for verdict in (self.here, self.there))
        return [
            f"{setting}: {decision}; published: {there[setting]}"
            for setting, decision in here.items()
            if there.get(setting, decision) != decision
        ]

    @property
    def pairs(self) -> list[tuple[dict, dict]]:
        """The estimates of both, each beside the published one."""
        known = {_key(finding): finding for finding in self.there.get("findings", [])}
        here = self.here.get("findings", [])
        return [(finding, known[_key(finding)]) for finding in here if _key(finding) in known]

    @property
    def outside(self) -> list[tuple[dict, dict]]:
        """The estimates that are not in the published intervals."""
        return [pair for pair in self.pairs if not _inside(*pair)]

    def lines(self) -> Iterator[str]:
        """The claim, both verdicts, and what differs."""
        yield from wrap(f"{self.here['id']}: {self.here['statement']}", width(), **HANGING)
        outcome = self.here.get("headline", self.here["outcome"])
        if not self.there:
            yield from entry("verdict", f"{outcome}; not judged in the published run")
            yield from entry("here", _said(self.here))
            return
        before = self.there.get("headline", self.there["outcome"])
        same = "as published" if outcome == before else f"published: {before}"
        yield from entry("verdict", f"{outcome}; {same}")
        yield from entry("here", _said(self.here))
        yield from entry("published", _said(self.there))
        for text in self.moved:
            yield from entry("changed", text)
        if self.pairs:
            inside = len(self.pairs) - len(self.outside)
            text = f"{inside} of {len(self.pairs)} estimates lie in the published intervals"
            yield from entry("intervals", text)
        for here, there in self.outside[:SHOWN]:
            text = f"{_place(here)}: {_estimate(here)}; published: {_estimate(there)}"
            yield from entry("outside", text)
        if len(self.outside) > SHOWN:
            yield from entry("outside", f"and {len(self.outside) - SHOWN} more")


HANGING = {"subsequent_indent": "    ", "break_on_hyphens": False}


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


def _place(finding: dict) -> str:
    return ", ".join(filter(None, (finding["setting"], finding["part"], finding["statistic"])))


def _estimate(finding: dict) -> str:
    value, low, high = (finding[name] for name in ("value", "low", "high"))
    return str(Estimate(value, low, high, value))


def _said(verdict: dict) -> str:
    """What decides a verdict, in words."""
    return verdict.get("said", verdict.get("numbers", ""))


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
    known = before.verdicts if before else {}
    return [Comparison(verdict, known.get(verdict["id"], {})) for verdict in verdicts(run)]


def _summary(found: list[Comparison], before: Published | None, short: bool = False) -> str:
    """How many verdicts changed, and how many estimates lie in their published intervals."""
    beside = f"; compared with {before}" if before and not short else ""
    if not before:
        beside = "; no published run to compare with: `icl build` makes it"
    if not found:
        return f"no claim is judged here{beside}"
    if not before:
        return f"{len(found)} verdicts{beside}"
    changed = sum(comparison.changed for comparison in found)
    pairs = [pair for comparison in found for pair in comparison.pairs]
    inside = sum(_inside(*pair) for pair in pairs)
    lie = f", {inside} of {len(pairs)} estimates lie in the published intervals" if pairs else ""
    return f"{changed} of {len(found)} verdicts changed{lie}{beside}"
