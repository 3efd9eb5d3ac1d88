"""A chapter that a reader runs: which notebook, with what values, and where its results go."""

import base64
import hashlib
import math
import os
import re
from pathlib import Path

import nbformat

from icl.errors import require
from icl.site.chapters import Chapter, Job, outputs

LONGEST = 80  # characters of a folder's name


def find(name: str) -> Chapter:
    """The notebook at a path; refused where there is none that a kernel can run."""
    chapter = Chapter(Path(name).absolute())
    require(chapter.path.is_file(), f"{name}: no such notebook; `icl list` names the chapters")
    kernel = chapter.read().metadata.get("kernelspec", {}).get("name")
    require(bool(kernel), f"{name}: names no kernel; saved once in JupyterLab it does")
    return chapter


def is_path(name: str) -> bool:
    """Does it name a notebook by its path, and not a chapter of the book?"""
    return name.endswith(".ipynb") or os.sep in name


def plan(chapter: Chapter, given: dict, folder: Path | None) -> Job:
    """A chapter to run, into a folder of its own, named by the values that are not the defaults.

    It lies in `folder` or, if that is None, in _build/runs of the checkout whose chapter it is, or
    in runs/ beside a notebook from elsewhere. Raises `Refused` where it would overwrite a run of
    another notebook, or of the same with other defaults.
    """
    changed = chapter.changed(given)
    for name, value in changed.items():
        finite = not isinstance(value, float) or math.isfinite(value)
        require(finite, f"{name}={value}: a finite number is needed")
    home = checkout(chapter)
    folder = folder or (home / "_build" / "runs" if home else chapter.path.parent / "runs")
    output = folder / chapter.name / _name(changed) / f"{chapter.name}.ipynb"
    if output.exists():
        about = nbformat.read(output, as_version=4).metadata
        source = about.get("papermill", {}).get("input_path", "another notebook")
        values = about.get("icl", {}).get("parameters", {})
        require(
            (source == str(chapter.path) or not Path(source).exists())
            and values == chapter.values(changed),
            f"{output}: is a run of {source} with {words(values)}; choose another --output",
        )
    return Job(chapter, output, changed)


def _name(changed: dict) -> str:
    """A folder's name that no other values have."""
    whole = "-".join(f"{name}-{value}" for name, value in changed.items()) or "defaults"
    plain = re.sub(r"[^\w.+-]", "_", whole)[:LONGEST]
    return plain if plain == whole else f"{plain}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def words(parameters: dict) -> str:
    """Parameters and their values."""
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) or "no parameters"


def checkout(chapter: Chapter) -> Path | None:
    """The checkout in whose book/ a chapter stands."""
    folder = chapter.path.absolute().parent
    inside = folder.name == "book" and (folder.parent / "_toc.yml").is_file()
    return folder.parent if inside else None


def extract_figures(path: Path) -> list[Path]:
    """Write an executed notebook's figures beside it, in place of those of its last run."""
    for old in path.parent.glob("figure-*"):
        old.unlink()
    files = []
    for data in outputs(path):
        for mime, suffix in (("image/svg+xml", "svg"), ("image/png", "png")):
            if mime in data:
                file = path.with_name(f"figure-{len(files) + 1}.{suffix}")
                content = data[mime].encode() if suffix == "svg" else base64.b64decode(data[mime])
                file.write_bytes(content)
                files.append(file)
                break
    return files
