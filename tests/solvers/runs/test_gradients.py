"""Gradients through runs: to weights, conditions and guidance scales, and with calls that are made again."""

import weakref
from typing import Any

import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 32), torch.nn.Linear(32, 6)
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(torch.tanh(self.first(x) + t[:, None]))) + y[:, None]


NET = Network()
X = logsnr.start(SCH, (3, 6), seed=0)
Y = torch.tensor([0.5, -1.0, 0.2])


def guided(w: Any, y: torch.Tensor = Y, net: Any = NET, **options: Any) -> logsnr.Denoiser:
    guidance = logsnr.Guidance(w, uncond={"y": torch.zeros(3, dtype=y.dtype)}, **options)
    return logsnr.Denoiser(net, SCH, "v", conditions={"y": y}, guidance=guidance)


def gradients(**options: Any) -> tuple[list[torch.Tensor], int]:
    """The end and its gradients to everything, and how many bytes were saved for them outside of what is made again."""
    x, y, w = (z.clone().requires_grad_() for z in (X, Y, torch.tensor(1.5)))
    held = 0

    def pack(z: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += z.numel() * z.element_size()
        return z

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda z: z):
        end = logsnr.sample(guided(w, y, interval=(-3.0, 2.0)), x, seed=3, grad=True, **options)
    wanted = [x, y, w, NET.first.weight]
    return [end, *torch.autograd.grad(end.square().sum(), wanted)], held


@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "sde-dpmpp-2s"])
def test_calls_that_are_made_again(solver: str) -> None:
    """The same bits, dropout included, and less memory the larger the groups are."""
    whole, most = gradients(solver=solver, steps=6)
    assert all(part.isfinite().all() and part.any() for part in whole)
    last = most / 8
    for size in (1, 2, 100):
        found, held = gradients(solver=solver, steps=6, checkpoint=size)
        assert all(map(torch.equal, found, whole))
        assert held < last
        last = held


def test_those_who_watch_and_noise_functions_are_asked_once() -> None:
    runs = []
    for size in (None, 4):
        asked, seen = list[Any](), list[torch.Tensor]()

        def noise(key: Any, like: torch.Tensor, asked: list[Any] = asked) -> torch.Tensor:
            asked.append(key)
            return torch.full_like(like, 0.1 * len(asked))

        def edit(
            node: int, t: float, state: torch.Tensor, x0: torch.Tensor, /, *, seen: list[torch.Tensor] = seen
        ) -> torch.Tensor:
            seen.append(x0.detach().clone())
            return 0.9 * state

        x = X.clone().requires_grad_()
        torch.manual_seed(0)
        options: dict[str, Any] = {"noise": noise, "callback": edit, "trajectory": True, "checkpoint": size}
        run = logsnr.solve(guided(2.0), x, solver="sde-dpmpp-2s", steps=3, grad=True, **options)
        (slope,) = torch.autograd.grad(run.x.square().sum(), x)
        assert run.trajectory is not None
        runs.append([run.x, slope, run.trajectory, *seen])
        assert len(asked) == 6
        assert len(seen) == 3
    assert all(map(torch.equal, *runs))


class Counted(Network):
    """How often it is asked."""

    calls = 0

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x, t, y)


@pytest.mark.parametrize("to_start", [True, False])
def test_guides_that_take_gradients_are_asked_no_more_often(to_start: bool) -> None:
    """Each call is made once on the way, and once again for its gradients: with the bits and, for groups, less memory
    than runs that keep all. Second derivatives, dropout and noise included."""
    net = Counted()
    found: dict[int | None, list[torch.Tensor]] = {}
    held: dict[int | None, int] = {}
    target = torch.linspace(-1, 1, 6)
    guide = logsnr.control.FreeDoM(lambda x0: (x0 - target).square().sum(1), 0.3)
    for size in (None, 1, 3):
        torch.manual_seed(0)
        net.calls, alive = 0, list[Any]()
        x, y = (X.clone().requires_grad_(to_start), Y.clone().requires_grad_())
        den = logsnr.Denoiser(net, SCH, "v", conditions={"y": y}, map_x0=guide)

        def pack(z: torch.Tensor, alive: list[Any] = alive) -> torch.Tensor:
            kept = z.detach()
            alive.append(weakref.ref(kept))
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda z: z):
            run = logsnr.solve(den, x, solver="sde-dpmpp-2m", steps=6, seed=3, grad=True, checkpoint=size)
        assert net.calls == run.nfe == 6
        held[size] = sum(ref() is not None for ref in alive)
        wanted = [y, net.first.weight] + [x] * to_start
        slopes = torch.autograd.grad(run.x.square().sum(), wanted, retain_graph=True)
        assert net.calls == (6 if size is None else 12)
        again = torch.autograd.grad(run.x.square().sum(), wanted)
        assert all(map(torch.equal, slopes, again))
        found[size] = [run.x, *slopes]
    assert all(map(torch.equal, found[1], found[None]))
    assert all(map(torch.equal, found[3], found[None]))
    assert held[1] <= held[None] / 4


def test_second_derivatives_of_calls_that_are_made_again() -> None:
    guide = logsnr.control.FreeDoM(lambda x0: (x0 - 1).square().sum(1), 0.2)
    w = torch.linspace(-1, 1, 36).reshape(6, 6).requires_grad_()
    den = logsnr.Denoiser(lambda x, t: torch.tanh(x @ w) * t[:, None], SCH, "v", map_x0=guide)
    x, found = X.clone().requires_grad_(), []
    for size in (None, 2):
        end = logsnr.sample(den, x, solver="dpmpp-2m", steps=4, grad=True, checkpoint=size)
        (slope,) = torch.autograd.grad(end.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, w]))
    assert all(map(torch.equal, *found))


def test_a_model_that_is_another_one_when_it_is_asked_again() -> None:
    asked = [0]

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked[0] += 1
        return x.detach() if asked[0] > 2 else torch.sin(x)

    x = X.clone().requires_grad_()
    end = logsnr.sample(logsnr.Denoiser(net, SCH, "v"), x, solver="ddim", steps=2, grad=True, checkpoint=1)
    with pytest.raises(RuntimeError, match="the model did something else when it was called again"):
        end.sum().backward()


@pytest.mark.parametrize("kind", ["cfg", "rescale", "apg", "zero-star"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_the_scale_of_guidance(kind: str, shape: tuple[int, ...]) -> None:
    """Against a difference, also where the scale is 1 and one answer would do; the number is that without gradients."""

    def net(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x / (1 + x * x) + y[:, None] * torch.cos(x + t[:, None])

    x = X.double()
    for value in (1.0, 3.0):
        w = torch.full(shape, value, dtype=torch.float64, requires_grad=True)
        end = logsnr.sample(guided(w, Y.double(), net, kind=kind), x, steps=4, grad=True)
        (slope,) = torch.autograd.grad(end.sum(), w)
        plus, minus = (
            logsnr.sample(guided(value + h, Y.double(), net, kind=kind), x, steps=4).sum() for h in (1e-5, -1e-5)
        )
        torch.testing.assert_close(slope.sum(), (plus - minus) / 2e-5, rtol=1e-6, atol=1e-7)
    same = logsnr.sample(guided(3.0, Y.double(), net, kind=kind), x, steps=4)
    torch.testing.assert_close(end.detach(), same, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logsnr.sample(guided(w, Y.double(), net, kind=kind), x, steps=4), same)


def test_a_scale_that_is_trained_is_read_at_every_run() -> None:
    """Also in parallel runs, and outside of the interval it does not count."""
    NET.eval()
    w = torch.tensor(1.0, requires_grad=True)
    den = guided(w, interval=(-3.0, 2.0))
    with torch.no_grad():
        w.fill_(4.0)
    wanted = logsnr.solve(guided(4.0, interval=(-3.0, 2.0)), X, steps=5)
    found = logsnr.solve(den, X, steps=5)
    torch.testing.assert_close(found.x, wanted.x)
    assert found.nfe == wanted.nfe
    parallel = logsnr.sample(den, X, steps=5, parallel=logsnr.Picard(tol=0.0))
    torch.testing.assert_close(parallel, wanted.x)
    NET.train()


def test_bad_input() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"checkpoint": 2}, "checkpoint = 2 is for runs with grad = True"),
        ({"checkpoint": 0, "grad": True}, "checkpoint = 0 must be an integer of at least 1"),
        (
            {"checkpoint": 2, "grad": True, "steps": None, "solver": "dopri5", "rtol": 1e-2},
            "checkpoint = 2 does not go",
        ),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            logsnr.sample(guided(2.0), X, **{"steps": 3} | options)
    with pytest.raises(ValueError, match="'cfg\\+\\+' takes one scale for all samples, a number"):
        guided(w, kind="cfg++")

    def in_place(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)

    with pytest.raises(ValueError, match="call 1, t = 1: the model has changed x in place"):
        logsnr.sample(logsnr.Denoiser(in_place, SCH, conditions={"y": Y}), X, steps=2, grad=True, checkpoint=1)
    bad = logsnr.Denoiser(lambda x, t: x * torch.nan, SCH)
    with pytest.raises(logsnr.NonFiniteError, match="call 1 of 4"):
        logsnr.sample(bad, X, steps=4, grad=True, checkpoint=2)
