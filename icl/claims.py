"""Claims judged: a statistic and a threshold for each criterion, intervals over seeds, a verdict.

What is claimed stands in the experiment that puts it to the test.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from icl.errors import require
from icl.intervals import Estimate, over_seeds
from icl.tables import Text, table

CHEN = "Chen et al., 2024"
AFTER_CHEN = "this book, after Chen et al., 2024"  # implied by the paper, not stated in it
MAHANKALI = "Mahankali et al., 2024"

MIME = "application/vnd.icl.verdict+json"
REPRODUCED, CONDITIONAL, NOT_REPRODUCED, UNDECIDED = (
    "reproduced",
    "reproduced under conditions",
    "not reproduced",
    "undecided",
)
NAMED = 4  # settings that a sentence can hold


@dataclass(frozen=True)
class Criterion:
    """A statistic that must exceed a threshold, and why the threshold is where it is.

    `measure` computes the statistic, from what an experiment measured in one setting to values
    over seeds, (M,); `statistic` says it in words.
    """

    statistic: str
    measure: Callable[[Any], Tensor]
    threshold: float
    reason: str


@dataclass(frozen=True)
class Claim:
    """A claim of a paper; it holds in a setting if all its criteria do."""

    id: str
    paper: str
    statement: str
    criteria: tuple[Criterion, ...]

    def judge(self, measured: dict[str, Any]) -> "Verdict":
        """Judge the claim by what was measured in every setting."""
        require(bool(measured), f"{self.id}: at least one setting is needed")
        findings = []
        for setting, found in measured.items():
            for criterion in self.criteria:
                values = criterion.measure(found)
                findings.append(Finding(setting, criterion, over_seeds(values), len(values)))
        return Verdict(self, tuple(findings))


def decide(criterion: Criterion, estimate: Estimate) -> str:
    """Reproduced if the whole interval is above the threshold, not if it is below."""
    if estimate.low > criterion.threshold:
        return REPRODUCED
    return NOT_REPRODUCED if estimate.high < criterion.threshold else UNDECIDED


@dataclass(frozen=True)
class Finding:
    """One criterion in one setting: its value over seeds, and the decision."""

    setting: str
    criterion: Criterion
    estimate: Estimate
    seeds: int

    @property
    def decision(self) -> str:
        return decide(self.criterion, self.estimate)


@dataclass(frozen=True)
class Verdict:
    """A claim judged in one or more settings."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def settings(self) -> dict[str, str]:
        """The decision in every setting: the worst of its criteria."""
        worst = (REPRODUCED, UNDECIDED, NOT_REPRODUCED)
        found: dict[str, str] = {}
        for f in self.findings:
            found[f.setting] = max(found.get(f.setting, REPRODUCED), f.decision, key=worst.index)
        return found

    @property
    def outcome(self) -> str:
        """What all settings agree on; else under conditions if some reproduce it, or undecided."""
        decisions = set(self.settings.values())
        if len(decisions) == 1:
            return decisions.pop()
        return CONDITIONAL if REPRODUCED in decisions else UNDECIDED

    @property
    def where(self) -> str:
        """The settings in which the claim is reproduced, or their number if they are many."""
        found = self.settings
        names = [name for name, decision in found.items() if decision == REPRODUCED]
        if len(names) > NAMED:
            return f"{len(names)} of {len(found)} settings"
        return "; ".join(names)

    @property
    def headline(self) -> str:
        """The outcome, with its conditions if there are any."""
        return f"{self.outcome} ({self.where})" if self.outcome == CONDITIONAL else self.outcome

    @property
    def sentence(self) -> str:
        """The outcome, with the numbers of the criterion that decides it."""
        claim, criterion = self.claim, self.deciding
        return (
            f"**{claim.id}, {self.headline}:** “{claim.statement}” The {criterion.statistic} is "
            f"{self.numbers(criterion)}, mean over seeds with 95 % interval; needed: above "
            f"{criterion.threshold:g}."
        )

    def numbers(self, criterion: Criterion) -> str:
        """The estimates of one criterion where it is defined; of many, the lowest and highest."""
        defined = [f for f in self.of(criterion) if not math.isnan(f.estimate.value)]
        if not defined:
            return "undefined in every setting"
        found = sorted(defined, key=lambda f: f.estimate.value)
        link = "; "
        if len(found) > NAMED:
            found, link = [found[0], found[-1]], " to "
        return link.join(f"{f.estimate} ({f.setting})" for f in found)

    def to_dict(self) -> dict:
        """What the scorecard needs, as plain data."""
        return {
            "id": self.claim.id,
            "paper": self.claim.paper,
            "statement": self.claim.statement,
            "outcome": self.outcome,
            "headline": self.headline,
            "statistic": self.deciding.statistic,
            "threshold": self.deciding.threshold,
            "numbers": self.numbers(self.deciding),
        }

    @property
    def deciding(self) -> Criterion:
        """The first criterion that fails or is open in some setting; else the first of all."""
        open_ones = [f.criterion for f in self.findings if f.decision != REPRODUCED]
        criteria = self.claim.criteria
        return min(open_ones, key=criteria.index, default=criteria[0])

    def of(self, criterion: Criterion) -> list[Finding]:
        """The findings of one criterion, a setting each."""
        return [f for f in self.findings if f.criterion == criterion]

    def __str__(self) -> str:
        return f"{self.claim.id}: {self.outcome}. {self.claim.statement}"

    def _repr_mimebundle_(self, **_) -> dict:
        parts = [f"**{self.claim.id}: {self.headline}.** {self.claim.statement}"]
        header = ["setting", "seeds", "mean over seeds [95 %]", "decision"]
        for criterion in self.claim.criteria:
            least = f"above {criterion.threshold:g}"
            parts.append(f"*Needed: {criterion.statistic}, {least}.* {criterion.reason}")
            rows = [[f.setting, f.seeds, f.estimate, f.decision] for f in self.of(criterion)]
            parts.append(table(header, rows))
        return {
            "text/markdown": "\n\n".join(parts),
            "text/plain": str(self),
            MIME: json.dumps(self.to_dict()),
        }


def finding(verdicts: Iterable[Verdict]) -> Text:
    """One sentence per verdict."""
    return Text("\n\n".join(verdict.sentence for verdict in verdicts))
