"""A guide is asked with the rows and the level of every call, in every executor, and gets the gradients it wants."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from parallel_runs import exact, start

import logsnr
from logsnr.solvers.denoisers.guides import At, Guide

SCH = logsnr.VPLinear()
X = start(3, 5, torch.float64)
Y = torch.tensor([[0.5, 1, 0, 0, -1], [-1.0, 0, 2, 0, 1], [2.0, 0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
seen: list[bool] = []


def network(x: torch.Tensor, t: torch.Tensor, y: Any = None) -> torch.Tensor:
    """Elementwise, but for a bend along the sample; it remembers whether gradients were recorded."""
    seen.append(torch.is_grad_enabled() and x.requires_grad)
    shift = t if y is None else t + y
    return x / (1 + x * x) + 0.1 * x.roll(1, 1) - 0.3 * shift.reshape(-1, 1).to(x.dtype)


@dataclass(frozen=True, eq=False)
class Pull(Guide):
    """Towards rows of y, through the model."""

    y: torch.Tensor
    strength: float = 0.3
    gradients = True

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        r = at.rows(self.y).to(x0.dtype) - x0
        return x0 + self.strength * at.scale(lambda lam: 1 / (1 + lam**2)) * at.gain * at.pulled_back(x0, x, r)


class Still(Guide):
    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return x0 / 2


def guided(guide: Any, model: Any = network, **options: Any) -> logsnr.Denoiser:
    return logsnr.Denoiser(model, SCH, "v", map_x0=guide, **options)


def by_hand(x: torch.Tensor, t: float, y: torch.Tensor) -> torch.Tensor:
    """The x0 of `Pull`, by torch alone."""
    alpha, sigma, lam = float(SCH.alpha(t)), float(SCH.sigma(t)), float(SCH.half_logsnr(t))

    def x0_of(x: torch.Tensor) -> torch.Tensor:
        times = torch.full((len(x),), t, dtype=torch.float64)
        return alpha * x - sigma * network(x, times)

    x0, pull = torch.func.vjp(x0_of, x)
    return x0 + 0.3 / (1 + lam**2) * sigma**2 / alpha * pull(y - x0)[0]


def test_a_run_is_the_loop_by_hand() -> None:
    """DDIM of the guided x0, whose eps follows from x."""
    grid = logsnr.grid(SCH, 6)
    x = X
    for s, t in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        x0 = by_hand(x, s, Y)
        eps = (x - SCH.alpha(s) * x0) / SCH.sigma(s)
        x = SCH.alpha(t) * x0 + SCH.sigma(t) * eps
    found = logsnr.solve(guided(Pull(Y)), X, solver="ddim", grid=grid)
    torch.testing.assert_close(found.x, x, rtol=1e-12, atol=1e-12)
    assert found.nfe == 6
    assert not found.x.requires_grad


@pytest.mark.parametrize("options", [{}, {"parallel": exact(window=3)}, {"parallel": exact(window=4, batch=2)}])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun"])
def test_rows_follow_their_samples(solver: str, options: Any) -> None:
    """Alone and in a batch the same bits, in windows of calls too; and those of the sequential run."""
    settings = dict(solver=solver, steps=5)
    found = logsnr.sample(guided(Pull(Y)), X, **settings, **options)
    for b in range(3):
        alone = logsnr.sample(guided(Pull(Y[b : b + 1])), X[b : b + 1], **settings, **options)
        assert torch.equal(found[b : b + 1], alone)
    assert torch.equal(found, logsnr.sample(guided(Pull(Y)), X, **settings))


def test_noise_and_adaptive_runs() -> None:
    noisy = [logsnr.sample(guided(Pull(Y)), X, solver="sde-dpmpp-2m", steps=5, seed=3, **o) for o in ({}, PICARD)]
    assert torch.equal(*noisy)
    fine = logsnr.sample(guided(Pull(Y)), X, solver="dpmpp-3m", steps=100, startup="single-step", t_end=0.1)
    for solver in ("dpm-23", "dopri5"):
        found = logsnr.solve(guided(Pull(Y)), X, solver=solver, rtol=1e-4, atol=1e-4, t_end=0.1)
        torch.testing.assert_close(found.x, fine, rtol=1e-3, atol=1e-3)


PICARD = {"parallel": exact(window=3)}


def test_with_conditions_and_guidance() -> None:
    """Both answers of guidance record gradients, and count."""
    y, guidance = torch.tensor([0.5, -1.0, 2.0]), logsnr.Guidance(3.0, uncond={"y": torch.zeros(3)})
    den = guided(Pull(Y), conditions={"y": y}, guidance=guidance)

    def both(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        u = network(x, t, torch.zeros(3)) if len(x) == 3 else network(x, t, 0 * y[:1])
        return u + 3.0 * (network(x, t, y) - u)

    found = logsnr.solve(den, X, solver="dpmpp-2m", steps=5)
    torch.testing.assert_close(found.x, logsnr.sample(guided(Pull(Y), both), X, solver="dpmpp-2m", steps=5))
    assert found.nfe == 10
    one_by_one = guided(Pull(Y), conditions={"y": y}, guidance=replace(guidance, batched=False))
    assert torch.equal(logsnr.sample(one_by_one, X, solver="dpmpp-2m", steps=5), found.x)
    assert torch.equal(logsnr.sample(den, X, solver="dpmpp-2m", steps=5, **PICARD), found.x)


@pytest.mark.parametrize(("guide", "recorded"), [(Pull(Y), True), (Still(), False), (lambda a, b, c: a, False)])
@pytest.mark.parametrize("options", [{}, PICARD])
def test_gradients_are_recorded_only_where_they_are_wanted(guide: Any, recorded: bool, options: Any) -> None:
    seen.clear()
    logsnr.sample(guided(guide), X, solver="ddim", steps=3, **options)
    assert set(seen) == {recorded}


@pytest.mark.parametrize("options", [{}, PICARD])
def test_inference_mode(options: Any) -> None:
    """The same bits, also for what was made in it."""
    wanted = logsnr.sample(guided(Pull(Y)), X, solver="dpmpp-2m", steps=4)
    with torch.inference_mode():
        found = logsnr.sample(guided(Pull(Y.clone())), X.clone(), solver="dpmpp-2m", steps=4, **options)
    assert torch.equal(found, wanted)


def test_gradients_that_cannot_be_had() -> None:
    for context in (torch.no_grad, torch.inference_mode):
        with pytest.raises(ValueError, match="map_x0 takes, is cut off"):
            logsnr.sample(guided(Pull(Y), context()(network)), X, steps=3)
    with torch.inference_mode():
        frozen = torch.nn.Linear(5, 5, dtype=torch.float64)
        with pytest.raises(ValueError, match="made in, or run under"):
            logsnr.sample(guided(Pull(Y), lambda x, t: frozen(x)), X, steps=3)
    with pytest.raises(ValueError, match=r"torch\.compile and torch\.func transforms"):
        torch.vmap(lambda x: guided(Pull(Y)).x0(x, 0.5))(X[:, None])
    with pytest.raises(TypeError, match="must be a callable map_x0"):
        guided(3)


def test_a_function_may_ask_for_gradients() -> None:
    def mapped(x0: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (3,)
        return x0 + torch.autograd.grad(x0.square().sum(), x)[0]

    mapped.gradients = True  # type: ignore[attr-defined]
    with torch.no_grad():
        found = guided(mapped).x0(X, 0.4)
    plain = guided(None)
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(plain.x0(x, 0.4).square().sum(), x)
    torch.testing.assert_close(found, plain.x0(X, 0.4) + slope, rtol=1e-12, atol=1e-12)


def test_gradients_of_a_guided_run() -> None:
    """With grad=True the gradient through the guide, second order in the model, is that of differences."""
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def end(w: torch.Tensor, grad: bool = False) -> torch.Tensor:
        den = guided(Pull(Y), lambda x, t: w * network(x, t))
        return logsnr.sample(den, X, solver="dpmpp-2m", steps=3, grad=grad).square().sum()

    (slope,) = torch.autograd.grad(end(weight, True), weight)
    h = 1e-5
    ahead, behind = (end(weight.detach() + d) for d in (h, -h))
    assert slope.item() == pytest.approx(((ahead - behind) / (2 * h)).item(), rel=1e-7)


def test_networks_in_half_precision() -> None:
    """The cotangent is scaled: a pull of 1e-7, which fp16 does not know, is carried through."""
    tiny = 1e-7 * torch.ones(1, 5)
    found, wanted = (
        guided(Small(tiny), lambda x, t: torch.tanh(x), dtype=dtype).x0(X.float(), 0.4)
        for dtype in (torch.float16, torch.float32)
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-3)


@dataclass(frozen=True, eq=False)
class Small(Guide):
    y: torch.Tensor
    gradients = True

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return 1e7 * at.pulled_back(x0, x, self.y.expand(x0.shape))


@pytest.mark.parametrize("sch", [logsnr.FlowMatching(), logsnr.EDM()])
@pytest.mark.parametrize("steps", [1, 3])
def test_ends(sch: logsnr.Schedule, steps: int) -> None:
    """alpha = 0, where nothing is changed, sigma = 0, one step, one sample."""
    head = "velocity" if isinstance(sch, logsnr.FlowMatching) else "x0"
    den = logsnr.Denoiser(lambda x, t: network(x, t), sch, head, map_x0=Pull(Y[:1]))
    x = logsnr.start(sch, (1, 5), seed=0, dtype=torch.float64)
    assert logsnr.sample(den, x, steps=steps, t_end=0.0).isfinite().all()
    if head == "velocity":
        plain = logsnr.Denoiser(lambda x, t: network(x, t), sch, head)
        torch.testing.assert_close(den.x0(x, 1.0).detach(), plain.x0(x, 1.0))


@pytest.mark.parametrize("options", [{}, PICARD])
def test_no_samples_and_samples_without_dimensions(options: Any) -> None:
    none = logsnr.sample(guided(Pull(Y[:1])), X[:0], solver="ddim", steps=2, **options)
    assert none.shape == (0, 5)
    if not options:  # parallel runs take x of two dimensions
        flat = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "v", map_x0=Pull(Y[:, 0]))
        column = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "v", map_x0=Pull(Y[:, :1]))
        found = logsnr.sample(flat, X[:, 0], solver="ddim", steps=3)
        torch.testing.assert_close(found[:, None], logsnr.sample(column, X[:, :1], solver="ddim", steps=3))


def test_samples_that_stop_being_finite_leave_the_others_alone() -> None:
    broken = torch.cat([Y[:2], torch.full((1, 5), torch.nan)])
    with pytest.warns(UserWarning, match="2"):
        found = logsnr.solve(guided(Pull(broken)), X, solver="ddim", steps=3, on_nan="keep")
    assert found.failed == (2,)
    assert torch.equal(found.x[:2], logsnr.sample(guided(Pull(Y)), X, solver="ddim", steps=3)[:2])


def test_a_guide_with_a_mistake() -> None:
    class Wrong(Guide):
        def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
            return x0.sum()

    with pytest.raises(ValueError, match="shape"):
        logsnr.sample(guided(Wrong()), X, steps=2)
