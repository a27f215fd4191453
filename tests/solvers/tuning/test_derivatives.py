"""How `tune` differentiates: by gradients, by differences where there are none, and in models that round."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers.tuning.derivatives import Differences, Gradients
from logsnr.solvers.tuning.noises import Noises
from logsnr.solvers.tuning.numbers import Numbers
from logsnr.solvers.tuning.run import field

SCH = logsnr.VPLinear()
DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.6], [0.5, 1.0]], [[0.04, 0.09], [0.02, 0.05], [0.06, 0.01]])
DEN = DATA.denoiser(SCH)
X = logsnr.start(SCH, (96, 2), seed=0, dtype=torch.float64)
END = DATA.reference(X, SCH, SCH.t_start, SCH.t_end)


def test_a_model_without_gradients_is_tuned_by_differences() -> None:
    def numpy_model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(DEN.model(x.detach(), t.detach()).numpy().copy())

    den = logsnr.Denoiser(numpy_model, SCH, "x0")
    options = {"gauge": "eps", "iterations": 3, "reference": END}
    program, other = (logsnr.tune(d, X, 4, **options) for d in (den, DEN))
    assert program.provenance["derivatives"] == "differences"
    assert other.provenance["derivatives"] == "gradients"
    medians = [float(p.provenance["held-out median"]) for p in (program, other)]
    assert medians[0] == pytest.approx(medians[1], rel=0.1)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_model_in_less_than_double_precision_is_tuned(
    dtype: torch.dtype, gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gradients; and by differences, whose steps are as large as what the model rounds to asks for."""
    if not gradients:
        monkeypatch.setattr("logsnr.solvers.tuning.job.has_gradients", lambda *_: False)
    den = logsnr.Denoiser(lambda x, t: DEN.model(x.double(), t.double()).to(dtype), SCH, "x0", dtype=dtype)
    program = logsnr.tune(den, X, 4, gauge="x0", solver="ddim", iterations=5, reference=END)
    assert program.provenance["derivatives"] == ("gradients" if gradients else "differences")
    assert program.provenance["held-out median"] < 0.2 * program.provenance["start's median"]


def problem(share: float = 0.0) -> tuple[object, Noises, object]:
    numbers = Numbers("x0", 2, np.asarray(SCH.half_logsnr(logsnr.grid(SCH, 4))), told=True)
    q = 0.05 * torch.randn(numbers.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return field(DEN, "x0"), Noises(X[:24], END[:24], 1.0, share=share), numbers.tangents(q)


def test_gradients_along_every_element_are_the_normal_equations_of_differences() -> None:
    f, noises, (table, slopes) = problem()
    one, other = (how.normal(f, noises, table, slopes) for how in (Gradients(2), Differences()))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))


def test_random_directions_are_right_in_the_mean_and_their_gradient_always() -> None:
    """The mean of 64 draws is nearer by about their root than one is; directions of half the size are not near."""
    f, noises, (table, slopes) = problem()
    exact, one = Gradients(2).normal(f, noises, table, slopes), Gradients(1)
    assert all(torch.equal(*(Gradients(1).normal(f, noises, table, slopes)[k] for _ in range(2))) for k in (0, 1))
    drawn = [one.normal(f, noises, table, slopes) for _ in range(64)]
    for normal in drawn:
        torch.testing.assert_close(normal.gradient, exact.gradient)
    off = [float((a - exact.squares).norm() / exact.squares.norm()) for a, _ in drawn]
    mean = sum(a for a, _ in drawn) / 64
    assert float((mean - exact.squares).norm() / exact.squares.norm()) < 0.25 * float(np.mean(off))
    assert float((mean / 4 - exact.squares).norm() / exact.squares.norm()) > 0.25 * float(np.mean(off))


@pytest.mark.parametrize("signs", [1, 5, 12])
def test_directions_have_the_squares_of_the_identity(signs: int) -> None:
    """Of as few as one and as many as there are elements: their products with themselves have ones on the diagonal."""
    along = Gradients(signs).directions(torch.zeros(7, 3, 4, dtype=torch.float64))
    torch.testing.assert_close(along.square().sum(0), torch.ones(7, 3, 4, dtype=torch.float64))


def test_directions_are_as_many_as_a_table_asks_for() -> None:
    assert [Gradients.enough(*size).signs for size in ((20, 192), (270, 192), (144, 48))] == [4, 8, 15]


def test_a_share_of_the_median_is_a_floor() -> None:
    """Weights of samples that are much nearer than the median no longer count by their own size alone."""
    errors = torch.tensor([1e-6, 1e-2, 1e-1, torch.inf], dtype=torch.float64)
    _, plain, _ = problem()
    _, shared, _ = problem(share=0.5)
    assert plain.near(errors) is plain
    near = shared.near(errors)
    assert near.floor == pytest.approx(0.5e-2)
    ratio = (near.weights(errors) / plain.weights(errors))[:3].square()
    torch.testing.assert_close(ratio, ((errors + plain.floor) / (errors + near.floor))[:3])
    assert float(near.weights(errors)[3]) == 0
    assert shared.near(torch.full((3,), torch.inf)).floor == shared.floor
