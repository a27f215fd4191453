"""`tune` on conditional and guided models: rows go with their samples, and one fit serves many scales."""

from functools import cache

import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers.tuning.family import DEGREE, Tables, powers_of

F64 = torch.float64
SCH = logsnr.EDM(0.02, 20.0)
MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=F64)
BOTH = GaussianMixture(MEANS, torch.tensor([[0.1, 0.3], [0.2, 0.1]], dtype=F64))
CLASSES = [GaussianMixture(BOTH.means[k : k + 1], BOTH.covs[k : k + 1]) for k in (0, 1)]
COUNT, HELD_OUT = 64, 16
START = {"solver": "dpm-2m", "held_out": HELD_OUT / COUNT}


def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x0 of the class y, 0 or 1, or of both, for y = 2."""
    alpha, sigma = torch.ones(len(t), 1, dtype=F64), t.reshape(-1, 1)
    answers = torch.stack([data.posterior(x, alpha, sigma)[0] for data in (*CLASSES, BOTH)])
    return answers[y, torch.arange(len(x))]


def denoiser(count: int, scale: float | torch.Tensor | None) -> logsnr.Denoiser:
    y = torch.arange(count) % 2
    guidance = None if scale is None else logsnr.Guidance(scale, uncond={"y": torch.full_like(y, 2)})
    return logsnr.Denoiser(model, SCH, "x0", conditions={"y": y}, guidance=guidance)


def noise(count: int, seed: int) -> torch.Tensor:
    return logsnr.start(SCH, (count, 2), seed=seed, dtype=F64)


def error(den: logsnr.Denoiser, x: torch.Tensor, how: logsnr.Program | str) -> float:
    exact, found = (
        logsnr.sample(den, x, solver=solver, steps=steps)
        for solver, steps in (("dpm-3m", 300), (how, 5 if how == "dpm-2m" else None))
    )
    return float((found - exact).square().mean(1).sqrt().median())


@pytest.mark.parametrize("scale", [None, 3.0, "per sample"])
def test_rows_of_conditions_go_with_their_noises(scale: float | str | None) -> None:
    """What a fit says of held-out noise is what a run of these samples, with their classes, has."""
    den = denoiser(COUNT, torch.linspace(1, 4, COUNT) if scale == "per sample" else scale)  # type: ignore[arg-type]
    x = noise(COUNT, 0)
    program = logsnr.tune(den, x, 5, iterations=4, **START)  # type: ignore[arg-type]
    told = program.provenance
    assert float(told["held-out median"]) < 0.5 * float(told["start's median"])
    others = den.of_samples(torch.arange(COUNT - HELD_OUT, COUNT))
    assert error(others, x[-HELD_OUT:], program) == pytest.approx(float(told["held-out median"]), rel=0.02)


@cache
def tables() -> Tables:
    found = logsnr.tune(denoiser(COUNT, 2.0), noise(COUNT, 0), 5, iterations=5, scales=(1.5, 4.0), **START)  # type: ignore[arg-type]
    assert isinstance(found, Tables)
    return found


def test_one_fit_for_many_scales() -> None:
    """Each scale has its table, and between those that were fitted to the error is far below the start's, too."""
    assert list(tables()) == [1.5, 4.0]
    x = noise(100, 5)
    for scale in (1.5, 2.5, 4.0):
        den, program = denoiser(100, scale), tables()[scale]
        found = {one: error(den, x, tables()[one]) for one in (1.5, scale, 4.0)}
        assert found[scale] < 0.2 * error(den, x, "dpm-2m"), scale
        assert found[scale] < 0.6 * found[4.0 if scale == 1.5 else 1.5], scale
        assert program.provenance["fitted to scales"] == "1.5, 4"
        assert ("held-out median" in program.provenance) is (scale != 2.5)
    with pytest.raises(KeyError, match=r"serve 1\.5 to 4 scales, not 7"):
        tables()[7.0]


def test_powers_are_legendre_polynomials_of_the_logarithm() -> None:
    assert powers_of(1.0, (1.0, 9.0)) == pytest.approx([(-1.0) ** k for k in range(DEGREE + 1)])
    assert powers_of(3.0, (1.0, 9.0))[:3] == pytest.approx([1.0, 0.0, -0.5])
    assert powers_of(-2.0, (1.0, 9.0)) == powers_of(1.0, (1.0, 9.0))


def test_what_is_refused() -> None:
    for scales in ((3.0,), (3.0, 3.0), (0.0, 2.0), "abc"):
        with pytest.raises(ValueError, match="scales must be two or more different positive numbers"):
            logsnr.tune(denoiser(COUNT, 2.0), noise(COUNT, 0), 5, scales=scales)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scales are those of guidance, which den has not"):
        logsnr.tune(denoiser(COUNT, None), noise(COUNT, 0), 5, scales=(2.0, 4.0))
    with pytest.raises(ValueError, match="scales go with one budget"):
        logsnr.tune(denoiser(COUNT, 2.0), noise(COUNT, 0), [5, 6], scales=(2.0, 4.0))
