"""eta and its integrals against mpmath and closed forms; what is not an eta is refused."""

import mpmath as mp
import numpy as np
import pytest
from checks import nameless

from logsnr.solvers.planners.stochasticity import NONE, Smooth, Stochasticity, Window, er_sde, stochasticity

INF = np.inf


def exact(eta: Stochasticity, s: float, t: float, rate: float) -> float:
    """int_s^t eta^2 e^(rate (t - lam)) dlam, cut at the edges of a window."""

    def integrand(lam: mp.mpf) -> mp.mpf:
        if isinstance(eta, Window):
            return eta.eta**2 * mp.exp(rate * (t - lam)) * (eta.low <= lam <= eta.high)
        power = mp.exp(-mp.mpf("0.3") * lam)
        return mp.mpf("0.3") * power / (1 + 10 * mp.exp(-power)) * mp.exp(rate * (t - lam))

    edges = [e for e in (getattr(eta, "low", INF), getattr(eta, "high", INF)) if s < e < t]
    return float(mp.quad(integrand, [s, *edges, t]))


@pytest.mark.parametrize("eta", [Window(0.7), Window(1.5, -1.0, 0.5), Smooth(er_sde)], ids=nameless)
@pytest.mark.parametrize("rate", [0.0, 1.0, 2.0])
def test_integrals_are_exact(eta: Stochasticity, rate: float) -> None:
    """Integrals of eta^2 e^(rate (t - lam)) over steps from 1e-8 to 9, inside and across a window, to 1e-12."""
    s = np.array([-0.5, -0.5, -0.5, -3.0, -3.0, -0.2, 1.0, -4.0])
    t = np.array([-0.5 + 1e-8, -0.4, 0.2, -2.0, -0.3, 2.0, 2.0, 5.0])
    want = [exact(eta, a, b, rate) for a, b in zip(s.tolist(), t.tolist(), strict=True)]
    np.testing.assert_allclose(eta.integral(s, t, rate), want, rtol=1e-12, atol=1e-300)


def test_er_sde_is_its_noise_scale() -> None:
    """E of ER-SDE's eta is minus the logarithm of phi(sigma) / sigma = e^(sigma^0.3) + 10."""
    lam = np.linspace(-4.0, 3.0, 9)
    ratio = np.exp(np.exp(-0.3 * lam)) + 10
    np.testing.assert_allclose(Smooth(er_sde).energy(lam[:-1], lam[1:]), -np.diff(np.log(ratio)), rtol=1e-13)


def test_infinite_ends() -> None:
    """Over an infinite step E grows without bound where eta is positive at the end, and by what a window holds."""
    s, t = np.array([-INF, 1.0, -INF]), np.array([0.0, INF, INF])
    for always in (Window(0.5), Smooth(er_sde), Smooth(np.ones_like)):
        assert always.energy(s[:1], t[:1]) == INF
        assert always.energy(s[0], t[0]) == INF  # a number, as a path asks for it
    np.testing.assert_allclose(Window(2.0, -1.0, 3.0).energy(s, t), [4.0, 8.0, 16.0])
    np.testing.assert_array_equal(NONE.energy(s, t), 0.0)
    np.testing.assert_array_equal(Smooth(lambda lam: np.exp(-np.square(lam))).energy(s, t), 0.0)


def test_only_numbers_from_0_and_functions_are_eta() -> None:
    """Negative and infinite numbers, other types, and functions with such values or other shapes are refused."""
    for wrong in (-0.1, INF, float("nan"), True, "1", None):
        with pytest.raises(ValueError, match=f"eta = {wrong!r} must be a number of at least 0"):
            stochasticity(wrong)  # type: ignore[arg-type]
    lam = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match=r"eta\(1\) = -1.0 is not"):
        stochasticity(lambda x: -x).squared(lam)
    with pytest.raises(ValueError, match="arrays of their shape"):
        stochasticity(lambda x: 1.0).squared(lam)
    with pytest.raises(ValueError, match="low < high"):
        Window(1.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="eta = -1"):
        Window(-1.0)
    assert stochasticity(Window(1.0, 0.0)) is not None
    assert [bool(stochasticity(eta)) for eta in (0, 0.5, er_sde)] == [False, True, True]
