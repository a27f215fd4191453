"""ComfyUI's samplers as plain loops from their formulas: loop(f, x, sigmas, z) with f(x, sigma) -> (x0, x0 without
guidance) and z(s, t) the noise of a step. All have alpha = 1."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from comfy_guided_loops import Loop, ancestral, dpmpp_2m_pp, dpmpp_2s_pp, euler_pp, gradient_pp, res


def multistep(weigh: Callable[[list[float], int], list[float]], most: int) -> Loop:
    """x + sum of w_j d_(n-j), of the slopes d = (x - x0) / sigma, and Euler to 0."""

    def loop(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
        old: list[Any] = []
        for n, (s, t) in enumerate(pairwise(sigmas)):
            old = [(x - f(x, s)[0]) / s, *old][:most]
            w = weigh(sigmas, n) if t and n else [t - s]
            x = x + sum(a * d for a, d in zip(w, old, strict=False))
        return x

    return loop


def deis(sigmas: list[float], n: int) -> list[float]:
    """Lagrange in the time of the VP schedule, 10^4 points of the integral of d sigma."""
    low, high = math.log(float(np.float32(1) + np.float32(0.002) ** 2)), math.log(6401)
    d = 2 * (low / 1e-3 - high) / (1e-3 - 1)
    m = high - d / 2
    time = [(math.sqrt(m * m + 2 * d * math.log1p(s * s)) - m) / d for s in sigmas]
    tau = np.linspace(time[n], time[n + 1], 10_000)
    bar = np.exp(-(d * tau * tau / 2 + m * tau))
    slope = (d * tau + m) / 2 / np.sqrt(bar * (1 - bar))
    nodes, weights = time[max(n - 2, 0) : n + 1][::-1], []
    for u in nodes:
        basis = math.prod((tau - v) / (u - v) for v in nodes if v != u)
        weights.append(float((slope * basis).sum()) * (time[n + 1] - time[n]) / 10_000)
    return weights


def ipndm_v(sigmas: list[float], n: int) -> list[float]:
    """Weights as code has them, with its h_1 / h_2 where h_2 / h_3 would be right in the last."""
    h = [sigmas[n + 1 - j] - sigmas[n - j] for j in range(min(n, 3) + 1)]
    w = np.array([1 + h[0] / h[1] / 2, -h[0] / h[1] / 2, 0, 0])
    if n > 1:
        one = (1 - h[0] / (3 * (h[0] + h[1])) * (h[0] * (h[0] + h[1])) / (h[1] * (h[1] + h[2]))) / 2
        w += one * np.array([1, -1 - h[1] / h[2], h[1] / h[2], 0])
    if n > 2:
        a, b, c = h[0] + h[1], h[0] + h[1] + h[2], h[1] + h[2]
        two = ((1 - h[0] / (3 * a)) / 2 + (1 - h[0] / (2 * a)) * h[0] / (6 * b)) * (h[0] * a * b)
        two /= h[1] * c * (c + h[3])
        q = h[1] * c / (h[2] * (h[2] + h[3]))
        w += two * np.array([1, -1 - h[1] / h[2] - q, h[1] / h[2] + q * (1 + h[2] / h[3]), -q * h[1] / h[2]])
    return list(h[0] * w)


def unipc(variant: str) -> Loop:
    """Zhao et al. 2023, Algorithms 5 and 6: solves R rho = b; ends at 0.001."""

    def rho(r: list[float], h: float, scale: float) -> Any:
        if len(r) == 1:
            return np.array([0.5])
        phi, b = math.expm1(-h) / -h - 1, []
        for k in range(1, len(r) + 1):
            b.append(phi * math.factorial(k) / scale)
            phi = phi / -h - 1 / math.factorial(k + 1)
        return np.linalg.solve(np.array([np.power(r, k) for k in range(len(r))]), b)

    def loop(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
        sigmas = [s or 1e-3 for s in sigmas]
        lam, steps, old = [-math.log(s) for s in sigmas], len(sigmas) - 1, [f(x, sigmas[0])[0]]
        for n in range(steps):
            p, h = min(3, n + 1, steps - n), lam[n + 1] - lam[n]
            scale = -h if variant == "bh1" else math.expm1(-h)
            r = [(lam[n - k] - lam[n]) / h for k in range(1, p)]
            d = [(old[-1 - k] - old[-1]) / r[k - 1] for k in range(1, p)]
            first = math.exp(-h) * x - math.expm1(-h) * old[-1]
            x = first - scale * sum(a * b for a, b in zip(rho(r, h, scale) if r else [], d, strict=True))
            if n < steps - 1:
                new = f(x, sigmas[n + 1])[0]
                d.append(new - old[-1])
                x = first - scale * sum(a * b for a, b in zip(rho([*r, 1.0], h, scale), d, strict=True))
                old.append(new)
        return x

    return loop


def dpmpp_sde(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
    for s, t in pairwise(sigmas):
        one = f(x, s)[0]
        if t == 0:
            return one
        mid = math.sqrt(s * t)
        down, up = ancestral(s, mid)
        two = f(down / s * x + (1 - down / s) * one + up * z(s, mid), mid)[0]
        down, up = ancestral(s, t)
        x = down / s * x + (1 - down / s) * two + up * z(s, t)
    return x


def er_sde(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
    scale = lambda u: u * (np.exp(u**0.3) + 10)  # noqa: E731
    old: list[Any] = []
    for n, (s, t) in enumerate(pairwise(sigmas)):
        x0 = f(x, s)[0]
        if t == 0:
            return x0
        r, u = scale(t) / scale(s), t + np.arange(200) * (s - t) / 200
        x = r * x + (1 - r) * x0 + math.sqrt(t * t - (s * r) ** 2) * z(s, t)
        slope = (x0 - old[-1][0]) / (s - sigmas[n - 1]) if old else None
        if old:
            x = x + (t - s + scale(t) * np.mean(1 / scale(u)) * (s - t)) * slope
        if n > 1:
            bend = (slope - old[-1][1]) / ((s - sigmas[n - 2]) / 2)
            x = x + ((t - s) ** 2 / 2 + scale(t) * np.mean((u - s) / scale(u)) * (s - t)) * bend
        old.append((x0, slope))
    return x


def seeds(nodes: tuple[float, ...]) -> Loop:
    """SEEDS with data prediction, eta = 1; three stages if there are two nodes."""

    def loop(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
        for s, t in pairwise(sigmas):
            values = [f(x, s)[0]]
            if t == 0:
                return values[0]
            h, noise, last, at = math.log(s / t), 0.0, s, 0.0
            for c in (*nodes, 1.0):
                end, e = s * math.exp(-c * h), math.exp(-2 * c * h)
                phi2 = (math.expm1(-2 * c * h) + 2 * c * h) / (2 * c * h)  # h phi_2
                share = 0.0 if len(values) == 1 else phi2 * c / at if len(nodes) > 1 else (1 - e) / (2 * nodes[0])
                noise = noise * math.exp((at - c) * h) + math.sqrt(-math.expm1(2 * (at - c) * h)) * z(last, end)
                new = e * x + (1 - e) * values[0] + share * (values[-1] - values[0]) + end * noise
                last, at = end, c
                values.append(f(new, end)[0]) if c < 1 else None
            x = new
        return x

    return loop


def sa_solver(twice: bool) -> Loop:
    """Xue et al. 2023, Algorithm 1, with tau = 1 in some steps: orders 3 and 4, fewer at the end."""

    def weights(nodes: list[float], a: float, b: float, tau: float) -> Any:
        x, w = np.polynomial.legendre.leggauss(40)
        u, k = a + (x + 1) * (b - a) / 2, 1 + tau * tau
        base = [math.prod((u - v) / (c - v) for v in nodes if v != c) * np.ones_like(u) for c in nodes]
        return [float((w * k * np.exp(k * (u - b)) * y).sum() * (b - a) / 2) * math.exp(b) for y in base]

    def loop(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
        lam, n = [-math.log(s) for s in sigmas[:-1]], len(sigmas) - 1
        guess, old, tau, noise = x, list[Any](), 0.0, 0.0
        for i in range(n):
            old.append(f(guess, sigmas[i])[0])
            use = min(4, i + 1, n - i)
            if i == 0 or (i == n - 1 and not twice):
                x = guess
            else:
                s, t, h = sigmas[i - 1], sigmas[i], lam[i] - lam[i - 1]
                w = weights(lam[i - use + 1 : i + 1], lam[i - 1], lam[i], tau)
                x = t / s * math.exp(-tau * tau * h) * x + noise
                x = x + t * sum(a * b for a, b in zip(w, old[-use:], strict=True))
                if twice:
                    old[-1] = f(x, t)[0]
            if i == n - 1:
                return old[-1]
            s, t, h = sigmas[i], sigmas[i + 1], lam[i + 1] - lam[i]
            use, tau = min(3, i + 1, n - 1 - i), float(0.5 <= t <= 5)
            w = weights(lam[i - use + 1 : i + 1], lam[i], lam[i + 1], tau)
            noise = t * math.sqrt(-math.expm1(-2 * tau * tau * h)) * z(s, t)
            guess = t / s * math.exp(-tau * tau * h) * x + noise
            guess = guess + t * sum(a * b for a, b in zip(w, old[-use:], strict=True))
        return guess

    return loop


def heunpp2(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
    for n, s in enumerate(sigmas[:-1]):
        y, slopes, ends = x, list[Any](), sigmas[n : n + 3]
        for k, u in enumerate(ends if len(ends) == 3 and n + 3 < len(sigmas) else ends[:-1]):
            slopes.append((y - f(y, u)[0]) / u)
            y = y + (sigmas[n + k + 1] - u) * slopes[-1]
        w = [u / (len(slopes) * sigmas[0]) for u in ends[1 : len(slopes)]]
        x = x + (ends[1] - s) * ((1 - sum(w)) * slopes[0] + sum(a * d for a, d in zip(w, slopes[1:], strict=True)))
    return x


LOOPS: dict[str, Loop] = {
    "uni_pc": unipc("bh1"), "uni_pc_bh2": unipc("bh2"), "deis": multistep(deis, 3), "ipndm_v": multistep(ipndm_v, 4),
    "dpmpp_sde": dpmpp_sde, "dpmpp_sde_gpu": dpmpp_sde, "er_sde": er_sde, "seeds_2": seeds((0.5,)),
    "seeds_3": seeds((1 / 3, 2 / 3)), "sa_solver": sa_solver(False), "sa_solver_pece": sa_solver(True),
    "heunpp2": heunpp2, "euler_cfg_pp": euler_pp(0.0), "euler_ancestral_cfg_pp": euler_pp(1.0),
    "dpmpp_2m_cfg_pp": dpmpp_2m_pp, "gradient_estimation_cfg_pp": gradient_pp,
    "dpmpp_2s_ancestral_cfg_pp": dpmpp_2s_pp, "res_multistep_cfg_pp": res(0.0, True),
    "res_multistep_ancestral": res(1.0, False), "res_multistep_ancestral_cfg_pp": res(1.0, True),
}  # fmt: skip
