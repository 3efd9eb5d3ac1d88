"""The book as a site: chapters executed, pages built. For Sphinx this is an extension as well."""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

MARKUP = re.compile(r"([\\*_|])")  # what prose means literally and reStructuredText does not
FIELD = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*): ")  # a line that says what a field of a class is


def setup(app: Any) -> dict:
    """Sphinx calls this (see _config.yml).

    Unhooks sphinx-thebe, which would load a CDN's code, and has docstrings read as the plain
    prose that they are.
    """
    app.setup_extension("sphinx_thebe")
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}


def _process(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = markup(lines)


def markup(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText.

    Between blank lines stand an example, which begins with `>>>`; a formula, which is indented;
    fields, of which each begins a line as in `name: what it is`; or prose. In the last two, code is
    in backticks, and every other sign is meant as it stands.
    """
    found: list[str] = []
    for blank, block in groupby(lines, lambda line: not line.strip()):
        found += [""] if blank else _block(list(block))
    return found


def _block(lines: list[str]) -> Iterator[str]:
    if lines[0].startswith(">>>"):
        yield from lines
    elif lines[0].startswith(" "):
        yield from ("::", "", *lines)
    elif FIELD.match(lines[0]):
        for line in lines:
            field = FIELD.match(line)
            text = _literal(line[field.end() :] if field else line.strip())
            yield f"* ``{field[1]}``: {text}" if field else f"  {text}"
    else:
        yield from map(_literal, lines)


def _literal(text: str) -> str:
    """Prose whose code is marked as such and whose other signs mean themselves."""
    parts = text.split("`")
    return "".join(
        f"``{part}``" if code else MARKUP.sub(r"\\\1", part)
        for code, part in zip([False, True] * len(parts), parts, strict=False)
    )
