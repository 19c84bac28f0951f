"""Small runs that the tests of this room share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Equal numbers need equal threads, and small networks gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def split_pairs(make_pairs):
    """``split_pairs(train, test)``: a data set of pairs with the lists ``own/train`` and ``own/test``."""

    def make(train: int = 8, test: int = 3, **kwargs):
        root = make_pairs(train + test, **kwargs)
        lists = root / "splits" / "own"
        lists.mkdir(parents=True)
        names = [f"{k:06d}" for k in range(train + test)]
        (lists / "train.txt").write_text("\n".join(names[:train]) + "\n")
        (lists / "test.txt").write_text("\n".join(names[train:]) + "\n")
        return root

    return make
