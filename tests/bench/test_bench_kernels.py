"""The benchmarks of kernels compare like with like: the same results by this library, by torch and by peers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from logsnr.bench import kernels, noise
from logsnr.bench import peer_time as peers


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


def test_a_figure_beyond_chance_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The normals pass; 3 % larger ones, and ones that repeat the next sample's in part, do not."""
    assert all(figure.passes for figure in noise.report(200_000))
    drawn = noise.draw
    monkeypatch.setattr(noise, "draw", lambda count, **address: np.float32(1.03) * drawn(count, **address))
    failed = {figure.name for figure in noise.report(200_000) if not figure.passes}
    assert {"mean of z^2", "Kolmogorov-Smirnov distance"} <= failed

    def mixed(count: int, *, sample: int, **address: int) -> np.ndarray:
        z, w = drawn(count, sample=sample, **address), drawn(count, sample=sample + 1, **address)
        return np.sqrt(np.float32(0.9975)) * z + np.float32(0.05) * w

    monkeypatch.setattr(noise, "draw", mixed)
    failed = {figure.name for figure in noise.correlations(200_000) if not figure.passes}
    assert failed == {"correlation of z: next sample"}


@pytest.mark.parametrize("library", peers.LIBRARIES[1:], ids=lambda library: library.package)
def test_peers_solve_with_the_same_schemes(library: peers.Library) -> None:
    """The ends of a library's loops are those of this library's, as far as fp32 goes."""
    if reason := peers.installed(library):
        pytest.skip(reason)
    for scheme in library.schemes:
        assert peers.distance(library, scheme, 20) < 2e-5


def test_other_schemes_end_elsewhere() -> None:
    """Mutant: the scheme as published and the one that integrates exactly are told apart."""
    swapped = peers.Library("logsnr", {"dpmpp-2m": peers.OURS.schemes[peers.PUBLISHED]})
    assert peers.distance(swapped, "dpmpp-2m", 20) > 1e-4


def test_a_library_that_is_not_there_is_left_out() -> None:
    """With the reason."""
    missing = peers.Library("nothing", {"ddim": lambda answer, steps: __import__("no_such_library")})
    assert "no_such_library" in str(peers.installed(missing))


def test_a_step_takes_time() -> None:
    """Of a free model."""
    assert peers.per_step(peers.OURS, "ddim", peers.SMALL, 3) > 0
