"""Compiles Triton kernels for GPUs that need not be there, and reads what came out.

`compiled(name)` gives the cases of ``aot_<name>.py``. A process of its own compiles all such files, as Triton decides
when it is imported whether it interprets. A file has ``CASES``, by name a function, its arguments, its constants and
the number of warps, and in mutants True, to let products and sums be fused. Arguments are given by their type in
Triton's letters; tensors are aligned to 16 bytes, and integers whose type ends in ``:16`` are multiples of 16.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from logsnr.kernels.tensors import triton_missing

TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
NVIDIA = tuple(target for target in TARGETS if target.startswith("sm"))


@dataclass(frozen=True)
class Kernel:
    """A case compiled for a target: PTX or AMD assembly, registers of a thread, and bytes (of AMD: registers) that
    it spills to memory."""

    target: str
    case: str
    assembly: str
    registers: int
    spilled: int

    def count(self, pattern: str) -> int:
        """How often it is found in the assembly."""
        return len(re.findall(pattern, self.assembly))

    @property
    def accesses(self) -> tuple[int, int]:
        """Loads and stores of 128 bits, in PTX."""
        loads, stores = (self.count(rf"\b{op}\.global[\w.:]*\.v(?:4\.b32|2\.b64)") for op in ("ld", "st"))
        return loads, stores

    @property
    def narrow(self) -> tuple[int, int]:
        """Loads and stores of less, in PTX."""
        loads, stores = (self.count(rf"\b{op}\.global\b") for op in ("ld", "st"))
        return loads - self.accesses[0], stores - self.accesses[1]

    @property
    def fused(self) -> int:
        """Multiply-adds that round once; on AMD without those that correct fp32 square roots, by either of LLVM's ways,
        and quotients."""
        if self.target in NVIDIA:
            return self.count(r"\bfma\.")
        once, packed = (self.count(rf"\bv_{two}(?:fma|mac|mad)\w*_f32") for two in ("", "pk_"))
        spent = {"sqrt": 2, "rsq": 5, "div_fixup": 5}
        return once + 2 * packed - sum(n * self.count(rf"\bv_{op}_f32") for op, n in spent.items())

    @property
    def specified(self) -> int:
        """Those in which a thread makes its normals, 15 for two: it makes 8, and 4 where 64 threads are a warp."""
        return 15 * (4 if self.target in NVIDIA else 2)


def compiled(name: str) -> dict[tuple[str, str], Kernel]:
    """The cases of ``aot_<name>.py``, by target and case. Skips the test where there is no Triton for them."""
    if (reason := triton_missing()) is not None:
        pytest.skip(reason)
    return {(kernel.target, kernel.case): kernel for kernel in _everything()[name]}


@cache
def _everything() -> dict[str, list[Kernel]]:
    """By name, all cases: together they take less time than the start of a process for each."""
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: [Kernel(**fields) for fields in found] for name, found in json.loads(done.stdout).items()}


def source(function: Any, arguments: dict[str, Any], constants: dict[str, Any]) -> Any:
    from triton.compiler import ASTSource

    signature, aligned = dict.fromkeys(constants, "constexpr") | arguments, []
    signature = {name: signature[name] for name in function.arg_names}
    for i, (name, kind) in enumerate(signature.items()):
        if isinstance(kind, tuple):
            aligned += [(i, j) for j in range(len(kind))]
        elif kind.startswith("*") or kind.endswith(":16"):
            aligned.append((i,))
            signature[name] = kind.removesuffix(":16")
    return ASTSource(function, signature, constants, {at: [["tt.divisibility", 16]] for at in aligned})


def with_ones(function: Any, arguments: dict[str, Any], constants: dict[str, Any]) -> Any:
    """The source for a call whose integers are all 1: Triton makes constants of those."""
    integers = [p.name for p in function.params if str(arguments.get(p.name)).startswith("i")]
    ones = {name: 1 for name in integers if name not in (function.do_not_specialize or ())}
    left = {name: kind for name, kind in arguments.items() if name not in ones}
    return source(function, left, constants | ones)


def resources(asm: dict[str, Any]) -> tuple[int, int]:
    """Registers and spills, from what ``ptxas -v`` says or from the metadata in AMD's assembly."""
    if "ptx" not in asm:
        vector, *spilled = (
            int(re.findall(rf"\.{kind}: +(\d+)", asm["amdgcn"])[0])
            for kind in ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count")
        )
        return vector, sum(spilled)
    from triton.backends.nvidia.compiler import get_ptxas

    (arch,) = re.findall(r"\.target (sm_(\d+)\w*)", asm["ptx"])
    with NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(asm["ptx"])
        file.flush()
        command = [get_ptxas(int(arch[1])).path, "-v", f"-arch={arch[0]}", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill", said))
    return int(re.findall(r"Used (\d+) registers", said)[0]), spilled


def compile_for(where: tuple[str, str]) -> list[Kernel]:
    """All cases of a name for one target."""
    import triton
    from triton.backends.compiler import GPUTarget

    (name, target), found = where, []
    for case, (function, arguments, constants, warps, *fused) in FILES[name].items():
        options = {"num_warps": warps, "enable_fp_fusion": bool(fused)}
        if target == "sm_90":
            triton.compile(with_ones(function, arguments, constants), GPUTarget(*TARGETS[target]), options)
        made = triton.compile(source(function, arguments, constants), GPUTarget(*TARGETS[target]), options).asm
        found.append(Kernel(target, case, made.get("ptx") or made["amdgcn"], *resources(made)))
    return found


if __name__ == "__main__":
    paths = sorted(Path(__file__).parent.glob("aot_*.py"))
    FILES = {path.stem.removeprefix("aot_"): runpy.run_path(str(path))["CASES"] for path in paths}
    work = list(product(FILES, TARGETS))
    with get_context("fork").Pool(os.cpu_count()) as pool:  # forked, they know the cases
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in FILES}
        for (name, _), kernels in zip(work, pool.imap(compile_for, work), strict=True):
            found[name] += map(asdict, kernels)
    print(json.dumps(found))
