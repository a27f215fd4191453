"""Callbacks: one contract. They may change the state, and what cannot go on from there refuses at once."""

from collections.abc import Callable

import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
X = logsnr.randn((2, 3, 4), seed=1)
GRID = logsnr.grid(SCH, 5)
MASK = (torch.arange(4) < 2).float()


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.3 * torch.sin(x) + 0.4 * x


DEN = logsnr.Denoiser(net, SCH, "eps")


def edit(node: int, t: float, state: torch.Tensor) -> None:
    state.mul_(MASK)


def by_hand(den: logsnr.Denoiser, name: str) -> torch.Tensor:
    """The user's own loop of one-step calls, masked after each."""
    x = X
    for n in range(len(GRID) - 1):
        x = logsnr.sample(den, x, solver=name, grid=GRID[n : n + 2], seed=3) * MASK
    return x


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2s", "ddpm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("callback", [edit, lambda node, t, state: state * MASK], ids=["in place", "returned"])
def test_the_run_goes_on_from_the_changed_state(name: str, dtype: torch.dtype, callback: object) -> None:
    """The model sees the change at its next call, in half precision too."""
    den = logsnr.Denoiser(net, SCH, "eps", dtype=dtype)
    found = logsnr.solve(den, X, solver=name, grid=GRID, seed=3, callback=callback, trajectory=True)
    assert torch.equal(found.x, by_hand(den, name))
    assert torch.equal(found.trajectory[-1], found.x), "the trajectory is taken after the change"


def test_gradients_pass_through_a_changed_state() -> None:
    x = X.clone().requires_grad_()
    logsnr.sample(DEN, x, grid=GRID, callback=lambda node, t, state: state * MASK).sum().backward()
    assert x.grad[..., 2:].abs().max() == 0
    assert x.grad[..., :2].abs().min() > 0


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda z: z[:1], ValueError, r"callback returned \(1, 3, 4\), .* must have the shape \(2, 3, 4\)"),
        (lambda z: z.int(), ValueError, r"torch\.int32, on cpu at node 1; a new state must .* be floating"),
        (lambda z: z + 0j, ValueError, r"torch\.complex64, .* be floating, as torch\.float32"),
        (lambda z: {"latents": z}, TypeError, "the callback returned dict at node 1: a new state is a tensor"),
        (lambda z: z.numpy(), TypeError, "the callback returned ndarray at node 1"),
    ],
)
def test_what_is_no_state(made: Callable, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        logsnr.sample(DEN, X.float(), solver="ddim", steps=2, callback=lambda node, t, state: made(state))


@pytest.mark.parametrize(
    "options",
    [{"parallel": logsnr.Picard()}, {"solver": "dopri5"}, {"solver": "edm-churn", "steps": 18}],
    ids=["parallel", "adaptive", "churn"],
)
def test_what_cannot_go_on_from_there_refuses(options: dict) -> None:
    """Parallel and adaptive runs, and those that carry another state on."""
    given = {"steps": 5} | options if options.get("solver") != "dopri5" else options
    for callback in (edit, lambda node, t, state: state * MASK):
        with pytest.raises(ValueError, match="callback"):
            logsnr.sample(DEN, X, seed=0, callback=callback, **given)
    seen: list[int] = []
    logsnr.sample(DEN, X, seed=0, callback=lambda node, t, state: seen.append(node), **given)
    assert seen == sorted(set(seen))
    assert seen


def test_adaptive_runs_refuse_a_fourth_argument_at_once() -> None:
    """Before the model is called."""
    called: list[int] = []
    den = logsnr.Denoiser(lambda x, t: called.append(1), SCH)
    with pytest.raises(ValueError, match="adaptive runs have no x0 estimate"):
        logsnr.sample(den, X, solver="dopri5", callback=lambda node, t, state, x0: None)
    assert not called


@pytest.mark.parametrize("head", ["eps", "x0", "v", "velocity"])
def test_a_fourth_argument_gets_x0_at_no_evaluation(head: str) -> None:
    """E[x0] at the call that led to the node, as the denoiser says it; also in a parallel run."""
    data = logsnr.analysis.Gaussian(0.5, 0.3)
    den = data.denoiser(SCH, head)
    states, estimates = [X.double()], []

    def callback(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        states.append(state.clone())
        estimates.append(x0.clone())

    for parallel in (None, logsnr.Picard(tol=0.0)):
        del states[1:], estimates[:]
        found = logsnr.solve(den, X.double(), solver="ddim", grid=GRID, callback=callback, parallel=parallel)
        assert parallel or found.nfe == 5
        for state, t, x0 in zip(states, GRID, estimates, strict=False):
            torch.testing.assert_close(x0, den.x0(state, t))


def test_programs_without_nodes_cannot_be_watched() -> None:
    """A table whose calls do not say when a node is reached runs, but has no trajectory."""
    call = logsnr.Call(1.0, (), (0,), [[0.5, 0.5]])
    program = logsnr.Program("bare", 1, (1.0, 0.5), (call,))
    logsnr.sample(DEN, X, solver=program)
    with pytest.raises(ValueError, match=r"bare reaches 0 of the 1 nodes .*node="):
        logsnr.solve(DEN, X, solver=program, trajectory=True)
