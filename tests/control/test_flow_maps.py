"""Flow maps: parametrisations by their published formulas, samplers by exact laws."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

import logsnr
from logsnr.control import FlowMap, step
from logsnr.kernels import Noise, standard_normals
from logsnr.solvers.programs.call import NoiseKey
from logsnr.solvers.runs.normals import seeds_of

A = logsnr.analysis
M, C = 0.7, 0.1225
DATA = A.Gaussian(M, C)
MIXTURE = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
FM, VP, EDM, TRIG = logsnr.FlowMatching(), logsnr.VPLinear(), logsnr.EDM(), logsnr.Trigonometric()
SCHEDULES = [FM, VP, EDM, TRIG, logsnr.VPCosine(), logsnr.VE()]
X = torch.linspace(-2, 2, 5, dtype=torch.float64)
Map = Callable[..., torch.Tensor]


def exact(sch: logsnr.Schedule) -> Map:
    """Phi_{s->t} of the Gaussian, for times per sample."""

    def phi(x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        spread = [torch.sqrt(sch.alpha(u) ** 2 * C + sch.sigma(u) ** 2) for u in (s, t)]
        return sch.alpha(t) * M + spread[1] / spread[0] * (x - sch.alpha(s) * M)

    return phi


def answers(sch: logsnr.Schedule) -> dict[str, Map]:
    """What trained networks return, each by its published definition."""
    phi = exact(sch)
    kept = {"x0": lambda s, t: sch.sigma(t) / sch.sigma(s), "eps": lambda s, t: sch.alpha(t) / sch.alpha(s)}
    return {
        "state": phi,
        "x0": lambda x, s, t: (phi(x, s, t) - kept["x0"](s, t) * x) / (sch.alpha(t) - sch.alpha(s) * kept["x0"](s, t)),
        "eps": lambda x, s, t: (
            (phi(x, s, t) - kept["eps"](s, t) * x) / (sch.sigma(t) - sch.sigma(s) * kept["eps"](s, t))
        ),
        "mean-velocity": lambda x, s, t: (phi(x, s, t) - x) / (t - s),
    }


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
def test_parametrisations(sch: logsnr.Schedule) -> None:
    """Each gives the exact map, with times per sample, and the identity at s = t."""
    s = torch.as_tensor(sch.time(torch.tensor([-2.0, -1.0, 0.0, 1.0, -1.5], dtype=torch.float64)))
    t = torch.as_tensor(sch.time(torch.tensor([0.5, 2.0, 0.3, 3.0, -0.5], dtype=torch.float64)))
    wanted = torch.cat([DATA.flow(X[n : n + 1], sch, float(s[n]), float(t[n])) for n in range(5)])
    for name, network in answers(sch).items():
        found = FlowMap(network, sch, name)(X, s, t)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for name in ("x0", "v", "velocity", "mean-velocity"):
        assert torch.equal(FlowMap(lambda x, s, t: x.sin(), sch, name)(X, s, s), X)


def test_published_formulas() -> None:
    """CTM on EDM (book 11.4.2), MeanFlow (11.5), TrigFlow (11.3.8): the same as DDIM steps."""
    net: Map = lambda x, s, t: torch.sin(x) + s - t  # noqa: E731
    s, t = torch.tensor([5.0, 0.8], dtype=torch.float64), torch.tensor([0.2, 0.3], dtype=torch.float64)
    x = X[:2]
    torch.testing.assert_close(FlowMap(net, EDM, "x0")(x, s, t), t / s * x + (s - t) / s * net(x, s, t))
    s = s / 6
    for name in ("velocity", "mean-velocity"):
        torch.testing.assert_close(FlowMap(net, FM, name)(x, s, 0.1), x + (0.1 - s) * net(x, s, 0.1))
    f = FlowMap(lambda x, s: torch.sin(x) + s, TRIG, "v", ends=False)(x, s)
    torch.testing.assert_close(f, torch.cos(s) * x - torch.sin(s) * (torch.sin(x) + s))


def test_network_with_data_at_one() -> None:
    """Its velocities are dx/dt on its own clock."""
    one = logsnr.FlowMatching(data_at=1)
    for name in ("velocity", "mean-velocity"):
        found = FlowMap(lambda x, r, q: x0_minus_eps(x, r, q), one, name)(X, 0.75, 0.25)
        torch.testing.assert_close(found, X + 0.5 * (0.25 + 0.75))


def x0_minus_eps(x: torch.Tensor, r: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    assert (r == 0.25).all()  # its own times
    assert (q == 0.75).all()
    return torch.ones_like(x)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
def test_exact_maps_have_no_error(sch: logsnr.Schedule) -> None:
    """Semigroup, and one step as good as many, of the Gaussian and of the mixture of one dimension."""
    mixture = FlowMap(lambda x, s, t: MIXTURE.reference(x, sch, float(s[0]), float(t[0])), sch)
    for problem, flow in ((DATA, FlowMap(exact(sch), sch)), (MIXTURE, mixture)):
        first = float(sch.time(-3.0))
        one = flow.sample(X, t_start=first)
        torch.testing.assert_close(one, problem.reference(X, sch, first, flow.clean), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(flow.sample(X, 4, t_start=first, gamma=0), one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda sch: type(sch).__name__)
@pytest.mark.parametrize("gamma", [0.0, 1e-6, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("clean", [None, 3.0])
def test_marginals_of_gamma_sampling(sch: logsnr.Schedule, gamma: float, clean: float | None) -> None:
    """With the exact map every node has the exact mean and variance, by the recursion of moments."""
    flow = FlowMap(exact(sch), sch, clean=None if clean is None else float(sch.time(clean)))
    times = flow.times(4, t_start=float(sch.time(-3.0)))
    mean, var = DATA.marginal(sch, times[0])
    for (s, t), (r, scale, std) in zip(pairwise(times), flow._parts(times, gamma), strict=True):
        slope = flow(torch.stack([mean + 1, mean]), s, r).diff()
        mean = scale * flow(mean[None], s, r)[0]
        var = (scale * slope[0]) ** 2 * var + std**2
        for found, wanted in zip((mean, var), DATA.marginal(sch, t), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
        assert r == pytest.approx(flow.clean if gamma == 1 else t if gamma == 0 else r, rel=1e-14)
    assert flow._parts(times, gamma)[-1] == (flow.clean, 1.0, 0.0)


def test_printed_gamma_sampling_is_wrong_beyond_edm() -> None:
    """The mutant: r = sqrt(1 - gamma^2) t without the factor, as Algorithm 11 is printed."""
    for sch, right in ((EDM, True), (FM, False), (VP, False)):
        t, gamma = float(sch.time(-0.3)), 0.7
        r, scale, std = FlowMap(exact(sch), sch)._parts(np.array([sch.t_start, t]), gamma)[0]
        assert (abs(r - math.sqrt(1 - gamma**2) * t) < 1e-12 and scale == 1) is right
        assert std == pytest.approx(gamma * sch.sigma(t))


@pytest.mark.parametrize("sch", [FM, VP, EDM], ids=lambda sch: type(sch).__name__)
def test_gamma_one_is_the_solver_lcm(sch: logsnr.Schedule) -> None:
    """Consistency sampling is the library's lcm program, with the same noise."""
    net: Map = lambda x, s: torch.sin(x) * s[:, None]  # noqa: E731
    x = logsnr.start(sch, (4, 3), seed=1)
    times = FlowMap(net, sch, ends=False).times(3)
    den = logsnr.Denoiser(net, sch, "x0")
    wanted = logsnr.sample(den, x, solver="lcm", grid=times, seed=5)
    found = FlowMap(net, sch, ends=False).sample(x, grid=times, seed=5)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    told = FlowMap(lambda x, s, t: net(x, s), sch).sample(x, grid=times, seed=5, gamma=1)
    torch.testing.assert_close(found, told, rtol=0, atol=0)


def test_gamma_sampling_of_ddim_steps_is_stochastic_ddim() -> None:
    """With one DDIM step as the map, a node gets alpha x0 + sqrt(sigma^2 - c^2) eps + c xi, c = gamma sigma."""
    sch, gamma = VP, 0.6
    den = MIXTURE.denoiser(sch)
    flow = FlowMap(lambda x, s, t: step(den, x, s, t), sch)
    s, t = float(sch.time(-1.0)), float(sch.time(0.4))
    z = standard_normals(Noise(*seeds_of(5, X.device, 3, None), (NoiseKey(s, t).address,)), 0, X).double()
    c = gamma * sch.sigma(t)
    wanted = sch.alpha(t) * den.x0(X, s) + math.sqrt(sch.sigma(t) ** 2 - c**2) * den.eps(X, s) + c * z
    found = flow.sample(X, grid=[s, t, 0.0], gamma=gamma, seed=3)
    torch.testing.assert_close(found, step(den, wanted, t, 0.0), rtol=1e-12, atol=1e-12)


def test_noise_is_addressed() -> None:
    """A sample has the same bits alone and in a batch, and its own noise with its own seed."""
    flow = FlowMap(lambda x, s: 0.5 * x, EDM, ends=False)
    x = logsnr.start(EDM, (4, 2), seed=0)
    whole = flow.sample(x, 3, seed=9)
    alone = flow.sample(x[2:3], 3, seed=9, sample_ids=[2])
    assert torch.equal(whole[2:3], alone)
    assert not torch.equal(whole, flow.sample(x, 3, seed=10))
    torch.manual_seed(0)
    drawn = flow.sample(x, 3)
    torch.manual_seed(0)
    assert torch.equal(drawn, flow.sample(x, 3))


def test_times() -> None:
    """Equal angles: equal times on the circle; the ends are exact, alpha = 0 and sigma = 0 included."""
    np.testing.assert_allclose(FlowMap(exact(TRIG), TRIG).times(4), np.linspace(math.pi / 2, 0, 5), atol=1e-15)
    np.testing.assert_allclose(FlowMap(exact(FM), FM).times(2), [1, 0.5, 0], atol=1e-15)
    for sch in SCHEDULES:
        times = FlowMap(exact(sch), sch).times(5)
        assert times[0] == sch.t_start
        assert sch.sigma(times[-1]) == 0
        assert (np.diff(times) < 0).all()


def test_gradients_dtypes_conditions() -> None:
    net = torch.nn.Linear(3, 3).half()
    flow = FlowMap(lambda x, s, t, y: net(x) + y[:, None], FM, "velocity", dtype=torch.float16,
                   conditions={"y": torch.zeros(2, dtype=torch.float16)})  # fmt: skip
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).T  # not contiguous
    end = flow.sample(x, 2, grad=True)
    end.sum().backward()
    assert end.dtype is torch.float32
    assert net.weight.grad is not None
    assert net.weight.grad.isfinite().all()
    assert not flow.sample(x, 2).requires_grad
    leaf = x.clone().requires_grad_()
    flow(leaf, torch.tensor([0.9, 0.4]), 0.1).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    with pytest.raises(ValueError, match="2 rows for a batch of 3"):
        flow.sample(torch.zeros(3, 3))


def test_refuses() -> None:
    flow, consistent = FlowMap(exact(FM), FM), FlowMap(lambda x, s: x, EDM, ends=False, clean=0.002)
    with pytest.raises(ValueError, match=r"sample 0 would go from s = 0.2 to t = 0.3.*more noise"):
        flow(X, 0.2, 0.3)
    with pytest.raises(ValueError, match=r"jumps to clean = 0.002 only, not to t = 1"):
        consistent(X, 2.0, 1.0)
    with pytest.raises(ValueError, match=r"gamma = 0.5 needs a map that is told where it ends"):
        consistent.sample(X, 2, gamma=0.5)
    with pytest.raises(ValueError, match=r"gamma = 1.5 must be a number from 0"):
        flow.sample(X, gamma=1.5)
    with pytest.raises(ValueError, match=r"times must decrease, but go from 0.1 to 0.9"):
        flow.sample(X, grid=[0.1, 0.9])
    with pytest.raises(ValueError, match=r"cleaner than clean = 0.002"):
        consistent.sample(X, grid=[80.0, 0.0])
    with pytest.raises(ValueError, match="leaves out steps"):
        flow.sample(X, 3, grid=[1.0, 0.0])
    with pytest.raises(ValueError, match="grid is an array of times"):
        flow.sample(X, grid="karras")
    with pytest.raises(ValueError, match="steps = 0 must be an integer"):
        flow.sample(X, 0)
    with pytest.raises(ValueError, match="prediction = 'x' is not one of a flow map"):
        FlowMap(exact(FM), FM, "x")
    with pytest.raises(ValueError, match="clean = 90 must be a time of EDM"):
        FlowMap(exact(EDM), EDM, clean=90.0)
    with pytest.raises(TypeError, match="model must be a callable"):
        FlowMap(None, FM)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="returned shape"):
        FlowMap(lambda x, s, t: x[:2], FM)(X, 0.5, 0.1)
    with pytest.raises(ValueError, match="the model has changed x in place"):
        FlowMap(lambda x, s, t: x.mul_(2), FM).sample(X.clone())
    with pytest.raises(logsnr.NonFiniteError):
        FlowMap(lambda x, s, t: x / 0, FM).sample(X)
