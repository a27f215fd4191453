"""Plans that are made with torch, whatever the caller is in the middle of."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def aside(plan: Callable[P, T]) -> Callable[P, T]:
    """The function, run in a thread of its own. Default devices and the transforms of `torch.func` are a thread's: in
    the caller's, numbers of a plan would be on a GPU, or be wrapped so that nobody can look at them."""

    @wraps(plan)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(plan, *args, **kwargs).result()

    return run
