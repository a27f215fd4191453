"""The arguments of sample: ends of every kind of number, and all that cannot work."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import nameless

import logsnr

SCH = logsnr.VPLinear()
DEN = logsnr.Denoiser(lambda x, t: 1 / 0, SCH)
X = torch.ones(2, 3)
WRONG = [
    ({"steps": 0}, ValueError, "at least 1, not 0"),
    ({"steps": -1}, ValueError, "at least 1, not -1"),
    ({"steps": 4.0}, ValueError, "steps must be an integer of at least 1, not 4.0"),
    ({"steps": True}, ValueError, "not True"),
    ({}, ValueError, "either steps or nfe"),
    ({"steps": 3, "nfe": 3}, ValueError, "either steps or nfe"),
    ({"nfe": 0}, ValueError, "nfe must be an integer of at least 1, not 0"),
    ({"nfe": 3.0}, ValueError, "nfe must be an integer of at least 1, not 3.0"),
    ({"nfe": 3, "solver": "rk4"}, ValueError, "rk4 needs at least 4"),
    ({"steps": 3, "solver": "dpmpp2m"}, ValueError, "unknown; did you mean 'dpmpp-2m'"),
    ({"steps": 3, "solver": None}, ValueError, "choose from ddim"),
    ({"steps": 3, "grid": "logsn"}, ValueError, "did you mean 'logsnr'"),
    ({"steps": 3, "solver": ["ddim"]}, ValueError, "unknown; did you mean 'ddim'"),
    ({"steps": 3, "grid": 3}, ValueError, "name or a 1-D array"),
    ({"grid": {1: 2}}, ValueError, "name or a 1-D array of times, not {1: 2}"),
    ({"grid": [[1.0], [0.5, 0.1]]}, ValueError, "name or a 1-D array"),
    ({"steps": 3, "t_start": "a"}, ValueError, "t_start must be a number, not 'a'"),
    ({"steps": 3, "t_start": np.array([1.0])}, ValueError, "t_start must be a number or have shape"),
    ({"steps": 3, "t_start": torch.ones(1)}, ValueError, "t_start must be a number or have shape"),
    ({"steps": 3, "t_end": [0.1]}, ValueError, "t_end must be a number, not .0.1."),
    ({"rtol": 1e-3, "solver": "dopri5", "startup": "fast"}, ValueError, "'ramp' or 'single-step', not 'fast'"),
    ({"steps": 3, "grid": [1.0, 0.5]}, ValueError, "an array of times is the whole grid"),
    ({"t_end": 0.1, "grid": [1.0, 0.5]}, ValueError, "an array of times is the whole grid"),
    ({"grid": [1.0, 0.5, 0.5]}, ValueError, "duplicate"),
    ({"grid": [1.0, 0.5, 0.6]}, ValueError, "not monotone"),
    ({"grid": [1.1, 0.5]}, ValueError, "outside"),
    ({"grid": [1.0, float("nan")]}, ValueError, "not finite"),
    ({"grid": [[1.0, 0.5]]}, ValueError, "1-D"),
    ({"steps": 3, "t_start": 2.0}, ValueError, "t_start = 2.0 to t_end = 0.001: .* outside"),
    ({"steps": 3, "t_start": 0.1, "t_end": 0.1}, ValueError, "duplicate"),
    ({"steps": 3, "startup": "fast"}, ValueError, "'ramp' or 'single-step', not 'fast'"),
    ({"steps": 3, "rtol": 1e-3}, ValueError, "rtol and atol are for adaptive solvers; auto"),
    ({"steps": [3]}, ValueError, r"steps must be an integer of at least 1, not \[3\]"),
    ({"nfe": np.array(3)}, ValueError, r"nfe must be an integer of at least 1, not array\(3\)"),
    ({"steps": 3, "solver": "pc", "snr": 1e200}, ValueError, "snr = 1e.200 must be a number from 0 to 1e100"),
    ({"steps": 3, "solver": "sde-dpmpp-2m", "tau": 1}, ValueError, "tau = 1 is not an option .* it has eta$"),
    ({"steps": 3, "callback": 3}, TypeError, "callback must be a callable"),
    ({"steps": 3, "solver": "pc", "corrections": 0}, ValueError, "corrections = 0 must be an integer of at least 1$"),
    ({"steps": 3, "solver": "ula", "step": 1e300}, ValueError, "coefficient at t = 0.001 is .*, too large for a state"),
    ({"steps": 3, "x": X.int()}, ValueError, "must be a float tensor"),
    ({"steps": 3, "x": X + 0j, "den": logsnr.Denoiser(torch.nn.Linear(3, 3).half(), SCH)}, ValueError, "complex"),
    ({"steps": 3, "x": X.numpy()}, TypeError, "must be a torch tensor, not ndarray"),
    ({"steps": 3, "x": X[0, 0]}, ValueError, "batch dimension"),
    ({"steps": 3, "x": X.to_sparse()}, ValueError, "dense"),
    ({"steps": 3, "den": lambda x, t: x}, TypeError, "must be a logsnr.Denoiser, not function"),
    ({"steps": 3, "den": logsnr.Denoiser(torch.nn.Linear(3, 3, device="meta"), SCH)}, ValueError, "on meta"),
]


@pytest.mark.parametrize("kind", [np.float32, np.array, torch.tensor])
def test_ends_may_be_any_kind_of_number(kind: Callable[[float], Any]) -> None:
    """A tensor is read at every call, so it may change between two."""
    den = logsnr.Denoiser(lambda x, t: x, SCH)
    wanted = [logsnr.sample(den, X, steps=2, t_end=t) for t in (0.5, 0.25)]
    end = kind(0.5)
    assert torch.equal(logsnr.sample(den, X, steps=2, t_end=end), wanted[0])
    end /= 2
    assert torch.equal(logsnr.sample(den, X, steps=2, t_end=end), wanted[1])


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=nameless)
def test_wrong_arguments(options: dict, error: type[Exception], message: str) -> None:
    """Every argument that cannot work is refused before the model is called, and the message names it."""
    for _ in "ab":  # a failure is not remembered as a success, nor the other way round
        with pytest.raises(error, match=message):
            logsnr.sample(**{"den": DEN, "x": X, **options})
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), X, steps=4)
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), X, steps=1)
