"""Calls that need no evaluation: on Gaussian data the same result for less, and what others lose; every executor."""

import json
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis
from logsnr.control import TreeDenoiser, solve_tree
from logsnr.integrations import k_diffusion
from logsnr.solvers.program import Call, Program

EDM, VP, ZERO_SNR = logsnr.EDM(), logsnr.VPLinear(), logsnr.Trigonometric()
F64 = torch.float64
WIENER = logsnr.Wiener(np.array([0.5, -1.0, 0.0]), np.array([0.3, 1.0, 0.1]))
GAUSSIAN = analysis.Gaussian(WIENER.mean.copy(), WIENER.variance.copy())
SOLVERS = ["ddim", "dpm-3m", "unipc-3", "heun-rho", "res-2s", "ipndm-3", "gradient-estimation", "sde-dpmpp-2m", "ddpm"]
LESS = 1e-12
OTHER = analysis.GaussianMixture(
    0.5 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0), dtype=F64), torch.full((8,), 0.05, dtype=F64)
)


class Counted:
    """A model that counts how often it is asked."""

    def __init__(self, den: logsnr.Denoiser) -> None:
        self.den, self.asked, self.times = den, 0, list[float]()

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        self.times.append(float(t[0]))
        return self.den.model(x, t)


def counted(sch: logsnr.Schedule, head: str = "x0", problem: Any = GAUSSIAN) -> tuple[Counted, logsnr.Denoiser]:
    model = Counted(problem.denoiser(sch, head))
    return model, logsnr.Denoiser(model, sch, head)


def start(sch: logsnr.Schedule, size: int = 3, dtype: torch.dtype = F64) -> torch.Tensor:
    return logsnr.start(sch, (4, size), seed=0, dtype=dtype)


def planned(name: str, sch: logsnr.Schedule = EDM, steps: int = 6, **options: Any) -> Program:
    options = {"gaussian": WIENER} | options if name.startswith("wiener") else options
    return logsnr.solver(name, **options).program(sch, logsnr.grid(sch, steps))


@pytest.mark.parametrize("name", [*SOLVERS, "wiener-2"])
@pytest.mark.parametrize("sch", [EDM, VP])
def test_on_a_gaussian_it_is_the_same_for_one_evaluation_less(name: str, sch: logsnr.Schedule) -> None:
    """Steps, stages, history and noise all take the known answer: the end agrees to 1e-12, and so does every way to run
    the table, while a coefficient that is off by 1e-3 does not."""
    program = planned(name, sch)
    known = program.with_known(sch, WIENER)
    (before, one), (after, other) = counted(sch), counted(sch)
    x, wanted = start(sch), logsnr.solve(one, start(sch), solver=program, seed=3)
    found = logsnr.solve(other, x, solver=known, seed=3, trajectory=True)
    assert after.asked == found.nfe == found.rounds == len(known) == before.asked - 1 == len(program) - 1
    assert program.calls[0].t not in after.times
    assert found.trajectory is not None
    assert len(found.trajectory) == 7
    torch.testing.assert_close(found.x, wanted.x, rtol=LESS, atol=LESS)

    stepper, asked = logsnr.Stepper(known, sch, "x0", x, seed=3), 0
    while not stepper.done:
        stepper.step(other.model(stepper.x, torch.full((4,), stepper.t, dtype=F64)))
        asked += 1
    assert asked == len(known)
    assert stepper.node == known.steps
    assert torch.equal(stepper.x, found.x)

    matrix = known.calls[0].matrix * 1.001
    wrong = replace(known, calls=(replace(known.calls[0], matrix=matrix), *known.calls[1:]))
    assert (logsnr.sample(other, x, solver=wrong, seed=3) - wanted.x).abs().max() > 1e6 * LESS


@pytest.mark.parametrize("head", ["x0", "eps", "v"])
@pytest.mark.parametrize("calls", [1, 2])
def test_several_calls_and_other_heads(head: str, calls: int) -> None:
    """An evaluation less for every call that is known, whatever the network predicts."""
    program = planned("dpm-3m", VP, 12)
    known = program.with_known(VP, WIENER, calls, least=3.0)
    model, den = counted(VP, head)
    found = logsnr.sample(den, start(VP), solver=known)
    assert model.asked == len(known) == len(program) - calls
    torch.testing.assert_close(found, logsnr.sample(den, start(VP), solver=program), rtol=1e-11, atol=1e-11)


def test_numbers_and_elements() -> None:
    """A Gaussian that is two numbers has a table of numbers, which any shape of samples takes."""
    program = planned("dpm-2m")
    plain, by_element = program.with_known(EDM, logsnr.Wiener(0.5, 0.3)), program.with_known(EDM, WIENER)
    assert plain.event == ()
    assert by_element.event == (3,)
    assert not program.with_known(EDM, logsnr.Wiener(0.0, 0.3)).constant
    _model, den = counted(EDM, problem=analysis.Gaussian(0.5, 0.3))
    for size in (3, 5):
        x = start(EDM, size)
        ends = [logsnr.sample(den, x, solver=one) for one in (plain, program)]
        torch.testing.assert_close(*ends, rtol=LESS, atol=LESS)
    with pytest.raises(ValueError, match=r"coefficients for samples of shape \(3,\), not \(5,\)"):
        logsnr.sample(den, start(EDM, 5), solver=by_element)


def test_parallel_runs() -> None:
    """At tolerance 0 the bits of the sequential run, in no more rounds than evaluations; calls at the start and in the
    middle of a program that ask nothing are no rows of the model's batch."""
    known = planned("sde-dpmpp-2m", steps=8).with_known(EDM, WIENER)
    calls = [*known.calls]
    calls[3] = known.with_known(EDM, WIENER, 3, least=0.0).calls[3]
    program, sizes = replace(known, calls=tuple(calls)), list[int]()

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x / (1 + x * x) - 0.3 * t.reshape(-1, 1)

    den = logsnr.Denoiser(model, EDM, "x0")
    wanted = logsnr.sample(den, start(EDM), solver=program, seed=1)
    for window in (None, 2):
        sizes.clear()
        seen = list[int]()
        found = logsnr.solve(
            den, start(EDM), solver=program, seed=1, parallel=logsnr.Picard(window=window, tol=0.0),
            callback=lambda node, t, x, seen=seen: seen.append(node),
        )  # fmt: skip
        assert torch.equal(found.x, wanted)
        assert seen == list(range(1, known.steps + 1))
        assert found.rounds == len(sizes) <= len(program) + 1 == len(program.calls) - 1
        assert found.certificate is not None
        assert int(found.certificate.nfe.sum()) == sum(sizes)
    near = logsnr.sample(den, start(EDM), solver=program, seed=1, parallel=logsnr.Picard(tol=1e-4))
    assert (near - wanted).norm() < 1e-2 * wanted.norm()


def test_rounds() -> None:
    """Calls that ask nothing are no rows of a round."""
    known = planned("res-2s").with_known(EDM, WIENER)
    model, den = counted(EDM)
    found = logsnr.solve(den, start(EDM), solver=known, parallel=logsnr.Rounds())
    assert found.nfe == found.rounds == model.asked == len(known)
    torch.testing.assert_close(found.x, logsnr.sample(den, start(EDM), solver=known), rtol=LESS, atol=LESS)


def test_a_gaussian_in_a_basis() -> None:
    """A table of numbers is the same in every basis: the known answer takes it there."""
    rows = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    problem = analysis.Gaussian(torch.tensor([0.5, -1.0, 0.0], dtype=F64), rows @ rows.T / 3)
    wiener, program = logsnr.Wiener.from_moments(problem.mean, problem.cov, "pca"), planned("dpm-3m")
    known, (model, den) = program.with_known(EDM, wiener), counted(EDM, problem=problem)
    found = logsnr.sample(den, start(EDM), solver=known)
    assert model.asked == len(known) == len(program) - 1
    torch.testing.assert_close(found, logsnr.sample(den, start(EDM), solver=program), rtol=LESS, atol=LESS)
    assert max(logsnr.known_error(den, start(EDM), program, wiener)) < LESS
    for other in (planned("wiener-2"), planned("sde-dpmpp-2m")):
        with pytest.raises(ValueError, match="with its own coefficients by element, or noise"):
            other.with_known(EDM, wiener)


def test_gradients_and_checkpoints() -> None:
    """Through the call that asks nothing too, whole and in groups."""
    known, ends = planned("dpm-3m").with_known(EDM, WIENER), []
    for options in ({}, {"checkpoint": 2}):
        _model, den = counted(EDM)
        x = start(EDM).requires_grad_()
        found = logsnr.solve(den, x, solver=known, grad=True, **options)
        assert found.nfe == len(known)
        (slope,) = torch.autograd.grad(found.x.sum(), x)
        ends.append((found.x.detach(), slope))
    program = planned("dpm-3m")
    x = start(EDM).requires_grad_()
    (wanted,) = torch.autograd.grad(logsnr.sample(counted(EDM)[1], x, solver=program, grad=True).sum(), x)
    for end, slope in ends:
        torch.testing.assert_close(end, ends[0][0], rtol=0, atol=0)
        torch.testing.assert_close(slope, wanted, rtol=LESS, atol=LESS)


def test_guidance_costs_two_evaluations_less() -> None:
    """Guidance by columns of the table and by itself; a rule that splits what is seen changes nothing there."""
    y, program = torch.zeros(4, dtype=F64), planned("dpm-2m")
    known = program.with_known(EDM, WIENER)
    for kind, parallel in (("cfg", None), ("cfg++", None), ("cfg", logsnr.Picard(tol=0.0))):
        rows = list[int]()

        def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, rows: list[int] = rows) -> torch.Tensor:
            rows.append(len(x))
            return GAUSSIAN.denoiser(EDM).model(x, t)

        guidance = logsnr.Guidance(3.0 if kind == "cfg" else 0.6, uncond={"y": y}, kind=kind)
        den = logsnr.Denoiser(model, EDM, "x0", conditions={"y": y}, guidance=guidance)
        wanted = logsnr.sample(den, start(EDM), solver=program)
        rows.clear()
        found = logsnr.solve(den, start(EDM), solver=known, parallel=parallel)
        torch.testing.assert_close(found.x, wanted, rtol=LESS, atol=LESS)
        if parallel is None:
            assert found.nfe == 2 * len(known) == sum(rows) / 4
            assert found.rounds == len(known)


def test_callbacks_and_trees() -> None:
    """A callback is told of every node; there is no x0 where nothing was asked. Leaves go on together."""
    known, told = planned("ddim", VP).with_known(VP, WIENER), list[Any]()
    _, den = counted(VP)
    logsnr.solve(den, start(VP), solver=known, callback=lambda node, t, x, x0: told.append((node, x0 is None)))
    assert told == [(1, True), *((n, False) for n in range(2, 7))]
    heard = list[float]()

    def both(x: Any, t: Any) -> Any:
        heard.append(float(t["a"][0]))
        return {"a": den.model(x["a"], t["a"]), "b": den.model(x["b"], t["b"])}

    tree = TreeDenoiser(both, {"a": VP, "b": VP}, "x0")
    found = solve_tree(tree, {"a": start(VP), "b": start(VP)}, solver=known)
    assert found.nfe == len(heard)
    assert torch.equal(found.x["a"], logsnr.sample(den, start(VP), solver=known))


def test_loops_of_others() -> None:
    """k-diffusion's loops ask less; plans for other servers too, with the bits of the library."""
    program = planned("dpm-2m", logsnr.EDM(0.1, 80.0))
    known = program.with_known(EDM, logsnr.Wiener(0.0, 0.3))
    asked, begun = list[float](), list[int]()

    def network(x: Any, t: Any) -> Any:
        return x * (0.25 + t) / (1 + x * x)

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        asked.append(float(sigma[0]))
        return network(x, sigma.reshape(-1, 1))

    end = k_diffusion.sampler(known)(
        model, start(EDM), torch.from_numpy(known.times.copy()), callback=lambda d: begun.append(d["i"])
    )
    den = logsnr.Denoiser(model, EDM, "x0")
    assert asked == list(known.grid[1:-1])
    assert begun == [1, 2, 3, 4, 5]
    assert torch.equal(end, logsnr.sample(den, start(EDM), solver=known))
    run, told = run_path(str(Path(__file__).parents[2] / "examples" / "run_program.py"))["run"], list[float]()
    there = run(
        known.to_json(den), start(EDM).numpy(), lambda x, t, answers: [network(x, t)] if not told.append(t) else []
    )
    assert np.array_equal(there, end.numpy())
    assert told == asked[: len(known)]


def test_diffusers_refuses() -> None:
    pytest.importorskip("diffusers")
    from logsnr.integrations.diffusers import LogSNRScheduler

    known = planned("dpm-2m", VP).with_known(VP, WIENER, least=3.0)
    with pytest.raises(ValueError, match="calls that ask no model"):
        LogSNRScheduler(solver=known.to_json(), timestep_type="continuous").set_timesteps(6)


def test_density_of_steps() -> None:
    """The log-density of the steps of a stochastic run is that of the ordinary program, where the model is exact."""
    program = planned("ddpm", VP)
    known, (model, den) = program.with_known(VP, WIENER), counted(VP)
    path = logsnr.solve(den, start(VP), solver=program, seed=1, trajectory=True).trajectory
    assert path is not None
    wanted = logsnr.log_prob(den, path, program).steps
    model.asked = 0
    torch.testing.assert_close(logsnr.log_prob(den, path, known).steps, wanted, rtol=1e-9, atol=1e-9)
    assert model.asked == len(known)


@pytest.mark.parametrize("name", ["dpm-3m", "sde-dpmpp-2m"])
def test_exact_moments(name: str) -> None:
    """What proves solvers reads the same table: the law at the end is the same, and the evaluations are one less."""
    program = planned(name)
    found, wanted = (analysis.sampler_moments(one, GAUSSIAN, EDM) for one in (program.with_known(EDM, WIENER), program))
    assert found.nfe == wanted.nfe - 1
    torch.testing.assert_close(found.cov, wanted.cov, rtol=1e-11, atol=0)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-11, atol=1e-11)


def test_half_precision_and_what_it_cannot_hold() -> None:
    """A model in fp16 is not asked about states that are too large for it; all later calls see its dtype."""
    wide = logsnr.EDM(0.1, 1e6)
    program = planned("dpm-2m", wide, 10)
    seen = set[torch.dtype]()

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.add(x.dtype)
        return x / (1 + t.reshape(-1, 1) ** 2).to(x.dtype)

    den = logsnr.Denoiser(model, wide, "x0", dtype=torch.float16)
    x = logsnr.start(wide, (4, 3), seed=0)
    with pytest.raises(logsnr.NonFiniteError):
        logsnr.sample(den, x, solver=program)
    end = logsnr.sample(den, x, solver=program.with_known(wide, WIENER, 2))
    assert torch.isfinite(end).all()
    assert seen == {torch.float16}
    exact = logsnr.sample(logsnr.Denoiser(model, wide, "x0"), x, solver=program.with_known(wide, WIENER, 2))
    torch.testing.assert_close(end, exact, rtol=2e-2, atol=2e-2)


def test_pure_noise_of_a_head_that_says_nothing_there() -> None:
    """At alpha = 0 a network that predicts eps says nothing of x0, but its mean is known."""
    program = planned("dpm-2m", ZERO_SNR)
    _, den = counted(ZERO_SNR, "eps")
    with pytest.raises(ValueError, match="does not determine x0"):
        logsnr.sample(den, start(ZERO_SNR), solver=program)
    known = program.with_known(ZERO_SNR, WIENER)
    mapped = logsnr.Denoiser(den.model, ZERO_SNR, "eps", map_x0=lambda x0, x, t: x0)
    wanted = logsnr.sample(counted(ZERO_SNR)[1], start(ZERO_SNR), solver=program)
    for one in (den, mapped):
        end = logsnr.sample(one, start(ZERO_SNR), solver=known)
        torch.testing.assert_close(end, wanted, rtol=1e-9, atol=1e-9)


def test_files_and_prints() -> None:
    """JSON in the same version, an equal program back; the print and the notes say what is not evaluated."""
    known = planned("heun-rho").with_known(EDM, WIENER)
    assert json.loads(known.to_json())["version"] == 1
    assert Program.from_json(known.to_json()) == known
    text = str(known)
    assert text.startswith("heun-rho-known: order 2, 6 steps, 11 model evaluations")
    assert "note: no evaluation at t = 80: the answer is that of Wiener(3" in text
    assert text.count("no model") == 1
    assert text.count("model(") == 11
    assert [call.asks for call in known] == [False] + [True] * 11
    assert len(known) == 11
    assert len(known.calls) == 12


def test_calls_without_model_columns_are_the_same() -> None:
    """A table may leave the two columns out; in a file as well. Such programs run by hand, wherever they stand."""
    known = planned("ddim", EDM, 3).with_known(EDM, logsnr.Wiener(0.3, 0.2))
    short = [replace(one, matrix=one.matrix[:, 2:]) if not one.asks else one for one in known.calls]
    assert short[0].models == 0
    assert replace(known, calls=tuple(short)) == known
    data = json.loads(known.to_json())
    data["calls"][0]["matrix"] = [row[2:] for row in data["calls"][0]["matrix"]]
    assert Program.from_json(json.dumps(data)) == known
    shrinks = Call(1.0, (0,), (0,), np.array([[0.5]]), node=1)
    program = Program("p", 0, (1.0, 0.5, 0.2), (shrinks, replace(shrinks, t=0.5, node=2)))
    model, den = counted(VP)
    found = logsnr.solve(den, start(VP), solver=program)
    assert len(program) == found.nfe == model.asked == 0
    assert torch.equal(found.x, start(VP) / 4)
    stepper = logsnr.Stepper(program, VP, "x0", start(VP))
    assert stepper.done
    assert torch.equal(stepper.x, start(VP) / 4)


@pytest.mark.parametrize("name", ["dpm-3m", "heun-rho", "sde-dpmpp-2m"])
def test_solvers(name: str) -> None:
    """A solver of such programs has a step more in the same budget; with too few calls none is left out."""
    plain = logsnr.solver(name)
    known = plain.with_known(WIENER)
    assert (known.name, known.order, known.stochastic) == (f"{name}-known", plain.order, plain.stochastic)
    assert known == plain.with_known(WIENER)
    assert hash(known) == hash(plain.with_known(WIENER))
    model, den = counted(EDM)
    found = logsnr.solve(den, start(EDM), solver=known, nfe=7, seed=3, startup="single-step")
    assert found.nfe == model.asked == 7
    steps = found.program.steps  # type: ignore[union-attr]
    alone = plain.program(EDM, logsnr.grid(EDM, steps), startup="single-step")
    assert found.program == alone.with_known(EDM, WIENER).renamed(known.name)


def test_too_few_calls() -> None:
    """Where nothing would be left none is left out, and the notes say so."""
    few = logsnr.solver("ddim").with_known(WIENER, 2).program(EDM, [80.0, 20.0, 1.0])
    assert len(few) == 2
    assert "no call is left out of so few: 2" in few.notes


def test_how_wrong_it_is() -> None:
    """On other data the first answer is off by the square of spread / sigma, and the estimate of what that does to the
    end is right within a factor of 5; it costs one evaluation, of a few starts."""
    x0 = OTHER.sample(4096, generator=torch.Generator().manual_seed(1))
    wiener, program = logsnr.Wiener.from_data(x0), planned("dpm-3m")
    model, den = counted(EDM, problem=OTHER)
    x = logsnr.start(EDM, (64, 16), seed=0, dtype=F64)
    error = logsnr.known_error(den, x[:8], program, wiener)
    assert model.asked == 1
    ends = [logsnr.sample(den, x, solver=one) for one in (program, program.with_known(EDM, wiener))]
    change = float((ends[0] - ends[1]).square().mean().sqrt()) / float(np.sqrt(wiener.variance.mean()))
    assert 0.2 * change < error.result < 5 * change < 0.02
    assert 1e-3 < error.answer < 0.03
    exact = logsnr.known_error(counted(EDM)[1], start(EDM), planned("dpm-3m"), WIENER)
    assert max(exact) < LESS


def test_an_evaluation_more_for_the_rest() -> None:
    """On a 16-D mixture with EDM's range, 5 evaluations reach further when the first call is known."""
    x0 = OTHER.sample(4096, generator=torch.Generator().manual_seed(1))
    wiener, den = logsnr.Wiener.from_data(x0), OTHER.denoiser(EDM)
    x = logsnr.start(EDM, (64, 16), seed=0, dtype=F64)
    exact = logsnr.sample(den, x, solver="dpm-3m", steps=100)
    for name in ("ddim", "dpm-2m", "dpm-3m"):
        programs = planned(name, steps=5), planned(name).with_known(EDM, wiener)
        before, after = ((logsnr.sample(den, x, solver=one) - exact).norm() for one in programs)
        assert len(programs[0]) == len(programs[1]) == 5
        assert after < 0.95 * before


def test_what_does_not_fit() -> None:
    program = planned("dpm-2m")
    for calls in (0, 6, True, 1.0):
        with pytest.raises(ValueError, match="calls must be from 1 to 5, of 6 evaluations"):
            program.with_known(EDM, WIENER, calls)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"at call 2, t = 2\.33921, sigma / alpha is 2\.34, and the largest .* data 1:"
    ):
        planned("dpm-2m", steps=6).with_known(EDM, WIENER, 4)
    with pytest.raises(ValueError, match="least = -1"):
        program.with_known(EDM, WIENER, least=-1)
    with pytest.raises(TypeError, match=r"gaussian must be a logsnr\.Wiener, not float"):
        program.with_known(EDM, 0.3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="schedule"):
        program.with_known(WIENER, EDM)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="was made for another schedule"):
        program.with_known(VP, WIENER)
    with pytest.raises(ValueError, match=r"gaussian is of samples of shape \(5,\), and .* \(3,\)"):
        planned("wiener-2").with_known(EDM, logsnr.Wiener(np.zeros(5), 1.0))
    for name in ("auto", "dpm-fast", "bosh3"):
        with pytest.raises(ValueError, match=f"{name} has no program of its own on a grid"):
            logsnr.solver(name).with_known(WIENER)
    with pytest.raises(TypeError, match=r"gaussian must be a logsnr\.Wiener"):
        logsnr.solver("ddim").with_known(0.3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="calls = 0 must be an integer"):
        logsnr.solver("ddim").with_known(WIENER, 0)
    learned = logsnr.solver("ddpm", variance="learned").program(VP, logsnr.grid(VP, 6))
    with pytest.raises(ValueError, match="takes the width of its noise from the network"):
        learned.with_known(VP, WIENER)
    _, den = counted(EDM)
    with pytest.raises(ValueError, match="does not ask the model first"):
        logsnr.known_error(den, start(EDM), program.with_known(EDM, WIENER), WIENER)
    with pytest.raises(ValueError, match="variance of the Gaussian is 0"):
        logsnr.known_error(den, start(EDM), program, logsnr.Wiener(0.0, 0.0))
    with pytest.raises(TypeError, match="den must be"):
        logsnr.known_error(den.model, start(EDM), program, WIENER)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="program must be"):
        logsnr.known_error(den, start(EDM), "dpm-2m", WIENER)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"samples of shape \(3,\), not \(5,\)"):
        logsnr.known_error(den, start(EDM, 5), program, WIENER)
    with pytest.raises(ValueError, match="must be real"):
        logsnr.known_error(den, start(EDM).to(torch.complex128), program, WIENER)
    with pytest.raises(ValueError, match="calls that ask no model"):
        analysis.picard_sweeps(program.with_known(EDM, logsnr.Wiener(0.0, 1.0)), EDM, 1.0)
