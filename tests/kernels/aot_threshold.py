"""The kernels of `dynamic_threshold`."""

import triton.language as tl

from logsnr.kernels.threshold_triton import BLOCK, DIGIT, WARPS, WORDS, clip_kernel, count_kernel, digit_kernel

ROW = WORDS.value + (1 << DIGIT)


def count(bits: int) -> tuple:
    arguments = {
        "bits": f"*i{bits}", "memory": "*i64", "size": "i32:16", "spans": "i32", "span": "i32:16", "shift": "i32",
    }  # fmt: skip
    constants = {
        "WIDTH": DIGIT, "ROW": ROW, "SIGN": (1 << bits - 1) - 1, "KEY": tl.int64 if bits == 64 else tl.int32,
        "BLOCK": BLOCK,
    }  # fmt: skip
    return count_kernel, arguments, constants, WARPS


def digit(*, last: bool) -> tuple:
    arguments = {"memory": "*i64", "pair": "*i32", "k": "i32"}
    constants = {"WIDTH": DIGIT, "ROW": ROW, "INFINITE": 0x7F800000, "LAST": last}
    return digit_kernel, arguments, constants, WARPS


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
    "digit": digit(last=False),
    "last digit": digit(last=True),
    "clip fp32": clip("fp32"),
    "clip bf16": clip("bf16"),
}
