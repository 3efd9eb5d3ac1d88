"""Tables as Markdown, mostly of data frames: no number is typed by hand."""

import pandas as pd
from torch import Tensor

from icl.intervals import Estimate, number

ESTIMATE = ("value", "low", "high", "median")
WIDEST = 90  # characters that a page has room for


class Text(str):
    """Markdown, which a notebook shows as such."""

    def _repr_markdown_(self) -> str:
        return str(self)


def table(header: list[str], rows: list[list]) -> Text:
    """A Markdown table; a bar in a cell stays a bar.

    Intervals break between their ends only where the page is too narrow otherwise.
    """
    lines = [[str(cell).replace("|", r"\|") for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return Text(text.replace(",\N{NO-BREAK SPACE}", ", ") if _width(lines) > WIDEST else text)


def _width(lines: list[list[str]]) -> int:
    """The least number of characters across a table: in every column the longest unbroken text."""
    columns = zip(*lines, strict=True)
    return sum(max(len(x) for cell in cells for x in cell.split(" ")) + 2 for cells in columns)


def ranged(values: Tensor, decimals: int = 2) -> str:
    """Mean over seeds (M,) and range, without seeds in which there is no value."""
    found = values[values.isfinite()]
    if not len(found):
        return "none"
    ends = (found.mean(), found.min(), found.max())
    mean, low, high = (number(x.item(), decimals) for x in ends)
    return f"{mean} ({low} to {high})"


def show(frame: pd.DataFrame) -> Text:
    """A data frame as it is, a column each; cells may be text, numbers or estimates."""
    return table(list(frame.columns), frame.to_numpy(dtype=object).tolist())


def grid(frame: pd.DataFrame, row: str, column: str) -> Text:
    """Estimates, whose values and intervals are columns of `frame`, by two other columns.

    Rows and columns stand in the order in which they first appear; what is missing stays empty.
    """
    cells = {
        (line[row], line[column]): Estimate(*(line[part] for part in ESTIMATE))
        for line in frame.to_dict("records")
    }
    rows, columns = (list(dict.fromkeys(frame[name])) for name in (row, column))
    lines = [[name, *(cells.get((name, label), "") for label in columns)] for name in rows]
    return table([row, *columns], lines)
