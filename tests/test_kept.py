"""What was measured is kept: killed attacks go on, and whatever was edited is measured anew."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from freqnb import kept
from freqnb.data import planted
from freqnb.ensemble import Budget, autoattack
from freqnb.evaluate import corruption_accuracy, fourier_heatmap, robust_correct
from freqnb.pgd import pgd

# Attacks in a process that kills itself after a number of batches, or ends well.
SCRIPT = """
import os, signal, sys, torch
from freqnb import kept
from freqnb.data import planted
from freqnb.ensemble import Budget, autoattack
from test_kept import network, IMAGES, LABELS, BUDGET
keep, left = kept.Pieces.keep, int(sys.argv[1])
def counted(self, work):
    global left
    self.seconds, left = 0, left - 1
    keep(self, work)
    if not left: os.kill(os.getpid(), signal.SIGKILL)
kept.Pieces.keep = counted
found = autoattack(network(), IMAGES, LABELS, 4/255, version=BUDGET, batch_size=8)
torch.save(found, sys.argv[2])
"""
BUDGET = Budget(('apgd-ce', 'square'), steps=3, queries=20)
IMAGES = planted(30, size=8, classes=2, high=None, low=(1, 2)).float()
LABELS = torch.arange(30) % 2


def network(scale=1.0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    net[1].weight.data *= scale
    return net


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith('FREQNB_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(kept, '_SECONDS', 0.0)
    return tmp_path


def attack_in_a_process(folder, batches):
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    command = [sys.executable, '-c', SCRIPT, str(batches), str(folder / 'found.pt')]
    return subprocess.run(command, env=os.environ | dict(PYTHONPATH=path), timeout=120).returncode


@pytest.mark.long
def test_a_killed_autoattack_goes_on_and_ends_the_same(home):
    "Killed twice: in the first attack and in a later one"
    assert attack_in_a_process(home, 2) == -signal.SIGKILL
    assert len(list(home.glob('kept/autoattack-*'))) == 1
    assert attack_in_a_process(home, 1) == -signal.SIGKILL
    assert attack_in_a_process(home, 0) == 0
    assert not list(home.glob('kept/autoattack-*')), 'done'
    whole = autoattack(network(), IMAGES, LABELS, 4 / 255, version=BUDGET, batch_size=8)
    assert torch.equal(torch.load(home / 'found.pt'), whole)


class Counted:
    "An attack that says how often it was called, by a list that is no part of it"

    def __init__(self, attack, calls):
        self.attack, self.note = attack, calls.append

    def __reduce__(self):
        return Counted, (self.attack, [])

    def __call__(self, model, x, y):
        self.note(1)
        return self.attack(model, x, y)


def test_an_evaluation_is_read_again(home):
    calls = []
    attack = Counted(partial(pgd, eps=0.1, steps=2), calls)
    nets = [network(), network(2.0)]
    first = robust_correct(nets, IMAGES, LABELS, attack)
    assert len(calls) == 2 and torch.equal(robust_correct(nets, IMAGES, LABELS, attack), first)
    assert len(calls) == 2 and len(list(home.glob('kept/robust_correct-*'))) == 2
    others = [
        (network(3.0), IMAGES, LABELS, attack),
        (network(), IMAGES.flip(0), LABELS.flip(0), attack),
        (network(), IMAGES, LABELS.flip(0), attack),
        (network(), IMAGES, LABELS, Counted(partial(pgd, eps=0.2, steps=2), calls)),
    ]
    for n, other in enumerate(others):
        robust_correct(*other)
        assert len(calls) == 3 + n


def test_a_function_is_measured_each_time(home):
    "Its content cannot be known"
    calls, net = [], network()
    attack = Counted(partial(pgd, eps=0.1, steps=1), calls)
    for _ in range(2):
        robust_correct(lambda x: net(x), IMAGES, LABELS, attack)
    assert len(calls) == 2 and not (home / 'kept').exists()


def test_nothing_is_kept_of_an_attack_that_draws_from_the_global_state(home):
    robust_correct(network(), IMAGES, LABELS, partial(pgd, eps=0.1, steps=1, seed=None))
    assert not list(home.glob('kept/robust_correct-*'))


def test_maps_are_read_again(home):
    first = fourier_heatmap(network(), IMAGES, LABELS)
    assert torch.equal(fourier_heatmap(network(), IMAGES, LABELS), first)
    assert len(list(home.glob('kept/fourier_heatmap-*'))) == 1
    assert corruption_accuracy(network(), IMAGES, LABELS, ('brightness',), (1,)).right.shape == (1, 1, 1, 30)


def test_corruptions_are_read_again(home):
    asked = dict(names=('gaussian_noise', 'contrast'), severities=(1, 5))
    first = corruption_accuracy(network(), IMAGES, LABELS, **asked)
    again = corruption_accuracy(network(), IMAGES, LABELS, **asked)
    assert torch.equal(first.right, again.right) and first.source == again.source
    assert len(list(home.glob('kept/corruption_accuracy-*'))) == 1

    other = corruption_accuracy(network(), IMAGES, LABELS, seed=1, **asked)
    assert not torch.equal(other.right, first.right)
    assert len(list(home.glob('kept/corruption_accuracy-*'))) == 2


def test_a_cut_file_is_set_aside(home):
    first = fourier_heatmap(network(), IMAGES, LABELS)
    (file,) = home.glob('kept/*')
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match='not readable .* it is measured again'):
        assert torch.equal(fourier_heatmap(network(), IMAGES, LABELS), first)
    assert len(list(home.glob('kept/*.unusable'))) == 1
