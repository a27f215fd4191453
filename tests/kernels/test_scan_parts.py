"""scan: a sample's bits do not depend on its batch, the threads, or the window's place in memory."""

from collections.abc import Iterator

import pytest
import torch
from checks import F32, assert_same, dense_recurrence, random

from logsnr.kernels import scan

BACKENDS = ["torch", "cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [3, 100, 1024, 1500, 5000])
def test_a_sample_does_not_depend_on_its_batch(size: int, backend: str) -> None:
    """A sample has the same nodes and change, to the last bit, alone and in a batch."""
    rec = dense_recurrence(3, 2)
    start, outputs, nodes = (random((n, 405, size), F32, n) for n in (2, 3, 4))
    wanted = scan(start, [outputs], nodes[:3], rec, backend=backend)
    for b in (0, 1, 341, 404):
        alone = [x[:, b : b + 1].contiguous() for x in (start, outputs, nodes[:3])]
        found = scan(alone[0], [alone[1]], alone[2], rec, backend=backend)
        assert_same(found[0][:, 0], wanted[0][:, b])
        assert_same(found[1][:, 0], wanted[1][:, b])


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(2, 40_000), (40_000, 3), (1, 65_536)])
def test_threads(shape: tuple[int, ...], two_threads: None) -> None:
    """Any number of threads gives the same bits, in place too."""
    rec = dense_recurrence(32, 3)
    start, outputs, nodes = (random((n, *shape), F32, n) for n in (3, 32, 32))
    torch.set_num_threads(1)
    wanted = scan(start, [outputs], nodes, rec, backend="cpu")
    torch.set_num_threads(2)
    found = scan(start, [outputs], nodes, rec, out=nodes, backend="cpu")
    for a, b in zip(found, wanted, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_are_slices(backend: str) -> None:
    """In place on a slice of the rows of larger tensors, only these rows are written."""
    rec = dense_recurrence(9, 3)
    start, outputs, nodes = (random((n, 2, 1100), F32, n) for n in (3, 9, 9))
    wanted = scan(start, [outputs[4:7].clone()], nodes[4:7].clone(), rec, first=4, backend=backend)
    kept, rows = nodes.clone(), nodes[4:7]
    found = scan(start, [outputs[4:7]], rows, rec, first=4, out=rows, backend=backend)
    assert_same(nodes[4:7], wanted[0])
    assert_same(found[1], wanted[1])
    assert torch.equal(nodes[:4], kept[:4])
    assert torch.equal(nodes[7:], kept[7:])
