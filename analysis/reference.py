"""Reference solutions of the PF-ODE: the endpoint to a requested accuracy, with an estimate of its error."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.schedules.base import Schedule

GROUP = 256  # samples integrated together: more share the overhead, but the stiffest sets the steps of all
FLOOR = 2.3e-14  # the least relative tolerance that scipy's DOP853 accepts


class Reference(NamedTuple):
    """`x`: the endpoint, float64. `error`: its estimated maximum absolute error."""

    x: torch.Tensor
    error: float


class HasPosterior(Protocol):
    """A problem, as far as this module needs it."""

    event_shape: torch.Size

    def posterior(self, x: torch.Tensor, alpha: Any, sigma: Any) -> tuple[torch.Tensor, torch.Tensor]: ...


Field = Callable[[torch.Tensor, float], torch.Tensor]


def reference_flow(
    source: Denoiser | HasPosterior, x: torch.Tensor, sch: Schedule, s: float, t: float, *, tol: float = 1e-10
) -> Reference:
    """Where the PF-ODE of a problem or a denoiser takes the states `x` from time s to time t.

    Integrated in float64 by DOP853 in the angle psi = atan2(alpha, sigma) for z = x / rho, rho^2 = alpha^2 +
    sigma^2, where the ODE reads dz/dpsi = cos(psi) x0 - sin(psi) eps. For a problem that is regular at both
    infinite ends of the log-SNR and does not depend on the schedule. The tolerance is tightened until two
    solutions, the tighter of which is returned, differ by at most `tol` rho_t, or nothing tighter exists;
    `error` is that difference, so an overestimate, and tells if `tol` was missed.

    A denoiser must answer in float64 for x (B, ...), and `sch` must be its schedule. Raises ValueError if it
    is not, for times outside the schedule's domain, for tol <= 0, and where the model's answer is not finite.
    """
    if not hasattr(source, "posterior"):
        check_denoiser(source, "source, if it has no posterior,")
    if not tol > 0:
        raise ValueError(f"tol = {tol}; it must be positive")
    for name, u in (("s", s), ("t", t)):
        if not sch.domain[0] <= u <= sch.domain[1]:
            raise ValueError(f"{name} = {u} is outside the domain {sch.domain} of {sch}")
    field = _field(source, sch)
    psi_s, psi_t = (math.atan2(sch.alpha(u), sch.sigma(u)) for u in (s, t))
    rho_s, rho_t = (math.hypot(sch.alpha(u), sch.sigma(u)) for u in (s, t))
    z = x.detach().to(torch.float64) / rho_s
    if not z.numel():
        return Reference(z.clone(), 0.0)

    def endpoint(tau: float) -> torch.Tensor:
        return rho_t * torch.cat([_integrate(field, part, psi_s, psi_t, tau) for part in _groups(z, source)])

    # Errors were seen to scatter between 3 and 70 times the local tolerance, hence two factors of 30: one to
    # meet tol, the other to make the finer solution's error small beside the difference.
    tau = max(tol / 30, 30 * FLOOR)
    coarse = endpoint(tau)
    while True:
        tau = max(tau / 30, FLOOR)
        fine = endpoint(tau)
        error = (fine - coarse).abs().max().item()
        if error <= tol * rho_t or tau == FLOOR:
            return Reference(fine.reshape(x.shape), error)
        coarse = fine


def _field(source: Denoiser | HasPosterior, sch: Schedule) -> Field:
    """dz/dpsi."""
    if not isinstance(source, Denoiser):

        def by_posterior(z: torch.Tensor, psi: float) -> torch.Tensor:
            x0, eps = source.posterior(z, math.sin(psi), math.cos(psi))
            return math.cos(psi) * x0 - math.sin(psi) * eps

        return by_posterior
    if source.schedule != sch:
        raise ValueError(f"sch = {sch}, but the denoiser was made for {source.schedule}")

    def by_v(z: torch.Tensor, psi: float) -> torch.Tensor:
        inside = 0 < psi < math.pi / 2
        u = sch.time(math.log(math.tan(psi)) if inside else math.copysign(math.inf, psi - 1))
        rho = math.hypot(sch.alpha(u), sch.sigma(u))
        return -source.v(rho * z, u) / rho  # v = alpha eps - sigma x0

    return by_v


def _groups(z: torch.Tensor, source: Denoiser | HasPosterior) -> tuple[torch.Tensor, ...]:
    if isinstance(source, Denoiser):
        return z.split(GROUP)
    return z.reshape(-1, *source.event_shape).split(GROUP)


def _integrate(field: Field, z: torch.Tensor, psi_s: float, psi_t: float, tau: float) -> torch.Tensor:
    def slope(psi: float, flat: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            dz = field(torch.from_numpy(flat).to(z.device).reshape(z.shape), psi)
        if not torch.isfinite(dz).all():
            raise ValueError(
                f"the slope dz/dpsi is not finite at psi = {psi:.6g} (atan2(alpha, sigma)), on the way from "
                f"{psi_s:.6g} to {psi_t:.6g}; start and end where the denoiser is defined"
            )
        return dz.cpu().numpy().ravel()

    if psi_s == psi_t:
        return z
    from scipy.integrate import solve_ivp  # half a second, for those who need it

    solution = solve_ivp(slope, (psi_s, psi_t), z.cpu().numpy().ravel(), method="DOP853", rtol=tau, atol=tau)
    if not solution.success:
        raise RuntimeError(f"the integrator gave up at psi = {solution.t[-1]}: {solution.message}")
    return torch.from_numpy(solution.y[:, -1]).to(z.device).reshape(z.shape)
