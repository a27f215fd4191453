"""Programs are what runs: by name, as an object, from JSON, in another process, in windows, along a path, watched."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import exact, model, start
from sampled import sampled

import logsnr
from logsnr.kernels import Seeds
from logsnr.solvers import Smooth, Window
from logsnr.solvers.planners.stochasticity import er_sde
from logsnr.solvers.programs.program import Call, Program
from logsnr.solvers.runs.brownian import BrownianNoise

SCH = logsnr.VPLinear()
DEN = logsnr.Denoiser(model, SCH, "v")
PLANNED = [name for name in logsnr.solver_names() if logsnr.solver(name).planner]
NOISY = [name for name in PLANNED if logsnr.solver(name).stochastic]
X = start(2, 5)


def through_json(program: Program) -> Program:
    return Program.from_json(program.to_json())


def run(solver: Any, **options: Any) -> torch.Tensor:
    return logsnr.sample(DEN, X, solver=solver, seed=3, **options)


@pytest.mark.parametrize("name", sampled(PLANNED, every=3))
def test_a_program_runs_as_its_name_does(name: str) -> None:
    """The program of a named solver, itself or from JSON, has the bits of the run by name: also in windows of calls,
    along a path, and at every node of a trajectory."""
    wanted = logsnr.solve(DEN, X, solver=name, steps=5, seed=3, trajectory=True)
    path = run(name, steps=5, brownian=True)
    assert wanted.program is not None
    assert torch.equal(wanted.x, run(name, steps=5))
    assert torch.equal(path, wanted.x) is not any(key.stream == 0 for key in wanted.program.noises)
    for program in (wanted.program, through_json(wanted.program)):
        found = logsnr.solve(DEN, X, solver=program, seed=3, trajectory=True)
        assert found.program == program
        assert found.times.tolist() == wanted.times.tolist()
        assert found.nfe == len(program)
        assert torch.equal(found.trajectory, wanted.trajectory)
        assert torch.equal(run(program), wanted.x)
    assert torch.equal(run(program, parallel=exact()), wanted.x)
    assert torch.equal(run(program, brownian=True), path)


@pytest.mark.parametrize("eta", [0.5, Window(2.0, 0.0, 2.0), er_sde])
def test_the_path_runs_on_the_program_s_clock(eta: Any) -> None:
    """brownian=True is noise= by the increments of a path with the program's own eta, which JSON keeps."""
    program = logsnr.solver("sde-dpmpp-2m", eta=eta).program(SCH, logsnr.grid(SCH, 6, t_start=0.3, t_end=1e-2))
    seeds = Seeds(torch.full((2,), 3), torch.arange(2))
    for clock, same in ((program.eta, True), (Window(1.0), False)):
        given = logsnr.sample(DEN, X, solver=program, noise=BrownianNoise(SCH, clock, seeds))  # type: ignore[arg-type]
        for mine in (program, through_json(program)):
            close = torch.allclose(run(mine, brownian=True), given, rtol=1e-6, atol=1e-6)
            assert close is same


def test_a_function_of_the_user_is_lost_in_json() -> None:
    """Such a program runs with a seed as before; along a path it is refused, and says why."""
    program = logsnr.solver("sde-dpmpp-2m", eta=lambda lam: 1 / np.cosh(lam)).program(SCH, logsnr.grid(SCH, 4))
    lost = through_json(program)
    assert isinstance(program.eta, Smooth)
    assert torch.equal(run(lost), run(program))
    assert not torch.equal(run(program, brownian=True), run(program))
    with pytest.raises(ValueError, match=r"does not know its eta, .* leave out brownian=True"):
        run(lost, brownian=True)


def by_hand(steps: int, event: tuple[int, ...] = ()) -> Program:
    """A table that no planner makes: history, noise of two streams, coefficients of any size and shape."""
    rng, grid = np.random.default_rng(steps), np.linspace(0.9, 0.05, steps + 1).tolist()
    calls = []
    for n in range(steps):
        reads = (0, 1, 2)[: 1 + n]
        rows = rng.normal(size=(3, 4 + len(reads), *event)) / 3
        keys = (grid[n], grid[n + 1]), (grid[n], grid[n + 1], 5)
        calls.append(Call(grid[n], reads, (0, 1 + n % 2, 3), rows, at=3 if n % 3 == 2 else 0, noises=keys, node=n + 1))
    return Program("by hand", 1, tuple(grid), tuple(calls), ("a note",), Window(0.5))


CHILD = """
import pickle, sys
from parallel_runs import model, start
import logsnr
a, b = pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer)
assert a == b and hash(a) == hash(b), a
for path in sys.argv[1:]:
    program = logsnr.Program.from_json(open(path).read())
    den = logsnr.Denoiser(model, logsnr.VPLinear(), "v")
    end = logsnr.sample(den, start(2, 5), solver=program, seed=3, brownian="path" in path)
    print(end.numpy().tobytes().hex(), hash(program) == hash(logsnr.Program.from_json(program.to_json())))
"""


def test_another_process_runs_the_same_bits(tmp_path: Path) -> None:
    """Tables made by hand, by element too, and by planners, written to a file here and run from it there. A hash is not
    taken there: strings and bytes have another one, and dictionaries would not find what is in them."""
    known, new = (logsnr.Wiener(np.array([0.1, 0.2]), np.array([1.0, 2.0])) for _ in range(2))
    hash(known)
    makers = {name: logsnr.solver(name) for name in ("dpmpp-3m", "seeds-2", "er-sde-2", "edm-churn")}
    programs = {name: maker.program(SCH, logsnr.grid(SCH, 4)) for name, maker in makers.items()}
    programs |= {"hand": by_hand(6), "hand-element": by_hand(4, (5,)), "hand-path": by_hand(6)}
    programs["er-sde-2-path"] = programs["er-sde-2"]
    wanted = []
    for name, program in programs.items():
        (tmp_path / f"{name}.json").write_text(program.to_json())
        wanted.append(f"{run(program, brownian='path' in name).numpy().tobytes().hex()} True")
    command = [sys.executable, "-c", CHILD, *(str(tmp_path / f"{name}.json") for name in programs)]
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    both = pickle.dumps(known) + pickle.dumps(new)
    done = subprocess.run(command, input=both, capture_output=True, check=False, env=env)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split("\n")[:-1] == wanted
    assert len(set(wanted)) == len(wanted)


def test_coefficients_by_element() -> None:
    """Every element is run as by a program of its own, to round-off, and the same from JSON; states of another shape
    are refused."""
    program = by_hand(5, (5,))
    keys = {key: logsnr.randn(X.shape, seed=n) for n, key in enumerate(program.noises)}
    whole = logsnr.sample(DEN, X, solver=program, noise=lambda key, like: keys[key])
    assert torch.equal(logsnr.sample(DEN, X, solver=through_json(program), noise=lambda key, like: keys[key]), whole)
    for k in range(5):
        calls = tuple(
            Call(c.t, c.reads, c.writes, c.matrix[..., k], at=c.at, noises=c.noises, node=c.node) for c in program
        )
        one = Program("one", 1, program.grid, calls)
        end = logsnr.sample(DEN, X[:, k : k + 1], solver=one, noise=lambda key, like, k=k: keys[key][:, k : k + 1])
        torch.testing.assert_close(end, whole[:, k : k + 1], rtol=1e-6, atol=1e-7)
    for shape in ((2, 4), (2,), (2, 5, 2)):
        with pytest.raises(ValueError, match=r"coefficients for samples of shape \(5,\), not \(.*\) as of x"):
            logsnr.sample(DEN, torch.ones(shape), solver=program, seed=0)
    assert logsnr.sample(DEN, torch.ones(2, 3, 5), solver=program, seed=0).shape == (2, 3, 5)


PROGRAM = logsnr.solver("dpmpp-2m").program(SCH, logsnr.grid(SCH, 4))
LEFT_OUT: list[tuple[dict[str, Any], str]] = [
    ({"steps": 4}, "a program is the whole grid; leave out steps"),
    ({"nfe": 4}, "a program is the whole grid; leave out nfe"),
    ({"grid": "time"}, "a program is the whole grid; leave out grid"),
    ({"grid": PROGRAM.grid}, "a program is the whole grid; leave out grid"),
    ({"t_start": 1.0}, "a program is the whole grid; leave out t_start"),
    ({"t_end": 0.1}, "a program is the whole grid; leave out t_end"),
    ({"startup": "single-step"}, "a program is the whole grid; leave out startup"),
    ({"steps": 4, "t_end": 0.1}, "a program is the whole grid; leave out steps and t_end"),
    ({"eta": 0.5}, "a program has no options; leave out eta"),
    ({"compat": True}, "a program has no options; leave out compat"),
    ({"eta": 0.5, "s_churn": 1}, "a program has no options; leave out eta and s_churn"),
    ({"rtol": 1e-3}, "rtol and atol are for adaptive solvers; dpmpp-2m takes fixed steps"),
    ({"atol": 1e-3}, "rtol and atol are for adaptive solvers"),
]


@pytest.mark.parametrize(("options", "message"), LEFT_OUT, ids=str)
def test_a_program_is_all_there_is_to_say(options: dict[str, Any], message: str) -> None:
    """What would change a program is refused by the name of the argument, before the model is called."""
    with pytest.raises(ValueError, match=f"^{message}"):
        logsnr.solve(logsnr.Denoiser(lambda x, t: 1 / 0, SCH), X, solver=PROGRAM, **options)


def test_programs_of_other_schedules_are_refused() -> None:
    """A time outside of the schedule, of the grid or of a call within, is named; a rounding beyond an end is none."""
    edm = logsnr.EDM()
    with pytest.raises(ValueError, match=r"dpmpp-2m has the time 80, outside the times of VPLinear.* another schedule"):
        run(logsnr.solver("dpmpp-2m").program(edm, logsnr.grid(edm, 4)))
    calls = [Call(t, (0,), (0,), [[0.0, 1.0, 1.0]], node=n + 1) for n, t in enumerate((1.0, 0.5))]
    inside = Program("p", 1, (1.0, 0.5, 1e-3), tuple(calls))
    assert torch.isfinite(run(inside)).all()
    stray = Program("p", 1, (1.0, 0.5, 1e-3), (Call(1.5, (0,), (0,), [[0.0, 1.0, 1.0]]), *calls))
    with pytest.raises(ValueError, match=r"p has the time 1\.5, outside the times of VPLinear"):
        run(stray)
    beyond = Program("p", 1, (1.0 + 1e-8, 0.5, 1e-3), inside.calls)
    assert torch.equal(run(beyond), run(inside))


def test_programs_go_to_other_processes_as_they_are() -> None:
    """What pickle brings back is equal, runs alike, and cannot be changed either."""
    program = by_hand(4, (5,))
    again = pickle.loads(pickle.dumps(program))
    assert again == program
    assert torch.equal(run(again), run(program))
    for array in (program.times, program.calls[0].matrix, again.times, again.calls[0].matrix):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
