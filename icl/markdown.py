"""Markdown tables, for verdicts, generated pages and chapters."""

from icl.risk import Estimate


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table; estimates do not break over lines."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(content: object) -> str:
    text = str(content)
    return text.replace(" ", "\N{NO-BREAK SPACE}") if isinstance(content, Estimate) else text
