"""Claims judged: a statistic and a threshold for each criterion, intervals over seeds, a verdict.

What is claimed stands in the experiment that puts it to the test.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icl.errors import require
from icl.intervals import Estimate, over_contexts, over_seeds
from icl.tables import Text, table

CHEN = "Chen et al., 2024"
AFTER_CHEN = "this book, after Chen et al., 2024"  # implied by the paper, not stated in it
MAHANKALI = "Mahankali et al., 2024"
OURS = "this book"

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
    over seeds, (M,), or one exact value, (), or to several by the name of the part that each is
    for; all of them must exceed the threshold. `statistic` says it in words, `bounds` are its least
    and largest value. The mean over seeds of a `ratio`, which can differ by orders of magnitude, is
    geometric, with an interval for its logarithm.
    """

    statistic: str
    measure: Callable[[Any], Tensor | dict[str, Tensor]]
    threshold: float
    reason: str
    bounds: tuple[float, float] = (-math.inf, math.inf)
    ratio: bool = False

    def estimates(self, found: Any, shared: bool) -> Iterator[tuple[str, Estimate, int]]:
        """The name, the estimate and the number of seeds of every part.

        Intervals of K parts have a level of 1 − 0.05/K (Bonferroni), so that all K together
        hold theirs with 95 %. They cover contexts as well where the seeds `shared` them.
        """
        parts = self._parts(found)
        variances = [0.0] * len(parts)
        if shared:
            stacked = over_contexts(lambda x: torch.stack([*self._parts(x).values()]), found)
            variances = stacked.tolist()
        level = 1 - 0.05 / len(parts)
        for (name, values), variance in zip(parts.items(), variances, strict=True):
            estimate = over_seeds(values, level, variance)
            estimate = estimate.exp() if self.ratio else estimate.within(*self.bounds)
            yield name, estimate, values.numel()

    def _parts(self, found: Any) -> dict[str, Tensor]:
        """What is averaged over seeds: the statistic or, of a ratio, its logarithm."""
        measured = self.measure(found)
        parts = measured if isinstance(measured, dict) else {"": measured}
        return {name: x.log() for name, x in parts.items()} if self.ratio else parts


@dataclass(frozen=True)
class Claim:
    """A claim of a paper; it holds in a setting if all its criteria do."""

    id: str
    paper: str
    statement: str
    criteria: tuple[Criterion, ...]

    def judge(self, measured: dict[str, Any], shared: bool = False) -> "Verdict":
        """Judge the claim by what was measured in every setting.

        With `shared`, all seeds were measured on the same contexts, which tensors have on their
        last axis (see `intervals.without`): the intervals then cover seeds and contexts.
        """
        require(bool(measured), f"{self.id}: at least one setting is needed")
        return Verdict(
            self,
            tuple(
                Finding(setting, criterion, *estimate)
                for setting, found in measured.items()
                for criterion in self.criteria
                for estimate in criterion.estimates(found, shared)
            ),
        )


@dataclass(frozen=True)
class Finding:
    """One criterion, or a part of it, in one setting: its value over seeds, and the decision."""

    setting: str
    criterion: Criterion
    part: str
    estimate: Estimate
    seeds: int

    @property
    def place(self) -> str:
        """The setting and the part."""
        return f"{self.setting}, {self.part}" if self.part else self.setting

    @property
    def decision(self) -> str:
        """Reproduced if the whole interval is above the threshold, not if it is below."""
        if self.estimate.low > self.criterion.threshold:
            return REPRODUCED
        return NOT_REPRODUCED if self.estimate.high < self.criterion.threshold else UNDECIDED


@dataclass(frozen=True)
class Verdict:
    """A claim judged in one or more settings."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def settings(self) -> dict[str, str]:
        """The decision in every setting: the worst of its criteria."""
        return _worst(self.findings)

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
        many = f"{len(names)} of {len(found)} settings"
        return many if len(names) > NAMED else "; ".join(names)

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
            f"{self.numbers(criterion)}, {self._kind(criterion, 'with 95 % interval')}; needed: "
            f"above {criterion.threshold:.3g}."
        )

    def _kind(self, criterion: Criterion, interval: str) -> str:
        exact = all(f.seeds == 1 for f in self.of(criterion))
        return "exact" if exact else f"{'geometric ' * criterion.ratio}mean over seeds {interval}"

    def numbers(self, criterion: Criterion) -> str:
        """The estimates of one criterion where it is defined; of many, the lowest and highest."""
        defined = [f for f in self.of(criterion) if not math.isnan(f.estimate.value)]
        if not defined:
            return "undefined in every setting"
        found = sorted(defined, key=lambda f: f.estimate.value)
        link = "; "
        if len(found) > NAMED:
            found, link = [found[0], found[-1]], " to "
        return link.join(f"{f.estimate} ({f.place})" for f in found)

    def to_dict(self) -> dict:
        """What the scorecard needs, as plain data."""
        return {
            "id": self.claim.id,
            "paper": self.claim.paper,
            "statement": self.claim.statement,
            "outcome": self.outcome,
            "headline": self.headline,
            "settings": self.settings,
            "statistic": self.deciding.statistic,
            "threshold": self.deciding.threshold,
            "numbers": self.numbers(self.deciding),
        }

    @property
    def deciding(self) -> Criterion:
        """The criterion that the fewest settings pass; of several, the first."""
        passing = {c: [*_worst(self.of(c)).values()].count(REPRODUCED) for c in self.claim.criteria}
        return min(self.claim.criteria, key=passing.get)

    def of(self, criterion: Criterion) -> list[Finding]:
        """The findings of one criterion, one for every setting and part."""
        return [f for f in self.findings if f.criterion == criterion]

    def __str__(self) -> str:
        return f"{self.claim.id}: {self.outcome}. {self.claim.statement}"

    def _repr_mimebundle_(self, **_) -> dict:
        parts = [f"**{self.claim.id}: {self.headline}.** {self.claim.statement}"]
        for criterion in self.claim.criteria:
            mean = self._kind(criterion, "[95 %]")
            least = f"above {criterion.threshold:.3g}"
            parts.append(f"*Needed: {criterion.statistic}, {least}.* {criterion.reason}")
            rows = [[f.place, f.seeds, f.estimate, f.decision] for f in self.of(criterion)]
            parts.append(table(["setting", "seeds", mean, "decision"], rows))
        return {
            "text/markdown": "\n\n".join(parts),
            "text/plain": str(self),
            MIME: json.dumps(self.to_dict()),
        }


def _worst(findings: Iterable[Finding]) -> dict[str, str]:
    """The worst decision by setting."""
    order = (REPRODUCED, UNDECIDED, NOT_REPRODUCED)
    found: dict[str, str] = {}
    for f in findings:
        found[f.setting] = max(found.get(f.setting, REPRODUCED), f.decision, key=order.index)
    return found


def judge(claims: Iterable[Claim], found: dict[str, Any], shared=False) -> dict[str, Verdict]:
    """Verdicts on several claims, by their names, of the same measurements; see `Claim.judge`."""
    return {claim.id: claim.judge(found, shared) for claim in claims}


@dataclass(frozen=True)
class Judged:
    """What an experiment that judges claims returns: verdicts, and all else that it measured."""

    verdicts: dict[str, Verdict]

    @property
    def finding(self) -> Text:
        """A sentence per verdict."""
        return Text("\n\n".join(verdict.sentence for verdict in self.verdicts.values()))
