"""Conditions follow their samples, and guidance combines two answers."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import exact, start

import logsnr
from logsnr.solvers.denoisers.guidance_rules import KINDS, RULES

SCH = logsnr.VPLinear()
X = start(3, 5, torch.float64)
Y, Y0 = torch.tensor([0.5, -1.0, 2.0]), torch.zeros(3)
SEQUENTIAL = ("dpmpp-2m", "deis-3", "heun")


def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, extra: Any = None) -> torch.Tensor:
    """Whose answer depends on the condition; a batch of another size is an error."""
    assert len(y) == len(x) == len(t)
    if extra is not None:
        y = y + extra["more"][0]
    return x / (1 + x * x) - 0.3 * (t + y).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def conditional(**options: Any) -> logsnr.Denoiser:
    return logsnr.Denoiser(network, SCH, "v", conditions={"y": Y}, **options)


def of_sample(b: int) -> logsnr.Denoiser:
    return logsnr.Denoiser(lambda x, t: network(x, t, Y[b : b + 1].expand(len(x))), SCH, "v")


@pytest.mark.parametrize("options", [{}, {"parallel": exact(window=3)}, {"parallel": exact(window=4, batch=2)}])
@pytest.mark.parametrize("solver", SEQUENTIAL)
def test_rows_follow_their_samples(solver: str, options: Any) -> None:
    """Every sample has its own condition, alone and in a batch, in windows of calls and in parts of a batch."""
    found = logsnr.sample(conditional(), X, solver=solver, steps=6, **options)
    for b in range(3):
        alone = logsnr.sample(of_sample(b), X[b : b + 1], solver=solver, steps=6, **options)
        assert torch.equal(found[b : b + 1], alone)
    torch.testing.assert_close(conditional().x0(X, 0.4)[1:2], of_sample(1).x0(X[1:2], 0.4), rtol=0, atol=0)
    adaptive = logsnr.sample(conditional(), X, solver="dopri5", rtol=1e-4, t_end=0.1)
    assert torch.isfinite(adaptive).all()


def test_trees() -> None:
    """Tensors within dictionaries and lists have rows too; numbers and strings are handed on."""
    extra = {"more": [torch.tensor([0.0, 1.0, 2.0]), "name"], "number": torch.tensor(3.0)}
    den = logsnr.Denoiser(network, SCH, "v", conditions={"y": Y, "extra": extra})
    wanted = logsnr.Denoiser(lambda x, t: network(x, t, Y + extra["more"][0]), SCH, "v")
    assert torch.equal(logsnr.sample(den, X, steps=4), logsnr.sample(wanted, X, steps=4))
    one = logsnr.sample(den, X, steps=4, parallel=exact(window=2))
    assert torch.equal(one, logsnr.sample(wanted, X, steps=4))


def guided(w: Any, **options: Any) -> logsnr.Denoiser:
    return conditional(guidance=logsnr.Guidance(w, uncond={"y": Y0}, **options))


def mixed(w: Any) -> logsnr.Denoiser:
    """The same by hand."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        scale = w(t) if callable(w) else w
        u, c = network(x, t, Y0), network(x, t, Y)
        return u + scale * (c - u)

    return logsnr.Denoiser(model, SCH, "v")


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("solver", SEQUENTIAL)
def test_guidance_is_what_a_callable_does(solver: str, batched: bool) -> None:
    for w in (4.0, 0.5, torch.tensor([1.0, 3.0, 0.0]), lambda lam: 2 + np.tanh(lam)):
        by_hand = mixed(
            (lambda t: (2 + np.tanh(SCH.half_logsnr(float(t[0]))))) if callable(w) and not isinstance(w, torch.Tensor)
            else w[:, None] if isinstance(w, torch.Tensor) else w
        )  # fmt: skip
        wanted = logsnr.sample(by_hand, X, solver=solver, steps=6)
        found = logsnr.solve(guided(w, batched=batched), X, solver=solver, steps=6)
        torch.testing.assert_close(found.x, wanted, rtol=0, atol=1e-11)
        assert found.program is not None
        assert found.nfe == 2 * len(found.program)
        assert found.rounds == len(found.program) * (1 if batched else 2)


def test_evaluations_are_made_where_they_count() -> None:
    """A scale of 1 is the condition alone, of 0 none; outside the interval one evaluation is made and counted."""
    asked: list[int] = []

    def counting(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return network(x, t, y)

    def run(w: float, **options: Any) -> logsnr.Solution:
        asked.clear()
        guidance = logsnr.Guidance(w, uncond={"y": Y0}, **options)
        den = logsnr.Denoiser(counting, SCH, "v", conditions={"y": Y}, guidance=guidance)
        return logsnr.solve(den, X, solver="dpmpp-2m", steps=8)

    assert run(1.0).nfe == 8 == sum(asked) / 3
    assert torch.equal(run(1.0).x, logsnr.sample(conditional(), X, solver="dpmpp-2m", steps=8))
    assert run(0.0).nfe == 8
    found = run(3.0, interval=(-1.0, 2.0))
    lam = SCH.half_logsnr(np.array([call.t for call in found.program or ()]))
    within = int(((lam >= -1) & (lam <= 2)).sum())
    assert 0 < within < 8
    assert found.nfe == 8 + within == sum(asked) / 3
    wanted = logsnr.sample(
        mixed(lambda t: 3.0 if -1 <= SCH.half_logsnr(float(t[0])) <= 2 else 1.0), X, solver="dpmpp-2m", steps=8
    )
    torch.testing.assert_close(found.x, wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in RULES])
def test_windows_of_guided_calls(kind: str) -> None:
    """Parallel runs and single heads are guided by the same rule, and count what they ask."""
    den = guided(3.0, kind=kind, interval=(-1.5, 2.5))
    wanted = logsnr.solve(den, X, solver="dpmpp-2m", steps=6)
    found = logsnr.solve(den, X, solver="dpmpp-2m", steps=6, parallel=exact(window=1))
    torch.testing.assert_close(found.x, wanted.x, rtol=0, atol=1e-11)
    assert found.nfe == wanted.nfe
    several = logsnr.solve(den, X, solver="dpmpp-2m", steps=6, parallel=exact())
    torch.testing.assert_close(several.x, wanted.x, rtol=0, atol=1e-11)
    inside, outside = float(SCH.time(0.0)), float(SCH.time(4.0))
    assert torch.equal(den.x0(X, outside), conditional().x0(X, outside))
    assert not torch.allclose(den.x0(X, inside), conditional().x0(X, inside))


def test_cfg_plus_plus() -> None:
    """DDIM of CFG++: x_t = alpha_t x0_guided + sigma_t eps_unconditional (Chung et al. 2024, algorithm 1)."""
    found = logsnr.solve(guided(0.6, kind="cfg++"), X, solver="ddim", steps=5)
    x, grid = X, np.asarray(logsnr.grid(SCH, 5))
    for s, t in pairwise(grid):
        told = torch.full((3,), s, dtype=torch.float64)
        u, c = network(x, told, Y0), network(x, told, Y)
        x0 = SCH.alpha(s) * x - SCH.sigma(s) * (u + 0.6 * (c - u))
        eps = SCH.sigma(s) * x + SCH.alpha(s) * u
        x = SCH.alpha(t) * x0 + SCH.sigma(t) * eps
    torch.testing.assert_close(found.x, x, rtol=0, atol=1e-11)
    for options in ({"parallel": exact(), "steps": 2}, {"solver": "dopri5", "rtol": 1e-3}):
        with pytest.raises(ValueError, match="cfg\\+\\+"):
            logsnr.sample(guided(0.6, kind="cfg++"), X, **options)  # type: ignore[arg-type]


def test_rules_against_their_formulas() -> None:
    """Each with what defines it: the norm that is kept, the part that is left out, the scale that is best."""
    u, c = start(2, 50, torch.float64), start(2, 100, torch.float64)[:, 50:]
    dot = lambda a, b: (a * b).sum(1, keepdim=True)  # noqa: E731
    rescaled = logsnr.Guidance(5.0, uncond={"y": Y0}, kind="rescale", options={"rescale": 1.0}).combined(u, c, 5.0)
    torch.testing.assert_close(rescaled.std(1), c.std(1))
    s = dot(c, u) / dot(u, u)
    star = logsnr.Guidance(5.0, uncond={"y": Y0}, kind="zero-star").combined(u, c, 5.0)
    torch.testing.assert_close(star, s * u + 5 * (c - s * u))
    apg = logsnr.Guidance(5.0, uncond={"y": Y0}, kind="apg").combined(u, c, 5.0)
    torch.testing.assert_close(dot(apg - c, c), torch.zeros(2, 1, dtype=torch.float64), rtol=0, atol=1e-9)
    plain = logsnr.Guidance(5.0, uncond={"y": Y0}, kind="apg", options={"eta": 1.0}).combined(u, c, 5.0)
    torch.testing.assert_close(plain, u + 5 * (c - u))
    short = logsnr.Guidance(5.0, uncond={"y": Y0}, kind="apg", options={"eta": 1.0, "threshold": 0.5})
    torch.testing.assert_close((short.combined(u, c, 5.0) - c).norm(dim=1), torch.full((2,), 4 * 0.5).double())
    away = logsnr.Guidance(5.0, uncond={"y": Y0}, kind="perpendicular").combined(u, c, 5.0)
    torch.testing.assert_close(dot(away - c, c), torch.zeros(2, 1, dtype=torch.float64), rtol=0, atol=1e-9)


def test_another_model() -> None:
    """Autoguidance: a weaker model gives the other answer, with the same conditions."""
    weak = lambda x, t, y: 0.5 * network(x, t, y)  # noqa: E731
    den = conditional(guidance=logsnr.Guidance(2.0, model=weak))
    wanted = logsnr.Denoiser(lambda x, t: 1.5 * network(x, t, Y), SCH, "v")
    torch.testing.assert_close(
        logsnr.sample(den, X, steps=5, solver="dpmpp-2m"),
        logsnr.sample(wanted, X, steps=5, solver="dpmpp-2m"),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.parametrize("options", [{}, {"parallel": exact(window=2)}, {"solver": "dopri5", "rtol": 1e-9}])
def test_maps_of_x0(options: Any) -> None:
    """What is made of x0 is taken for the model's answer, of whatever head, guided or not."""
    seen: list[torch.Tensor] = []

    def clipped(x0: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        assert x0.shape == x.shape
        assert t.shape == x.shape[:1]
        return torch.tanh(x0)

    plain = conditional()
    wanted = logsnr.Denoiser(lambda x, t, y: torch.tanh(plain.x0(x, t)), SCH, "x0", conditions={"y": Y})
    settings = {"solver": "dpmpp-2m", "steps": 4, "t_end": 0.1} | options
    if "rtol" in settings:
        del settings["steps"]
    found = logsnr.sample(conditional(map_x0=clipped), X, **settings)
    settings.pop("parallel", None)
    torch.testing.assert_close(found, logsnr.sample(wanted, X, **settings), rtol=0, atol=1e-10)
    assert seen
    both = conditional(map_x0=clipped, guidance=logsnr.Guidance(3.0, uncond={"y": Y0}))
    torch.testing.assert_close(both.x0(X, 0.5), torch.tanh(guided(3.0).x0(X, 0.5)))


def test_callbacks_see_the_guided_x0() -> None:
    seen: list[torch.Tensor] = []
    logsnr.sample(guided(3.0), X, solver="ddim", steps=2, callback=lambda node, t, x, x0: seen.append(x0.clone()))
    torch.testing.assert_close(seen[0], guided(3.0).x0(X, 1.0), rtol=0, atol=1e-9)


def test_bad_input() -> None:
    short = logsnr.Denoiser(network, SCH, "v", conditions={"y": Y[:2]})
    for options in ({}, {"parallel": exact()}):
        with pytest.raises(ValueError, match=r"conditions\['y'\] has 2 rows for a batch of 3"):
            logsnr.sample(short, X, steps=2, **options)
    with pytest.raises(TypeError, match="conditions must be a dictionary"):
        logsnr.Denoiser(network, SCH, "v", conditions=[Y])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the other answer"):
        conditional(guidance=logsnr.Guidance(3.0))
    with pytest.raises(ValueError, match=r"uncond has \['label'\], which conditions= has not"):
        conditional(guidance=logsnr.Guidance(3.0, uncond={"label": Y}))
    with pytest.raises(TypeError, match=r"guidance must be a logsnr\.Guidance"):
        conditional(guidance=3.0)
    with pytest.raises(ValueError, match="scale has 2 numbers for a batch of 3"):
        logsnr.sample(guided(torch.tensor([1.0, 2.0])), X, steps=2)
    with pytest.raises(ValueError, match=r"uncond\['y'\] has 1 row for a batch of 3"):
        logsnr.sample(conditional(guidance=logsnr.Guidance(2.0, uncond={"y": Y[:1]})), X, steps=2)
    for wrong, message in (
        ({"kind": "cgf"}, "kind = 'cgf'"),
        ({"interval": (2, 1)}, "lo < hi"),
        ({"interval": 3}, "interval must be"),
        ({"scale": float("nan")}, "scale must be finite"),
        ({"scale": "x"}, "scale must be a number"),
        ({"scale": torch.ones(2, dtype=torch.complex64)}, "scale must be a number"),
        ({"options": {"eta": 1.0}}, "options of 'cfg'"),
        ({"options": [1.0]}, "options must be a dictionary"),
        ({"kind": "apg", "options": {"eta": "x"}}, "eta must be a finite number"),
        ({"kind": "apg", "options": {"threshold": -1.0}}, "threshold must be a finite number of at least 0"),
        ({"batched": "no"}, "batched must be True or False"),
        ({"kind": "cfg++", "scale": torch.ones(3)}, "one scale for all"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            logsnr.Guidance(**{"scale": 2.0, "uncond": {"y": Y0}} | wrong)  # type: ignore[arg-type]
    for wrong in (lambda lam: np.ones(7), lambda lam: "a"):
        with pytest.raises(ValueError, match="a function of lam must return a number for each of the 2"):
            logsnr.sample(guided(wrong), X, steps=2, solver="ddim")
    with pytest.raises(ValueError, match=r"map_x0 must return a tensor of the shape of x0, \(3, 5\), not \(1, 5\)"):
        logsnr.sample(conditional(map_x0=lambda x0, x, t: x0[:1]), X, steps=2)
    with pytest.raises(ValueError, match="does not determine x0"):
        logsnr.sample(
            logsnr.Denoiser(network, logsnr.FlowMatching(), "eps", conditions={"y": Y}, map_x0=lambda a, b, c: a),
            X,
            steps=2,
        )
