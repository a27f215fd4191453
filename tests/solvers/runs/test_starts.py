"""Starts, conventions of other libraries, and what is refused with advice."""

import re

import numpy as np
import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
DEN = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH)
X = torch.zeros(2, 3)


def test_a_start_has_the_noise_of_its_time() -> None:
    """sigma(t_start) times addressed normals: 80 on EDM's schedule."""
    edm = logsnr.EDM()
    assert torch.equal(logsnr.start(edm, (4, 50), seed=3), 80 * logsnr.randn((4, 50), seed=3))
    assert torch.equal(logsnr.start(edm, (4, 50), seed=3, t_start=2.0), 2 * logsnr.randn((4, 50), seed=3))
    assert logsnr.start(SCH, (2, 3), seed=0, dtype=torch.float16).dtype is torch.float16
    with pytest.raises(TypeError, match=r"schedule must be an instance, EDM\(\), not the class EDM"):
        logsnr.start(logsnr.EDM, (2, 3), seed=0)


def test_unit_noise_where_more_is_meant_is_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    den = logsnr.Denoiser(lambda x, t: 0.1 * x, logsnr.EDM(), "x0")
    logsnr.sample(den, logsnr.start(logsnr.EDM(), (2, 100), seed=0), steps=3)
    logsnr.sample(den, torch.randn(2, 100), steps=3, t_start=1.0)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"but pure noise at t = 80 has 80: logsnr.start"):
        logsnr.sample(den, torch.randn(2, 100), steps=3)


RUNS = [
    {"solver": "heun", "steps": 8},
    {"solver": "sde-dpmpp-2m", "steps": 8, "seed": 1},
    {"solver": "dopri5", "t_start": 0.99},
    {"solver": "rk4", "steps": 4, "parallel": logsnr.Picard(tol=0.0)},
]


@pytest.mark.parametrize("options", RUNS, ids=lambda options: options["solver"])
def test_flow_models_with_data_at_1(options: dict) -> None:
    """A network that is told 1 - t and returns x0 - eps runs as its mirror image does."""

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * (1 + t[:, None])

    ours, theirs = logsnr.FlowMatching(), logsnr.FlowMatching(data_at=1)
    straight = logsnr.Denoiser(net, ours, "velocity", dtype=torch.float64)
    mirrored = logsnr.Denoiser(lambda x, t: -net(x, 1 - t), theirs, "velocity", dtype=torch.float64)
    x = logsnr.start(ours, (20, 2), seed=0).double()
    a, b = (logsnr.sample(den, x, **options) for den in (straight, mirrored))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for head in ("x0", "eps", "velocity", "score"):
        torch.testing.assert_close(straight.head(head, x, 0.3), mirrored.head(head, x, 0.3))


def test_data_at_is_0_or_1() -> None:
    with pytest.raises(ValueError, match="data_at = 2 must be 0 or 1"):
        logsnr.FlowMatching(data_at=2)


REFUSED = {
    "num_inference_steps is steps here": lambda: logsnr.sample(DEN, X, num_inference_steps=3),
    "timesteps is grid here": lambda: logsnr.sample(DEN, X, timesteps=[1.0, 0.5]),
    "that is 'v' here": lambda: logsnr.Denoiser(DEN.model, SCH, "v_prediction"),
    "that is 'x0' here": lambda: logsnr.Denoiser(DEN.model, SCH, "sample"),
    "that is 'velocity' here": lambda: logsnr.Denoiser(DEN.model, SCH, "flow"),
    "that is 'eps' here": lambda: logsnr.Denoiser(DEN.model, SCH, "epsilon"),
    "not the class VPLinear": lambda: logsnr.Denoiser(DEN.model, logsnr.VPLinear),
    "that is solver='unipc-3'": lambda: logsnr.sample(DEN, X, solver="unipc", steps=3),
    "that is solver='dpmpp-2m' with grid='karras'": lambda: logsnr.sample(DEN, X, solver="DPM++ 2M Karras", steps=3),
    "that is solver='euler-a'": lambda: logsnr.sample(DEN, X, solver="euler_ancestral", steps=3),
    "trajectory must be True or False": lambda: logsnr.sample(DEN, X, steps=3, trajectory="yes"),
    "brownian must be True or False": lambda: logsnr.sample(DEN, X, steps=3, brownian=1),
    "not a nested one": lambda: logsnr.sample(DEN, torch.nested.nested_tensor([X, X]), steps=3),
    "grad = True does not go": lambda: logsnr.sample(DEN, X, steps=3, grad=True, parallel=logsnr.Picard()),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("said", REFUSED, ids=list(REFUSED))
def test_what_other_libraries_call_otherwise_is_refused_with_advice(said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(said)) as found:
        REFUSED[said]()
    assert len(str(found.value)) < 700


def test_errors_about_programs_are_short() -> None:
    program = logsnr.solver("ddim").program(SCH, logsnr.grid(SCH, 50))
    with pytest.raises(ValueError, match="a program is the whole grid; leave out steps") as found:
        logsnr.sample(DEN, X, solver=program, steps=3)
    assert len(str(found.value)) < 200


def test_gradients_to_weights() -> None:
    """grad=True records them, and the numbers are those of a run without; by differences."""
    net = torch.nn.Linear(3, 3).double()
    den = logsnr.Denoiser(lambda x, t: net(x), SCH, "eps")
    x = logsnr.randn((4, 3), seed=0).double()
    found = logsnr.sample(den, x, steps=3, grad=True)
    torch.testing.assert_close(found.detach(), logsnr.sample(den, x, steps=3), rtol=1e-12, atol=1e-12)
    found.sum().backward()
    slope, h = net.weight.grad[0, 1].item(), 1e-6
    with torch.no_grad():
        ends = []
        for step in (h, -2 * h):
            net.weight[0, 1] += step
            ends.append(logsnr.sample(den, x, steps=3).sum().item())
    assert abs((ends[0] - ends[1]) / (2 * h) - slope) < 1e-5 * abs(slope)


def test_a_model_wrapped_as_its_own_convention_is_told_it() -> None:
    """time="1000t" tells 1000 t; times that are kept are bounded, and long batches get the same."""
    told: list[torch.Tensor] = []
    den = logsnr.Denoiser(lambda x, t: told.append(t) or 0.5 * x, SCH, time="1000t")
    grid = logsnr.grid(SCH, 4)
    for batch in (3, 200_000):
        told.clear()
        logsnr.sample(den, torch.zeros(batch, 1), grid=grid)
        np.testing.assert_allclose([float(t[-1]) for t in told], 1000 * grid[:-1], rtol=1e-6)
        assert all(t.shape == (batch,) and t.is_contiguous() for t in told)
