"""What no notebook can say of training: two processes that want one run, and a kill of the one that trains."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from freqnb.data import load
from freqnb.objectives import Phases, cross_entropy, mixup
from freqnb.recipe import Recipe
from freqnb.runs import only_one
from freqnb.train import fit, load_run

RECIPE = Recipe(
    'planted', width=2, images=300, batch_size=50, epochs=3, precision='float32', label_smoothing=0.0
)
# Trains RECIPE in the home of the environment. Each measured epoch writes a line to `epochs`; the second
# is held until there is a file `go`. The last argument is the second half of two phases, or nothing.
SCRIPT = """
import os, sys, time
from pathlib import Path
from freqnb import objectives
from freqnb.objectives import Phases, cross_entropy
from freqnb.train import Recipe, fit

folder, then = Path(sys.argv[1]), sys.argv[2]

def measured(model):
    with open(folder / 'epochs', 'a') as file:
        file.write(f'{os.getpid()}\\n')
    while len((folder / 'epochs').read_text().split()) == 2 and not (folder / 'go').exists():
        time.sleep(.01)
    return 0

objective = Phases(cross_entropy, getattr(objectives, then), .6) if then else cross_entropy
fit(RECIPE, measure=dict(zero=measured), objective=objective, device='cpu')
""".replace('RECIPE', repr(RECIPE))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "A home of its own, without the reader's choices, in which bars are drawn"
    for name in [name for name in os.environ if name.startswith('FREQNB_')] + ['IN_TEST']:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    return tmp_path


@pytest.fixture
def start(home):
    "Start a process that trains; its standard error goes to a file with its name"
    started = []

    def start(name, then=''):
        with open(home / name, 'wb') as errors:
            command = [sys.executable, '-c', SCRIPT, str(home), then]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(ready, seconds=120):
    "Ask until the answer is yes"
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f'nothing after {seconds} seconds'
        time.sleep(0.01)


def epochs(home):
    "The processes that measured an epoch, in order"
    file = home / 'epochs'
    return file.read_text().split() if file.exists() else []


def is_waiting(home, name):
    return 'waiting for another process' in (home / name).read_text()


def check_same_as_alone(home, tmp_path_factory, monkeypatch):
    "The one run in `home` is, bit for bit, that of a process that was alone"
    (folder,) = home.glob('runs/*')
    loaded = load_run(folder, device='cpu')
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path_factory.mktemp('alone')))
    alone = fit(RECIPE, measure=dict(zero=lambda model: 0), device='cpu', progress=False)
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    assert [row['loss'] for row in alone.history] == [row['loss'] for row in loaded.history]


@pytest.fixture(autouse=True)
def one_thread():
    "As in the processes, so that sums come out alike"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
def test_two_processes_train_a_run_once(home, start, tmp_path_factory, monkeypatch):
    first = start('first')
    wait_for(lambda: len(epochs(home)) == 2)
    second = start('second')
    wait_for(lambda: is_waiting(home, 'second'))
    (home / 'go').touch()
    assert (first.wait(120), second.wait(120)) == (0, 0), (home / 'second').read_text()
    assert epochs(home) == [str(first.pid)] * 3
    assert not is_waiting(home, 'first')
    check_same_as_alone(home, tmp_path_factory, monkeypatch)


@pytest.mark.long
def test_who_waits_goes_on_after_a_kill(home, start, tmp_path_factory, monkeypatch):
    "The first process dies in its second epoch; the second takes over from the checkpoint of the first epoch"
    first = start('first')
    wait_for(lambda: len(epochs(home)) == 2)
    second = start('second')
    wait_for(lambda: is_waiting(home, 'second'))
    first.send_signal(signal.SIGKILL)
    assert first.wait(60) == -signal.SIGKILL
    (home / 'go').touch()
    assert second.wait(120) == 0, (home / 'second').read_text()
    assert epochs(home) == [str(first.pid)] * 2 + [str(second.pid)] * 2
    check_same_as_alone(home, tmp_path_factory, monkeypatch)


@pytest.mark.long
def test_two_processes_share_a_first_phase(home, start):
    "Their second phases differ, and each trains its own"
    first = start('first', 'cross_entropy')
    wait_for(lambda: len(epochs(home)) == 2)
    second = start('second', 'mixup')
    wait_for(lambda: is_waiting(home, 'second'))
    (home / 'go').touch()
    assert (first.wait(120), second.wait(120)) == (0, 0), (home / 'second').read_text()
    assert sorted(epochs(home)) == sorted([str(first.pid)] * 3 + [str(second.pid)])


def test_a_finished_run_is_loaded_without_the_lock(home):
    "Another process may hold it for a while"
    run = fit(RECIPE, device='cpu', progress=False)
    with only_one(run.path, pytest.fail):
        assert fit(RECIPE, device='cpu', progress=False).history == run.history


def test_phases_that_do_not_differ_are_plain_training(home):
    plain = fit(RECIPE, device='cpu', progress=False)
    phases = fit(RECIPE, objective=Phases(cross_entropy, cross_entropy, 0.5), device='cpu', progress=False)
    assert [row['loss'] for row in plain.history] == [row['loss'] for row in phases.history]


def test_numbers_of_numpy_are_the_same_run(home):
    "What a notebook computes as an epoch or a share names the same folder"
    numbers = replace(
        RECIPE, epochs=np.int64(1), lr=np.float32(0.5), milestones=[np.float64(0.5)], flip=np.bool_(True)
    )
    plain = replace(RECIPE, epochs=1, lr=0.5, milestones=(0.5,), flip=True)
    assert numbers == plain
    assert [type(value) for value in (numbers.epochs, numbers.lr, numbers.flip)] == [int, float, bool]
    paths = {fit(recipe, device='cpu', progress=False).path for recipe in (numbers, plain)}
    assert len(paths) == 1


def network(classes, channels, width=3):
    "Small, with a batch norm of one dimension"
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.BatchNorm1d(4 * width),
        nn.Linear(4 * width, classes),
    )


OWN = replace(RECIPE, width=8)


def train_own(model, **changes):
    return fit(replace(OWN, **changes), model=model, device='cpu', progress=False)


def test_an_own_network_is_averaged_and_selected_like_ours(home):
    run = train_own(network, swa=0.3, select='valid_accuracy', swa_norm='objective')
    assert sorted(run.networks) == ['average', 'best', 'best average', 'last']
    assert run.architecture.endswith('test_train.network')
    x = load('planted').valid.float()
    with torch.no_grad():
        assert run.model(x).shape == (len(x), 4)


@pytest.mark.parametrize('other', [partial(network, width=4), network(4, 1)], ids=['structure', 'start'])
def test_another_own_network_is_another_run(home, other):
    assert train_own(network, epochs=1).path != train_own(other, epochs=1).path


def test_an_own_network_may_be_frozen_in_part(home):
    "As when a head is trained on the features of a published network"
    frozen = network(4, 1)
    frozen[0].requires_grad_(False)
    run = train_own(frozen, epochs=1)
    assert torch.equal(run.model[0].weight, frozen[0].weight)
    assert not torch.equal(run.model[-1].weight, frozen[-1].weight)


def test_a_recipe_that_asks_for_mixup_by_a_name_is_known_by_it(home):
    run = fit(replace(RECIPE, epochs=1), objective=partial(mixup, alpha=1.0), device='cpu', progress=False)
    assert run.objective == 'mixup(alpha=1.0)'
