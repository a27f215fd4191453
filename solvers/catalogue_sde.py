"""The named stochastic solvers: reverse SDEs, ancestral samplers, jumps back to more noise, Langevin dynamics."""

from functools import partial
from typing import Any

from .options import CHURN, DDPM, ETA, INTERVALS, PC, PER_LEVEL, SHARE, STEP, TAU, Option
from .planners.ancestral import ddim_eta, ddpm, midpoint
from .planners.gauges import EPS, VELOCITY, VELOCITY_LAM, X0
from .planners.jumps import edm_churn, restart
from .planners.langevin import ald, pc, ula
from .planners.multistep import multistep
from .planners.quadrature import Variable
from .planners.singlestep import single_step
from .planners.stochasticity import Smooth, Window, er_sde
from .planners.tableaux import DDIM, DPM_2, DPM_3
from .solver import Planner, Solver

SDE = Window(1.0)


def _sde_adams(
    name: str, values: int, summary: str, gauge: Any, var: Variable = "lam", *, eta: Any = SDE,
    option: Option = ETA, corrector: bool = False, **facts: Any,
) -> Solver:  # fmt: skip
    plan = partial(multistep, name=name, order=values, gauge=gauge, var=var, eta=eta, corrector=corrector)
    order = values + corrector
    return Solver(
        name, min(order, 2), summary, planner=plan, stochastic=True, options=(option,), ode_order=order, **facts
    )


def _sde_runge_kutta(name: str, summary: str, gauge: Any, tableau: Any, **facts: Any) -> Solver:
    plan = partial(single_step, name=name, gauge=gauge, tableau=tableau, eta=SDE)
    order = tableau.order
    return Solver(
        name, min(order, 2), summary, tableau.stages, plan, stochastic=True, options=(ETA,), ode_order=order, **facts
    )


def _stochastic(
    name: str, order: int, summary: str, planner: Planner, arguments: dict[str, Any], **facts: Any
) -> Solver:
    return Solver(name, order, summary, planner=partial(planner, name=name, **arguments), stochastic=True, **facts)


_POSTERIOR = ("ddpm", "ddim-eta", "euler-a", "sde-dpmpp-1")

STOCHASTIC = [
    _stochastic("ddpm", 1, "DDPM: ancestral sampling; variance=, data_variance=", ddpm, {"variance": 0.0}, options=DDPM,
                equals=tuple(n for n in _POSTERIOR if n != "ddpm")),
    *(
        _stochastic(name, 1, summary, ddim_eta, {"eta": 1.0}, options=(SHARE,), ode_order=1,
                    equals=tuple(n for n in _POSTERIOR if n != name))
        for name, summary in (
            ("ddim-eta", "DDIM with noise; eta= from 0, DDIM, to 1, DDPM"),
            ("euler-a", "Euler ancestral on x/alpha: ddim-eta by another name"),
        )
    ),
    _sde_adams("euler-maruyama", 1, "Euler-Maruyama on the reverse SDE in t", VELOCITY),
    _sde_adams("euler-maruyama-lam", 1, "Euler-Maruyama on the reverse SDE in lam", VELOCITY_LAM),
    _sde_adams("sde-dpmpp-1", 1, "SDE-DPM-Solver++(1): exponential Euler, x0", X0,
               equals=tuple(n for n in _POSTERIOR if n != "sde-dpmpp-1")),
    _sde_runge_kutta("sde-dpmpp-2s", "exponential midpoint rule for the SDE, x0", X0, DPM_2),
    _sde_adams("sde-dpmpp-2m", 2, "SDE-DPM-Solver++(2M): exponential Adams for the SDE, x0 in lam", X0),
    _sde_adams("sde-dpmpp-3m", 3, "SDE-DPM-Solver++(3M) with the right sign: the ODE part is third order", X0),
    _sde_runge_kutta("seeds-1", "SEEDS-1 = SDE-DPM-Solver-1: exponential Euler for the SDE, eps", EPS, DDIM,
                     equals=("sde-dpm-1",)),
    _sde_runge_kutta("sde-dpm-1", "SDE-DPM-Solver-1", EPS, DDIM, equals=("seeds-1",)),
    _sde_runge_kutta("seeds-2", "SEEDS-2: exponential midpoint rule for the SDE, eps", EPS, DPM_2),
    _sde_runge_kutta("seeds-3", "SEEDS-3: r1 = 1/3, r2 = 2/3, eps; the ODE part is third order", EPS, DPM_3),
    *(
        _sde_adams(f"sa-{p}", p, f"SA-Solver: Adams predictor of {p}, corrector of {p + 1} values; tau=", X0,
                   option=TAU, corrector=True)
        for p in (1, 2, 3, 4)
    ),
    *(
        _sde_adams(f"er-sde-{p}", p, f"ER-SDE-Solver-{p}: x0 in sigma/alpha, its noise scale", X0, "rho",
                   eta=Smooth(er_sde))
        for p in (1, 2, 3)
    ),
    *(
        _stochastic(name, 2, summary, midpoint, {"gauge": gauge, "eta": 1.0}, evaluations=2, options=(SHARE,),
                    ode_order=2)
        for name, summary, gauge in (
            ("dpm2-a", "DPM-2 ancestral: midpoint in eps, then noise", EPS),
            ("dpmpp-2s-a", "DPM-Solver++(2S) ancestral: midpoint in x0, then noise", X0),
        )
    ),
    _stochastic("edm-churn", 2, "EDM's stochastic sampler: noise up, Heun down", edm_churn,
                {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.0}, evaluations=2, options=CHURN),
    _stochastic("restart", 2, "Restart: Heun, and jumps back to more noise", restart,
                {"intervals": ((2, 0.06, 0.3), (1, 1.0, 5.0))}, evaluations=2, options=(INTERVALS,)),
    _stochastic("pc", 0, "predictor-corrector: DDPM steps and Langevin steps", pc, {"snr": 0.16, "corrections": 1},
                evaluations=2, options=PC),
    _stochastic("ald", 0, "annealed Langevin dynamics on every level", ald, {"step": 0.1, "per_level": 5},
                evaluations=5, options=(STEP, PER_LEVEL)),
    _stochastic("ula", 0, "unadjusted Langevin at the last level", ula, {"step": 0.1}, options=(STEP,)),
]  # fmt: skip
