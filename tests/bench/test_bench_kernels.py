"""The benchmarks of kernels compare like with like: the same results by this library and by torch."""

from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from logsnr.bench import kernels


def results(found: Any) -> list[torch.Tensor]:
    """Copies of the floating tensors."""
    return [x.clone() for x in tree_leaves(found) if x.is_floating_point()]


@pytest.mark.parametrize("name", kernels.CASES)
def test_torch_computes_what_the_kernels_do(name: str) -> None:
    """The call that is timed and the one it is compared with have the same results, but for noise."""
    case = kernels.CASES[name](1 << 12)
    ours, plain = results(case.ours()), results(case.plain())
    assert [x.shape for x in ours] == [x.shape for x in plain]
    for a, b in zip(ours, plain, strict=True):
        if "noise" in name:
            assert not torch.equal(a, b)
            assert abs(a.std() / b.std() - 1) < 0.1
        else:
            rtol = torch.finfo(a.dtype).eps if a.dtype is torch.float16 else 1e-4
            torch.testing.assert_close(a, b, rtol=rtol, atol=1e-5, check_dtype=False)


def test_the_bytes_are_those_of_operands_and_outputs() -> None:
    """combine of two fp32 inputs into one output moves three times four bytes an element."""
    assert kernels.CASES["combine 2 to 1"](1 << 12).moved == 12 << 12
