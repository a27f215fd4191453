"""run: the executor is the table, whatever the model returns and whatever the layout of the state."""

import functools

import numpy as np
import pytest
import torch
from checks import interpreted
from sampled import sampled

import logsnr
from logsnr.solvers.catalogue.catalogue import Solver
from logsnr.solvers.programs.lower import Lowered, lower
from logsnr.solvers.runs.run import run
from logsnr.solvers.schedules.base import Schedule

SCH = logsnr.VPLinear()
FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]
PREDICTIONS = ["x0", "eps", "v", "velocity", "score"]
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16


def lowered(
    solver: str,
    prediction: str = "eps",
    *,
    steps: int = 5,
    sch: Schedule = SCH,
    startup: str = "ramp",
    state: torch.dtype = F64,
    model: torch.dtype = F64,
    **options: object,
) -> Lowered:
    method: Solver = logsnr.solver(solver)
    program = method.program(sch, logsnr.grid(sch, steps), startup=startup)  # type: ignore[arg-type]
    return lower(program, sch, prediction, state=state, model=model, **options)  # type: ignore[arg-type]


def weights(low: Lowered, prediction: str, sch: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """What the final state is made of, by multiplying out the program's own matrices in numpy: the factor of
    the initial state, and the weight of each call's output. Heads are solved for by a 2x2 system."""
    calls = len(low.program)
    slots: dict[int, np.ndarray] = {0: np.eye(1, calls + 1)[0]}  # linear forms in (x, outputs)
    for n, call in enumerate(low.program):
        a, s, da, ds = (float(f(call.t)) for f in (sch.alpha, sch.sigma, sch.dalpha, sch.dsigma))
        head = {"x0": (1, 0), "eps": (0, 1), "v": (-s, a), "velocity": (da, ds), "score": (0, -1 / s)}[prediction]
        output = np.eye(calls + 1)[n + 1]
        pair = np.linalg.solve(np.array([[a, s], head]), np.stack([slots[call.at], output]))
        read = np.stack([*pair, *(slots[k] for k in call.reads)])
        slots = {**slots, **dict(zip(call.writes, call.matrix @ read, strict=True))}
    return slots[0][0], slots[0][1:]


CASES = sampled(FIXED, PREDICTIONS, ["ramp", "single-step"], ["torch", "cpu"], every=7)
INTERPRETED = [  # Triton takes its time
    pytest.param(name, "eps", "single-step", "triton", marks=interpreted) for name in ("dpmpp-2m", "deis-3", "rk4")
]


@pytest.mark.parametrize(("solver", "prediction", "startup", "backend"), [*CASES, *INTERPRETED])
def test_the_executor_is_the_table(
    solver: str, prediction: str, startup: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model whose n-th answer is the n-th unit vector, the final state is the row of the program's
    weights; the model is called once per entry, at the entry's time. So with every head, on every backend."""
    monkeypatch.setenv("LOGSNR_BACKEND", backend)
    low = lowered(solver, prediction, startup=startup)
    size = len(low.program) + 1
    asked: list[float] = []

    def probe(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (1,)
        asked.append(float(t))
        return torch.eye(size, dtype=x.dtype)[len(asked)][None]

    x = torch.eye(size, dtype=F64)[:1]
    end, nfe = run(low, logsnr.Denoiser(probe, SCH, prediction), x)
    factor, row = weights(low, prediction, SCH)
    scale = max(1.0, np.abs(row).max())
    np.testing.assert_allclose(end[0].numpy(), [factor, *row], rtol=0, atol=1e-13 * scale)
    assert nfe == len(low.program)
    np.testing.assert_array_equal(asked, [c.t for c in low.program])


def nonlinear(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (1 + t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


@functools.cache
def start() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(5))


def sample(model: object, x: torch.Tensor, solver: str = "deis-3", steps: int = 6, **options: object) -> torch.Tensor:
    den = logsnr.Denoiser(model, SCH, "eps", dtype=options.pop("dtype", None))  # type: ignore[arg-type]
    return logsnr.sample(den, x, solver=solver, steps=steps, **options)


DTYPES = [F64, F32, F16, BF16]


@pytest.mark.parametrize(
    ("shift", "solver"), [*enumerate(["ddim", "dpmpp-3s", "dpmpp-2m", "deis-4", "heun", "dopri5"])]
)
def test_dtypes_of_state_and_model(shift: int, solver: str) -> None:
    """Every pair of state and model dtype gives the fp64 answer within the rounding of the coarser of the
    two: four pairs of each solver, all sixteen of any four."""
    exact = sample(nonlinear, start().double(), solver)
    scale = exact.abs().max()
    for k, state in enumerate(DTYPES):
        model = DTYPES[(k + shift) % 4]
        end = sample(nonlinear, start().to(state), solver, dtype=model)
        assert end.dtype == state
        rounding = max(torch.finfo(state).eps, torch.finfo(model).eps)
        assert (end.double() - exact).abs().max() <= 30 * rounding * scale


class Recorder:
    """Answers like ``nonlinear`` in an unusual tensor."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.answer(nonlinear(x, t))  # type: ignore[operator, no-any-return]


def _reused() -> object:
    buffer = torch.empty(2, 3, 4, 5)
    return lambda y: buffer.copy_(y)


ANSWERS = {
    "transposed": lambda y: y.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "channels-last": lambda y: y.to(memory_format=torch.channels_last),
    "gaps": lambda y: torch.stack([y, y + 1], -1)[..., 0],
    "learned variance": lambda y: torch.cat([y, torch.full_like(y, float("nan"))], 1),
    "negated view": lambda y: torch._neg_view(-y),
    "double": lambda y: y.double(),
    "a parameter": lambda y: torch.nn.Parameter(y),
    "a subclass": lambda y: y.as_subclass(type("Mine", (torch.Tensor,), {})),
    "with gradients": lambda y: y.clone().requires_grad_() * 1,
    "the same buffer": _reused(),
}


@pytest.mark.parametrize(("name", "solver"), sampled(ANSWERS, ["dpmpp-2m", "deis-3", "dpm-3"], every=2))
def test_any_tensor_may_be_the_answer(name: str, solver: str) -> None:
    """The layout, dtype, class and owner of the model's answer do not change the result."""
    wanted = sample(nonlinear, start(), solver)
    found = sample(Recorder(ANSWERS[name]), start(), solver)
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    # fp64 sums of fp64 answers are the same sums: answers are rounded to the accumulation dtype when read
    assert torch.equal(found, wanted)


def test_alternating_answers() -> None:
    """A model may change the dtype and layout of its answer from call to call."""
    count = [0]

    def fickle(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        y = nonlinear(x, t)
        return y.double() if count[0] % 3 == 0 else ANSWERS["transposed"](y) if count[0] % 3 == 1 else y

    assert torch.equal(sample(fickle, start()), sample(nonlinear, start()))


VIEWS = {"itself": lambda x, t: x, "view": lambda x, t: x.view_as(x), "detached": lambda x, t: x.detach()}


@pytest.mark.parametrize(
    ("view", "dtype", "solver"), sampled(VIEWS, [F32, F16], ["dpmpp-2m", "deis-3", "dpm-3", "heun"], every=2)
)
def test_models_that_return_their_input(view: str, dtype: torch.dtype, solver: str) -> None:
    """A model that answers with its input itself, or a view of it, is read before it is overwritten."""
    found = sample(VIEWS[view], start(), solver, dtype=dtype)
    assert torch.equal(found, sample(lambda x, t: x.clone(), start(), solver, dtype=dtype))


LAYOUTS = {
    "channels-last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 1],
    "negated": lambda x: torch._neg_view(-x),
    "one sample": lambda x: x[:1],
    "slice of one": lambda x: torch.cat([x, x], 1)[:1, :3],
    "no sample": lambda x: x[:0],
}


@pytest.mark.parametrize(("name", "solver"), sampled(LAYOUTS, ["dpmpp-2m", "deis-3", "dpm-3"], every=2))
def test_any_layout_of_the_state(name: str, solver: str) -> None:
    """The result does not depend on how x lies in memory, nor on the rest of the batch; x is not modified."""
    x = LAYOUTS[name](start())
    before = x.clone()
    for model in (nonlinear, Recorder(ANSWERS["channels-last"]), Recorder(ANSWERS["learned variance"])):
        for dtype in (None, F16):
            found = sample(model, x, solver, dtype=dtype)
            assert torch.equal(found, sample(model, start(), solver, dtype=dtype)[: len(x)])
    assert torch.equal(x, before)


@pytest.mark.parametrize("solver", FIXED)
def test_states_of_one_dimension_and_one_step(solver: str) -> None:
    """x of shape (B,), and grids of one step and of two, are ordinary."""
    x = start().flatten()
    for steps in (1, 2, 9):
        flat, deep = (sample(nonlinear, y, solver, steps) for y in (x, start().reshape(-1, 1, 1)))
        assert torch.equal(flat, deep.flatten())
        assert torch.isfinite(flat).all()


def test_a_thousand_steps() -> None:
    """A program of a thousand entries runs; DDIM is then within half a percent of the third-order method."""
    fine = sample(nonlinear, start().double(), "ddim", 1000)
    wanted = sample(nonlinear, start().double(), "dpmpp-3s", 100)
    assert (fine - wanted).abs().max() < 5e-3 * wanted.abs().max()
