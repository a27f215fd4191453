"""A kernel that stores normals."""

import triton
import triton.language as tl

from logsnr.kernels.normals_triton import normals

BLOCK, WARPS = 1024, 4


@triton.jit
def store_normals(out, address, size, BLOCK: tl.constexpr):
    """``address``: seed, sample, interval, stream and first element, int64."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK
    i = offset + tl.arange(0, BLOCK)
    seed, sample = tl.load(address), tl.load(address + 1)
    interval, stream = tl.load(address + 2), tl.load(address + 3)
    z = normals(seed, sample, interval, stream, tl.load(address + 4) + offset, BLOCK)
    tl.store(out + i, z, mask=i < size)


ARGUMENTS = {"out": "*fp32", "address": "*i64", "size": "i32:16"}

CASES = {
    "normals": (store_normals, ARGUMENTS, {"BLOCK": BLOCK}, WARPS),
    "normals, fused": (store_normals, ARGUMENTS, {"BLOCK": BLOCK}, WARPS, True),
}
