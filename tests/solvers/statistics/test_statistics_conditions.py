"""Calibration of denoisers with conditions: their rows follow the points, and the statistics go with any."""

from pathlib import Path

import numpy as np
import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
X = logsnr.randn((256, 2), seed=1, dtype=torch.float64)
Y = torch.linspace(-1, 1, 256, dtype=torch.float64)
FEW = {"nodes": 7}


def net(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.sin(x) + y.reshape(-1, 1) * torch.cos(x)


def conditioned(y: torch.Tensor, guided: bool = False) -> logsnr.Denoiser:
    guidance = logsnr.Guidance(1 + y.abs(), uncond={"y": -y}) if guided else None
    return logsnr.Denoiser(net, SCH, "eps", conditions={"y": y}, guidance=guidance)


@pytest.mark.parametrize("guided", [False, True], ids=["conditions", "guidance"])
def test_rows_follow_the_points(guided: bool) -> None:
    """As of a network that knows by itself which points it sees; parts of the points are the whole."""

    def alone(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y = Y[: len(x)]  # a fingerprint is of 4 states
        u = net(x, t, -y)
        return u + (1 + y[:, None].abs()) * (net(x, t, y) - u) if guided else net(x, t, y)

    found = logsnr.calibrate(conditioned(Y, guided), X, **FEW)
    parts = logsnr.calibrate(conditioned(Y, guided), X, batch=100, **FEW)
    other = logsnr.calibrate(logsnr.Denoiser(alone, SCH, "eps"), X, **FEW)
    for name in ("l", "s", "f"):
        for same in (parts, other):
            np.testing.assert_allclose(getattr(same, name), getattr(found, name), rtol=1e-9, atol=1e-12)
    run = conditioned(Y[:3], guided)
    assert logsnr.sample(run, X[:3], solver=logsnr.solver("dpm-v3-2", statistics=found), steps=4).isfinite().all()


def test_a_file_is_of_its_conditions(tmp_path: Path) -> None:
    file = tmp_path / "means"
    found = logsnr.calibrate(conditioned(Y), X, file=file, **FEW)
    assert logsnr.calibrate(conditioned(Y), X, file=file, **FEW) == found
    with pytest.raises(ValueError, match="holds a calibration with another data"):
        logsnr.calibrate(conditioned(-Y), X, file=file, **FEW)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="has 4 rows for a batch of 256"):
        logsnr.calibrate(conditioned(Y[:4]), X, **FEW)
    plain = logsnr.Denoiser(lambda x, t: 0.5 * torch.sin(x), SCH, "eps")
    method = logsnr.solver("dpm-v3-2", statistics=logsnr.calibrate(plain, X, **FEW))
    with pytest.raises(ValueError, match="this one by its conditions; calibrate again, with its conditions"):
        logsnr.sample(conditioned(Y[:3]), X[:3], solver=method, steps=4)


def test_a_model_that_is_not_finite_is_told_at_once(tmp_path: Path) -> None:
    broken = logsnr.Denoiser(lambda x, t: torch.where(t[:, None] < 0.5, torch.nan, x), SCH, "eps")
    with pytest.raises(ValueError, match=r"the model is not finite at lam = .*, t = 0\.[0-4]"):
        logsnr.calibrate(broken, X, file=tmp_path / "means", **FEW)
