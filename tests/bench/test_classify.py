from importlib import resources

import pytest
import torch
from scipy.stats import entropy

from logsnr.analysis.digits import load_digits
from logsnr.bench.classify import digit_classifier, judge, train


def test_the_classifier_recognises_held_out_digits() -> None:
    """More than 97 % of the digits it was not trained on get their own label."""
    images, labels = load_digits(split="test")
    probabilities = digit_classifier()(images)
    assert probabilities.shape == (299, 10)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(299), atol=1e-6)
    assert (probabilities.argmax(dim=1) == labels).double().mean() > 0.97


def test_the_weights_are_small() -> None:
    """The stored weights stay below 300 KB."""
    weights = resources.files("logsnr.bench").joinpath("data", "digit_classifier.safetensors").read_bytes()
    assert len(weights) < 300_000


def test_the_verdict_counts_classes() -> None:
    """Histogram and entropy agree with a count of the likeliest classes and with SciPy's entropy."""
    images, _ = load_digits(split="test")
    verdict = judge(images)
    labels = digit_classifier()(images).argmax(dim=1)
    assert verdict["histogram"] == [int((labels == digit).sum()) for digit in range(10)]
    assert verdict["entropy"] == pytest.approx(entropy(verdict["histogram"], base=2), rel=1e-6)
    assert 0.97 < verdict["confidence"] <= 1


def test_one_class_alone_has_no_entropy() -> None:
    """A single image gives a histogram with one entry and entropy exactly 0."""
    verdict = judge(load_digits()[0][:1])
    assert sum(verdict["histogram"]) == 1
    assert verdict["entropy"] == 0


def test_what_is_no_digit_gets_a_lower_confidence() -> None:
    """White noise and the means of two different digits both score at least 0.1 below real digits."""
    images, labels = load_digits(split="test")
    real = judge(images)["confidence"]
    differ = labels[:-1] != labels[1:]
    blends = (images[:-1] + images[1:])[differ] / 2
    assert judge(torch.randn(300, 1, 8, 8))["confidence"] < real - 0.1
    assert judge(blends)["confidence"] < real - 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_floating_dtype_is_judged(dtype: torch.dtype) -> None:
    """Sixteenths are exact in every dtype, so the verdict is the one for float64."""
    images, _ = load_digits(split="test")
    assert judge(images.to(dtype)) == judge(images)


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 1, 8, 8), (3, 1, 28, 28)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """The error shows the shape given and the shape wanted."""
    with pytest.raises(ValueError, match=r"images has shape .*need \(B, 1, 8, 8\)"):
        judge(torch.zeros(shape))


def test_training_repeats_itself() -> None:
    """Two short trainings from the same seed give identical weights."""
    first, second = train(epochs=1).state_dict(), train(epochs=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
