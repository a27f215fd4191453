"""Calls of a round at once: which do not need each other's answers, and that the answer is the sequential one."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import model, reusing, start

import logsnr
from logsnr.solvers.tuning.numbers import Numbers

SCH = logsnr.VPLinear()
F64, F32, F16 = torch.float64, torch.float32, torch.float16
ROUNDS = logsnr.Rounds()


def table(calls: int = 6, together: int = 2, gauge: str = "x0") -> logsnr.Program:
    """Weights of any size where a table of so many calls a round may have them."""
    lam = np.asarray(SCH.half_logsnr(logsnr.grid(SCH, calls)))
    numbers = Numbers(gauge, 2, lam, together=together)
    q = 0.1 * torch.randn(numbers.size, generator=torch.Generator().manual_seed(calls), dtype=F64)
    return numbers.fitted(q).program(SCH, "pairs", ends=(SCH.t_start, SCH.t_end))


def by_hand(event: Any = 1.0, cost: float = 0.0) -> logsnr.Program:
    """Two rounds of two calls: the second call sees the state with noise and without the first one's answer, but for
    ``cost`` of it. Slot 1 keeps that answer."""
    grid, calls = (1.0, 0.7, 0.5, 0.2, 0.1), []
    for n in range(4):
        key, scale = (grid[n], grid[n + 1]), np.asarray(event)
        if n % 2 == 0:
            rows = [[cost, 0.0, 0.9, 0.1], [1.0, 0.0, 0.0, 0.0]]  # x0, eps, the state, noise
            given: dict[str, Any] = {"reads": (0,), "writes": (0, 1)}
        else:
            rows = [[0.4, 0.1, 0.5, 0.1, 0.2]]
            given = {"reads": (0, 1), "writes": (0,)}
        matrix = np.array(rows).reshape(len(rows), -1, *[1] * scale.ndim) * scale
        calls.append(logsnr.Call(grid[n], matrix=matrix, noises=(key,), node=n + 1, **given))
    return logsnr.Program("by hand", 0, grid, calls)


def compared(den: logsnr.Denoiser, x: torch.Tensor, program: Any, **given: Any) -> logsnr.Solution:
    """The run in rounds, of the same bits as the sequential run."""
    wanted = logsnr.solve(den, x, solver=program, trajectory=True, **given)
    found = logsnr.solve(den, x, solver=program, trajectory=True, parallel=ROUNDS, **given)
    assert torch.equal(found.x, wanted.x)
    assert found.x.dtype is wanted.x.dtype
    assert found.trajectory is not None
    assert wanted.trajectory is not None
    assert torch.equal(found.trajectory, wanted.trajectory)
    assert found.nfe == wanted.nfe
    assert found.program is not None
    assert found.rounds == len(found.program.rounds)
    return found


def test_groups_are_of_calls_that_see_no_answer_of_their_group() -> None:
    assert table(6).rounds == ((0, 1), (2, 3), (4, 5))
    assert table(6, 3).rounds == ((0, 1, 2), (3, 4, 5))
    assert by_hand().rounds == ((0, 1), (2, 3))
    assert by_hand(cost=1e-9).rounds == ((0,), (1,), (2,), (3,))
    assert logsnr.Program.from_json(table(6).to_json()).rounds == table(6).rounds


def test_an_answer_that_goes_round_by_another_slot_is_seen() -> None:
    """The second call sees slot 0, which the first has not written; the third sees slot 1, made of a slot with the
    first one's answer."""
    grid = (1.0, 0.6, 0.3, 0.1)
    calls = [
        logsnr.Call(1.0, (0,), (0, 1), [[0.0, 0.0, 0.9], [1.0, 0.0, 0.5]], node=1),
        logsnr.Call(0.6, (0, 1), (2,), [[0.0, 0.0, 1.0, 0.1]]),
        logsnr.Call(0.5, (1, 2), (0,), [[0.5, 0.0, 0.2, 0.2]], at=2, node=2),
        logsnr.Call(0.3, (0,), (0,), [[0.5, 0.0, 0.2]], node=3),
    ]
    program = logsnr.Program("stages", 0, grid, calls)
    assert program.rounds == ((0, 1), (2,), (3,))
    compared(logsnr.Denoiser(model, SCH, "x0"), start(), program)


def test_named_solvers_have_one_call_a_round() -> None:
    grid = logsnr.grid(SCH, 6)
    methods = [logsnr.solver(n) for n in logsnr.solver_names() if not n.startswith(("dpm-v3", "wiener"))]
    for program in (method.program(SCH, grid) for method in methods if method.planner):
        assert len(program.rounds) == len(program), program.name


@pytest.mark.parametrize("head", ["eps", "x0", "v"])
def test_a_fitted_table_has_the_bits_of_the_sequential_run(head: str) -> None:
    """In one call of the model for each round, of samples times calls; for models that reuse their memory and change
    what they are given, too."""
    rows: list[int] = []

    def counting(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return model(x, t)

    den, x = logsnr.Denoiser(counting, SCH, head), start()
    for program in (table(6), table(6, 3)):
        found = compared(den, x, program)
        assert rows[-found.rounds :] == [len(x) * len(group) for group in program.rounds]
    again = logsnr.Denoiser(reusing(torch.empty(9, 50)), SCH, head)
    assert torch.equal(logsnr.sample(again, x, solver=program, parallel=ROUNDS), found.x)


def test_tables_of_many_calls() -> None:
    """More than 11, all of which the last call reads; with gradients recorded, too."""
    den, program = logsnr.Denoiser(model, SCH, "eps"), table(20)
    found = compared(den, start(), program)
    assert torch.equal(logsnr.sample(den, start(), solver=program, grad=True), found.x)


@pytest.mark.parametrize("kind", [F64, F16])
def test_dtypes(kind: torch.dtype) -> None:
    """The model sees its own dtype, in a slot of its own where the state is wider."""
    x, den = start(dtype=kind), logsnr.Denoiser(model, SCH, "eps", dtype=kind)
    compared(den, x, table(6))
    compared(den, x, by_hand(), seed=3)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "sde-dpmpp-2m", "heun"])
def test_other_programs_run_as_they_do(solver: str) -> None:
    found = compared(logsnr.Denoiser(model, SCH, "eps"), start(), solver, steps=4, seed=0)
    assert found.rounds == found.nfe


def test_noise_is_that_of_the_sequential_run() -> None:
    """Seeds, Brownian paths and functions, each asked once for every interval; with coefficients by element."""
    den, asked = logsnr.Denoiser(model, SCH, "eps"), list[Any]()

    def noise(key: Any, like: torch.Tensor) -> torch.Tensor:
        asked.append((key, like.shape, like.dtype))
        return torch.full_like(like, math.sin(100 * key.t))

    for program in (by_hand(), by_hand(np.linspace(0.9, 1.1, 50))):
        for source in ({"seed": 3}, {"seed": 3, "brownian": True}, {"noise": noise}):
            assert compared(den, start(), program, **source).rounds == 2
    assert asked[:4] == asked[4:8]
    assert not torch.equal(*(logsnr.sample(den, start(), solver=program, seed=s, parallel=ROUNDS) for s in (3, 4)))


def labelled(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return model(x, t) + labels.reshape(-1, 1)


@pytest.mark.parametrize("batch", [1, 2])
def test_conditions_and_guidance_follow_their_samples(batch: int) -> None:
    x, labels = start(batch), torch.tensor([0.5, -1.0])[:batch]
    denoiser = partial(logsnr.Denoiser, labelled, SCH, "eps", conditions={"labels": labels})
    compared(denoiser(), x, table(6))
    compared(denoiser(map_x0=lambda x0, x, t: x0.clamp(-1, 1)), x, table(6))
    guided = denoiser(guidance=logsnr.Guidance(2.5, uncond={"labels": 0 * labels}, interval=(-2, 2)))
    wanted = logsnr.solve(guided, x, solver=table(6))
    found = logsnr.solve(guided, x, solver=table(6), parallel=ROUNDS)
    torch.testing.assert_close(found.x, wanted.x, rtol=1e-4, atol=1e-5)  # there guidance is columns of the program
    assert found.nfe == wanted.nfe
    assert found.rounds == 3


def test_conditions_that_do_not_follow_are_named() -> None:
    labels = torch.tensor([1.0, 2.0])
    den = logsnr.Denoiser(partial(labelled, labels=labels), SCH)
    with pytest.raises(ValueError, match="partial with a tensor of 2 rows"):
        logsnr.sample(den, start(2), solver=table(4), parallel=ROUNDS)
    den = logsnr.Denoiser(lambda x, t: labelled(x, t, labels), SCH)
    with pytest.raises(RuntimeError) as found:
        logsnr.sample(den, start(2), solver=table(4), parallel=ROUNDS)
    assert any("4 rows, samples times calls" in note for note in found.value.__notes__)


def test_callbacks_see_every_node_and_may_stop_the_run() -> None:
    den, seen = logsnr.Denoiser(model, SCH, "x0"), list[Any]()

    def watch(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        seen.append((node, t, state.clone(), x0.clone()))
        if node == 3 and stops:
            raise logsnr.StopSampling

    stops = False
    compared(den, start(), table(6), callback=watch)
    assert [one[:2] for one in seen[:6]] == [one[:2] for one in seen[6:]]
    for one, other in zip(seen[:6], seen[6:], strict=True):
        assert torch.equal(one[2], other[2])
        assert torch.equal(one[3], other[3])
    stops = True
    found = logsnr.solve(den, start(), solver=table(6), callback=watch, parallel=ROUNDS)
    assert found.stopped
    assert torch.equal(found.x, seen[2][2])
    assert (found.rounds, found.nfe) == (2, 4)
    with pytest.raises(ValueError, match="callback has changed the state"):
        logsnr.sample(den, start(), solver=table(6), callback=lambda n, t, y: y + 1, parallel=ROUNDS)


def test_samples_that_fail_are_kept_or_named() -> None:
    def failing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        answer = model(x, t)
        answer[1::3] = torch.where(t[1::3, None] < 0.5, torch.nan, answer[1::3])
        return answer

    den = logsnr.Denoiser(failing, SCH, "x0")
    with pytest.raises(logsnr.NonFiniteError):
        logsnr.sample(den, start(), solver=table(4), parallel=ROUNDS)
    with pytest.warns(UserWarning, match="not finite"):
        found = logsnr.solve(den, start(), solver=table(4), parallel=ROUNDS, on_nan="keep")
    assert found.failed == (1,)
    wanted = logsnr.sample(logsnr.Denoiser(model, SCH, "x0"), start(), solver=table(4))
    assert torch.equal(found.x[[0, 2]], wanted[[0, 2]])


def test_small_batches() -> None:
    den = logsnr.Denoiser(model, SCH)
    assert logsnr.sample(den, start(0), solver=table(4), parallel=ROUNDS).shape == (0, 50)
    compared(den, start(1), table(4))
    compared(logsnr.Denoiser(lambda x, t: 0.3 * x, SCH), torch.linspace(-2, 2, 5), table(4))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"solver": "bosh3", "rtol": 1e-3}, ValueError, r"parallel = Rounds\(\) does not go with an adaptive run"),
        ({"grad": True}, ValueError, "grad = True does not go with parallel="),
        ({"x": start().requires_grad_()}, ValueError, "record no gradients"),
        ({"solver": "ddim", "steps": 3, "t_start": torch.linspace(0.5, 0.7, 3)}, ValueError, "t_start of every sample"),
        ({"parallel": logsnr.Rounds}, TypeError, r"parallel must be a logsnr.Picard or a logsnr.Rounds, not type"),
        ({"solver": "ddpm", "variance": "learned", "steps": 3}, ValueError, "one call after the other"),
    ],
)  # fmt: skip
def test_what_cannot_run_in_rounds(change: dict[str, Any], error: type[Exception], told: str) -> None:
    given = {"x": start(), "solver": table(4), "parallel": ROUNDS} | change
    with pytest.raises(error, match=told):
        logsnr.sample(logsnr.Denoiser(lambda x, t: 1 / 0, SCH), **given)
