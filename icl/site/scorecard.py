"""The book's result on one page, from the chapters' verdicts: findings in words, scorecard."""

import re
from dataclasses import dataclass
from itertools import groupby
from math import copysign, isfinite, sqrt

from icl.claims import (
    AFTER_CHEN,
    CHEN,
    CONDITIONAL,
    MAHANKALI,
    NOT_REPRODUCED,
    OURS,
    REPRODUCED,
    UNDECIDED,
)
from icl.errors import Failed
from icl.tables import Text, table
from icl.words import plain

QUOTED = re.compile(r"\{found\}`([^`]+)`")

# Chapters and the verdicts that they reached.
Found = list[tuple[str, dict]]

PAPERS = (CHEN, AFTER_CHEN, MAHANKALI, OURS)
BADGES = {
    REPRODUCED: "success",
    CONDITIONAL: "warning",
    NOT_REPRODUCED: "danger",
    UNDECIDED: "secondary",
}
COLOURS = {REPRODUCED: "#1a9850", NOT_REPRODUCED: "#d73027", UNDECIDED: "#8a8a8a"}


@dataclass(frozen=True)
class Highlight:
    """A finding in a sentence with its number, which holds while the claim has this outcome.

    In `sentence` {lowest} and {highest} are what is said of the first statistic, from its lowest
    setting to its highest, {passing} and {settings} how many settings pass, of how many.
    """

    claim: str
    outcome: str
    sentence: str

    def text(self, found: Found) -> str:
        """The sentence with its numbers and a link; `Failed` if the claim's outcome is another."""
        judged = {verdict["id"]: (chapter, verdict) for chapter, verdict in found}
        if self.claim not in judged:
            raise Failed(f"the landing page quotes {self.claim}: no chapter judges it")
        chapter, verdict = judged[self.claim]
        if verdict["outcome"] != self.outcome:
            raise Failed(
                f"the landing page says that {self.claim} is {self.outcome}; it is "
                f"{verdict['outcome']} now: write its sentence in icl/site/scorecard.py anew"
            )
        first = verdict["findings"][0]["statistic"]
        numbers = [
            f for f in verdict["findings"] if f["statistic"] == first and isfinite(f["value"])
        ]
        numbers.sort(key=lambda f: f["value"])
        decisions = list(verdict["settings"].values())
        passing = decisions.count(REPRODUCED)
        said = self.sentence.format(
            lowest=numbers[0]["said"],
            highest=numbers[-1]["said"],
            passing=passing or "none",
            settings=len(decisions),
        )
        return f"- {said} ([{self.claim}]({chapter}))"


HIGHLIGHTS = (
    Highlight(
        "B1",
        REPRODUCED,
        "**One layer learns one step of gradient descent.** Trained from random weights, layers of "
        "linear self-attention come to within {lowest} of the best single step.",
    ),
    Highlight(
        "A1",
        REPRODUCED,
        "**More heads give lower risk.** Eight instead of one in each of three or five layers take "
        "away {lowest} to {highest} of it.",
    ),
    Highlight(
        "A2c",
        CONDITIONAL,
        "**Every head of the first layer is needed only where sparsity is worth much,** and there "
        "mostly without weight decay: in {passing} of {settings} cells of a grid of tasks and "
        "kinds of training.",
    ),
    Highlight(
        "A3c",
        NOT_REPRODUCED,
        "**Later layers that rely on one head** after a first one that uses many are found in "
        "{passing} of these {settings} cells: a step takes one head, in whichever layer it is "
        "taken.",
    ),
    Highlight(
        "A18",
        CONDITIONAL,
        "**One head per step is the cheapest way to take it.** That is a theorem; strong weight "
        "decay merges steps that were split over heads, in {passing} of {settings} settings.",
    ),
    Highlight(
        "C1",
        CONDITIONAL,
        "**Preprocessing is what beats a dense prior, and takes degree 3.** Sparsity begins to pay "
        "with the term r̂³ in {passing} of {settings} tasks, mostly those of one non-zero weight.",
    ),
)


def highlights(found: Found) -> str:
    """The findings of the book, a sentence each."""
    return "\n".join(highlight.text(found) for highlight in HIGHLIGHTS)


def scorecard(found: Found) -> str:
    """A table per origin of the claims: the claim, its verdict, and what was found."""
    parts = []
    for paper, group in groupby(sorted(found, key=place), key=lambda pair: pair[1]["paper"]):
        rows = [
            [
                f"[{verdict['id']}]({chapter}) {verdict['statement']}",
                f"{{bdg-{BADGES[verdict['outcome']]}}}`{verdict['outcome']}`",
                f"{strip(verdict)} {verdict['said']}; needed: {verdict['needed']}.",
            ]
            for chapter, verdict in group
        ]
        parts.append(f"**{paper[0].upper()}{paper[1:]}**")
        header = ["claim", "verdict", "what was found"]
        parts.append(f":::{{div}} scorecard\n{table(header, rows)}\n:::")
    return "\n\n".join(parts)


def quoted(text: str, found: Found) -> str:
    """A page's text, with what the chapters found in place of {found}`claim; place; criterion`.

    A place is a setting, with the part if a criterion has several, or the lowest or the highest;
    criteria are counted from 0, and the first may be left out.
    """
    judged = {verdict["id"]: verdict for _, verdict in found}

    def said(asked: re.Match) -> str:
        claim, place, *criterion = asked[1].split("; ")
        if claim not in judged:
            raise Failed(f"a page quotes {claim}: no chapter judges it")
        findings = judged[claim]["findings"]
        statistics = [*dict.fromkeys(f["statistic"] for f in findings)]
        number = criterion[0] if criterion else "0"
        if number not in map(str, range(len(statistics))):
            last = len(statistics) - 1
            raise Failed(f"a page quotes criterion {number} of {claim}: known are 0 to {last}")
        wanted = statistics[int(number)]
        chosen = sorted((f for f in findings if f["statistic"] == wanted), key=lambda f: f["value"])
        known = {", ".join(filter(None, (f["setting"], f["part"]))): f["said"] for f in chosen}
        known |= {"lowest": chosen[0]["said"], "highest": chosen[-1]["said"]}
        if place not in known:
            raise Failed(f"a page quotes {claim} at {place!r}: known are {'; '.join(known)}")
        return known[place]

    return QUOTED.sub(said, text)


def place(pair: tuple[str, dict]) -> tuple:
    """A claim's place: whose it is, the book's own kinds first, then the order of letters and
    numbers, A2, A2c, A10, B1.
    """
    letter, digits, rest = re.fullmatch(r"(\D*)(\d*)(.*)", pair[1]["id"]).groups()
    paper = pair[1]["paper"]
    known = PAPERS.index(paper) if paper in PAPERS else len(PAPERS)  # a fork has papers of its own
    return known, paper, letter, int(digits or 0), rest


def strip(verdict: dict) -> str:
    """The deciding statistic's settings as dots in a line of SVG: right of the bar they pass.

    Distances from the threshold are square roots, as shares of the claim's largest. Lines are
    intervals, as far as there is room.
    """
    found = [f for f in verdict["findings"] if f["statistic"] == verdict["statistic"]]
    found = [f for f in found if isfinite(f["value"])]
    most = max((abs(f["value"] - f["threshold"]) for f in found), default=0) or 1.0

    def x(f: dict, end: str) -> str:
        gap = f[end] - f["threshold"]
        return f"{75 + copysign(68 * sqrt(min(abs(gap) / most, 1.0)), gap):.0f}"

    marks = "".join(
        f'<path d="M{x(f, "low")} 8H{x(f, "high")}" stroke="{colour}" stroke-opacity="0.4" '
        f'stroke-width="3"/><circle cx="{x(f, "value")}" cy="8" r="4" fill="{colour}" '
        f'fill-opacity="0.7"/>'
        for f in found
        for colour in [COLOURS[f["decision"]]]
    )
    passing = sum(f["decision"] == REPRODUCED for f in found)
    label = f"{passing} of {len(found)} numbers are beyond the threshold"
    return (
        f'<svg class="strip" viewBox="0 0 150 16" width="150" height="16" role="img" '
        f'aria-label="{label}"><path d="M0 8H150M75 0V16" stroke="currentColor" '
        f'stroke-opacity="0.5"/>{marks}</svg>'
    )


def details(found: Found) -> Text:
    """Every statistic of every claim: what it must exceed, and its range over settings."""
    rows = []
    for chapter, verdict in sorted(found, key=place):
        for statistic in dict.fromkeys(f["statistic"] for f in verdict["findings"]):
            group = [f for f in verdict["findings"] if f["statistic"] == statistic]
            listed = [f for f in group if isfinite(f["value"])] or group
            listed.sort(key=lambda f: f["value"])
            passing = sum(f["decision"] == REPRODUCED for f in listed)
            ends = [f"{f['said']} ({f['setting']})" for f in (listed[0], listed[-1])]
            counted = f"{passing} of {len(listed)}"
            link = f"[{verdict['id']}]({chapter})"
            above = f"{statistic}, above {plain(listed[0]['threshold'])}"
            rows.append([link, above, counted, *ends])
    return table(["claim", "needed", "numbers that pass", "lowest", "highest"], rows)
