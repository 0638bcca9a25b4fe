"Smoothing against loops in float64, over random kernels"
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freqnb.layers import first_convolution, high_share, smooth, smooth_kernels
from freqnb.models import NETS, create

kernels = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31)).map(
    lambda o: torch.randn(*o[:4], dtype=torch.float64, generator=torch.Generator().manual_seed(o[4])))
rhos = st.floats(0, 4, allow_nan=False)


def reference(weight, rho):
    "Equation 3 one number at a time, from the old weights alone"
    out, rows, columns = weight.clone(), *weight.shape[-2:]
    for i in range(rows):
        for j in range(columns):
            for a, b in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                out[..., i, j] += rho*weight[..., min(max(i+a, 0), rows-1), min(max(j+b, 0), columns-1)]
    return out


@settings(deadline=None, max_examples=60)
@given(kernels, rhos)
def test_smoothing_is_the_papers(weight, rho):
    expected = reference(weight, rho)
    torch.testing.assert_close(smooth(weight, rho), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(smooth(weight, rho, normalize=True), expected/(1+8*rho), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(smooth(weight.float(), rho).double(), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(kernels, rhos)
def test_no_smoothing_and_constant_kernels(weight, rho):
    assert torch.equal(smooth(weight, 0), weight)
    flat = torch.ones_like(weight)
    torch.testing.assert_close(smooth(flat, rho), (1+8*rho)*flat)
    torch.testing.assert_close(smooth(flat, rho, normalize=True), flat)


@pytest.mark.parametrize('name', NETS)
def test_only_the_first_layer_changes(name):
    model = create(name, width=6)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    smoothed = smooth_kernels(model, .5)
    first = next(key for key, value in model.named_parameters() if value is first_convolution(model).weight)
    assert [key for key, value in smoothed.state_dict().items() if not torch.equal(value, before[key])] == [first]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert high_share(smoothed.state_dict()[first]).mean() < high_share(before[first]).mean()


@pytest.mark.parametrize('rho', [-.1, float('nan'), float('inf')])
def test_bad_rho_is_echoed(rho):
    with pytest.raises(ValueError, match=str(rho)): smooth(torch.ones(1, 1, 3, 3), rho)
