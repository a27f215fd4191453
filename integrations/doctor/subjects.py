"""What a doctor is asked about: a scheduler's config, a sampler with a grid by their names, or a list of sigmas.

All become one thing: a solver here, as the other library ships it, and its levels of noise for any number of steps. A
level is sigma / alpha, of flow models sigma; ``lay(n)`` has n + 1 of them, repeats included. Nothing else is loaded.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.names import nearest
from ..schedulers.configs import CONVENTION, HEADS, MARKS, TABLE, is_flow
from ..schedulers.grids import SPREADS, edm_grid, flow_grid, level_at, spread_of, table_grid
from ..schedulers.tables import levels_of, table_of
from .classes import DEFAULTS, KINDS, Config
from .formulas import WRONG_SIGN
from .names import STABLE_DIFFUSION, of_names, of_sigmas
from .types import Subject

__all__ = ["STABLE_DIFFUSION", "Subject", "of_config", "of_names", "of_sigmas", "parse"]
FILE = "scheduler_config.json"


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
    kind = f"{config.algorithm_type or 'dpmsolver++'} " * ("DPM" in called)
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
