"""run: memory, threads, precision and gradients."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sampled import sampled
from torch.profiler import ProfilerActivity, profile

import logsnr
from logsnr.analysis.gaussian import Gaussian

SCH = logsnr.VPLinear()
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
SHAPE = (2, 4, 8, 8)


def bent(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (1 + t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def allocated(solver: str, steps: int, dtype: torch.dtype, output: torch.Tensor, shape: tuple[int, ...]) -> list[int]:
    """Bytes of every allocation of at least half of the model input's size during one run."""
    den = logsnr.Denoiser(lambda x, t: output, SCH, "eps", dtype=dtype)
    x = torch.ones(shape)
    logsnr.sample(den, x, solver=solver, steps=steps)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        logsnr.sample(den, x, solver=solver, steps=steps)
    sizes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return sorted(size for size in sizes if size >= x.numel())


KINDS = ["plain", "transposed", "learned variance", "threaded"]


@pytest.mark.parametrize(
    ("solver", "dtype", "kind"), sampled(["ddim", "dpmpp-2m", "deis-4", "dpmpp-3s", "rk4"], [F32, F16], KINDS, every=4)
)
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


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("solver", ["ddim", "dpm-3", "sde-dpmpp-2m"])
def test_models_that_work_in_place(solver: str, gradients: bool) -> None:
    """A model that changes the state itself is an error that names the call, and leaves the user's x alone; where it
    is given a copy in its own dtype it may do as it likes."""

    def rude(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x.tanh_().clone()

    x = torch.randn(SHAPE, requires_grad=gradients)
    before = x.detach().clone()
    for options in ({"steps": 3}, {"steps": 3, "trajectory": True}):
        with pytest.raises(ValueError, match=r"call 1 of .*, t = 1: the model has changed x in place.*clone"):
            logsnr.sample(logsnr.Denoiser(rude, SCH, "eps"), x, solver=solver, seed=0, **options)
    with pytest.raises(ValueError, match="changed x in place"):
        logsnr.Denoiser(rude, SCH, "x0").eps(x + 0, 0.5)
    ends = [
        logsnr.sample(logsnr.Denoiser(model, SCH, "eps", dtype=BF16), x, solver=solver, steps=3, seed=0)
        for model in (rude, lambda x, t: torch.tanh(x))
    ]
    assert torch.equal(*ends)
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("solver", ["ddim", "dpm-3", "sde-dpmpp-2m"])
def test_inference_mode(monkeypatch: pytest.MonkeyPatch, solver: str, backend: str) -> None:
    """A run in inference mode has the bits of any other, and there too a model that works in place is an error."""
    monkeypatch.setenv("LOGSNR_BACKEND", backend)
    outside = torch.randn(SHAPE)
    den, rude = (logsnr.Denoiser(model, SCH, "eps") for model in (bent, lambda x, t: x.tanh_().clone()))
    wanted = logsnr.sample(den, outside, solver=solver, steps=3, seed=0)
    with torch.inference_mode():
        for x in (outside, outside.clone(), torch.nn.Parameter(outside)):
            assert torch.equal(logsnr.sample(den, x, solver=solver, steps=3, seed=0), wanted)
            with pytest.raises(ValueError, match="changed x in place"):
                logsnr.sample(rude, x, solver=solver, steps=3, seed=0)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_inference_mode_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """What a first run in inference mode keeps serves runs outside that record gradients; so does a schedule."""
    monkeypatch.setenv("LOGSNR_BACKEND", backend)
    with torch.inference_mode():
        sch = logsnr.Discrete([0.9, 0.61, 0.3, 0.0123])
        den = logsnr.Denoiser(bent, sch, "x0")
        for solver in ("heun", "dpmpp-2m"):
            logsnr.sample(den, torch.ones(SHAPE), solver=solver, steps=4)
    monkeypatch.delenv("LOGSNR_BACKEND")  # compiled kernels record no gradients
    for solver in ("heun", "dpmpp-2m"):
        x = torch.ones(SHAPE, requires_grad=True)
        logsnr.sample(den, x, solver=solver, steps=4).sum().backward()
        assert x.grad is not None
    t = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sch.alpha(t), t)
    assert float(slope) == pytest.approx(sch.dalpha(1.3), rel=1e-12)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0,), (0, 0), (2, 3, 0)])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "ddpm", "seeds-2", "pc"])
def test_states_without_elements(solver: str, shape: tuple[int, ...]) -> None:
    """Nothing comes out of nothing, at the first run of a program and at later ones."""
    den = logsnr.Denoiser(lambda x, t: x / 2, SCH, "eps")
    for _ in range(3):
        assert logsnr.sample(den, torch.ones(shape), solver=solver, steps=3, seed=0).shape == shape
        logsnr.sample(den, torch.ones(2, 3), solver=solver, steps=3, seed=0)


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
        return torch.where(torch.arange(y.numel()).reshape(y.shape) == y.numel() - 1, value, y) if count[0] == at else y

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


@pytest.mark.parametrize(
    ("solver", "prediction", "dtype"),
    [("dpmpp-2m", "x0", F16), ("dpmpp-2m", "eps", BF16), ("deis-2", "eps", F16), ("deis-2", "eps", BF16)],
)
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
        return float((logsnr.sample(den, x, solver=solver, steps=steps, t_end=1e-2) - wanted).square().mean().sqrt())

    assert error(200) <= error(50)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "deis-3", "dpm-3", "heun"])
def test_gradients_with_respect_to_x(solver: str) -> None:
    """Gradients that flow through a whole run equal finite differences."""
    den = logsnr.Denoiser(bent, SCH, "v")
    x = torch.randn(2, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: logsnr.sample(den, x, solver=solver, steps=4), (x,))


def test_gradients_of_two_runs_at_once() -> None:
    """A second run does not touch what the first has kept for its gradients, times included."""
    den = logsnr.Denoiser(lambda x, t: torch.sin(x * t[:, None]), SCH, "v")
    x = torch.randn(2, 3, dtype=F64, requires_grad=True)
    (alone,) = torch.autograd.grad(logsnr.sample(den, x, steps=4).sum(), x)
    together = logsnr.sample(den, x, steps=4).sum() + logsnr.sample(den, x, steps=4).sum()
    torch.testing.assert_close(torch.autograd.grad(together, x)[0], 2 * alone)


def test_times_are_the_models_own() -> None:
    """A model that changes its times in place, or keeps them, does not disturb later calls, runs or
    batches."""
    kept = []

    def rude(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y = torch.sin(x * t[:, None])
        kept.append(t.clone())
        t.fill_(float("nan"))
        return y

    den = logsnr.Denoiser(rude, SCH, "v", dtype=F64)
    x = torch.randn(4, 3, dtype=F64)
    wanted = logsnr.sample(logsnr.Denoiser(lambda x, t: torch.sin(x * t[:, None]), SCH, "v", dtype=F64), x, steps=4)
    for batch in (4, 4, 2, 4):
        torch.testing.assert_close(logsnr.sample(den, x[:batch], steps=4), wanted[:batch])
    with torch.inference_mode():
        logsnr.sample(den, x, steps=4)
    torch.testing.assert_close(logsnr.sample(den, x, steps=4), wanted)
    assert torch.equal(torch.stack(kept[:4]), torch.stack(kept[-4:]))


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
