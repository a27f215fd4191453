"""run: memory, threads, precision, gradients, and the columns that no named solver has yet."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.solvers.lower import lower
from logsnr.solvers.program import Call, Program
from logsnr.solvers.run import run

SCH = logsnr.VPLinear()
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
SHAPE = (2, 4, 8, 8)


def bent(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (1 + t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def allocated(
    solver: str, steps: int, dtype: torch.dtype, output: torch.Tensor, shape: tuple[int, ...]
) -> list[int]:
    """Bytes of every allocation of at least half of the model input's size during one run."""
    den = logsnr.Denoiser(lambda x, t: output, SCH, "eps", dtype=dtype)
    x = torch.ones(shape)
    logsnr.sample(den, x, solver=solver, steps=steps)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        logsnr.sample(den, x, solver=solver, steps=steps)
    sizes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return sorted(size for size in sizes if size >= x.numel())


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "deis-4", "dpmpp-3s", "rk4"])
@pytest.mark.parametrize("dtype", [F32, F16])
@pytest.mark.parametrize("kind", ["plain", "transposed", "learned variance", "threaded"])
def test_nothing_is_allocated_after_the_first_step(solver: str, dtype: torch.dtype, kind: str) -> None:
    """5 and 50 steps allocate the same number of tensors of the state's size."""
    shape = (1, 4, 320, 320) if kind == "threaded" else (2, 4, 32, 32)
    output = torch.zeros(shape, dtype=dtype)
    if kind == "transposed":
        output = output.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    if kind == "learned variance":
        output = torch.cat([output, output], 1)
    few, many = (allocated(solver, steps, dtype, output, shape) for steps in (5, 50))
    assert few
    assert few == many


@pytest.mark.parametrize("state", [F64, F32, F16])
def test_x_is_never_modified_and_the_end_is_new_memory(state: torch.dtype) -> None:
    """Neither the user's x nor the end of an earlier run changes in a later run."""
    den = logsnr.Denoiser(bent, SCH, "eps", dtype=F32)
    x = torch.randn(SHAPE).to(state)
    before = x.clone()
    for solver in ("ddim", "dpmpp-2m", "dpmpp-3s"):
        first = logsnr.sample(den, x, solver=solver, steps=3)
        kept = first.clone()
        logsnr.sample(den, first, solver=solver, steps=3)
        assert torch.equal(x, before)
        assert torch.equal(first, kept)
        assert first.data_ptr() != x.data_ptr()


def test_threads_share_a_denoiser() -> None:
    """Sixteen runs in four threads with one Denoiser give exactly what they give one after the other."""
    den = logsnr.Denoiser(bent, SCH, "eps", dtype=F16)
    starts = torch.randn(16, *SHAPE)

    def go(x: torch.Tensor) -> torch.Tensor:
        return logsnr.sample(den, x, solver="deis-3", steps=37)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(go, starts))
    assert all(torch.equal(a, go(x)) for a, x in zip(found, starts, strict=True))


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("at", [1, 3, 6])
def test_nonfinite_answers_name_call_and_time(gradients: bool, value: float, at: int) -> None:
    """A non-finite answer at call k is an error that says k and t, on the compiled and on the torch path; the
    error survives pickling."""
    count = [0]

    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        y = x * 0.5
        return (
            torch.where(torch.arange(y.numel()).reshape(y.shape) == y.numel() - 1, value, y)
            if count[0] == at
            else y
        )

    x = torch.randn(SHAPE, requires_grad=gradients)
    t = float(logsnr.grid(SCH, 6)[at - 1])
    with pytest.raises(logsnr.NonFiniteError, match=f"call {at} of 6, t = {t:.6g}") as caught:
        logsnr.sample(logsnr.Denoiser(broken, SCH, "eps"), x, solver="deis-3", steps=6)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.call, again.t) == (str(caught.value), at - 1, t)


def test_nonfinite_state_is_not_blamed_on_the_model() -> None:
    """If x itself is not finite the error says so."""
    x = torch.ones(SHAPE)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="x holds infinities or NaNs"):
        logsnr.sample(logsnr.Denoiser(bent, SCH), x, steps=3)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "deis-2"])
@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_more_steps_do_not_hurt_in_half_precision(solver: str, dtype: torch.dtype, prediction: str) -> None:
    """With an exact Gaussian model that reads and answers in half precision and an fp32 state, 200 steps
    are no worse than 50."""
    problem = Gaussian(0.7, 0.25)
    exact = problem.denoiser(SCH)

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert x.dtype == dtype
        return exact.head(prediction, x.double(), t.double()).to(dtype)

    den = logsnr.Denoiser(model, SCH, prediction, dtype=dtype)
    x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    wanted = problem.flow(x.double(), SCH, 1.0, 1e-2)

    def error(steps: int) -> float:
        return float(
            (logsnr.sample(den, x, solver=solver, steps=steps, t_end=1e-2) - wanted).square().mean().sqrt()
        )

    assert error(200) <= error(50)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "deis-3", "dpm-3", "heun"])
def test_gradients_with_respect_to_x(solver: str) -> None:
    """Gradients that flow through a whole run equal finite differences."""
    den = logsnr.Denoiser(bent, SCH, "v")
    x = torch.randn(2, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: logsnr.sample(den, x, solver=solver, steps=4), (x,))


def test_function_transforms() -> None:
    """torch.func.jvp, grad and vmap pass through a run."""
    den = logsnr.Denoiser(bent, SCH, "eps")

    def f(x: torch.Tensor) -> torch.Tensor:
        return logsnr.sample(den, x, steps=4)

    x, v = torch.randn(3, 2, dtype=F64), torch.randn(3, 2, dtype=F64)
    jacobian = torch.autograd.functional.jacobian(f, x)
    torch.testing.assert_close(torch.func.jvp(f, (x,), (v,))[1], torch.einsum("ijkl,kl->ij", jacobian, v))
    torch.testing.assert_close(torch.func.grad(lambda x: f(x).sum())(x), jacobian.sum((0, 1)))
    torch.testing.assert_close(torch.func.vmap(lambda y: f(y[None])[0])(x), f(x))


@pytest.mark.parametrize("dtype", [F32, F16])
def test_guidance_columns(dtype: torch.dtype) -> None:
    """A model that returns two tensors with weights (w, 1 - w) samples like the mixed model."""
    program = logsnr.solver("deis-3").program(SCH, logsnr.grid(SCH, 6))
    x, w = torch.randn(SHAPE, dtype=F64), 3.5

    def two(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return bent(x, t), torch.sin(x)

    def mixed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y, z = two(x, t)
        return w * y.double() + (1 - w) * z.double()

    guided = lower(program, SCH, "eps", state=F64, model=dtype, weights=(w, 1 - w))
    plain = lower(program, SCH, "eps", state=F64, model=dtype)
    (found, nfe), (wanted, _) = (
        run(low, logsnr.Denoiser(model, SCH, dtype=dtype), x)
        for low, model in ((guided, two), (plain, mixed))
    )
    assert nfe == 6
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    wrong = lambda x, t: bent(x, t), lambda x, t: two(x, t)[:1], lambda x, t: None
    for answer in wrong:
        with pytest.raises((ValueError, TypeError), match="call 1 of 6"):
            run(guided, logsnr.Denoiser(answer, SCH), x)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_noise_columns(dtype: torch.dtype) -> None:
    """Noises are asked for by their keys, in order, and enter with their coefficients; without noise= the
    program is refused."""
    grid = (1.0, 0.6, 0.3)
    calls = (
        Call(1.0, (0,), (0,), np.array([[0.0, 0.5, 0.25, 2.0]]), noises=((1.0, 0.6),), node=1),
        Call(0.6, (0,), (0,), np.array([[0.0, 1.0, 1.0, 3.0]]), noises=((0.6, 0.3),), node=2),
    )
    low = lower(Program("noisy", 1, grid, calls), SCH, "eps", state=F64, model=dtype)
    keys = []

    def noise(key: tuple[float, float], like: torch.Tensor) -> torch.Tensor:
        keys.append(key)
        return torch.full(like.shape, key[1], dtype=F32)

    x = torch.ones(3, 2, dtype=F64)
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, 8.0), SCH, dtype=dtype)
    for gradients in (False, True):
        end, _ = run(low, den, x.clone().requires_grad_(gradients), noise=noise)
        expected = (4 + 0.25 + 2 * np.float32(0.6)) + 8 + 3 * np.float32(0.3)
        torch.testing.assert_close(end.detach(), torch.full_like(x, float(expected)))
        assert keys == [(1.0, 0.6), (0.6, 0.3)] * (1 + gradients)
        with pytest.raises(ValueError, match="give noise="):
            run(low, den, x)


def test_per_element_coefficients() -> None:
    """A program whose matrices vary by channel runs each channel as that channel's own program would."""
    programs = [
        logsnr.solver("dpmpp-2m").program(SCH, logsnr.grid(SCH, 5, t_end=end)) for end in (1e-3, 1e-2, 0.1)
    ]
    common = [
        Call(
            entries[0].t, entries[0].reads, entries[0].writes,
            np.stack([e.matrix for e in entries], -1)[..., None, None], node=entries[0].node,
        )
        for entries in zip(*programs, strict=True)
    ]  # fmt: skip
    together = Program("by channel", 2, programs[0].grid, tuple(common))
    x = torch.randn(2, 3, 4, 4, dtype=F64)
    den = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "x0")
    end, _ = run(lower(together, SCH, "x0", state=F64, model=F64), den, x)
    for c, program in enumerate(programs):
        # calls at other times, but the model does not look at t, and x0 is used as it is
        alone, _ = run(lower(program, SCH, "x0", state=F64, model=F64), den, x[:, c : c + 1])
        torch.testing.assert_close(end[:, c : c + 1], alone, rtol=0, atol=1e-13)
