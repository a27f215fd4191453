"""run: guidance, noise and per-element coefficients, columns that no named solver has yet."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers.denoisers.guidance import Rule
from logsnr.solvers.programs.lower import lower
from logsnr.solvers.programs.program import Call, Program
from logsnr.solvers.runs.run import run

SCH = logsnr.VPLinear()
F64, F32, F16 = torch.float64, torch.float32, torch.float16
SHAPE = (2, 4, 8, 8)


def bent(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (1 + t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


@pytest.mark.parametrize("dtype", [F32, F16])
def test_guidance_columns(dtype: torch.dtype) -> None:
    """A model that returns two tensors with weights (w, 1 - w) samples like the mixed model."""
    program = logsnr.solver("deis-3").program(SCH, logsnr.grid(SCH, 6))
    x, w = torch.randn(SHAPE, dtype=F64), 3.5

    def two(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return bent(x, t), torch.sin(x)

    def mixed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y, z = two(x, t)
        return w * y.double() + (1 - w) * z.double()

    guided = lower(program, SCH, "eps", state=F64, model=dtype, rule=Rule("cfg", 1 - w, None))
    plain = lower(program, SCH, "eps", state=F64, model=dtype)
    (found, nfe), (wanted, _) = (
        run(low, logsnr.Denoiser(model, SCH, dtype=dtype), x) for low, model in ((guided, two), (plain, mixed))
    )
    assert nfe == 6
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    wrong = lambda x, t: bent(x, t), lambda x, t: two(x, t)[:1], lambda x, t: None
    for answer in wrong:
        with pytest.raises((ValueError, TypeError), match="call 1 of 6"):
            run(guided, logsnr.Denoiser(answer, SCH), x)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_noise_columns(dtype: torch.dtype) -> None:
    """Noises are asked for by their keys, in order, and enter with their coefficients; without noise= the
    program is refused."""
    grid = (1.0, 0.6, 0.3)
    calls = (
        Call(1.0, (0,), (0,), np.array([[0.0, 0.5, 0.25, 2.0]]), noises=((1.0, 0.6),), node=1),
        Call(0.6, (0,), (0,), np.array([[0.0, 1.0, 1.0, 3.0]]), noises=((0.6, 0.3),), node=2),
    )
    low = lower(Program("noisy", 1, grid, calls), SCH, "eps", state=F64, model=dtype)
    keys = []

    def noise(key: tuple[float, float], like: torch.Tensor) -> torch.Tensor:
        keys.append(key)
        return torch.full(like.shape, key[1], dtype=F32)

    x = torch.ones(3, 2, dtype=F64)
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, 8.0), SCH, dtype=dtype)
    for gradients in (False, True):
        end, _ = run(low, den, x.clone().requires_grad_(gradients), noise=noise)
        expected = (4 + 0.25 + 2 * np.float32(0.6)) + 8 + 3 * np.float32(0.3)
        torch.testing.assert_close(end.detach(), torch.full_like(x, float(expected)))
        assert keys == [(1.0, 0.6, 0), (0.6, 0.3, 0)] * (1 + gradients)
        with pytest.raises(ValueError, match="noise="):
            run(low, den, x)


def test_per_element_coefficients() -> None:
    """A program whose matrices vary by channel runs each channel as that channel's own program would."""
    programs = [logsnr.solver("dpmpp-2m").program(SCH, logsnr.grid(SCH, 5, t_end=end)) for end in (1e-3, 1e-2, 0.1)]
    common = [
        Call(
            entries[0].t, entries[0].reads, entries[0].writes,
            np.stack([e.matrix for e in entries], -1)[..., None, None], node=entries[0].node,
        )
        for entries in zip(*programs, strict=True)
    ]  # fmt: skip
    together = Program("by channel", 2, programs[0].grid, tuple(common))
    x = torch.randn(2, 3, 4, 4, dtype=F64)
    den = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "x0")
    end, _ = run(lower(together, SCH, "x0", state=F64, model=F64), den, x)
    for c, program in enumerate(programs):
        # calls at other times, but the model does not look at t, and x0 is used as it is
        alone, _ = run(lower(program, SCH, "x0", state=F64, model=F64), den, x[:, c : c + 1])
        torch.testing.assert_close(end[:, c : c + 1], alone, rtol=0, atol=1e-13)
