"""torch.compile of whole runs with guidance: one graph, and the numbers of the run itself."""

from typing import Any

import pytest
import torch
from checks import one_graph

import logsnr

Y, ZERO = torch.tensor([0.5, -1.0, 2.0]), torch.zeros(3)
X = logsnr.randn((3, 4), seed=0)


def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x / (1 + x * x) - 0.3 * (t + y).reshape(-1, 1)


@one_graph
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {}, {"batched": False}, {"interval": (-1.0, 2.0)}, {"kind": "cfg++"}, {"kind": "rescale"},
        {"kind": "apg", "options": {"momentum": -0.5}}, {"scale": torch.tensor([1.0, 2.0, 0.0])},
    ],
)  # fmt: skip
def test_guidance_in_one_graph(options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    guidance = logsnr.Guidance(**{"scale": 3.0, "uncond": {"y": ZERO}, **options})
    den = logsnr.Denoiser(network, logsnr.FlowMatching(), "velocity", conditions={"y": Y}, guidance=guidance)
    plain = lambda x: logsnr.sample(den, x, solver="ddim", steps=3)  # noqa: E731
    assert torch.equal(torch.compile(plain, fullgraph=True, backend="eager")(X), plain(X))
