"""scan by Triton's kernels, interpreted: the bits of the specification."""

import math

import numpy as np
import pytest
import torch
from checks import BF16, F16, F32, F64, assert_same, dense_recurrence, interpreted, random

from logsnr.kernels import Recurrence, advance, scan

pytestmark = interpreted

SIZES = [(0,), (2,), (3, 0), (2, 1), (5, 7), (1, 255), (1, 1025)]
KINDS = [(F32, F16, F16), (F64, F64, F64), (F64, BF16, F16)]


@pytest.mark.parametrize(
    ("shape", "kinds"), [*((shape, (F32, F32, F32)) for shape in SIZES), *(((2, 150), kinds) for kinds in KINDS)]
)
def test_the_bits_of_the_specification(shape: tuple[int, ...], kinds: tuple[torch.dtype, ...]) -> None:
    """Nodes and slots have the bits of the torch reference, at any size, and the changes agree to 1e-14."""
    wide, narrow, node = kinds
    for window, slots, models, noises in ((0, 2, 1, 0), (1, 1, 1, 0), (2, 3, 2, 1)):
        rec = dense_recurrence(window + 1, slots, models, noises)
        start, nodes = random((slots, *shape), wide, 1), random((window, *shape), node, 2)
        outputs = [random((window, *shape), narrow, 3 + j) for j in range(models)]
        given = {"first": 1, "noises": [random((window, *shape), wide, 7 + j) for j in range(noises)]}
        wanted, change = scan(start, outputs, nodes, rec, backend="torch", **given)
        out = torch.full_like(nodes, math.nan)
        found, changed = scan(start, outputs, nodes, rec, out=out, backend="triton", **given)
        assert found is out
        assert_same(found, wanted)
        torch.testing.assert_close(changed, change, rtol=1e-14, atol=0)
        given["slopes"] = random((window, *shape[:1]), wide, 9)
        both = [scan(start, outputs, nodes, rec, backend=b, **given) for b in ("triton", "torch")]
        assert_same(both[0][0], both[1][0])
        torch.testing.assert_close(both[0][1], both[1][1], rtol=1e-14, atol=0)
        del given["slopes"]
        assert_same(*(advance(start, outputs, rec, backend=backend, **given) for backend in ("triton", "torch")))


def test_bfloat16_nodes() -> None:
    """bf16 nodes are those of fp32 rounded; Triton's interpreter rounds them towards zero."""
    rec, start, outputs = dense_recurrence(3, 2), random((2, 2, 300), F32, 1), random((3, 2, 300), BF16, 2)
    found, change = scan(start, [outputs], torch.zeros_like(outputs), rec, backend="triton")
    exact = scan(start, [outputs], torch.zeros(outputs.shape), rec, backend="torch")[0]
    assert_same(found, (exact.view(torch.int32) & -0x10000).view(F32).to(BF16))
    torch.testing.assert_close(change, found.double().square().sum(2), rtol=1e-6, atol=0)


def test_in_place_with_garbage_in_unused_slots() -> None:
    """New nodes may take the place of the old; a NaN whose coefficient is 0 is left out; any other is passed on."""
    matrices = np.full((4, 2, 3), 0.25)
    matrices[0, :, 2] = 0
    rec, start, nodes = (
        Recurrence(matrices, np.zeros(5, int), 1),
        random((2, 2, 300), F32, 1),
        random((4, 2, 300), F32, 2),
    )
    outputs = random((4, 2, 300), F32, 3)
    start[1], outputs[2, 1, 5] = math.nan, math.nan
    wanted, change = scan(start, [outputs], nodes, rec, backend="torch")
    found, changed = scan(start, [outputs], nodes, rec, out=nodes, backend="triton")
    assert found is nodes
    assert_same(found, wanted)
    assert found.isnan().sum() == 2
    torch.testing.assert_close(changed, change, rtol=1e-14, atol=0, equal_nan=True)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """A sample's change has the same bits alone and in a batch; it is 0 only if nothing changes."""
    rec, start, outputs, nodes = dense_recurrence(2, 2), *(random((2, 3, 700), F32, seed) for seed in range(3))
    found, change = scan(start, [outputs], nodes, rec, backend="triton")
    for b in range(3):
        one = [x[:, b : b + 1].contiguous() for x in (start, outputs, nodes)]
        assert_same(scan(one[0], [one[1]], one[2], rec, backend="triton")[1][:, 0], change[:, b])
    assert not scan(start, [outputs], found, rec, backend="triton")[1].any()
