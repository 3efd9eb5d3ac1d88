"""For Sphinx: the glossary's definitions as a script, which tooltips read (book/_static/terms.js).

A page that was opened as a file may not fetch another one, but it may load a script.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes


def setup(app: Any) -> dict:
    """Sphinx calls this (see _config.yml)."""
    app.connect("doctree-read", _needs_mathematics)
    app.connect("build-finished", _write)
    app.add_css_file("terms.css")
    for script in ("definitions.js", "terms.js"):
        app.add_js_file(script, loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _needs_mathematics(app: Any, document: nodes.document) -> None:
    """Load MathJax on every page that uses a term: its definition may have formulas."""
    used = document.findall(addnodes.pending_xref)
    if any(link["reftype"] == "term" for link in used):
        app.env.get_domain("math").data["has_equations"][app.env.docname] = True


def _write(app: Any, failure: Exception | None) -> None:
    if failure or app.builder.format != "html":
        return
    found = app.env.get_domain("std").get_objects()
    pages = sorted({page for _, _, kind, page, _, _ in found if kind == "term"})
    definitions = {
        anchor: app.builder.render_partial(paragraph)["fragment"]
        for page in pages
        for anchor, paragraph in summaries(app.env.get_and_resolve_doctree(page, app.builder))
    }
    script = f"window.DEFINITIONS = {json.dumps(definitions, ensure_ascii=False, indent=0)};\n"
    (Path(app.outdir) / "_static" / "definitions.js").write_text(script, encoding="utf-8")


def summaries(document: nodes.document) -> list[tuple[str, nodes.paragraph]]:
    """The anchor of every term with the first paragraph of its definition, without its links."""
    found = []
    for item in document.findall(nodes.definition_list_item):
        terms = [child for child in item if isinstance(child, nodes.term)]
        paragraph = item[-1][0].deepcopy()
        for link in list(paragraph.findall(nodes.reference)):
            link.replace_self(link.children)
        found += [(anchor, paragraph) for term in terms for anchor in term["ids"]]
    return found
