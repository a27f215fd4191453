"""Every tensor that the library makes names its device."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.kernels import devices

RUNS = [
    {"solver": "dpmpp-2m"}, {"solver": "deis-4", "startup": "single-step"}, {"solver": "rk4"},
    {"solver": "sde-dpmpp-2m", "seed": 1}, {"solver": "sa-3", "seed": 1, "brownian": True},
    {"solver": "ddpm"}, {"solver": "dpmpp-3m", "parallel": logsnr.Picard()},
]  # fmt: skip


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.5 * x


@pytest.mark.parametrize("options", RUNS, ids=lambda options: options["solver"])
def test_another_default_device_changes_nothing(options: dict) -> None:
    """Plans made under it serve runs without it."""
    x = logsnr.randn((2, 3, 4), seed=1)
    table = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))
    with torch.device("meta"):
        schedules = [
            logsnr.VPLinear(beta_max=19.0),
            logsnr.Custom(lambda t: 1 - t, lambda t: t),
            logsnr.Discrete(table),
        ]
        dens = [logsnr.Denoiser(net, sch, "velocity") for sch in schedules]
        torch.manual_seed(0)
        found = [logsnr.sample(den, x, steps=5, **options) for den in dens]
    torch.manual_seed(0)
    for den, y in zip(dens, found, strict=True):
        assert y.device == x.device
        assert torch.equal(y, logsnr.sample(den, x, steps=5, **options))


def test_adaptive_runs_and_heads_too() -> None:
    x = logsnr.randn((2, 3), seed=1)
    den = logsnr.Denoiser(net, logsnr.VPLinear())
    with torch.device("meta"):
        y, x0 = logsnr.sample(den, x, solver="dopri5"), den.x0(x, 0.5)
    assert torch.equal(y, logsnr.sample(den, x, solver="dopri5"))
    assert torch.equal(x0, den.x0(x, 0.5))


def test_devices_without_float64_are_served_by_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs it is made there: the meta device stands in for one without."""
    monkeypatch.setattr(devices, "NO_FLOAT64", {"meta"})
    assert devices.float64_device(torch.device("meta")).type == "cpu"
    assert devices.float64_device(torch.device("cpu")).type == "cpu"
    z = logsnr.kernels.normals(1, 2, 3, 8, device="meta")
    assert (z.device.type, z.dtype) == ("meta", torch.float32)
