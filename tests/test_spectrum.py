"""The laws of `freqnb.spectrum`, for every size from 1 to 65 and whatever hypothesis thinks of."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freqnb.spectrum import (
    apply_mask,
    dct2,
    dct_basis,
    frequency_grid,
    high_pass,
    idct2,
    imaginary_residue,
    kept_coefficients,
    kept_energy,
    low_pass,
    low_passes,
    radial_energy,
    radial_mask,
    ring_mask,
    split_bands,
    square_mask,
)

SIZES = range(1, 66)
RADII = (0, 1, 3.5, 8, 70)
size, radius = st.integers(1, 65), st.floats(0, 48) | st.integers(0, 48)
shape, inclusive, seed = st.sampled_from(['circle', 'square']), st.booleans(), st.integers(0, 2**31)
laws = settings(deadline=None, max_examples=60)


def images(*shape, seed=0, dtype=torch.float64):
    "Random images in [0, 1]"
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def low_mask(h, w, radius, shape, inclusive):
    "Which coefficients are low, from NumPy's own frequencies; zero frequency first"
    down, across = (np.abs(np.rint(np.fft.fftfreq(n) * n)) for n in (h, w))
    down, across = down[:, None], across[None]
    distance = np.sqrt(down**2 + across**2) if shape == 'circle' else np.maximum(down, across)
    return distance <= radius if inclusive else distance < radius


def numpy_low(x, radius, shape, inclusive):
    "The textbook way: transform, mask, and back"
    back = np.fft.ifft2(np.fft.fft2(x.numpy()) * low_mask(*x.shape[-2:], radius, shape, inclusive))
    assert np.abs(back.imag).max() < 1e-12
    return torch.from_numpy(back.real)


def same(a, b, tolerance):
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())


@pytest.mark.parametrize('shape', ['circle', 'square'])
@pytest.mark.parametrize('inclusive', [True, False])
def test_every_size_splits_and_agrees_with_numpy(shape, inclusive):
    for n in SIZES:
        for h, w in {(n, n), (n, 66 - n)}:
            x = images(1, 2, h, w, seed=n)
            for r in RADII:
                low, high = split_bands(x, r, shape, inclusive)
                assert same(low, numpy_low(x, r, shape, inclusive), 1e-10), (h, w, r)
                assert same(low + high, x, 1e-12), (h, w, r)
                single = split_bands(x.float(), r, shape, inclusive)
                assert single[0].dtype == single[1].dtype == torch.float32
                assert same(sum(single), x.float(), 1e-5) and same(single[0], low.float(), 1e-5), (h, w, r)


@laws
@given(size, size, radius, shape, inclusive, seed)
def test_any_split_adds_up_and_agrees_with_numpy(h, w, radius, shape, inclusive, seed):
    x = images(2, 1, h, w, seed=seed)
    low, high = split_bands(x, radius, shape, inclusive)
    assert same(low + high, x, 1e-12) and same(low, numpy_low(x, radius, shape, inclusive), 1e-10)
    assert same(low_pass(x, radius, shape, inclusive), low, 1e-12) and same(
        high_pass(x, radius, shape, inclusive), high, 1e-12
    )


@pytest.mark.parametrize('shape', ['circle', 'square'])
def test_beyond_the_product_basis(shape):
    "From 64 cycles on the filter is an FFT; the answer is the same"
    for h, w in [(150, 150), (151, 140), (33, 200)]:
        x = images(1, 1, h, w)
        for r in (63, 64, 65, 66.5, 90):
            assert same(low_pass(x, r, shape), numpy_low(x, r, shape, True), 1e-10), (h, w, r)


def test_counts_of_the_paper():
    counts = {
        flag: [kept_coefficients(radial_mask(32, 32, r, inclusive=flag))[0] for r in (4, 8, 12, 16)]
        for flag in (True, False)
    }
    assert counts == {True: [49, 197, 441, 795], False: [45, 193, 437, 793]}
    assert not radial_mask(32, 32, 22).all() and radial_mask(32, 32, 23).all()


@laws
@given(size, size, radius, inclusive)
def test_a_disc_holds_what_numpy_says(h, w, radius, inclusive):
    expected = np.fft.fftshift(low_mask(h, w, radius, 'circle', inclusive))
    assert (radial_mask(h, w, radius, inclusive).numpy() == expected).all()


@laws
@given(size, size, radius, radius, inclusive)
def test_rings_tile(h, w, a, b, inclusive):
    inner, outer = sorted((a, b))
    inside, ring, whole = (
        radial_mask(h, w, inner, inclusive),
        ring_mask(h, w, inner, outer, inclusive),
        radial_mask(h, w, outer, inclusive),
    )
    assert not (inside & ring).any() and ((inside | ring) == whole).all()


@laws
@given(size, size)
def test_the_grid_is_numpys(h, w):
    down, across = frequency_grid(h, w)
    assert np.allclose(down.flatten(), np.fft.fftshift(np.fft.fftfreq(h, 1 / h))) and (
        down.shape,
        across.shape,
    ) == ((h, 1), (1, w))
    assert np.allclose(frequency_grid(h, w, per_pixel=True)[1].flatten(), np.fft.fftshift(np.fft.fftfreq(w)))


def residue(x, mask):
    "The imaginary part that a mask leaves, over the length of the whole image"
    back = torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.ifftshift(mask))
    return (back.imag.norm() / x.norm()).item()


@laws
@given(size, size, radius, st.integers(1, 64), seed)
def test_symmetric_masks_leave_images_real(h, w, radius, side, seed):
    x = images(1, 1, h, w, seed=seed)
    masks = [
        radial_mask(h, w, radius),
        ring_mask(h, w, radius / 2, radius),
        square_mask(h, w, side),
        radial_mask(h, w, radius, False),
    ]
    assert [residue(x, mask) < 1e-12 for mask in masks] == [True] * 4
    assert imaginary_residue(x, radial_mask(h, w, radius)) < 1e-12, (
        'the mean is kept, so the measure is defined'
    )


@pytest.mark.parametrize('side', [28, 24, 20, 16])
def test_half_open_squares_do_not(side):
    noise = images(8, 3, 32, 32) - 0.5
    assert 0.1 < imaginary_residue(noise, square_mask(32, 32, side, symmetric=False)) < 0.35


@laws
@given(size, size, radius, shape, st.floats(-3, 3), st.floats(-3, 3), seed)
def test_linear(h, w, radius, shape, a, b, seed):
    x, y = images(2, 1, 1, h, w, seed=seed)
    assert same(
        low_pass(a * x + b * y, radius, shape),
        a * low_pass(x, radius, shape) + b * low_pass(y, radius, shape),
        1e-10,
    )


@laws
@given(size, size, radius, shape, inclusive, seed)
def test_filtering_twice_is_filtering_once(h, w, radius, shape, inclusive, seed):
    x = images(1, 2, h, w, seed=seed)
    low, high = split_bands(x, radius, shape, inclusive)
    assert same(low_pass(low, radius, shape, inclusive), low, 1e-10)
    assert same(low_pass(high, radius, shape, inclusive), torch.zeros_like(x), 1e-10)
    assert abs((low * high).sum()) < 1e-8 * h * w, 'the parts are at right angles'


@laws
@given(size, size, radius, shape, seed)
def test_the_gradient_is_the_filter(h, w, radius, shape, seed):
    x, weight = images(2, 1, 1, h, w, seed=seed)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((low_pass(x, radius, shape) * weight).sum(), x)
    assert same(gradient, low_pass(weight, radius, shape), 1e-10)
    with torch.no_grad():
        assert same(low_pass(x, radius, shape), low_pass(x.detach(), radius, shape), 1e-12)


@laws
@given(size, size, st.lists(radius, min_size=1, max_size=5), shape, seed)
def test_many_radii_at_once_are_each_alone(h, w, radii, shape, seed):
    x = images(2, 1, h, w, seed=seed)
    for low, r in zip(low_passes(x, radii, shape), radii, strict=True):
        assert same(low, low_pass(x, r, shape), 1e-10)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('batch', [(4, 3), (1, 1), (0, 3), (3,), (), (2, 3, 4)])
def test_types_and_batches(dtype, batch):
    x = images(*batch, 9, 12).to(dtype)
    low, high = split_bands(x, 3)
    assert (low.shape, high.shape, low.dtype, high.dtype) == (x.shape, x.shape, dtype, dtype)
    tolerance = max(1e-6, 2 * torch.finfo(dtype).eps)
    whole = low_pass(x.double(), 3)
    assert ((low.double() - whole).abs() <= tolerance).all() and (
        (low + high).double() - x.double()
    ).abs().sum() <= tolerance * x.numel()


def test_a_batch_is_its_images_and_layout_does_not_matter():
    x = images(5, 3, 28, 28, dtype=torch.float32)
    alone = torch.cat([low_pass(image[None], 4) for image in x])
    assert same(low_pass(x, 4), alone, 1e-5)
    assert same(low_pass(x.contiguous(memory_format=torch.channels_last), 4), low_pass(x, 4), 1e-5)
    assert same(low_pass(x.transpose(-1, -2), 4), low_pass(x, 4).transpose(-1, -2), 1e-5)


def test_chunks_do_not_show(monkeypatch):
    x = images(7, 3, 16, 16)
    whole = split_bands(x, 4)
    monkeypatch.setattr('freqnb.spectrum._CHUNK', 300)
    memory = torch.full_like(x, math.nan), torch.full_like(x, math.nan)
    for a, b in zip(whole + whole, split_bands(x, 4) + split_bands(x, 4, out=memory)):
        assert same(a, b, 1e-12)
    assert same(memory[0] + memory[1], x, 1e-12)


@laws
@given(size, size, seed)
def test_parseval(h, w, seed):
    x = images(2, 3, h, w, seed=seed)
    rings = radial_energy(x)
    assert torch.allclose(rings.sum(-1), x.square().sum((-2, -1)), rtol=1e-10)
    for r in range(0, rings.shape[-1], 5):
        inside = low_pass(x, r).square().sum((-2, -1))
        assert torch.allclose(rings[..., : r + 1].sum(-1), inside, rtol=1e-9)
        assert torch.allclose(
            kept_energy(x, radial_mask(h, w, r)), inside.sum(1) / x.square().sum((1, 2, 3)), rtol=1e-9
        )


@laws
@given(size, size, seed)
def test_dct_keeps_lengths_and_comes_back(h, w, seed):
    x, y = images(2, 2, 3, h, w, seed=seed)
    assert same(idct2(dct2(x)), x, 1e-11) and same(dct2(idct2(x)), x, 1e-11)
    assert math.isclose((dct2(x) * dct2(y)).sum(), (x * y).sum(), rel_tol=1e-10)


@pytest.mark.parametrize('h', range(1, 9))
@pytest.mark.parametrize('w', [1, 3, 8])
def test_cosines(h, w):
    l1, ortho = dct_basis(h, w).reshape(h * w, -1), dct_basis(h, w, norm='ortho').reshape(h * w, -1)
    assert torch.allclose(l1.abs().sum(1), torch.ones(h * w).double())
    gram = l1 @ l1.T
    assert same(gram, gram.diag().diag(), 1e-12) and (gram.diag() > 0).all()
    assert same(ortho @ ortho.T, torch.eye(h * w).double(), 1e-12)
    x = images(1, 1, h, w)
    assert same((ortho @ x.flatten()).view(1, 1, h, w), dct2(x), 1e-12)


@laws
@given(size, size, seed, st.floats(0, 1))
def test_weights_between_zero_and_one_mix(h, w, seed, share):
    x, mask = images(1, 1, h, w, seed=seed), radial_mask(h, w, 4)
    mixed = apply_mask(x, mask.double() * (1 - share) + share)
    assert same(mixed, (1 - share) * low_pass(x, 4) + share * x, 1e-10)


REFUSED = [
    (lambda x: low_pass(x, -1), '-1'),
    (lambda x: low_pass(x, math.nan), 'nan'),
    (lambda x: low_pass((x * 255).byte(), 4), 'uint8'),
    (lambda x: low_pass(x, 4, shape='disc'), "'disc'"),
    (lambda x: apply_mask(x, radial_mask(8, 9, 2)), '(8, 9)'),
    (lambda x: square_mask(8, 8, 2.5), '2.5'),
    (lambda x: ring_mask(8, 8, 3, 2), 'inner=3'),
    (lambda x: low_passes(x, []), '[]'),
    (lambda x: radial_mask(0, 8, 2), 'h=0'),
    (lambda x: low_pass(x[0, 0, 0], 2), '(8,)'),
    (lambda x: dct_basis(3, norm='l2'), "'l2'"),
]


@pytest.mark.parametrize('call, echo', REFUSED, ids=[echo for _, echo in REFUSED])
def test_refusals_echo_the_value(call, echo):
    with pytest.raises(ValueError) as error:
        call(torch.rand(2, 1, 8, 8))
    assert echo in str(error.value)
