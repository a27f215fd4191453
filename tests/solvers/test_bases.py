"""Orthogonal bases, and runs of programs in them: the same as transforming states by hand, whatever a run does."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn

import logsnr
from logsnr import analysis
from logsnr.solvers import DCT, Basis, Call, NoiseKey, Principal, Program

SHAPE = (2, 4, 4)
F64 = torch.float64
SCH = logsnr.VPLinear()
ORTHOGONAL = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0]
BASES = {"dct": DCT(), "dct of one axis": DCT(1), "pca": Principal(ORTHOGONAL, SHAPE)}
VARIANCE = np.geomspace(0.01, 9.0, 32).reshape(SHAPE)
MEAN = np.linspace(-1, 1, 32).reshape(SHAPE)
PLANS = {name: logsnr.Wiener(MEAN, VARIANCE, basis=basis) for name, basis in BASES.items()}
X = torch.randn(4, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(0))
Y = torch.linspace(-1, 1, 4, dtype=F64)


def net(x: torch.Tensor, t: torch.Tensor, y: Any = None) -> torch.Tensor:
    """Not linear, and the same bits for a sample in every batch."""
    return torch.tanh(1.3 * x + (0 if y is None else y[:, None, None, None]))


def wiener(name: str, order: int = 2) -> logsnr.Solver:
    return logsnr.solver(f"wiener-{order}", gaussian=PLANS[name])


def by_hand(name: str, ask: Callable[..., torch.Tensor], x: torch.Tensor, **options: Any) -> torch.Tensor:
    """The pixel gauge of the same numbers, on states that are transformed outside."""
    basis = BASES[name]
    den = logsnr.Denoiser(lambda z, t: basis.forward(ask(basis.back(z), t)), SCH, "x0")
    pixels = logsnr.solver("wiener-2", gaussian=logsnr.Wiener(MEAN, VARIANCE))
    return basis.back(logsnr.sample(den, basis.forward(x), solver=pixels, **options))


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 2e-6), (F64, 2e-15)])
def test_transforms(name: str, dtype: torch.dtype, tol: float) -> None:
    """Orthogonal, inverse to each other, the DCT that of scipy; each sample has its bits in every batch."""
    basis, x = BASES[name], X.to(dtype)
    found = basis.forward(x)
    close(basis.back(found), x, 4 * tol)
    if name == "pca":
        wanted = (x.double().reshape(4, 32) @ torch.from_numpy(ORTHOGONAL.T)).reshape(x.shape)
    else:
        axes = (-2, -1) if name == "dct" else (-1,)
        wanted = torch.from_numpy(dctn(x.double().numpy(), axes=axes, norm="ortho"))
    close(found.double(), wanted, 4 * tol)
    for rows in (slice(0, 1), slice(1, 4), slice(0, 0)):
        assert torch.equal(basis.forward(x[rows]), found[rows])
        assert torch.equal(basis.back(found[rows]), basis.back(found)[rows])


def test_bases_are_values() -> None:
    for basis in BASES.values():
        again = pickle.loads(pickle.dumps(basis))
        assert (again, hash(again)) == (basis, hash(basis))
    assert len({*BASES.values(), DCT(2), Principal(ORTHOGONAL, SHAPE)}) == 3
    assert Principal(-ORTHOGONAL, SHAPE) != BASES["pca"]


@pytest.mark.parametrize("name", BASES)
def test_runs_are_those_of_transformed_states(name: str) -> None:
    """In fp64 and fp32; at once, alone and in Picard's windows to the last bit; what is seen are samples."""
    method, den = wiener(name), logsnr.Denoiser(net, SCH, "x0")
    for dtype, tol in ((F64, 1e-13), (torch.float32, 1e-5)):
        x = X.to(dtype)
        found = logsnr.solve(den, x, solver=method, steps=5, trajectory=True)
        close(found.x, by_hand(name, net, x, steps=5), tol)
        assert found.x.dtype is dtype
        assert found.program is not None
        assert found.program.basis == BASES[name]
        assert found.trajectory is not None
        assert torch.equal(found.trajectory[0], x)
        assert torch.equal(found.trajectory[-1], found.x)
        assert torch.equal(logsnr.sample(den, x[1:2], solver=method, steps=5), found.x[1:2])
        swept = logsnr.solve(den, x, solver=method, steps=5, parallel=logsnr.Picard(tol=0), trajectory=True)
        assert torch.equal(swept.x, found.x)
        assert torch.equal(swept.trajectory, found.trajectory)
    starts = torch.tensor([1.0, 0.5, 0.5, 0.8], dtype=F64)
    each = logsnr.solve(den, X, solver=method, steps=4, t_start=starts)
    assert torch.equal(each.x[1:2], logsnr.sample(den, X[1:2], solver=method, steps=4, t_start=0.5))
    whole = logsnr.solve(den, X, solver=method, steps=4, t_start=starts, parallel=logsnr.Picard(tol=0))
    assert torch.equal(whole.x, each.x)


@pytest.mark.parametrize("kind", ["cfg", "rescale", "apg"])
@pytest.mark.parametrize("name", ["dct", "pca"])
def test_guidance_and_conditions_are_of_samples(name: str, kind: str) -> None:
    """Norms, means and rows are those of samples, and so are maps of x0."""
    guidance = logsnr.Guidance(3.0, uncond={"y": torch.zeros(4, dtype=F64)}, kind=kind)
    den = logsnr.Denoiser(net, SCH, "x0", conditions={"y": Y}, guidance=guidance)
    found = logsnr.solve(den, X, solver=wiener(name), steps=4)
    assert found.nfe == 8
    close(found.x, by_hand(name, den.x0, X, steps=4), 1e-12)
    swept = logsnr.sample(den, X, solver=wiener(name), steps=4, parallel=logsnr.Picard(tol=0))
    close(swept, found.x, 1e-12)
    clipped = logsnr.Denoiser(net, SCH, "x0", map_x0=lambda x0, x, t: x0.clamp(-0.3, 0.3))
    close(logsnr.sample(clipped, X, solver=wiener(name), steps=4), by_hand(name, clipped.x0, X, steps=4), 1e-12)


def test_those_who_watch_see_samples() -> None:
    """Callbacks see and change samples, and stop the run; their x0 is the model's answer."""
    den, method = logsnr.Denoiser(net, SCH, "x0"), wiener("pca")
    states = logsnr.solve(den, X, solver=method, steps=4, trajectory=True).trajectory
    assert states is not None

    def look(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        assert torch.equal(state, states[node])
        close(x0, net(states[node - 1], torch.ones(())), 1e-12)

    def halve(node: int, t: float, state: torch.Tensor) -> None:
        if node == 2:
            state.mul_(0.5)
            raise logsnr.StopSampling

    logsnr.solve(den, X, solver=method, steps=4, callback=look)
    half = logsnr.solve(den, X, solver=method, steps=4, callback=halve)
    close(half.x, states[2] / 2)
    new = logsnr.sample(den, X, solver=method, steps=4, callback=lambda n, t, state: 0.5 * state if n == 4 else None)
    close(new, states[4] / 2)
    with pytest.raises(ValueError, match="parallel and adaptive runs cannot take over"):
        logsnr.solve(den, X, solver=method, steps=4, callback=halve, parallel=logsnr.Picard())
    with pytest.raises(ValueError, match=r"the callback returned \(1, 2, 4, 4\)"):
        logsnr.solve(den, X, solver=method, steps=4, callback=lambda n, t, state: state[:1])


def test_gradients_and_transforms() -> None:
    """To x and to weights, with checkpoints too; under vmap."""
    w, x = torch.tensor(1.3, dtype=F64, requires_grad=True), X.clone().requires_grad_()
    den = logsnr.Denoiser(lambda x, t: torch.tanh(w * x), SCH, "x0")
    grads = []
    for checkpoint in (None, 2):
        end = logsnr.solve(den, x, solver=wiener("dct"), steps=3, grad=True, checkpoint=checkpoint).x
        grads.append(torch.autograd.grad(end.square().sum(), (w, x)))
    for one, other in zip(*grads, strict=True):
        close(one, other)
    h = 1e-5
    ends = [
        logsnr.sample(logsnr.Denoiser(lambda x, t, v=v: torch.tanh(v * x), SCH, "x0"), X, solver=wiener("dct"), steps=3)
        for v in (1.3 + h, 1.3 - h)
    ]
    slope = (ends[0].square().sum() - ends[1].square().sum()) / (2 * h)
    assert float(grads[0][0]) == pytest.approx(float(slope), rel=1e-7)
    plain = logsnr.Denoiser(net, SCH, "x0")
    each = torch.func.vmap(lambda z: logsnr.sample(plain, z[None], solver=wiener("dct"), steps=3)[0])(X)
    close(each, logsnr.sample(plain, X, solver=wiener("dct"), steps=3))


@pytest.mark.parametrize("x", [X.float(), X.half()], ids=["fp32", "fp16"])
def test_a_model_in_half_precision_sees_samples_in_it(x: torch.Tensor) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert (x.dtype, t.dtype) == (torch.bfloat16, torch.float32)
            return self.weight * net(x, t)

    found = logsnr.sample(logsnr.Denoiser(Net(), SCH, "x0"), x, solver=wiener("dct"), steps=3)
    wanted = logsnr.sample(logsnr.Denoiser(net, SCH, "x0"), x.double(), solver=wiener("dct"), steps=3)
    assert found.dtype is x.dtype
    close(found.double(), wanted, 0.05)


@pytest.mark.parametrize("name", BASES)
def test_json_keeps_the_basis(name: str) -> None:
    program = wiener(name).program(SCH, logsnr.grid(SCH, 3))
    again = Program.from_json(program.to_json())
    assert (again, hash(again), again.basis) == (program, hash(program), BASES[name])
    assert pickle.loads(pickle.dumps(program)) == program
    assert f"in the basis {BASES[name]}: x, x0 and eps are coordinates" in str(program)
    assert "basis" not in json.loads(logsnr.solver("ddim").program(SCH, logsnr.grid(SCH, 3)).to_json())
    den = logsnr.Denoiser(net, SCH, "x0")
    assert torch.equal(logsnr.sample(den, X, solver=again), logsnr.sample(den, X, solver=wiener(name), steps=3))
    pixels = Program(program.name, program.order, program.grid, program.calls, program.notes)
    assert pixels != program
    matrices = [torch.from_numpy(call.matrix.copy()) for call in again]
    end = again.interpret(BASES[name].forward(X), lambda z, t: pair(BASES[name], z, t), matrices=matrices)
    close(BASES[name].back(end), logsnr.sample(den, X, solver=again))


def pair(basis: Basis, z: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    x0 = basis.forward(net(basis.back(z), torch.tensor(t)))
    return x0, (z - SCH.alpha(t) * x0) / SCH.sigma(t)


MATRIX = np.eye(2).tolist()


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        ("dct", "basis must be a dct with axes, or a pca"),
        ([], "basis must be a dct with axes"),
        ({"kind": "dct"}, "basis must be a dct with axes"),
        ({"kind": ["dct"], "axes": 1}, "basis must be a dct with axes"),
        ({"kind": "dct", "axes": 3}, "axes must be 1 or 2"),
        ({"kind": "dct", "axes": True}, "axes must be 1 or 2"),
        ({"kind": "dct", "axes": 2, "more": 1}, "basis must be a dct with axes"),
        ({"kind": "pca", "event": [2], "matrix": "x"}, "matrix must be a list of rows"),
        ({"kind": "pca", "event": [2], "matrix": [[1, 0], [0]]}, "matrix must be a list of rows"),
        ({"kind": "pca", "event": [2], "matrix": [[1, "0"], [0, 1]]}, "matrix must be of numbers"),
        ({"kind": "pca", "event": [2], "matrix": [[1, True], [0, 1]]}, "matrix must be of numbers"),
        ({"kind": "pca", "event": [2], "matrix": [[10**400, 0], [0, 1]]}, "matrix must be of numbers"),
        ({"kind": "pca", "event": [2], "matrix": [[1e308, 0], [0, 1e308]]}, "matrix must be orthogonal to 1e-10"),
        ({"kind": "pca", "event": [2], "matrix": [[1, 1e-9], [0, 1]]}, "matrix must be orthogonal to 1e-10"),
        ({"kind": "pca", "event": [3], "matrix": MATRIX}, r"matrix must be \(3, 3\)"),
        ({"kind": "pca", "event": 2, "matrix": MATRIX}, "event must be the shape"),
        ({"kind": "pca", "event": [2.0], "matrix": MATRIX}, "event must be the shape"),
        ({"kind": "pca", "event": [1 << 40], "matrix": MATRIX}, "a matrix for 1099511627776 elements is too large"),
    ],
)
def test_bad_json(basis: Any, message: str) -> None:
    data = json.loads(logsnr.solver("ddim").program(SCH, logsnr.grid(SCH, 3)).to_json()) | {"basis": basis}
    with pytest.raises(ValueError, match=f"this is not a program: {message}"):
        Program.from_json(json.dumps(data))


def planned(name: str = "dct") -> Program:
    return wiener(name).program(SCH, logsnr.grid(SCH, 3))


DEN = logsnr.Denoiser(net, SCH, "x0")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: logsnr.Stepper(planned(), SCH, "x0", X), "is in the basis dct, where states are coordinates"),
        (lambda: planned().to_json(DEN), "a plan has no transform"),
        (lambda: analysis.transfer(planned(), SCH), "where states are coordinates"),
        (lambda: analysis.rounding(planned(), SCH), "where states are coordinates"),
        (lambda: analysis.stability(wiener("dct")), "where states are coordinates"),
        (lambda: analysis.explain(wiener("pca"), SCH, logsnr.grid(SCH, 3)), "where states are coordinates"),
        (lambda: analysis.sampler_moments(planned(), analysis.Gaussian(0, 1), SCH), "where states are coordinates"),
        (lambda: analysis.local_order(wiener("dct"), analysis.Gaussian(MEAN, 1.0), SCH), "states are coordinates"),
        (lambda: logsnr.log_likelihood(DEN, X, solver=wiener("dct")), "is in a basis of samples"),
        (lambda: logsnr.sample(DEN, X.to(torch.complex128), solver=planned()), "of real states; x is complex"),
        (lambda: logsnr.sample(DEN, X, solver=wiener("dct"), rtol=1e-3), "rtol and atol are for adaptive solvers"),
        (lambda: logsnr.sample(DEN, X[:, 0, 0], solver=planned()), "needs samples of as many, not of shape"),
        (lambda: logsnr.sample(DEN, X[:, :1], solver=planned("pca")), r"samples of shape \(2, 4, 4\), not \(1, 4, 4\)"),
        (lambda: logsnr.sample(logsnr.Denoiser(lambda x, t: x[:1], SCH), X, solver=planned()), "call 1 of 3, t = 1: "),
        (
            lambda: logsnr.sample(logsnr.Denoiser(lambda x, t: x.mul_(2), SCH), X, solver=planned()),
            "changed x in place",
        ),
        (lambda: Program("p", 1, (1.0, 0.5), planned().calls[:1], basis="dct"), "basis must be a Basis or None"),  # type: ignore[arg-type]
        (lambda: Program("p", 1, (1.0, 0.5), (NOISY,), basis=DCT()), "its calls must not add noise"),
    ],
)
def test_what_does_not_go_with_a_basis(use: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        use()


NOISY = Call(1.0, (), (0,), np.array([[1.0, 0.5, 0.1]]), noises=(NoiseKey(1.0, 0.5),), node=1)
