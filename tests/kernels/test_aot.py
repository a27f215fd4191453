"""Triton kernels compiled for Ampere, Hopper, Blackwell and MI300: everything stays in registers, and on NVIDIA's GPUs
tensors are accessed 128 bits at a time, every operand once, and no product is fused with a sum unless it says so."""

from collections.abc import Set

import pytest

pytest.importorskip("triton")

import aot


def assert_figures(
    name: str, wanted: dict[str, tuple[int, ...]], spilling: Set[tuple[str, str]] = frozenset()
) -> dict[tuple[str, str], aot.Kernel]:
    """``wanted``: by case, for NVIDIA's GPUs, loads and stores of 128 bits, those of less, and at most how many
    registers. No kernel spills but those ``spilling``, by target and case."""
    found = aot.compiled(name)
    assert {target for target, _ in found} == set(aot.TARGETS)
    assert {where for where, kernel in found.items() if kernel.spilled} == spilling
    for (target, case), kernel in found.items():
        specified = kernel.specified if name == "normals" else 0
        assert (kernel.fused != specified) == ("fused" in case), (target, case)
        if target in aot.NVIDIA:
            *accesses, registers = wanted[case]
            assert [*kernel.accesses, *kernel.narrow] == accesses, (target, case)
            assert kernel.registers <= registers, (target, case)
            # Rounded, which the interpreter does not do.
            assert ("bf16" in case) == (kernel.count(r"cvt\.rn\.bf16") > 0), (target, case)
    return found


def test_scan() -> None:
    """Wide are the slots of the start, and outputs and nodes before the loop and in it; narrow are coefficients and
    the place of what is seen, and a block's sum of squares, which needs no shared memory."""
    wanted = {
        "two slots": (12, 2, 5, 1, 84), "two slots, bf16": (8, 1, 5, 1, 64),
        "two slots, slopes": (12, 2, 6, 1, 96),
        "four slots": (16, 2, 9, 1, 108), "four slots, fp64": (16, 2, 9, 1, 96),
        "five slots, noise": (11, 1, 36, 1, 92), "advance": (8, 4, 5, 0, 68), "total": (0, 0, 4, 1, 56),
    }  # fmt: skip
    found = assert_figures("scan", wanted)
    assert not any(kernel.count(r"\.shared\.|bar\.sync") for kernel in found.values())


def test_normals() -> None:
    """They leave 128 bits at a time; narrow is their address. Fusion, were it allowed, would be seen."""
    wanted = {"normals": (0, 2, 5, 0, 64), "normals, fused": (0, 2, 5, 0, 64)}
    assert_figures("normals", wanted)
