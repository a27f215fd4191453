"""Error texts for names that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from .names_elsewhere import known_elsewhere


def nearest(name: object, names: Iterable[str]) -> str:
    """The end of a sentence: the names that are nearest to ``name``, or all of them if none is near."""
    known = list(names)
    close = get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; choose from {', '.join(known)}"


HEADS_ELSEWHERE = {
    "epsilon": "eps", "noise": "eps", "sample": "x0", "x_start": "x0", "x": "x0", "data": "x0",
    "v_prediction": "v", "vpred": "v", "flow": "velocity", "flow_prediction": "velocity", "u": "velocity",
}  # fmt: skip
GRIDS_ELSEWHERE = {
    "karras": "karras", "exponential": "logsnr", "simple": "time", "normal": "time", "uniform": "time",
    "sgm_uniform": "time", "ddim_uniform": "leading", "beta": "beta", "beta57": "beta", "kl_optimal": "arctan",
    "kl": "arctan", "linear_quadratic": "linear-quadratic", "bong_tangent": "bong-tangent", "lu": "logsnr",
    "ays": "ays-sd1", "align_your_steps": "ays-sd1", "oss": "oss-flux", "optimal_steps": "oss-flux",
}  # fmt: skip
ARGUMENTS_ELSEWHERE = {
    "num_inference_steps": "steps", "num_steps": "steps", "n_steps": "steps", "num_function_evaluations": "nfe",
    "timesteps": "grid", "times": "grid", "mu": "shift=logsnr.Shift.dynamic(mu)", "method": "solver",
    "sampler": "solver", "scheduler": "grid", "noise_sampler": "noise",
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
    known, grid = known_elsewhere(str(name))
    if known is None:
        return nearest(name, names)
    return f"; that is solver={known!r}" + (f" with grid={grid!r}" if grid else "")


def argument_hint(names: Iterable[str]) -> str:
    """The end of a sentence about arguments that other libraries have."""
    told = [f"{name} is {ARGUMENTS_ELSEWHERE[name]} here" for name in names if name in ARGUMENTS_ELSEWHERE]
    return f"; {', '.join(told)}" if told else ""
