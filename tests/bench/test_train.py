from pathlib import Path

import pytest
import torch

from logsnr.bench import train

DIGITS = train.DATA["digits"]._replace(batch=8)


def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at step 3 of 4 and resumed from the checkpoint of step 2, it ends with the same weights."""
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    whole = train.train(DIGITS, checkpoint=tmp_path / "whole.ckpt", steps=4).state_dict()

    def stop_at_three(run: train.Run) -> float:
        if run.step == 3:
            raise KeyboardInterrupt
        return advance(run)

    advance = train.Run.advance
    broken = tmp_path / "broken.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "advance", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            train.train(DIGITS, checkpoint=broken, steps=4)
    resumed = train.train(DIGITS, checkpoint=broken, steps=4).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another length does not silently continue: the error names the file and both lengths."""
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 1)
    train.train(DIGITS, checkpoint=tmp_path / "a.ckpt", steps=1)
    with pytest.raises(ValueError, match=r"a\.ckpt is of a run of 1 steps, not 2"):
        train.train(DIGITS, checkpoint=tmp_path / "a.ckpt", steps=2)


def test_training_times_cover_the_whole_path() -> None:
    """Their half-log-SNRs reach past both ends of a solve and have the density's quartiles, 0 and +-1.10."""
    lam = train.SCHEDULE.half_logsnr(train.draw_times(4096).double())
    quartiles = torch.quantile(lam, torch.tensor([0.25, 0.5, 0.75], dtype=lam.dtype))
    expected = 1.25 * torch.asinh(torch.tensor([-1.0, 0.0, 1.0], dtype=lam.dtype))
    assert torch.allclose(quartiles, expected, atol=2e-3)
    assert lam.min() == pytest.approx(train.SCHEDULE.half_logsnr(1.0), abs=1e-6)
    assert lam.max() > train.SCHEDULE.half_logsnr(1e-3)
