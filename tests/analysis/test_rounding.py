"""The rounding report against mpmath, written out step by step, and against known floors."""

import mpmath as mp
import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.moments import propagate
from logsnr.analysis.rounding import execute, rounding
from logsnr.analysis.transfer import transfer
from logsnr.solvers.catalogue.planning import plan_program

SCH = logsnr.VPLinear()
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
STDS = [1e-2, 0.3, 2.0]


def by_mpmath(program: logsnr.Program, sch: logsnr.Schedule, mean: float, std: float, x: float) -> mp.mpf:
    """The end state from x with 50 digits: the table, row by row, on the posterior of N(mean, std^2)."""
    c = mp.mpf(std**2)
    slots = {0: mp.mpf(x)}
    for call in program:
        a, s = mp.mpf(sch.alpha(call.t)), mp.mpf(sch.sigma(call.t))
        d = (slots[call.at] - a * mean) / (a * a * c + s * s)
        read = [mean + a * c * d, s * d, *(slots[k] for k in call.reads)]
        rows = [mp.fsum(mp.mpf(w) * r for w, r in zip(row, read, strict=True)) for row in call.matrix.tolist()]
        slots.update(zip(call.writes, rows, strict=True))
    return slots[0]


FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]


@pytest.mark.parametrize("name", ["ddim", "heun", "deis-3", "dpmpp-3m", "dpmpp-2s"])
def test_errors_are_those_against_mpmath(name: str) -> None:
    """The error of the float64 and of the fp32 run is that against an mpmath run of the table, to 1e-6."""
    report = rounding(name, SCH, stds=STDS, mean=0.7, steps=5, samples=4)
    program, first, last = report.program, report.program.grid[0], report.program.grid[-1]
    data = Gaussian([0.7] * 3, np.array(STDS) ** 2)
    x = data.sample_at(SCH, first, 4, generator=torch.Generator().manual_seed(0)).to(F32)
    with mp.workdps(50):
        exact = [[by_mpmath(program, SCH, 0.7, std, float(u)) for u, std in zip(row, STDS, strict=True)] for row in x]
        for dtype, errors in ((F32, report.error), (F64, report.error_float64)):
            y = execute(program, data, SCH, x, dtype=dtype, prediction="eps").double()
            off = [
                [float(mp.mpf(a) - b) for a, b in zip(*rows, strict=True)]
                for rows in zip(y.tolist(), exact, strict=True)
            ]
            size = np.hypot(SCH.alpha(last) * np.array(STDS), SCH.sigma(last))
            np.testing.assert_allclose(errors, np.sqrt(np.mean(np.square(off), axis=0)) / size, rtol=1e-6)
        flow = data.flow(x.double(), SCH, first, last).tolist()
        gap = [[float(b - mp.mpf(a)) for a, b in zip(*rows, strict=True)] for rows in zip(flow, exact, strict=True)]
    np.testing.assert_allclose(report.truncation, np.sqrt(np.mean(np.square(gap), axis=0)) / size, rtol=1e-6)


FAR = {"dpm-4m", "flow-4m", "ipndm-4", "pndm"}  # cubics through four values of eps at steps of a tenth of the span


@pytest.mark.parametrize(("name", "prediction"), sampled(FIXED, ["x0", "eps", "v", "velocity"], every=4))
def test_float64_and_fp32_stay_at_their_rounding(name: str, prediction: str) -> None:
    """With 10 steps float64 errs by at most 100 of its eps, fp32 by 100 of its own, for every solver and head; those
    that extrapolate far, with weights that add up to many times their sum, by 30 times that."""
    report = rounding(name, SCH, prediction=prediction, stds=STDS, steps=10, samples=8)
    most = 3000 if name in FAR else 100
    assert report.error_float64.max() < most * torch.finfo(F64).eps
    assert 1e-9 < report.error.max() < most * torch.finfo(F32).eps
    np.testing.assert_allclose(report.difference, report.error, rtol=1e-6)


def test_more_steps_do_not_accumulate() -> None:
    """With a bf16 model 320 steps err less than 20, as the state is wider and the roundings average."""
    few, many = (rounding("dpmpp-2m", SCH, BF16, stds=STDS, steps=n) for n in (20, 320))
    assert (many.error < few.error).all()
    assert (few.error < 0.02).all()
    assert (many.truncation < few.truncation).all()


def test_data_off_centre_costs_digits() -> None:
    """fp32 loses the digits by which the mean exceeds the standard deviation."""
    centred, off = (rounding("dpmpp-2m", SCH, stds=[1e-3], mean=m, steps=20) for m in (0.0, 1.0))
    assert off.error > 10 * centred.error


def test_truncation_is_the_transfer_function() -> None:
    """For centred data the truncation is the relative error of the transfer function times the draws' rms."""
    report = rounding("dpmpp-2m", SCH, F64, stds=STDS, steps=7)
    found = transfer("dpmpp-2m", SCH, STDS, steps=7)
    x = (
        Gaussian([0.0] * 3, np.array(STDS) ** 2)
        .sample_at(SCH, report.program.grid[0], 32, generator=torch.Generator().manual_seed(0))
        .numpy()
    )
    rms = np.sqrt((x**2).mean(axis=0)) * found.exact / np.hypot(SCH.alpha(SCH.t_end) * found.stds, SCH.sigma(SCH.t_end))
    np.testing.assert_allclose(report.truncation, found.error * rms, rtol=1e-9)
    assert (report.difference == 0).all()


def test_programs_are_taken_as_they_are() -> None:
    """A program gives the report of the solver that planned it; the coefficients are the same numbers."""
    program = plan_program("deis-2", SCH, steps=4)
    one, other = rounding(program, SCH, stds=STDS), rounding("deis-2", SCH, stds=STDS, steps=4)
    np.testing.assert_array_equal(one.error, other.error)
    assert one.program is program
    assert propagate(program, SCH, np.array([1.0])).start.dtype == np.float64


def test_the_report_prints() -> None:
    """The report is a table with the dtype, seven standard deviations and the worst errors."""
    lines = str(rounding("dpmpp-2m", SCH, BF16, steps=5)).splitlines()
    assert lines[0] == "dpmpp-2m, 5 model evaluations, head eps"
    assert lines[1].split() == ["std", "bfloat16", "float64", "truncation"]
    assert [line.split()[0] for line in lines[2:]] == [
        "0.001",
        "0.00464",
        "0.0215",
        "0.1",
        "0.464",
        "2.15",
        "10",
        "worst",
    ]


def test_bad_arguments_are_refused() -> None:
    """Integer dtypes, empty spectra, unknown heads and heads that say too little raise ValueError."""
    with pytest.raises(ValueError, match="dtype must be one of"):
        rounding("ddim", SCH, torch.int32, steps=2)
    with pytest.raises(ValueError, match="stds must be a 1-D array of positive numbers"):
        rounding("ddim", SCH, stds=[], steps=2)
    with pytest.raises(ValueError, match="'noise' is not a head"):
        rounding("ddim", SCH, prediction="noise", steps=2)
    with pytest.raises(ValueError, match="does not determine x0"):
        rounding("ddim", logsnr.FlowMatching(), prediction="eps", steps=2)
