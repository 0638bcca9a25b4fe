"""What may go wrong, provoked for real: a full disk, a closed home, a set that cannot be fetched. Each has one line."""

import os
import platform
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from freqnb import cli
from freqnb.basics import replace_file
from freqnb.errors import in_one_line, is_expected

TRAIN = ['train', '--data', 'planted', '--width', '4', '--epochs', '2', '--device', 'cpu']
NOWHERE = 'http://127.0.0.1:9'  # a port that nothing listens on


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "A home of its own, and none of the reader's choices"
    for name in [o for o in os.environ if o.startswith('FREQNB_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home'


@pytest.fixture
def typed(capsys):
    "A function that runs a command line in this process, and returns its status and the last line of its errors"

    def typed(*arguments):
        status = cli.main(arguments)
        lines = capsys.readouterr().err.replace('\r', '\n').strip().splitlines()
        return status, lines[-1] if lines else ''

    return typed


def in_a_process(code, **options):
    "Python with a command in it, in a process of its own"
    options = dict(capture_output=True, text=True, timeout=300) | options
    return subprocess.run([sys.executable, '-c', code], **options)


def checkpoints(home):
    "Every run's state"
    return [torch.load(o, weights_only=True) for o in sorted(home.glob('runs/*/state.pt'))]


def limited(kind, most, arguments):
    "A program that runs a command with a resource limit"
    return (
        f'import resource, sys, freqnb.cli\n'
        f'resource.setrlimit(resource.{kind}, ({most}, {most}))\n'
        f'sys.exit(freqnb.cli.main({arguments!r}))'
    )


@pytest.mark.long
def test_a_full_disk_names_the_file_and_keeps_what_was_there(typed, home):
    "A file that may not grow, as on a full disk; with room again the same line goes on"
    assert typed(*TRAIN[:-4], '--epochs', '1', '--device', 'cpu')[0] == 0
    before = sorted(o for o in home.rglob('*') if o.is_file())
    done = in_a_process(limited('RLIMIT_FSIZE', 50_000, TRAIN))
    (*_, line) = done.stderr.replace('\r', '\n').strip().splitlines()
    assert done.returncode == 2 and 'state.pt: File too large; ' in line and line.startswith('freqnb train: ')
    assert 'Traceback' not in done.stderr and 'run again to go on' in line
    assert len(checkpoints(home)) == 1 and [o for o in before if not o.exists()] == []
    assert not [o for o in home.rglob('.state*')], 'half a file is left'
    assert typed(*TRAIN)[0] == 0 and len(checkpoints(home)) == 2


def test_replaced_files_survive_a_full_disk(tmp_path):
    "Bytes, and what torch writes: its own error hides the system's"
    file = tmp_path / 'kept'
    replace_file(file, lambda opened: opened.write(b'whole'))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    found = []
    for write in (lambda o: o.write(bytes(99_999)), lambda o: torch.save(torch.zeros(99_999), o)):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            replace_file(file, write)
        except OSError as error:
            found.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [o.filename for o in found] == [str(file)] * 2
    assert file.read_bytes() == b'whole' and list(tmp_path.iterdir()) == [file]


CLOSED = {'a file': lambda path: path.write_text('no folder'), 'nowhere to make it': lambda path: None}


@pytest.mark.parametrize('kind', CLOSED)
@pytest.mark.parametrize(
    'line', [TRAIN, ['reproduce', 'high_frequency/01', '--scale', 'smoke']], ids=lambda o: o[0]
)
def test_a_home_that_cannot_be_written_to(kind, line, typed, monkeypatch, tmp_path):
    "Found before anything is trained or run"
    path = Path('/proc/freqnb') if kind == 'nowhere to make it' else tmp_path / 'file'
    CLOSED[kind](path)
    monkeypatch.setenv('FREQNB_HOME', str(path))
    start = time.monotonic()
    status, error = typed(*line)
    assert status == 2 and str(path) in error and 'FREQNB_HOME' in error, error
    assert time.monotonic() - start < 60


@pytest.mark.parametrize('name', ['mnist', 'cifar10'])
def test_a_set_that_cannot_be_downloaded(name, typed, monkeypatch, home):
    for variable in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.setenv(variable, NOWHERE)
    monkeypatch.setenv('no_proxy', '')
    monkeypatch.setattr(urllib.request, '_opener', None)  # One that remembers these proxies would outlive the test
    status, error = typed('train', '--data', name)
    assert status == 2 and f'freqnb train: {name} is not in {home}' in error and 'Put ' in error


def npz(path, **changes):
    "Arrays in a file, some of them changed"
    arrays = {}
    for part, n in dict(train=40, test=10).items():
        arrays[f'x_{part}'] = np.random.default_rng(0).integers(0, 256, (n, 8, 8), np.uint8)
        arrays[f'y_{part}'] = np.arange(n) % 2
    np.savez(path, **arrays | changes)
    return path


WRONG = {
    'floats': lambda path: npz(path, x_train=np.zeros((40, 8, 8))),
    'labels of text': lambda path: npz(path, y_test=np.array(['a', 'b'] * 5)),
    'sizes': lambda path: npz(path, x_test=np.zeros((10, 9, 9), np.uint8)),
    'junk': lambda path: path.write_bytes(b'\0\5\x16\7 junk'),
    'nothing': lambda path: path.write_bytes(b''),
    'cut': lambda path: path.write_bytes(npz(path).read_bytes()[:700]),
}


@pytest.mark.parametrize('kind', WRONG)
@pytest.mark.parametrize('command', ['train', 'robust'])
def test_wrong_arrays_are_named(kind, command, typed, tmp_path):
    path = tmp_path / 'set.npz'
    WRONG[kind](path)
    status, error = typed(command, '--data', str(path))
    assert status == 2 and error.startswith(f'freqnb {command}: ') and str(path) in error, error


def test_memory_that_runs_out():
    "The processor's: a network of 30 GB"
    line = [*TRAIN[:3], '--width', '8192', '--device', 'cpu']
    done = in_a_process(limited('RLIMIT_AS', 4 * 2**30, line))
    (*_, error) = done.stderr.replace('\r', '\n').strip().splitlines()
    assert done.returncode == 2 and error.startswith('freqnb train: not enough memory'), done.stderr[-500:]


def test_a_loss_that_is_not_finite(typed):
    status, error = typed(*TRAIN, '--lr', '1e30', '--schedule', 'constant')
    assert status == 2 and 'try a smaller lr than 1e+30' in error


def raises(error):
    "A command that fails"

    def command():
        raise error

    return command


@pytest.fixture
def offered(monkeypatch):
    "A function that offers a command under the name `own`"

    def offered(command):
        point = SimpleNamespace(name='own', load=lambda: command)
        monkeypatch.setattr(cli, 'commands', lambda: dict(own=point))

    return offered


LINES = {
    'freqnb own: /x/y: No space left on device; ': OSError(28, 'No space left on device', '/x/y'),
    'freqnb own: building needs nbdev': ModuleNotFoundError('building needs nbdev: pip install nbdev'),
    'freqnb own: not enough memory: CUDA out of memory': torch.OutOfMemoryError('CUDA out of memory.'),
    'freqnb own: timed out': TimeoutError('timed out'),
}


@pytest.mark.parametrize('line', LINES)
def test_expected_errors_are_one_line(line, typed, offered):
    offered(raises(LINES[line]))
    status, error = typed('own')
    assert status == 2 and error.startswith(line)


@pytest.mark.parametrize(
    'error', [KeyError('says'), AttributeError('x'), TypeError('no'), RuntimeError('shapes')]
)
def test_a_fault_in_the_code_shows_where_it_is(error, offered):
    offered(raises(error))
    with pytest.raises(type(error)):
        cli.main(['own'])


def test_what_freqnb_raises_itself_is_a_sentence(tmp_path):
    from freqnb.arrays import read_npz

    with pytest.raises(TypeError) as caught:
        read_npz(npz(tmp_path / 'x.npz', x_train=np.zeros((40, 8, 8))))
    assert is_expected(caught.value) and str(tmp_path) in in_one_line(caught.value)
    assert not is_expected(TypeError('unsupported operand'))


def test_ctrl_c_says_how_to_go_on(home):
    "In the middle of a training; the same line again goes on from the last epoch"
    line = [*TRAIN[:-4], '--epochs', '40', '--device', 'cpu']
    process = subprocess.Popen(
        [sys.executable, '-m', 'freqnb', *line], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while not checkpoints(home):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130 and 'Traceback' not in error
    assert error.strip().splitlines()[-1].endswith('freqnb train: stopped; run again to go on')
    (state,) = checkpoints(home)
    assert 1 <= len(state['history']) < 40


@pytest.mark.parametrize('line', [['data'], ['--help']], ids=' '.join)
def test_who_reads_may_stop(line):
    "As `head` does, and a full disk behind standard output"
    command = [sys.executable, '-m', 'freqnb', *line]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 0 and error == b''


STREAM = """
import multiprocessing, sys, torch
from pathlib import Path
multiprocessing.set_start_method(sys.argv[1])
import freqnb.readers
freqnb.readers._fits = lambda *_: False
train, test = freqnb.readers.read_folder(Path(sys.argv[2]))
generator = torch.Generator().manual_seed(0)
print(type(train).__name__, *[y.tolist() for x, y in train.batches(8, generator)], test.fingerprint)
"""


def tree(root):
    "Folders of small images"
    from PIL import Image

    draw = np.random.default_rng(0)
    for part, n in dict(train=16, test=4).items():
        for name in 'ab':
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f'{i}.png')
    return root


def test_a_streamed_set_works_however_processes_start(tmp_path):
    "Also in a script without a main guard, where spawned processes would run it again"
    folder, script = tree(tmp_path / 'set'), tmp_path / 'script.py'
    script.write_text(STREAM)
    said = []
    for method in ('fork', 'spawn', 'forkserver'):
        command = [sys.executable, str(script), method, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0].startswith('StreamedImages ') and len(set(said)) == 1


def test_a_broken_file_of_a_streamed_set_is_named(tmp_path, monkeypatch):
    import freqnb.readers

    monkeypatch.setattr(freqnb.readers, '_fits', lambda *_: False)
    folder = tree(tmp_path / 'set')
    train, _ = freqnb.readers.read_folder(folder)
    broken = folder / train.files[9]
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(ValueError, match=broken.name) as caught:
        list(train.batches(4))
    assert str(broken) in in_one_line(caught.value) and 'Traceback' not in in_one_line(caught.value)


def test_a_dry_run_says_what_a_training_takes(typed, capsys, home):
    "The numbers of networks and steps follow from the recipe; nothing is trained"
    for line in (TRAIN, ['robust', '--scale', 'smoke', '--method', 'AT-FR', '--data', 'planted']):
        assert cli.main([*line, '--dry-run']) == 0
        said = capsys.readouterr().out
        assert said.startswith('to train, unless kept already: 1 network, ') and ' of training, ' in said
        assert said.count('\n') == 1 and ' of disk' in said
    assert not list(home.rglob('state.pt'))
    assert '1 network, 56 steps, ' in [cli.main([*TRAIN, '--dry-run']), capsys.readouterr().out][1]


def test_a_dry_run_of_notebooks_trains_nothing(capsys, home):
    status = cli.main(['reproduce', 'high_frequency/02', '--scale', 'smoke', '--seeds', '2', '--dry-run'])
    said = capsys.readouterr().out.splitlines()
    head, total, *rows, last = said
    assert status == 0 and rows and 'H100' in head and 'notebooks ran' not in last
    assert total.startswith('high_frequency/02_low_generalizes: ') and 'networks' in total
    assert all(row.startswith('    ') and ': 2 seeds, ' in row and ' steps each; ' in row for row in rows)
    assert last.startswith('to train, unless kept already: ')
    assert not list(home.rglob('state.pt')) and not list((home / 'records').rglob('*.json'))


def test_costs_are_those_of_the_run_that_follows(home):
    "As many steps as the run takes, and a checkpoint as large as it becomes, but for its history"
    from freqnb.cost import costs_of
    from freqnb.data import load
    from freqnb.objectives import cross_entropy
    from freqnb.recipe import Recipe
    from freqnb.train import fit

    recipe = Recipe(
        'planted', width=4, epochs=2, images=1000, batch_size=100, swa=0.5, select='valid_accuracy'
    )
    splits = load('planted')
    (cost,) = costs_of([recipe], [cross_entropy], [None], splits)
    run = fit(recipe, splits, progress=False)
    size = (run.path / 'state.pt').stat().st_size
    assert cost.steps == 20 and 0.5 * size < cost.size < 1.2 * size


def test_a_dry_run_trains_nothing_outside_tables_either(monkeypatch, home):
    from freqnb.recipe import Recipe
    from freqnb.train import fit

    monkeypatch.setenv('FREQNB_DRY_RUN', '1')
    with pytest.raises(ValueError, match='FREQNB_DRY_RUN is set'):
        fit(Recipe('planted', width=4, epochs=1), progress=False)
    assert not list(home.rglob('state.pt'))


def test_records_that_cannot_be_written_are_found_before(typed, monkeypatch, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    monkeypatch.setenv('FREQNB_RECORDS', str(tmp_path / 'file'))
    status, error = typed('reproduce', 'high_frequency/01', '--scale', 'smoke')
    assert status == 2 and str(tmp_path / 'file') in error


def test_notebooks_that_cannot_run_say_so(tmp_path):
    "A file that is no notebook, a kernel that is killed, and one that runs"
    import nbformat

    from freqnb.reproduce import run_notebooks

    killed = 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'
    for name, source in dict(killed=killed, well='1').items():
        cells = [nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f'{name}.ipynb')
    (tmp_path / 'junk.ipynb').write_text('{"cells": [')
    paths = sorted(tmp_path.glob('*.ipynb'))
    outs = {path: tmp_path / 'executed' / path.name for path in paths}
    found = {outcome.path.stem: outcome.error for outcome in run_notebooks(outs)}
    assert found['killed'] == 'the kernel died of SIGKILL, as where memory runs out'
    assert 'JSON' in found['junk'] and '\n' not in found['junk'] and found['well'] == ''


# Pages of memory that the system has to give for the second of two equal texts
PAGES = """
import os, resource, sys
size = 64_000_000
if 'keep' in sys.argv:
    from freqnb.__main__ import keep_memory
    keep_memory()
b'1' * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b'1' * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, os.environ.get('MALLOC_MMAP_THRESHOLD_'))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a matter of glibc')
def test_memory_waits_for_the_next_batch():
    def pages(*arguments, **own):
        command = [sys.executable, '-c', PAGES, *arguments]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=True)
        count, variable = done.stdout.split()
        return int(count), variable

    assert pages()[0] > 10_000
    kept, variable = pages('keep')
    assert kept < 1000 and variable == str(2**30)
    assert pages('keep', MALLOC_MMAP_THRESHOLD_='1000000')[1] == '1000000', "one's own choice stays"
