"""Killed at any moment, what is kept is whole, and the end is the same to the bit; `FREQNB_KILLS` is how often"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

pytestmark = pytest.mark.long

KILLS = int(os.environ.get('FREQNB_KILLS', 3))
TRAINING = """
from functools import partial
from freqnb.evaluate import correct
from freqnb.experiment import Experiment, estimates
from freqnb.models import create
from freqnb.pgd import pgd
from freqnb.objectives import adversarial_training
from freqnb.recipe import Recipe
from freqnb.records import Claim
from freqnb.statistics import difference

attack = partial(pgd, eps=8 / 255, alpha=4 / 255, steps=2)
base = Recipe('planted', scale='smoke', width=2, images=640, epochs=4, batch_size=64, swa=.5, select='valid_accuracy')
rows = {'natural': base, 'robust': (base, partial(adversarial_training, attack=partial(attack, seed=None)))}
experiment = Experiment('high_frequency/killed', rows, tested=200, seeds=2)
right = {name: correct(models, experiment.x, experiment.y) for name, models in experiment.models.items()}
claim = Claim('A natural network is more accurate', '', 'accuracy', difference(right['natural'], right['robust']))
experiment.record([claim], estimates(right))
"""
WORK = {
    'training': [sys.executable, '-c', TRAINING],
    'reproduce': [sys.executable, '-m', 'freqnb', 'reproduce', 'high_frequency/01_split', '--scale', 'smoke'],
}


def begin(work, home):
    environment = dict(os.environ, FREQNB_HOME=str(home), OMP_NUM_THREADS='1')
    environment.pop('FREQNB_RECORDS', None)
    with open(home / 'log.txt', 'w') as log:
        return subprocess.Popen(WORK[work], env=environment, stdout=log, stderr=log, start_new_session=True)


def check_whole(home):
    "Every file that is not hidden can be read to its end"
    for path in home.rglob('*'):
        if path.suffix == '.json' and not path.name.startswith('.'):
            json.loads(path.read_text())
        if path.suffix == '.pt' and not path.name.startswith('.'):
            torch.load(path, weights_only=True)


def content(home):
    "What is kept, without the seconds it took"
    found = {}
    for path in sorted(home.glob('runs/*/state.pt')):
        networks = torch.load(path, weights_only=True)['model']
        bytes_of = b''.join(tensor.contiguous().numpy().tobytes() for tensor in networks.values())
        found[path.parent.name] = hashlib.sha256(bytes_of).hexdigest()
    for path in sorted(home.glob('records/**/*.json')):
        found[path.name] = {name: value for name, value in json.loads(path.read_text()).items() if name != 'seconds'}
    return found


def kill(process, draw):
    "The process alone, whose kernels have to notice, or all of its group"
    if draw.random() < 0.5:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize('work', WORK)
def test_killed_at_any_moment_nothing_is_half_and_the_end_is_the_same(work, tmp_path):
    whole = tmp_path / 'whole'
    whole.mkdir()
    start = time.time()
    assert begin(work, whole).wait(900) == 0, (whole / 'log.txt').read_text()
    longest, expected = time.time() - start, content(whole)
    assert expected

    draw, kills, round = random.Random(0), 0, 0
    while kills < KILLS:
        home = tmp_path / f'killed-{round}'
        home.mkdir()
        round += 1
        for _ in range(min(10, KILLS - kills)):
            process = begin(work, home)
            with suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0, longest))
            if process.returncode is None:
                kill(process, draw)
                kills += 1
            check_whole(home)

        assert begin(work, home).wait(900) == 0, (home / 'log.txt').read_text()
        check_whole(home)
        assert content(home) == expected
        assert not list(home.rglob('*.unusable*'))
    print(f'{work}: killed {kills} times in {round} homes, {len(expected)} files the same')
