"""scan and advance: a window of calls at once gives the bits that the sequential executor gives call by call."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from checks import BF16, F16, F32, F64, assert_same, dense_recurrence, random

import logsnr
from logsnr.kernels import Recurrence, Table, Updates, advance, recurrence, registers, scan
from logsnr.solvers.programs.lower import Lowered, lower

SCH = logsnr.VPLinear()
BACKENDS = ["torch", "cpu"]
SOLVERS = ["ddim", "dpmpp-2m", "deis-3", "deis-4", "dpmpp-3m", "dpmpp-2s", "dpmpp-3s", "heun", "rk4", "dopri5"]


def lowered(name: str, steps: int = 6, dtype: torch.dtype = F32, startup: str = "single-step") -> Lowered:
    program = logsnr.solver(name).program(SCH, logsnr.grid(SCH, steps), startup=startup)
    return lower(program, SCH, "eps", state=dtype, model=dtype)


def begin(rec: Recurrence, x: torch.Tensor) -> torch.Tensor:
    """The state in slot 0, and NaN where nothing has been written."""
    start = torch.full((rec.slots, *x.shape), math.nan, dtype=x.dtype)
    start[0] = x
    return start


def one_by_one(updates: Updates, x: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """What every call but the first sees, and the result, as the sequential executor computes them."""
    memory, seen = registers(updates, x), []
    for n, call in enumerate(updates.calls):
        seen.append(memory.slots[call.at].clone())
        if memory.step(n, outputs[n]) < 0:
            memory.update(n, [outputs[n]], [])
    return torch.stack([*seen[1:], memory.slots[0].clone()])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "startup"), [*((name, "single-step") for name in SOLVERS), ("deis-4", "ramp")])
def test_programs(name: str, startup: str, backend: str) -> None:
    """For given outputs of the model the nodes are, bit by bit, what the calls see when they run one by one."""
    low = lowered(name, startup=startup)
    rec = recurrence(low.updates.calls)
    x, outputs = random((2, 5, 229), F32, 1), random((len(rec), 2, 5, 229), F32, 2)
    nodes, _ = scan(begin(rec, x), [outputs], torch.zeros_like(outputs), rec, backend=backend)
    wanted = one_by_one(low.updates, x, outputs)
    assert_same(nodes, wanted)
    assert_same(advance(begin(rec, x), [outputs], rec, backend=backend)[0], wanted[-1])
    matrices = rec.matrices.copy()
    matrices[1, 0, 0] += 1e-3
    mutant = Recurrence(matrices, rec.at, 1)
    assert not torch.equal(scan(begin(rec, x), [outputs], nodes, mutant, backend=backend)[0], wanted)


@cache
def a_thousand() -> tuple[Recurrence, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The calls, the start, the outputs of the model, and what comes of them one by one."""
    low = lowered("dpmpp-2m", 1000, F64)
    x, outputs = random((2, 33), F64, 1), random((1000, 2, 33), F32, 2)
    return recurrence(low.updates.calls), x, outputs, one_by_one(low.updates, x, outputs.double())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thousand_nodes(backend: str) -> None:
    """A window of 1000 calls, whole or in parts that `advance` joins, gives the bits of 1000 calls."""
    rec, x, outputs, wanted = a_thousand()
    assert_same(scan(begin(rec, x), [outputs], torch.zeros_like(wanted), rec, backend=backend)[0], wanted)
    slots = begin(rec, x)
    for first, last in ((0, 1), (1, 400), (400, 1000)):
        part, given = torch.zeros_like(wanted[first:last]), [outputs[first:last]]
        assert_same(scan(slots, given, part, rec, first=first, backend=backend)[0], wanted[first:last])
        advance(slots, given, rec, first=first, out=slots, backend=backend)
    assert_same(slots[0], wanted[-1])


SHAPES = [(0,), (2,), (3, 0), (2, 1), (700, 7), (3, 1023), (2, 4097), (1, 5, 16)]
KINDS = [(F32, F32, F32), (F32, BF16, BF16), (F32, F16, F16), (F64, F64, F64), (F64, BF16, F16)]
# Every shape with fp32, and each of the others with the dtypes in turn.
AGREE = [(shape, kinds) for k, shape in enumerate(SHAPES) for kinds in (KINDS[0], KINDS[1 + k % 4])]


@pytest.mark.parametrize(("shape", "kinds"), AGREE)
def test_backends_agree(shape: tuple[int, ...], kinds: tuple[torch.dtype, ...]) -> None:
    """Compiled code and the specification return the same bits for any slots, outputs and noises, and any dtypes."""
    wide, narrow, node = kinds
    for window, slots, models, noises in ((0, 2, 1, 0), (1, 1, 1, 0), (4, 3, 2, 1), (3, 6, 1, 2)):
        rec = dense_recurrence(window + 1, slots, models, noises)
        start, nodes = random((slots, *shape), wide, 1), random((window, *shape), node, 2)
        outputs = [random((window, *shape), narrow, 3 + j) for j in range(models)]
        noise = [random((window, *shape), wide, 7 + j) for j in range(noises)]
        given = {"first": 1, "noises": noise}
        wanted = scan(start, outputs, nodes, rec, backend="torch", **given)
        slopes = random((window, *shape[:1]), wide, 9)
        followed = scan(start, outputs, nodes, rec, backend="torch", slopes=slopes, **given)
        for same, more in ((wanted, {}), (followed, {"slopes": slopes})):
            out = torch.full_like(nodes, math.nan)
            found = scan(start, outputs, nodes, rec, backend="cpu", out=out, **given, **more)
            assert found[0] is out
            assert found[1].shape == (window, *shape[:1])
            for a, b in zip(found, same, strict=True):
                assert_same(a, b)
        assert_same(*(advance(start, outputs, rec, backend=backend, **given) for backend in ("cpu", "torch")))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("wide", "node"), [(F32, F32), (F64, F64), (F32, BF16)])
def test_slopes(wide: torch.dtype, node: torch.dtype, backend: str) -> None:
    """Slopes change the outputs of a call by what the node that it sees has changed: the bits of a scan of these
    outputs without slopes, and for a model linear in what it sees, whatever the old nodes, of the sequential answer."""
    rec = dense_recurrence(5, 3, 2, 1)
    start, nodes, noise = random((3, 4, 70), wide, 1), random((5, 4, 70), node, 2), [random((5, 4, 70), wide, 3)]
    outputs, slopes = [random((5, 4, 70), wide, 4), random((5, 4, 70), wide, 5)], random((5, 4), wide, 6)
    given: dict[str, Any] = {"noises": noise, "backend": backend}
    new, change = scan(start, outputs, nodes, rec, slopes=slopes, **given)
    moved = torch.cat([torch.zeros_like(nodes[:1], dtype=wide), (new.to(wide) - nodes.to(wide))[:-1]])
    explicit = [x + slopes[..., None] * moved for x in outputs]
    for found, wanted in zip((new, change), scan(start, explicit, nodes, rec, **given), strict=True):
        assert_same(found, wanted)
    seen = torch.cat([start[rec.at[0]][None].to(node), nodes[:-1]]).to(wide)
    linear = [slopes[..., None] * seen] * 2
    new = scan(start, linear, nodes, rec, slopes=slopes, **given)[0]
    again = scan(start, [slopes[..., None] * torch.cat([seen[:1], new[:-1].to(wide)])] * 2, new, rec, **given)[0]
    if node is not BF16:
        torch.testing.assert_close(again, new, rtol=1e-4 if wide is F32 else 1e-12, atol=1e-4 if wide is F32 else 1e-12)
    assert not torch.allclose(scan(start, linear, nodes, rec, **given)[0].double(), new.double(), atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rounding(backend: str) -> None:
    """The nodes are within the sums' rounding errors, carried along the recurrence, of the exact ones; an fp32
    coefficient that is off by 1e-3 is not."""
    rec, u = dense_recurrence(8, 3, 2, 1), 2.0**-24
    start, nodes = random((3, 2, 500), F32, 1), random((8, 2, 500), F32, 2)
    outputs, noise = [random((8, 2, 500), F32, 3), random((8, 2, 500), F32, 4)], random((8, 2, 500), F32, 5)
    found = scan(start, outputs, nodes, rec, noises=[noise], backend=backend)[0].double().numpy()
    exact, error = start.double().numpy(), np.zeros(start.shape)
    failed = False
    for k, matrix in enumerate(rec.matrices):
        m, z = np.stack([o[k].double().numpy() for o in outputs]), noise[k : k + 1].double().numpy()
        terms = np.concatenate([m, exact, z])
        errors = np.concatenate([np.zeros_like(m), error, np.zeros_like(z)])
        size = np.tensordot(np.abs(matrix), np.abs(terms) + errors, 1)
        exact = np.tensordot(matrix, terms, 1)
        error = np.tensordot(np.abs(matrix), errors, 1) + (matrix.shape[1] + 2) * u * size  # coefs, products, sums
        at = rec.at[k + 1]
        assert (np.abs(found[k] - exact[at]) <= error[at]).all()
        failed |= bool((np.abs(found[k] - exact[at] - 1e-3 * terms[0]) > error[at]).any())
    assert failed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("node", [F64, F32, F16, BF16])
def test_change(node: torch.dtype, backend: str) -> None:
    """The change is the squared distance of the stored nodes, to 3 roundoffs of the dtype of start; it is 0 where
    every element is the same, and not where one differs in its last bit."""
    wide = F64 if node is F64 else F32
    rec = dense_recurrence(3, 2, zeros=0)
    start, outputs, nodes = (random((n, 2, 1500), d, n) for n, d in ((2, wide), (3, wide), (3, node)))
    new, change = scan(start, [outputs], nodes, rec, backend=backend)
    exact = [[math.fsum(((a - b) ** 2).tolist()) for a, b in zip(x, y, strict=True)]
             for x, y in zip(new.double(), nodes.double(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(change.numpy(), exact, rtol=3 * torch.finfo(wide).eps / 2, atol=0)
    assert not scan(start, [outputs], new, rec, backend=backend)[1].any()
    one = new.clone()
    bits = one.view(torch.int64 if node is F64 else torch.int32 if node is F32 else torch.int16)
    bits[1, 1, 1499] ^= 1
    assert scan(start, [outputs], one, rec, backend=backend)[1].nonzero().tolist() == [[1, 1]]


def test_tiny_changes_are_not_lost() -> None:
    """Changes whose squares fp32 would round to 0 are seen."""
    rec = Recurrence(np.array([[[1.0, 0.0]]]), np.zeros(2, int), 1)
    outputs = torch.full((1, 1, 20), 1e-40)
    for backend in BACKENDS:
        change = scan(outputs, [outputs], torch.zeros_like(outputs), rec, backend=backend)[1]
        assert change.item() == pytest.approx(20 * outputs[0, 0, 0].item() ** 2, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_changes(backend: str) -> None:
    """Squares of changes that fp32 does not hold are finite, and right."""
    rec = Recurrence(np.array([[[1.0, 0.0]]]), np.zeros(2, int), 1)
    outputs = torch.full((1, 1, 20), 1e25)
    change = scan(outputs, [outputs], torch.zeros_like(outputs), rec, backend=backend)[1]
    assert change.item() == pytest.approx(20 * outputs[0, 0, 0].item() ** 2, rel=1e-12)


@pytest.mark.parametrize("event", [(3, 1), (1, 7), (7,), (3, 7)])
@pytest.mark.parametrize("name", ["dpmpp-3m", "rk4"])
def test_coefficients_by_element(name: str, event: tuple[int, ...]) -> None:
    """A program whose coefficients vary gives the bits of its calls, by torch; compiled code refuses it."""
    low, factors = lowered(name), 1 + np.random.default_rng(0).random((6, *event))
    calls = [
        call._replace(table=Table(call.table.coefs.reshape(*call.table.shape, *[1] * len(event)) * factors[n % 6]))
        if n % 2 else call
        for n, call in enumerate(low.updates.calls)
    ]  # fmt: skip
    updates = Updates(tuple(calls), low.updates.dtypes, low.updates.cast)
    rec = recurrence(updates)
    assert recurrence(updates) is rec
    assert rec.by_element
    x, outputs = random((2, 3, 7), F32, 1), random((len(rec), 2, 3, 7), F32, 2)
    wanted = one_by_one(updates, x, outputs)
    assert_same(scan(begin(rec, x), [outputs], torch.zeros_like(outputs), rec)[0], wanted)
    assert_same(advance(begin(rec, x), [outputs], rec)[0], wanted[-1])
    with pytest.raises(RuntimeError, match="vary over the elements"):
        scan(begin(rec, x), [outputs], torch.zeros_like(outputs), rec, backend="cpu")
    with pytest.raises(ValueError, match="do not broadcast"):
        advance(begin(rec, x[:, :2, :5]), [outputs[:, :, :2, :5]], rec)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_finite(backend: str) -> None:
    """A NaN or an infinity reaches the later nodes of its element and their change, and nothing else."""
    low = lowered("dpmpp-2m", 8)
    rec = recurrence(low.updates.calls)
    start, outputs, nodes = begin(rec, random((3, 40), F32, 1)), random((8, 3, 40), F32, 2), random((8, 3, 40), F32, 3)
    clean = scan(start, [outputs], nodes, rec, backend=backend)
    outputs[3, 1, 7], outputs[5, 2, 9] = math.nan, math.inf
    new, change = scan(start, [outputs], nodes, rec, backend=backend)
    bad = torch.zeros_like(new, dtype=torch.bool)
    bad[3:, 1, 7] = bad[5:, 2, 9] = True
    assert torch.equal(~new.isfinite(), bad)
    assert torch.equal(new[~bad], clean[0][~bad])
    assert torch.equal(~change.isfinite(), bad.any(2))
    assert torch.equal(change[~bad.any(2)], clean[1][~bad.any(2)])
