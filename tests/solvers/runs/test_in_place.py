"""Models that write to what they are given are noticed, at whatever call and by whatever way."""

from collections.abc import Callable

import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
X = logsnr.randn((2, 3), seed=1)
CHANGED = "the model has changed x in place"


def from_call(
    first: int, write: Callable[[torch.Tensor], object]
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    calls = 0

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        answer = 0.5 * x
        if calls >= first:
            write(x)
        return answer

    return model


@pytest.mark.parametrize("first", [1, 2, 4])
def test_writes_are_noticed_at_every_call(first: int) -> None:
    den = logsnr.Denoiser(from_call(first, lambda x: x.mul_(2)), SCH)
    with pytest.raises(ValueError, match=rf"call {first} of 5, t = .*: {CHANGED}"):
        logsnr.sample(den, X, steps=5)


def test_casts_may_be_written_to() -> None:
    """A half-precision model works on a copy."""
    den = logsnr.Denoiser(from_call(1, lambda x: x.mul_(2)), SCH, dtype=torch.bfloat16)
    plain = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, dtype=torch.bfloat16)
    assert torch.equal(logsnr.sample(den, X, steps=5), logsnr.sample(plain, X, steps=5))
