import numpy as np
import pytest
import torch

from logsnr.analysis.digits import load_digits


def test_the_stored_digits_are_those_of_scikit_learn() -> None:
    """Images and labels equal sklearn.datasets.load_digits() exactly, rescaled from 0..16 to [-1, 1]."""
    from sklearn.datasets import load_digits as sklearn_digits  # a second, for this test alone

    theirs = sklearn_digits()
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float64
    assert labels.dtype == torch.int64
    assert np.array_equal((images[:, 0].numpy() + 1) * 8, theirs.images)
    assert np.array_equal(labels.numpy(), theirs.target)
    assert (images.min(), images.max()) == (-1, 1)


def test_the_splits_share_nothing_and_leave_nothing_out() -> None:
    """The test split is every sixth image and the training split all the others, labels alongside."""
    images, labels = load_digits()
    held_out = list(range(5, 1797, 6))
    for split, chosen in (("test", held_out), ("train", sorted(set(range(1797)) - set(held_out)))):
        x, y = load_digits(split=split)
        assert torch.equal(x, images[chosen])
        assert torch.equal(y, labels[chosen])


@pytest.mark.parametrize("split", ["all", "train"])
def test_changing_what_was_returned_does_not_change_the_next_call(split: str) -> None:
    """The tensors belong to the caller."""
    load_digits(split=split)[0].zero_()
    assert load_digits(split=split)[0].abs().max() == 1


def test_an_unknown_split_is_refused() -> None:
    """The error names the value and the three legal ones."""
    with pytest.raises(ValueError, match=r"'valid'.*'all', 'train' or 'test'"):
        load_digits(split="valid")
