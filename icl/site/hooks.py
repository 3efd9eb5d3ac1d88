"""What Sphinx does to pages beyond its theme: descriptions, search in prose, references by name."""

import re
from html import escape
from typing import Any

from docutils import nodes
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle

LONGEST = 200  # characters of a description, about what search engines and cards show
SHORTEST = 60  # a sentence like "Reproduced." describes nothing


def setup(app: Any) -> dict:
    """Sphinx calls this (see _config.yml)."""
    register_plugin("pybtex.style.formatting", "author_year", ByName)
    app.connect("builder-inited", _index_prose)
    app.connect("html-page-context", _describe)
    return {"parallel_read_safe": True}


class AuthorYear(BaseLabelStyle):
    """Labels of references as the text cites them: Chen et al., 2024."""

    def format_labels(self, entries: list[Any]) -> list[str]:
        """A label per entry."""
        return [f"{_authors(entry)}, {entry.fields['year']}" for entry in entries]


class ByName(Style):
    """BibTeX's plain style, but its labels are names and years, not numbers."""

    default_label_style = AuthorYear


def _authors(entry: Any) -> str:
    """The family names of one or two authors; of more, the first's."""
    names = [
        " ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names]))
        for person in entry.persons["author"]
    ]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def _index_prose(app: Any) -> None:
    """Keep the source of code cells, which pages fold away, out of the search index."""
    if app.builder.format != "html":
        return
    whole = app.builder.index_page

    def index_page(pagename: str, doctree: nodes.document, title: str) -> None:
        prose = doctree.deepcopy()
        for node in list(prose.findall(nodes.container)):
            if "cell_input" in node["classes"]:
                node.parent.remove(node)
        whole(pagename, prose, title)

    app.builder.index_page = index_page


def _describe(app: Any, pagename: str, _template: str, context: dict, doctree: Any) -> None:
    """Give a page its description and what a link to it shows elsewhere (Open Graph).

    The address is left out where the book's is not known.
    """
    if pagename == app.config.root_doc:
        context["docstitle"] = ""  # the page's title is the book's
    if doctree is None:
        return
    # myst-nb's label would hide what the summary says from those who hear it.
    context["body"] = context["body"].replace(' aria-label="Toggle hidden content"', "")
    about = description(doctree)
    shown = {
        "og:type": "website" if pagename == app.config.root_doc else "article",
        "og:site_name": app.config.html_title,
        "og:title": context["title"],
        "og:description": about,
        "og:url": context.get("pageurl"),
    }
    tags = [f'<meta name="description" content="{escape(about)}">']
    tags += [
        f'<meta property="{name}" content="{escape(text)}">' for name, text in shown.items() if text
    ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


def description(doctree: nodes.document) -> str:
    """A page's first sentences, as many as fit; of a longer sentence, its first words."""
    text = " ".join(next((p.astext() for p in doctree.findall(nodes.paragraph)), "").split())
    if len(text) <= LONGEST:
        return text
    ends = [stop.end() for stop in re.finditer(r"(?<! al)[.?!](?= )", text[:LONGEST])]
    if ends and ends[-1] >= SHORTEST:
        return text[: ends[-1]]
    return text[:LONGEST].rpartition(" ")[0] + " …"
