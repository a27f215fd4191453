"""`logsnr.check`: all wrong conventions of an exact model are found, and what it says to write is right."""

from itertools import product
from typing import Any

import conventions as C
import numpy as np
import pytest
import torch

import logsnr
from logsnr import integrations as I
from logsnr.analysis.digits import load_digits
from logsnr.bench.digits_net import PREDICTION, SCHEDULE, load_digits_net
from logsnr.solvers.denoisers.heads import HEADS

X0 = C.DATA.sample(16, generator=torch.Generator().manual_seed(0))
VP = logsnr.VPLinear()


def net(sch: logsnr.Schedule, head: str, clock: Any = None, sign: float = 1.0) -> Any:
    """The exact model, told ``clock`` of the schedule's time: the function from there to that time is given."""
    exact = C.DATA.denoiser(sch, head).model
    return lambda x, t: sign * exact(x, t.double() if clock is None else clock(t.double()))


@pytest.mark.parametrize(("true", "claimed"), list(product(HEADS, HEADS)))
def test_heads(true: str, claimed: str) -> None:
    found = logsnr.check(logsnr.Denoiser(net(VP, true), VP, claimed), X0)
    assert found.ok == (true == claimed)
    assert (found.prediction, found.time, found.input, found.data) == (true, "t", "x", "x0")
    assert found.advice == (() if found.ok else (f"head is {true}: prediction={true!r}",))
    assert found.best < 1.05


TIMES = {
    "1000t": lambda t: t / 1000,
    "c_noise": lambda t: VP.time(-4 * t),
    "sigma": lambda t: VP.time(torch.log(torch.sqrt(1 - t * t) / t)),
    "lambda t: 1 - t": lambda t: 1 - t,
    "lambda t: 1000 * (1 - t)": lambda t: 1 - t / 1000,
    "lambda t: 2 * schedule.half_logsnr(t)": lambda t: VP.time(t / 2),
    "lambda t: schedule.half_logsnr(t).neg().exp()": lambda t: VP.time(-torch.log(t)),
    "lambda t: 2 / torch.pi * schedule.half_logsnr(t).neg().exp().atan()": lambda t: VP.time(
        -torch.log(torch.tan(t * torch.pi / 2))
    ),
}


@pytest.mark.parametrize("true", TIMES)
def test_times(true: str) -> None:
    """The time is found, and what is written makes it right."""
    model = net(VP, "eps", TIMES[true])
    found = logsnr.check(logsnr.Denoiser(model, VP, "eps"), X0)
    assert (found.ok, found.time, found.prediction) == (False, true, "eps")
    assert ("runs the other way" in found.advice[0]) == ("1 - t" in true)
    assert found.advice[0].endswith(f"time={true}" if "lambda" in true else f"time={true!r}")
    time = eval(true, {"schedule": VP, "torch": torch}) if "lambda" in true else true
    assert logsnr.check(logsnr.Denoiser(model, VP, "eps", time=time), X0).ok


def test_head_and_time_and_sign_together() -> None:
    found = logsnr.check(logsnr.Denoiser(net(VP, "v", TIMES["1000t"], -1.0), VP), X0)
    assert found.advice == (
        "head is v: prediction='v'; the answer has the other sign: lambda x, t: -net(x, t)",
        "time should be '1000t': time='1000t'",
    )


@pytest.mark.parametrize(("true", "claimed", "factor"), list(product((0, 1), (0, 1), (1, 1000))))
def test_flows(true: int, claimed: int, factor: int) -> None:
    """Direction and scale of a flow's time; noise at the wrong end is no silent garbage."""
    found = logsnr.check(I.flow(C.velocity(true, factor), data_at=claimed), X0)
    assert found.ok == (true == claimed and factor == 1)
    told = " ".join(found.advice)
    assert ("t runs the other way: schedule=logsnr.FlowMatching(data_at=" in told) == (true != claimed)
    assert ("'1000t'" in told) == (factor == 1000)


@pytest.mark.parametrize(("true", "sign", "factor"), list(product((0, 1), (1.0, -1.0), (1, 1000))))
def test_sign_of_the_velocity(true: int, sign: float, factor: int) -> None:
    """A model that returns the velocity or its opposite: all that differs is named, in whatever direction it is told;
    where sign and direction make up for one another, 1 - t alone."""
    velocity = C.velocity(true, factor)
    for claimed in (0, 1):
        found = logsnr.check(I.flow(lambda x, t: sign * velocity(x, t), data_at=claimed), X0)
        told = " ".join(found.advice)
        assert found.ok == (true == claimed and sign == 1 and factor == 1)
        if told == "time should be 'sigma': time='sigma'":
            assert (true, claimed, sign, factor) == (0, 1, -1.0, 1)
            sch = logsnr.FlowMatching(data_at=1)
            den = logsnr.Denoiser(lambda x, t: sign * velocity(x, t), sch, "velocity", time="sigma")
            assert logsnr.check(den, X0).ok
            continue
        assert ("the answer has the other sign: lambda x, t: -net(x, t)" in told) == (sign == -1)
        assert (f"t runs the other way: schedule=logsnr.FlowMatching(data_at={true})" in told) == (true != claimed)
        assert ("time='1000t'" in told) == (factor == 1000)


@pytest.mark.parametrize("sch", [logsnr.FlowMatching(), logsnr.EDM(), logsnr.Discrete(C.LINEAR)], ids=str)
def test_heads_on_other_schedules(sch: logsnr.Schedule) -> None:
    """Each head taken for itself and for the next; on EDM's schedule the velocity is eps itself."""
    same = {"velocity": "eps"} if isinstance(sch, logsnr.EDM) else {}
    for true, claimed in [*zip(HEADS, HEADS, strict=True), *zip(HEADS, (*HEADS[1:], HEADS[0]), strict=True)]:
        found = logsnr.check(logsnr.Denoiser(net(sch, true), sch, claimed, time="t"), X0[:8])
        one, other = same.get(true, true), same.get(claimed, claimed)
        assert found.advice == (() if one == other else (f"head is {one}: prediction={one!r}",)), (true, claimed)


@pytest.mark.parametrize(("head", "d"), list(product(("x0", "eps", "v", "score"), (0.5, 1.0))))
def test_scaled_inputs(head: str, d: float) -> None:
    """A model that wants c_in x and is given x; told c_noise in place of sigma, as well."""
    exact = net(EDM, head)

    def scaled(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return exact(x * torch.sqrt(d * d + C.column(sigma.double(), x) ** 2), sigma.double())

    said = f"input should be scaled: the model wants x / sqrt({d * d:g} + sigma^2)"
    found = logsnr.check(logsnr.Denoiser(scaled, EDM, head, time="sigma"), X0)
    assert found.advice == (said,)
    noisy = logsnr.Denoiser(lambda x, c: scaled(x, torch.exp(4 * c)), EDM, head, time="sigma")
    assert logsnr.check(noisy, X0).advice == ("time should be 'c_noise': time='c_noise'", said)


def test_tables() -> None:
    """The index, a part of it, and the other way round; also for networks that take integers alone."""
    sch = logsnr.Discrete(C.LINEAR)
    for told, time in {
        "t": lambda t: t,
        "lambda t: t / 1000": lambda t: 1000 * t,
        "lambda t: 999 - t": lambda t: 999 - t,
    }.items():
        found = logsnr.check(logsnr.Denoiser(net(sch, "v", time), sch, "v", time="1000t"), X0)
        assert (found.ok, found.time) == (False, told)

    def whole(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if t.is_floating_point():
            raise RuntimeError("integers alone")
        return C.table(C.LINEAR)(x, t)

    assert logsnr.check(logsnr.Denoiser(whole, sch), X0).time == "index"


EDM = logsnr.EDM()


def test_networks_of_edm() -> None:
    """D taken for F and the other way round; sigma_data and sign of F."""
    assert logsnr.check(I.edm(C.edm_d), X0).ok
    assert logsnr.check(I.edm_raw(C.raw(0.5), 0.5), X0).ok
    for model, call in {C.raw(0.5): "edm_raw(net, 0.5)", C.raw(1.0, sign=-1): "edm_raw(net, 1, sign=-1)"}.items():
        for den in (I.edm(model), I.edm_raw(model, 0.5, sign=-1)):
            found = logsnr.check(den, X0)
            assert len(found.advice) == 1
            assert found.advice[0].endswith(call)
    found = logsnr.check(I.edm_raw(C.edm_d), X0)
    assert found.advice == ("head is x0: prediction='x0'",)


def test_input_in_another_frame() -> None:
    """A model of x0 + sigma eps behind a variance preserving schedule."""
    found = logsnr.check(logsnr.Denoiser(lambda x, sigma: C.pair(x, 1.0, sigma)[1], VP, "eps"), X0)
    assert found.input == "x / alpha"
    assert "input should be scaled: the model wants x / alpha" in found.advice


def test_data_in_another_range() -> None:
    """Images in [0, 1] for a model of [-1, 1], and latents that are not divided by their standard deviation."""
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = logsnr.analysis.Gaussian(0.0, 1 / 3)
    den = data.denoiser(VP, "eps")
    assert logsnr.check(den, images).data == "2 * x0 - 1"
    assert logsnr.check(den, 2 * images - 1).ok
    latents = 8 * torch.randn(8, 4, 8, generator=torch.Generator().manual_seed(0))
    unit = logsnr.analysis.Gaussian(0.0, 1.0).denoiser(VP, "v")
    assert logsnr.check(unit, latents).advice[0].startswith("the data should be x0 * 0.13")


def test_a_trained_network() -> None:
    """The digits network returns v, and knows more of the digits than their mean and standard deviation."""
    model, (images, _) = load_digits_net(), load_digits(split="test")
    right = logsnr.check(logsnr.Denoiser(model, SCHEDULE, PREDICTION), images[:4].float())
    assert right.ok
    assert right.error < 0.8
    wrong = logsnr.check(logsnr.Denoiser(model, SCHEDULE, "eps", time="1000t"), images[:4].float())
    assert wrong.advice == ("head is v: prediction='v'", "time should be 't': time='t'")


def test_conditions_follow_their_samples() -> None:
    """A model of labels, whose data have another mean for each."""
    means = torch.linspace(-1, 1, 16)

    def labelled(x: torch.Tensor, t: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        alpha = C.column(VP.alpha(t), x)
        return C.DATA.denoiser(VP, "eps").model(x - alpha * C.column(shift, x), t)

    x0 = X0 + means.reshape(-1, 1, 1)
    guidance = logsnr.Guidance(5.0, uncond={"shift": torch.zeros(16)})
    den = logsnr.Denoiser(labelled, VP, conditions={"shift": means}, guidance=guidance)
    assert logsnr.check(den, x0).ok
    assert not logsnr.check(logsnr.Denoiser(labelled, VP, conditions={"shift": means.flip(0)}), x0).ok


def test_few_numbers_raise_no_false_alarm() -> None:
    """One sample of 16 numbers, whatever it is."""
    for seed in range(6):
        x0 = C.DATA.sample(1, generator=torch.Generator().manual_seed(seed))
        for den in (I.edm(C.edm_d), I.flow(C.velocity(1), data_at=1), C.DATA.denoiser(VP, "eps")):
            assert logsnr.check(den, x0, seed=seed).ok


def test_nothing_fits() -> None:
    found = logsnr.check(logsnr.Denoiser(lambda x, t: torch.sin(40 * x), VP), X0)
    assert not found.ok
    assert "no known convention fits" in found.advice[0]


def test_it_prints() -> None:
    """The verdict, and the errors by level of both conventions."""
    found = logsnr.check(logsnr.Denoiser(net(VP, "v"), VP), X0)
    lines = str(found).splitlines()
    assert lines[0] == "not ok: head is v: prediction='v'"
    assert [len(line.split()[-6:]) for line in lines[1:4]] == [6, 6, 6]
    assert np.allclose(found.error, np.sqrt(np.mean(np.square(found.errors))))
    assert str(logsnr.check(logsnr.Denoiser(net(VP, "v"), VP, "v"), X0)).startswith("ok: ")


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again = (logsnr.check(logsnr.Denoiser(net(VP, "v"), VP), X0) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_input() -> None:
    den = logsnr.Denoiser(net(VP, "eps"), VP)
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser, not function"):
        logsnr.check(net(VP, "eps"), X0)
    with pytest.raises(ValueError, match="must be finite, and not constant"):
        logsnr.check(den, torch.zeros(2, 3))
    with pytest.raises(TypeError, match="x0 must be a torch tensor"):
        logsnr.check(den, [1.0])
    with pytest.raises(ValueError, match=r"conditions\['y'\] has 3 rows for a batch of 16"):
        logsnr.check(logsnr.Denoiser(net(VP, "eps"), VP, conditions={"y": torch.zeros(3)}), X0)

    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        logsnr.check(logsnr.Denoiser(broken, VP), X0)
