"""Networks that jump along the PF-ODE, and how to sample with them (book, chapter 11).

A flow map is ``Phi_{s->t}``, which takes a state at s to where the PF-ODE has it at t. A DDIM step is one with a frozen
answer (`one_step`), so the published parametrisations are DDIM steps whose network knows where the step ends:

============== ================================================================ =================================
prediction     the network's answer G                                           x_t
============== ================================================================ =================================
state          Phi_{s->t}(x) itself; f of consistency models (Song et al. 2023) G
x0             g of CTM (Kim et al. 2024), on every schedule                    DDIM's, (t/s) x + (1 - t/s) G for EDM
v              sd F of TrigFlow (Lu and Song 2025)                              cos(s - t) x - sin(s - t) G
mean-velocity  u of MeanFlow (Geng et al. 2025)                                 x + (t - s) G
============== ================================================================ =================================

eps and velocity are DDIM's too. All are the identity at s = t, but for "state", where that is up to the network.

Every sampler is one: at each node jump to the time r whose sigma/alpha is sqrt(1 - gamma^2) that of the node t, then
add noise up to t,

    x_t = (alpha_t / alpha_r) Phi_{s->r}(x_s) + gamma sigma_t xi.

With the exact map all marginals are exact, for any gamma and grid. gamma = 0 is the ODE. gamma = 1 is the multistep
sampling of consistency models: r is the clean end. CTM's published form, ``r = sqrt(1 - gamma^2) t``
without the factor (book, Algorithm 11), is this for alpha = 1, sigma = t, and has wrong marginals on other schedules.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..kernels import Noise, standard_normals
from ..solvers.arrays import Array
from ..solvers.denoisers.answers import CHANGED, check_output, check_state, written
from ..solvers.denoisers.complex_states import from_parts, of_parts, to_parts
from ..solvers.denoisers.conditions import check_rows
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.denoisers.heads import network_rate
from ..solvers.grids.grids import check_grid, end_time
from ..solvers.names import nearest
from ..solvers.planners.checks import count, flag, number
from ..solvers.programs.call import NoiseKey
from ..solvers.runs.normals import Seed, drawn_seed, seeds_of
from ..solvers.runs.run import recording
from ..solvers.runs.solution import Solution, finished
from ..solvers.schedules.base import Schedule, check_schedule
from .one_step import coefficients, linear, span, visible

HEADS = ("x0", "eps", "v", "velocity")
PREDICTIONS = ("state", *HEADS, "mean-velocity")


class FlowMap:
    """A trained flow map and what it means.

    model:      model(x, s, t, **conditions), which takes x (B, ...) from times s to times t, both (B,), and returns a
                tensor like x; with ``ends=False``, model(x, s, **conditions), a consistency model.
    schedule:   a `Schedule`.
    prediction: what the model returns, one of the table above.
    ends:       whether the model is told t. One that is not jumps to ``clean``, and nowhere else.
    clean:      the cleanest time, where data is: by default where sigma is least. The consistency models of Song et al.
                have ``EDM().sigma_min``.
    time, dtype, conditions: as for `logsnr.Denoiser`; ``time`` is for both s and t.

    A flow map holds no state. Raises ValueError and TypeError for arguments that do not fit.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        schedule: Schedule,
        prediction: str = "state",
        *,
        ends: bool = True,
        clean: float | None = None,
        time: Any = "t",
        dtype: torch.dtype | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        check_schedule(schedule)
        flag("ends", ends)
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction = {prediction!r} is not one of a flow map{nearest(prediction, PREDICTIONS)}")
        self._told = Denoiser(model, schedule, time=time, dtype=dtype, conditions=conditions)  # its checks and dtypes
        self.model, self.schedule, self.prediction, self.ends = model, schedule, prediction, ends
        least = min(schedule.domain, key=schedule.sigma)
        found = end_time("clean", clean)
        self.clean = least if found is None else found
        low, high = schedule.domain
        if not low <= self.clean < high:
            raise ValueError(
                f"clean = {self.clean:.6g} must be a time of {schedule}, from {low:.6g} to below {high:.6g}"
            )

    def __repr__(self) -> str:
        told = "" if self.ends else ", ends=False"
        return f"FlowMap({type(self.model).__name__}, {self.schedule}, prediction={self.prediction!r}{told})"

    def __call__(self, x: torch.Tensor, s: Any, t: Any = None) -> torch.Tensor:
        """Phi_{s->t}(x): x (B, ...), floating or complex, s and t numbers or (B,), t by default ``clean``; like x, with
        gradients to x and the weights. Raises ValueError for times in the wrong order or outside the schedule, and for
        a t that a consistency model does not know."""
        check_state(x, complex_too=True)
        if x.is_complex():
            return from_parts(self._of_parts(x)(to_parts(x), s, t))
        check_rows("conditions", self._told.conditions, len(x))
        s, t = span(self.schedule, x, s, self.clean if t is None else t)
        if not self.ends and visible(t) and not bool((t == self.clean).all()):
            raise ValueError(
                f"this map is not told where it ends: it jumps to clean = {self.clean:.6g} only, not to "
                f"t = {float(t[t != self.clean][0]):.6g}"
            )
        return self._jump(x, s, t).to(x.dtype)

    def _of_parts(self, x: torch.Tensor) -> "FlowMap":
        """The map of the parts of complex states like ``x``."""
        other = copy(self)
        other._told = of_parts(self._told, x)
        other.model = other._told.model
        return other

    def _jump(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told, seen = self._told, x.to(self._told.dtype(x))
        times = [told.model_times(time, x).to(x.device) for time in ((s, t) if self.ends else (s,))]
        wide = told.state_dtype(x)
        version = written(seen)
        answer = check_output(self.model(seen, *times, **told.conditions), seen).to(wide)
        if written(seen) != version:
            raise ValueError(CHANGED)
        if self.prediction == "state":
            return answer
        if self.prediction == "mean-velocity":
            return linear(x.to(wide), answer, torch.ones_like(s), self.schedule.clock_rate * (t - s))
        rate = network_rate(self.prediction, self.schedule)
        return linear(x.to(wide), rate * answer, *coefficients(self.prediction, self.schedule, s, t))

    def times(self, steps: int = 1, *, t_start: float | None = None, t_end: float | None = None) -> Array:
        """``steps + 1`` times, equal parts of the angle atan(sigma/alpha), which suits data of unit variance: on the
        circle of TrigFlow they are equal in time, and on the flow-matching path nearly so. From the schedule's start
        to ``clean`` unless told otherwise."""
        sch, steps = self.schedule, count("steps", steps)
        given = end_time("t_start", t_start), end_time("t_end", t_end)
        ends = [default if t is None else t for t, default in zip(given, (sch.t_start, self.clean), strict=True)]
        ends = check_grid(sch, ends).tolist()
        first, last = (float(np.arctan2(sch.sigma(t), sch.alpha(t))) for t in ends)
        with np.errstate(divide="ignore"):
            inner = np.asarray(sch.time(-np.log(np.tan(np.linspace(first, last, steps + 1)[1:-1]))))
        return np.array([ends[0], *inner, ends[1]])

    def sample(
        self,
        x: torch.Tensor,
        steps: int | None = None,
        *,
        grid: Any = None,
        t_start: float | None = None,
        t_end: float | None = None,
        gamma: float | None = None,
        seed: Seed | None = None,
        sample_ids: Iterable[int] | None = None,
        grad: bool = False,
    ) -> torch.Tensor:
        """Jump from ``x`` (B, ...) at the first node of the grid to its last; like x. One evaluation a step.

        steps: 1 by default, on `times`; or  grid: times, which must decrease.
        gamma: from 0, the ODE, to 1, to the clean end and back at each node. 0 by default; a consistency model has 1.
        seed, sample_ids: of the noise, as for `logsnr.solve`: addressed by interval, so that gamma = 1 has the noise of
               ``solver="lcm"``. By default drawn from torch's own numbers.
        grad:  record gradients to the weights; those to x are recorded where it requires them.

        Raises ValueError for arguments that do not fit, and NonFiniteError where the result is not finite.
        """
        check_state(x, complex_too=True)
        if x.is_complex():
            options: dict[str, Any] = dict(grid=grid, t_start=t_start, t_end=t_end, gamma=gamma, grad=grad)
            options |= dict(seed=seed, sample_ids=sample_ids)
            return from_parts(self._of_parts(x).sample(to_parts(x).contiguous(), steps, **options))
        check_rows("conditions", self._told.conditions, len(x))
        flag("grad", grad)
        times, gamma = self._grid(steps, grid, t_start, t_end), self._gamma(gamma)
        if seed is None:
            seed = drawn_seed() if gamma > 0 and len(times) > 2 else 0
        seeds = seeds_of(len(x), x.device, seed, sample_ids)
        state = x.to(self._told.state_dtype(x))
        with recording(x, grad):
            for (s, t), (r, scale, std) in zip(pairwise(times.tolist()), self._parts(times, gamma), strict=True):
                state = scale * self._jump(state, *span(self.schedule, x, s, r))
                if std:
                    noise = Noise(*seeds, (NoiseKey(s, t).address,))
                    state = state + self._told.spread * std * standard_normals(noise, 0, state).to(state.dtype)
        return finished(Solution(state, len(times) - 1, len(times) - 1, times), x, keep=False).x

    def _grid(self, steps: int | None, grid: Any, t_start: float | None, t_end: float | None) -> Array:
        if grid is None:
            times = self.times(1 if steps is None else steps, t_start=t_start, t_end=t_end)
        elif isinstance(grid, str) or not (steps is t_start is t_end is None):
            raise ValueError("grid is an array of times, which leaves out steps, t_start and t_end")
        else:
            times = check_grid(self.schedule, grid)
        if times[0] < times[-1]:
            raise ValueError(
                f"a flow map is sampled from noise to data: times must decrease, but go from {times[0]:.6g} to "
                f"{times[-1]:.6g}"
            )
        if times[-1] < self.clean:
            raise ValueError(f"the last time, {times[-1]:.6g}, is cleaner than clean = {self.clean:.6g}")
        return times

    def _gamma(self, gamma: float | None) -> float:
        if gamma is None:
            return 0.0 if self.ends else 1.0
        found = number("gamma", gamma, 0.0, 1.0, "a number from 0 (the ODE) to 1 (consistency sampling)")
        if found < 1 and not self.ends:
            raise ValueError(f"gamma = {gamma} needs a map that is told where it ends; this one has gamma = 1")
        return found

    def _parts(self, times: Array, gamma: float) -> list[tuple[float, float, float]]:
        """By step: where to jump, what to multiply by, and how much noise to add."""
        sch, t = self.schedule, times[1:]
        if gamma == 0:
            return [(float(time), 1.0, 0.0) for time in t]
        alpha, sigma, highest = sch.alpha(t), sch.sigma(t), float(sch.half_logsnr(self.clean))
        with np.errstate(divide="ignore"):
            lam = sch.half_logsnr(t) - np.log((1 - gamma) * (1 + gamma)) / 2
        inside = lam < highest
        r = np.where(inside, sch.time(np.minimum(lam, highest)), self.clean)
        scale = alpha / sch.alpha(r)
        left = scale * sch.sigma(r)  # the noise that is left by a jump to the clean end
        std = np.where(inside, gamma * sigma, np.sqrt(np.clip((sigma - left) * (sigma + left), 0, None)))
        return list(zip(r.tolist(), scale.tolist(), std.tolist(), strict=True))
