"""Work spread over the processes that a launcher such as torchrun starts: each does its share, all know the results."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed

PATIENCE = timedelta(days=1)  # others wait while the first computes a reference; one that dies is noticed at once

Item = TypeVar("Item")
Found = TypeVar("Found")


@contextmanager
def launched_ranks() -> Iterator[None]:
    """A context with a process group, if the environment says that this process is one of several. Results are Python
    objects and so go by gloo, whatever the models run on. Raises ValueError if the environment says too little."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """This rank and how many there are, (0, 1) without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def leads() -> bool:
    """Whether this is the rank that prints and writes."""
    return place()[0] == 0


def on_first(function: Callable[[], Found]) -> Found:
    """The function's result on the first rank, given to all; errors as in `shared`."""
    return next(shared(lambda _: function(), (0,)))


def shared(function: Callable[[Item], Found], items: Sequence[Item]) -> Iterator[Found]:
    """The results of ``function`` for every item, in order, on all ranks, which must all ask for the same.

    Each calls it for one item of a round, and a round is known to all before the next begins: a stop loses one round.
    An error on one rank is a RuntimeError with its words on the others.
    """
    rank, ranks = place()
    for k in range(0, len(items), ranks):
        try:
            mine = [function(item) for item in items[k + rank : k + rank + 1]]  # none where the last round is short
        except Exception as error:
            _gathered(f"rank {rank} failed: {error!r}")
            raise
        for found in _gathered(mine):
            if isinstance(found, str):
                raise RuntimeError(found)
            yield from found


def _gathered(mine: Any) -> list[Any]:
    ranks = place()[1]
    if ranks == 1:
        return [mine]
    found = [None] * ranks
    distributed.all_gather_object(found, mine)
    return found
