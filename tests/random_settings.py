"""Random settings: any solver, schedule, head, dtype, grid and executor together, with a bounded model.

    python tests/random_settings.py --count 10000

A run must end in a finite answer of the right shape and dtype, or in a ValueError or TypeError that names an argument
before the first call of the model, or, if its result leaves fp16, in the advice to take fp32. Anything else is a fault,
printed with the number that makes the setting again: `python tests/random_settings.py --first 1234 --count 1`. Where
the process itself dies, the number is the last that was shown.
"""

import random
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from logsnr.bench.command import run_command
from logsnr.solvers.catalogue.catalogue import solver, solver_names
from logsnr.solvers.denoisers.denoiser import Denoiser
from logsnr.solvers.denoisers.guidance import Guidance
from logsnr.solvers.denoisers.heads import HEADS
from logsnr.solvers.finite import NonFiniteError
from logsnr.solvers.grids.grids import GRIDS
from logsnr.solvers.parallel.settings import Picard, Rounds
from logsnr.solvers.programs.program import Program
from logsnr.solvers.runs.normals import start
from logsnr.solvers.sampling import solve
from logsnr.solvers.schedules.base import Schedule
from logsnr.solvers.schedules.formulas import EDM, VE, FlowMatching, SubVP, Trigonometric, VPCosine, VPLinear
from logsnr.solvers.schedules.tabulated import Discrete
from logsnr.solvers.statistics.wiener import Wiener

DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
SHAPES = ((1, 1), (2, 3), (1, 4, 8, 8), (3, 5), (2, 1, 7), (4, 2, 3, 3, 2), (0, 3))
SCHEDULES: tuple[Callable[[], Schedule], ...] = (
    VPLinear, SubVP, VPCosine, Trigonometric, FlowMatching, lambda: FlowMatching(data_at=1), EDM, VE,
    lambda: Discrete(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)),
)  # fmt: skip
OPTIONS: dict[str, Callable[[random.Random], Any]] = {
    "eta": lambda r: r.choice([0.0, 0.3, 1.0]),
    "tau": lambda r: r.choice([0.0, 0.5, 1.0, 2.0]),
    "variance": lambda r: r.choice(["beta", "beta-tilde", 0.5]),
    "data_variance": lambda r: r.choice([None, 0.3]),
    "s_churn": lambda r: r.choice([0.0, 10.0, 80.0]),
    "s_noise": lambda r: r.choice([0.0, 1.0, 1.007]),
    "corrections": lambda r: r.choice([1, 2]),
    "per_level": lambda r: r.choice([1, 2]),
}

HOW: dict[str, Any] = {
    "brownian": True, "trajectory": True, "grad": True, "on_nan": "keep", "callback": lambda node, t, state, x0: None,
}  # fmt: skip


def bounded(head: str) -> Callable[..., torch.Tensor]:
    """A model whose answers lie in [-1, 1], whatever it is asked."""

    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        z = x.float() * 0.7 if y is None else x.float() * 0.7 + y.reshape(-1, *[1] * (x.ndim - 1))
        return torch.tanh(z).to(x.dtype) * (0.1 if head == "score" else 1.0)

    return model


def gaussian(r: random.Random, event: tuple[int, ...]) -> Wiener:
    """Of numbers, of elements, or of coordinates."""
    mean = np.linspace(-0.5, 0.5, event[-1])
    return r.choice([Wiener(0.1, 0.3), Wiener(mean, 0.3), Wiener(mean, 0.3, basis="dct")])


def guided(r: random.Random, batch: int) -> dict[str, Any]:
    """Conditions and guidance of a denoiser."""
    y = torch.linspace(-1, 1, batch)
    scale = r.choice([0.0, 1.5, 0.5 + y.abs(), lambda lam: np.where(lam < 0, 1.0, 2.0)])
    kind, interval = r.choice(["cfg", "cfg", "cfg++", "rescale"]), r.choice([None, (-2.0, 2.0)])
    if kind == "cfg++" and isinstance(scale, torch.Tensor):
        scale = 0.5
    guidance = Guidance(scale, interval, {"y": -y}, kind=kind, batched=r.random() < 0.7)
    return {"conditions": {"y": y}, "guidance": guidance}


def setting(number: int) -> tuple[Denoiser, torch.Tensor, dict[str, Any]]:
    """The denoiser, the start and the arguments of `solve` of setting ``number``."""
    r = random.Random(number)
    sch, head, shape = r.choice(SCHEDULES)(), r.choice(HEADS), r.choice(SHAPES)
    dtype, model_dtype = r.choice(DTYPES), r.choice((None, *DTYPES))
    time, name = r.choice(["t", "1000t", "sigma", "c_noise"]), r.choice(solver_names())
    asked = guided(r, shape[0]) if r.random() < 0.3 else {}
    den, known = Denoiser(bounded(head), sch, head, dtype=model_dtype, time=time, **asked), solver(name)
    given: dict[str, Any] = {o: OPTIONS[o](r) for o in known.options if o in OPTIONS and r.random() < 0.4}
    if known.planner is None or (known.adaptive and r.random() < 0.3):
        given |= {"rtol": r.choice([1e-1, 1e-2]), "atol": r.choice([1e-1, 1e-2])}
    else:
        given[r.choice(["steps", "steps", "nfe"])] = r.choice([1, 2, 3, 5, 8, 13])
        given["startup"] = r.choice(["ramp", "single-step"])
        if r.random() < 0.2:
            given["parallel"] = r.choice([Picard(window=r.choice([None, 3]), tol=r.choice([0.0, 1e-2])), Rounds()])
    given |= {"solver": name, "grid": r.choice(sorted(GRIDS)), "seed": r.choice([0, 7, 2**63, [*range(shape[0])]])}
    given |= {key: value for key, value in HOW.items() if r.random() < 0.2}
    if r.random() < 0.3:
        low, high = sorted(r.uniform(*sch.domain) for _ in range(2))
        given |= {"t_start": high, "t_end": low} if r.random() < 0.9 else {"t_start": low, "t_end": high}
    if "gaussian" in known.options and r.random() < 0.9:
        given["gaussian"] = gaussian(r, shape[1:])
    x = start(sch, shape, seed=number, t_start=given.get("t_start"), dtype=dtype)
    plain = "t_start" not in given and "steps" in given and "parallel" not in given and given["startup"] == "ramp"
    if plain and r.random() < 0.2 and not any(option in given for option in OPTIONS):
        table = known.program(sch, sch.time(np.linspace(-2.0, 2.0, given["steps"] + 1)))
        if len(table) > 1 and not table.learned:
            table = table.with_known(sch, gaussian(r, shape[1:]) if not table.noises else Wiener(0.1, 0.3), least=0.1)
        given = {k: v for k, v in given.items() if k in ("seed", *HOW)}
        given["solver"] = Program.from_json(table.to_json())
    return den, x, given


def fault(number: int) -> str:
    """What is wrong with setting ``number``, or how it ended: "ran" or "refused"."""
    den, x, given = setting(number)
    calls = 0

    def counted(x: torch.Tensor, t: torch.Tensor, **given: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        answer: torch.Tensor = model(x, t, **given)
        return answer

    model, den.model = den.model, counted
    try:
        found = solve(den, x, **given)
    except (ValueError, TypeError) as error:
        return "refused" if not calls else f"{type(error).__name__} after {calls} calls: {error}"
    except NonFiniteError as error:
        beyond = x.dtype is torch.float16 and "more than torch.float16 holds" in str(error)
        return "refused" if beyond else f"NonFiniteError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if found.x.shape != x.shape or found.x.dtype != x.dtype:
        return f"x is {found.x.dtype} of shape {tuple(found.x.shape)}"
    if bool(torch.isfinite(found.x).all()):
        return "ran"
    kept = x.dtype is torch.float16 and given.get("on_nan") == "keep" and found.failed
    return "refused" if kept else "the answer is not finite"


def main(
    count: Annotated[int, typer.Option(min=1, help="How many settings.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="The number of the first.")] = 0,
) -> None:
    """Run random settings, and print those that end in anything but a finite answer or a clear refusal."""
    ended: Counter[str] = Counter()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with warnings.catch_warnings(), console.status("") as status:
        warnings.simplefilter("ignore")
        for number in range(first, first + count):
            status.update(f"setting {number}")
            what = fault(number)
            kind = what if what in ("ran", "refused") else "faults"
            ended[kind] += 1
            if kind == "faults":
                console.print(f"setting {number}: {what}")
    console.print(", ".join(f"{n} {kind}" for kind, n in sorted(ended.items())))
    if ended["faults"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
