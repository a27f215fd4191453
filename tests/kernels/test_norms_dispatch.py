"""combine_norm: what compiled code serves, what is left to torch, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from checks import F32, random

from logsnr.kernels import combine_norm, error_norm

COEFS = np.array([[0.9, -0.4, 0.3, 0.1], [0.0, 1.5, 0.0, -0.7]])
ROWS: dict[str, Any] = {
    "error": [0.0, 2e-3, -3e-3, 1.1e-3],
    "scale": [[1.0, 0, 0, 0], COEFS[0]],
    "rtol": 1e-3,
    "atol": 1e-4,
}


def several(shape: tuple[int, ...], count: int = 4) -> list[torch.Tensor]:
    return [random(shape, seed=seed) for seed in range(count)]


def test_layouts() -> None:
    """Channels-last tensors are served compiled, in the order of memory, and others by torch."""
    inputs = several((2, 3, 9, 11))
    wanted, norms = combine_norm(inputs, COEFS, **ROWS)
    last = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    results, found = combine_norm(last, COEFS, backend="cpu", **ROWS)
    torch.testing.assert_close(found, norms, rtol=1e-14, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(results, wanted, strict=True))
    across = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]  # dense, but samples interleaved
    assert torch.equal(error_norm(across, **ROWS), norms)
    with pytest.raises(RuntimeError, match="not next to each other"):
        error_norm(across, backend="cpu", **ROWS)
    mixed = [last[0], *inputs[1:]]
    assert torch.equal(error_norm(mixed, **ROWS), norms)


def test_gradients() -> None:
    """Recorded gradients are those of the formula, by finite differences."""
    inputs = [x.double().requires_grad_() for x in several((2, 5))]
    assert torch.autograd.gradcheck(lambda *xs: error_norm(xs, **ROWS), inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": [1, 2, 3]}, "error must be"),
        ({"error": [1, 2, 3, float("nan")]}, "error must be"),
        ({"scale": np.eye(3, 4)}, "scale must be"),
        ({"rtol": -1e-3}, "rtol must be"),
        ({"rtol": float("inf")}, "rtol must be"),
        ({"atol": 0.0}, "atol must be"),
        ({"atol": 1e-39}, "atol must be"),
        ({"atol": float("nan")}, "atol must be"),
        ({"coefs": np.ones((1, 3))}, "coefs must have shape"),
        ({"coefs": np.ones((4, 4))}, "coefs must have shape"),
        ({"dtypes": [F32, F32, F32]}, "coefs has 2 rows, but 3 outputs"),
        ({"dtypes": [F32, torch.int32]}, "dtypes must be"),
        ({"dtypes": [F32] * 2, "out": several((3, 8), count=2)}, "out or dtypes"),
        ({"out": [*several((3, 8), count=1), *several((3, 7), count=1)]}, r"out\[1\] must have the shape"),
        ({"inputs": []}, "inputs must be 1 to"),
        ({"inputs": [*several((3, 8), count=3), torch.ones(3, 1)]}, r"inputs\[3\] must have the shape"),
        ({"inputs": [*several((3, 8), count=3), torch.ones(3, 8).int()]}, r"inputs\[3\] must be"),
        ({"inputs": [torch.ones(())] * 4}, "inputs must have a batch dimension"),
        ({"backend": "numba"}, "backend must be"),
    ],
)
def test_errors(change: dict[str, Any], message: str) -> None:
    """What does not fit is a ValueError that names the argument."""
    arguments = {"inputs": several((3, 8)), "coefs": COEFS} | ROWS | change
    with pytest.raises(ValueError, match=message):
        combine_norm(arguments.pop("inputs"), arguments.pop("coefs"), **arguments)


def test_overlap() -> None:
    """An output that is a shifted view of an input is refused by compiled code and served by torch."""
    memory, rest = torch.randn(30), several((2, 10), count=3)
    inputs, out = [memory[:20].view(2, 10), *rest], [memory[5:25].view(2, 10)]
    wanted = combine_norm([x.clone() for x in inputs], COEFS[:1], **ROWS)[0][0]
    with pytest.raises(RuntimeError, match="overlaps"):
        combine_norm(inputs, COEFS[:1], out=out, backend="cpu", **ROWS)
    assert torch.equal(combine_norm(inputs, COEFS[:1], out=out, **ROWS)[0][0], wanted)
