"""The workers of a Dask cluster, to train models on: an optional extra, `cluster`."""

import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from icl.errors import Refused, require

ANSWERS_WITHIN = 20  # seconds


@contextmanager
def workers(scheduler: str) -> Iterator[Executor]:
    """The workers of the scheduler at an address like `tcp://127.0.0.1:8786`, as an executor.

    For an address that begins with `tls://` Dask's configuration names the certificates. What a
    worker that dies was doing is done by another. Raises `Refused` where no scheduler answers.
    """
    good = re.fullmatch(r"(tcp|tls)://\S+:\d+", scheduler)
    allowed = "allowed are addresses like tcp://127.0.0.1:8786 and tls://127.0.0.1:8786"
    require(bool(good), f"scheduler={scheduler}: {allowed}")
    try:
        from distributed import Client, Security
    except ImportError:
        install = 'pip install -e ".[cluster]"'
        raise Refused(f"scheduler={scheduler}: needs Dask, which is optional: {install}") from None
    secure = scheduler.startswith("tls:")
    try:
        given = Security()
        named = bool(given.get_connection_args("client").get("ssl_context"))
        needed = "needs certificates, which Dask's configuration does not name"
        require(named or not secure, f"scheduler={scheduler}: {needed}")
        encrypted = "Dask's configuration requires encryption; allowed are addresses with tls://"
        require(secure or not given.require_encryption, f"scheduler={scheduler}: {encrypted}")
        client = Client(scheduler, timeout=ANSWERS_WITHIN, set_as_default=False)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"scheduler={scheduler}: no scheduler answers there ({reason})") from None
    with client:
        yield client.get_executor()
