"""examples/run_program.py: with numpy alone, the bits of the library in float64."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import logsnr

FOLDER = Path(__file__).parents[2] / "examples"
RUNNER = SimpleNamespace(**runpy.run_path(str(FOLDER / "run_program.py")))
VP, FLOW = logsnr.VPLinear(), logsnr.FlowMatching()
PROGRAMS = ["ddim", "dpmpp-3m", "unipc-3", "res-3s", "heun", "dpm-4m", "pndm", "sde-dpmpp-2m", "er-sde-3", "edm-churn"]


def network(x: Any, t: Any, y: Any = 0.5) -> Any:
    """Not linear, of operations that numpy and torch round in the same way."""
    return x * (0.25 + t) / (1 + x * x) + y


def torch_network(x: torch.Tensor, t: torch.Tensor, y: Any = 0.5) -> torch.Tensor:
    return network(x, t.reshape(-1, 1, 1), y)


def start() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 2, 4))


def normal(key: tuple[float, float, int]) -> np.ndarray:
    seed = np.frombuffer(np.array(key, dtype=np.float64).tobytes(), dtype=np.uint32)
    return np.random.default_rng(seed).standard_normal((3, 2, 4))


def of_library(den: logsnr.Denoiser, program: logsnr.Program) -> np.ndarray:
    found = logsnr.sample(
        den, torch.from_numpy(start()), solver=program, noise=lambda key, _: torch.from_numpy(normal(tuple(key)))
    )
    return found.numpy()


def answer(x: np.ndarray, told: float, answers: list[str]) -> list[np.ndarray]:
    return [network(x, told, {"cond": 0.5, "uncond": -0.25}[name]) for name in answers]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore:x has a root mean square")
@pytest.mark.parametrize(("schedule", "head", "time"), [(VP, "v", "1000t"), (FLOW, "velocity", "t")], ids=str)
def test_a_plan_has_the_bits_of_sample(name: str, schedule: logsnr.Schedule, head: str, time: str) -> None:
    program = logsnr.solver(name).program(schedule, logsnr.grid(schedule, 6))
    den = logsnr.Denoiser(torch_network, schedule, head, time=time)
    found = RUNNER.run(program.to_json(den), start(), answer, normal)
    assert np.array_equal(found, of_library(den, program))


@pytest.mark.parametrize("kind", ["cfg", "cfg++"])
def test_guidance_is_columns(kind: str) -> None:
    """Inside the interval a plan asks for two answers, outside it for one."""
    program = logsnr.solver("dpmpp-2m").program(VP, logsnr.grid(VP, 8))
    with_y, without = (torch.full((3, 1, 1), y, dtype=torch.float64) for y in (0.5, -0.25))
    guidance = logsnr.Guidance(3.0, interval=(-2, 1), uncond={"y": without}, kind=kind)
    den = logsnr.Denoiser(torch_network, VP, "eps", conditions={"y": with_y}, guidance=guidance)
    text = program.to_json(den)
    asked = [call["answers"] for call in json.loads(text)["calls"]]
    assert ["uncond", "cond"] in asked
    assert (["cond"] in asked) == (kind == "cfg")
    assert np.array_equal(RUNNER.run(text, start(), answer), of_library(den, program))


@pytest.mark.parametrize("name", ["unipc-3", "sde-dpmpp-3s", "wiener-2"])
def test_a_program_has_the_bits_of_the_interpreter(name: str) -> None:
    """Its answers are x0 and eps; the coefficients of wiener-2 differ by element, and it adds a constant."""
    spread = np.linspace(0.5, 2.0, 8).reshape(2, 4)
    options = {"gaussian": logsnr.Wiener(torch.tensor(spread), torch.tensor(spread))} if name == "wiener-2" else {}
    program = logsnr.solver(name, **options).program(VP, logsnr.grid(VP, 5))
    noises = {key: normal(key) for key in program.noises}
    pair = lambda x, t: (network(x, t), network(x, t, -0.25))  # noqa: E731
    found = RUNNER.run(program.to_json(), start(), lambda x, t, _: [*pair(x, t)], normal)
    assert np.array_equal(found, program.interpret(start(), pair, noises))
    assert np.ptp(found) > 0


def test_in_another_process_without_torch(tmp_path: Path) -> None:
    """The plan is a file; the other process knows numpy, the runner and a network."""
    program = logsnr.solver("dpmpp-3m").program(VP, logsnr.grid(VP, 6))
    den = logsnr.Denoiser(torch_network, VP, "v")
    (tmp_path / "plan.json").write_text(program.to_json(den))
    np.save(tmp_path / "x.npy", start())
    script = (
        "import sys, numpy as np, run_program\n"
        "x = run_program.run(open('plan.json').read(), np.load('x.npy'),\n"
        "                    lambda x, t, answers: [x * (0.25 + t) / (1 + x * x) + 0.5])\n"
        "np.save('end.npy', x)\n"
        "assert not {'torch', 'logsnr'} & set(sys.modules)\n"
    )
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n{script}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert np.array_equal(np.load(tmp_path / "end.npy"), of_library(den, program))


def test_the_runner_is_short() -> None:
    """At most 40 lines, which import numpy and the standard library alone."""
    text = (FOLDER / "run_program.py").read_text()
    assert len(text.splitlines()) <= 40
    assert "torch" not in text
    assert "import logsnr" not in text


def test_what_does_not_fit() -> None:
    """Functions do not fit into a plan; logsnr does not read plans; the runner reads no later version."""
    program = logsnr.solver("ddim").program(VP, logsnr.grid(VP, 2))
    mapped = logsnr.Denoiser(torch_network, VP, "v", map_x0=lambda x0, x, t: x0)
    with pytest.raises(ValueError, match="map_x0 is a function"):
        program.to_json(mapped)
    guidance = logsnr.Guidance(3.0, uncond={"y": 0.0}, kind="rescale")
    with pytest.raises(ValueError, match="guidance 'rescale' is not a sum"):
        program.to_json(logsnr.Denoiser(torch_network, VP, "v", conditions={"y": 0.5}, guidance=guidance))
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser, not int"):
        program.to_json(3)  # type: ignore[arg-type]
    plan = program.to_json(logsnr.Denoiser(torch_network, VP, "v"))
    with pytest.raises(ValueError, match="a plan of a network's answers"):
        logsnr.Program.from_json(plan)
    later = json.dumps(json.loads(plan) | {"version": 2})
    with pytest.raises(ValueError, match="version 1, not 2"):
        RUNNER.run(later, start(), answer)
