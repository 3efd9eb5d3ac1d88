"""The book as a site: chapters executed, pages built. For Sphinx this is an extension as well."""

from typing import Any


def setup(app: Any) -> dict:
    """Sphinx calls this (see _config.yml): unhooks sphinx-thebe, which would load a CDN's code."""
    app.setup_extension("sphinx_thebe")
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)
    return {"parallel_read_safe": True}
