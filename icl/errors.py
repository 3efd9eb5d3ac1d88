"""Two ways to stop: bad input, refused in one line that says what is allowed, and a failed run."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import psutil

MANY = 20  # with more names than these to choose from, only the nearest are shown
LONG = 40  # characters of a value that are shown
LARGEST = 2**63 - 1
NOTHING = 1e7  # bytes of memory that any machine has
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container's memory, on Linux
LONGEST_NAME = 200  # bytes of a file's name: what is written beside it has a longer one


class Refused(ValueError):
    """Bad input. The message names the argument, its value and what is allowed."""


class Failed(RuntimeError):
    """A chapter, a training or a build failed. The message says where and why."""


def require(condition: bool, message: str) -> None:
    """Raise `Refused(message)` unless `condition` holds."""
    if not condition:
        raise Refused(message)


def choose(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`, else refuse and name the nearest choice.

    >>> choose("attention", "softmx", ["linear", "softmax"])
    Traceback (most recent call last):
    icl.errors.Refused: attention='softmx': allowed are linear, softmax; did you mean softmax?
    """
    allowed = list(allowed)
    if value in allowed:
        return value
    near = get_close_matches(brief(value), allowed, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    shown = ", ".join(allowed) or "none"
    if len(allowed) > MANY:
        nearest = get_close_matches(brief(value), allowed, n=5, cutoff=0)
        shown = f"{', '.join(nearest)} and {len(allowed) - len(nearest)} more"
    raise Refused(f"{name}={brief(value)}: allowed are {shown}{hint}")


def whole(name: str, value: Any, least: int = 1, most: int = LARGEST) -> None:
    """Refuse what is no whole number from `least` to `most`.

    >>> whole("seed", -1, 0)
    Traceback (most recent call last):
    icl.errors.Refused: seed=-1: allowed are whole numbers from 0 on
    """
    allowed = f"allowed are whole numbers from {least} {f'to {most}' if most < LARGEST else 'on'}"
    good = isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= most
    require(good, f"{name}={brief(value)}: {allowed}")


def real(name: str, value: Any, allowed: str) -> None:
    """Refuse what is no finite number in an interval, whose round ends are outside of it.

    >>> real("warmup", 1, "[0, 1)")
    Traceback (most recent call last):
    icl.errors.Refused: warmup=1: allowed are numbers in [0, 1)
    """
    low, high = map(float, allowed[1:-1].split(","))
    good = isinstance(value, Real) and not isinstance(value, bool)
    good = good and abs(value) <= sys.float_info.max
    inside = good and (value > low or (value == low and allowed[0] == "["))
    inside = inside and (value < high or (value == high and allowed[-1] == "]"))
    require(inside, f"{name}={brief(value)}: allowed are numbers in {allowed}")


def several(name: str, value: Any) -> tuple:
    """A list, a tuple or an array as a tuple; all else is refused."""
    allowed = "allowed are several values in brackets"
    array = isinstance(value, np.ndarray) and value.ndim > 0
    good = array or isinstance(value, list | tuple)
    require(good, f"{name}={brief(value)}: {allowed}")
    return tuple(value)


def brief(value: Any) -> str:
    """A value as a message shows it: not more than a line can hold."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def fits(name: str, value: int, bytes_each: float) -> None:
    """Refuse so many of what takes so much memory each if they would not fit in this machine's."""
    whole(name, value)
    if value * bytes_each < NOTHING:  # to ask takes longer than many a draw
        return
    room = free_memory()
    need = f"takes {value * bytes_each / 1e9:,.1f} GB of memory of {room / 1e9:,.1f} that are free"
    allowed = f"{need}; allowed are up to {int(room / bytes_each)}"
    require(value * bytes_each <= room, f"{name}={brief(value)}: {allowed}")


def free_memory() -> int:
    """Bytes that can be taken without harm to what else runs, in a container at most its own."""
    room = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # there is no such file elsewhere, or it says "max"
        room = min(room, int(LIMIT.read_text()))
    return room


def writable(output: str | Path) -> Path:
    """The folder at a path, which need not exist; refused if nothing can be written there."""
    named = str(output).strip() and "\0" not in str(output)
    require(bool(named), f"output={str(output)!r}: the name of a folder is needed")
    try:
        folder = Path(output).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        require(there.is_dir(), f"output={output}: {there} is a file; a folder is needed")
        TemporaryFile(dir=there).close()
    except OSError as error:
        reason = f"cannot be written to ({error.strerror})"
        raise Refused(f"output={brief(str(output))}: {reason}") from None
    for part in folder.relative_to(there).parts:
        _short_enough(part, output)
    return folder


def writable_file(output: str | Path, suffix: str) -> Path:
    """The file at a path, with such an end; refused if it is a folder or cannot be written."""
    file = Path(output)
    good = "".join(file.suffixes).endswith(suffix) and "\0" not in file.name
    require(good, f"output={str(output)!r}: its name must end in {suffix}")
    writable(file.parent)
    _short_enough(file.name, output)
    require(not file.is_dir(), f"output={output}: is a folder; a file is needed")
    return file


def _short_enough(name: str, output: str | Path) -> None:
    long = len(os.fsencode(name))
    allowed = f"a name of {long} bytes; allowed are up to {LONGEST_NAME}"
    require(long <= LONGEST_NAME, f"output={brief(str(output))}: {allowed}")
