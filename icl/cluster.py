"""The workers of a Dask cluster, to train models on: an optional extra, `cluster`."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from icl.errors import Refused

ANSWERS_WITHIN = 20  # seconds


@contextmanager
def workers(scheduler: str) -> Iterator[Executor]:
    """The workers of the scheduler at an address like `tcp://127.0.0.1:8786`, as an executor.

    For an address that begins with `tls://` Dask's configuration names the certificates. What a
    worker that dies was doing is done by another. Raises `Refused` where no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        install = 'pip install -e ".[cluster]"'
        raise Refused(f"scheduler={scheduler}: needs Dask, which is optional: {install}") from None
    try:
        client = Client(scheduler, timeout=ANSWERS_WITHIN, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"scheduler={scheduler}: no scheduler answers there ({reason})") from None
    with client:
        yield client.get_executor()
