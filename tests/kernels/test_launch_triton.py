"""What the CUDA driver is told of a launch, without a GPU: a function in place of the driver's looks at it."""

import ctypes
from array import array
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aot import NVIDIA, compiled

from logsnr.kernels.launch_triton import HEADER, emit, row
from logsnr.kernels.native import Native, compile_function

SIGNATURE = {"inputs": ("*fp32", "*fp16"), "flag": "*u1", "size": "i32", "BLOCK": "constexpr"}
COUNT = 7
PTX = ".version 8.7\n.visible .entry kernel(\n" + ",\n".join([".param .u64 p"] * 6) + "\n)\n{ ld.param.b64 %rd1, [p]; }"
SEEN: list[tuple[Any, ...]] = []


def kernel(**changed: Any) -> Any:
    metadata = {
        "num_warps": 4, "num_ctas": 1, "shared": 16, "global_scratch_size": 0, "profile_scratch_size": 0,
        "launch_cooperative_grid": False, "target": SimpleNamespace(warp_size=32),
    }  # fmt: skip
    source = SimpleNamespace(signature=SIGNATURE | changed.pop("signature", {}))
    asm = changed.pop("asm", {"ptx": PTX})
    return SimpleNamespace(metadata=SimpleNamespace(**metadata | changed), src=source, asm=asm, function=123456789012)


class Driver:
    @staticmethod
    @ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint] * 7, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_void_p,
    )  # fmt: skip
    def cuLaunchKernel(*given: Any) -> int:
        *others, pointers, extra = given
        SEEN.append((*others, [ctypes.c_int64.from_address(pointers[k]).value for k in range(COUNT - 1)], extra))
        return 700 if given[1] == 13 else 0


@pytest.fixture(scope="module")
def launch() -> Iterator[Native]:
    yield compile_function("launch_seen", 3, partial(emit, Driver))
    SEEN.clear()


def test_the_driver_sees_every_argument(launch: Native) -> None:
    """Addresses come from the run's frame, what is the same for all runs from the row; unused pointers are null."""
    frame = array("q", [1000, 2**47 + 16, 3000, 4000])
    words = row(kernel(), 12, [~1, ~3, 77, 2**31 + 5])
    assert words is not None
    assert launch(frame.buffer_info()[0], words.buffer_info()[0], 5) == 0
    assert SEEN.pop() == (123456789012, 12, 1, 1, 128, 1, 1, 16, 5, [2**47 + 16, 4000, 77, 2**31 + 5, 0, 0], None)
    frame[1] = 64
    launch(frame.buffer_info()[0], words.buffer_info()[0], 0)
    assert SEEN.pop()[8:10] == (None, [64, 4000, 77, 2**31 + 5, 0, 0])


def test_errors_of_the_driver_are_returned(launch: Native) -> None:
    words = row(kernel(), 13, [0, 0, 0, 0])
    assert words is not None
    assert launch(0, words.buffer_info()[0], 0) == 700
    SEEN.clear()


def test_a_size_of_one_is_no_argument() -> None:
    """Triton makes a constant of it."""
    words = row(kernel(signature={"size": "constexpr"}, asm={"ptx": PTX.replace(".param", "", 1)}), 1, [5, 6, 7, 1])
    assert words is not None
    assert words.tolist()[HEADER - 1 :] == [5, 5, 6, 7, 0, 0]


@pytest.mark.parametrize(
    "changed",
    [
        {"num_ctas": 2}, {"global_scratch_size": 64}, {"profile_scratch_size": 8}, {"launch_cooperative_grid": True},
        {"asm": {"amdgcn": ""}}, {"asm": {"ptx": PTX.replace(".param", "", 3)}}, {"launch_pdl": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_needs_more_is_left_to_triton(changed: dict[str, Any]) -> None:
    assert row(kernel(**changed), 1, [1, 2, 3, 4]) is None


@pytest.mark.parametrize("target", NVIDIA)
def test_compiled_kernels_have_these_arguments(target: str) -> None:
    """Three inputs, two outputs, seven more and Triton's two pointers to scratch memory."""
    made = kernel(asm={"ptx": compiled("combine")[target, "fp32"].assembly})
    made.src.signature = {"pointers": ("*fp32",) * 11, "size": "i32", "BLOCK": "constexpr"}
    words = row(made, 1, range(3 + 2 + 7))
    assert words is not None
    assert words.tolist()[HEADER:] == [*range(3 + 2 + 7), 0, 0]
