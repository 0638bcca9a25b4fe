"""The common corruptions: laws for any images, and each type against its definition in NumPy, SciPy and Pillow."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from PIL import Image
from scipy import ndimage
from torch import nn

from freqnb.corruptions import (
    BENCHMARK,
    CORRUPTIONS,
    EXTRA,
    KINDS,
    STRENGTHS,
    Draws,
    corrupt,
    corrupted,
    corrupted_arrays,
)
from freqnb.data import load
from freqnb.evaluate import corruption_accuracy
from freqnb.weather import procedural_ice

NAMES = list(CORRUPTIONS)
RANDOM = {
    'gaussian_noise',
    'shot_noise',
    'impulse_noise',
    'speckle_noise',
    'glass_blur',
    'motion_blur',
    'snow',
    'frost',
    'fog',
    'elastic_transform',
    'spatter',
}
laws = settings(deadline=None, max_examples=60)
name, severity, seed = st.sampled_from(NAMES), st.integers(1, 5), st.integers(0, 2**40)


def random_images(n, c, h, w, seed=0, dtype=torch.float32):
    "Smooth and rough parts, in [0, 1]"
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


@pytest.fixture(scope='module')
def photo():
    "A photograph `(3, H, W)` in [0, 1]"
    pixels = np.array(Image.open(cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


@pytest.fixture(scope='module')
def colors(photo):
    "64 crops of 3 x 32 x 32, in steps of 1/255"
    crops = [photo[:, i : i + 128, j : j + 128] for i in range(0, 472, 59) for j in range(0, 384, 48)]
    return torch.nn.functional.interpolate(torch.stack(crops), 32, mode='area').mul(255).round() / 255


@pytest.fixture(scope='module')
def grays():
    return load('fashion_mnist_mini').test.take(100).float()


@pytest.fixture(scope='module')
def large(photo):
    return photo[None, :, 60:156, 200:300].contiguous()


def test_the_names():
    assert BENCHMARK == (
        'gaussian_noise',
        'shot_noise',
        'impulse_noise',
        'defocus_blur',
        'glass_blur',
        'motion_blur',
        'zoom_blur',
        'snow',
        'frost',
        'fog',
        'brightness',
        'contrast',
        'elastic_transform',
        'pixelate',
        'jpeg_compression',
    )
    assert (
        EXTRA == ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate') and [*BENCHMARK, *EXTRA] == NAMES
    )
    assert set(STRENGTHS) == set(NAMES) and all(len(row) == 5 for rows in STRENGTHS.values() for row in rows)
    assert sum(map(len, KINDS.values())) == 19


# Laws
@laws
@given(
    name,
    severity,
    seed,
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.float64, torch.float16]),
)
def test_any_images(name, severity, seed, n, c, h, w, dtype):
    x = random_images(n, c, h, w, seed % 100, dtype)
    before, state = x.clone(), torch.get_rng_state()
    out = corrupt(x, name, severity, seed)
    assert (
        out.shape == x.shape
        and out.dtype == dtype
        and out.device == x.device
        and out.data_ptr() != x.data_ptr()
    )
    assert bool(((out >= 0) & (out <= 1)).all())
    assert (
        torch.equal(out, corrupt(x, name, severity, seed))
        and torch.equal(x, before)
        and torch.equal(torch.get_rng_state(), state)
    )


@pytest.mark.parametrize('name', NAMES)
def test_extreme_and_large_images(name):
    for x in (
        torch.zeros(2, 3, 32, 32),
        torch.ones(2, 1, 28, 28),
        torch.ones(2, 3, 28, 31),
        random_images(1, 3, 70, 101),
        torch.zeros(0, 3, 32, 32),
    ):
        for severity in (1, 5):
            out = corrupt(x, name, severity)
            assert out.shape == x.shape and bool(((out >= 0) & (out <= 1)).all())


@pytest.mark.parametrize('name', NAMES)
def test_seeds(name, colors):
    same = torch.equal(corrupt(colors, name, 5, 0), corrupt(colors, name, 5, 1))
    assert same == (name not in RANDOM)


@pytest.mark.parametrize('name', sorted(RANDOM))
def test_images_meet_different_random_numbers(name):
    x = random_images(1, 3, 32, 32).expand(130, -1, -1, -1)
    out = corrupt(x, name, 5)
    assert all(not torch.equal(out[0], out[i]) for i in (1, 63, 64, 65, 128))


@pytest.mark.parametrize('name', NAMES)
def test_an_image_does_not_feel_those_after_it(name, colors):
    apart = (corrupt(colors, name, 3)[:21] - corrupt(colors[:21], name, 3)).abs()
    assert (apart > 1e-5).float().mean() < 1e-3


@pytest.mark.parametrize('name', NAMES)
def test_layout_does_not_matter(name, colors):
    strided = colors.to(memory_format=torch.channels_last)
    assert (corrupt(strided, name, 3) - corrupt(colors, name, 3)).abs().gt(1e-5).float().mean() < 1e-3


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_threads_and_modes_do_not_matter(threads, colors):
    expected, before = corrupt(colors.repeat(3, 1, 1, 1), 'elastic_transform'), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            out = corrupt(colors.repeat(3, 1, 1, 1), 'elastic_transform')
        assert torch.get_num_threads() == threads and torch.is_grad_enabled() and not out.requires_grad
    finally:
        torch.set_num_threads(before)
    assert (out - expected).abs().max() < 1e-5
    assert not corrupt(colors[:2].clone().requires_grad_(), 'fog').requires_grad


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(name='rain'), "'rain'; expected one of gaussian_noise"),
        (dict(severity=0), 'severity is 0'),
        (dict(severity=6), 'severity is 6'),
        (dict(severity=2.5), 'severity is 2.5'),
        (dict(severity=True), 'severity is True'),
        (dict(severity='3'), "severity is '3'"),
        (dict(x=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), 'divided by 255'),
        (dict(x=np.zeros((1, 3, 8, 8))), 'expected a float tensor'),
        (dict(x=torch.full((1, 3, 8, 8), 1.5)), 'from 1.5 to 1.5'),
        (dict(x=torch.full((1, 3, 8, 8), math.nan)), 'nan'),
        (dict(x=torch.full((1, 3, 8, 8), -0.1)), 'from -0.1'),
        (dict(x=torch.zeros(3, 8, 8)), '(3, 8, 8)'),
        (dict(x=torch.zeros(1, 2, 8, 8)), '(1, 2, 8, 8)'),
        (dict(x=torch.zeros(1, 3, 0, 8)), '(1, 3, 0, 8)'),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(ValueError) as error:
        corrupt(**dict(x=torch.zeros(1, 3, 8, 8), name='fog') | arguments)
    assert words in str(error.value)


# Severity. The distance is the root mean square change. It has no order where the published constants have none:
# - saturate loses saturation at 1 and 2 and gains it at 3 to 5;
# - elastic_transform trades the affine map, which moves most, for detail;
# - spatter is water up to 3 and mud from 4;
# - snow trades the number of flakes for their size;
# - glass_blur at 4 blurs less than at 3 but twice;
# - frost at 4 takes light from the image and adds none.
# Motion at 3 and 4 has one width and two lengths of a kernel that is nearly 0 at both ends.
UNORDERED = ('spatter', 'snow', 'glass_blur', 'frost')
ORDERED = [o for o in NAMES if o not in (*UNORDERED, 'saturate', 'elastic_transform')]


def distances(x, name):
    return [(corrupt(x, name, o) - x).square().mean().sqrt().item() for o in range(1, 6)]


@pytest.mark.parametrize('name', ORDERED)
def test_severity_grows(name, colors, grays):
    for x in (colors, grays):
        assert (
            np.all(np.diff(distances(x, name)) > -1e-6) and np.sum(np.diff(distances(x, name)) > 1e-6) >= 3
        ), distances(x, name)


@pytest.mark.parametrize('name', UNORDERED)
def test_the_last_severity_is_worse_than_the_first(name, colors, grays):
    for x in (colors, grays):
        assert distances(x, name)[4] > distances(x, name)[0] > 0, distances(x, name)


def test_elastic_images_bend_less_as_a_whole(colors, grays):
    for x in (colors, grays):
        assert distances(x, 'elastic_transform')[0] > distances(x, 'elastic_transform')[4] > 0


def test_saturation_goes_both_ways(colors, grays):

    def saturation(x):
        return (1 - x.amin(1) / x.amax(1).clamp(min=1e-6)).mean()

    values = [saturation(corrupt(colors, 'saturate', o)) for o in (2, 1, 3, 4, 5)]
    assert values[0] < values[1] < saturation(colors) < values[2] < values[3] < values[4]
    assert distances(grays, 'saturate') == [0] * 5


# Definitions
def constants(name, severity, x):
    return STRENGTHS[name][min(x.shape[-2:]) >= 64][severity - 1]


def draws_of(name, x, seed=0):
    return Draws(name, seed, 0, x)


def per_channel(x, change):
    return torch.from_numpy(
        np.stack([np.stack([change(channel) for channel in image]) for image in x.double().numpy()])
    )


def close(name, severity, x, expected, tolerance=2e-5, wrong=0.0, worst=1.0):
    "All but a share of the pixels agree; the others differ little, by a rounding to 8 bits that fell to the other side"
    apart = (corrupt(x, name, severity).double() - expected.clamp(0, 1)).abs()
    assert apart.max() <= worst, apart.max()
    assert (apart > tolerance).double().mean() <= wrong, (apart.max(), (apart > tolerance).double().mean())


every_size = pytest.mark.parametrize('images', ['colors', 'grays', 'large'])
every_severity = pytest.mark.parametrize('severity', range(1, 6))


@pytest.fixture
def x(images, request):
    return request.getfixturevalue(images)[:5]


@pytest.mark.parametrize('side', [32, 64])
@every_severity
def test_noise_statistics(side, severity):
    x = torch.full((4 * (64 // side) ** 2 * 16, 3, side, side), 0.5)
    c = {o: constants(o, severity, x) for o in NAMES if 'noise' in o}
    out = {o: corrupt(x, o, severity) for o in c}
    inside = math.erf(0.5 / c['gaussian_noise'] / math.sqrt(2))  # the share that is not clipped
    middle = out['gaussian_noise'][(out['gaussian_noise'] > 0) & (out['gaussian_noise'] < 1)] - 0.5
    assert abs(len(middle) / x.numel() - inside) < 0.003
    cut = 0.5 / c['gaussian_noise']
    expected = c['gaussian_noise'] * math.sqrt(
        1 - 2 * cut * math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi) / inside
    )
    assert middle.std() == pytest.approx(expected, rel=0.01)
    counts = out['shot_noise'] * c['shot_noise']
    assert (counts - counts.round()).abs().max() < 1e-3
    for k in range(math.ceil(0.4 * c['shot_noise']), math.floor(0.6 * c['shot_noise']) + 1):
        rate = 0.5 * c['shot_noise']
        share = math.exp(k * math.log(rate) - rate - math.lgamma(k + 1))
        assert (counts.round() == k).float().mean() == pytest.approx(share, abs=0.003)
    assert [(out['impulse_noise'] == o).float().mean().item() for o in (0, 1)] == pytest.approx(
        [c['impulse_noise'] / 2] * 2, abs=0.002
    )
    assert ((out['impulse_noise'] == 0.5) | (out['impulse_noise'] == 0) | (out['impulse_noise'] == 1)).all()
    assert (out['speckle_noise'] - 0.5).abs().median() / 0.5 == pytest.approx(
        0.6745 * c['speckle_noise'], rel=0.02
    )
    assert torch.equal(corrupt(torch.zeros_like(x), 'speckle_noise', severity), torch.zeros_like(x))


@every_size
@every_severity
def test_gaussian_blur(x, severity):
    sigma = constants('gaussian_blur', severity, x)
    close(
        'gaussian_blur',
        severity,
        x,
        per_channel(x, lambda o: ndimage.gaussian_filter(o, sigma, mode='nearest', truncate=4)),
    )


def disc(radius, soften):
    "The softened disc, from its definition"
    reach = max(8, radius)
    line, rim = np.arange(-reach, reach + 1), 1 if radius <= 8 else 2
    kernel = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    bell = np.exp(-(np.arange(-rim, rim + 1) ** 2) / (2 * soften**2))
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, bell / bell.sum(), axis, mode='mirror')
    return kernel / (line[:, None] ** 2 + line**2 <= radius**2).sum()


@every_size
@every_severity
def test_defocus_blur(x, severity):
    kernel = disc(*constants('defocus_blur', severity, x))
    close('defocus_blur', severity, x, per_channel(x, lambda o: ndimage.correlate(o, kernel, mode='mirror')))


@every_size
@every_severity
def test_glass_blur(x, severity):
    "The second assignment of the released swap copies what the first has written, so a pixel copies its neighbor"
    sigma, reach, times = constants('glass_blur', severity, x)
    x, draws, expected = x[:2], draws_of('glass_blur', x[:2]), []
    offsets = [draws.whole((2 * reach) ** 2, *x.shape[2:]).numpy() for _ in range(times)]

    def smooth(pixels):
        return np.stack([ndimage.gaussian_filter(o, sigma, mode='nearest', truncate=4) for o in pixels])

    for i, image in enumerate(x.double().numpy()):
        pixels = np.floor(smooth(image) * 255 + 1e-3).astype(np.uint8).transpose(1, 2, 0).copy()
        for drawn in offsets:
            for h in range(pixels.shape[0] - reach, reach, -1):
                for w in range(pixels.shape[1] - reach, reach, -1):
                    dy, dx = drawn[i, h, w] // (2 * reach) - reach, drawn[i, h, w] % (2 * reach) - reach
                    pixels[h, w], pixels[h + dy, w + dx] = pixels[h + dy, w + dx], pixels[h, w]
        expected.append(smooth(pixels.transpose(2, 0, 1) / 255))
    close('glass_blur', severity, x, torch.from_numpy(np.stack(expected)), wrong=0.01, worst=1.01 / 255)


def motion(plane, radius, sigma, degrees):
    "Half a bell of taps on whole pixels, along a direction"
    taps = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(taps) ** 2) / (2 * sigma**2))
    i, j = np.indices(plane.shape)
    total = np.zeros_like(plane)
    for tap, weight in enumerate(weights / weights.sum()):
        down, across = (math.ceil(tap * f(math.radians(degrees)) - 0.5) for f in (math.sin, math.cos))
        total += (
            weight
            * plane[np.clip(i + down, 0, plane.shape[0] - 1), np.clip(j + across, 0, plane.shape[1] - 1)]
        )
    return total


@every_size
@every_severity
def test_motion_blur(x, severity):
    degrees = draws_of('motion_blur', x).uniform(-45, 45).tolist()
    expected = [
        np.stack([motion(o, *constants('motion_blur', severity, x), angle) for o in image])
        for image, angle in zip(x.double().numpy(), degrees)
    ]
    close('motion_blur', severity, x, torch.from_numpy(np.stack(expected)))


def zoomed(plane, factor):
    "The middle of an image, enlarged by SciPy, and its middle"
    parts = [math.ceil(n / factor) for n in plane.shape]
    starts = [(n - part) // 2 for n, part in zip(plane.shape, parts)]
    big = ndimage.zoom(
        plane[starts[0] : starts[0] + parts[0], starts[1] : starts[1] + parts[1]], factor, order=1
    )
    top, left = ((b - n) // 2 for b, n in zip(big.shape, plane.shape))
    return big[top : top + plane.shape[0], left : left + plane.shape[1]]


@every_size
@every_severity
def test_zoom_blur(x, severity):
    factors = np.arange(1, *constants('zoom_blur', severity, x))
    close(
        'zoom_blur',
        severity,
        x[:2],
        per_channel(x[:2], lambda o: (o + sum(zoomed(o, f) for f in factors)) / (len(factors) + 1)),
    )


@every_size
@every_severity
def test_snow(x, severity):
    mean, spread, zoom, least, radius, sigma, keep = constants('snow', severity, x)
    draws, expected = draws_of('snow', x), []
    noise, degrees = draws.normal(1, *x.shape[2:]), draws.uniform(-135, -45).tolist()
    for image, plane, angle in zip(x.double().numpy(), noise.double().numpy()[:, 0], degrees):
        flakes = zoomed(mean + spread * plane, zoom)
        flakes = motion(
            np.floor(np.clip(np.where(flakes < least, 0, flakes), 0, 1) * 255) / 255, radius, sigma, angle
        )
        light = image if len(image) == 1 else np.einsum('c,chw->hw', [0.299, 0.587, 0.114], image)[None]
        expected.append(
            keep * image + (1 - keep) * np.maximum(image, 1.5 * light + 0.5) + flakes + np.rot90(flakes, 2)
        )
    close('snow', severity, x, torch.from_numpy(np.stack(expected)), wrong=0.005, worst=1.01 / 255)


def fill(field, steps, rows, columns, neighbors):
    "Each point of `rows` and `columns` becomes the mean of its neighbors and a random step"
    size = field.shape[1]
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            beside = [field[:, (r + a) % size, (c + b) % size] for a, b in neighbors]
            field[:, r, c] = np.mean(beside, 0) + steps[:, i, j]


def landscape(draws, h, w, decay):
    "The diamond-square method, point by point; random numbers in the order of the tensors"
    size = step = 2 ** math.ceil(math.log2(max(h, w, 2)))
    field, jump = np.zeros((draws.n, size, size)), 100.0
    while step > 1:
        half = step // 2
        even, odd = range(0, size, step), range(half, size, step)
        corners = [(-half, -half), (-half, half), (half, -half), (half, half)]
        cross = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for rows, columns, neighbors in ((odd, odd, corners), (even, odd, cross), (odd, even, cross)):
            steps = draws.uniform(-(jump**2), jump**2, len(rows), len(columns)).double().numpy()
            fill(field, steps, rows, columns, neighbors)
        step, jump = half, jump / decay

    low, high = (f(field, (1, 2), keepdims=True) for f in (np.min, np.max))
    return ((field - low) / (high - low))[:, None, :h, :w]


@every_size
@every_severity
def test_fog(x, severity):
    amount, decay = constants('fog', severity, x)
    brightest = x.double().numpy().max((1, 2, 3), keepdims=True)
    heights = landscape(draws_of('fog', x), *x.shape[2:], decay)
    close(
        'fog',
        severity,
        x,
        torch.from_numpy((x.double().numpy() + amount * heights) * brightest / (brightest + amount)),
    )


@every_size
@every_severity
def test_frost(x, severity):
    keep, amount = constants('frost', severity, x)
    close(
        'frost',
        severity,
        x,
        keep * x.double() + amount * procedural_ice(draws_of('frost', x), *x.shape[1:]).double(),
    )


def test_ice_is_like_the_photographs():
    x = torch.zeros(1000, 3, 32, 32)
    ice = torch.cat([procedural_ice(Draws('frost', 0, o, x[:64]), 3, 32, 32) for o in range(15)])
    assert ice.mean((0, 2, 3)).tolist() == pytest.approx([0.56, 0.64, 0.69], abs=0.02)
    assert 0.4 < ice.mean((1, 2, 3)).amin() < 0.48 and 0.78 < ice.mean((1, 2, 3)).amax() < 0.85
    assert ice.mean(1).std((1, 2)).mean() == pytest.approx(0.09, abs=0.01)


def in_hsv(x, change):
    "Change saturation and value of each pixel, by Python's own color module"
    from colorsys import hsv_to_rgb, rgb_to_hsv

    def pixel(rgb):
        h, s, v = rgb_to_hsv(*rgb)
        return hsv_to_rgb(h, *change(s, v))

    return torch.from_numpy(np.apply_along_axis(pixel, 1, x.double().numpy()))


def clipped(value):
    return min(max(value, 0), 1)


@every_severity
def test_brightness(severity, colors, grays):
    c = constants('brightness', severity, colors)
    close('brightness', severity, colors[:3], in_hsv(colors[:3], lambda s, v: (s, clipped(v + c))))
    close('brightness', severity, grays, grays.double() + c)


@every_severity
def test_saturate(severity, colors):
    scale, shift = constants('saturate', severity, colors)
    x = torch.cat([colors[:3], colors[:1, :1].expand(-1, 3, -1, -1), torch.zeros(1, 3, 32, 32)])
    close('saturate', severity, x, in_hsv(x, lambda s, v: (clipped(s * scale + shift), v)))


@every_size
@every_severity
def test_contrast(x, severity):
    c = constants('contrast', severity, x)
    close('contrast', severity, x, per_channel(x, lambda o: o.mean() + c * (o - o.mean())))


@every_size
@every_severity
def test_elastic_transform(x, severity):
    h, w = x.shape[2:]
    side = min(h, w) * (1 if min(h, w) < 64 else 244 / 224)
    amount, sigma, shift = (side * o for o in constants('elastic_transform', severity, x))
    draws = draws_of('elastic_transform', x)
    moved = draws.uniform(-shift, shift, 3, 2).double().numpy()
    fields = draws.uniform(-1, 1, 2, h, w).double().numpy() if amount else np.zeros((len(x), 2, h, w))
    expected, (i, j) = [], np.indices((h, w)).astype(float)
    for image, points, field in zip(x.double().numpy(), moved, fields):
        old = np.array(
            [(h // 2 + a, w // 2 + b) for a, b in np.array([(1, 1), (1, -1), (-1, -1)]) * (min(h, w) // 3)],
            float,
        )
        back = np.linalg.solve(np.c_[old + points, np.ones(3)], old)
        across, down = np.moveaxis(np.stack([j, i, np.ones((h, w))], -1) @ back, -1, 0)
        bent = [ndimage.map_coordinates(o, [down, across], order=1, mode='mirror') for o in image]
        dx, dy = (
            amount * ndimage.gaussian_filter(o, sigma, mode='reflect', truncate=3) if amount else o
            for o in field
        )
        expected.append([ndimage.map_coordinates(o, [i + dy, j + dx], order=1, mode='reflect') for o in bent])
    close('elastic_transform', severity, x, torch.from_numpy(np.array(expected)), tolerance=1e-3, wrong=0.01)


def pictures(x):
    "Images as Pillow holds them"
    return [Image.fromarray(o.mul(255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()) for o in x]


def tensor(drawn):
    return (
        torch.stack(
            [torch.from_numpy(np.array(o).reshape(o.height, o.width, -1)).permute(2, 0, 1) for o in drawn]
        ).double()
        / 255
    )


@every_size
@every_severity
def test_pixelate(x, severity):
    "Pillow rounds to 8 bits after each of two passes, so one level of 255 may lie between"
    c, (h, w) = constants('pixelate', severity, x), x.shape[2:]
    box = Image.Resampling.BOX
    close(
        'pixelate',
        severity,
        x,
        tensor([o.resize((int(w * c), int(h * c)), box).resize((w, h), box) for o in pictures(x)]),
        tolerance=1.01 / 255,
    )


@every_size
@every_severity
def test_jpeg_compression(x, severity):
    quality, files = constants('jpeg_compression', severity, x), [io.BytesIO() for _ in x]
    for picture, file in zip(pictures(x), files):
        picture.save(file, 'JPEG', quality=quality)
    apart = (corrupt(x, 'jpeg_compression', severity) - tensor(map(Image.open, files))).abs() * 255
    assert apart.mean() < 0.4 and (apart < 0.5).float().mean() > 0.8, (
        apart.mean(),
        (apart < 0.5).float().mean(),
    )


def canny(x, low=50, high=150):
    "Edges of a plane of whole numbers, pixel by pixel"
    p = np.pad(x.astype(int), 1, mode='edge')
    across = ndimage.correlate(p, np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]))[1:-1, 1:-1]
    down = ndimage.correlate(p, np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]))[1:-1, 1:-1]
    size = np.pad(abs(across) + abs(down), 1)
    weak, strong = np.zeros(x.shape, bool), np.zeros(x.shape, bool)
    for i, j in np.ndindex(x.shape):
        dx, dy, here = across[i, j], down[i, j], size[i + 1, j + 1]
        if here <= low:
            continue
        angle = math.atan2(abs(dy), abs(dx))
        if angle < math.pi / 8:
            peak = here > size[i + 1, j] and here >= size[i + 1, j + 2]
        elif angle > 3 * math.pi / 8:
            peak = here > size[i, j + 1] and here >= size[i + 2, j + 1]
        else:
            s = -1 if (dx < 0) != (dy < 0) else 1
            peak = here > size[i, j + 1 - s] and here > size[i + 2, j + 1 + s]
        weak[i, j], strong[i, j] = peak, peak and here > high
    labels, _ = ndimage.label(weak, np.ones((3, 3)))
    return np.isin(labels, np.unique(labels[strong])) & weak


def chamfer(edges):
    "Length of the shortest way to an edge, at most 20"
    i, j = np.indices(edges.shape)
    best = np.full(edges.shape, 20.0)
    for a, b in zip(*edges.nonzero()):
        far, near = np.maximum(abs(i - a), abs(j - b)), np.minimum(abs(i - a), abs(j - b))
        best = np.minimum(
            best,
            np.where(
                2 * near <= far,
                far - 2 * near + 2.1969 * near,
                2.1969 * (far - near) + 1.4 * (2 * near - far),
            ),
        )
    return best


def shine(liquid):
    "The relief of water, from 0 to 1"

    def blurred(o):
        return ndimage.uniform_filter(o.astype(float), 3, mode='mirror')

    depth = np.floor(blurred(chamfer(canny(liquid))) + 1e-4).astype(int)
    counts = np.bincount(depth.ravel(), minlength=21)
    first = counts[depth.min()]
    if first < depth.size:
        depth = np.round((np.cumsum(counts) - first).clip(0) * 255 / (depth.size - first))[depth]
    embossed = ndimage.correlate(
        depth.astype(float), np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode='mirror'
    ).clip(0, 255)
    wet = liquid * np.round(blurred(embossed))
    return wet / max(wet.max(), 1)


@every_size
@every_severity
def test_spatter(x, severity):
    mean, spread, sigma, least, amount, mud = constants('spatter', severity, x)
    color = np.array([63, 42, 20] if mud else [175, 238, 238]) / 255
    if x.shape[1] == 1:
        color = np.array([color @ [0.299, 0.587, 0.114]])
    x, expected = x[:3], []
    for image, noise in zip(
        x.double().numpy(), draws_of('spatter', x).normal(1, *x.shape[2:]).double().numpy()[:, 0]
    ):
        noise = ndimage.gaussian_filter(mean + spread * noise, sigma, mode='nearest', truncate=4)
        if mud:
            cover = ndimage.gaussian_filter((noise > least).astype(float), amount, mode='nearest', truncate=4)
            cover[cover < 0.8] = 0
            expected.append(image * (1 - cover) + color[:, None, None] * cover)
        else:
            expected.append(
                image
                + amount
                * color[:, None, None]
                * shine(np.floor(np.where(noise < least, 0, noise).clip(0, 1) * 255))
            )
    close('spatter', severity, x, torch.from_numpy(np.stack(expected)), tolerance=2e-3, wrong=0.005)


# Published arrays, and accuracy on them
@pytest.fixture
def folder(tmp_path):
    "Twelve images in the layout of CIFAR-10-C: at severity s of fog, all pixels are 10 s"
    images = np.repeat(np.arange(10, 60, 10), 12).astype(np.uint8)[:, None, None, None] * np.ones(
        (1, 8, 9, 3), np.uint8
    )
    np.save(tmp_path / 'fog.npy', images)
    np.save(tmp_path / 'snow.npy', images + 1)
    np.save(tmp_path / 'labels.npy', np.tile(np.arange(12, dtype=np.uint8) % 10, 5))
    return tmp_path


def test_published_arrays(folder):
    for severity in range(1, 6):
        x, y = corrupted_arrays(folder, 'fog', severity)
        assert x.shape == (12, 3, 8, 9) and x.dtype == torch.uint8 and (x == 10 * severity).all()
        assert y.dtype == torch.int64 and y.tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize(
    'name, array, words',
    [
        ('fog', np.zeros((60, 8, 9, 3), np.float32), 'float32'),
        ('fog', np.zeros((61, 8, 9, 3), np.uint8), '(61, 8, 9, 3)'),
        ('fog', np.zeros((60, 8, 9), np.uint8), '(60, 8, 9)'),
        ('fog', np.zeros((60, 3, 8, 9), np.uint8), 'C = 1 or 3'),
        ('labels', np.zeros(12, np.uint8), 'expected 60'),
        ('labels', np.zeros(60), 'float64'),
        ('fog', np.array([{}] * 60), 'not a readable'),
        ('fog', b'no array', 'not a readable'),
    ],
)
def test_bad_arrays(folder, name, array, words):
    if isinstance(array, bytes):
        (folder / f'{name}.npy').write_bytes(array)
    else:
        np.save(folder / f'{name}.npy', array)
    with pytest.raises(ValueError, match=r'\.npy') as error:
        corrupted_arrays(folder, 'fog', 2)
    assert words in str(error.value)


def test_missing_arrays(folder):
    with pytest.raises(FileNotFoundError, match=r'frost\.npy'):
        corrupted_arrays(folder, 'frost')
    with pytest.raises(ValueError, match='severity is 0'):
        corrupted_arrays(folder, 'fog', 0)
    with pytest.raises(ValueError, match="'rain'"):
        corrupted_arrays(folder, 'rain')
    (folder / 'labels.npy').unlink()
    with pytest.raises(FileNotFoundError, match=r'labels\.npy'):
        corrupted_arrays(folder, 'fog')


def test_a_folder_is_used_and_said(folder):
    x, y = random_images(12, 3, 8, 9), torch.arange(12) % 10
    for n in (12, 5):
        images, source = corrupted(x[:n], y[:n], 'fog', 4, folder=folder)
        assert (
            source == 'official arrays'
            and images.dtype == torch.float32
            and torch.equal(images, torch.full((n, 3, 8, 9), 40) / 255)
        )
    images, source = corrupted(x, y, 'frost', 4, seed=7, folder=folder)
    assert source == 'generated, seed 7' and torch.equal(images, corrupt(x, 'frost', 4, 7))
    with pytest.raises(ValueError, match='same labels'):
        corrupted(x, 9 - y, 'fog', folder=folder)
    with pytest.raises(ValueError, match='same labels'):
        corrupted(x[..., :8], y, 'fog', folder=folder)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        corrupted(x, y, 'fog', folder=folder / 'nowhere')


def always(c):
    return lambda x: torch.eye(10)[c].expand(len(x), 10)


def test_accuracy_of_one_answer():
    x, y = random_images(30, 1, 28, 28), torch.arange(30) % 10
    found = corruption_accuracy([always(2), always(3)], x, y)
    assert (
        found.right.shape == (15, 5, 2, 30)
        and found.right.dtype == torch.bool
        and found.source == 'generated, seed 0'
    )
    assert (
        found.names == BENCHMARK
        and list(found.by_type()) == list(BENCHMARK)
        and list(found.by_severity()) == [1, 2, 3, 4, 5]
    )
    for estimate in (*found.by_type().values(), *found.by_severity().values(), found.mean()):
        assert (
            estimate.value == pytest.approx(0.1)
            and estimate.n == 30
            and estimate.seeds == 2
            and estimate.low < 0.1 < estimate.high
        )


def test_accuracy_is_that_of_each_part():
    x, y = random_images(40, 3, 16, 16), torch.arange(40) % 2

    def bright(x):
        return torch.stack([0.5 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.5], 1)

    found = corruption_accuracy(bright, x, y, ('fog', 'contrast'), (5, 1), seed=3)
    for i, name in enumerate(found.names):
        for j, severity in enumerate(found.severities):
            assert torch.equal(found.right[i, j, 0], bright(corrupt(x, name, severity, 3)).argmax(1) == y)
    assert found.by_type()['fog'].value == pytest.approx(found.right[0].float().mean().item())
    assert found.by_severity()[1].value == pytest.approx(found.right[:, 1].float().mean().item())
    assert found.mean().value == pytest.approx(found.right.float().mean().item()) and found.mean().n == 40
    one = corruption_accuracy(always(1), x, torch.ones(40).long(), ('fog',), (2,))
    assert one.mean().value == 1 and one.mean().low < 1  # Wilson's interval: right and wrong, not a mean


def test_accuracy_on_published_arrays(folder, capsys):
    x, y = torch.zeros(12, 3, 8, 9), torch.arange(12) % 10

    def dark(x):
        is_dark = x.mean((1, 2, 3)) * 255 < 25
        return nn.functional.one_hot((~is_dark).long(), 10).float()

    found = corruption_accuracy(dark, x, y, ('fog', 'snow'), folder=folder)
    assert (
        found.source == 'official arrays'
        and found.right[:, :2].sum() == 4 * 2
        and found.right[:, 2:].sum() == 6 * 2
    )
    assert capsys.readouterr().err == ''
    mixed = corruption_accuracy(always(0), x, y, ('fog', 'frost'), (1,), folder=folder, progress=True)
    assert (
        mixed.source == 'official arrays: fog; generated, seed 0: frost' and '100%' in capsys.readouterr().err
    )


def test_accuracy_refuses():
    x, y = random_images(4, 3, 8, 8), torch.zeros(4).long()
    with pytest.raises(ValueError, match=r'4 images and labels of shape \(3,\)'):
        corruption_accuracy(always(0), x, y[:3])
    with pytest.raises(ValueError, match="'rain'"):
        corruption_accuracy(always(0), x, y, ('rain',))
    with pytest.raises(ValueError, match='at least'):
        corruption_accuracy(always(0), x, y, ())
