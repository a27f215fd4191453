"""Plans and fits are the same whatever their caller is in the middle of, and what they say is said to the caller."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
DEN = logsnr.Denoiser(lambda x, t: 0.5 * torch.tanh(x), SCH, "x0")
MIX = logsnr.analysis.GaussianMixture([[-1.0, 0.3], [0.8, -0.6]], [[0.04, 0.09], [0.02, 0.05]])
X = logsnr.start(SCH, (64, 2), seed=0, dtype=torch.float64)


def tuned(den: Any = None, x: Any = X, nfe: int = 3, **options: Any) -> Any:
    return logsnr.tune(den or MIX.denoiser(SCH), x, nfe, **{"gauge": "x0", "iterations": 2} | options)


@pytest.mark.parametrize("nfe", [5, 8, 21])
def test_the_default_under_transforms_of_torch_func(nfe: int) -> None:
    """From the first call on, of which nothing is kept from before."""
    ends = (0.99 - nfe / 1000, 0.0011)  # of no other test
    x = 0.1 * X[:4]

    def end(x: torch.Tensor) -> torch.Tensor:
        return logsnr.sample(DEN, x, nfe=nfe, t_start=ends[0], t_end=ends[1]).sum()

    found = torch.func.grad(end)(x)
    step = 1e-5 * torch.ones_like(x)
    assert float(((end(x + step) - end(x - step)) / 2) / (found * step).sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("name", ["auto", "universal"])
def test_plans_on_another_default_device(name: str) -> None:
    ends = (0.98, 0.0012)
    with torch.device("meta"):
        program = logsnr.solver(name).program(SCH, logsnr.grid(SCH, 9, t_start=ends[0], t_end=ends[1]))
    again = logsnr.solver(name).program(SCH, logsnr.grid(SCH, 9, t_start=ends[0] - 1e-9, t_end=ends[1]))
    np.testing.assert_allclose(program.grid[1:], again.grid[1:], rtol=1e-6)


@pytest.mark.parametrize("each", [None, "element"])
def test_a_fit_on_another_default_device(each: Any) -> None:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.tanh(x)

    there = logsnr.Denoiser(model, SCH, "x0")
    wanted = tuned(there, each=each)
    with torch.device("meta"):
        assert tuned(there, each=each) == wanted


def test_states_without_further_axes() -> None:
    """Numbers, (B,), are as wide as they are as rows, (B, 1)."""
    x = logsnr.start(SCH, (8,), seed=0)
    a, b = (logsnr.sample(DEN, z, nfe=6, width=0.5) for z in (x, x[:, None]))
    assert torch.equal(a, b[:, 0])


def test_short_steps_before_the_last_level() -> None:
    """With steps shorter than what a fit leaves before it."""
    sd = logsnr.Discrete(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    x = logsnr.start(sd, (64, 2), seed=0, t_start=50.0, dtype=torch.float64)
    program = tuned(MIX.denoiser(sd), x, 16, t_start=50.0, iterations=1)
    assert np.isfinite(program.grid).all()
    assert (np.diff(program.grid) < 0).all()


@pytest.mark.parametrize("schedule", [SCH, logsnr.SubVP()])
def test_told_times_stay_within_the_run(schedule: Any) -> None:
    x = logsnr.start(schedule, (64, 2), seed=0, dtype=torch.float64)
    program = logsnr.tune(MIX.denoiser(schedule), x, rounds=3, gauge="x0", told=True, iterations=8)
    times = [call.t for call in program]
    assert max(times) <= schedule.t_start + 1e-12
    logsnr.sample(MIX.denoiser(schedule), x, solver=program)


def test_a_compiled_model_has_gradients_and_is_the_same() -> None:
    """Its graph can be gone back through only once."""
    net = torch.nn.Linear(2, 2)
    den = logsnr.Denoiser(lambda x, t: torch.tanh(net(x.float())), SCH, "x0")
    compiled = torch.compile(net, backend="aot_eager")
    other = logsnr.Denoiser(lambda x, t: torch.tanh(compiled(x.float())), SCH, "x0")
    one, two = (tuned(d, X.float(), reference=0 * X) for d in (den, other))
    assert one.provenance["derivatives"] == two.provenance["derivatives"] == "gradients"
    assert one.provenance["held-out median"] == pytest.approx(two.provenance["held-out median"], rel=1e-3)
    plain = logsnr.tune(logsnr.Denoiser(Net(net), SCH, "x0"), X, 3, iterations=1, reference=0 * X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        logsnr.sample(logsnr.Denoiser(torch.compile(Net(net), backend="eager"), SCH, "x0"), X, solver=plain)


class Net(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x.float()))


def test_gradients_are_looked_at_where_the_last_call_is() -> None:
    """A model that has none below some time is differentiated by differences."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        answer = MIX.denoiser(SCH).model(x, t)
        return answer.detach() if float(t.reshape(-1)[0]) < 0.3 else answer

    assert tuned(logsnr.Denoiser(model, SCH, "x0"), nfe=5).provenance["derivatives"] == "differences"
    assert tuned(nfe=5).provenance["derivatives"] == "gradients"


def test_too_few_finite_ends() -> None:
    reference = X.clone()
    reference[20:] = torch.nan
    with (
        pytest.warns(UserWarning, match="the reference is not finite for some noises"),
        pytest.raises(ValueError, match="20 of 64 noises have a finite end; a fit needs at least 32"),
    ):
        tuned(reference=reference)


def test_a_reference_of_ones_own_has_no_known_error() -> None:
    assert "reference error" not in tuned(reference=0.1 * X).provenance
    with pytest.raises(ValueError, match=r"and be real, not \(64, 2\) and be complex"):
        tuned(reference=X.to(torch.complex128))


def test_noises_that_record_gradients() -> None:
    assert tuned(x=X.clone().requires_grad_()) == tuned()


@pytest.mark.parametrize("options", [{}, {"each": "element"}])
def test_warnings_name_the_line_that_called(options: Any) -> None:
    """Those of a fit that does not pay, and of noises that are left out."""
    reference = X.clone()
    reference[1] = torch.nan
    with pytest.warns(UserWarning, match="not finite for some noises") as told:
        logsnr.tune(MIX.denoiser(SCH), X, 2, gauge="x0", iterations=1, reference=reference, **options)
    assert {one.filename for one in told if one.category is UserWarning} == {__file__}
