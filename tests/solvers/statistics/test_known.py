"""Calls that need no evaluation: on Gaussian data the same result for less; their tables and their solvers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from known_calls import EDM, F64, GAUSSIAN, ROUND_OFF, VP, WIENER, ZERO_SNR, counted, planned, start

import logsnr
from logsnr import analysis
from logsnr.solvers.programs.program import Call, Program

SOLVERS = ["ddim", "dpm-3m", "unipc-3", "heun-rho", "res-2s", "ipndm-3", "gradient-estimation", "sde-dpmpp-2m", "ddpm"]


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
    torch.testing.assert_close(found.x, wanted.x, rtol=ROUND_OFF, atol=ROUND_OFF)

    stepper, asked = logsnr.Stepper(known, sch, "x0", x, seed=3), 0
    while not stepper.done:
        stepper.step(other.model(stepper.x, torch.full((4,), stepper.t, dtype=F64)))
        asked += 1
    assert asked == len(known)
    assert stepper.node == known.steps
    assert torch.equal(stepper.x, found.x)

    matrix = known.calls[0].matrix * 1.001
    wrong = replace(known, calls=(replace(known.calls[0], matrix=matrix), *known.calls[1:]))
    assert (logsnr.sample(other, x, solver=wrong, seed=3) - wanted.x).abs().max() > 1e6 * ROUND_OFF


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
        torch.testing.assert_close(*ends, rtol=ROUND_OFF, atol=ROUND_OFF)
    with pytest.raises(ValueError, match=r"coefficients for samples of shape \(3,\), not \(5,\)"):
        logsnr.sample(den, start(EDM, 5), solver=by_element)


def test_a_gaussian_in_a_basis() -> None:
    """A table of numbers is the same in every basis: the known answer takes it there."""
    rows = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    problem = analysis.Gaussian(torch.tensor([0.5, -1.0, 0.0], dtype=F64), rows @ rows.T / 3)
    wiener, program = logsnr.Wiener.from_moments(problem.mean, problem.cov, "pca"), planned("dpm-3m")
    known, (model, den) = program.with_known(EDM, wiener), counted(EDM, problem=problem)
    found = logsnr.sample(den, start(EDM), solver=known)
    assert model.asked == len(known) == len(program) - 1
    torch.testing.assert_close(found, logsnr.sample(den, start(EDM), solver=program), rtol=ROUND_OFF, atol=ROUND_OFF)
    assert max(logsnr.known_error(den, start(EDM), program, wiener)) < ROUND_OFF
    for other in (planned("wiener-2"), planned("sde-dpmpp-2m")):
        with pytest.raises(ValueError, match="with its own coefficients by element, or noise"):
            other.with_known(EDM, wiener)


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
