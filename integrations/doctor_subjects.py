"""What a doctor is asked about: a scheduler's config, a sampler with a grid by their names, or a list of sigmas.

All become one thing: a solver here, as the other library ships it, and its levels of noise for any number of steps. A
level is sigma / alpha, of flow models sigma; ``lay(n)`` has n + 1 of them, repeats included. Nothing else is loaded.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..solvers.arrays import Array
from ..solvers.catalogue import COMPAT, Solver, solver, solver_names
from ..solvers.grids import grid as make_grid
from ..solvers.grids import grid_names
from ..solvers.names import nearest
from ..solvers.names_elsewhere import ELSEWHERE, GRIDS_ELSEWHERE, known_elsewhere
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.formulas import Trigonometric
from ..solvers.schedules.straight import EDM, FlowMatching
from .diffusers_configs import CONVENTION, HEADS, MARKS, TABLE, is_flow
from .diffusers_grids import SPREADS, edm_grid, flow_grid, level_at, spread_of, table_grid
from .diffusers_tables import discrete, levels_of, table_of
from .doctor_classes import DEFAULTS, KINDS, Config
from .doctor_formulas import FORMULAS, WRONG_SIGN

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SAME = 1e-6  # relative: of levels in fp32
FILE = "scheduler_config.json"


@dataclass(frozen=True, eq=False)
class Subject:
    """name, library: whose it is. solver, compat: what that is here. grid: in words. lay: levels by the number of
    steps. asked: by the number of steps, the levels that the model is told, (n,), where those are not the same. head:
    what the model returns. flow: whether levels are of x = (1 - sigma) x0 + sigma eps. config: of a scheduler. own: the
    formula, where no solver here has it."""

    name: str
    library: str
    solver: str
    compat: bool | str
    grid: str
    lay: Callable[[int], Array]
    steps: int
    asked: Callable[[int], Array] | None = None
    head: str = "eps"
    flow: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    own: Solver | None = None

    @property
    def shipped(self) -> Solver:
        """The formula that the library has."""
        return self.own or solver(self.solver, compat=self.compat)

    @property
    def right(self) -> Solver:
        """The formula that the name stands for."""
        return solver(self.solver)

    def levels(self, steps: int | None = None) -> Array:
        return self.lay(self.steps if steps is None else steps)

    def nodes(self, steps: int | None = None) -> tuple[Schedule, Array]:
        """A schedule and the times of the levels on it, without repeats."""
        levels = self.levels(steps)
        levels = levels[np.append(np.logical_not(same(levels)), True)]
        if self.flow:
            return FlowMatching(), levels
        if math.isinf(levels[0]):
            return Trigonometric(), np.arctan(levels)
        small = float(levels[levels > 0][-1])
        return EDM(min(small, float(levels[0]) / 2), float(levels[0])), levels


def same(levels: Array) -> Array:
    """Where a level is the next one, up to rounding."""
    return np.asarray(levels[:-1] - levels[1:] <= SAME * levels[1:])


def parse(text: str = "", *, sigmas: str = "", scheduler: str = "", steps: int = 20) -> Subject:
    """The subject that ``text`` names: a path of a config or of a folder with one, or a sampler, with a grid in its
    name or as ``scheduler``, or with its ``sigmas``, "14.6, 7, ..., 0". Raises ValueError with the nearest names for
    those that nobody has, and for lists that are none; OSError for files that are not there."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise ValueError(f"steps must be a number from 1 to 1000, not {steps!r}")
    if sigmas:
        return of_sigmas(text or "euler", sigmas)
    if not text.strip():
        raise ValueError('say what to look at: a scheduler_config.json, a sampler such as "DPM++ 2M Karras", or sigmas')
    path = Path(text)
    if path.is_dir() or path.suffix == ".json":
        return of_config(_read(path), steps)
    return of_names(text, scheduler, steps)


def _read(path: Path) -> dict[str, Any]:
    found = path
    if path.is_dir():
        found = next((p for p in (path / FILE, path / "scheduler" / FILE) if p.is_file()), path / FILE)
    try:
        config = json.loads(found.read_text())
    except ValueError as error:
        raise ValueError(f"{found} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{found} must hold a config, an object with keys such as beta_start, not {config!r:.40}")
    return config


def of_config(config: Mapping[str, Any], steps: int = 20) -> Subject:
    """The subject of a scheduler's config of diffusers, which names its class. ValueError for other classes."""
    called = str(config.get("_class_name", ""))
    kind = KINDS.get(called.removesuffix("Scheduler"))
    if kind is None:
        classes = [f"{name}Scheduler" for name in KINDS]
        raise ValueError(f"_class_name = {called!r} is no scheduler that is known here{nearest(called, classes)}")
    own_ways = {"timestep_spacing": kind.spacing, "frame": kind.frame, "final_sigmas_type": kind.end}
    known = Config(DEFAULTS | own_ways | dict(config))
    known.setdefault(CONVENTION, next((told for key, told in MARKS.items() if key in config), None))
    name, compat = (kind.solver, False) if isinstance(kind.solver, str) else kind.solver(known)
    flow = is_flow(known if any(key in config for key in TABLE) else config)
    edm = known.sigma_data is not None and not flow and not any(key in config for key in TABLE)
    lay, asked = _laid(known, flow, edm)
    spread = spread_of(known)
    words = (spread or known.sigma_schedule if edm else spread) or f"timestep_spacing {known.timestep_spacing}"
    shift = f"of mu = {known.max_shift:g}" if known.use_dynamic_shifting else f"{known.flow_shift * known.shift:g}"
    words = f"flow, shift {shift}" if flow else str(words).removeprefix("use_").removesuffix("_sigmas")
    head = "velocity" if flow else HEADS.get(known.prediction_type, "eps")
    told = f"{called}{_settings(known, called)}"
    own = WRONG_SIGN if name == "sde-dpmpp-3m" else None
    return Subject(told, "diffusers", name, compat, words, lay, steps, asked, head, flow, known, own)


def _settings(config: Config, called: str) -> str:
    if "DPMSolverM" not in called and "UniPC" not in called:
        return ""
    kind = f"{config.algorithm_type} " * ("DPM" in called)
    form = config.solver_type or ("midpoint" if "DPM" in called else "bh2")
    return f" ({kind}{form}, order {config.solver_order})"


def _laid(config: Config, flow: bool, edm: bool) -> tuple[Callable[[int], Array], Callable[[int], Array] | None]:
    if flow:
        mu = float(config.max_shift) if config.use_dynamic_shifting else None
        return lambda n: flow_grid(config, n, None, None, mu)[1], None
    if edm:
        return lambda n: edm_grid(config, n, None, None)[1], None
    bars = table_of(config)
    table = levels_of(bars)

    def both(n: int) -> tuple[Array, Array]:
        return table_grid(config, bars, table, n, None, None)

    def asked(n: int) -> Array:
        return level_at(table, np.clip(both(n)[0], 0, len(table) - 1))

    return lambda n: both(n)[1], asked if spread_of(config) in SPREADS else None


def of_names(text: str, scheduler: str = "", steps: int = 20) -> Subject:
    """The subject of a sampler of ComfyUI, A1111 or logsnr, and a grid, on Stable Diffusion's table."""
    first, *rest = text.split()
    own: Solver | None = None
    if first.lower() in FORMULAS:
        kind = " ".join(rest).lower() or None
        name, library, own = FORMULAS[first.lower()]
    else:
        name, kind, library = _sampler(f"{text} {scheduler}".strip())
    word = scheduler.lower() or (kind or "normal")
    here = GRIDS_ELSEWHERE.get(word.replace(" ", "_"), word)
    if here not in grid_names():
        raise ValueError(f"scheduler = {scheduler!r} is unknown{nearest(word, {*GRIDS_ELSEWHERE, *grid_names()})}")
    sch = discrete(table_of(STABLE_DIFFUSION))

    def lay(n: int) -> Array:
        times = make_grid(sch, n, here)
        return np.asarray(np.asarray(sch.sigma(times)) / np.asarray(sch.alpha(times)))

    words = here if word == here else f"{word}, {here} here"
    compat = False if own else _published(name, text, library)
    return Subject(text, library, name, compat, words, lay, steps, own=own)


def _sampler(text: str) -> tuple[str, str | None, str]:
    """The solver here, the grid that the text names, and whose name it is. ValueError with the nearest names."""
    words = text.split()
    own = next((n for n in (len(words), len(words) - 1) if n and "-".join(words[:n]).lower() in solver_names()), None)
    if own:
        known = any(words[0] in names for names in ELSEWHERE["ComfyUI"].values())
        grid = "-".join(words[own:]).lower() or None
        return "-".join(words[:own]).lower(), grid, "ComfyUI" if known else "logsnr"
    name, kind = known_elsewhere(text)
    if name is None:
        names = [
            *chain.from_iterable(chain.from_iterable(by.values()) for by in ELSEWHERE.values()),
            *FORMULAS,
            *solver_names(),
        ]
        low = {n.lower(): n for n in names}
        told = nearest(words[0].lower() if "_" in text else text.lower(), low)
        raise ValueError(f"{text!r} is neither a file nor a sampler that is known{told}")
    return name, kind, "ComfyUI" if "_" in text or text.islower() else "A1111"


def _published(name: str, text: str, library: str) -> bool | str:
    """Which formula k-diffusion, ComfyUI and A1111 have under the name."""
    if library == "logsnr" or name not in COMPAT or "heun" in text.lower() or "res_" in text:
        return False
    return ("bh2" if "bh2" in text else "bh1") if name.startswith("unipc") else True


def of_sigmas(text: str, sigmas: str | Sequence[float]) -> Subject:
    """The subject of a sampler on a list of sigmas. For other numbers of steps the list is filled in, in log sigma."""
    try:
        parts = sigmas.replace(",", " ").split() if isinstance(sigmas, str) else sigmas
        levels = np.array([float(part) for part in parts])
    except (TypeError, ValueError):
        raise ValueError(f'sigmas must be numbers, as "14.6, 7, 2, 0.5, 0", not {sigmas!r:.60}') from None
    if len(levels) < 2 or not np.isfinite(levels).all() or (levels < 0).any() or (np.diff(levels) > 0).any():
        raise ValueError(f"sigmas must be two or more finite numbers that decrease, not {levels.tolist()!s:.80}")
    if not levels[-2] > 0:
        raise ValueError("sigmas must end before or at 0, which may stand once, at the end")
    named = of_names(text, "normal")
    words = f"a list from {levels[0]:.6g} to {levels[-1]:.6g}"
    return replace(named, grid=words, lay=partial(_filled, levels), steps=len(levels) - 1)


def _filled(levels: Array, n: int) -> Array:
    if n == len(levels) - 1:
        return levels
    positive, ends = levels[levels > 0], levels[levels == 0]
    parts = np.linspace(0, 1, len(positive))
    fine = np.exp(np.interp(np.linspace(0, 1, n + 1 - len(ends)), parts, np.log(positive)))
    return np.append(fine, ends)
