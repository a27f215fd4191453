"""The kernels of `scan` and `advance`."""

from logsnr.kernels.recurrence import ALWAYS, NEVER, SOMETIMES, Pattern
from logsnr.kernels.scan_triton import PARTS, scan_kernel, total_kernel


def multistep(slots: int) -> Pattern:
    """Of exponential Adams methods: the state, then history as a shift."""
    return tuple(
        tuple(ALWAYS if r == 0 or j == r else SOMETIMES if j < 2 and r == 1 else NEVER for j in range(slots + 1))
        for r in range(slots)
    )


DENSE = tuple((SOMETIMES,) * 7 for _ in range(5))  # five slots, as the classical Runge-Kutta method, and a noise


def scan(
    pattern: Pattern, wide: str, node: str, size: int, *, noises: int = 0, nodes: bool = True, slopes: bool = False
) -> tuple:
    result = f"*{node}" if nodes else f"*{wide}"
    arguments = {
        "table": f"*{wide}", "places": "*i64", "start": f"*{wide}", "out": result, "nodes": result,
        "outputs": (f"*{node}",), "noises": (f"*{node}",) * noises, "partial": "*fp64", "slopes": f"*{wide}",
        "first": "i32", "window": "i32", "stride": "i32:16", "count": "i32:16", "blocks": "i32", "parts": "i32",
    }  # fmt: skip
    seen = (0, 1) if pattern is DENSE else (0,)
    constants = {"PATTERN": pattern, "SEEN": seen, "NODES": nodes, "SLOPES": slopes, "BLOCK": size}
    return scan_kernel, arguments, constants, 1


CASES = {
    "two slots": scan(multistep(2), "fp32", "fp32", 256),
    "two slots, slopes": scan(multistep(2), "fp32", "fp32", 256, slopes=True),
    "two slots, bf16": scan(multistep(2), "fp32", "bf16", 256),
    "four slots": scan(multistep(4), "fp32", "fp32", 256),
    "four slots, fp64": scan(multistep(4), "fp64", "fp64", 128),
    "five slots, noise": scan(DENSE, "fp32", "fp32", 128, noises=1),
    "advance": scan(multistep(2), "fp32", "fp32", 256, nodes=False),
    "total": (total_kernel, {"partial": "*fp64", "change": "*fp64", "blocks": "i32"}, {"PARTS": PARTS}, 1),
}
