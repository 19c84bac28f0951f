"""ATFL and NWD by the sheet's vectors, and SimOTA by brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.train.assign import anchor_candidates, assign_yolox, pair_iou, score_cost, simota
from irstkit.train.box_losses import ATFL, nwd

X = [-4.0, -2, -0.5, 0, 0.5, 2, 4]
T = [0.0, 1, 0, 1, 1, 1, 0]


def run(atfl, x=X, t=T, **given):
    logits = torch.tensor(x, requires_grad=True)
    loss = atfl(logits, torch.tensor(t), **given)
    loss.backward()
    return loss.item(), logits.grad.tolist()


GRADIENTS = {
    "exponents": [0.00034, -0.34754, 0.04366, -0.08859, -0.04366, -0.00714, 0.81516],
    "factor": [0.00021, -0.24993, 0.02933, -0.07143, -0.02933, -0.00450, 0.68160],
    "none": [-0.00005, -0.51674, 0.03847, -0.08306, -0.03847, -0.00482, 1.89220],
}


@pytest.mark.parametrize("detach", GRADIENTS)
def test_atfl_as_released(detach):
    loss, gradient = run(ATFL(lam=1.5, smoothing=0, f_max=None, detach=detach))
    assert loss == pytest.approx(3.570137, abs=1e-6)
    assert gradient == pytest.approx(GRADIENTS[detach], abs=6e-6)


@pytest.mark.parametrize(("lam", "mean"), [(2.5, 24.308214), (3.5, 90.658714)])
def test_atfl_by_lambda(lam, mean):
    assert run(ATFL(lam=lam))[0] == pytest.approx(mean, abs=1e-5)


def with_history(h, **options):
    atfl = ATFL(**options)
    atfl.running_sum.fill_(h)
    atfl.running_count.fill_(1)
    atfl.end_epoch()
    return atfl


def test_atfl_with_a_history():
    loss, gradient = run(with_history(0.6))
    assert loss == pytest.approx(90.659225, abs=1e-5)
    assert gradient == pytest.approx(
        [0.00034, -1.94642, 0.04378, -0.16521, -0.04378, -0.00721, 22.85406], abs=6e-6
    )
    assert run(with_history(0.6, lam=1.5))[0] == pytest.approx(3.570640, abs=1e-6)
    elements = with_history(0.6).elements(torch.tensor(X), torch.tensor(T))
    expected = [0.00151, 28.37517, 0.25930, 1.48437, 0.25930, 0.03399, 604.20093]
    assert elements.tolist() == pytest.approx(expected, rel=2e-5, abs=6e-6)


def test_atfl_over_positives_and_when_there_are_none():
    positives = torch.tensor(T) > 0
    assert run(ATFL(over="positives"), positives=positives)[0] == pytest.approx(90.658043, abs=1e-5)
    nothing = torch.zeros_like(positives)
    assert run(ATFL(over="positives"), positives=nothing)[0] == pytest.approx(90.658714, abs=1e-5)
    assert run(with_history(0.6, over="positives", smoothing=1.0), positives=nothing)[0] == pytest.approx(
        run(with_history(0.6, smoothing=1.0))[0]
    )


def test_the_history_is_the_mean_of_epochs_kept_in_the_state_and_not_moved_by_evaluation():
    atfl = ATFL(levels=2)
    for value in (0.2, 0.4):
        atfl(torch.tensor([math.log(value / (1 - value))]), torch.ones(1), level=1)
    atfl.end_epoch()
    atfl(torch.zeros(1), torch.ones(1), level=1)
    restored = ATFL(levels=2)
    restored.load_state_dict(atfl.state_dict())  # in the middle of an epoch
    restored.eval()(torch.full((1,), 9.0), torch.ones(1), level=1)
    restored.end_epoch()
    assert restored.history(0) is None
    assert restored.history(1).item() == pytest.approx((0.3 + 0.5) / 2, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("target", [0.0, 0.37, 1.0])
def test_atfl_is_finite_for_any_logit(dtype, target):
    logits = torch.tensor([20.0, 100, 200, 1e4, -20, -100, -200, -1e4]).to(dtype).requires_grad_()
    loss = ATFL()(logits, torch.full((8,), target, dtype=dtype))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_a_fixed_exponent_is_a_focal_loss_above_the_threshold():
    x = torch.tensor([3.0])
    expected = (1 - torch.sigmoid(x) + 1e-6) ** 2 * torch.nn.functional.softplus(-x)
    assert torch.allclose(ATFL(exponent=2.0)(x, torch.ones(1)), expected)


@pytest.mark.parametrize(
    ("other", "expected"), [((11, 10, 3, 3), 0.92486), ((10, 10, 5, 5), 0.89540), ((10, 10, 3, 3), 0.99998)]
)
def test_nwd_of_the_sheet(other, expected):
    # the first is exp(-1 / 12.8) = 0.924849: the last printed digit is rounded up
    a, b = torch.tensor([10.0, 10, 3, 3], requires_grad=True), torch.tensor(other, dtype=torch.float32)
    value = nwd(a, b, 12.8)
    assert value.item() == pytest.approx(expected, abs=1.2e-5)
    value.backward()
    assert torch.isfinite(a.grad).all()


def brute_simota(cost, iou, outside):
    """The matching in words: 1e5 added to what lies outside, in double precision."""
    cost = [[c + 1e5 * o for c, o in zip(cs, os, strict=True)] for cs, os in zip(cost, outside, strict=True)]
    wants: dict[int, list[int]] = {}
    for t, row in enumerate(cost):
        k = max(1, int(sum(sorted(iou[t], reverse=True)[:10])))
        for p in sorted(range(len(row)), key=lambda p: row[p])[:k]:
            wants.setdefault(p, []).append(t)
    return {
        p: ts[0] if len(ts) == 1 else min(range(len(cost)), key=lambda t: cost[t][p])
        for p, ts in sorted(wants.items())
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 14), st.integers(0, 2**32 - 1), st.booleans())
def test_simota_is_the_brute_force(targets, pool, seed, crowded):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(targets, pool, generator=generator) * 20
    iou = torch.rand(targets, pool, generator=generator) * (1.0 if crowded else 0.3)
    outside = torch.rand(targets, pool, generator=generator) < 0.6
    cells, owner = simota(cost, iou, outside)
    expected = brute_simota(cost.tolist(), iou.tolist(), outside.tolist())
    assert dict(zip(cells.tolist(), owner.tolist(), strict=True)) == expected


def test_simota_orders_costs_that_a_penalty_of_1e5_would_round_together():
    cost = torch.tensor([[0.002, 0.001, 0.003]])
    cells, _ = simota(cost, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert cells.tolist() == [1]


@pytest.mark.parametrize(
    ("box", "candidates"),
    [((26, 30, 34, 38), 25), ((28, 28, 36, 36), 16), ((0, 0, 8, 8), 9), ((200, 200, 208, 208), 0)],
    ids=["inside", "on an edge of cells", "corner", "outside of the map"],
)
def test_candidates_of_yolox(box, candidates):
    cells = torch.zeros(64, 4)
    found = assign_yolox(
        cells, torch.zeros(64), torch.zeros(64, 1), torch.tensor([box], dtype=torch.float32), (8, 8), 8
    )
    assert found.candidates == candidates and len(found.cells) == min(1, candidates)


def test_candidates_of_yolov7():
    from irstkit.train.models.eflnet import ANCHORS, STRIDES

    anchors, sizes = torch.tensor(ANCHORS, dtype=torch.float32), [(8, 8), (4, 4), (2, 2)]

    def cells(*boxes, duplicates="remove"):
        found = anchor_candidates(
            torch.tensor(boxes, dtype=torch.float32), anchors, STRIDES, sizes, duplicates=duplicates
        )
        return [tuple(row) for row in torch.stack(found, dim=1).tolist()]

    first, second = (26, 30, 34, 38), (28, 30, 38, 40)
    assert sorted(cells(first)) == [(0, 0, 3, 3), (0, 0, 4, 3), (0, 0, 4, 4)]  # level, anchor, row, column
    assert len(cells(first, second)) == 7 and len(cells(first, second, duplicates="keep")) == 9
    assert cells((30, 30, 33, 33)) == []
    # whole fractions: a centre exactly between borders of cells has one cell only
    assert cells((24, 24, 32, 32))[0] == (0, 0, 3, 3) and len(cells((24, 24, 32, 32))) == 1


def test_the_score_cost_is_a_cross_entropy_and_never_infinite():
    objectness, classes = torch.tensor([0.3, -40.0, 90.0]), torch.randn(3, 4)
    cost = score_cost(objectness, classes, torch.tensor([2, 0]))
    p = torch.sqrt(torch.sigmoid(classes.double()) * torch.sigmoid(objectness.double())[:, None])
    for t, label in enumerate((2, 0)):
        wanted = torch.zeros(3, 4, dtype=torch.float64)
        wanted[:, label] = 1
        expected = torch.nn.functional.binary_cross_entropy(p, wanted, reduction="none").sum(dim=1)
        assert torch.allclose(cost[t].double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(
        score_cost(torch.tensor([1e4, -1e4]), torch.tensor([[1e4], [-1e4]]), torch.tensor([0]))
    ).all()


def test_iou_without_overlap_is_zero():
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[3.0, 3, 5, 5], [1, 0, 3, 2], [0, 0, 0, 0]])
    assert pair_iou(a, b).tolist() == [[0.0, pytest.approx(1 / 3), 0.0]]
