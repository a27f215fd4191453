"""Complex data: noised, filled in where a mask leaves them open, and inverted."""

from typing import Any

import pytest
import torch

import logsnr
from logsnr import control

SCH = logsnr.VPLinear()


def curved(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(0.5 * torch.tanh(torch.view_as_real(z)))


@pytest.mark.parametrize("solver", ["dpmpp-2m", "sde-dpmpp-2m"])
def test_complex_data(solver: str) -> None:
    """Noised and filled in, alone and in Picard's windows to the bit; with other maps of x0, which see complex ones."""
    den = logsnr.Denoiser(curved, SCH, "eps", map_x0=lambda x0, z, t: x0 * 1j)
    known, mask = logsnr.randn((3, 5), seed=0, dtype=torch.complex64), torch.tensor([1.0, 0, 0.5, 0, 1])
    shares = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)

    def edits(rows: slice, **more: Any) -> list[torch.Tensor]:
        more |= {"solver": solver, "steps": 5, "seed": 1, "sample_ids": range(rows.start, rows.stop)}
        found = control.inpaint(den, known[rows], mask, **more), control.sdedit(den, known[rows], shares[rows], **more)
        return [one.x for one in found]

    whole = edits(slice(0, 3))
    one_by_one = [torch.cat(parts) for parts in zip(*(edits(slice(n, n + 1)) for n in range(3)), strict=True)]
    for other in (edits(slice(0, 3), parallel=logsnr.Picard(tol=0.0)), one_by_one):
        assert all(map(torch.equal, whole, other))
    assert torch.equal(whole[0][:, mask == 1], known[:, mask == 1])
    assert (whole[0] - known)[:, mask < 1].abs().min() > 0
    made = control.invert(logsnr.Denoiser(curved, SCH), known, steps=8, round_trip=True)
    assert made.error is not None
    assert made.error.max() < 1e-5
    wrong = [
        ({"method": "replace"}, "method = 'replace' is for real states"),
        ({"x": known.real}, "x and known must both be complex"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            control.inpaint(den, known, mask, steps=3, **options)
    with pytest.raises(ValueError, match="map_x0 is a Static, and guides are for real states"):
        control.inpaint(logsnr.Denoiser(curved, SCH, map_x0=control.threshold_static()), known, mask, steps=3)
