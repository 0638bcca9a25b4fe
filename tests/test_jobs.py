"""Many networks, several processes: none is trained twice, whoever is killed, and whoever else has the same list."""

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch

import freqnb.reproduce
from freqnb import huang2022
from freqnb.cli import main
from freqnb.papers import PAPERS

ROOT = Path(__file__).parents[1]
FIXED = ['data=planted', 'model=lenet', 'width=none', 'images=200', 'batch_size=50']
SWEEP = ['sweep', 'train', *FIXED, 'epochs=3', 'strength=0,.1', 'seed=0-5', '--device', 'cpu']
NETWORKS, EPOCHS = 12, 3
# Notes in a file who trained which epoch: a run that is trained twice stands there twice.
NOTED = """
import os, sys
from pathlib import Path
import freqnb.loop
save = freqnb.loop.State.save
def noted(self, path):
    save(self, path)
    with open(os.environ['NOTES'], 'a') as file:
        file.write(f'{path.parent.name} {len(self.history)}\\n')
freqnb.loop.State.save = noted
from freqnb.cli import main
sys.exit(main(sys.argv[1:]))
"""


def environment(home):
    "A home of its own, and a thread a process"
    kept = {name: value for name, value in os.environ.items() if not name.startswith('FREQNB_')}
    return kept | dict(FREQNB_HOME=str(home), OMP_NUM_THREADS='1', NOTES=str(home / 'notes'))


def start(home, *arguments, **options):
    "A sweep in a process of its own, which notes each epoch that it trains itself"
    home.mkdir(exist_ok=True)
    command = [sys.executable, '-c', NOTED, *arguments]
    options |= dict(env=environment(home), cwd=ROOT, text=True)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finished(process):
    "Wait; what it printed"
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


def epochs_trained(home):
    "Each epoch of each run that was saved, in the order in which that happened"
    return (home / 'notes').read_text().splitlines() if (home / 'notes').exists() else []


def states(home):
    "How many epochs each run has"
    files = sorted(home.glob('runs/*/state.pt'))
    return [len(torch.load(file, weights_only=True)['history']) for file in files]


def wait_for(ready, process, seconds=600):
    "Ask until the answer is yes"
    until = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def table(home):
    (file,) = home.glob('sweeps/*/sweep.csv')
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.mark.long
def test_a_sweep_killed_half_way_repeats_none(tmp_path):
    "`kill -9` among the runs, then the same line again: each epoch of each run was saved once"
    home = tmp_path / 'home'
    process = start(home, *SWEEP)
    wait_for(lambda: len(epochs_trained(home)) >= NETWORKS * EPOCHS // 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = epochs_trained(home)
    assert len(before) < NETWORKS * EPOCHS, 'the sweep was over before it could be killed'

    out = finished(start(home, *SWEEP))
    after = epochs_trained(home)
    assert after[: len(before)] == before
    # A kill between the file and the note costs no more than a note
    assert NETWORKS * EPOCHS - 1 <= len(after) == len(set(after)) <= NETWORKS * EPOCHS
    assert states(home) == [EPOCHS] * NETWORKS
    rows = table(home)
    assert len(rows) == NETWORKS == len({row['run'] for row in rows})
    assert len([line for line in out.splitlines() if line.startswith('0')]) == 2, 'a line for each strength'
    assert finished(start(home, *SWEEP)) == out and epochs_trained(home) == after


@pytest.mark.long
def test_two_sweeps_at_once_do_each_point_once(tmp_path):
    home = tmp_path / 'home'
    both = [start(home, *SWEEP) for _ in range(2)]
    first, second = map(finished, both)
    trained = epochs_trained(home)
    assert first == second and len(trained) == len(set(trained)) == NETWORKS * EPOCHS
    assert states(home) == [EPOCHS] * NETWORKS


def children(process):
    return [o for o in psutil.Process(process.pid).children() if o.is_running()]


@pytest.mark.long
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL], ids=['Ctrl-C', 'kill -9'])
def test_workers_end_with_the_sweep_and_the_next_goes_on(how, tmp_path):
    home = tmp_path / 'home'
    process = start(home, *SWEEP, '--jobs', '2')
    wait_for(lambda: sum(states_quickly(home)) >= 1, process)
    workers = children(process)
    assert len(workers) == 2
    process.send_signal(how)
    _, err = process.communicate(timeout=300)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    if how == signal.SIGINT:
        assert process.returncode == 130 and 'freqnb sweep: stopped; run again to go on' in err
    assert len(table_or_nothing(home)) == 0

    finished(start(home, *SWEEP, '--jobs', '2'))
    assert states(home) == [EPOCHS] * NETWORKS and len(table(home)) == NETWORKS


def states_quickly(home):
    "1 for each checkpoint, whatever it holds"
    return [1 for _ in home.glob('runs/*/state.pt')]


def table_or_nothing(home):
    return list(home.glob('sweeps/*/sweep.csv'))


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    "A function that runs a command line in this process, and returns its status and what it printed"
    for name in [o for o in os.environ if o.startswith('FREQNB_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))

    def typed(*arguments):
        status = main(arguments)
        return status, *capsys.readouterr()

    return typed


def test_a_network_that_stops_is_a_row_and_the_others_go_on(typed, tmp_path):
    "A learning rate with which the loss is no number"
    lines = ['sweep', 'train', *FIXED, 'norm=false', 'epochs=1', 'lr=.01,1e30', '--device', 'cpu']
    status, out, _ = typed(*lines)
    good, bad = table(tmp_path)
    assert status == 1 and float(good['test_accuracy']) > 0 and not bad['test_accuracy']
    assert 'try a smaller lr' in bad['error'] and 'try a smaller lr' in out
    (file,) = tmp_path.glob('sweeps/*/sweep.json')
    assert [network['recipe']['lr'] for network in json.loads(file.read_text())['networks']] == [0.01, 1e30]


def test_a_missing_package_is_named_with_its_extra(typed, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    line = ['sweep', 'train', *FIXED, 'epochs=1', 'seed=0', '--cluster', 'slurm']
    status, _, err = typed(*line)
    assert status == 2 and "pip install 'freqnb[cluster]'" in err


# Slurm in four lines: a job is a process, its number is that of the process, and it is over when the process is.
FAKE = {
    'sbatch': """#!{python}
import os, re, subprocess, sys
script = sys.argv[-1]
text = open(script).read()
count = re.search(r'#SBATCH --array=0-(\\d+)', text)
log = open(os.environ['SLURM_LOG'], 'a')
base = 1000 + os.getpid()
for i in range(int(count[1]) + 1 if count else 1):
    own = dict(os.environ, SLURM_JOB_ID=str(base), SLURM_ARRAY_JOB_ID=str(base), SLURM_ARRAY_TASK_ID=str(i),
               SLURM_NTASKS='1', SLURM_PROCID='0', SLURM_LOCALID='0', SLURM_NODEID='0', SLURM_JOB_NUM_NODES='1')
    if not count:
        own = {{k: v for k, v in own.items() if 'ARRAY' not in k}}
    subprocess.Popen(['bash', script], env=own, stdout=log, stderr=log)
print(f'Submitted batch job {{base}}')
""",
    'srun': """#!{python}
import subprocess, sys
arguments = sys.argv[1:]
while arguments[0].startswith('-'):
    arguments = arguments[2:] if '=' not in arguments[0] and not arguments[0] == '--unbuffered' else arguments[1:]
sys.exit(subprocess.run(arguments).returncode)
""",
    'sacct': '#!/bin/sh\necho "JobID|State|NodeList"\n',
    'scancel': '#!/bin/sh\n',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    "A folder with the commands of Slurm, which run the jobs on this machine"
    pytest.importorskip('submitit')
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in FAKE.items():
        file = folder / name
        file.write_text(text.format(python=sys.executable))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    monkeypatch.setenv('SLURM_LOG', str(tmp_path / 'slurm.log'))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    return folder


@pytest.mark.long
def test_slurm_trains_the_networks(typed, slurm, tmp_path):
    "Through submitit, with commands that stand for Slurm's: two jobs, four networks"
    line = ['sweep', 'train', *FIXED, 'epochs=1', 'seed=0-3', '--jobs', '2', '--device', 'cpu']
    status, _, err = typed(*line, '--cluster', 'slurm:timeout_min=10')
    said = (tmp_path / 'slurm.log').read_text() if (tmp_path / 'slurm.log').exists() else ''
    assert status == 0, f'{err}\n{said}'
    assert states(tmp_path) == [1] * 4 and len(table(tmp_path)) == 4
    scripts = [path.read_text() for path in (tmp_path / 'cluster').glob('*.sh')]
    assert scripts and all('--time=10' in script for script in scripts)


NOTEBOOK = [
    'import freqnb.experiment\nfreqnb.experiment._WORTHWHILE = 0  # so that even these are worth two processes',
    'import torch\nfrom freqnb.experiment import train_rows\nfrom freqnb.recipe import Recipe',
    'def squares(model, x, y):\n    logits = model(x)\n'
    '    return (logits - torch.eye(4)[y]).square().mean(), logits',
    "small = Recipe('planted', 'lenet', width=None, epochs=2, batch_size=50, images=100, scale='smoke')",
    "rows = train_rows({'usual': small, 'squares': (small, squares)}, seeds=2)",
    'print([len(run.history) for runs in rows.values() for run in runs])',
]


@pytest.mark.long
def test_one_notebook_and_two_processes_train_its_networks(typed, tmp_path, monkeypatch):
    "Also with an objective that was written in the notebook; the notebook finds the runs of the others"
    pytest.importorskip('cloudpickle')
    paper = next(iter(PAPERS))
    file = tmp_path / 'nbs' / paper / '01_small.ipynb'
    file.parent.mkdir(parents=True)
    cells = [nbformat.v4.new_code_cell(source) for source in NOTEBOOK]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    monkeypatch.setattr(freqnb.reproduce, 'notebooks_of', lambda name: [file] if name == paper else [])
    status, out, err = typed('reproduce', '--scale', 'smoke', '--jobs', '2', '--device', 'cpu')
    assert status == 0, f'{out}\n{err}'
    executed = json.loads((tmp_path / 'notebooks' / paper / '01_small.ipynb').read_text())
    assert executed['cells'][-1]['outputs'][-1]['text'] == ['[2, 2, 2, 2]\n']
    notes = [json.loads(path.read_text()) for path in (tmp_path / 'jobs').glob('*.json')]
    assert sorted(note['run'] for note in notes) == sorted(path.name for path in (tmp_path / 'runs').iterdir())
    assert len(notes) == 4 and all(note['epochs'] == 2 for note in notes)


@pytest.mark.parametrize('scale', ['gpu', 'paper'])
def test_a_dry_run_knows_what_is_not_here(scale, typed, tmp_path):
    "CIFAR-10 is not in the home, and stays away; steps are those of its 50,000 images less the 10% held out"
    line = ['reproduce', 'adversarial_frequency/04_table_two', '--scale', scale, '--dry-run', '--device', 'cpu']
    status, out, _ = typed(*line)
    lines = out.splitlines()
    assert status == 0 and lines[1].startswith('adversarial_frequency/04_table_two: ')
    rows = {line.strip().partition(':')[0]: line for line in lines if line.startswith('    ')}
    assert {'natural', 'AT', 'AT-FR', 'TRADES', 'MART', 'AWP'} <= set(rows)
    assert all(' steps each; ' in row and ' on an H100' in row for row in rows.values())
    recipe = huang2022.base(scale=scale)
    steps = 45_000 // recipe.batch_size * recipe.epochs
    assert f'3 seeds, {recipe.epochs} epochs, {steps:,} steps each' in rows['AT']
    assert not list(tmp_path.rglob('state.pt')) and not (tmp_path / 'data').exists()
