"""What the papers claim, the statistic and threshold that decide, and the verdict."""

import json
from dataclasses import dataclass

from torch import Tensor

from icl.errors import choose, require
from icl.markdown import table
from icl.risk import Estimate, over_seeds

MIME = "application/vnd.icl.verdict+json"
REPRODUCED, CONDITIONAL, NOT_REPRODUCED, UNDECIDED = (
    "reproduced",
    "reproduced under conditions",
    "not reproduced",
    "undecided",
)


@dataclass(frozen=True)
class Criterion:
    """A statistic that must exceed a threshold, and why the threshold is where it is."""

    statistic: str
    threshold: float
    reason: str

    def decide(self, estimate: Estimate) -> str:
        """Reproduced if the whole interval is above the threshold, not if it is below."""
        if estimate.low > self.threshold:
            return REPRODUCED
        return NOT_REPRODUCED if estimate.high < self.threshold else UNDECIDED


@dataclass(frozen=True)
class Claim:
    """A claim of a paper; it holds in a setting if all its criteria do."""

    id: str
    paper: str
    statement: str
    criteria: tuple[Criterion, ...]


CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "A2",
            "Chen et al., 2024",
            "Every head of the first layer matters.",
            (
                Criterion(
                    "smallest relative rise of the mean excess risk when one first-layer head "
                    "is masked",
                    0.1,
                    "A head matters if the model is clearly worse without it: by a tenth. The "
                    "rise is relative to the risk, not to the other heads' rises, because a "
                    "head with a small share of a large rise can still not be spared.",
                ),
            ),
        ),
        Claim(
            "A3",
            "Chen et al., 2024",
            "Later layers usually rely on one head.",
            (
                Criterion(
                    "top-1 share of importance, in the later layer where it is smallest",
                    0.5,
                    "Above one half, one head outweighs all others of its layer together.",
                ),
                Criterion(
                    "normalised entropy of importance in layer 1 minus the mean of later layers",
                    0.0,
                    "Above zero, the first layer spreads its work over more heads than the "
                    "later ones do.",
                ),
            ),
        ),
    )
}


@dataclass(frozen=True)
class Verdict:
    """A claim judged in one or more settings.

    rows: (setting, statistic, estimate, threshold, decision) for every setting and criterion.
    """

    claim: Claim
    seeds: dict[str, int]
    rows: tuple[tuple[str, str, Estimate, float, str], ...]

    @property
    def settings(self) -> dict[str, str]:
        """The decision in every setting: the worst of its criteria."""
        worst = (REPRODUCED, UNDECIDED, NOT_REPRODUCED)
        return {
            name: max((row[4] for row in self.rows if row[0] == name), key=worst.index)
            for name in self.seeds
        }

    @property
    def outcome(self) -> str:
        """What all settings agree on; else under conditions if some reproduce it, or undecided."""
        decisions = set(self.settings.values())
        if len(decisions) == 1:
            return decisions.pop()
        return CONDITIONAL if REPRODUCED in decisions else UNDECIDED

    def to_dict(self) -> dict:
        """What the scorecard needs, as plain data."""
        return {
            "id": self.claim.id,
            "paper": self.claim.paper,
            "statement": self.claim.statement,
            "outcome": self.outcome,
            "criteria": [
                {
                    "statistic": criterion.statistic,
                    "threshold": criterion.threshold,
                    "settings": {row[0]: str(row[2]) for row in self._of(criterion)},
                }
                for criterion in self.claim.criteria
            ],
        }

    def _of(self, criterion: Criterion) -> list[tuple]:
        return [row for row in self.rows if row[1] == criterion.statistic]

    def __str__(self) -> str:
        return f"{self.claim.id}: {self.outcome}. {self.claim.statement}"

    def _repr_mimebundle_(self, **_) -> dict:
        parts = [f"**{self.claim.id}: {self.outcome}.** {self.claim.statement}"]
        header = ["setting", "seeds", "mean over seeds [95 %]", "decision"]
        for criterion in self.claim.criteria:
            least = f"above {criterion.threshold:g}"
            parts.append(f"*Needed: {criterion.statistic}, {least}.* {criterion.reason}")
            rows = [[f"`{r[0]}`", self.seeds[r[0]], r[2], r[4]] for r in self._of(criterion)]
            parts.append(table(header, rows))
        return {
            "text/markdown": "\n\n".join(parts),
            "text/plain": str(self),
            MIME: json.dumps(self.to_dict()),
        }


def judge(claim_id: str, settings: dict[str, tuple[Tensor, ...]]) -> Verdict:
    """Judge a claim: per setting, one tensor (M,) of values over seeds for each criterion."""
    claim = CLAIMS[choose("claim", claim_id, CLAIMS)]
    rows = []
    for setting, statistics in settings.items():
        require(
            len(statistics) == len(claim.criteria),
            f"{len(statistics)} statistics for {claim.id}: it has {len(claim.criteria)} criteria",
        )
        for criterion, values in zip(claim.criteria, statistics, strict=True):
            estimate = over_seeds(values)
            decision = criterion.decide(estimate)
            rows.append((setting, criterion.statistic, estimate, criterion.threshold, decision))
    return Verdict(claim, {name: len(values[0]) for name, values in settings.items()}, tuple(rows))
