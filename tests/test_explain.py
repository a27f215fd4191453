"""The explanation of a solver: the table it prints and the equalities it finds."""

import numpy as np
import torch

import logsnr
from logsnr.analysis.explain import affine_map, explain

SCH = logsnr.VPLinear()


def test_equalities_are_found_in_the_tables() -> None:
    """DDIM's four other names are found, and solvers that differ are not named."""
    found = explain("ddim", SCH, logsnr.grid(SCH, 6))
    assert set(found.equals) == {"deis-1", "deis-rho-1", "dpm-1", "dpmpp-1"}
    assert explain("dpmpp-2m", SCH, logsnr.grid(SCH, 6)).equals == ()


def test_schedules_decide_what_is_equal() -> None:
    """Euler is DDIM where alpha and sigma are affine in t, and only there (book, Observation 9.2.1 corrected)."""
    for sch, equal in ((logsnr.EDM(), True), (logsnr.FlowMatching(), True), (SCH, False)):
        assert ("ddim" in explain("euler", sch, logsnr.grid(sch, 4)).equals) is equal


def test_the_text_holds_table_order_cost_and_weights() -> None:
    """The printed explanation shows the program, its notes and the extrapolation of its weights."""
    text = str(explain("dpmpp-3m", SCH, logsnr.grid(SCH, 5)))
    assert "order 3, 5 steps, 5 model evaluations" in text
    assert "the ramp start limits the global order to 2" in text
    assert "no other named solver" in text


def test_affine_map_is_what_the_executor_does() -> None:
    """The rows of the affine map are the states that the model sees in a real run, for any answers."""
    program = logsnr.solver("dpmpp-3s").program(SCH, logsnr.grid(SCH, 2))
    times, rows = affine_map(program, SCH)
    answers = np.random.default_rng(0).normal(size=len(program))
    seen: list[float] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(float(x[0, 0]))
        return torch.full_like(x, answers[len(seen) - 1])

    den = logsnr.Denoiser(model, SCH, "x0", dtype=torch.float64)
    end = logsnr.sample(den, torch.full((1, 1), 0.7, dtype=torch.float64), solver="dpmpp-3s", steps=2)
    want = rows @ np.array([0.7, *answers])
    np.testing.assert_allclose([*seen, float(end)], want, rtol=1e-12)
    assert list(times) == [call.t for call in program]
