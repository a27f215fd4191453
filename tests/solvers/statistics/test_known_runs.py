"""Programs of which a call is known, in every executor and in the loops of other libraries."""

from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import torch
from known_calls import EDM, F64, GAUSSIAN, ROUND_OFF, VP, WIENER, counted, planned, start

import logsnr
from logsnr.control import TreeDenoiser, solve_tree
from logsnr.integrations import k_diffusion


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
    torch.testing.assert_close(found.x, logsnr.sample(den, start(EDM), solver=known), rtol=ROUND_OFF, atol=ROUND_OFF)


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
        torch.testing.assert_close(slope, wanted, rtol=ROUND_OFF, atol=ROUND_OFF)


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
        torch.testing.assert_close(found.x, wanted, rtol=ROUND_OFF, atol=ROUND_OFF)
        if parallel is None:
            assert found.nfe == 2 * len(known) == sum(rows) / 4
            assert found.rounds == len(known)


def test_callbacks_and_trees() -> None:
    """A callback is told of every node; there is no x0 where nothing was asked. Leaves go on together."""
    known, told = planned("ddim", VP).with_known(VP, WIENER), list[Any]()
    _, den = counted(VP)
    shrinks = logsnr.Denoiser(lambda x, t: 0.5 * x, VP, "x0")
    plain = planned("ddim", VP).with_known(VP, logsnr.Wiener(0.0, 0.3))
    complex_start = logsnr.start(VP, (4, 3), seed=0, dtype=torch.complex128)
    for one, x, program in ((den, start(VP), known), (shrinks, complex_start, plain)):
        told.clear()
        logsnr.solve(one, x, solver=program, callback=lambda node, t, x, x0: told.append((node, x0 is None)))
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
    run, told = run_path(str(Path(__file__).parents[3] / "examples" / "run_program.py"))["run"], list[float]()
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
