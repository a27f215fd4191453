"""Complex states: runs of their parts, with noise of unit power."""

import math
import re
import warnings
from typing import Any

import pytest
import torch

import logsnr
from logsnr import analysis

SCH = logsnr.VPLinear()
VARIANCE = 0.25  # of a complex number; half of it is the real part's
PARTS = analysis.Gaussian(0.0, VARIANCE).denoiser(SCH)


def network(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact eps of circular complex Gaussian data: in units of sqrt(1/2) each part is a real problem."""
    assert z.is_complex()
    return torch.view_as_complex(PARTS.eps(torch.view_as_real(z) * math.sqrt(2), t) / math.sqrt(2))


def curved(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Whose bits do not depend on the batch, as those of torch's complex division do."""
    return z * (1 / (1 + z.real**2 + z.imag**2)) - 0.3j * t[:, None]


DEN, CURVED = logsnr.Denoiser(network, SCH), logsnr.Denoiser(curved, SCH, "v")
Z = logsnr.start(SCH, (4, 3), seed=0, dtype=torch.complex64)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_noise_of_unit_power(dtype: torch.dtype) -> None:
    """As torch.randn has it, with independent parts; the same for a sample alone."""
    z = logsnr.randn((20_000, 2), seed=0, dtype=dtype)
    assert z.dtype is dtype
    assert abs(float(z.abs().square().mean()) - 1) < 0.02
    assert abs(float(z.real.var()) - 0.5) < 0.01
    assert abs(float((z.real * z.imag).mean())) < 0.01
    assert torch.equal(logsnr.randn((1, 2), seed=0, sample_ids=[7], dtype=dtype)[0], z[7])
    edm = logsnr.start(logsnr.EDM(), (500, 2), seed=0, dtype=dtype)
    assert 70 < float(edm.abs().square().mean().sqrt()) < 90


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "dpmpp-2m"},
        {"solver": "ddpm", "seed": 1},
        {"solver": "sde-dpmpp-2m", "seed": 1},
        {"solver": "sde-dpmpp-2m", "seed": 1, "brownian": True},
        {"solver": "ddpm", "noise": lambda key, like: torch.randn_like(like)},
    ],
)
def test_power_of_what_is_generated(options: dict[str, Any]) -> None:
    """That of the exact moments: noise that is added on the way has unit power too."""
    start = logsnr.start(SCH, (20_000, 1), seed=0, dtype=torch.complex128)
    end = logsnr.sample(DEN, start, steps=12, **options)
    wanted = analysis.sampler_moments(options["solver"], analysis.Gaussian(0.0, VARIANCE), SCH, steps=12)
    assert abs(float(end.abs().square().mean()) / float(wanted.cov) - 1) < 0.04
    assert end.dtype is torch.complex128


@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "sde-dpmpp-2m"])
def test_a_sample_alone_and_in_parallel(solver: str) -> None:
    """The same bits, in windows of calls too, and from tensors that are not dense or only conjugated when read."""
    whole = logsnr.solve(CURVED, Z, solver=solver, steps=5, seed=0, trajectory=True)
    alone = logsnr.sample(CURVED, Z[2:3], solver=solver, steps=5, seed=0, sample_ids=[2])
    assert torch.equal(alone, whole.x[2:3])
    window = logsnr.Picard(tol=0.0, window=3)
    parallel = logsnr.solve(CURVED, Z, solver=solver, steps=5, seed=0, parallel=window, trajectory=True)
    assert torch.equal(parallel.x, whole.x)
    assert torch.equal(parallel.trajectory, whole.trajectory)
    for same in (Z.mT.contiguous().mT, Z.conj().resolve_conj().conj()):
        assert torch.equal(logsnr.sample(CURVED, same, solver=solver, steps=5, seed=0), whole.x)


def test_those_who_watch_see_complex_states() -> None:
    def edit(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        assert state.is_complex()
        assert x0.is_complex()
        state.mul_(0)

    assert not logsnr.sample(CURVED, Z, solver="ddim", steps=3, callback=edit).any()
    assert not logsnr.sample(CURVED, Z, solver="ddim", steps=3, callback=lambda node, t, state: 0 * state).any()
    kept = logsnr.sample(CURVED, Z, solver="ddim", steps=3, callback=lambda node, t, state: state)
    assert torch.equal(kept, logsnr.sample(CURVED, Z, solver="ddim", steps=3))
    with pytest.raises(TypeError, match="so must a new state be"):
        logsnr.sample(CURVED, Z, solver="ddim", steps=3, callback=lambda node, t, state: state.real)
    told = re.escape(f"{tuple(Z[:1].shape)}; a new state must have the shape {tuple(Z.shape)}")
    for new, error, message in ((lambda z: z[:1], ValueError, told), (list, TypeError, "returned list at node 1")):
        with pytest.raises(error, match=message):
            logsnr.sample(CURVED, Z, solver="ddim", steps=3, callback=lambda node, t, state, new=new: new(state))


def test_guided_mapped_adaptive_and_differentiated() -> None:
    def conditional(z: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return curved(z, t) + y[:, None]

    one, none = torch.ones(4), torch.zeros(4)
    weak = {"model": lambda z, t, y: conditional(z, t, 0 * y)}
    ends = []
    for more in ({"uncond": {"y": none}}, weak):
        guidance = logsnr.Guidance(2.0, **more)  # type: ignore[arg-type]
        den = logsnr.Denoiser(conditional, SCH, "v", conditions={"y": one}, guidance=guidance)
        ends.append(logsnr.sample(den, Z, steps=4))
    torch.testing.assert_close(*ends)
    small = logsnr.Denoiser(curved, SCH, "v", map_x0=lambda x0, z, t: x0 / x0.abs().clamp_min(1))
    assert float(logsnr.sample(small, Z, solver="dpmpp-2m", steps=4, t_end=0).abs().max()) < 1 + 1e-5
    assert logsnr.sample(CURVED, Z, solver="dpm-12", rtol=1e-2).isfinite().all()
    z = Z.clone().requires_grad_()
    logsnr.sample(CURVED, z, steps=3).abs().sum().backward()
    assert z.grad is not None
    assert z.grad.is_complex()
    assert torch.equal(CURVED.v(Z, 0.5), curved(Z, torch.full((4,), 0.5)))
    torch.testing.assert_close(DEN.x0(Z, 0.5), (Z - float(SCH.sigma(0.5)) * DEN.eps(Z, 0.5)) / float(SCH.alpha(0.5)))


def test_densities() -> None:
    """Of both parts together: the exact ones, as sums over the parts."""
    z = math.sqrt(0.5) * torch.view_as_complex(torch.randn(4, 2, 2, dtype=torch.float64))

    def density(z: torch.Tensor, t: float) -> torch.Tensor:
        spread = float(SCH.alpha(t)) ** 2 * VARIANCE + float(SCH.sigma(t)) ** 2
        law = torch.distributions.Normal(0.0, torch.tensor(spread / 2, dtype=torch.float64).sqrt())
        return law.log_prob(torch.view_as_real(z)).sum((1, 2))

    exact = density(z, SCH.t_end)
    torch.testing.assert_close(logsnr.log_likelihood(DEN, z, steps=10).value, exact, rtol=0, atol=2e-3)
    found = logsnr.log_likelihood(DEN, z, steps=40, prior=lambda z: density(z, SCH.t_start))
    torch.testing.assert_close(found.value, exact, rtol=0, atol=1e-8)
    assert found.latent.is_complex()
    run = logsnr.solve(DEN, Z.to(torch.complex128), solver="ddpm", steps=4, seed=0, trajectory=True)
    assert run.trajectory is not None
    assert run.program is not None
    steps = logsnr.log_prob(DEN, run.trajectory, run.program)
    law = torch.distributions.Normal(torch.view_as_real(steps.mean), steps.std.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(steps.steps, law.log_prob(torch.view_as_real(run.trajectory[1:])).sum((2, 3)))
    real = logsnr.log_prob(PARTS, torch.zeros(5, 1, 1), run.program)
    torch.testing.assert_close(steps.std, real.std * math.sqrt(0.5))


@pytest.mark.parametrize("solver", ["heun", "sde-dpmpp-2m"])
def test_a_loop_of_ones_own(solver: str) -> None:
    """A `Stepper` shows, takes and returns complex numbers: with the bits of `sample`, and with noise of unit power."""
    program = logsnr.solver(solver).program(SCH, logsnr.grid(SCH, 4))
    asked: list[torch.dtype] = []

    def noise(key: Any, like: torch.Tensor) -> torch.Tensor:
        asked.append(like.dtype)
        return torch.ones_like(like) * 1j

    for given in ({"seed": 3}, {"noise": noise}):
        stepper = logsnr.Stepper(program, SCH, "v", Z, **given)
        while not stepper.done:
            stepper.step(curved(stepper.x, torch.full((4,), stepper.t)))
        assert torch.equal(stepper.x, logsnr.sample(CURVED, Z, solver=program, **given))
        assert stepper.x0.is_complex()
    assert set(asked) <= {torch.complex64}
    stepper = logsnr.Stepper(program, SCH, "v", Z, dtype=torch.float64, seed=0)
    stepper.replace(2 * Z)
    assert torch.equal(stepper.x, 2 * Z.to(torch.complex128))
    with pytest.raises(TypeError, match="x is complex, and so must the answer be"):
        stepper.step(Z.real)
    with pytest.raises(TypeError, match="so must what replaces it be"):
        stepper.replace(Z.real)
    with pytest.raises(ValueError, match=r"dtype = torch\.float16 does not go with complex x"):
        logsnr.Stepper(program, SCH, "v", Z, dtype=torch.float16)


def test_a_table_that_is_fitted() -> None:
    """To complex noises as to their parts; the table knows its denoiser again."""
    z = logsnr.randn((64, 2), seed=1, dtype=torch.complex128)
    net = torch.nn.Linear(1, 1).double()
    den = logsnr.Denoiser(lambda z, t: curved(z, t) * (1 + 0 * net.weight.detach()[0, 0]), SCH, "v")
    end = logsnr.sample(den, z, solver="dpmpp-2m", steps=24)
    options: dict[str, Any] = {"iterations": 1, "solver": "dpmpp-2m"}
    program = logsnr.tune(den, z, nfe=3, reference=end, **options)
    parts = logsnr.Denoiser(lambda x, t: torch.view_as_real(curved(torch.view_as_complex(x.contiguous()), t)), SCH, "v")
    same = logsnr.tune(parts, torch.view_as_real(z), nfe=3, reference=torch.view_as_real(end), **options)
    assert [call.matrix.tolist() for call in program] == [call.matrix.tolist() for call in same]
    assert "<lambda>" in program.provenance["denoiser"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logsnr.sample(den, z, solver=program).isfinite().all()


def test_statistics_by_part() -> None:
    """Of circular Gaussian data those of a real problem with sqrt(2) times the parts: slopes stay, values are less."""
    data = math.sqrt(VARIANCE) * logsnr.randn((256, 2), seed=2, dtype=torch.complex128)
    found = logsnr.calibrate(DEN, data, nodes=7)
    real = logsnr.calibrate(PARTS, torch.view_as_real(data) * math.sqrt(2), nodes=7)
    assert found.l.shape[1:] == (2, 2)
    for name, factor in (("l", 1.0), ("s", 1.0), ("f", math.sqrt(0.5))):
        wanted = torch.tensor(getattr(real, name)) * factor
        torch.testing.assert_close(torch.tensor(getattr(found, name)), wanted, atol=1e-4, rtol=1e-4)
    solver = logsnr.solver("dpm-v3-2", statistics=found)
    assert logsnr.sample(DEN, data[:3], solver=solver, steps=4).is_complex()


def test_bad_input() -> None:
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda z, t: z.real, TypeError, "x is complex, and so must the model's answer be"),
        (lambda z, t: (z,), TypeError, "the model returned tuple"),
        (torch.nn.Linear(3, 3).half(), ValueError, "there are no complex numbers of that"),
    ]
    for model, error, message in wrong:
        with pytest.raises(error, match=message):
            logsnr.sample(logsnr.Denoiser(model, SCH), Z, steps=2)
    for call in (lambda den: logsnr.sample(den, Z, steps=2), lambda den: den.x0(Z, 0.5)):
        with pytest.raises(ValueError, match="map_x0 is a Static, and guides are for real states"):
            call(logsnr.Denoiser(curved, SCH, "v", map_x0=logsnr.control.threshold_static()))
    net = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError) as caught:
        logsnr.sample(logsnr.Denoiser(lambda z, t: net(z), SCH), Z, steps=2)
    assert "view_as_complex(net(torch.view_as_real(x), t))" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="x must be a float tensor"):
        logsnr.sample(CURVED, torch.empty(2, 3, dtype=torch.complex32, device="meta"), steps=2)


def test_a_gaussian_of_complex_data() -> None:
    """Its parts, with the power of complex numbers: the gauge is exact in one step. Nothing imaginary is left out."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(300, 3, 2, dtype=torch.float64, generator=generator) * torch.tensor([0.2, 0.7]) + 0.4
    exact = analysis.Gaussian(math.sqrt(2) * data.mean(0), 2 * data.var(0, correction=0)).denoiser(SCH)

    def model(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(exact.eps(torch.view_as_real(z) * math.sqrt(2), t) / math.sqrt(2))

    den, z = logsnr.Denoiser(model, SCH), torch.view_as_complex(data)
    gauge = logsnr.Wiener.from_data(z)
    assert logsnr.Wiener.from_data(z.numpy()) == logsnr.Wiener.from_data(z.conj().resolve_conj().conj()) == gauge
    start = Z.to(torch.complex128)
    one = logsnr.sample(den, start, solver=logsnr.solver("wiener-1", gaussian=gauge), steps=1)
    torch.testing.assert_close(one, logsnr.sample(den, start, solver="dpmpp-3m", steps=600), rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="basis = 'dct' is for real data; complex ones have 'pixel'"):
        logsnr.Wiener.from_data(z, basis="dct")
    with pytest.raises(ValueError, match="mean must be numbers, not"):
        logsnr.Wiener(z.mean(0), 1.0)
    with pytest.raises(ValueError, match="sigmas must be a 1-D list of numbers, not"):
        logsnr.sample(DEN, Z, sigmas=torch.tensor([2.0 + 1j, 1.0]))
