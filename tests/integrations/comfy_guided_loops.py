"""ComfyUI's samplers with CFG++ as plain loops, as in `comfy_loops`; and its other multistep RES."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

Loop = Callable[[Any, Any, list[float], Any], Any]


def ancestral(s: float, t: float, eta: float = 1.0) -> tuple[float, float]:
    up = min(t, eta * t * math.sqrt(s * s - t * t) / s)
    return math.sqrt(t * t - up * up), up


def euler_pp(eta: float) -> Loop:
    def loop(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
        for s, t in pairwise(sigmas):
            (x0, u), (down, up) = f(x, s), ancestral(s, t, eta)
            x = x0 + down / s * (x - u) + (up * z(s, t) if up else 0.0)
        return x

    return loop


def dpmpp_2m_pp(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
    old = None
    for n, (s, t) in enumerate(pairwise(sigmas)):
        x0, u = f(x, s)
        more = 0.0 if old is None or not t else (1 - t / s) * math.log(s / t) / (2 * math.log(sigmas[n - 1] / s))
        x, old = x0 + t / s * (x - u) + (more * (x0 - old) if more else 0.0), u
    return x


def gradient_pp(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
    old = None
    for s, t in pairwise(sigmas):
        x0, u = f(x, s)
        d = (x - u) / s
        x = x0 + t * d + ((t - s) * (d - old) if old is not None and t else 0.0)
        old = d
    return x


def dpmpp_2s_pp(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
    for s, t in pairwise(sigmas):
        (x0, u), (down, up) = f(x, s), ancestral(s, t)
        if down == 0:
            return x0
        mid = math.sqrt(s * down)
        two, v = f(mid / s * (x + x0 - u) + (1 - mid / s) * x0, mid)
        x = down / s * (x + x0 - v) + (1 - down / s) * two + up * z(s, t)
    return x


def res(eta: float, guided: bool) -> Loop:
    def loop(f: Any, x: Any, sigmas: list[float], z: Any) -> Any:
        old, ended = None, 0.0
        for n, (s, t) in enumerate(pairwise(sigmas)):
            (x0, u), (down, up) = f(x, s), ancestral(s, t, eta)
            u = u if guided else x0
            if down == 0 or old is None:
                x = x0 + down / s * (x - u)
            else:
                h, c2 = math.log(s / down), math.log(ended / sigmas[n - 1]) / math.log(s / down)
                one, two = -math.expm1(-h), 1 + math.expm1(-h) / h
                x = down / s * (x + x0 - u) + (one - two / c2) * u + two / c2 * old
            x, old, ended = x + (up * z(s, t) if up else 0.0), u, down
        return x

    return loop
