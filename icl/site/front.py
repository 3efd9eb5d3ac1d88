"""What stands beside the book's pages: the front door, the page of what is missing, the map."""

from html import escape
from pathlib import Path

TITLE = "How Transformers Use Their Heads In Context"
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

# jupyter-book's own redirect names no icon, and browsers then ask for one that is not there.
DOOR = f"""{HEAD}<title>{TITLE}</title>
<link rel="icon" href="_static/favicon.svg">
<meta http-equiv="refresh" content="0; url=book/intro.html">
<a href="book/intro.html">{TITLE}</a>
"""

# Shown in place of an address at any depth, so it needs no other file of the site.
MISSING = """{head}<title>No such page: {title}</title>
<link rel="icon" href="data:,">
<style>body {{ font: 1.1rem/1.6 sans-serif; max-width: 36rem; margin: 15vh auto }}</style>
<main>
<h1>There is no such page</h1>
<p>It may have been renamed. <a href="{site}">The book begins here</a>; or search it:</p>
<form action="{site}search.html" role="search">
<input name="q" type="search" aria-label="Search the book"> <button>Search</button>
</form>
</main>
"""


def write(folder: Path, names: list[str], site: str | None) -> None:
    """Write them into a built site that has pages book/<name>.html.

    `site` is the address it is published at; without one there is no map, whose links must be
    absolute, and the book is sought at its server's root.
    """
    (folder / "index.html").write_text(DOOR, encoding="utf-8")
    missing = MISSING.format(head=HEAD, title=TITLE, site=escape(site or "/"))
    (folder / "404.html").write_text(missing, encoding="utf-8")
    if site:
        pages = [f"<url><loc>{escape(site)}book/{name}.html</loc></url>" for name in names]
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        lines = ['<?xml version="1.0" encoding="utf-8"?>', f'<urlset xmlns="{space}">']
        text = "\n".join([*lines, *pages, "</urlset>", ""])
        (folder / "sitemap.xml").write_text(text, encoding="utf-8")
