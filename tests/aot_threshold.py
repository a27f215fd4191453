"""The kernels of `dynamic_threshold`."""

import triton.language as tl

from logsnr.kernels.threshold_triton import BLOCK, DIGIT, SPAN, WARPS, clip_kernel, count_kernel


def count(bits: int) -> tuple:
    arguments = {
        "bits": f"*i{bits}", "prefix": "*i64", "counts": "*i64", "above": "*i64", "largest": "*i64",
        "size": "i32:16", "spans": "i32", "shift": "i32",
    }  # fmt: skip
    constants = {
        "WIDTH": DIGIT, "SIGN": (1 << bits - 1) - 1, "KEY": tl.int64 if bits == 64 else tl.int32,
        "BLOCK": BLOCK, "SPAN": SPAN,
    }  # fmt: skip
    return count_kernel, arguments, constants, WARPS


def clip(kind: str) -> tuple:
    arguments = {
        "x": f"*{kind}", "out": f"*{kind}", "bounds": "*fp32", "factors": "*fp32",
        "size": "i32:16", "blocks": "i32",
    }  # fmt: skip
    return clip_kernel, arguments, {"BLOCK": BLOCK}, WARPS


CASES = {
    "count 16": count(16),
    "count 32": count(32),
    "count 64": count(64),
    "clip fp32": clip("fp32"),
    "clip bf16": clip("bf16"),
}
