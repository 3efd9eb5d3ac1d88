"""Where nothing can be written: found before work starts, or one line and the last good state."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from icl.files import load

ROOT = Path(__file__).parent.parent
CHAPTER = """{
 "cells": [
  {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# One"},
  {"cell_type": "code", "execution_count": null, "id": "b",
   "metadata": {"tags": ["parameters"]}, "outputs": [], "source": "size: int = 1  # of it"},
  {"cell_type": "code", "execution_count": null, "id": "c", "metadata": {}, "outputs": [],
   "source": "print('x' * size)"}
 ],
 "metadata": {"kernelspec": {"display_name": "p", "language": "python", "name": "python3"}},
 "nbformat": 4, "nbformat_minor": 5
}"""


@contextmanager
def mounted(folder, options):
    """A file system of memory; a machine that mounts none cannot say what a full disk does."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if os.environ.get("ICL_REQUIRE_MOUNTS"):
            pytest.fail(done.stderr)
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small(tmp_path):
    with mounted(tmp_path / "small", "size=64k") as folder:
        yield folder


@pytest.fixture
def fixed(tmp_path):
    with mounted(tmp_path / "fixed", "size=64k,ro") as folder:
        yield folder


@pytest.fixture
def book(tmp_path):
    """A book of one chapter."""
    folder = tmp_path / "checkout"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "one.ipynb").write_text(CHAPTER)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/one\n")
    (folder / "_config.yml").write_bytes((ROOT / "_config.yml").read_bytes())
    return folder


def icl(*arguments, at=ROOT):
    """Status and complaint of the command, which ends in one line and with no traceback."""
    program = [sys.executable, "-c", "from icl.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=at, timeout=120)
    # Of the command: a kernel that ends with a full disk may say in one that it could not flush.
    assert "icl/cli.py" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("icl: ")]
    if done.returncode:
        assert len(lines) == 1, done.stderr
    return done.returncode, " ".join(lines), done.stdout


def fill(folder, leave=0):
    """Leave so many bytes of a file system free."""
    disk = os.statvfs(folder)
    (folder / "ballast").write_bytes(bytes(disk.f_bavail * disk.f_frsize - leave))


LONG = "x" * 300
TRAIN = ("train", "heads-1-1", "--steps", "30", "--seeds", "7", "--output")


@pytest.mark.parametrize(
    "arguments",
    [
        (*TRAIN, "/dev/null/x.safetensors.xz"),
        (*TRAIN, f"{LONG}.safetensors.xz"),
        (*TRAIN, f"{LONG}/x.safetensors.xz"),
        ("train", "--experiment", "pruning", "--output", "/dev/null/x"),
        ("train", "--experiment", "pruning", "--output", LONG),
        ("run", "one", "--output", "/dev/null/x"),
        ("run", "one", "--output", LONG),
        ("run", "all", "--output", "/dev/null/x"),
        ("run", "all", "--output", "/proc/x"),
    ],
    ids=lambda given: " ".join(given)[:60],
)
def test_places_where_nothing_can_be_are_refused_before_work_starts(book, arguments):
    status, complaint, out = icl(*arguments, at=book)
    assert status == 2
    assert "output=" in complaint
    assert not out
    assert not (book / "_build").exists()


def test_a_read_only_place_is_refused_before_work_starts(fixed, book):
    for arguments in (
        (*TRAIN, fixed / "x.safetensors.xz"),
        ("train", "--experiment", "pruning", "--output", fixed),
        ("run", "one", "--output", fixed),
    ):
        status, complaint, out = icl(*arguments, at=book)
        assert (status, out) == (2, "")
        assert "Read-only file system" in complaint


def test_a_full_disk_ends_a_training_in_a_line_and_keeps_what_was_there(small):
    output = small / "m.safetensors.xz"
    assert icl(*TRAIN, output)[0] == 0
    before = output.read_bytes()
    fill(small)
    status, complaint, _ = icl(*TRAIN[:-2], "8", "--output", output)
    assert status in (1, 2)
    assert "No space left" in complaint or "cannot be written" in complaint
    assert output.read_bytes() == before
    (small / "ballast").unlink()
    assert icl(*TRAIN[:-2], "8", "--output", output)[0] == 0
    assert load(output).seeds == (7, 8)


@pytest.mark.parametrize("leave", [4096, 8192])
def test_a_disk_that_fills_up_meanwhile_does_so_too(small, leave):
    """There is room to begin, not to end."""
    fill(small, leave)
    output = small / "m.safetensors.xz"
    status, complaint, _ = icl(*TRAIN, output)
    assert status == 1
    assert "cannot be written" in complaint
    assert [path.name for path in small.iterdir()] == ["ballast"], "nothing half written"


def test_where_only_the_finished_model_has_no_room_its_training_is_kept(small):
    fill(small, 20480)
    output = small / "m.safetensors.xz"
    status, complaint, _ = icl(*TRAIN, output)
    assert status == 1
    assert f"{output}: cannot be written" in complaint
    (state,) = small.glob(".*.state")
    assert state.stat().st_size > 0
    (small / "ballast").unlink()
    assert icl(*TRAIN, output)[0] == 0
    assert load(output).seeds == (7,)
    assert not state.exists()


def test_a_full_disk_ends_a_run_in_a_line(small, book):
    fill(small, 4096)
    status, complaint, _ = icl("run", "one", "--size", "30000", "--output", small, at=book)
    assert status == 1
    assert "No space left" in complaint
    assert not list(small.rglob("one.ipynb"))


def test_a_full_disk_ends_a_build_in_a_line_and_leaves_the_last_site(book):
    with mounted(book / "_build", "size=64k") as disk:
        (disk / "html").mkdir()
        (disk / "html" / "index.html").write_text("the last good site")
        fill(disk, 4096)
        status, complaint, _ = icl("build", at=book)
        assert status == 1
        assert "No space left" in complaint
        assert (disk / "html" / "index.html").read_text() == "the last good site"
