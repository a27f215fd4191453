"""What `logsnr tune` tunes, and what it writes."""

import hashlib
import runpy
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.table import Column, Table

from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.programs.program import Program
from ..solvers.programs.provenance import fingerprint
from ..solvers.runs.normals import start
from .problems import BenchProblem, load_problem, of_denoiser


def load_denoiser(place: str) -> Denoiser:
    """The denoiser that the Python file of ``file.py:name`` makes under this name. Raises ValueError if it does not."""
    path, _, name = place.rpartition(":")
    if not path or not Path(path).is_file():
        raise ValueError(f"denoiser = {place!r} must be a Python file and a name in it, as net.py:den")
    found = runpy.run_path(path).get(name)
    if not isinstance(found, Denoiser):
        raise ValueError(f"denoiser: {name} in {path} must be a logsnr.Denoiser, not {type(found).__name__}")
    return found.like(found.model, torch.zeros(1))  # a function that says no dtype is shown fp32, by references too


def tuned_on(
    problem: str | None, denoiser: str | None, shape: str, noises: int, seed: int
) -> tuple[Denoiser, torch.Tensor]:
    """The denoiser and its noises. Raises ValueError unless one of the two is given, and a shape with a denoiser."""
    if (problem is None) == (denoiser is None):
        raise ValueError("give either --problem or --denoiser")
    if problem is not None:
        if shape.strip():
            raise ValueError(f"{shape.strip()!r} goes with --denoiser file.py:name --shape 3 32 32")
        found = load_problem(problem)
        return found.denoiser, found.start(noises, seed).to(found.dtype)
    den = load_denoiser(str(denoiser))
    return den, start(den.schedule, (noises, *sizes_of(shape)), seed=seed)


def own_problem(place: str, shape: str) -> BenchProblem:
    """The denoiser of ``file.py:name`` as a problem of the bench. Its name changes with the file and the weights, so
    that rows of another network are not taken for its own. Raises ValueError for what is none."""
    den, sizes = load_denoiser(place), sizes_of(shape)
    path, _, name = place.rpartition(":")
    digest = hashlib.blake2b(Path(path).read_bytes() + fingerprint(den).encode(), digest_size=3).hexdigest()
    told = (
        f"{fingerprint(den)}; the reference is a solve of order 5 whose steps are doubled until its ends do not change"
    )
    return of_denoiser(den, sizes, f"{Path(path).stem}-{name}-{digest}", told)


def sizes_of(shape: str) -> tuple[int, ...]:
    """The numbers of 3,32,32; ValueError unless they are the positive sizes of one sample."""
    try:
        sizes = tuple(map(int, shape.replace(",", " ").split()))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ValueError(f"shape = {shape!r} must be that of one sample, as 3,32,32")
    return sizes


def written(programs: Mapping[int, Program], out: Path) -> list[Path]:
    """The files of the programs: ``out`` of one, and of several with the budget in the name."""
    paths = [out if len(programs) == 1 else out.with_stem(f"{out.stem}-{n}") for n in programs]
    for path, program in zip(paths, programs.values(), strict=True):
        path.write_text(program.to_json() + "\n")
    return paths


def sheet(programs: Mapping[int, Program]) -> Table:
    """Errors on held-out noise, before and after."""
    heads = ("NFE", "start", "tuned", "ratio", "rms", "tuned rms")
    table = Table(*(Column(head, justify="right") for head in heads), box=None)
    for program in programs.values():
        before, after, rms, tuned_rms = (
            float(program.provenance[name])
            for name in ("start's median", "held-out median", "start's rms", "held-out rms")
        )
        table.add_row(
            str(len(program)),
            f"{before:.1e}",
            f"{after:.1e}",
            f"{after / before:.3f}",
            f"{rms:.1e}",
            f"{tuned_rms:.1e}",
        )
    return table
