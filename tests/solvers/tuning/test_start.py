"""What a fit of `tune` starts from."""

import pytest

import logsnr
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers import Adams
from logsnr.solvers.tuning.universal import Universal

SCH = logsnr.VPLinear()
DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.6], [0.5, 1.0]], [[0.04, 0.09], [0.02, 0.05], [0.06, 0.01]])
DEN = DATA.denoiser(SCH)
X = logsnr.start(SCH, (128, 2), seed=0).double()
END = DATA.reference(X, SCH, SCH.t_start, SCH.t_end)


def test_it_starts_from_the_universal_table_where_that_is_best() -> None:
    """Its error on held-out noise is the start's; a solver that is named is what a fit starts from."""
    table = Universal(0.5, dimension=2).plan(SCH, logsnr.grid(SCH, 4))
    x, end = X[-32:], END[-32:]
    error = float((logsnr.sample(DEN, x, solver=table) - end).square().mean(1).sqrt().median())
    told = logsnr.tune(DEN, X, 4, gauge="eps", reference=END, iterations=1).provenance
    assert told["start"] == "the universal table of the family points, in eps over lam"
    assert told["start's median"] == pytest.approx(error, rel=1e-5)
    named = logsnr.tune(DEN, X, 4, solver=Adams("eps", 2), reference=END, iterations=1)
    assert named.provenance["start"].startswith("exponential Adams of order 2 in eps")  # type: ignore[union-attr]
