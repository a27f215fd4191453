"""What a parallel run asks of the model: rows of samples times calls; and states of any size."""

from functools import partial
from typing import Any

import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
X = logsnr.randn((2, 3, 4), seed=1)


def labelled(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return 0.3 * x + labels.view(-1, 1, 1)


def test_conditions_that_do_not_follow_are_named() -> None:
    """A partial with one row per sample is refused; where the model itself fails, the error says why."""
    labels = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="partial with a tensor of 2 rows"):
        logsnr.sample(logsnr.Denoiser(partial(labelled, labels=labels), SCH), X, steps=5, parallel=logsnr.Picard())
    den = logsnr.Denoiser(lambda x, t: labelled(x, t, labels), SCH)
    with pytest.raises(RuntimeError) as found:
        logsnr.sample(den, X, steps=5, parallel=logsnr.Picard())
    assert any("10 rows, samples times calls of the window" in note for note in found.value.__notes__)


def labelled_elements(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labelled(torch.tanh(0.7 * x), t.to(x.dtype), labels.to(x.dtype))


@pytest.mark.parametrize("kind", ["cfg", "apg", "zero-star"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_scale_for_each_sample_keeps_the_bits(dtype: torch.dtype, kind: str) -> None:
    """Answers of half precision are put together in fp32, in every executor, and stay so. A sample of scale 1 or 0 is
    as it is alone, where the model is asked once."""
    x, scales, labels = logsnr.randn((4, 3, 4), seed=1), torch.tensor([3.0, 1.0, 0.0, -0.7]), torch.arange(4.0)

    def run(rows: slice, **options: Any) -> torch.Tensor:
        guidance = logsnr.Guidance(scales[rows], uncond={"labels": -labels[rows]}, kind=kind)
        given = {"labels": labels[rows]}
        den = logsnr.Denoiser(labelled_elements, SCH, "eps", dtype=dtype, conditions=given, guidance=guidance)
        ids = range(rows.start, rows.stop)
        return logsnr.sample(den, x[rows], solver="sde-dpmpp-2m", steps=6, seed=3, sample_ids=ids, **options)

    whole = run(slice(0, 4))
    assert torch.equal(run(slice(0, 4), parallel=logsnr.Picard(tol=0.0, window=4)), whole)
    assert torch.equal(torch.cat([run(slice(n, n + 1)) for n in range(4)]), whole)


@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1.0, 1e19, 1e25, 1e30])
@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_states_of_any_size_converge_alike(scale: float, tol: float) -> None:
    """Squares of fp32 numbers overflow beyond 1e19: norms are taken in fp64, and the certificate is not 0 by it."""
    den = logsnr.Denoiser(lambda x, t: 0.7 * x, SCH, "eps")
    how = logsnr.Picard(tol=tol)
    plain = logsnr.solve(den, X, solver="dpmpp-2m", steps=12, parallel=how)
    found = logsnr.solve(den, X * scale, solver="dpmpp-2m", steps=12, parallel=how)
    sequential = logsnr.sample(den, X * scale, solver="dpmpp-2m", steps=12)
    assert found.rounds <= (plain.rounds + 1 if tol else 12)
    assert float((found.x - sequential).abs().max()) <= 1e-3 * float(sequential.abs().max())
    assert tol > 0 or torch.equal(found.x, sequential)


def test_per_element_programs_run_in_parallel() -> None:
    """Coefficients that differ between elements: at tolerance 0 the sequential answer."""
    program = logsnr.solver("sde-dpmpp-2m").program(SCH, logsnr.grid(SCH, 6))
    factors = torch.linspace(0.9, 1.1, 4).double().numpy()
    calls = tuple(
        logsnr.Call(c.t, c.reads, c.writes, c.matrix[..., None, None] * factors, c.at, c.noises, c.node)
        for c in program
    )
    table = logsnr.Program("shaped", 2, program.grid, calls)
    den = logsnr.Denoiser(lambda x, t: 0.3 * torch.sin(x), SCH, "eps")
    found = logsnr.sample(den, X, solver=table, seed=5, parallel=logsnr.Picard(tol=0.0))
    torch.testing.assert_close(found, logsnr.sample(den, X, solver=table, seed=5), rtol=1e-6, atol=1e-6)
    for init in ("straight", "constant"):
        near = logsnr.sample(den, X, solver=table, seed=5, parallel=logsnr.Picard(tol=1e-5, init=init, window=4))
        torch.testing.assert_close(near, found, rtol=1e-3, atol=1e-3)
