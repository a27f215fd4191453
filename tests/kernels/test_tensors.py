"""What Triton kernels refuse: everything that is not the memory of plain, dense tensors on a device they run on."""

import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from logsnr.kernels.tensors import triton_missing, triton_refuses

pytest.importorskip("triton")
new_enough = pytest.mark.skipif(triton_missing() is not None, reason="needs a newer Triton")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CPU tensors may be served, and what is known of the installed Triton does not outlive a test."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    triton_missing.cache_clear()
    yield
    triton_missing.cache_clear()


@new_enough
def test_plain_dense_tensors_are_served() -> None:
    """In any dense layout that they share, and unless contiguity is asked for."""
    x = torch.randn(2, 3, 4, 5)
    assert triton_refuses([x, x.half()]) is None
    last = x.to(memory_format=torch.channels_last)
    assert triton_refuses([last, last]) is None
    assert "contiguous" in str(triton_refuses([last], contiguous=True))


UNFIT: dict[str, Callable[[], list[torch.Tensor]]] = {
    "on meta": lambda: [torch.ones(2, device="meta")],
    "laid out": lambda: [torch.ones(2, 4)[:, ::2]],
    "densely and alike": lambda: [torch.ones(2, 2), torch.ones(2, 2).t()],
    "not a plain CPU tensor": lambda: [torch._neg_view(torch.ones(2))],
    "Sub on cpu": lambda: [torch.ones(2).as_subclass(type("Sub", (torch.Tensor,), {}))],
    "gradients": lambda: [torch.ones(2, requires_grad=True)],
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_is_refused(reason: str) -> None:
    """The reason says what is in the way."""
    assert reason in str(triton_refuses(UNFIT[reason]()))


@new_enough
def test_gradients_that_are_not_recorded_do_not_matter() -> None:
    """A parameter is served inside of no_grad."""
    with torch.no_grad():
        assert triton_refuses([torch.nn.Parameter(torch.ones(2))]) is None


def test_transforms_are_refused() -> None:
    """Inside of torch.func a tensor is more than its data."""
    seen = []
    torch.func.vmap(lambda x: seen.append(triton_refuses([x])) or x)(torch.ones(2))
    assert "torch.func" in seen[0]


def test_cpu_tensors_need_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TRITON_INTERPRET=1 there is nothing that runs on a CPU."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert "TRITON_INTERPRET=1" in str(triton_refuses([torch.ones(2)]))


def test_old_and_missing_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Triton that is too old is refused by its version, one that is not there by the import error."""
    monkeypatch.setattr("triton.__version__", "3.3.1+git7")
    assert triton_refuses([torch.ones(2)]) == "Triton 3.3.1+git7 is older than 3.4"
    triton_missing.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is not there" in str(triton_refuses([torch.ones(2)]))
