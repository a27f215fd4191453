"""Calibration: what it measures, what it refuses, files, and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis

SCH = logsnr.VPLinear()
GAUSSIAN = analysis.Gaussian(np.linspace(-1, 2, 6).reshape(2, 3), np.geomspace(0.05, 4, 6).reshape(2, 3))
MIXTURE = analysis.GaussianMixture(means=[[-1.0], [0.8]], covs=[0.1, 0.3], weights=[0.4, 0.6])
FEW = {"nodes": 7}


def points(data: analysis.Gaussian | analysis.GaussianMixture, n: int = 256) -> torch.Tensor:
    return data.sample(n, generator=torch.Generator().manual_seed(1))


def test_gaussian_data_are_exact_in_one_step() -> None:
    """From end to end of the schedule, with what was measured on 256 points that are none of the Gaussian's marginal:
    its l is the same everywhere, and its F is f."""
    den = GAUSSIAN.denoiser(SCH, "v")
    statistics = logsnr.calibrate(den, points(GAUSSIAN), batch=512)
    lam = statistics.nodes[:, None, None]
    np.testing.assert_allclose(statistics.l, 1 / (1 + np.exp(2 * lam) * GAUSSIAN.variances.numpy()), atol=1e-14)
    x = GAUSSIAN.sample_at(SCH, 1.0, 4, generator=torch.Generator().manual_seed(0))
    for order in (1, 2, 3):
        found = logsnr.sample(den, x, solver=logsnr.solver(f"dpm-v3-{order}", statistics=statistics), steps=1)
        torch.testing.assert_close(found, GAUSSIAN.flow(x, SCH, 1.0, SCH.t_end), rtol=0, atol=1e-12)


def test_statistics_are_what_they_say() -> None:
    """l, f and s of a mixture on many points, against integrals over its marginals: l = E[sigma deps/dx], f = -l E[x0],
    and s by a least-squares fit of dF/dlam to F along exact paths."""
    den, count = MIXTURE.denoiser(SCH), 16000
    statistics = logsnr.calibrate(den, points(MIXTURE, count), nodes=31, batch=count, t_start=0.8, t_end=0.1)
    middle = 15
    lam = float(statistics.nodes[middle])
    t = float(SCH.time(lam))
    x = torch.linspace(-9, 9, 20001, dtype=torch.float64)[:, None]
    a, sigma = SCH.alpha(t), SCH.sigma(t)
    pdf = sum(
        w * torch.exp(-((x - a * m) ** 2) / (2 * (a * a * c + sigma * sigma))) / (a * a * c + sigma * sigma) ** 0.5
        for w, m, c in ((0.4, -1.0, 0.1), (0.6, 0.8, 0.3))
    )
    weights = (pdf / pdf.sum())[:, 0]

    def u(step: float) -> torch.Tensor:
        """u on the paths through x, ``step`` away in lam."""
        there = float(SCH.time(lam + step))
        at = MIXTURE.reference(x[::200], SCH, t, there) if step else x[::200]
        return np.exp(-lam - step) * den.eps(at, there)[:, 0], at[:, 0] / SCH.alpha(there)  # type: ignore[return-value]

    eps = den.eps(x, t)[:, 0]
    l = float((weights * sigma * torch.gradient(eps, spacing=(x[:, 0],))[0]).sum())  # noqa: E741
    assert statistics.l[middle, 0] == pytest.approx(l, abs=0.01)
    assert statistics.f[middle, 0] == pytest.approx(-l * 0.08, abs=0.03)
    slope = np.gradient(statistics.l[:, 0], statistics.nodes)[middle]
    forces = [now - (statistics.l[middle, 0] + slope * d) * y for d in (-0.01, 0.01, 0) for now, y in [u(d)]]  # type: ignore[misc]
    coarse = weights[::200] / weights[::200].sum()
    rise, force = (forces[1] - forces[0]) / 0.02, forces[2] - (coarse * forces[2]).sum()
    s = float((coarse * force * rise).sum() / (coarse * force * force).sum())
    assert statistics.s[middle, 0] == pytest.approx(s, abs=0.05)
    assert abs(s) > 0.2


class Straight(torch.autograd.Function):
    """x / 2 without a formula for forward mode."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x / 2

    @staticmethod
    def backward(ctx: Any, *grad: torch.Tensor) -> torch.Tensor:
        return grad[0] / 2


@pytest.mark.parametrize(
    "model",
    [
        lambda x, t: x / 2,
        lambda x, t: Straight.apply(x),
        lambda x, t: x.detach() / 2,  # whose derivative is 0 in forward mode, without an error
        lambda x, t: torch.from_numpy(x.numpy() / 2),
    ],
    ids=["forward", "no formula", "detached", "numpy"],
)
def test_differences_where_forward_mode_fails(model: Any) -> None:
    """eps = x / 2: l is sigma / 2."""
    den = logsnr.Denoiser(model, SCH, "eps")
    statistics = logsnr.calibrate(den, points(GAUSSIAN), **FEW)
    wanted = SCH.sigma(SCH.time(statistics.nodes))[:, None, None] / 2
    np.testing.assert_allclose(statistics.l, np.broadcast_to(wanted, statistics.l.shape), rtol=1e-8)


def test_networks_of_integer_times() -> None:
    sch = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    exact = GAUSSIAN.denoiser(sch, "eps")
    den = logsnr.Denoiser(lambda x, t: exact.eps(x, t.double()), sch, "eps", time="index")
    statistics = logsnr.calibrate(den, points(GAUSSIAN), **FEW)
    assert np.isfinite(statistics.s).all()
    wanted = logsnr.calibrate(exact, points(GAUSSIAN), **FEW)
    np.testing.assert_allclose(statistics.l, wanted.l, atol=1e-2)


def test_batches_do_not_matter() -> None:
    den, data = MIXTURE.denoiser(SCH), points(MIXTURE)
    one, other = (logsnr.calibrate(den, data, batch=batch, **FEW) for batch in (256, 100))
    for name in ("l", "s", "f"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-6)


def test_files(tmp_path: Path) -> None:
    den = GAUSSIAN.denoiser(SCH)
    statistics = logsnr.calibrate(den, points(GAUSSIAN), **FEW)
    statistics.save(tmp_path / "stats")
    again = logsnr.Statistics.load(tmp_path / "stats")
    assert again == statistics
    assert hash(again) == hash(statistics)
    assert (again.schedule, again.points, again.event) == (str(SCH), 256, (2, 3))
    assert logsnr.solver("dpm-v3-2", statistics=again) is logsnr.solver("dpm-v3-2", statistics=statistics)
    x = points(GAUSSIAN, 3)
    one, other = (logsnr.sample(den, x, solver="dpm-v3-2", statistics=s, steps=4) for s in (statistics, again))
    assert torch.equal(one, other)
    (tmp_path / "text").write_text("none")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        logsnr.Statistics.load(tmp_path / "text")
    logsnr.calibrate(den, points(GAUSSIAN), file=tmp_path / "part", **FEW)
    with pytest.raises(ValueError, match="holds no statistics of logsnr"):
        logsnr.Statistics.load(tmp_path / "part")
    with pytest.raises(FileNotFoundError):
        logsnr.Statistics.load(tmp_path / "nothing")


def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    """With the same result, bit for bit, and no node measured twice."""
    exact, calls, most = MIXTURE.denoiser(SCH), 0, 10**9

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > most:
            raise KeyboardInterrupt
        return exact.x0(x, t)

    den, data, file = logsnr.Denoiser(model, SCH, "x0"), points(MIXTURE), tmp_path / "part"
    whole = logsnr.calibrate(den, data, **FEW)
    needed, calls, most = calls, 0, 12
    with pytest.raises(KeyboardInterrupt):
        logsnr.calibrate(den, data, file=file, **FEW)
    calls, most = 0, 10**9
    assert logsnr.calibrate(den, data, file=file, **FEW) == whole
    assert calls < needed
    calls = 0
    assert logsnr.calibrate(den, data, file=file, **FEW) == whole
    assert calls == 1  # the fingerprint
    with pytest.raises(ValueError, match="another seed"):
        logsnr.calibrate(den, data, file=file, seed=1, **FEW)
    with pytest.raises(ValueError, match="another data"):
        logsnr.calibrate(den, data + 1, file=file, **FEW)
    with pytest.raises(ValueError, match="another denoiser"):
        logsnr.calibrate(logsnr.Denoiser(lambda x, t: x, SCH), data, file=file, **FEW)


def test_what_does_not_belong_together_is_refused() -> None:
    den, x = GAUSSIAN.denoiser(SCH), points(GAUSSIAN, 3)
    solver = logsnr.solver("dpm-v3-2", statistics=logsnr.calibrate(den, points(GAUSSIAN), **FEW))
    other = analysis.Gaussian(GAUSSIAN.mean, 1.1 * GAUSSIAN.variances).denoiser(SCH)
    with pytest.raises(ValueError, match=r"another denoiser: .* that one answers \[.*\], this one \[.*\]"):
        logsnr.sample(other, x, solver=solver, steps=3)
    with pytest.raises(ValueError, match=r"measured on VPLinear.* not on VPCosine"):
        logsnr.sample(GAUSSIAN.denoiser(logsnr.VPCosine()), x, solver=solver, steps=3)
    with pytest.raises(ValueError, match=r"of samples of shape \(2, 3\), not \(3, 2\)"):
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), x.reshape(3, 3, 2), solver=solver, steps=3)
    half = logsnr.Denoiser(lambda x, t: den.x0(x.double(), t).half(), SCH, "x0", dtype=torch.float16)
    assert logsnr.sample(half, x, solver=solver, steps=3).shape == x.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x0": torch.zeros(255, 2, 3)}, "x0 has 255 points; statistics need at least 256"),
        ({"x0": torch.full((300, 2, 3), float("nan"))}, "x0 must be finite"),
        ({"x0": torch.zeros(300, 2, 3, dtype=torch.int64)}, "x0 must be a float tensor"),
        ({"nodes": 1}, "nodes = 1 must be at least 2"),
        ({"batch": 0}, "batch = 0 must be an integer of at least 1"),
        ({"progress": 1}, "progress = 1 must be True or False"),
        ({"t_start": 0.2, "t_end": 0.5}, "must go from noise to data"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"den": GAUSSIAN.denoiser(SCH), "x0": points(GAUSSIAN), **FEW, **change}
    with pytest.raises(ValueError, match=message):
        logsnr.calibrate(**arguments)


def test_no_denoiser() -> None:
    with pytest.raises(TypeError, match=r"den must be a logsnr.Denoiser, not function"):
        logsnr.calibrate(lambda x, t: x, points(GAUSSIAN))  # type: ignore[arg-type]
