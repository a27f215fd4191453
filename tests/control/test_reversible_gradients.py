"""Gradients of reversible runs from their ends alone, against those of runs that record all."""

from typing import Any

import pytest
import torch

import logsnr
from logsnr.control import FreeDoM, Reversible

FLOW, VP = logsnr.FlowMatching(), logsnr.VPLinear()
SOLVER = Reversible()


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = (
            torch.nn.Parameter(0.3 * torch.randn(n, m, generator=generator, dtype=torch.float64))
            for n, m in ((5, 16), (16, 5))
        )
        self.idle = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.calls = 0

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.tanh(x @ self.first + t[:, None]) @ self.last + y[:, None] * torch.cos(x)


NET = Network()


def setting(sch: logsnr.Schedule = FLOW, head: str = "velocity", **options: Any) -> tuple[Any, torch.Tensor, list[Any]]:
    """A guided denoiser, a start, and all that gradients go to: one of them is made of another tensor."""
    leaf = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64, requires_grad=True)
    w = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    x = logsnr.start(sch, (3, 5), seed=1, dtype=torch.float64).requires_grad_()
    guidance = logsnr.Guidance(w, uncond={"y": torch.zeros(3, dtype=torch.float64)})
    den = logsnr.Denoiser(NET, sch, head, conditions={"y": 2 * leaf}, guidance=guidance, **options)
    return den, x, [x, leaf, w, NET.first, NET.last]


def slopes(end: torch.Tensor, wanted: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad((end * torch.arange(end.numel()).reshape(end.shape)).sum(), wanted, retain_graph=True)


@pytest.mark.parametrize(
    ("sch", "head", "layout"),
    [
        (FLOW, "velocity", {"steps": 1}),
        (FLOW, "velocity", {"steps": 12}),
        (VP, "eps", {"steps": 7, "grid": "karras"}),
        (VP, "x0", {"lams": [-3.0, -1.0, 0.0, 0.5, 2.0]}),
    ],
)
def test_they_are_those_of_a_run_that_records_all(sch: logsnr.Schedule, head: str, layout: dict[str, Any]) -> None:
    """To weights, conditions, a guidance scale and the start, and the end is the same."""
    den, x, wanted = setting(sch, head)
    plain = logsnr.sample(den, x, solver=SOLVER, grad=True, **layout)
    found = SOLVER.sample(den, x, grad=True, **layout)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    for one, other in zip(slopes(found, wanted), slopes(plain, wanted), strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert not SOLVER.sample(den, x.detach(), **layout).requires_grad


def test_memory_does_not_grow_with_the_steps() -> None:
    """Three tensors are saved, and each call is made twice."""
    counts = []
    for steps in (2, 9, 30):
        saved = [0]

        def pack(z: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved[0] += 1
            return z

        den, x, wanted = setting()
        NET.calls = 0
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda z: z):
            end = SOLVER.sample(den, x, grad=True, steps=steps)
        once = NET.calls
        counts.append(saved[0])
        slopes(end, wanted)
        assert NET.calls == 2 * once
    assert counts == [3, 3, 3]


def test_guides_closures_and_complex_states() -> None:
    guide = FreeDoM(lambda x0: (x0 - 0.5).square().sum(1), 0.1)
    den, x, wanted = setting(map_x0=guide)
    options: dict[str, Any] = {"steps": 4, "grad": True, "t_start": 0.95}
    plain, found = logsnr.sample(den, x, solver=SOLVER, **options), SOLVER.sample(den, x, **options)
    for one, other in zip(slopes(found, wanted), slopes(plain, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)

    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    caught = logsnr.Denoiser(lambda z, t: c * z / (1 + z.abs() ** 2), VP, "v")
    z = logsnr.start(VP, (2, 3), seed=0, dtype=torch.complex128).requires_grad_()
    ends = (
        logsnr.sample(caught, z, solver=SOLVER, steps=6, grad=True),
        SOLVER.sample(caught, z, steps=6, grad=True, parameters=[c]),
    )
    both = [torch.autograd.grad(end.abs().square().sum(), [z, c]) for end in ends]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_single_precision() -> None:
    """A few roundings are left, at many steps too."""
    den = logsnr.Denoiser(lambda x, t: torch.sin(x), VP, "v")
    x = logsnr.start(VP, (4, 6), seed=2).requires_grad_()
    ends = logsnr.sample(den, x, solver=SOLVER, steps=40, grad=True), SOLVER.sample(den, x, steps=40, grad=True)
    plain, found = (torch.autograd.grad(end.square().sum(), x)[0] for end in ends)
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)
    half = SOLVER.sample(den, x.half(), steps=4, grad=True)
    assert half.dtype is torch.float16
    assert half.requires_grad


def test_what_is_refused() -> None:
    den, x, _ = setting()
    dropped = logsnr.Denoiser(lambda x, t: torch.nn.functional.dropout(x, 0.5), VP, "v")
    torch.manual_seed(0)
    with pytest.raises(RuntimeError, match="the way back has missed the start"):
        SOLVER.sample(dropped, x, grad=True, steps=6).sum().backward()
    with pytest.raises(ValueError, match=r"options that lay out the run, not \['parallel', 'seed'\]"):
        SOLVER.sample(den, x, grad=True, steps=6, seed=0, parallel=logsnr.Picard())
    with pytest.raises(ValueError, match="grad = 1 must be True or False"):
        SOLVER.sample(den, x, grad=1, steps=6)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
        SOLVER.sample(NET, x, grad=True, steps=6)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(SOLVER.sample(den, x, grad=True, steps=2).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
