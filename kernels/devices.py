"""Devices without float64: what needs it is computed on the host."""

import torch

NO_FLOAT64 = {"mps"}  # by the type of the device
HOST = torch.device("cpu")


def float64_device(device: torch.device) -> torch.device:
    """Where float64 tensors that belong to ``device`` live: there, or on the host."""
    return HOST if device.type in NO_FLOAT64 else device


def in_float64(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float64, where that can be."""
    return x.to(float64_device(x.device), torch.float64)
