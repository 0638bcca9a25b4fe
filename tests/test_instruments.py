"""Instruments against a known truth: where a class was planted, which networks have a defect, what a page may ask for.

Networks are trained for some seconds on planted images; where the class lies is a fact, and what a network that was
trained on nothing else is sensitive to follows from it.
"""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from freqnb.data import Splits, load, planted
from freqnb.distances import project
from freqnb.ensemble import Budget
from freqnb.frequency_attacks import Band, band_apgd, band_pgd, energy_outside, ring_bands, robust_by_band
from freqnb.honesty import Effort, honesty_card
from freqnb.inspect_command import inspect as inspect_command
from freqnb.inspection import MINUTES, inspect
from freqnb.layers import smooth_kernels
from freqnb.learning_order import alone_measures, first_epoch_above
from freqnb.looks import page_of
from freqnb.models import create, pretrained
from freqnb.network_files import find_network
from freqnb.ring_measures import gradient_spectrum, ring_heatmap
from freqnb.spectrum import ring_mask
from freqnb.train import Recipe, fit

RINGS = ((2, 4), (5, 6), (7, 9), (10, 12), (13, 15))
EDGES = (1.5, 4.5, 6.5, 9.5, 12.5, 16)  # the first band holds no class, each other one a ring, the corners none
STRENGTHS = dict(
    shapes=dict(low_strength=2.0, high_strength=0.25), textures=dict(low_strength=0.25, high_strength=2.0)
)
LITTLE = Effort(steps=8, queries=40, budget=Budget(('apgd-ce', 'apgd-t'), steps=8, targets=2))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    "Nothing trained before is found"
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.delenv('FREQNB_DEVICE', raising=False)


def learn(images, measure=None, **changes):
    "A small network trained on planted images for a few seconds, as a run"
    recipe = replace(Recipe('planted', width=8, epochs=4, batch_size=50, lr=0.05), **changes)
    return fit(recipe, Splits(images, images[:0], images[:0]), measure, progress=False)


def sensitivity(model, images, edges):
    "What each instrument says of each band: more is more sensitive"
    x, y = images.float(), images.y
    right = robust_by_band(
        model, x[:16], y[:16], 24 / 255, ring_bands(*x.shape[-2:], edges), steps=4, rounds=10
    )
    shares = gradient_spectrum(model, x, y).mean(0)
    ends = [0, *(int(edge) + 1 for edge in edges), None]
    return dict(
        attack=[1 - kept.float().mean().item() for kept in right.values()],
        wave=ring_heatmap(model, x, y, edges, draws=4, eps=3.0).wrong.mean((0, 1)).tolist(),
        gradient=[shares[a:b].sum().item() for a, b in zip(ends, ends[1:])],
    )


@pytest.mark.long
@pytest.mark.parametrize('ring', RINGS, ids=str)
def test_all_point_at_the_ring_of_the_class(ring):
    test, bands = planted(48, low=None, high=ring, seed=4), ring_bands(32, 32, EDGES)
    run = learn(planted(800, low=None, high=ring, seed=3), alone_measures(test.float(), test.y, bands))
    found = sensitivity(run.model, test, EDGES)
    found['learned'] = [-first_epoch_above([run], f'alone, {name}', 0.6).item() for name in bands]
    print(ring, found)
    place = 1 + RINGS.index(ring)
    for instrument, (*values, _) in found.items():
        assert max(range(len(values)), key=values.__getitem__) == place, instrument


@pytest.mark.long
@pytest.mark.parametrize('stronger', STRENGTHS)
def test_all_tell_the_stronger_of_two_signals(stronger):
    "Shapes lie in the band up to 4.5 cycles, textures in that from 9.5 to 14.5"
    strengths = STRENGTHS[stronger]
    run = learn(planted(1600, **strengths), epochs=3, batch_size=64, lr=0.1)
    found = sensitivity(run.model, planted(48, **strengths, seed=9), (4.5, 9.5, 14.5))
    print(stronger, found)
    for shapes, _, textures, _ in found.values():
        assert (shapes > textures) == (stronger == 'shapes')


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def untrained(channels=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create('resnet9', width=4, channels=channels)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 3]),
    st.integers(8, 17),
    st.integers(8, 17),
    st.floats(0.01, 0.3),
    st.sampled_from(['linf', 'l2']),
    st.sampled_from([band_pgd, band_apgd]),
    st.booleans(),
)
def test_changes_stay_in_the_ball_and_in_the_band(n, channels, h, w, eps, norm, attack, cosine):
    "Grays far from 0 and 1, so that the ball alone cuts"
    x, y = 0.35 + 0.3 * noise(n, channels, h, w), torch.zeros(n, dtype=torch.long)
    mask = torch.zeros(h, w, dtype=torch.bool)
    mask[:3, 1:4] = True
    band = Band(mask, 'cosine') if cosine else Band(ring_mask(h, w, 1, 3))
    moved = attack(untrained(channels), x, y, eps, band, norm=norm, steps=3, rounds=40)
    change = moved - x
    length = change.abs().flatten(1).amax(1) if norm == 'linf' else change.flatten(1).norm(dim=1)
    assert (length <= eps * (1 + 1e-5) + 1e-6).all() and moved.min() >= 0 and moved.max() <= 1
    assert energy_outside(change, band).max() < 1e-3
    if norm == 'linf':
        assert torch.equal(moved, project(moved, x, eps))


@pytest.mark.parametrize('name', ['natural', 'shuffled', 'untrained'])
def test_a_few_waves_agree_with_all_waves_within_the_stated_error(name):
    network = untrained() if name == 'untrained' else pretrained(name)
    clothes = load('fashion_mnist_mini').test.take(24)
    x, y = nn.functional.avg_pool2d(clothes.float(), 2), clothes.y.long()
    few, every = (ring_heatmap(network, x, y, (2, 4, 6), draws=draws) for draws in (4, 99))
    assert (every.error == 0).all() and (few.waves < every.waves).any()
    assert ((few.wrong - every.wrong).mean(1).abs() <= 4 * few.error + 1e-6).all()


class Behind(nn.Module):
    "A network with something before it and something after it"

    def __init__(self, network, before=nn.Identity(), after=nn.Identity()):  # noqa: B008
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x):
        return self.after(self.network(self.before(x)))


class NoSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def rounded(x):
    return (255 * x).round() / 255


def jittered(x):
    return x + 0.05 * torch.randn_like(x)


def thousandfold(z):
    return 1000 * z


DEFECTS = {
    'quantized': (dict(before=rounded), 'input rounded'),
    'zero gradient': (dict(before=NoSlope.apply), 'zero gradient'),
    'randomized': (dict(before=jittered), 'another answer when asked twice'),
    'thousandfold logits': (dict(after=thousandfold), 'softmax exactly 1'),
    'probabilities': (dict(after=nn.Softmax(1)), 'probabilities'),
}


def clothes(n):
    images = load('fashion_mnist_mini').test.take(n)
    return images.float(), images.y.long()


@pytest.mark.long
@pytest.mark.parametrize('name', DEFECTS)
def test_the_card_finds_a_defect(name):
    parts, sign = DEFECTS[name]
    card = honesty_card(Behind(pretrained('natural'), **parts), *clothes(32), effort=LITTLE)
    assert card.is_masked and sign in card.signs, card.verdict


def test_the_card_finds_smoothing_that_amplifies():
    "Without batch norm and label smoothing the logits grow ninefold"
    card = honesty_card(smooth_kernels(pretrained('no_norm'), 1.0), *clothes(48), effort=LITTLE)
    assert 'softmax exactly 1' in card.signs, card.verdict


SOUND = {
    'wide': dict(width=24),
    'deep': dict(model='resnet18', width=4),
}


def sound(name):
    "A network of ours, or one trained here for some seconds, on clothes; at the usual lr it would diverge"
    if name not in SOUND:
        return pretrained(name)
    recipe = Recipe('fashion_mnist_mini', images=600, batch_size=50, epochs=3, lr=0.02, **SOUND[name])
    return fit(recipe, progress=False).model


@pytest.mark.long
@pytest.mark.parametrize('name', ['natural', 'adversarial', 'penalty_0.01', 'shuffled', *SOUND])
def test_the_card_finds_nothing_where_nothing_is(name):
    card = honesty_card(sound(name), *clothes(32), effort=LITTLE)
    assert not card.is_masked, card.verdict
    *each, worst = card.rows.values()
    assert torch.equal(worst, torch.stack(each).all(0)), 'the worst case, image by image'


def write_folder(folder, sizes=((40, 48), (56, 40), (64, 64))):
    "A stranger's folder: val/ alone, pictures of several sizes, a file that is none"
    draw = np.random.default_rng(0)
    for name in ('tench', 'sports car'):
        (folder / 'val' / name).mkdir(parents=True)
        for i, (h, w) in enumerate(sizes):
            pixels = draw.integers(0, 256, (h, w, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / 'val' / name / f'{i}.png')
    (folder / 'val' / 'tench' / 'broken.jpg').write_bytes(b'not a picture')


@pytest.fixture
def no_time(monkeypatch):
    "As few images as there may be"
    monkeypatch.setitem(MINUTES, 'quick', 0.001)


def test_a_strangers_folder_is_survived(tmp_path, no_time, capsys):
    write_folder(tmp_path / 'photos')
    mine = tmp_path / 'mine.py'
    mine.write_text(
        'from torch import nn\n'
        'def make(classes, channels):\n'
        '    pooled = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))\n'
        '    return nn.Sequential(pooled, nn.Flatten(), nn.Linear(4, 3))\n'
    )
    names = tmp_path / 'names.txt'
    names.write_text('Sports car\nteapot\nn01440764, tench\n')
    page = tmp_path / 'page.html'
    options = dict(data=str(tmp_path / 'photos'), size=32, labels=str(names), out=str(page))
    assert inspect_command(f'{mine}:make', **options) == 0
    found = json.loads(page.with_suffix('.json').read_text())
    assert 'broken.jpg' in ' '.join(found['notes']) and 'found among 3 by their names' in found['notes'][0]
    assert [title for title, look in found['looks'].items() if look.get('skipped')] == []
    assert 'about 0.001 minutes' in capsys.readouterr().out
    assert page.stat().st_size < 3e6


def test_no_accuracy_where_it_would_mean_nothing(tmp_path, no_time):
    images = planted(24, size=16, low=None, high=(3, 6), channels=3)
    found = replace(find_network('torchvision:resnet18:random'), size=None)
    report = inspect(found, images)
    assert 'its weights are random' in report.notes[0] and 'accuracy' not in report.looks[0].numbers
    other = inspect(nn.Sequential(nn.Flatten(), nn.Linear(768, 7)), images)
    assert '4 classes and the network 7 logits' in other.notes[0] and 'accuracy' not in other.looks[0].numbers


def test_the_page_is_for_everybody(chromium, tmp_path, no_time):
    "No outside request, no error, nothing that axe finds, from a file, in light and dark, on a narrow screen too"
    spec = find_spec('axe_playwright_python')
    if spec is None:
        pytest.skip("axe-core is missing: pip install -e '.[dev]'")
    axe = (Path(spec.origin).parent / 'axe.min.js').read_text('utf-8')
    images = planted(24, size=16, low=None, high=(3, 6))
    reports = [inspect(untrained(), images), replace(inspect(untrained(), images), name='the same again')]
    file = tmp_path / 'two.html'
    file.write_text(page_of(reports), 'utf-8')
    for scheme in ('light', 'dark'):
        page = chromium.new_context(viewport=dict(width=360, height=800), color_scheme=scheme).new_page()
        asked, errors = [], []
        page.on('request', lambda o, asked=asked: asked.append(o.url))
        page.on('pageerror', lambda o, errors=errors: errors.append(str(o)))
        page.goto(file.as_uri())
        page.evaluate(axe)
        found = page.evaluate('axe.run().then(o => o.violations.map(v => v.id + ": " + v.nodes[0].html))')
        assert found == [] and errors == []
        assert [url for url in asked if not url.startswith(('file:', 'data:'))] == []
        assert page.evaluate('document.documentElement.scrollWidth') <= 360
