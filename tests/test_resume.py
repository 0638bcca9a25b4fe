"""Kill and resume for real: `kill -9` at any moment, and the run ends bit for bit like one that was left alone."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.long

FREQNB = str(Path(sys.executable).with_name('freqnb'))
TRAIN = [
    FREQNB,
    'train',
    '--data',
    'planted',
    '--width',
    '4',
    '--epochs',
    '3',
    '--pad',
    '2',
    '--flip',
    '--seed',
    '5',
    '--device',
    'cpu',
]
# Kills itself in the middle of writing the second checkpoint, as a power cut would.
HALF_WRITTEN = """
import io, os, signal, sys, torch
from freqnb import cli
save, calls = torch.save, []
def half(state, file):
    calls.append(1)
    memory = io.BytesIO()
    save(state, memory)
    content = memory.getvalue()
    if len(calls) < 2: return file.write(content)
    file.write(content[:len(content)//2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
cli.main(sys.argv[1:])
"""


def environment(home):
    "A home of its own, and one thread: a few small epochs then take some seconds on a busy machine too"
    return {k: v for k, v in os.environ.items() if not k.startswith('FREQNB_')} | dict(
        FREQNB_HOME=str(home), OMP_NUM_THREADS='1'
    )


def train(home, command=TRAIN):
    "Run to the end"
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def start(home, command=TRAIN):
    return subprocess.Popen(
        command, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill(process):
    "`kill -9`; tell whether it was still running"
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def checkpoints(home):
    return sorted(Path(home).glob('runs/*/state.pt'))


def epochs_done(home):
    return [len(torch.load(o, weights_only=True)['history']) for o in checkpoints(home)]


def has_epochs(home, count):
    return max(epochs_done(home), default=0) >= count


def wait_for(ready, process, seconds=120):
    "Ask until the answer is yes or the process is over"
    end = time.monotonic() + seconds
    while not ready() and process.poll() is None:
        assert time.monotonic() < end, f'nothing after {seconds} seconds'
        time.sleep(0.005)


def check_whole(home):
    "Whatever stands in the home can be read; half a file, if there is one, hides behind a dot"
    for file in Path(home).rglob('*'):
        if not file.is_file() or file.name.startswith('.'):
            continue
        if file.suffix == '.pt':
            torch.load(file, weights_only=True)
        else:
            json.loads(file.read_text())


def equal(a, b):
    "Whether two states are the same, tensors bit for bit"
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def final(home):
    "The one finished run of a home, without the time it took"
    (file,) = checkpoints(home)
    state = torch.load(file, weights_only=True)
    for epoch in state['history']:
        epoch.pop('seconds')
    return file.parent.name, state


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A home with a run that nobody disturbed"
    home = tmp_path_factory.mktemp('whole')
    train(home)
    return home


def check_same(home, whole):
    check_whole(home)
    (name, state), (expected_name, expected) = final(home), final(whole)
    assert name == expected_name and len(state['history']) == 3
    assert state['history'] == expected['history'] and equal(state, expected)


def test_the_comparison_can_fail(whole):
    _, state = final(whole)
    other = {k: v for k, v in state.items()} | dict(model={k: v.clone() for k, v in state['model'].items()})
    assert equal(state, other)
    next(v for v in other['model'].values() if v.ndim > 1).view(-1)[0] *= 1 + 1e-6
    assert not equal(state, other)


def test_killed_after_the_first_checkpoint(whole, tmp_path):
    process = start(tmp_path)
    wait_for(lambda: checkpoints(tmp_path), process)
    assert kill(process), 'the run was over before it could be killed'
    check_whole(tmp_path)
    assert epochs_done(tmp_path)[0] in (1, 2)
    train(tmp_path)
    check_same(tmp_path, whole)


def test_killed_again_and_again_inside_an_epoch(whole, tmp_path):
    "Twice at moments nobody chose: once before anything is saved, once between two checkpoints"
    seed = random.randrange(10**6)
    print('moments drawn with seed', seed)
    draw = random.Random(seed)
    process = start(tmp_path)
    wait_for(lambda: list(tmp_path.glob('runs/*/recipe.json')), process)
    time.sleep(draw.uniform(0, 0.3))
    assert kill(process)
    check_whole(tmp_path)
    process = start(tmp_path)
    wait_for(lambda: checkpoints(tmp_path), process)
    time.sleep(draw.uniform(0, 0.8))
    kill(process)
    check_whole(tmp_path)
    train(tmp_path)
    check_same(tmp_path, whole)


def test_killed_in_the_middle_of_writing(whole, tmp_path):
    process = start(tmp_path, [sys.executable, '-c', HALF_WRITTEN, *TRAIN[1:]])
    assert process.wait(120) == -signal.SIGKILL
    check_whole(tmp_path)
    assert epochs_done(tmp_path) == [1], 'the first checkpoint stands, the second was never finished'
    assert list(tmp_path.rglob('.state.pt-*')), 'half a file was left behind, out of sight'
    train(tmp_path)
    check_same(tmp_path, whole)


def test_the_same_line_again_loads(whole):
    (file,) = checkpoints(whole)
    before, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert 'test accuracy' in train(whole).stdout
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, stamp) and checkpoints(whole) == [file]


def test_another_line_is_another_run(whole, tmp_path):
    "And its bar, with steps and the time left, goes to standard error"
    other = [*TRAIN[: TRAIN.index('--epochs')], '--epochs', '1', *TRAIN[TRAIN.index('--epochs') + 2 :]]
    done = train(tmp_path, other)
    assert final(tmp_path)[0] != final(whole)[0]
    assert 'step' in done.stderr and '<' in done.stderr and 'step' not in done.stdout


ROBUST = [
    FREQNB,
    'robust',
    '--method',
    'AT-FR',
    '--scale',
    'smoke',
    '--data',
    'planted',
    '--width',
    '2',
    '--images',
    '512',
    '--epochs',
    '8',
    '--tested',
    '50',
    '--seed',
    '5',
    '--device',
    'cpu',
]


def finals(home):
    "Every run of a home (a first phase has a folder of its own), without the time it took"
    states = {file.parent.name: torch.load(file, weights_only=True) for file in checkpoints(home)}
    for state in states.values():
        for epoch in state['history']:
            epoch.pop('seconds')
    return states


def test_adversarial_training_with_averaging_killed_in_both_phases(tmp_path):
    "Once before frequency regularization and averaging begin, once after; everything ends the same"
    whole, home = tmp_path / 'whole', tmp_path / 'killed'
    train(whole, ROBUST)
    for epochs in (2, 7):
        process = start(home, ROBUST)
        wait_for(partial(has_epochs, home, epochs), process)
        assert kill(process), 'the run was over before it could be killed'
        check_whole(home)
        assert epochs <= max(epochs_done(home)) < 8
    train(home, ROBUST)
    expected = finals(whole)
    assert sorted(len(state['history']) for state in expected.values()) == [6, 8]
    state = max(expected.values(), key=lambda state: len(state['history']))
    assert int(state['average']['n_averaged']) == 2 and set(state['best']) == {'best', 'best average'}
    assert finals(home).keys() == expected.keys() and equal(finals(home), expected)


def junk(content):
    return b'junk'


def half(content):
    return content[: len(content) // 2]


def of_another_network(content):
    "A checkpoint of a wider network, as a file that was copied to the wrong place"
    state = torch.load(io.BytesIO(content), weights_only=True)
    state['model'] = {name: torch.cat([v, v]) if v.ndim else v for name, v in state['model'].items()}
    return saved(state)


def of_another_run(content):
    "The same network after another training"
    return saved(torch.load(io.BytesIO(content), weights_only=True) | dict(run='0' * 33))


def saved(state):
    memory = io.BytesIO()
    torch.save(state, memory)
    return memory.getvalue()


@pytest.mark.parametrize('spoil', [junk, half, of_another_network, of_another_run])
def test_a_checkpoint_of_no_use_is_named_and_set_aside(spoil, whole, tmp_path):
    home = shutil.copytree(whole, tmp_path / 'home')
    (file,) = checkpoints(home)
    spoiled = spoil(file.read_bytes())
    file.write_bytes(spoiled)
    done = train(home)
    assert str(file) in done.stderr and 'training starts anew' in done.stderr
    aside = file.with_name('state.pt.unusable')
    assert aside.read_bytes() == spoiled
    aside.unlink()
    check_same(home, whole)
