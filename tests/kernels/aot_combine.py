"""The kernel of `combine`: three inputs, two outputs, of one of which a column is zero."""

import triton.language as tl

from logsnr.kernels.combine_triton import BLOCK, WARPS, combine_kernel

USED = ((True, True, True), (True, False, True))


def case(kind: str, wide: str = "fp32", *, noises: int = 0, by_element: bool = False, checked: int = 1) -> tuple:
    arguments = {
        "inputs": (f"*{kind}",) * 3, "outputs": (f"*{kind}",) * 2, "table": f"*{wide}",
        "flag": "*i1", "seeds": "*i64", "samples": "*i64", "words": "*i64", "size": "i32:16",
    }  # fmt: skip
    constants = {
        "USED": tuple(row + (True,) * noises for row in USED), "FIRST": (0, 0), "CHECKED": checked,
        "NOISES": noises, "TABLED": by_element, "WIDE": getattr(tl, f"float{wide[2:]}"),
        "BLOCK": BLOCK,
    }  # fmt: skip
    return combine_kernel, arguments, constants, WARPS


CASES = {
    "fp32": case("fp32"),
    "fp16": case("fp16"),
    "bf16": case("bf16"),
    "fp64": case("fp64", "fp64"),
    "noise": case("fp32", noises=1),
    "by element": case("fp32", by_element=True),
    "fused": (*case("fp32"), True),
}
