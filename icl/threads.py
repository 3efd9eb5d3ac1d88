"""How torch shares threads: all work takes one, or every thread takes work of its own."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread for a while: small matrices take longer on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(work: Callable[[Any], Any], parts: Iterable[Any]) -> list:
    """What `work` finds in every part, in their order, to the same bits on any number of threads.

    Of as many parts at a time as torch may use threads, each takes one: operations on small
    matrices gain less from several. Gradients are recorded or not, as where this is called.
    """
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    if threads == 1:
        return [work(part) for part in parts]
    start = {"initializer": torch.set_grad_enabled, "initargs": (gradients,)}
    with one_thread(), ThreadPoolExecutor(threads, **start) as pool:
        return list(pool.map(work, parts))
