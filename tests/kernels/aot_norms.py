"""The kernels of `combine_norm`, with four inputs and one output."""

import triton.language as tl

from logsnr.kernels.norms_triton import BLOCK, mean_kernel, norms_kernel

USED = ((True,) * 4, (False, *(True,) * 3), (True, *(False,) * 3), (True,) * 4)


def norms(kind: str, wide: str, warps: int) -> tuple:
    arguments = {
        "inputs": (f"*{kind}",) * 4, "outputs": (f"*{kind}",), "table": f"*{wide}", "tolerances": f"*{wide}",
        "partial": "*fp64", "size": "i32:16", "blocks": "i32",
    }  # fmt: skip
    constants = {"USED": USED, "FIRST": (0, 1, 0, 0), "WIDE": getattr(tl, f"float{wide[2:]}"), "BLOCK": BLOCK}
    return norms_kernel, arguments, constants, warps


MEAN = {"partial": "*fp64", "means": "*fp64", "blocks": "i32", "count": "i32"}

CASES = {
    "fp32": norms("fp32", "fp32", 8),
    "bf16": norms("bf16", "fp32", 4),
    "fp64": norms("fp64", "fp64", 8),
    "fp32, half the warps": norms("fp32", "fp32", 4),
    "mean": (mean_kernel, MEAN, {"BLOCK": BLOCK}, 4),
}
