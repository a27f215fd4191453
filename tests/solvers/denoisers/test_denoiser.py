"""Denoiser: every head into every head against the closed-form Gaussian posterior, times, dtypes, bad
input."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.solvers.denoisers.heads import HEADS

SCHEDULES = [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM(), logsnr.Trigonometric(), logsnr.VE()]
PROBLEM = Gaussian(0.7, 0.25)
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16


def exact(sch: logsnr.Schedule, head: str, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Book Prop. 6.3.1 from the closed-form E[x0 | x] and E[eps | x]."""
    t = t.double()
    a, s, da, ds = (f(t).reshape(-1, *[1] * (x.dim() - 1)) for f in (sch.alpha, sch.sigma, sch.dalpha, sch.dsigma))
    x0, eps = PROBLEM.posterior(x.double(), sch.alpha(t), sch.sigma(t))
    answers = {"x0": x0, "eps": eps, "v": a * eps - s * x0, "velocity": da * x0 + ds * eps, "score": -eps / s}
    return answers[head].to(x.dtype)


def model(sch: logsnr.Schedule, head: str) -> object:
    return lambda x, t: exact(sch, head, x, t)


@pytest.mark.parametrize(("sch", "prediction"), sampled(SCHEDULES, HEADS, every=2))
def test_heads(sch: logsnr.Schedule, prediction: str) -> None:
    """From any of the five heads the Denoiser gives each of the five, at one time or at a time per sample."""
    den = logsnr.Denoiser(model(sch, prediction), sch, prediction)  # type: ignore[arg-type]
    low, high = sch.domain
    t = torch.linspace(low + 0.1 * (high - low), low + 0.9 * (high - low), 6, dtype=F64)
    x = torch.randn(6, 3, 2, dtype=F64)
    for head in HEADS:
        found = getattr(den, head)(x, t)
        wanted = exact(sch, head, x, t)
        scale = 1 + x.abs() + wanted.abs()
        assert ((found - wanted).abs() <= 1e-11 * scale * float(sch.sigma(high)) ** 2).all()
        for i in (0, 3):
            assert torch.equal(getattr(den, head)(x[i : i + 1], float(t[i])), found[i : i + 1])
            assert torch.equal(getattr(den, head)(x[i : i + 1], t[i]), found[i : i + 1])


LIMITS = [  # schedule, t, prediction, heads that are determined there
    (logsnr.FlowMatching(), 1.0, "x0", HEADS),
    (logsnr.FlowMatching(), 1.0, "eps", ("eps", "score")),
    (logsnr.FlowMatching(), 1.0, "v", HEADS),
    (logsnr.FlowMatching(), 1.0, "velocity", HEADS),
    (logsnr.FlowMatching(), 0.0, "x0", ("x0",)),
    (logsnr.FlowMatching(), 0.0, "eps", ("x0", "eps", "v", "velocity")),
    (logsnr.FlowMatching(), 0.0, "velocity", ("x0", "eps", "v", "velocity")),
    (logsnr.Trigonometric(), 0.0, "v", ("x0", "eps", "v", "velocity")),
    (logsnr.EDM(), 0.0, "eps", ("x0", "eps", "v", "velocity")),
    (logsnr.VPCosine(), 1.0, "v", HEADS),
]


@pytest.mark.parametrize(("sch", "t", "prediction", "heads"), LIMITS, ids=str)
def test_limits(sch: logsnr.Schedule, t: float, prediction: str, heads: tuple[str, ...]) -> None:
    """At sigma = 0 and alpha = 0 the heads that the prediction determines are exact."""
    den = logsnr.Denoiser(model(sch, prediction), sch, prediction)  # type: ignore[arg-type]
    x = torch.randn(2, 3, dtype=F64)
    for head in heads:
        torch.testing.assert_close(getattr(den, head)(x, t), exact(sch, head, x, torch.tensor([t])))


@pytest.mark.parametrize(
    ("time", "sch", "told"),
    [
        ("t", logsnr.VPLinear(), 0.3),
        ("1000t", logsnr.VPLinear(), 300.0),
        ("sigma", logsnr.EDM(), 0.3),
        ("c_noise", logsnr.EDM(), np.log(0.3) / 4),
        ("sigma", logsnr.VPLinear(), logsnr.VPLinear().sigma(0.3)),
        (lambda t: 7 - t, logsnr.VPLinear(), 6.7),
    ],
)
def test_time_conventions(time: str, sch: logsnr.Schedule, told: float) -> None:
    """The model is told the time in its own convention, in fp32, or in fp64 when it sees x in fp64; by a
    sampler the same as by the heads."""
    for dtype, expected in ((F32, F32), (F64, F64), (BF16, F32), (F16, F32)):
        seen: list[torch.Tensor] = []

        def spy(x: torch.Tensor, t: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(t.clone())
            return torch.zeros_like(x)

        den = logsnr.Denoiser(spy, sch, time=time)
        x = torch.ones(3, 2, dtype=dtype)
        den.eps(x, 0.3)
        logsnr.sample(den, x, solver="ddim", grid=[0.3, 0.1])
        for t in seen:
            assert t.dtype == expected
            assert t.shape == (3,)
            torch.testing.assert_close(t, torch.full((3,), told, dtype=expected))


def test_index_times() -> None:
    """time="index" rounds to int64 and needs a Discrete schedule; "t" there is the continuous index."""
    sch = logsnr.Discrete(np.linspace(0.99, 0.01, 20))
    seen: list[torch.Tensor] = []
    for time in ("index", "t"):
        den = logsnr.Denoiser(lambda x, t: seen.append(t) or x, sch, time=time)
        den.eps(torch.ones(2, 3), torch.tensor([3.4, 18.6]))
    assert seen[0].tolist() == [3, 19]
    assert seen[0].dtype == torch.int64
    assert seen[1].dtype == F32
    with pytest.raises(ValueError, match="needs a Discrete schedule"):
        logsnr.Denoiser(lambda x, t: x, logsnr.VPLinear(), time="index")


class Net(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.index = torch.nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
        self.weight = torch.nn.Parameter(torch.ones((), dtype=dtype))
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.add(x.dtype)
        return x * self.weight


@pytest.mark.parametrize("net", [F64, F32, F16, BF16])
@pytest.mark.parametrize("state", [F64, F32, F16, BF16])
def test_model_dtype(net: torch.dtype, state: torch.dtype) -> None:
    """The model sees x in its own dtype, that of its first floating parameter or ``dtype=``, and the answer
    is in x's; the model itself is not changed."""
    module = Net(net)
    den = logsnr.Denoiser(module, logsnr.VPLinear())
    x = torch.ones(2, 3, dtype=state)
    assert den.x0(x, 0.5).dtype == state
    assert logsnr.sample(den, x, steps=3).dtype == state
    assert module.seen == {net}
    assert module.weight.dtype == net
    assert module.training
    seen = []
    logsnr.Denoiser(lambda x, t: seen.append(x.dtype) or x, logsnr.VPLinear(), dtype=net).eps(x, 0.5)
    assert seen == [net]


def test_a_denoiser_travels() -> None:
    """A Denoiser of a module can be copied and pickled, as worker processes need."""
    den = logsnr.Denoiser(Net(F32), logsnr.EDM(), "v", time="c_noise")
    x = torch.randn(2, 3)
    for again in (copy.deepcopy(den), pickle.loads(pickle.dumps(den))):
        assert torch.equal(again.x0(x, 0.3), den.x0(x, 0.3))
        assert repr(again) == repr(den)


def test_learned_variance_is_left_out() -> None:
    """Of an answer with twice the channels the first half counts."""
    den = logsnr.Denoiser(lambda x, t: torch.cat([2 * x, torch.full_like(x, float("nan"))], 1), logsnr.VPLinear())
    x = torch.randn(2, 3, 4)
    assert torch.equal(den.eps(x, 0.5), 2 * x)


def test_low_precision_is_converted_wide() -> None:
    """fp16 and bf16 states are combined in fp32 and rounded once."""
    sch = logsnr.VPLinear()
    for dtype in (F16, BF16):
        x = torch.randn(64, 2).to(dtype)
        found = logsnr.Denoiser(lambda x, t: x, sch).x0(x, 0.2)
        wanted = ((x.double() - sch.sigma(0.2) * x.double()) / sch.alpha(0.2)).to(dtype)
        assert ((found.double() - wanted.double()).abs() <= torch.finfo(dtype).eps * wanted.double().abs()).all()


def test_bad_denoisers() -> None:
    """Whatever is no model, schedule, head, time or dtype is refused at construction, with the nearest
    names."""
    sch = logsnr.VPLinear()
    for arguments, options, error, message in [
        ((3, sch), {}, TypeError, "callable model"),
        ((model, "vp"), {}, TypeError, "logsnr schedule, not str"),
        ((model, sch, "epz"), {}, ValueError, "did you mean 'eps'"),
        ((model, sch, "noise"), {}, ValueError, "that is 'eps' here"),
        ((model, sch, "rgb"), {}, ValueError, "choose from x0, eps"),
        ((model, sch), {"time": "sigmas"}, ValueError, "did you mean 'sigma'"),
        ((model, sch), {"time": ["t"]}, ValueError, "choose from|did you mean 't'"),
        ((model, sch), {"dtype": torch.int32}, ValueError, "dtype must be one of"),
    ]:
        with pytest.raises(error, match=message):
            logsnr.Denoiser(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda x, t: None, TypeError, "returned NoneType, not a tensor; wrap it"),
        (lambda x, t: (x,), TypeError, "returned tuple"),
        (lambda x, t: x[:1], ValueError, r"returned shape \(1, 3\) for x of shape \(2, 3\)"),
        (lambda x, t: x.int(), ValueError, "returned dtype torch.int32"),
        (lambda x, t: x + 0j, ValueError, "returned dtype torch.complex64"),
        (lambda x, t: x.to("meta"), ValueError, "returned a tensor on meta for x on cpu"),
        (lambda x, t: x.to_sparse(), ValueError, "returned a tensor of layout torch.sparse_coo"),
    ],
)
def test_bad_answers(answer: object, error: type[Exception], message: str) -> None:
    """A model that answers with the wrong thing is named as the cause; a sampler adds the call and the
    time."""
    den = logsnr.Denoiser(answer, logsnr.VPLinear())  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        den.x0(torch.ones(2, 3), 0.5)
    with pytest.raises(error, match=f"call 1 of 4, t = 1: the model {message}"):
        logsnr.sample(den, torch.ones(2, 3), steps=4)


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (np.ones((2, 3)), 0.5, TypeError, "not ndarray"),
        (torch.ones(2, 3, dtype=torch.int64), 0.5, ValueError, "not torch.int64"),
        (torch.tensor(1.0), 0.5, ValueError, "batch dimension"),
        (torch.ones(2, 3).to_sparse(), 0.5, ValueError, "dense tensor"),
        (torch.ones(2, 3), torch.ones(3), ValueError, r"shape \(2,\), not \(3,\)"),
        (torch.ones(2, 3), torch.ones(2, 1), ValueError, r"not \(2, 1\)"),
        (torch.ones(2, 3), 0.5 + 1j, TypeError, r"t must be a real number or have shape \(2,\), not \(0.5\+1j\)"),
        (torch.ones(2, 3), torch.ones(2) + 1j, TypeError, r"not tensor\(\[1.\+1.j"),
        (torch.ones(2, 3), None, TypeError, "not None"),
    ],
)
def test_bad_states_and_times(x: object, t: object, error: type[Exception], message: str) -> None:
    """States and times of the wrong kind or shape are refused before the model is called."""
    den = logsnr.Denoiser(lambda x, t: 1 / 0, logsnr.VPLinear())
    with pytest.raises(error, match=message):
        den.x0(x, t)  # type: ignore[arg-type]


def test_bad_time_maps() -> None:
    """A time map must answer with one time per time."""
    for time, error, message in [
        (lambda t: 3, TypeError, "not int"),
        (lambda t: t.mean(), ValueError, "keep the shape"),
        (lambda t: t + 0j, TypeError, "floating numbers or integers, not torch.complex128"),
    ]:
        den = logsnr.Denoiser(lambda x, t: x, logsnr.VPLinear(), time=time)
        with pytest.raises(error, match=message):
            logsnr.sample(den, torch.ones(2, 3), steps=2)
