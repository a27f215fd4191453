"""Orthogonal bases: their transforms, their files, and what does not go with them."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from in_bases import BASES, F64, MEAN, ORTHOGONAL, SCH, SHAPE, X, close, net, wiener
from scipy.fft import dctn

import logsnr
from logsnr import analysis
from logsnr.solvers import DCT, Basis, Call, NoiseKey, Principal, Program


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
NOISY = Call(1.0, (), (0,), np.array([[1.0, 0.5, 0.1]]), noises=(NoiseKey(1.0, 0.5),), node=1)


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
