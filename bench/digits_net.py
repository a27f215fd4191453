"""A real trained network, small enough to ship: it generates handwritten digits of 8 x 8 pixels on a CPU."""

from importlib import resources

from safetensors.torch import load

from .networks.network import PREDICTION, SCHEDULE, UNet

__all__ = ["PREDICTION", "SCHEDULE", "DigitsNet", "load_digits_net"]


class DigitsNet(UNet):
    """For x (B, 1, 8, 8): 246,241 weights."""

    def __init__(self) -> None:
        super().__init__(channels=1, size=8)


def load_digits_net() -> DigitsNet:
    """The trained network in float32 on the CPU, in eval mode, without gradients of its weights.

    Wrap it as Denoiser(net, SCHEDULE, prediction=PREDICTION), which are VPLinear() and "v". `.double()` makes
    it the float64 model that references are integrated with. `python -m logsnr.bench.networks.train digits` trains it;
    the data and their licence are those of `logsnr.analysis.digits`.
    """
    weights = resources.files(__package__).joinpath("data", "digits_net.safetensors").read_bytes()
    net = DigitsNet()
    net.load_state_dict(load(weights))
    return net.requires_grad_(False).eval()
