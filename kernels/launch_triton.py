"""Compiled Triton kernels launched again by the CUDA driver itself, from addresses that lie ready in memory.

Triton's own launcher looks at every tensor of every call, which takes several times as long as the launch (and for a
small state as the kernel): 15 us and more against 3.
"""

import ctypes
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from llvmlite import ir

from .lanes import I8, I32, counted
from .native import I64, Native, compile_function, external

HEADER = 5  # words of a row before its arguments
MOST = 64  # arguments of a kernel
SPECIAL = ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid", "launch_pdl")  # ways to launch
POINTER = I8.as_pointer()


def row(kernel: Any, blocks: int, arguments: Sequence[int]) -> "array[int] | None":
    """What `launcher` must be told of one launch, or None if the driver alone cannot do it.

    kernel: compiled by Triton, and launched before. blocks: of its grid. arguments: what the kernel is given at run
    time, each a number or an address, or ~k for word k of the frame.
    """
    metadata, function = kernel.metadata, getattr(kernel, "function", None)
    more = getattr(metadata, "num_ctas", 1) > 1 or any(getattr(metadata, name, 0) for name in SPECIAL)
    if more or function is None or "ptx" not in kernel.asm:
        return None
    kinds = _flat(kernel.src.signature.values())
    given = [word for word, kind in zip(arguments, kinds, strict=False) if kind != "constexpr"]  # as a size of 1 is
    scratch = _parameters(kernel.asm["ptx"]) - len(given)  # pointers that Triton adds
    if not 0 <= scratch <= 2:
        return None
    threads = metadata.num_warps * metadata.target.warp_size
    return array("q", [function, blocks, threads, metadata.shared, len(given) + scratch, *given, *[0] * scratch])


def _flat(kinds: Any) -> Iterator[str]:
    for kind in kinds:
        if isinstance(kind, str):
            yield kind
        else:
            yield from _flat(kind)


def _parameters(ptx: str) -> int:
    """How many the only entry of a module has."""
    entry = re.search(r"\.entry[^(]*\(([^)]*)\)", ptx)
    return entry[1].count(".param") if entry else 0


def launchable() -> bool:
    """Whether torch's GPUs are CUDA's."""
    return torch.version.cuda is not None


@cache
def launcher() -> Native:
    """launch(frame, row, stream), all addresses: 0 or an error of CUDA."""
    return compile_function("launch", 3, partial(emit, ctypes.CDLL("libcuda.so.1")))


def emit(driver: Any, b: ir.IRBuilder, values: Sequence[Any]) -> Any:
    """Gather pointers to the arguments, and have ``driver.cuLaunchKernel`` copy what they point to."""
    frame, words, stream = values
    at = b.inttoptr(words, I64.as_pointer())
    function, blocks, threads, shared, count = (b.load(b.gep(at, [I64(k)])) for k in range(HEADER))
    pointers = b.alloca(POINTER, MOST)
    with counted(b, I64(0), count, 1) as k:
        place = b.gep(at, [b.add(k, I64(HEADER))])
        word = b.load(place)
        kept = b.add(frame, b.shl(b.not_(word), I64(3)))
        address = b.select(b.icmp_signed("<", word, I64(0)), kept, b.ptrtoint(place, I64))
        b.store(b.inttoptr(address, POINTER), b.gep(pointers, [k]))
    kinds = [POINTER, *[I32] * 7, POINTER, POINTER.as_pointer(), POINTER]
    call = external(b.module, "cuLaunchKernel", I32, *kinds, library=driver)
    one, none = I32(1), ir.Constant(POINTER, None)
    grid = [b.trunc(blocks, I32), one, one, b.trunc(threads, I32), one, one, b.trunc(shared, I32)]
    handles = [b.inttoptr(function, POINTER), *grid, b.inttoptr(stream, POINTER), pointers, none]
    return b.sext(b.call(call, handles), I64)
