"""Two ways to stop: bad input, refused in one line that says what is allowed, and a failed run."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile

MANY = 20  # with more names than these to choose from, only the nearest are shown


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
    near = get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    shown = ", ".join(allowed) or "none"
    if len(allowed) > MANY:
        nearest = get_close_matches(str(value), allowed, n=5, cutoff=0)
        shown = f"{', '.join(nearest)} and {len(allowed) - len(nearest)} more"
    raise Refused(f"{name}={value!r}: allowed are {shown}{hint}")


def writable(output: str | Path) -> Path:
    """The folder at a path, which need not exist; refused if nothing can be written there."""
    require(str(output).strip() != "", f"output={output!r}: the name of a folder is needed")
    folder = Path(output).absolute()
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        require(there.is_dir(), f"output={output}: {there} is a file; a folder is needed")
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise Refused(f"output={output}: cannot be written to ({error.strerror})") from None
    return folder
