"""`tune`: the precision that a model is shown, and the levels that it knows."""

import math
from functools import partial

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis import GaussianMixture
from logsnr.solvers.tuning.family import Shared
from logsnr.solvers.tuning.numbers import Numbers

SCH = logsnr.VPLinear()
DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.6]], 0.04)
DEN = DATA.denoiser(SCH)


class Seen(torch.nn.Module):
    """The mixture's model in the precision of its one weight, which its input must have."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=dtype), requires_grad=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert x.dtype == self.weight.dtype
        answer: torch.Tensor = DEN.model(x.double(), t.double()).to(x.dtype)
        return answer


@pytest.mark.filterwarnings("ignore:the error on held-out noise")
@pytest.mark.parametrize("kind", ["module", "function"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_model_sees_its_own_precision(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its weights, or of a function that of x; around it all is float64."""
    monkeypatch.setattr("logsnr.solvers.tuning.teacher.STEPS", 8)
    monkeypatch.setattr("logsnr.solvers.tuning.teacher.DOUBLINGS", 1)
    net = Seen(dtype)
    den = logsnr.Denoiser(net if kind == "module" else lambda x, t: net(x, t), SCH, DEN.prediction)
    x = logsnr.start(SCH, (64, 2), seed=0).to(torch.float32 if kind == "module" else dtype)
    told = logsnr.tune(den, x, 3, gauge="x0", iterations=3).provenance
    assert float(told["held-out median"]) < float(told["start's median"])


BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
TABLE = logsnr.Discrete(np.cumprod(1 - BETAS))
LEVEL = float(TABLE.half_logsnr(0.0))


@pytest.mark.parametrize("options", [{}, {"told": True}, {"consistent": True}, {"together": 2}, {"shared": True}])
@pytest.mark.parametrize("end", [math.inf, LEVEL + 0.5])
def test_no_numbers_ask_beyond_the_last_level(options: dict, end: float) -> None:
    """Whatever they are, nodes rise to below it; and without being told of it they do not."""
    lam = np.array([-2.7, -1.0, 0.0, 1.5, LEVEL, end])[1 if options == {"together": 2} else 0 :]
    make = partial(Shared, "x0", 2, lam) if options == {"shared": True} else partial(Numbers, "x0", 2, lam, **options)
    beyond = []
    for level in (LEVEL, math.inf):
        numbers = make(level=level)
        q = torch.from_numpy(np.random.default_rng(0).normal(size=(20, numbers.size)))
        found = [numbers(numbers_q) for numbers_q in q]
        assert all((rows.lam.diff() > 0).all() for rows in found)
        beyond.append(any(bool((torch.cat([rows.lam[:-1], rows.told]) > LEVEL + 1e-12).any()) for rows in found))
    assert beyond == [False, True]


def test_a_fit_on_a_table_stays_among_its_entries() -> None:
    asked: list[float] = []
    exact = DATA.denoiser(TABLE, "eps")

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t.min()))
        return exact.model(x, t)

    x = logsnr.start(TABLE, (64, 2), seed=0, dtype=torch.float64)
    ends = DATA.reference(x, TABLE, 999.0, -1.0)
    program = logsnr.tune(logsnr.Denoiser(model, TABLE, "eps"), x, 3, gauge="x0", iterations=3, told=True,
                          reference=ends)  # fmt: skip
    assert program.grid[-1] == -1
    assert min(*asked, *(call.t for call in program), *program.grid[:-1]) >= 0
    assert float(program.provenance["held-out median"]) < 0.5 * float(program.provenance["start's median"])
