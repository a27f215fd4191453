"""The named stochastic solvers: reverse SDEs, ancestral samplers, jumps back to more noise, Langevin dynamics."""

from ..planners.ancestral import DDPM, AncestralDDIM, AncestralMidpoint
from ..planners.consistency import Consistency, TrajectoryConsistency
from ..planners.gauges import EPS, VELOCITY, VELOCITY_LAM, X0
from ..planners.jumps import Churn, Restart
from ..planners.langevin import AnnealedLangevin, PredictorCorrector, UnadjustedLangevin
from ..planners.multistep import Adams
from ..planners.singlestep import ExponentialRungeKutta
from ..planners.stochasticity import Smooth, er_sde
from ..planners.tableaux import DDIM, DPM_2, DPM_3, Tableau
from .solver import Planner, Solver

POSTERIOR = ("ddpm", "ddim-eta", "euler-a", "sde-dpmpp-1")
ETA, CHURN = ("eta",), ("s_churn", "s_tmin", "s_tmax", "s_noise")
SDE, ER = 1.0, Smooth(er_sde)


def _sde(name: str, summary: str, planner: Planner, *options: str, equals: tuple[str, ...] = ()) -> Solver:
    others = tuple(other for other in POSTERIOR if other != name) if name in POSTERIOR else equals
    return Solver(name, summary, planner, equals=others, options=options)


def _stages(gauge: object, tableau: Tableau) -> ExponentialRungeKutta:
    return ExponentialRungeKutta(tableau, gauge, SDE)  # type: ignore[arg-type]


STOCHASTIC = [
    _sde("ddpm", "DDPM: ancestral sampling; variance=, data_variance=", DDPM(), "variance", "data_variance"),
    _sde("ddim-eta", "DDIM with noise; eta= from 0, DDIM, to 1, DDPM", AncestralDDIM(), *ETA),
    _sde("euler-a", "Euler ancestral on x/alpha: ddim-eta by another name", AncestralDDIM(), *ETA),
    _sde("euler-maruyama", "Euler-Maruyama on the reverse SDE in t", Adams(VELOCITY, eta=SDE), *ETA),
    _sde("euler-maruyama-lam", "Euler-Maruyama on the reverse SDE in lam", Adams(VELOCITY_LAM, eta=SDE), *ETA),
    _sde("sde-dpmpp-1", "SDE-DPM-Solver++(1): exponential Euler, x0", Adams(X0, eta=SDE), *ETA),
    _sde("sde-dpmpp-2s", "exponential midpoint rule for the SDE, x0", _stages(X0, DPM_2), *ETA),
    _sde("sde-dpmpp-3s", "r1 = 1/3, r2 = 2/3 for the SDE, x0; the ODE part is third order", _stages(X0, DPM_3), *ETA),
    _sde("sde-dpmpp-2m", "SDE-DPM-Solver++(2M): exponential Adams for the SDE, x0 in lam", Adams(X0, 2, eta=SDE), *ETA),
    _sde(
        "sde-dpmpp-3m", "SDE-DPM-Solver++(3M) with the right sign: the ODE part is third order",
        Adams(X0, 3, eta=SDE), *ETA,
    ),
    _sde(
        "seeds-1", "SEEDS-1 = SDE-DPM-Solver-1: exponential Euler for the SDE, eps", _stages(EPS, DDIM), *ETA,
        equals=("sde-dpm-1",),
    ),
    _sde("sde-dpm-1", "SDE-DPM-Solver-1", _stages(EPS, DDIM), *ETA, equals=("seeds-1",)),
    _sde("seeds-2", "SEEDS-2: exponential midpoint rule for the SDE, eps", _stages(EPS, DPM_2), *ETA),
    _sde("seeds-3", "SEEDS-3: r1 = 1/3, r2 = 2/3, eps; the ODE part is third order", _stages(EPS, DPM_3), *ETA),
    *(
        _sde(f"sa-{p}", f"SA-Solver: Adams predictor of {p}, corrector of {p + 1} values; tau=",
             Adams(X0, p, eta=SDE, corrector=True), "tau", "pece")
        for p in (1, 2, 3, 4)
    ),
    *(
        _sde(f"er-sde-{p}", f"ER-SDE-Solver-{p}: x0 in sigma/alpha, its noise scale", Adams(X0, p, "rho", ER), *ETA)
        for p in (1, 2, 3)
    ),
    _sde("dpm2-a", "DPM-2 ancestral: midpoint in eps, then noise", AncestralMidpoint(EPS), *ETA),
    _sde("dpmpp-2s-a", "DPM-Solver++(2S) ancestral: midpoint in x0, then noise", AncestralMidpoint(X0), *ETA),
    _sde("lcm", "x0, then fresh noise: for consistency models", Consistency()),
    _sde("tcd", "DDIM to less noise, then fresh noise: for trajectory consistency", TrajectoryConsistency(), "gamma"),
    _sde("edm-churn", "EDM's stochastic sampler: noise up, Heun down", Churn(), *CHURN),
    _sde("restart", "Restart: Heun, and jumps back to more noise", Restart(), "intervals"),
    _sde("pc", "predictor-corrector: DDPM steps and Langevin steps", PredictorCorrector(), "snr", "corrections"),
    _sde("ald", "annealed Langevin dynamics on every level", AnnealedLangevin(), "step", "per_level"),
    _sde("ula", "unadjusted Langevin at the last level", UnadjustedLangevin(), "step"),
]  # fmt: skip
