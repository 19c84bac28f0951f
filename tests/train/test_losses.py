"""Losses: values by hand, finite where sums overflow half precision and where there is no target."""

import math

import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.train.losses import LOSSES, dice, final, focal, get_loss, soft_iou, soft_iou_each, supervised

BIG = 30.0  # its sigmoid is 1 in float32


def pair():
    logits = torch.full((2, 1, 4, 4), -BIG)
    masks = torch.zeros(2, 1, 4, 4)
    logits[0, 0, 0, :2] = BIG  # predicted: 2 pixels, 1 of them right
    masks[0, 0, 0, 1:4] = 1  # 3 target pixels
    return logits, masks


@pytest.mark.parametrize(
    ("loss", "expected", "why"),
    [
        (soft_iou, 1 - (1 + 1) / (4 + 1), "I 1, U 4, smoothing 1"),
        (soft_iou_each, (1 - 2 / 5 + 0) / 2, "the empty image is perfect"),
        (dice, 1 - (2 * 1 + 1) / (2 + 3 + 1), "sums 2 and 3"),
    ],
    ids=["soft_iou", "soft_iou_each", "dice"],
)
def test_values_by_hand(loss, expected, why):
    assert loss(*pair()).item() == pytest.approx(expected, abs=1e-6), why


def test_focal_is_cross_entropy_where_gamma_is_0():
    torch.manual_seed(0)
    logits, masks = torch.randn(1, 1, 8, 8), (torch.rand(1, 1, 8, 8) > 0.8).float()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks, reduction="sum")
    assert focal(logits, masks, alpha=0.5, gamma=0).item() == pytest.approx(
        0.5 * entropy.item() / masks.sum().item(), rel=1e-5
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("level", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("targets", [False, True])
def test_finite_in_every_precision_with_and_without_targets(name, dtype, level, targets):
    logits = torch.full((2, 1, 384, 384), level, dtype=dtype, requires_grad=True)  # sums above 65504
    masks = torch.zeros(2, 1, 384, 384, dtype=dtype)
    if targets:
        masks[:, :, 5:8, 5:8] = 1
    loss = LOSSES[name](logits, masks)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_descends_also_without_targets(name):
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    LOSSES[name](logits, torch.zeros(1, 1, 16, 16)).backward()
    assert (logits.grad > 0).all(), "the background is pushed down"


def test_deep_supervision_is_the_mean_and_the_last_map_predicts():
    logits, masks = pair()
    maps = [logits, logits * 0, logits]
    expected = (2 * soft_iou(logits, masks) + soft_iou(logits * 0, masks)) / 3
    torch.testing.assert_close(supervised(soft_iou, maps, masks), expected)
    assert final(maps) is maps[-1] and final(logits) is logits


def test_maps_of_another_size_are_enlarged_not_the_masks():
    logits, masks = pair()
    small = torch.full((2, 1, 2, 2), -BIG)
    assert supervised(soft_iou, [small, logits], masks).item() == pytest.approx(
        (1 - 1 / 4 + 1 - 2 / 5) / 2, abs=1e-6
    )


def test_shapes_that_differ_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        soft_iou(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(IrstkitError, match="soft_iou"):
        get_loss("jaccard")
