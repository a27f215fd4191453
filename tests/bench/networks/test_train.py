import pytest
import torch

from logsnr.bench.networks import train

DIGITS = train.DATA["digits"]._replace(batch=8)


def test_training_learns_and_repeats() -> None:
    """Ten steps from one seed give the same average twice, which is no longer the start."""
    one, two = (train.train(DIGITS, 10).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["out.weight"].abs().max() > 0


def test_training_times_cover_the_whole_path() -> None:
    """Their half-log-SNRs reach past both ends of a solve and have the density's quartiles, 0 and +-1.10."""
    lam = train.SCHEDULE.half_logsnr(train.draw_times(4096).double())
    quartiles = torch.quantile(lam, torch.tensor([0.25, 0.5, 0.75], dtype=lam.dtype))
    expected = 1.25 * torch.asinh(torch.tensor([-1.0, 0.0, 1.0], dtype=lam.dtype))
    assert torch.allclose(quartiles, expected, atol=2e-3)
    assert lam.min() == pytest.approx(train.SCHEDULE.half_logsnr(1.0), abs=1e-6)
    assert lam.max() > train.SCHEDULE.half_logsnr(1e-3)
