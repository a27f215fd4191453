"""Programs as linear recurrences: their slots, Picard iteration with them, and which calls of scan are refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.kernels import Recurrence, Table, Update, advance, recurrence, scan
from logsnr.kernels.recurrence import ALWAYS, NEVER, SOMETIMES
from logsnr.solvers.programs.lower import Lowered, lower
from logsnr.solvers.runs.run import run

SCH = logsnr.VPLinear()
F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16


def lowered(name: str, steps: int, startup: str = "single-step") -> Lowered:
    program = logsnr.solver(name).program(SCH, logsnr.grid(SCH, steps), startup=startup)
    return lower(program, SCH, "eps", state=F32, model=F32)


def begin(rec: Recurrence, x: torch.Tensor) -> torch.Tensor:
    """The state in slot 0, and NaN where nothing has been written."""
    start = torch.full((rec.slots, *x.shape), math.nan, dtype=x.dtype)
    start[0] = x
    return start


@pytest.mark.parametrize(("name", "slots"), [("ddim", 1), ("dpmpp-2m", 2), ("deis-4", 4), ("dpmpp-3s", 3), ("rk4", 5)])
def test_slots(name: str, slots: int) -> None:
    """There are as many slots as values are alive at a time, and before the first call the state is slot 0."""
    rec = recurrence(lowered(name, 12, "ramp").updates.calls)
    assert rec.slots == slots
    assert rec.at[0] == rec.at[-1] == 0


def test_history_is_a_shift() -> None:
    """The ring of a multistep method becomes a shift, so that all calls use the same coefficients."""
    low = lowered("deis-4", 12, "ramp")
    rec = recurrence(low.updates.calls)
    assert low.program.slots == 4
    assert rec.seen == (0,)
    for n in range(4, 11):  # columns: output, state, history from new to old
        np.testing.assert_array_equal(rec.matrices[n, 2:, :], [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]])
    pattern = rec.pattern(F32)
    assert pattern[0][:2] == (ALWAYS, ALWAYS)
    assert pattern[0][2:] == (SOMETIMES,) * 3
    assert pattern[3] == (NEVER, NEVER, NEVER, SOMETIMES, NEVER)


def test_pattern_knows_the_dtype_of_the_sums() -> None:
    """A coefficient that fp32 rounds to 0 is not used by fp32 sums."""
    rec = Recurrence(np.array([[[1.0, 1e-60]]]), np.zeros(2, int), 1)
    assert rec.pattern(F64) == ((ALWAYS, ALWAYS),)
    assert rec.pattern(F32) == ((ALWAYS, NEVER),)
    start, outputs = torch.full((1, 1, 20), math.inf), torch.ones(1, 1, 20)
    for backend in ("torch", "cpu"):
        assert torch.equal(advance(start, [outputs], rec, backend=backend), outputs)


def update(
    models: int, reads: tuple[int, ...], writes: tuple[int, ...], coefs: np.ndarray, noises: tuple[Any, ...] = ()
) -> Update:
    return Update(0, models, reads, noises, writes, (torch.float64,) * len(writes), Table(coefs), models)


def test_several_outputs_and_noises() -> None:
    """Outputs come first, then slots, then noises; a call with fewer noises leaves the others out."""
    calls = [
        update(2, (0,), (0, 1), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])),
        update(2, (1, 0), (0,), np.array([[7.0, 8.0, 9.0, 10.0, 11.0]]), noises=((0, 0),)),
    ]
    rec = recurrence(calls)
    assert (rec.models, rec.slots, rec.noises, len(rec)) == (2, 2, 1, 2)
    np.testing.assert_array_equal(rec.matrices[0], [[4, 5, 6, 0, 0], [1, 2, 3, 0, 0]])  # slot 1 is read first
    np.testing.assert_array_equal(rec.matrices[1], [[7, 8, 9, 10, 11], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(rec.at, [0, 1, 0])


BAD = {
    "matrices must have shape": lambda: Recurrence(np.zeros((3, 2, 2)), np.zeros(4, int), 1),
    "matrices must be finite": lambda: Recurrence(np.full((3, 2, 3), math.nan), np.zeros(4, int), 1),
    "at must name 4 slots": lambda: Recurrence(np.zeros((3, 2, 3)), np.zeros(3, int), 1),
    "from 0 to 1": lambda: Recurrence(np.zeros((3, 2, 3)), np.full(4, 2), 1),
    "call 1 has 1": lambda: recurrence([update(m, (0,), (0,), np.ones((1, m + 1))) for m in (2, 1)]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_recurrences(message: str) -> None:
    """A recurrence that does not fit together cannot be built."""
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_read_only() -> None:
    """A recurrence keeps copies that nobody can write to."""
    matrices = np.ones((1, 1, 2))
    rec = Recurrence(matrices, np.zeros(2, int), 1)
    matrices[0] = 2
    assert (rec.matrices == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        rec.matrices[0] = 2


def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Nonlinear, Lipschitz, and of operations that IEEE 754 rounds correctly: the same bits in any batch."""
    return x / (1 + x * x) - 0.3 * t.reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("name", ["dpmpp-2m", "deis-3", "dpmpp-3s", "rk4"])
@pytest.mark.parametrize("window", [1, 5, 100])
def test_picard_iteration_ends_at_the_sequential_answer(name: str, window: int) -> None:
    """Windows that slide over the nodes that no longer change end with the bits of the sequential executor, in no
    more rounds than there are calls; k rounds make k nodes right."""
    low = lowered(name, 8)
    rec, calls = recurrence(low.updates.calls), len(low.updates.calls)
    den, x = logsnr.Denoiser(model, SCH, "eps"), torch.randn(3, 50)
    wanted = run(low, den, x)[0]
    told = den.model_times(torch.tensor(low.times, dtype=torch.float64), x)
    slots, nodes, first, rounds = begin(rec, x), x.expand(calls, 3, 50).clone(), 0, 0
    while first < calls:
        size = min(window, calls - first)
        rows = nodes[first : first + size]
        seen = torch.cat([slots[rec.at[first]][None], rows[:-1]])
        outputs = model(seen.flatten(0, 1), told[first : first + size].repeat_interleave(3)).reshape(seen.shape)
        _, change = scan(slots, [outputs], rows, rec, first=first, out=rows, backend="cpu")
        right = min(int((change == 0).all(1).cumprod(0).sum()) + 1, size)
        advance(slots, [outputs[:right]], rec, first=first, out=slots)
        first, rounds = first + right, rounds + 1
        assert first >= rounds
    assert torch.equal(slots[0], wanted)
    assert torch.equal(nodes[-1], wanted)
    assert rounds <= calls
    assert rounds == calls or window > 1


REC = Recurrence(np.ones((5, 2, 4)), np.zeros(6, int), 1)  # a noise
GOOD: dict[str, Any] = {
    "start": torch.zeros(2, 3, 8),
    "outputs": [torch.zeros(4, 3, 8)],
    "nodes": torch.zeros(4, 3, 8),
    "noises": [torch.zeros(4, 3, 8)],
    "recurrence": REC,
}
WRONG: list[tuple[str, dict[str, Any]]] = [
    (r"start must have shape \(2, B", {"start": torch.zeros(3, 3, 8)}),
    ("start must be fp64 or fp32", {"start": torch.zeros(2, 3, 8, dtype=BF16)}),
    ("outputs must be 1", {"outputs": []}),
    (r"outputs\[0\] must have shape \(4, 3, 8\)", {"outputs": [torch.zeros(4, 3, 7)]}),
    (r"outputs\[0\] must be fp64", {"outputs": [torch.zeros(4, 3, 8, dtype=torch.int32)]}),
    ("noises must be 1", {"noises": []}),
    (r"noises\[0\] must have shape", {"noises": [torch.zeros(3, 3, 8)]}),
    (r"outputs\[0\] must have shape .* on cpu, not .* on meta", {"outputs": [torch.zeros(4, 3, 8, device="meta")]}),
    ("first must .* from 0 to 1, not 2", {"first": 2}),
    ("first must .* not -1", {"first": -1}),
    ("nodes must have shape", {"nodes": torch.zeros(5, 3, 8)}),
    ("nodes must be floating and no wider", {"nodes": torch.zeros(4, 3, 8, dtype=F64)}),
    ("slopes must have shape", {"slopes": torch.zeros(4, 8)}),
    ("slopes must have .* the dtype torch.float32", {"slopes": torch.zeros(4, 3, dtype=F64)}),
    ("out must have", {"out": torch.zeros(4, 3, 8, dtype=BF16)}),
    ("backend must be one of", {"backend": "gpu"}),
]


@pytest.mark.parametrize(("message", "change"), WRONG, ids=[message for message, _ in WRONG])
def test_errors_name_the_argument(message: str, change: dict[str, Any]) -> None:
    """What does not fit is refused before any work, by the name of the argument."""
    scan(**GOOD)
    with pytest.raises(ValueError, match=message):
        scan(**GOOD | change)
    rest = {k: v for k, v in (GOOD | change).items() if k not in ("nodes", "slopes")}
    if not change.keys() & {"nodes", "slopes"}:
        with pytest.raises(ValueError, match=message):
            advance(**rest)


def test_what_compiled_code_refuses() -> None:
    """Layouts with gaps and shifted outputs are left to torch, which gives the right answer; asked for compiled code,
    scan says why not."""
    rec = Recurrence(REC.matrices[:, :, :3], REC.at, 1)
    start, outputs = torch.randn(2, 3, 8), torch.randn(4, 3, 16)[..., ::2]
    buffer = torch.randn(5, 3, 8)
    wanted = scan(start, [outputs.contiguous()], buffer[:4].clone(), rec)
    with pytest.raises(RuntimeError, match=r"contiguous|densely"):
        scan(start, [outputs], buffer[:4], rec, backend="cpu")
    with pytest.raises(RuntimeError, match="overlaps"):
        scan(start, [outputs.contiguous()], buffer[:4], rec, out=buffer[1:], backend="cpu")
    new, change = scan(start, [outputs], buffer[:4], rec, out=buffer[1:])
    assert torch.equal(new, wanted[0])
    assert torch.equal(change, wanted[1])


def test_gradients() -> None:
    """Where gradients are recorded the specification is used, and they are those of a linear map."""
    rec = recurrence(lowered("dpmpp-2m", 4).updates.calls)
    start = torch.zeros(2, 1, 3)
    outputs = torch.randn(4, 1, 3, requires_grad=True)
    nodes = torch.zeros(4, 1, 3)
    new, _ = scan(start, [outputs], nodes, rec)
    (grad,) = torch.autograd.grad(new[-1].sum(), outputs)
    for k in range(4):
        unit = torch.zeros(4, 1, 3)
        unit[k] = 1
        torch.testing.assert_close(grad[k], scan(start, [unit], nodes, rec)[0][-1], rtol=1e-6, atol=0)
