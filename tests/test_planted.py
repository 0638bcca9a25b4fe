"""Measurements against planted images, whose right answer is known.

Where the class lies, and which of two signals a network follows.
"""

import pytest
import torch

from freqnb.data import Splits, planted
from freqnb.evaluate import correct, estimate, frequency_sweep
from freqnb.models import predict
from freqnb.train import Recipe, fit

BANDS = {
    'shape': dict(low=(1, 4), high=None),
    'middle': dict(low=(5, 8), high=None),
    'texture': dict(low=None, high=(10, 14)),
}
EDGES = {name: next(filter(None, band.values())) for name, band in BANDS.items()}
CHANCE = 0.25
# At a root mean square of 2 against 1/4 of the background's, a network of this size followed the stronger signal on
# over 99% of the conflicting images, for each of four seeds. At equal strengths it follows the texture; at 2 against
# 1/2 it still follows the shape on over 96%.
STRENGTHS = {
    'shapes': dict(low_strength=2.0, high_strength=0.25),
    'textures': dict(low_strength=0.25, high_strength=2.0),
}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    "Nothing trained before is found"
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.delenv('FREQNB_DEVICE', raising=False)


def learn(images, seed=0, epochs=3):
    "A small network trained on planted images for a few seconds"
    return fit(
        Recipe('planted', width=8, epochs=epochs, seed=seed, batch_size=64),
        Splits(images, images[:0], images[:0]),
        progress=False,
    ).model


@pytest.mark.long
@pytest.mark.parametrize('name', BANDS)
def test_the_sweep_finds_the_band(name):
    first, last = EDGES[name]
    model, test = learn(planted(2000, **BANDS[name], seed=3), epochs=4), planted(500, **BANDS[name], seed=4)
    radii = (0, first / 2, first - 0.5, last, last + 2, 23)
    sweep = frequency_sweep(model, test.float(), test.y, radii, mode='mean-shift')
    low, high = ([estimate.value for estimate in sweep.estimates(part)] for part in ('low', 'high'))
    print(name, low, high)
    assert correct(model, test.x, test.y).float().mean() > 0.95
    assert min(low[3:]) > 0.9 and max(low[:3]) < CHANCE + 0.15, f'low parts of {name}: {low}'
    assert min(high[:3]) > 0.9 and max(high[3:]) < CHANCE + 0.15, f'high parts of {name}: {high}'


@pytest.mark.long
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('followed', STRENGTHS)
def test_the_stronger_signal_is_followed(followed, seed):
    strengths = STRENGTHS[followed]
    model = learn(planted(1600, **strengths, seed=seed), seed)
    same, conflict = (planted(600, **strengths, conflict=flag, seed=100 + seed) for flag in (False, True))
    assert correct(model, same.x, same.y).float().mean() > 0.95, 'where both agree the network is right'
    said = predict(model, conflict.x).argmax(1)
    for_shape, for_texture = ((said == labels).float() for labels in (conflict.shapes, conflict.textures))
    preference = estimate(for_shape - for_texture)
    print(followed, seed, preference)
    assert not torch.logical_and(for_shape, for_texture).any()
    if followed == 'shapes':
        assert preference.low > 0.8
    else:
        assert preference.high < -0.8
