"""What no notebook can say of an identity: files that are edited, folders that move, and processes that start anew."""

import os
import shutil
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from freqnb.data import Splits, load, planted
from freqnb.identity import identity
from freqnb.objectives import Phases, adversarial_training, cross_entropy, trades
from freqnb.pgd import pgd
from freqnb.recipe import Recipe
from freqnb.train import fit

LOSSES = """
from torch.nn import functional as F
SCALE = 1
def helper(z, y): return F.cross_entropy(z, y)
def loss(model, x, y):
    "Why"
    logits = model(x)  # how
    return SCALE * helper(logits, y), logits
"""
MAIN = 'import my_losses; from freqnb.identity import identity; print(identity(my_losses.loss))'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith('FREQNB_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path / 'home'))
    return tmp_path


def in_a_process(folder, source, main=MAIN, **environment):
    "What a new process prints, with such a file beside it"
    (folder / 'my_losses.py').write_text(source)
    env = os.environ | dict(PYTHONDONTWRITEBYTECODE='1') | environment
    done = subprocess.run([sys.executable, '-c', main], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.long
def test_a_file_counts_by_what_its_functions_do(home):
    "The words of a comment and the place in the file do not; the body, a helper and a global value do"
    first = in_a_process(home, LOSSES)
    same = '# a note\n\n' + LOSSES.replace('Why', 'Because').replace('# how', '').replace('logits', 'outputs')
    assert in_a_process(home, same, PYTHONHASHSEED='7') == first
    edits = [
        ('SCALE = 1', 'SCALE = 2'),
        ('SCALE *', 'SCALE +'),
        ('(z, y): return', '(z, y): return 2 *'),
    ]
    others = {in_a_process(home, LOSSES.replace(*edit)) for edit in edits}
    assert len(others | {first}) == 4


@pytest.mark.long
def test_the_library_is_the_same_in_every_process(home):
    main = (
        'from functools import partial; from freqnb.identity import identity\n'
        'from freqnb.objectives import *; from freqnb.pgd import pgd; from freqnb.ensemble import autoattack\n'
        'print([identity(o) for o in (partial(adversarial_training, attack=pgd, loss=mart), mixup, autoattack)])'
    )
    assert in_a_process(home, '', main, PYTHONHASHSEED='1') == in_a_process(
        home, '', main, PYTHONHASHSEED='2'
    )


def test_looking_does_not_change_what_is_seen():
    "Nor does use: caches are no part of a function"
    attack = partial(pgd, eps=0.1, steps=1)
    objective = Phases(cross_entropy, partial(adversarial_training, attack=attack, loss=trades))
    before = identity(objective)
    attack(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert identity(objective) == before


IMAGES = planted(120, size=8, classes=2, high=None, low=(1, 2))
SPLITS = Splits(IMAGES[:96], IMAGES[96:108], IMAGES[108:])
RECIPE = Recipe('planted', width=2, epochs=2, lr=0.01, batch_size=32, label_smoothing=0.0)


def scaled(factor):
    def loss(model, x, y):
        value, logits = cross_entropy(model, x, y)
        return factor * value, logits

    return loss


def rewritten():
    def loss(model, x, y):
        value, logits = cross_entropy(model, x, y)
        return value.exp(), logits

    return loss


class Margin:
    "An objective with a setting"

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, model, x, y):
        value, logits = cross_entropy(model, x, y)
        return self.factor * value, logits


def shown(k):
    return dict(shown=lambda model: k)


def changed_pixel(images):
    x = images.x.clone()
    x[0, 0, 0, 0] ^= 1
    return replace(images, x=x)


def path_of(splits=SPLITS, objective=None, measure=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run = fit(RECIPE, splits, measure or shown(1), objective or scaled(1), progress=False, **options)
    return run.path


def test_whatever_is_edited_is_another_run():
    "Body, closure, attribute, a phase, a measurement, a validation image, a training image"
    changes = [
        dict(objective=rewritten()),
        dict(objective=scaled(2)),
        dict(objective=Margin(1)),
        dict(objective=Margin(2)),
        dict(objective=Phases(scaled(1), scaled(2), start=0.5)),
        dict(measure=shown(2)),
        dict(splits=SPLITS._replace(valid=changed_pixel(SPLITS.valid))),
        dict(splits=SPLITS._replace(train=changed_pixel(SPLITS.train))),
    ]
    paths = [path_of(), *(path_of(**change) for change in changes)]
    assert len(set(paths)) == len(paths)
    assert path_of(objective=scaled(np.float64(1)), measure=shown(True and 1)) == paths[0]


def test_a_network_of_ones_own_counts_by_its_code():
    "Two classes of one name and the same weights, with other forward passes"

    def network(sign):
        class Net(nn.Sequential):
            def forward(self, x):
                return sign * super().forward(x)

        return lambda classes, channels: Net(nn.Flatten(), nn.Linear(64 * channels, classes))

    recipe = replace(RECIPE, width=8)
    paths = {fit(recipe, SPLITS, model=network(k), progress=False).path for k in (1, 1.0, -1)}
    assert len(paths) == 2


def write_tree(root):
    rng = np.random.default_rng(0)
    for place in ('train/a', 'train/b', 'test/a', 'test/b'):
        (root / place).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / place / f'{i}.png')


def test_a_moved_folder_is_the_same_data(home):
    write_tree(home / 'first')
    recipe = replace(RECIPE, data=str(home / 'first'), batch_size=4)
    before = fit(recipe, progress=False).path
    shutil.move(home / 'first', home / 'second')
    again = replace(recipe, data=str(home / 'second'))
    assert fit(again, progress=False).path == before
    pixels = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(home / 'second' / 'train' / 'a' / '0.png')
    assert fit(again, progress=False).path != before
    assert load(again.data).train.fingerprint


@pytest.mark.parametrize(
    'value', [threading.Lock(), (i for i in 'a'), sys.stderr], ids=['lock', 'generator', 'file']
)
def test_what_has_no_content_is_refused_with_the_way_out(value):
    def measured(model):
        return 0 if value else 1

    with pytest.raises(
        ValueError, match=r'its variable value, in .*measured, in item 0, in measure a is .*Open or make it'
    ):
        fit(RECIPE, SPLITS, dict(a=measured), progress=False)
