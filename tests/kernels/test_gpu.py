"""Every Triton kernel on a GPU: the bits that the CPU computes, no wait for the device, and how fast it moves its
bytes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from checks import BF16, F16, F32, F64, assert_same, dense_recurrence, random
from gpu_loop import DEVICE, SHAPE, loop

import logsnr
from logsnr.kernels import Noise, Recurrence, advance, combine, normals, scan
from logsnr.kernels.tensors import triton_refuses

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

Tensors = Sequence[torch.Tensor]


class Kernel(NamedTuple):
    """tensors: operands of n elements in each sample, of a dtype. run: the operation on a backend. exact: how many of
    its results have the same bits on every device; the others, sums in another order, agree to 1e-14."""

    tensors: Callable[[int, torch.dtype], list[torch.Tensor]]
    run: Callable[[Tensors, Any], Tensors]
    exact: int


def several(count: int, *shape: int) -> Callable[[int, torch.dtype], list[torch.Tensor]]:
    return lambda n, dtype: [random((*shape, n), dtype, seed) for seed in range(count)]


WINDOW = 16
DENSE = dense_recurrence(WINDOW, 3)
LIGHT = Recurrence(np.full((WINDOW, 1, 2), 0.5), np.zeros(WINDOW + 1, int), 1)


COEFS = np.array([[0.9, -0.4, 0.3, 0.1], [0.5, 0.0, 2.0, -1.0]])


def noisy(x: Tensors, backend: Any) -> Tensors:
    batch = torch.arange(len(x[0]), device=x[0].device)
    return combine(x, COEFS, noise=Noise(batch + 5, batch, ((3, 1),)), backend=backend)[0]


def window(slots: int) -> Callable[[int, torch.dtype], list[torch.Tensor]]:
    """Outputs, nodes and the start."""

    def tensors(n: int, dtype: torch.dtype) -> list[torch.Tensor]:
        start = random((slots, 2, n), F64 if dtype is F64 else F32, 2)
        return [*several(2, WINDOW, 2)(n, dtype), start]

    return tensors


KERNELS = {
    "combine": Kernel(several(4, 2), lambda x, b: combine(x, COEFS, backend=b)[0], 2),
    "combine, noise": Kernel(several(3, 2), noisy, 2),
    "scan, dense": Kernel(window(3), lambda x, b: scan(x[2], [x[0]], x[1], DENSE, backend=b), 1),
    "scan, one slot": Kernel(window(1), lambda x, b: scan(x[2], [x[0]], x[1], LIGHT, backend=b), 1),
    "advance": Kernel(window(3), lambda x, b: [advance(x[2], [x[0]], DENSE, backend=b)], 1),
}


def on_device(kernel: Kernel, n: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [x.to(DEVICE) for x in kernel.tensors(n, dtype)]


@pytest.mark.parametrize("dtype", [F64, F32, F16, BF16])
@pytest.mark.parametrize("n", [1, 7, 1023, 4096, 100_001])
@pytest.mark.parametrize("name", KERNELS)
def test_bits(name: str, n: int, dtype: torch.dtype) -> None:
    """Results have the bits of compiled CPU code and of torch on the GPU, sums of squares their value to 1e-14."""
    kernel = KERNELS[name]
    x = on_device(kernel, n, dtype)
    found = [y.cpu() for y in kernel.run(x, "triton")]
    for wanted in (kernel.run(kernel.tensors(n, dtype), "cpu"), kernel.run(x, "torch")):
        for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
            if k < kernel.exact:
                assert_same(a, b.cpu())
            else:
                torch.testing.assert_close(a, b.cpu(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_triton_is_the_default(name: str) -> None:
    """A plain tensor on the GPU is served by Triton, with the same bits in every run."""
    kernel = KERNELS[name]
    x = on_device(kernel, 4099, F32)
    for a, b in zip(kernel.run(x, None), kernel.run(x, "triton"), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", KERNELS)
def test_the_host_does_not_wait(name: str) -> None:
    """After the first call, which compiles, nothing synchronises with the device."""
    kernel = KERNELS[name]
    x = on_device(kernel, 1024, F32)
    kernel.run(x, "triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        kernel.run(x, "triton")
        with pytest.raises(RuntimeError, match="synchroniz"):
            x[0].sum().item()  # mutant: what waits is seen
    finally:
        torch.cuda.set_sync_debug_mode("default")


def milliseconds(function: Callable[[], object], repeats: int = 20) -> float:
    """On the device, the mean of some calls."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    function()
    began.record()
    for _ in range(repeats):
        function()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / repeats


@pytest.mark.parametrize("name", KERNELS)
def test_bandwidth(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints GB/s of operands and results, each once, and those of a copy of as many bytes."""
    kernel = KERNELS[name]
    x = on_device(kernel, 1 << 20 if name.startswith(("scan", "advance")) else 1 << 24, F32)
    moved = sum(y.nbytes for y in (*x, *kernel.run(x, "triton")))
    source = torch.empty(moved // 2, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    ours, copy = milliseconds(lambda: kernel.run(x, "triton")), milliseconds(lambda: target.copy_(source))
    with capsys.disabled():
        print(f"\n{name}: {moved / ours / 1e6:.0f} GB/s, {copy / ours:.2f} of a copy")


@pytest.mark.parametrize("model", [F32, F16])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "deis-4", "dpmpp-3s", "sde-dpmpp-2m"])
def test_loops_in_a_graph(solver: str, model: torch.dtype) -> None:
    """After one run for warming up a loop never waits for the device, and can be captured: replayed on another start,
    the graph gives what the loop gives."""
    x = logsnr.randn(SHAPE, seed=0, device=DEVICE)
    loop(x, model, solver=solver)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.graph(graph):
            end = loop(x, model, solver=solver)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    x.copy_(logsnr.randn(x.shape, seed=1, device=DEVICE))
    graph.replay()
    assert torch.equal(end, loop(x, model, solver=solver))


def test_normals() -> None:
    """Normals made on the GPU have the bits of the specification."""
    from aot_normals import BLOCK, store_normals

    address = torch.tensor([2**63 - 1, 77, 123456789, 5, 2**33 + 8], device=DEVICE)
    found = torch.empty(100_000, device=DEVICE)
    store_normals[(-(-len(found) // BLOCK),)](found, address, len(found), BLOCK=BLOCK, enable_fp_fusion=False)
    wanted = normals(2**63 - 1, 77, 123456789, len(found), stream=5, first=2**33 + 8)
    assert torch.equal(found.cpu().view(torch.int32), wanted.view(torch.int32))


def test_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on the current device; tensors on another are left to torch."""
    x = torch.ones(2, device=DEVICE)
    assert triton_refuses([x]) is None
    monkeypatch.setattr(torch.cuda, "current_device", lambda: x.get_device() + 1)
    assert "current device" in str(triton_refuses([x]))


HUGE = 2**31 + 4096 + 3  # elements: their places do not fit into 32 bits


@pytest.fixture
def huge() -> torch.Tensor:
    """(1, HUGE), fp16: ones, but for the last elements."""
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GB")
    x = torch.ones(1, HUGE, dtype=F16, device=DEVICE)
    x[0, -100:] = torch.arange(100, dtype=F16, device=DEVICE)
    return x


def test_huge_combine(huge: torch.Tensor) -> None:
    """The last elements, and their normals, are those of the specification."""
    zero = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    (found,), _ = combine([huge], np.array([[0.5, 1.0]]), noise=Noise(zero, zero, ((3, 1),)))
    z = normals(0, 0, 3, 100, stream=1, first=HUGE - 100, device=DEVICE)
    assert torch.equal(found[0, -100:], (huge[0, -100:].float() * 0.5 + z).half())


def test_huge_scan(huge: torch.Tensor) -> None:
    """Two calls, each of which adds the model's answer, of two samples."""
    start = huge[:, 1:].reshape(1, 2, -1)
    outputs = start.expand(2, -1, -1).contiguous()
    ones = Recurrence(np.ones((2, 1, 2)), np.zeros(3, int), 1)
    found, change = scan(start.float(), [outputs], outputs, ones, backend="triton")
    for k in range(2):
        assert torch.equal(found[k, 1, -100:], (k + 2) * huge[0, -100:])
        assert change[k, 1].item() == pytest.approx((k + 1) ** 2 * (HUGE // 2 - 100 + 328350), rel=1e-14)
