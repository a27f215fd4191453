"""The weights that a fit corrects are those of the planner, on any grid and schedule, and so are their gradients."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers import Adams
from logsnr.solvers.tuning.derivatives import Differences, Gradients, has_gradients
from logsnr.solvers.tuning.numbers import Numbers, adams_weights
from logsnr.solvers.tuning.run import end_of, ends_of, field
from logsnr.solvers.tuning.table import Fitted

SCHEDULES = [logsnr.VPLinear(), logsnr.EDM(0.002, 80.0), logsnr.FlowMatching()]
DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.6]], [[0.04, 0.09], [0.02, 0.05]], [0.4, 0.6])


def start(gauge: str, order: int, lam: np.ndarray, **options: bool) -> tuple[Numbers, torch.Tensor]:
    numbers = Numbers(gauge, order, lam, **options)
    return numbers, torch.zeros(numbers.size, dtype=torch.float64)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
@pytest.mark.parametrize("gauge", ["x0", "eps"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["logsnr", "karras"])
def test_no_corrections_are_the_planners_table(sch: logsnr.Schedule, gauge: str, order: int, kind: str) -> None:
    grid = logsnr.grid(sch, 6, kind)
    lam = np.asarray(sch.half_logsnr(grid))
    if gauge == "eps" and not np.isfinite(lam).all():
        pytest.skip("eps is for finite ends")
    numbers, q = start(gauge, order, lam)
    program = numbers.fitted(q).program(sch, "start", ends=(float(grid[0]), float(grid[-1])))
    planned = Adams(gauge, order).plan(sch, grid)
    np.testing.assert_allclose(program.grid, planned.grid, rtol=1e-12, atol=1e-13)
    x = torch.randn(7, 2, dtype=torch.float64) * sch.sigma(grid[0])
    end, wanted = (p.interpret(x, DATA.pair(sch)) for p in (program, planned))
    torch.testing.assert_close(end, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("gauge", ["x0", "eps"])
def test_the_weights_follow_the_grid(gauge: str) -> None:
    """Their derivatives by the nodes are those of differences between the planner's tables."""
    lam = torch.tensor([-4.0, -2.5, -1.2, 0.1, 1.4, 3.0], dtype=torch.float64)
    slopes = torch.func.jacfwd(lambda nodes: adams_weights(nodes, gauge, 3))(lam)
    for k, step in enumerate(1e-6 * torch.eye(6, dtype=torch.float64)):
        ahead, back = (adams_weights(lam + sign * step, gauge, 3) for sign in (1, -1))
        torch.testing.assert_close(slopes[..., k], (ahead - back) / 2e-6, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
@pytest.mark.parametrize("told", [False, True])
def test_the_executor_runs_what_was_fitted(sch: logsnr.Schedule, told: bool) -> None:
    """The fit's own loop on the unit circle and the program on the schedule end in the same place."""
    numbers, q = start("x0", 3, np.asarray(sch.half_logsnr(logsnr.grid(sch, 4))), told=told)
    q = q + 0.05 * torch.randn(len(q), dtype=torch.float64)
    den, table = DATA.denoiser(sch, "v"), numbers.fitted(q)
    program = table.program(sch, "fitted", ends=(sch.t_start, sch.t_end))
    r_start, r_end = (np.hypot(sch.alpha(t), sch.sigma(t)) for t in (sch.t_start, sch.t_end))
    x = logsnr.start(sch, (6, 2), seed=0, dtype=torch.float64)
    torch.testing.assert_close(
        logsnr.sample(den, x, solver=program), r_end * end_of(field(den, "x0"), x / r_start, numbers(q)),
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("gauge", ["x0", "eps"])
def test_both_jacobians_are_that_of_whole_runs(gauge: str) -> None:
    """Of the grid, every weight and the told times, at numbers that are not the start's. What a direction sees is its
    product with each derivative."""
    sch = logsnr.VPLinear()
    den = DATA.denoiser(sch)
    numbers, q = start(gauge, 2, np.asarray(sch.half_logsnr(logsnr.grid(sch, 4))), told=True)
    q = q + 0.02 * torch.randn(len(q), dtype=torch.float64)
    u, f = logsnr.start(sch, (5, 2), seed=0, dtype=torch.float64), field(den, gauge)
    end, found = Differences().tangents(f, u, *numbers.tangents(q))
    torch.testing.assert_close(end, end_of(f, u, numbers(q)))
    for k, step in enumerate(1e-6 * torch.eye(len(q), dtype=torch.float64)):
        ahead, back = (end_of(f, u, numbers(q + sign * step)) for sign in (1, -1))
        torch.testing.assert_close(found[k], (ahead - back) / 2e-6, rtol=1e-4, atol=1e-6)
    states, answers = ends_of(f, u, numbers(q))
    along = torch.randn(3, *u.shape, dtype=torch.float64)
    seen = Gradients(1).pulled(f, states[:-1], answers, *numbers.tangents(q), along)
    torch.testing.assert_close(seen, torch.einsum("sbd,pbd->sbp", along, found), rtol=1e-5, atol=1e-6)


def test_the_defect_is_that_of_the_row_sums() -> None:
    lam = np.linspace(-3.0, 3.0, 5)
    for gauge in ("x0", "eps"):
        weights = adams_weights(torch.tensor(lam), gauge, 3).numpy()
        assert Fitted(gauge, lam, weights).defect < 1e-13
        weights[2, 1:] *= 1.25
        assert Fitted(gauge, lam, weights).defect == pytest.approx(0.25)


def test_gradients_are_checked_not_believed() -> None:
    """A model that cuts them off has none, though it raises nothing; and one whose parts are cut off."""
    u = torch.randn(2, 3, dtype=torch.float64)

    def levels(lam: torch.Tensor) -> torch.Tensor:
        return lam.reshape(-1, 1)

    for f, has in (
        (lambda u, node, told: torch.tanh(u) * levels(told), True),
        (lambda u, node, told: torch.tanh(u.detach()) * levels(told), False),
        (lambda u, node, told: torch.tanh(u) * levels(told.detach()), False),
        (lambda u, node, told: torch.from_numpy(u.numpy()), False),
    ):
        assert has_gradients(f, u, 0.3, 1e-7) is has


@pytest.mark.parametrize("gauge", ["x0", "eps"])
def test_consistent_tables_keep_noise_and_data(gauge: str) -> None:
    """Whatever the numbers, of data that are one point and of noise that is all there is each node has what it should;
    weights that are free do not keep it."""
    lam = np.linspace(-3.0, 3.0, 6)
    for consistent in (True, False):
        numbers = Numbers(gauge, 2, lam, consistent=consistent)
        q = 0.3 * torch.randn(numbers.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        rows = numbers(q)
        alpha, sigma = torch.sqrt(torch.sigmoid(2 * rows.lam)), torch.sqrt(torch.sigmoid(-2 * rows.lam))
        x0, eps = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-1.3, dtype=torch.float64)
        states, answer = alpha * x0 + sigma * eps, x0 if gauge == "x0" else eps
        following = rows.matrix[:, 0] * states[:-1] + rows.matrix[:, 1:].sum(1) * answer
        assert torch.allclose(following, states[1:], rtol=1e-12, atol=1e-12) is consistent
        assert (float(numbers.mismatch(q).abs().max()) < 1e-12) is consistent


@pytest.mark.parametrize("gauge", ["x0", "eps"])
def test_a_mismatch_is_what_a_state_has_beside_what_it_should(gauge: str) -> None:
    """Signal and noise are what a run makes of data that are one point without noise, and of noise without data."""
    numbers = Numbers(gauge, 2, np.linspace(-3.0, 3.0, 6))
    q = 0.3 * torch.randn(numbers.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows, off = numbers(q), numbers.mismatch(q).reshape(-1, 2)
    for k, has in enumerate(((1.0, 0.0), (0.0, 1.0))):
        u, answer = torch.sqrt(torch.sigmoid(2 * (1 - 2 * k) * rows.lam[0])), has[gauge == "eps"]
        for i in range(4):
            u = rows.matrix[i, 0] * u + answer * rows.matrix[i, 1:].sum()
            level = torch.sqrt(torch.sigmoid(2 * (1 - 2 * k) * rows.lam[i + 1]))
            torch.testing.assert_close(off[i, k], u / level - 1, rtol=1e-12, atol=1e-12)


def test_slopes_of_a_mismatch_are_finite_at_infinite_ends() -> None:
    numbers = Numbers("x0", 2, np.array([-np.inf, -2.0, 0.0, 2.0, np.inf]))
    q = torch.full((numbers.size,), 0.01, dtype=torch.float64)
    slopes = torch.func.jacfwd(numbers.mismatch)(q)
    nudges = 1e-6 * torch.eye(numbers.size, dtype=torch.float64)
    differences = torch.stack([(numbers.mismatch(q + dq) - numbers.mismatch(q - dq)) / 2e-6 for dq in nudges], 1)
    torch.testing.assert_close(slopes, differences, rtol=1e-6, atol=1e-7)


def test_numbers_of_a_table_give_it_back() -> None:
    numbers = Numbers("eps", 3, np.linspace(-3.0, 3.0, 6), told=True)
    weights = numbers.base.numpy() + np.tril(np.ones((5, 6)), 1)
    assert np.allclose(numbers.fitted(numbers.numbers_of(weights)).weights, weights, rtol=1e-14)
