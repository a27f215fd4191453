"""Kernels inside of torch.compile and torch.func: the specification is traced, with the same results."""

from collections.abc import Callable

import pytest
import torch
from checks import dense_recurrence, random

from logsnr.kernels import scan

CALLS = dense_recurrence(2, 2)

# By name a function, and the shapes of its tensors.
KERNELS: dict[str, tuple[Callable[..., torch.Tensor], list[tuple[int, ...]]]] = {
    "scan": (lambda start, outputs, nodes: scan(start, [outputs], nodes, CALLS)[0], [(2, 3, 9)] * 3),
}


@pytest.mark.parametrize("name", KERNELS)
def test_torch_compile(name: str) -> None:
    """Traced, with breaks where coefficients are NumPy arrays, a function gives what it gives untraced."""
    function, shapes = KERNELS[name]
    x = [random(shape, seed=seed) for seed, shape in enumerate(shapes)]
    compiled = torch.compile(function, backend="eager")
    torch.testing.assert_close(compiled(*x), function(*x), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_vmap(name: str) -> None:
    """Over one more dimension, every part has the result that it has alone."""
    function, shapes = KERNELS[name]
    x = [random((4, *shape), seed=seed) for seed, shape in enumerate(shapes)]
    found = torch.func.vmap(function)(*x)
    for k in range(4):
        torch.testing.assert_close(found[k], function(*(y[k] for y in x)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_torch_func(name: str) -> None:
    """torch.func.grad and autograd agree."""
    function, shapes = KERNELS[name]
    x = [random(shape, seed=seed) for seed, shape in enumerate(shapes)]
    found = torch.func.grad(lambda *x: function(*x).sum())(*x)
    first = x[0].clone().requires_grad_()
    (wanted,) = torch.autograd.grad(function(first, *x[1:]).sum(), first)
    assert torch.equal(found, wanted)
    assert found.any()
