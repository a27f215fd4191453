"""Error texts for names that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from .names_elsewhere import GRIDS_ELSEWHERE, known_elsewhere

SHOWN = 25  # names in one sentence; a list of all solvers would hide what went wrong


def nearest(name: object, names: Iterable[str]) -> str:
    """The end of a sentence: the names that are nearest to ``name``, or all of them if none is near."""
    known = list(names)
    close = get_close_matches(str(name), known, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    more = f", ... ({len(known)} names)" if len(known) > SHOWN else ""
    return f"; choose from {', '.join(known[:SHOWN])}{more}"


HEADS_ELSEWHERE = {
    "epsilon": "eps", "noise": "eps", "sample": "x0", "x_start": "x0", "x": "x0", "data": "x0",
    "v_prediction": "v", "vpred": "v", "flow": "velocity", "flow_prediction": "velocity", "u": "velocity",
}  # fmt: skip
ARGUMENTS_ELSEWHERE = {
    "num_inference_steps": "steps", "num_steps": "steps", "n_steps": "steps", "num_function_evaluations": "nfe",
    "timesteps": "grid", "times": "grid", "mu": "shift=logsnr.Shift.dynamic(mu)", "method": "solver",
    "sampler": "solver", "scheduler": "grid", "noise_sampler": "noise",
    "rho": 'grid_options={"rho": ...}', "sigma_min": "an end of the schedule, EDM(sigma_min, sigma_max),",
    "sigma_max": "an end of the schedule, EDM(sigma_min, sigma_max),",
    "guidance_scale": "the Denoiser's guidance=logsnr.Guidance(scale, uncond={...})",
    "cfg_scale": "the Denoiser's guidance=logsnr.Guidance(scale, uncond={...})",
    "strength": "logsnr.control.sdedit(den, x0, strength)", "batch_size": "the first size of x",
    "s_churn": 'solver="edm-churn"', "eta": "a solver that has eta, as sde-dpmpp-2m or ddim-eta",
}  # fmt: skip


def head_hint(name: object) -> str:
    """The end of a sentence about a head that does not exist."""
    known = HEADS_ELSEWHERE.get(str(name).lower())
    return f"; that is {known!r} here" if known else nearest(name, ("x0", "eps", "v", "velocity", "score"))


def grid_hint(name: object, names: Iterable[str]) -> str:
    """The end of a sentence about a grid that does not exist: what other libraries mean by the name."""
    known = GRIDS_ELSEWHERE.get(str(name).lower().strip().replace(" ", "_"))
    return f"; that is {known!r} here" if known else nearest(name, names)


def solver_hint(name: object, names: Iterable[str]) -> str:
    """The end of a sentence about a solver that does not exist: what other libraries mean by the name."""
    text, listed = str(name), list(names)
    known, grid = known_elsewhere(text)
    if isinstance(name, type):
        return f": it is a class; give an instance, as {name.__name__}()"
    if text.lstrip().startswith("{") or text.endswith(".json"):
        return "; a program is read by logsnr.Program.from_json(text), of the text of its file"
    if known is None:
        return nearest(text.lower().replace("++", "pp"), listed)
    own = f"; {text.lower()!r} is another one here" if text.lower() in listed and text.lower() != known else ""
    return f"; that is solver={known!r}" + (f" with grid={grid!r}" if grid else "") + own


def argument_hint(names: Iterable[str]) -> str:
    """The end of a sentence about arguments that other libraries have."""
    told = [f"{name} is {ARGUMENTS_ELSEWHERE[name]} here" for name in names if name in ARGUMENTS_ELSEWHERE]
    return f"; {', '.join(told)}" if told else ""
