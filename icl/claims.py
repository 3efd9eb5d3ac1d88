"""Claims of experiments, judged: statistics and thresholds, intervals over seeds, verdicts."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icl.errors import choose, require
from icl.intervals import Estimate, over_contexts, over_seeds
from icl.tables import Text, table
from icl.words import PLAIN, Unit, plain

CHEN = "Chen et al., 2024"
AFTER_CHEN = "this book, after Chen et al., 2024"  # implied by the paper, not stated in it
MAHANKALI = "Mahankali et al., 2024"
OURS = "this book"

MIME = "application/vnd.icl.verdict+json"
REPRODUCED = "reproduced"
CONDITIONAL = "reproduced under conditions"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "undecided"
NAMED = 4  # settings that a sentence can hold


@dataclass(frozen=True)
class Criterion:
    """A statistic that must exceed a threshold, and why the threshold is where it is.

    `measure` computes the statistic, from what an experiment measured in one setting to values
    over seeds, (M,), or one exact value, (), or to several by the name of the part that each is
    for; all of them must exceed the threshold. `statistic` says it in words, `bounds` are its least
    and largest value. The mean over seeds of a `ratio`, which can differ by orders of magnitude, is
    geometric, with an interval for its logarithm. `said` is what a person would say, with the
    number, in its `unit`, in place of {}.
    """

    statistic: str
    measure: Callable[[Any], Tensor | dict[str, Tensor]]
    threshold: float
    reason: str
    bounds: tuple[float, float] = (-math.inf, math.inf)
    ratio: bool = False
    said: str = "the statistic is {}"
    unit: Unit = PLAIN

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
        for (name, values), variance in zip(parts.items(), variances, strict=True):
            estimate = over_seeds(values, 1 - 0.05 / len(parts), variance)
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
        findings = (
            Finding(setting, criterion, *estimate)
            for setting, found in measured.items()
            for criterion in self.criteria
            for estimate in criterion.estimates(found, shared)
        )
        return Verdict(self, tuple(findings))


@dataclass(frozen=True)
class Finding:
    """One criterion, or a part of it, in one setting: its value over seeds, and the decision."""

    setting: str
    criterion: Criterion
    part: str
    estimate: Estimate
    seeds: int

    def to_dict(self) -> dict:
        """As plain data."""
        about = {name: getattr(self, name) for name in ("setting", "part", "decision")}
        by = {name: getattr(self.criterion, name) for name in ("statistic", "threshold")}
        return about | by | {"said": str(self)} | vars(self.estimate)

    def __str__(self) -> str:
        return self.criterion.unit.show(self.estimate.value)

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
    """A claim judged in settings."""

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
        names = [name for name, decision in self.settings.items() if decision == REPRODUCED]
        many = f"{len(names)} of {len(self.settings)} settings"
        return "; ".join(names) if len(names) <= NAMED else many

    @property
    def headline(self) -> str:
        """The outcome, with its conditions if there are any."""
        return f"{self.outcome} ({self.where})" if self.outcome == CONDITIONAL else self.outcome

    @property
    def sentence(self) -> str:
        """The outcome, with what is said of the criterion that decides it, and what is needed."""
        claim, criterion = self.claim, self.deciding
        said = self.said(criterion.unit.estimate)
        return (
            f"**{self.headline[0].upper()}{self.headline[1:]}.** “{claim.statement}” ({claim.id}) "
            f"{said}; needed: {criterion.unit.needed(criterion.threshold)}."
        )

    def said(self, show: Callable[[Estimate], str]) -> str:
        """What the deciding criterion comes to; of many settings, the lowest and the highest."""
        unit, found = self.deciding.unit, self.of(self.deciding)
        defined = [f for f in found if not math.isnan(f.estimate.value)]
        if not defined:
            return f"{self.deciding.statistic}: undefined in every setting"
        defined.sort(key=lambda f: f.estimate.value, reverse=unit.falls)
        ends = [defined[0], defined[-1]] if len(defined) > 1 else defined
        numbers = " to ".join(f"{show(f.estimate)} ({f.place})" for f in ends)
        text = self.deciding.said.format(numbers)
        return text[0].upper() + text[1:]

    def to_dict(self) -> dict:
        """What the scorecard needs, as plain data."""
        criterion = self.deciding
        return {
            **{name: getattr(self.claim, name) for name in ("id", "paper", "statement")},
            **{name: getattr(self, name) for name in ("outcome", "headline", "settings")},
            "statistic": self.deciding.statistic,
            "said": self.said(lambda found: criterion.unit.show(found.value)),
            "needed": criterion.unit.needed(criterion.threshold),
            "findings": [f.to_dict() for f in self.findings],
        }

    @property
    def deciding(self) -> Criterion:
        """The criterion that the fewest settings pass; of several, the first."""
        passing = {c: [*_worst(self.of(c)).values()].count(REPRODUCED) for c in self.claim.criteria}
        return min(self.claim.criteria, key=passing.get)

    def of(self, criterion: Criterion) -> list[Finding]:
        """The findings of one criterion, one for every setting and part."""
        return [f for f in self.findings if f.criterion == criterion]

    def at(self, place: str, criterion: int = 0) -> Finding:
        """What one criterion, counted from 0, comes to in a setting or a part of it."""
        found = {f.place: f for f in self.of(self.claim.criteria[criterion])}
        return found[choose("place", place, found)]

    def __str__(self) -> str:
        return f"{self.claim.id}: {self.outcome}. {self.claim.statement}"

    def _repr_mimebundle_(self, **_) -> dict:
        parts = [f"**{self.claim.id}: {self.headline}.** {self.claim.statement}"]
        for c in self.claim.criteria:
            parts.append(f"*Needed: {c.statistic}, above {plain(c.threshold)}.* {c.reason}")
            together = " together" * any(f.part for f in self.of(c))
            mean = f"{'geometric ' * c.ratio}mean [95 %{together}]"
            rows = [[f.place, f.decision, f.estimate, f.seeds] for f in self.of(c)]
            parts.append(table(["setting", "decision", mean, "seeds"], rows))
        data = json.dumps(self.to_dict())
        return {"text/markdown": "\n\n".join(parts), "text/plain": str(self), MIME: data}


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
