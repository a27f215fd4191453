"""Errors of samples and their summaries, where numbers are infinite too."""

import numpy as np
import pytest
import torch

from logsnr.analysis.estimates import sample_errors, summary


def test_errors_are_those_of_samples() -> None:
    """Of each the root mean square of the difference; what is not finite is infinitely far."""
    end = torch.zeros(4, 2, 2, dtype=torch.float64)
    made = torch.stack([torch.full((2, 2), c) for c in (1.0, -2.0, torch.nan, torch.inf)])
    assert sample_errors(made, end).tolist() == [1.0, 2.0, np.inf, np.inf]


@pytest.mark.filterwarnings("error")
def test_summaries() -> None:
    """Of ten errors, and of infinite ones without a NaN."""
    errors = np.arange(1.0, 11.0)
    assert summary(errors) == {"median": 5.5, "rms": pytest.approx(38.5**0.5), "p90": 9.0}
    assert set(summary(np.full(4, np.inf)).values()) == {np.inf}
    assert summary(np.full(4, 1e200))["rms"] == np.inf
