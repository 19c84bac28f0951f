"""SD2Net against its sheet, and the recomputed differences against the definition."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.train.losses import soft_iou
from irstkit.train.models import build, count_parameters, differences, model_names
from irstkit.train.models.differences import difference_bases, recombine, recombine_stacked
from irstkit.train.models.sd2net import RSU7, SD2M, InceptionPool


@pytest.mark.parametrize(
    ("base", "expected"), [(4, 68_271), (8, 269_819), (16, 1_072_911), (32, 4_278_587)], ids=str
)
def test_parameters_are_the_sheets(base, expected):
    assert count_parameters(build("sd2net", base=base)) == expected


def test_default_is_base_8():
    assert count_parameters(build("sd2net")) == 269_819


@pytest.mark.parametrize(
    ("module", "expected", "why"),
    [
        (RSU7(1, 8, 16), 13_200, "M1"),
        (RSU7(16, 8, 16), 15_360, "M3"),
        (SD2M(16), 560, "C^2 + C^2 + 3C"),
        (SD2M(64), 8_384, "C^2 + C^2 + 3C"),
        (InceptionPool(16), 20, "6, 6, 4: SD3M on 4 channels"),
        (InceptionPool(32), 110, "11, 11, 10"),
        (InceptionPool(64), 420, "22, 22, 20"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_module_parameters_are_the_sheets(module, expected, why):
    assert count_parameters(module) == expected, why


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = build("sd2net", base=4)
    images, masks = torch.rand(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    masks[:, :, 30:34, 20:24] = 1
    soft_iou(net(images), masks).backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (1, 1, 48, 80), (2, 1, 32, 16)], ids=str)
def test_any_multiple_of_16(shape):
    net = build("sd2net", base=3)
    assert net(torch.rand(shape)).shape == shape


@pytest.mark.parametrize("shape", [(1, 1, 40, 48), (1, 3, 48, 48), (48, 48)], ids=str)
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        build("sd2net", base=3)(torch.rand(shape))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"base": 2}, "at least 3"), ({"padding": "mirror"}, "'zeros' or 'reflect'"), ({"width": 3}, "width")],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(IrstkitError, match=text):
        build("sd2net", **options)


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(IrstkitError, match="sd2net"):
        build("sd3net")
    assert "sd2net" in model_names()


def test_bases_are_the_sheets_kernels():
    x = torch.rand(1, 7, 8, dtype=torch.float64)
    bases = difference_bases(x)[0]
    padded = torch.nn.functional.pad(x[0], (3, 3, 3, 3))
    for n, d in enumerate((1, 3)):
        for k, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]):
            kernel = torch.zeros(3, 3, dtype=torch.float64)
            kernel[1, 1], kernel[row, column] = 1, -1
            expected = sum(
                kernel[i, j] * padded[3 + (i - 1) * d : 10 + (i - 1) * d, 3 + (j - 1) * d : 11 + (j - 1) * d]
                for i in range(3)
                for j in range(3)
            )
            assert torch.equal(bases[8 * n + k], expected)


@given(
    planes=st.integers(1, 11),
    height=st.integers(2, 12),
    width=st.integers(2, 12),
    mode=st.sampled_from(["zeros", "reflect"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_recombination_is_the_stacked_definition(planes, height, width, mode, seed):
    assume(mode == "zeros" or min(height, width) > 3)  # reflection by 3 pixels
    generator = torch.Generator().manual_seed(seed)
    x, o, g = torch.randn(3, 1, planes, height, width, generator=generator, dtype=torch.float64)
    x, o = x.requires_grad_(), o.requires_grad_()
    y = recombine(x, o, mode=mode)
    z = recombine_stacked(x[0], o[0], mode=mode)[None]
    torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-10)
    ours, theirs = torch.autograd.grad(y, (x, o), g), torch.autograd.grad(z, (x, o), g)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_gradcheck(mode):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    o = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, o: recombine(x, o, mode=mode), (x, o))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e-13, 1000.0], ids=str)
def test_constant_and_dead_channels_are_harmless(mode, value):
    torch.manual_seed(0)
    x = torch.full((1, 2, 16, 16), value, requires_grad=True)
    o = torch.randn(1, 2, 16, 16, requires_grad=True)
    y = recombine(x, o, mode=mode)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all() and torch.isfinite(o.grad).all()
    if mode == "reflect" or value == 0:
        assert not y.any(), "no difference, hence nothing to recombine"


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_smooth_channels_keep_their_precision(mode):
    ramp = torch.linspace(0, 1e-3, 32)
    x = (5 + ramp[:, None] + ramp[None, :] ** 2).repeat(1, 1, 1, 1)
    o = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    wide = recombine_stacked(x[0].double(), o[0].double(), mode=mode)[None]
    error = (recombine(x, o, mode=mode) - wide).abs().max() / wide.abs().max()
    assert error < 5e-6


def test_half_precision_input_is_summed_in_float32():
    x = torch.rand(1, 4, 64, 64) * 500
    o = torch.randn(1, 4, 64, 64)
    y = recombine(x.half(), o.half())
    assert y.dtype == torch.float16 and torch.isfinite(y).all()
    torch.testing.assert_close(y.float(), recombine(x.half().float(), o.half().float()), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(
    ("planes", "height", "width", "at_once"),
    [(3, 9, 12, 2**24), (5, 8, 7, 100), (1, 4, 5, 1)],
    ids=["together", "in parts of one and a rest", "a plane at a time"],
)
def test_sums_of_a_gpu_are_those_of_the_cpu(monkeypatch, mode, planes, height, width, at_once):
    """The GPU's form runs on any device, so it is compared here."""
    monkeypatch.setattr(differences, "AT_ONCE", at_once)
    torch.manual_seed(0)
    x, o = torch.rand(2, planes, height, width, dtype=torch.float64)
    wanted = differences._sums(x, o, mode, squares=True)
    for squares in (True, False):
        found = differences._sums_at_once(x, o, mode, squares=squares)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=1e-12)
        if squares:
            torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-12)


def test_where_the_kernel_does_not_build_it_is_said(monkeypatch):
    kernels = pytest.importorskip("irstkit.train.models.difference_kernels")

    def check():
        raise RuntimeError("Failed to find C compiler. Please specify via CC\nmore")

    said = []
    monkeypatch.setattr(kernels, "check", check)
    monkeypatch.setattr(differences, "note", said.append)
    assert differences._kernels.__wrapped__("cuda") is None
    assert differences._kernels.__wrapped__("cpu") is None, "nothing to say"
    assert len(said) == 1 and "Failed to find C compiler" in said[0] and "more" not in said[0]
