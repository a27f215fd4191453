"""Tables of two calls a round: what their rows may know, what they start from, and what they bring."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers.tuning.derivatives import Differences
from logsnr.solvers.tuning.numbers import Numbers, adams_weights, known
from logsnr.solvers.tuning.run import end_of, field

SCH = logsnr.EDM(0.002, 80.0)
LAM = np.array([-4.0, -2.4, -1.5, -0.2, 0.9, 1.6, 3.0])
GENERATOR = torch.Generator().manual_seed(3)


def mixture(dim: int = 16, components: int = 6) -> logsnr.Denoiser:
    mu, s2 = (torch.randn(components, dim, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
    return GaussianMixture(0.5 * mu, torch.exp(0.7 * s2 - 3)).denoiser(SCH)


DEN = mixture()


def noise(count: int, seed: int) -> torch.Tensor:
    return logsnr.start(SCH, (count, 16), seed=seed, dtype=torch.float64)


@cache
def ends(count: int, seed: int) -> torch.Tensor:
    return logsnr.sample(DEN, noise(count, seed), solver="dpmpp-3m", steps=150)


@cache
def tuned(**budget: int) -> logsnr.Program:
    found = logsnr.tune(DEN, noise(64, 0), gauge="x0", iterations=8, reference=ends(64, 0), **budget)
    assert isinstance(found, logsnr.Program)
    return found


def median(program: logsnr.Program) -> float:
    found = logsnr.sample(DEN, noise(128, 1), solver=program)
    return float((found - ends(128, 1)).square().mean(1).sqrt().median())


def test_rows_know_the_answers_of_earlier_rounds() -> None:
    assert [known(i, 1) for i in range(4)] == [1, 2, 3, 4]
    assert [known(i, 2) for i in range(6)] == [0, 2, 2, 4, 4, 6]
    assert [known(i, 3) for i in range(6)] == [0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("gauge", ["x0", "eps"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_rows_integrate_the_polynomial_through_what_they_know(gauge: str, order: int) -> None:
    """Exactly, for polynomials of a degree below the order; not for the next degree."""
    weights = adams_weights(torch.from_numpy(LAM), gauge, order, 2).numpy()
    for i in range(2, 6):
        a, b = LAM[i : i + 2]
        for degree in range(order + 1):
            kernel = (lambda u: np.exp(u - b)) if gauge == "x0" else (lambda u: -np.exp(b - u))  # noqa: B023
            exact = quad(lambda u: kernel(u) * u**degree, a, b, epsabs=1e-13)[0]  # noqa: B023
            found = weights[i, 1:] @ LAM[:-1] ** degree
            nodes = min(order, known(i, 2))
            assert bool(abs(found - exact) < 1e-10) is (degree < nodes)


@pytest.mark.parametrize("gauge", ["x0", "eps"])
def test_no_number_touches_what_a_row_cannot_know(gauge: str) -> None:
    """The first row, which knows nothing, keeps the noise as it is; and whatever the numbers are, rounds are rounds."""
    numbers = Numbers(gauge, 2, LAM, together=2)
    sigma = 1 / np.hypot(1, np.exp(LAM))
    assert float(numbers(torch.zeros(numbers.size, dtype=torch.float64)).matrix[0, 0]) == pytest.approx(
        sigma[1] / sigma[0]
    )
    q = 0.1 * torch.randn(numbers.size, generator=GENERATOR, dtype=torch.float64)
    table = numbers.fitted(q)
    assert table.program(SCH, "pairs").rounds == ((0, 1), (2, 3), (4, 5))
    assert table.weights[0, 0] != 1
    for i, row in enumerate(table.weights):
        assert (row[1:] != 0).tolist() == [j < known(i, 2) for j in range(6)]


def test_the_jacobian_is_that_of_differences() -> None:
    numbers = Numbers("x0", 2, LAM[:5], together=2, told=True)
    q = 0.02 * torch.randn(numbers.size, generator=GENERATOR, dtype=torch.float64)
    u, f = noise(5, 0) / 80.0, field(DEN, "x0")
    end, found = Differences().tangents(f, u, *numbers.tangents(q))
    torch.testing.assert_close(end, end_of(f, u, numbers(q)))
    for k, step in enumerate(1e-6 * torch.eye(len(q), dtype=torch.float64)):
        ahead, back = (end_of(f, u, numbers(q + sign * step)) for sign in (1, -1))
        torch.testing.assert_close(found[k], (ahead - back) / 2e-6, rtol=1e-4, atol=1e-6)


def test_four_rounds_beat_four_calls() -> None:
    """Both tuned, on noise that neither has seen, in the same time on a device that is idle."""
    program = tuned(rounds=4)
    assert (program.name, len(program), len(program.rounds)) == ("tuned-4x2", 8, 4)
    assert median(program) < 0.75 * median(tuned(nfe=4))
    assert "2 calls a round" in str(program.provenance["start"])
    assert logsnr.Program.from_json(program.to_json()) == program
    x = noise(3, 2)
    found = logsnr.solve(DEN, x, solver=program, parallel=logsnr.Rounds())
    assert (found.rounds, found.nfe) == (4, 8)
    torch.testing.assert_close(found.x, logsnr.sample(DEN, x, solver=program), rtol=1e-9, atol=1e-9)


def test_infinite_ends_and_several_budgets() -> None:
    sch = logsnr.FlowMatching()
    den = GaussianMixture([[-1.0], [0.8]], [[0.04], [0.02]]).denoiser(sch, "velocity")
    x = logsnr.start(sch, (64, 1), seed=0, dtype=torch.float64)
    found = logsnr.tune(den, x, rounds=[1, 2], iterations=1, reference=logsnr.sample(den, x, steps=40))
    assert {n: len(program) for n, program in found.items()} == {1: 2, 2: 4}
    assert found[2].rounds == ((0, 1), (2, 3))
    assert found[2].grid[0] == 1
    assert found[2].grid[-1] == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rounds": 4, "nfe": 8}, "give one of nfe and rounds, not nfe = 8 and rounds = 4"),
        ({"rounds": 0}, "rounds must be a whole number from 1 to 32, not 0"),
        ({"rounds": 33}, "rounds must be a whole number from 1 to 32, not 33"),
        ({"rounds": 2.0}, "rounds must be a whole number"),
        ({"rounds": []}, "rounds must hold at least one budget"),
        ({"rounds": True}, "rounds must be a whole number"),
    ],
)  # fmt: skip
def test_bad_budgets(change: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        logsnr.tune(logsnr.Denoiser(lambda x, t: 1 / 0, SCH), noise(64, 0), **change)
