"""`sample` has the arguments of `solve`; a `Solution` is one line."""

from inspect import signature

import torch

import logsnr


def test_sample_tells_the_arguments_of_solve() -> None:
    """For help() and editors: all names and defaults, and its own result."""
    ours, theirs = signature(logsnr.sample), signature(logsnr.solve)
    assert ours.parameters == theirs.parameters
    assert ours.return_annotation is torch.Tensor


def test_a_solution_is_one_line() -> None:
    """It names the table, the shape and the counts, and holds no numbers of a tensor."""
    sch = logsnr.VPLinear()
    den = logsnr.analysis.two_gaussians().denoiser(sch)
    found = logsnr.solve(den, logsnr.start(sch, (64, 32), seed=0), solver="ddim", steps=3, trajectory=True)
    assert repr(found) == "<Solution by ddim: x float32 (64, 32), 3 evaluations, 3 rounds>"
    adaptive = logsnr.solve(den, logsnr.start(sch, (2,), seed=0), solver="dpm-12", rtol=0.1)
    assert repr(adaptive).startswith("<Solution: x float32 (2,), ")
    assert str(found) == repr(found)
