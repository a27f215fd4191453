"""combine: which layouts and transforms the compiled code serves, what falls back to torch, what is
refused."""

import numpy as np
import pytest
import torch

from logsnr.kernels import combine, combine_reference, registers
from logsnr.kernels.tensors import cpu_refuses, dense, processor_refuses

COEFS = np.array([[0.75, -1.25], [2.0, 0.1]])


def reference(inputs: list[torch.Tensor], coefs: np.ndarray = COEFS) -> tuple[torch.Tensor, ...]:
    return combine_reference(inputs, coefs, [inputs[0].dtype] * len(coefs))[0]


def assert_same(found: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


def channels_last() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)


LAYOUTS = {
    "contiguous": lambda: torch.randn(2, 3, 4, 5),
    "channels-last": channels_last,
    "transposed": lambda: torch.randn(5, 4, 3, 2).permute(3, 2, 1, 0),
    "one channel, channels-last": lambda: torch.randn(2, 1, 4, 5).to(memory_format=torch.channels_last),
    "empty": lambda: torch.randn(0, 3, 4),
    "scalar": lambda: torch.randn(()),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_dense_layouts_are_compiled(name: str) -> None:
    """Dense tensors of equal strides, in whatever order, run compiled, and the outputs keep their layout."""
    x, y = LAYOUTS[name](), LAYOUTS[name]()
    found, _ = combine([x, y], COEFS, backend="cpu")
    assert_same(found, reference([x, y]))
    assert all(o.stride() == x.stride() for o in found)


UNFIT = {
    "gaps": lambda: torch.randn(2, 3, 8)[..., ::2],
    "a channel slice": lambda: torch.randn(2, 6, 4)[:, :3],
    "expanded": lambda: torch.randn(2, 1, 4).expand(2, 3, 4),
    "negated": lambda: torch._neg_view(torch.randn(2, 3, 4)),
    "other strides": lambda: torch.randn(4, 3, 2).permute(2, 1, 0),
}


@pytest.mark.parametrize("name", UNFIT)
def test_other_layouts_take_the_torch_path(name: str) -> None:
    """Tensors with gaps, repeats or unlike strides give the right answer, and backend="cpu" says why
    not."""
    x, y = torch.randn(2, 3, 4), UNFIT[name]()
    y = y[..., :4]
    found, _ = combine([x, y], COEFS)
    assert_same(found, reference([x, y.contiguous() * 1]))
    with pytest.raises(RuntimeError, match=r"laid out|plain CPU"):
        combine([x, y], COEFS, backend="cpu")


def test_dense_means_one_block_of_memory() -> None:
    """dense is true exactly where the elements fill one block without gaps or repeats."""
    assert all(dense(make()) for make in LAYOUTS.values())
    assert not any(dense(UNFIT[name]()) for name in ("gaps", "a channel slice", "expanded"))


def test_overlapping_output_is_not_compiled() -> None:
    """An output shifted against an input, or one that shares memory with another, is left to torch."""
    buffer = torch.randn(101)
    want = reference([buffer[1:].clone(), buffer[1:].clone()], COEFS[:1])
    with pytest.raises(RuntimeError, match="overlaps"):
        combine([buffer[1:], buffer[1:]], COEFS[:1], out=[buffer[:-1]], backend="cpu")
    assert_same(combine([buffer[1:], buffer[1:]], COEFS[:1], out=[buffer[:-1]])[0], want)
    x, out = torch.randn(5), torch.empty(5)
    with pytest.raises(RuntimeError, match="overlaps"):
        combine([x, x], COEFS, out=[out, out.view(5)], backend="cpu")
    for j in range(3):  # whichever input it is, whichever output
        inputs = [torch.randn(100) for _ in range(3)]
        inputs[j] = buffer[1:]
        for outs in ([buffer[:-1], torch.empty(100)], [torch.empty(100), buffer[:-1]]):
            with pytest.raises(RuntimeError, match="overlaps"):
                combine(inputs, np.ones((2, 3)), out=outs, backend="cpu")


def test_outputs_are_the_tensors_given() -> None:
    """With out= the results are those very tensors, in every dtype asked for, on both backends."""
    x, y = torch.randn(9), torch.randn(9, dtype=torch.float64)
    for backend in ("cpu", "torch"):
        out = [torch.empty(9, dtype=torch.float16), torch.empty(9, dtype=torch.float64)]
        results, _ = combine([x, y], COEFS, out=out, backend=backend)  # type: ignore[arg-type]
        assert results[0] is out[0]
        assert results[1] is out[1]


def test_gradients() -> None:
    """Autograd, torch.func.grad, jvp and vmap see a linear map; the compiled path refuses with the reason."""
    x, y = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in "xy")
    assert torch.autograd.gradcheck(lambda x, y: combine([x, y], COEFS)[0], (x, y))
    with pytest.raises(RuntimeError, match="gradients are recorded"):
        combine([x, y], COEFS, backend="cpu")
    with torch.no_grad():
        assert_same(combine([x, y], COEFS, backend="cpu")[0], reference([x, y]))
    a, b, v = (torch.randn(4, 3) for _ in "abv")

    def first(x: torch.Tensor) -> torch.Tensor:
        assert cpu_refuses([x, b]) is not None
        return combine([x, b], COEFS)[0][0]

    assert torch.equal(torch.func.grad(lambda x: first(x).sum())(a), torch.full_like(a, 0.75))
    assert torch.allclose(torch.func.jvp(first, (a,), (v,))[1], 0.75 * v)
    assert torch.equal(torch.func.vmap(lambda x, y: combine([x, y], COEFS)[0][0])(a, b), first_plain(a, b))
    assert torch.equal(
        torch.func.vmap(lambda y: combine([a, y], COEFS)[0][0], in_dims=0)(b[None])[0], first_plain(a, b)
    )


def first_plain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return reference([x, y])[0]


def test_torch_compile() -> None:
    """Inside torch.compile the torch operations are traced."""
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    compiled = torch.compile(lambda x, y: combine([x, y], COEFS)[0][0], backend="eager")
    assert torch.equal(compiled(x, y), first_plain(x, y))


@pytest.mark.parametrize("event", [(3, 1, 1), (1, 4, 5), (3, 4, 5), (5,)])
def test_per_element_coefficients(event: tuple[int, ...]) -> None:
    """Coefficients (R, K, *event) act on each element as the scalar ones of that element would."""
    coefs = np.random.default_rng(0).normal(size=(2, 2, *event))
    x, y = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found, _ = combine([x, y], coefs)
    for r in range(2):
        want = coefs[r, 0] * x.numpy() + coefs[r, 1] * y.numpy()
        np.testing.assert_array_equal(found[r].numpy(), want)
    assert_same(combine([x, y], coefs, backend="cpu")[0], combine([x, y], coefs, backend="torch")[0])


def test_other_devices_and_classes() -> None:
    """Meta tensors and subclasses take the torch path, and backend="cpu" refuses them by name."""
    x = torch.empty(2, 3, device="meta")
    assert combine([x, x], COEFS)[0][1].device.type == "meta"
    with pytest.raises(RuntimeError, match="on meta"):
        combine([x, x], COEFS, backend="cpu")

    class Mine(torch.Tensor):
        pass

    mine = torch.randn(2, 3).as_subclass(Mine)
    with pytest.raises(RuntimeError, match="Mine"):
        combine([mine, mine], COEFS, backend="cpu")
    assert_same(combine([mine, mine], COEFS)[0], reference([mine, mine]))
    parameter = torch.nn.Parameter(torch.randn(2, 3), requires_grad=False)
    assert_same(combine([parameter, parameter], COEFS, backend="cpu")[0], reference([parameter, parameter]))


def test_bad_calls() -> None:
    """Counts, shapes, devices, dtypes, coefficients and backends that do not fit are errors that say what is
    wrong, before anything is written."""
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    for arguments, message in [
        (([], np.ones((1, 0))), "inputs must be 1 to 80 tensors, not 0"),
        (([x] * 81, np.ones((1, 81))), "inputs must be 1 to 80 tensors, not 81"),
        (([x, y], np.ones((1, 3))), r"shape \(R, 2\).*not \(1, 3\)"),
        (([x, y], np.ones((4, 2))), "R from 1 to 3"),
        (([x, y], np.ones((0, 2))), "R from 1 to 3"),
        (([x, y], np.ones(2)), "must have shape"),
        (([x, y[:1]], np.ones((1, 2))), r"inputs\[1\] must have.*not \(1, 3\)"),
        (([x, y.to("meta")], np.ones((1, 2))), "on meta"),
        (([x, y.int()], np.ones((1, 2))), "not torch.int32"),
        (([x, y.to(torch.complex64)], np.ones((1, 2))), "not torch.complex64"),
        (([x, y], [[1.0, np.nan]]), "coefs must be finite"),
        (([x, y], np.ones((1, 2, 4))), "do not broadcast"),
        (([x, y], np.ones((1, 2, 2, 3))), "do not broadcast"),
        (([x[:, :1], y[:, :1]], np.ones((1, 2, 3))), "do not broadcast"),
    ]:
        with pytest.raises(ValueError, match=message):
            combine(*arguments)
    for options, message in [
        ({"dtypes": [torch.float32]}, "2 rows, but 1"),
        ({"dtypes": [torch.int64, torch.float32]}, "not torch.int64"),
        ({"out": [torch.empty(2, 3)]}, "2 rows, but 1"),
        ({"out": [torch.empty(2, 3), torch.empty(3, 2)]}, r"out\[1\] must have.*not \(3, 2\)"),
        ({"out": [torch.empty(2, 3)] * 2, "dtypes": [torch.float32] * 2}, "not both"),
        ({"checked": 3}, "from 0 to 2"),
        ({"backend": "cuda"}, "one of 'torch', 'cpu', 'triton', not 'cuda'"),
    ]:
        with pytest.raises(ValueError, match=message):
            combine([x, y], COEFS, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a tensor, not list"):
        combine([x, [1.0, 2.0]], COEFS)  # type: ignore[list-item]


def test_read_only_coefficients_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    """Programs keep read-only matrices: the torch path takes them without a warning."""
    coefs = COEFS.copy()
    coefs.setflags(write=False)
    combine([torch.ones(3), torch.ones(3)], coefs, backend="torch")
    assert not recwarn.list


def test_old_processors_take_the_torch_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where compiled code could not convert fp16, calls are served by torch and give the same numbers."""
    x = torch.ones(3, dtype=torch.float16)
    monkeypatch.setattr("logsnr.kernels.compiled.target", lambda: ("x86_64-unknown-linux-gnu", "any", "+sse2,-f16c"))
    processor_refuses.cache_clear()
    try:
        assert "fp16" in str(cpu_refuses([x]))
        assert combine([x], np.full((1, 1), 2.0))[0][0].tolist() == [2.0] * 3
    finally:
        processor_refuses.cache_clear()


def test_registers_choose_like_combine() -> None:
    """The memory of a run is compiled for plain tensors and torch where gradients are recorded."""
    from logsnr import VPLinear, solver
    from logsnr.kernels.registers import TorchRegisters
    from logsnr.kernels.registers_cpu import CpuRegisters
    from logsnr.solvers.programs.lower import lower

    sch = VPLinear()
    updates = lower(solver("ddim").program(sch, [1, 0.5]), sch, "eps", state=torch.float32, model=torch.float32).updates
    assert isinstance(registers(updates, torch.ones(2, 3)), CpuRegisters)
    assert isinstance(registers(updates, torch.ones(2, 3, requires_grad=True)), TorchRegisters)
