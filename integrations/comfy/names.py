"""What ComfyUI's and k-diffusion's names of samplers mean: solvers with their formulas, and their names of options.

Names that are not here mean the nearest solver of `logsnr.solvers.names_elsewhere`, with its own formula.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import Solver, solver
from ...solvers.names_elsewhere import ELSEWHERE
from ...solvers.planners.gauges import X0
from ...solvers.planners.multistep import Adams
from ...solvers.planners.singlestep import ExponentialRungeKutta
from ...solvers.planners.stochasticity import Window
from ...solvers.planners.tableaux import EXP_HEUN, res_two_stage, three_stage, two_stage
from ...solvers.schedules.base import Schedule
from .flow import FlowMidpoint
from .guided import TwoAnswers
from .planners import FlowAncestral, HeunPlus, StochasticMidpoint

Options = dict[str, Any]
FIRST = 1e-4  # the share of a flow model's time after which ComfyUI begins what has no finite log-SNR at the start


@dataclass(frozen=True)
class Meaning:
    """solver:    the solver with their formula. options: turns their options into its own; in place, before they are
                  checked.
    own:          whether flow models are solved in their own log-SNR, as others that add noise are, and not in sigma.
    last:         what takes the place of a last sigma of 0.
    flow:         the solver of flow models, where it is another one.
    window:       whether noise is added between the sigmas at 20 % and 80 % of the model's time, by default.
    """

    solver: Solver
    options: Callable[[Options], None] = lambda given: None
    own: bool = False
    last: float = 0.0
    flow: Solver | None = None
    window: bool = False

    @property
    def guided(self) -> bool:
        """Whether the answer without guidance is asked for as well."""
        return isinstance(self.solver.planner, TwoAnswers) and self.solver.planner.guided


def _renamed(**names: str) -> Callable[[Options], None]:
    def rename(given: Options) -> None:
        for theirs, ours in names.items():
            if theirs in given:
                given[ours] = given.pop(theirs)

    return rename


def _squared(given: Options) -> None:
    """Their eta of SDEs is eta^2 here."""
    eta = given.get("eta")
    if isinstance(eta, (int, float)) and eta >= 0:
        given["eta"] = math.sqrt(eta)


def _one_stage(given: Options) -> None:
    _squared(given)
    kind, r = given.pop("solver_type", "phi_1"), given.pop("r", None)
    if kind not in ("phi_1", "phi_2"):
        raise ValueError(f"solver_type = {kind!r} is not one of 'phi_1', 'phi_2'")
    if r is not None or kind == "phi_2":
        given["tableau"] = (two_stage if kind == "phi_1" else res_two_stage)(_fraction("r", 0.5 if r is None else r))


def _two_stages(given: Options) -> None:
    _squared(given)
    if "r_1" in given or "r_2" in given:
        stages = given.pop("r_1", 1 / 3), given.pop("r_2", 2 / 3)
        given["tableau"] = three_stage(_fraction("r_1", stages[0]), _fraction("r_2", stages[1]))


def _fraction(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{name} = {value!r} must be a fraction of the step, above 0 and at most 1")
    return float(value)


def _midpoint_or_heun(given: Options) -> None:
    """As k-diffusion calls the two forms of dpmpp_2m_sde."""
    _squared(given)
    if "solver_type" in given:
        kind, forms = given.pop("solver_type"), {"midpoint": "simplified", "heun": "exact"}
        if kind not in forms:
            raise ValueError(f"solver_type = {kind!r} is not one of {', '.join(map(repr, forms))}")
        given["moments"] = forms[kind]


def _stages(name: str, tableau: Any, eta: float = 1.0, *options: str) -> Solver:
    return Solver(name, planner=ExponentialRungeKutta(tableau, X0, eta), options=options)


def _cfg_pp(name: str, loop: str, eta: float = 0.0, *options: str) -> Solver:
    return Solver(name, planner=TwoAnswers(loop, eta), options=options)


def _flow(name: str, planner: Any) -> Solver:
    return Solver(name, planner=planner, options=("eta",))


def _adams(name: str, *options: str, **fields: Any) -> Solver:
    return Solver(name, planner=Adams(**fields), options=options)


def _of(name: str, *options: str, **fields: Any) -> Solver:
    """A solver here with other fields of its planner, and more options."""
    found: Any = solver(name)
    return Solver(name, planner=type(found.planner)(**{**vars(found.planner), **fields}), options=options)


_2M_SDE = ("eta", "moments")
_UNIPC = {"order": 3, "corrector": True, "closing": "ramp"}
_SA = {"order": 3, "corrector": True, "closing": "ramp-both", "eta": 1.0}
_ORDER, _GAMMA = _renamed(max_order="order"), _renamed(ge_gamma="gamma")
_STAGES = _renamed(max_stage="order")
_RES, _GE = "res_multistep", "gradient_estimation"
MEANINGS: dict[str, Meaning] = {
    "dpmpp_2m": Meaning(solver("dpmpp-2m", compat=True)),
    "euler_ancestral": Meaning(solver("euler-a"), flow=_flow("euler_ancestral", FlowAncestral())),
    "dpm_2_ancestral": Meaning(solver("dpm2-a"), flow=_flow("dpm_2_ancestral", FlowMidpoint("straight"))),
    "dpmpp_2s_ancestral": Meaning(solver("dpmpp-2s-a"), flow=_flow("dpmpp_2s_ancestral", FlowMidpoint("x0"))),
    "uni_pc": Meaning(_adams("uni_pc", moments="bh1", **_UNIPC), last=1e-3),
    "uni_pc_bh2": Meaning(_adams("uni_pc_bh2", moments="bh2", **_UNIPC), last=1e-3),
    "deis": Meaning(_of("deis-3", "order", moments="sum-in-time"), _ORDER),
    "ipndm": Meaning(_of("ipndm-4", "order"), _ORDER),
    "ipndm_v": Meaning(_of("deis-rho-4", "order", moments="variable-steps"), _ORDER),
    "lms": Meaning(_of("lms-4", "order")),
    "gradient_estimation": Meaning(solver("gradient-estimation"), _GAMMA),
    "heunpp2": Meaning(Solver("heunpp2", planner=HeunPlus())),
    "exp_heun_2_x0": Meaning(_stages("exp_heun_2_x0", EXP_HEUN, 0.0), own=True),
    "exp_heun_2_x0_sde": Meaning(_stages("exp_heun_2_x0_sde", EXP_HEUN, 1.0, "eta"), _squared, own=True),
    "dpmpp_sde": Meaning(Solver("dpmpp_sde", planner=StochasticMidpoint(), options=("eta", "r")), own=True),
    "dpmpp_2m_sde": Meaning(_of("sde-dpmpp-2m", *_2M_SDE, moments="simplified"), _midpoint_or_heun, own=True),
    "dpmpp_2m_sde_heun": Meaning(_of("sde-dpmpp-2m", *_2M_SDE), _midpoint_or_heun, own=True),
    "dpmpp_3m_sde": Meaning(_of("sde-dpmpp-3m", "eta", moments="halved"), _squared, own=True),
    "er_sde": Meaning(_of("er-sde-3", "eta", "order", moments="sum-in-rho"), _STAGES, own=True),
    "seeds_2": Meaning(_of("sde-dpmpp-2s", "eta", "tableau"), _one_stage, own=True),
    "seeds_3": Meaning(_of("sde-dpmpp-3s", "eta", "tableau"), _two_stages, own=True),
    "sa_solver": Meaning(_of("sa-3", "tau", "pece", **_SA), window=True, own=True),
    "sa_solver_pece": Meaning(_of("sa-3", "tau", pece=True, **_SA), window=True, own=True),
    "res_multistep_ancestral": Meaning(Solver(_RES, planner=TwoAnswers("res", 1.0, guided=False), options=("eta",))),
    "euler_cfg_pp": Meaning(_cfg_pp("euler_cfg_pp", "ddim"), own=True),
    "euler_ancestral_cfg_pp": Meaning(_cfg_pp("euler_ancestral_cfg_pp", "ddim", 1.0, "eta"), own=True),
    "dpmpp_2m_cfg_pp": Meaning(_cfg_pp("dpmpp_2m_cfg_pp", "dpmpp-2m")),
    "dpmpp_2s_ancestral_cfg_pp": Meaning(_cfg_pp("dpmpp_2s_ancestral_cfg_pp", "midpoint", 1.0, "eta")),
    "gradient_estimation_cfg_pp": Meaning(_cfg_pp(f"{_GE}_cfg_pp", "gradient-estimation", 0.0, "gamma"), _GAMMA),
    "res_multistep_cfg_pp": Meaning(_cfg_pp(f"{_RES}_cfg_pp", "res")),
    "res_multistep_ancestral_cfg_pp": Meaning(_cfg_pp(f"{_RES}_ancestral_cfg_pp", "res", 1.0, "eta")),
}  # fmt: skip
NEAREST = {other: name for name, others in ELSEWHERE["ComfyUI"].items() for other in others}
# the same with their noise made on the GPU
for _name in ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"):
    MEANINGS[f"{_name}_gpu"], NEAREST[f"{_name}_gpu"] = MEANINGS[_name], NEAREST[_name]
IN_SIGMA = frozenset({"res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "ddpm"})


def sampling_of(model: Any) -> Any:
    """ComfyUI's model_sampling of a model, which says how sigma runs; None of a plain function."""
    for _ in range(4):
        sampling = getattr(model, "model_sampling", None)
        if sampling is not None:
            return sampling
        model = getattr(model, "inner_model", None)
    return None


def is_flow(model: Any) -> bool:
    """Whether a model of ComfyUI is one of x = (1 - sigma) x0 + sigma eps: its model_sampling has a base CONST."""
    return any(base.__name__ == "CONST" for base in type(sampling_of(model)).__mro__)


def moved(levels: Array, means: Meaning, model: Any, flow: bool) -> Array:
    """The sigmas at which ComfyUI begins and ends: a flow model's log-SNR is infinite at 1, and UniPC's at 0."""
    levels = levels.copy()
    place = getattr(sampling_of(model), "percent_to_sigma", None)
    if flow and levels[0] >= 1 and place is not None and means.flow is None and not means.guided:
        levels[0] = float(place(FIRST))
    if levels[-1] == 0 and means.last:
        levels[-1] = means.last
    return levels


def noisy_window(model: Any, sch: Schedule, levels: Array) -> Window | None:
    """SA-Solver's eta where nothing else is said: 1 in steps that end at 20 % to 80 % of the model's time, else 0. None
    for models that do not know, which have noise everywhere."""
    place = getattr(sampling_of(model), "percent_to_sigma", None)
    if place is None:
        return None
    high, low = float(place(0.2)), float(place(0.8))
    inside = np.flatnonzero((low <= levels[1:]) & (levels[1:] <= high) & (levels[1:] > 0))
    if not len(inside):
        return Window(0.0)
    lam = np.asarray(sch.half_logsnr(levels[[inside[0], inside[-1] + 1]]))
    return Window(1.0, *lam.tolist())


def both_answers(model: Any, extra: dict[str, Any]) -> Callable[..., tuple[Any, Any]]:
    """A model of ComfyUI that gives its guided answer and that without guidance, which `extra`'s model_options let see;
    ValueError when it is asked and does not call their sampler_post_cfg_function."""
    seen: list[Any] = []

    def look(given: dict[str, Any]) -> Any:
        seen[:] = [given["uncond_denoised"]]
        return given["denoised"]

    chosen = dict(extra.get("model_options") or {})
    chosen["sampler_post_cfg_function"] = [*chosen.get("sampler_post_cfg_function", []), look]
    chosen["disable_cfg1_optimization"] = True

    def ask(x: Any, sigma: Any) -> tuple[Any, Any]:
        seen.clear()
        denoised = model(x, sigma, **{**extra, "model_options": chosen})
        if not seen:
            raise ValueError(
                "CFG++ needs a model of ComfyUI: one that calls the functions in model_options["
                '"sampler_post_cfg_function"] with its uncond_denoised'
            )
        return denoised, seen[0]

    return ask
