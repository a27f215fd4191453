"""`logsnr tune` and the families that universal tables are fitted to."""

import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.bench.family import DIM, SCHEDULE, Family, Kinds
from logsnr.bench.universal import ROWS, Part, fitted
from logsnr.cli import app
from logsnr.solvers.tuning.derivatives import Differences
from logsnr.solvers.tuning.fit import _normal, fit, loss, loss_of
from logsnr.solvers.tuning.noises import Noises
from logsnr.solvers.tuning.numbers import Numbers

OWN = """
import logsnr
from logsnr.analysis.gaussian import Gaussian
den = Gaussian([0.0, 0.5], [1.0, 0.3]).denoiser(logsnr.VPLinear())
"""


@pytest.mark.parametrize("smooth", [False, True])
def test_the_command_writes_a_program(tmp_path: Path, smooth: bool) -> None:
    (tmp_path / "own.py").write_text(OWN)
    out = tmp_path / "table.json"
    options = ["--shape", "2", "--nfe", "3", "--nfe", "4", "--noises", "64", "--iterations", "2", "--gauge", "eps"]
    options += ["--smooth"] * smooth
    shown = CliRunner().invoke(app, ["tune", "--denoiser", f"{tmp_path / 'own.py'}:den", *options, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    for n in (3, 4):
        program = logsnr.Program.from_json((tmp_path / f"table-{n}.json").read_text())
        assert len(program) == n
        assert float(program.provenance["held-out median"]) < float(program.provenance["start's median"])
        assert ("fitted to evaluations" in program.provenance) is smooth


def test_the_command_writes_rounds(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    out = tmp_path / "pairs.json"
    options = ["--shape", "2", "--rounds", "2", "--noises", "64", "--iterations", "1", "--gauge", "eps"]
    shown = CliRunner().invoke(app, ["tune", "--denoiser", f"{tmp_path / 'own.py'}:den", *options, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert logsnr.Program.from_json(out.read_text()).rounds == ((0, 1), (2, 3))


def test_the_shape_is_written_as_for_the_bench(tmp_path: Path) -> None:
    """With spaces or commas."""
    (tmp_path / "own.py").write_text("import logsnr\nden = logsnr.Denoiser(lambda x, t: x.sin(), logsnr.VPLinear())")
    options = ["--denoiser", f"{tmp_path / 'own.py'}:den", "--nfe", "2", "--noises", "64", "--iterations", "1"]
    for k, shape in enumerate((["1", "2"], ["1,2"])):
        out = ["--out", str(tmp_path / f"{k}.json")]
        shown = CliRunner().invoke(app, ["tune", *options, "--gauge", "x0", "--shape", *shape, *out])
        assert shown.exit_code == 0, shown.output
    assert (tmp_path / "0.json").read_text() == (tmp_path / "1.json").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--problem", "digits", "--shape", "8", "8"], "'8 8' goes with --denoiser"),
        ([], "either --problem or --denoiser"),
        (["--denoiser", "nowhere.py:den", "--shape", "2"], "must be a Python file and a name in it"),
        (["--problem", "digit"], "did you mean 'digits'"),
    ],
)
def test_bad_options(options: list[str], told: str) -> None:
    found = CliRunner().invoke(app, ["tune", *options])
    assert isinstance(found.exception, ValueError)
    assert told in str(found.exception)


NARROW = Kinds((0.6, 3.0))


def test_a_problem_of_the_family_is_a_mixture() -> None:
    """Its answers are those of the mixture of the analysis, from much noise to none."""
    family = Family(4, NARROW, seed=5)
    x = family.starts(3, seed=0)
    for t in (0.01, 0.7, 1.55):
        alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
        found = family.posterior(x, alpha, sigma)
        for k in range(4):
            live = family.s2[k, 0] > 0
            data = GaussianMixture(family.mu[k][:, live], family.s2[k][:, live], family.log_weights[k].exp())
            wanted = data.posterior(x[k][:, live], alpha, sigma)
            for one, other in zip(found, wanted, strict=True):
                torch.testing.assert_close(one[k][:, live], other, rtol=1e-7, atol=1e-7)


def test_a_small_fit_helps_on_other_problems() -> None:
    span = -math.log(20.0), -math.log(0.02)
    train, test = (Part.drawn(8, NARROW, span, seed) for seed in (3, 4))
    lam = torch.linspace(*span, 6, dtype=torch.float64).numpy()
    numbers = Numbers("eps", 2, lam)
    off = []
    for penalty in (0.0, 100.0):
        q, told = fitted([train.aim(numbers, penalty)], [test.aim(numbers, penalty)], iterations=6)
        assert len(q) == 4 + 20
        assert told["held-out median"][0] < 0.8 * told["start's median"][0]
        off.append(float(numbers.mismatch(q).square().mean().sqrt()))
    assert off[1] < off[0] / 2


def test_a_penalty_has_its_own_normal_equations() -> None:
    """The gradient that a fit goes by is that of the loss, by differences; and a fit goes on from the numbers that it
    is given."""
    span = -math.log(20.0), -math.log(0.02)
    numbers = Numbers("eps", 2, torch.linspace(*span, 5, dtype=torch.float64).numpy())
    aim = Part.drawn(4, NARROW, span, seed=3).aim(numbers, 30.0)
    q = 0.05 * torch.randn(numbers.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slope = _normal(aim, q, Differences()).gradient
    nudges = 1e-6 * torch.eye(numbers.size, dtype=torch.float64)
    differences = torch.tensor([loss([aim], q + dq) - loss([aim], q - dq) for dq in nudges]) / 2e-6
    torch.testing.assert_close(slope, differences.double(), rtol=1e-3, atol=1e-4)
    first = next(fit([aim], derivatives=Differences(), q=q))
    assert torch.equal(first.q, q)
    assert loss_of([aim], q, first.errors) == loss([aim], q)


def test_problems_are_taken_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its rows, its class and its network's errors; the normal equations are those of all at once."""
    span = -math.log(20.0), -math.log(0.02)
    kinds = NARROW._replace(scales=(2.0, 8.0), error=0.1)
    aim = Part.drawn(6, kinds, span, seed=3).aim(
        Numbers("eps", 2, torch.linspace(*span, 5, dtype=torch.float64).numpy()), 0.0
    )
    zeros = torch.zeros(aim.size, dtype=torch.float64)
    whole = _normal(aim, zeros, Differences())
    monkeypatch.setattr("logsnr.solvers.tuning.derivatives.ELEMENTS", 2 * ROWS * DIM * aim.size)
    calls = 0

    def counted(noises: Noises) -> object:
        nonlocal calls
        calls += 1
        assert len(noises) == 2 * ROWS
        return aim.field(noises)

    parts = _normal(aim._replace(field=counted), zeros, Differences())
    assert calls == 3
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # steps differ by the part


def test_problems_are_drawn_again_from_their_seed() -> None:
    one, same, other = (Family(6, NARROW, seed=s) for s in (1, 1, 2))
    assert one.mu.shape[-1] == DIM
    assert torch.equal(one.mu, same.mu)
    assert not torch.equal(one.mu, other.mu)


def test_problems_have_as_many_directions_as_are_asked_for() -> None:
    """Of points in a few directions too, which have no more than there are."""
    kinds = NARROW._replace(names=("broad", "cloud", "pair", "low-rank"), sizes=(0.5, 4))
    live = (Family(64, kinds, seed=5).s2[:, 0] > 0).sum(-1)
    assert set(live.tolist()) == {1, 2, 3, 4}
    assert "in 1 to 4 dimensions" in kinds.told(64, 8, 5)
    assert int((Family(64, NARROW, seed=5).s2[:, 0] > 0).sum(-1).min()) >= 8


def test_guided_problems_are_guided() -> None:
    """Between the answers of two mixtures, one without the components that are not of the class."""
    family, x = Family(3, NARROW._replace(scales=(2.0, 8.0)), seed=5), Family(3, NARROW, seed=5).starts(2, seed=0)
    scale, other = family.guidance  # type: ignore[misc]
    assert 2.0 <= float(scale.min()) < float(scale.max()) <= 8.0
    found = family.posterior(x, 0.8, 0.6)
    family.guidance = None
    plain = family.posterior(x, 0.8, 0.6)
    family.log_weights = torch.log_softmax(family.log_weights + other[:, 0], -1)
    of_class = family.posterior(x, 0.8, 0.6)
    for one, u, c in zip(found, plain, of_class, strict=True):
        torch.testing.assert_close(one, u + scale * (c - u), rtol=1e-9, atol=1e-9)


def test_errors_of_networks_are_errors_of_v() -> None:
    """x0 and eps still are those of the state, at any level, and v is off by about the size that is asked for."""
    exact, rough = (Family(4, NARROW._replace(error=error), seed=5) for error in (0.0, 0.1))
    x = exact.starts(64, seed=0)
    for alpha, sigma in ((0.6, 0.8), (0.0, 1.0)):
        pairs = [family.posterior(x, alpha, sigma) for family in (exact, rough)]
        torch.testing.assert_close(alpha * pairs[1][0] + sigma * pairs[1][1], x, rtol=1e-10, atol=1e-10)
        v, off = (alpha * eps - sigma * x0 for x0, eps in pairs)
        assert 0.05 < float((off - v).square().mean().sqrt()) < 0.15
