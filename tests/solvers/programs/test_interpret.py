"""The interpreter: the executor's numbers without it, on numpy, in 50 digits, and with gradients to all that enters."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.solvers.programs.interpret import carry_out
from logsnr.solvers.programs.lower import lower
from logsnr.solvers.programs.program import STATE, Call, Program

SCH = logsnr.VPLinear()
PLANNED = [name for name in logsnr.solver_names() if logsnr.solver(name).planner]
SOME = ["dpmpp-3m", "dpmpp-3s", "heun", "sa-2", "seeds-2", "edm-churn", "ald"]
F64 = torch.float64
X = torch.linspace(-1.5, 1.5, 6, dtype=F64)


def pair(x0: Callable[[Any], Any], number: Callable[[float], Any] = float) -> Callable[[Any, float], tuple[Any, Any]]:
    """The model that answers with this x0, whatever the time."""

    def model(x: Any, t: float) -> tuple[Any, Any]:
        found = x0(x)
        return found, (x - number(SCH.alpha(t)) * found) / number(SCH.sigma(t))

    return model


def bent(x: Any) -> Any:
    """Of operations that every kind of number has."""
    return x / (1 + x * x)


def normals(program: Program) -> dict[Any, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(len(X), dtype=F64, generator=generator) for key in program.noises}


@pytest.mark.parametrize("name", sampled(PLANNED, every=3))
def test_it_is_the_executor(name: str) -> None:
    """Given the same normals, a run ends where the interpreter does, to round-off in fp64, whatever the head; a model
    of half precision costs no call more."""
    for startup, head in (("ramp", "x0"), ("single-step", "v")):
        program = logsnr.solver(name).program(SCH, logsnr.grid(SCH, 7), startup=startup)
        noises = normals(program)

        def answer(x: torch.Tensor, t: torch.Tensor, head: str = head) -> torch.Tensor:
            x0, eps = pair(bent)(x, float(t[0]))
            return x0 if head == "x0" else SCH.alpha(float(t[0])) * eps - SCH.sigma(float(t[0])) * x0

        den = logsnr.Denoiser(answer, SCH, head, dtype=F64)
        end = logsnr.sample(den, X, solver=program, noise=lambda key, like, noises=noises: noises[key])
        wanted = program.interpret(X, pair(bent), noises)
        torch.testing.assert_close(end, wanted, rtol=1e-9, atol=1e-9)
        narrow = lower(program, SCH, "eps", state=torch.float32, model=torch.float16)
        assert len(narrow.updates.calls) == len(program)


@pytest.mark.parametrize("name", SOME)
def test_other_kinds_of_numbers(name: str) -> None:
    """numpy's arrays and Decimals of 50 digits give torch's fp64 result, by the same table."""
    program = logsnr.solver(name).program(SCH, logsnr.grid(SCH, 4, t_start=0.7, t_end=0.05))
    noises = normals(program)
    wanted = program.interpret(X, pair(bent), noises)
    by_numpy = program.interpret(X.numpy(), pair(bent), {key: z.numpy() for key, z in noises.items()})
    assert type(by_numpy) is np.ndarray
    np.testing.assert_allclose(by_numpy, wanted.numpy(), rtol=1e-12, atol=1e-12)
    matrices = [[[Decimal(c) for c in row] for row in call.numbers] for call in program]
    with localcontext() as context:
        context.prec = 50
        for k in range(len(X)):
            given = {key: Decimal(float(z[k])) for key, z in noises.items()}
            end = program.interpret(Decimal(float(X[k])), pair(bent, Decimal), given, matrices=matrices)
            assert len(end.as_tuple().digits) > 45
            assert float(end) == pytest.approx(float(wanted[k]), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", SOME)
def test_gradients_to_all_that_enters(name: str) -> None:
    """Gradients to the start, the model's weights, the noise and the table's coefficients are finite differences'."""
    short = {"per_level": 2} if name == "ald" else {}
    program = logsnr.solver(name, **short).program(SCH, logsnr.grid(SCH, 3, t_start=0.7, t_end=0.05))
    x, weight = X[:2].clone().requires_grad_(), torch.tensor([0.8, 0.3], dtype=F64, requires_grad=True)
    given = [z[:2].clone().requires_grad_() for z in normals(program).values()]
    tables = [torch.tensor(call.matrix, requires_grad=True) for call in program]

    def end(x: torch.Tensor, weight: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        keys, matrices = dict(zip(program.noises, rest[: len(given)], strict=True)), rest[len(given) :]
        model = pair(lambda x: torch.tanh(weight[0] * x + weight[1]))
        return program.interpret(x, model, keys, matrices=matrices)

    inputs = x, weight, *given, *tables
    assert torch.autograd.gradcheck(end, inputs)
    slopes = torch.autograd.grad(end(*inputs).sum(), inputs)
    for call, slope in zip(program, slopes[-len(tables) :], strict=True):
        assert not slope[torch.tensor(call.matrix == 0)].any()  # what is 0 in the table is no coefficient


def test_what_is_0_in_the_table_is_left_out() -> None:
    """Whatever stands in its place, and whatever it would have been multiplied by; a row of zeros is 0."""
    calls = (
        Call(1.0, (0,), (0, 1), [[0.5, 0.0, 2.0], [0.0, 0.0, 1.0]], node=1),
        Call(0.5, (1,), (0, 2), [[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]]),
        Call(0.3, (0, 2), (0,), [[0.0, 0.0, 1.0, 1.0]], node=2),
    )
    program = Program("p", 1, (1.0, 0.5, 0.2), calls)
    nan = float("nan")
    model = {1.0: (10.0, nan), 0.5: (nan, 100.0), 0.3: (nan, nan)}
    assert program.interpret(1.0, lambda x, t: model[t]) == 300.0
    holes = [np.where(call.matrix == 0, nan, 2 * call.matrix) for call in program]
    assert program.interpret(1.0, lambda x, t: model[t], matrices=holes) == 1200.0
    with pytest.raises(ValueError, match="zip"):
        program.interpret(1.0, lambda x, t: model[t], matrices=[rows[:1] for rows in holes])


def test_calls_are_yielded_when_they_are_done() -> None:
    """One by one, each with its results in the slots, where they may be looked at and changed in between; a call reads
    what was there before it."""
    swap = Call(0.5, (0, 1), (0, 1), [[0, 0, 0, 1], [0, 0, 1, 0]])
    last = Call(0.4, (0, 1), (0,), [[0, 0, 1, -1]])
    slots = {STATE: 1.0, 1: 2.0}
    seen = list[tuple[float, float]]()
    for call in carry_out([swap, swap, last], slots, lambda x, t: (x, x)):
        seen.append((call.t, slots[STATE]))
        slots[STATE] += 10 if call is swap else 0
    assert seen == [(0.5, 2.0), (0.5, 1.0), (0.4, -1.0)]


def test_per_element_coefficients_meet_their_elements() -> None:
    """A table by element is carried out on arrays of that shape, each element by its own numbers."""
    matrix = np.random.default_rng(0).normal(size=(1, 3, 4))
    program = Program("p", 1, (1.0, 0.5), (Call(1.0, (0,), (0,), matrix, node=1),))
    x = np.arange(8.0).reshape(2, 4)
    found = program.interpret(x, lambda x, t: (2 * x, 3 * x))
    np.testing.assert_allclose(found, (2 * matrix[0, 0] + 3 * matrix[0, 1] + matrix[0, 2]) * x, rtol=1e-15)
