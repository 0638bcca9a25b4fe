"""One network, several processes: the numbers of one, one writer, and a clear end where one of them is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node']
COMMON = ['--data', 'planted', '--device', 'cpu', '--precision', 'float32']
# A step an epoch, so that the history is the curve of the losses of 50 steps.
CURVE = [*COMMON, '--model', 'lenet', '--width', 'none', '--images', '96', '--batch-size', '96', '--epochs', '50']
CURVE += ['--lr', '.05', '--no-norm']
LONG = [*COMMON, '--width', '4', '--images', '192', '--batch-size', '96', '--epochs', '40']


def environment(home):
    "A home of its own, and a thread a process"
    kept = {name: value for name, value in os.environ.items() if not name.startswith('FREQNB_')}
    return kept | dict(FREQNB_HOME=str(home), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')


def command(processes, *arguments):
    "The same line in one process or several"
    start = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    return [*start, '-m', 'freqnb', *arguments]


def run(home, processes, *arguments):
    "Run to the end, whatever that is"
    line = command(processes, *arguments)
    return subprocess.run(line, env=environment(home), cwd=ROOT, capture_output=True, text=True, timeout=300)


def history(home):
    "Of the one run of a home"
    (file,) = Path(home).glob('runs/*/state.pt')
    return torch.load(file, weights_only=True)['history']


def train(home, processes, *arguments):
    "Train to the end; what was printed, what went to standard error, and the history"
    done = run(home, processes, 'train', *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr, history(home)


@pytest.fixture(scope='module')
def curves(tmp_path_factory):
    "The same training in one process and in two"
    found = {}
    for processes in (1, 2):
        home = tmp_path_factory.mktemp(f'home{processes}')
        found[processes] = (home, *train(home, processes, *CURVE))
    return found


def test_two_processes_have_the_loss_curve_of_one(curves):
    one, two = ([row['loss'] for row in curves[processes][3]] for processes in (1, 2))
    assert len(one) == len(two) == 50 and len(set(one)) == 50, 'each step has a loss of its own'
    assert max(abs(a - b) for a, b in zip(one, two)) < 1e-5
    assert abs(one[0] - one[-1]) > 0.1, 'the weights moved'


def test_both_measure_the_same(curves):
    one, two = (curves[processes][3][-1] for processes in (1, 2))
    assert abs(one['train_accuracy'] - two['train_accuracy']) < 0.02
    assert abs(one['valid_accuracy'] - two['valid_accuracy']) < 0.02
    said = [curves[processes][1].split('seconds')[0].split(';')[0] for processes in (1, 2)]
    assert all('test accuracy' in line for line in said)


def test_the_run_has_one_name_and_says_how_many_trained_it(curves):
    names = [[path.name for path in curves[processes][0].glob('runs/*')] for processes in (1, 2)]
    assert names[0] == names[1] and len(names[0]) == 1
    assert [row.get('processes') for row in curves[1][3]] == [None] * 50
    assert [row.get('processes') for row in curves[2][3]] == [2] * 50


def test_one_process_speaks_and_writes(curves):
    home, out, err, _ = curves[2]
    assert out.count('test accuracy') == 1 and out.count('weights and history') == 1
    assert not [path for path in home.rglob('*') if path.name.startswith('.state')]
    assert 'batch norm' not in err, 'there is none'


def test_batch_norm_is_said_to_be_another_training(tmp_path):
    _, err, rows = train(tmp_path, 2, *LONG, '--epochs', '2')
    assert err.count('batch norm sees 48 images in each, not 96') == 1
    assert [row['processes'] for row in rows] == [2, 2]
    _, err, _ = train(tmp_path, 1, *LONG, '--epochs', '2')
    assert '2 processes train 2 of 2 epochs' in err, 'who loads it is told, too'


def test_processes_that_cannot_share_a_batch_are_refused(tmp_path):
    done = run(tmp_path, 2, 'train', *COMMON, '--batch-size', '95')
    assert done.returncode and 'batch_size is 95; expected a multiple of the 2 processes' in done.stderr
    assert not list(tmp_path.rglob('state.pt'))


def test_a_command_of_one_process_says_so(tmp_path):
    done = run(tmp_path, 2, 'report')
    assert done.returncode and 'report runs in one process; expected train or robust under torchrun' in done.stderr


def children(process):
    "The processes that torchrun started, in the order of their ranks"
    found = psutil.Process(process.pid).children()
    mine = [o for o in found if o.is_running() and 'freqnb' in ' '.join(o.cmdline())]
    return sorted(mine, key=lambda o: int(o.environ().get('RANK', 0)))


def epochs(home):
    files = list(Path(home).glob('runs/*/state.pt'))
    return len(torch.load(files[0], weights_only=True)['history']) if files else 0


@pytest.mark.parametrize('victim', [0, 1])
def test_a_killed_process_ends_the_run_and_one_process_goes_on(victim, tmp_path):
    process = subprocess.Popen(
        command(2, 'train', *LONG), env=environment(tmp_path), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while epochs(tmp_path) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    family = children(process)
    assert len(family) == 2
    family[victim].send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and psutil.wait_procs(family, timeout=10)[1] == []
    survivor = 2 - victim
    assert f'process {survivor} of 2 stops, because another one ended' in err
    assert 'the same command goes on from there, with any number of processes' in err

    before = epochs(tmp_path)
    assert 2 <= before < 40, 'the run was over before it could be killed'
    _, _, rows = train(tmp_path, 1, *LONG)
    assert [row.get('processes', 1) for row in rows] == [2] * before + [1] * (40 - before)
    assert [row['epoch'] for row in rows] == list(range(1, 41))


def test_robust_training_attacks_in_parts(tmp_path):
    "With an average of weights, a measurement during training, and attacks at the end"
    small = ['--data', 'planted', '--device', 'cpu', '--scale', 'smoke', '--width', '2', '--images', '256']
    done = run(tmp_path, 2, 'robust', *small, '--epochs', '4', '--batch-size', '64', '--tested', '50')
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('PGD-20') == 4 and 'test images: 50' in done.stdout
    states = [torch.load(file, weights_only=True) for file in tmp_path.glob('runs/*/state.pt')]
    rows = max((state['history'] for state in states), key=len)
    assert len(rows) == 4 and all('robust accuracy' in row and row['processes'] == 2 for row in rows)
