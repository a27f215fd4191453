"""What samplers of ComfyUI, A1111, stable-diffusion.cpp and azula are here, by their names.

They stand on Stable Diffusion's table of betas, or on a list of sigmas.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np

from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import COMPAT, Solver, solver, solver_names
from ...solvers.grids.grids import grid as make_grid
from ...solvers.grids.grids import grid_names
from ...solvers.names import nearest
from ...solvers.names_elsewhere import ELSEWHERE, GRIDS_ELSEWHERE, known_elsewhere
from ..comfy.names import MEANINGS
from ..schedulers.tables import discrete, levels_of, table_of
from .formulas import FORMULAS, mixed_times
from .types import Subject

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
# The multistep samplers of azula: the solver here by its order, where there is one.
AZULA = {"zAB": "deis-rho-{}", "vAB": "flow-{}m", "zEAB": "dpm-{}m", "xEAB": "dpmpp-{}m", "REAB": ""}
CFG_PP = "_cfg_pp"

Lay = Callable[[int], Array]
Named = tuple[str | Solver, str | None, str, Solver | None]  # solver here, grid, library, form


def of_names(text: str, scheduler: str = "", steps: int = 20) -> Subject:
    """The subject of a sampler of ComfyUI, A1111, stable-diffusion.cpp, azula or logsnr, and a grid, on Stable
    Diffusion's table. Raises ValueError with the nearest names for those that nobody has."""
    name, kind, library, own = _formula(text) or _azula(text) or _sampler(f"{text} {scheduler}".strip())
    word = scheduler.lower() or (kind or "normal")
    here = GRIDS_ELSEWHERE.get(word.replace(" ", "_"), word)
    if here not in grid_names():
        raise ValueError(f"scheduler = {scheduler!r} is unknown{nearest(word, {*GRIDS_ELSEWHERE, *grid_names()})}")
    sch = discrete(table_of(STABLE_DIFFUSION))

    def lay(n: int) -> Array:
        times = make_grid(sch, n, here)
        return np.asarray(np.asarray(sch.sigma(times)) / np.asarray(sch.alpha(times)))

    words = here if word == here else f"{word}, {here} here"
    compat = False if own or isinstance(name, Solver) else _published(name, text, library)
    asked = partial(_nearest, lay) if library == "ComfyUI" else None
    return Subject(text, library, name, compat, words, lay, steps, asked, own=own)


def _nearest(lay: Lay, n: int) -> Array:
    """What ComfyUI tells a model of Stable Diffusion: the nearest entry of its table, in log sigma."""
    table = levels_of(table_of(STABLE_DIFFUSION))
    far = np.abs(np.log(lay(n)[:-1, None] / table))
    return np.asarray(table[far.argmin(axis=1)])


def _formula(text: str) -> Named | None:
    """A formula that no solver here has."""
    words = text.split()
    key = next((key for n in (2, 1) if (key := " ".join(words[:n]).lower()) in FORMULAS), None)
    if key is None:
        return None
    found = FORMULAS[key]
    return found.solver, " ".join(words[len(key.split()) :]).lower() or None, found.library, found.form


def azula_class(text: str) -> tuple[str, int, str] | None:
    """Class, order and grid, of "REAB 3 karras" or "REABSampler"; None if it is no multistep sampler of azula."""
    found = re.fullmatch(rf"({'|'.join(AZULA)})(?:Sampler)?(?:\s+([1-4]))?(?:\s+(.+))?", text, re.IGNORECASE)
    if not found:
        return None
    kind = next(kind for kind in AZULA if kind.lower() == found[1].lower())
    return f"{kind}Sampler", int(found[2] or 2), (found[3] or "").lower()


def _azula(text: str) -> Named | None:
    found = azula_class(text)
    if found is None:
        return None
    kind, order, grid = found
    here = AZULA[kind.removesuffix("Sampler")]
    if here:
        return solver(here.format(order)).name, grid or None, "azula", None
    right, form = mixed_times(order)
    return right, grid or None, "azula", form


def _sampler(text: str) -> Named:
    """The solver here, the grid that the text names, and whose name it is. ValueError with the nearest names."""
    first, *rest = text.split()
    text = " ".join([first.removesuffix("_gpu").removesuffix(CFG_PP), *rest])
    words = text.split()
    own = next((n for n in (len(words), len(words) - 1) if n and "-".join(words[:n]).lower() in solver_names()), None)
    if own:
        said = (("ComfyUI", words[0]), ("A1111", " ".join(words[:own])))
        library = next((whose for whose, name in said if name in chain(*ELSEWHERE[whose].values())), "logsnr")
        return "-".join(words[:own]).lower(), "-".join(words[own:]).lower() or None, library, None
    if text.lower().replace(" ", "_").startswith("dpm_adaptive"):
        raise ValueError(
            "dpm_adaptive chooses its steps as it goes: it has no grid, and no order on one. Its pair is dpm-23 here, "
            "whose errors follow rtol and atol: logsnr.sample(den, x, solver='dpm-23', rtol=1e-3, atol=1e-3)"
        )
    name, kind = known_elsewhere(text)
    if name is None and words[0].lower() in MEANINGS:  # of ComfyUI, and no solver here has the formula
        return MEANINGS[words[0].lower()].solver, "-".join(words[1:]).lower() or None, "ComfyUI", None
    if name is None:
        names = [
            *chain.from_iterable(chain.from_iterable(by.values()) for by in ELSEWHERE.values()),
            *FORMULAS,
            *solver_names(),
        ]
        low = {n.lower(): n for n in names}
        told = nearest(words[0].lower() if "_" in text else text.lower(), low)
        raise ValueError(f"{text!r} is neither a file nor a sampler that is known{told}")
    return name, kind, "ComfyUI" if "_" in text or text.islower() else "A1111", None


def _published(name: str, text: str, library: str) -> bool | str:
    """Which formula k-diffusion, ComfyUI and A1111 have under the name."""
    if library in ("logsnr", "azula") or name not in COMPAT or "heun" in text.lower() or "res_" in text:
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
    lay = partial(_filled, levels)
    asked = partial(_nearest, lay) if named.asked else None
    return replace(named, grid=words, lay=lay, steps=len(levels) - 1, asked=asked)


def _filled(levels: Array, n: int) -> Array:
    if n == len(levels) - 1:
        return levels
    positive, ends = levels[levels > 0], levels[levels == 0]
    parts = np.linspace(0, 1, len(positive))
    fine = np.exp(np.interp(np.linspace(0, 1, n + 1 - len(ends)), parts, np.log(positive)))
    return np.append(fine, ends)
