"""`freqnb` as a reader types it: the papers run at the smallest scale, and every mistake gets a sentence."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from exercises import exercises_of, with_solutions

import freqnb.reproduce
from freqnb.cli import commands, main
from freqnb.papers import PAPERS, notebooks_of

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [path for folder in PAPERS for path in notebooks_of(folder)]
NAMES = [f'{path.parent.name}/{path.stem}' for path in NOTEBOOKS]
COMMANDS = sorted(commands())
LINES, COLUMNS = 54, 100  # a tall terminal window; `robust` has 39 options
VERDICTS = (
    'UNDECIDED HERE: ',
    'UNDECIDED: ',
    'HOLDS HERE: ',
    'OPPOSITE HERE: ',
    'NO DIFFERENCE HERE: ',
    'HOLDS: ',
    'DOES NOT HOLD: ',
    'NO DIFFERENCE: ',
)


def environment(home):
    "Variables for a command with a home of its own and one thread for each kernel"
    kept = {name: value for name, value in os.environ.items() if not name.startswith('FREQNB_')}
    return kept | dict(FREQNB_HOME=str(home), COLUMNS=str(COLUMNS), OMP_NUM_THREADS='1')


def run(home, *command, folder=ROOT):
    "Run a command in the root of the project, or of a copy"
    options = dict(stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200)
    shadowed = {} if folder == ROOT else dict(PYTHONPATH=str(folder))
    return subprocess.run(command, cwd=folder, env=environment(home) | shadowed, **options)


def freqnb_command(home, *arguments, folder=ROOT):
    "Type `freqnb` and more"
    return run(home, Path(sys.executable).with_name('freqnb'), *arguments, folder=folder)


def content(folder):
    "Every file of a folder, without what Python compiled"
    files = [o for o in folder.rglob('*') if o.is_file() and '__pycache__' not in o.parts]
    return {o.relative_to(folder).as_posix(): o.read_bytes() for o in files}


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    "A copy of the repository whose papers' notebooks go on with the solutions of their exercises"
    folder = tmp_path_factory.mktemp('clone')
    left_out = shutil.ignore_patterns('.ipynb_checkpoints', '__pycache__', '_quarto.yml')
    for name in ('nbs', 'freqnb'):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text('utf-8'))
        (folder / path.relative_to(ROOT)).write_text(json.dumps(with_solutions(notebook)), 'utf-8')
    return folder


@pytest.fixture(scope='module')
def reproduced(tmp_path_factory, clone):
    "Every paper at smoke scale, once, with the solutions of its exercises"
    home, before = tmp_path_factory.mktemp('home'), content(clone)
    done = freqnb_command(home, 'reproduce', '--scale', 'smoke', folder=clone)
    return home, done, before, content(clone)


@pytest.mark.long
def test_every_paper_runs(reproduced):
    _, done, _, _ = reproduced
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    assert [name for name in NAMES if name not in done.stdout] == [] and NAMES
    assert f'{len(NAMES)} of {len(NAMES)} notebooks ran' in done.stdout
    assert 'Traceback' not in done.stdout


@pytest.mark.long
def test_every_paper_has_a_verdict(reproduced):
    "A line that begins with one, after the notebook's name and before the next: blocks are whole"
    _, done, _, _ = reproduced
    starts = sorted((done.stdout.index(f'\n{name} '), name) for name in NAMES)
    ends = [start for start, _ in starts[1:]] + [len(done.stdout)]
    for (start, name), end in zip(starts, ends):
        lines = done.stdout[start:end].splitlines()
        verdicts = [line for line in lines if line.startswith(VERDICTS)]
        numbers = [line for line in lines if 'n=' in line and 'seeds=' in line]
        assert verdicts and len(numbers) == len(verdicts), f'{name}: {lines}'
        assert f'notebooks/{name}.ipynb' in done.stdout[start:end]


@pytest.mark.long
def test_a_log_has_a_line_for_each_start(reproduced):
    "Without a terminal there are no bars"
    _, done, _, _ = reproduced
    lines = done.stderr.splitlines()
    assert sorted(line for line in lines if line.endswith(' starts')) == sorted(f'{o} starts' for o in NAMES)
    assert 'step/s' not in done.stderr + done.stdout and '%|' not in done.stderr + done.stdout


def faults_of(path):
    "Errors and standard error among the outputs of a notebook"
    cells = json.loads(path.read_text('utf-8'))['cells']
    outputs = [output for cell in cells for output in cell.get('outputs', [])]
    assert outputs
    return [o for o in outputs if o['output_type'] == 'error' or o.get('name') == 'stderr']


@pytest.mark.long
def test_results_are_in_the_home(reproduced):
    home, _, _, _ = reproduced
    for path, name in zip(NOTEBOOKS, NAMES):
        assert faults_of(home / 'notebooks' / f'{name}.ipynb') == []
        title = path.stem.lstrip('0123456789_')
        records = list((home / 'records' / path.parent.name).glob(f'{title}-smoke-*.json'))
        assert records and all(json.loads(o.read_text())['claims'] for o in records)


@pytest.mark.long
def test_the_repository_stays_as_it_was(reproduced):
    _, _, files, files_after = reproduced
    names = files.keys() | files_after.keys()
    assert [name for name in names if files.get(name) != files_after.get(name)] == []


@pytest.mark.long
@pytest.mark.parametrize('path', NOTEBOOKS, ids=NAMES)
def test_solutions_ran(path, reproduced):
    "As the last cells of the notebook that was executed, none of them with an error"
    home, _, _, _ = reproduced
    executed = json.loads((home / 'notebooks' / path.parent.name / path.name).read_text('utf-8'))
    solutions = [exercise.solution for exercise in exercises_of(json.loads(path.read_text('utf-8')))]
    assert solutions
    ends = executed['cells'][-len(solutions) :]
    assert [''.join(cell['source']) for cell in ends] == solutions
    assert [o for cell in ends for o in cell['outputs'] if o['output_type'] == 'error'] == []


@pytest.mark.long
def test_report_lists_the_claims(reproduced):
    home, _, _, _ = reproduced
    done = freqnb_command(home, 'report')
    assert done.returncode == 0 and not done.stderr
    records = [json.loads(path.read_text()) for path in (home / 'records').rglob('*.json')]
    claims = [claim for record in records for claim in record['claims']]
    assert [o['says'] for o in claims if o['says'] not in done.stdout] == [] and len(claims) >= len(NAMES)
    assert all(claim['verdict'] in done.stdout for claim in claims)


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    "A function that runs a command line in this process, and returns its status and what it printed"
    for name in [o for o in os.environ if o.startswith('FREQNB_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.setenv('COLUMNS', str(COLUMNS))

    def typed(*arguments):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return typed


@pytest.fixture
def papers(tmp_path, monkeypatch):
    "A function that puts small notebooks in the place of those of the first paper; there are no others then"

    def papers(**sources):
        folder = tmp_path / 'nbs' / next(iter(PAPERS))
        folder.mkdir(parents=True)
        for name, source in sources.items():
            cells = [nbformat.v4.new_code_cell(source)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f'{name}.ipynb')
        files = sorted(folder.glob('*.ipynb'))
        monkeypatch.setattr(
            freqnb.reproduce, 'notebooks_of', lambda paper: files if paper == folder.name else []
        )
        return folder.name

    return papers


def test_choices_reach_a_single_notebook(typed, papers, tmp_path):
    source = "import os, torch; print(*[os.environ[f'FREQNB_{name}'] for name in ('SCALE', 'DATA', 'SEEDS', 'DEVICE')]"
    paper = papers(one=f'{source}, torch.get_num_threads())', two='1')
    options = ['--scale', 'smoke', '--seeds', '2', '--data', 'planted', '--device', 'cpu']
    status, out, _ = typed('reproduce', f'{paper}/one', *options)
    assert status == 0 and '1 of 1 notebooks ran' in out and 'two' not in out
    executed = json.loads((tmp_path / 'notebooks' / paper / 'one.ipynb').read_text())
    threads = os.environ.get('OMP_NUM_THREADS', '1')
    assert executed['cells'][0]['outputs'][0]['text'] == [f'smoke planted 2 cpu {threads}\n']


@pytest.mark.parametrize('jobs', ['1', '2'])
def test_a_notebook_that_fails_says_so_and_the_others_go_on(typed, papers, tmp_path, jobs):
    paper = papers(
        a_bad="raise KeyError('no such thing')", b_good="print('well')", c_dead='import os; os._exit(3)'
    )
    status, out, err = typed('reproduce', '--scale', 'smoke', '--jobs', jobs)
    lines = out.splitlines()
    assert status == 1 and '1 of 3 notebooks ran' in out and 'Traceback' not in out + err
    start = next(i for i, line in enumerate(lines) if line.startswith(f'{paper}/a_bad'))
    assert lines[start + 1] == "STOPPED: KeyError: 'no such thing' (at `raise KeyError('no such thing')`)"
    assert lines[start + 2].endswith(str(tmp_path / 'notebooks' / paper / 'a_bad.ipynb'))
    assert 'STOPPED: the kernel died with exit status 3' in out and f'{paper}/a_bad stopped: KeyError' in err
    assert faults_of(tmp_path / 'notebooks' / paper / 'a_bad.ipynb')


@pytest.mark.long
def test_ctrl_c_ends_all_kernels(tmp_path):
    "Two notebooks that would run for ever, and a third that waits for a kernel"
    folder = tmp_path / 'nbs' / 'high_frequency'
    folder.mkdir(parents=True)
    for name in ('a', 'b', 'c'):
        source = f'import pathlib, time; pathlib.Path({str(tmp_path / name)!r}).touch(); time.sleep(999)'
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), folder / f'{name}.ipynb'
        )
    code = f"""import sys, pathlib, freqnb.reproduce, freqnb.cli
files = sorted(pathlib.Path({str(folder)!r}).glob('*.ipynb'))
freqnb.reproduce.notebooks_of = lambda paper: files if paper == 'high_frequency' else []
sys.exit(freqnb.cli.main(['reproduce', '--jobs', '2']))"""
    process = subprocess.Popen(
        [sys.executable, '-c', code], env=environment(tmp_path), stderr=subprocess.PIPE
    )
    started = [tmp_path / 'a', tmp_path / 'c']  # of equals the last comes first
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        until = time.monotonic() + 120
        while not all(path.exists() for path in started):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and b'stopped' in process.stderr.read()
    assert len(kernels) >= 2 and psutil.wait_procs(kernels, timeout=10)[1] == []
    assert not (tmp_path / 'b').exists()


def test_report_of_nothing(typed):
    status, out, err = typed('report')
    assert status == 0 and out.strip() and not err


@pytest.mark.parametrize('arguments', [[], *([o] for o in COMMANDS)], ids=lambda o: ' '.join(o) or 'freqnb')
def test_help_fits_a_screen(arguments, typed):
    status, out, err = typed(*arguments, '--help')
    lines = out.splitlines()
    assert status == 0 and not err and len(lines) > 3
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS + 10, (
        f'{len(lines)} lines, {max(map(len, lines))} columns'
    )
    if not arguments:
        assert [o for o in COMMANDS if f'\n  {o} ' not in out] == []


def test_help_is_what_nothing_means(typed):
    status, out, _ = typed()
    assert status == 0 and out == typed('--help')[1] and 'reproduce' in out


@pytest.mark.parametrize('start', [['freqnb'], ['python', '-m', 'freqnb']], ids=' '.join)
def test_both_ways_to_start_pass_the_status_on(start, tmp_path):
    command = [Path(sys.executable).with_name(start[0]), *start[1:]]
    done = run(tmp_path, *command, 'train', '--optimizer', 'lion')
    assert done.returncode == 2 and 'lion' in done.stderr and 'Traceback' not in done.stderr


def test_what_is_typed_wins_over_the_environment(typed, papers, tmp_path, monkeypatch):
    monkeypatch.setenv('FREQNB_SCALE', 'paper')
    paper = papers(one="import os; print(os.environ['FREQNB_SCALE'])")
    for options, expected in (['--scale', 'smoke'], 'smoke'), ([], 'paper'):
        assert typed('reproduce', *options)[0] == 0
        executed = json.loads((tmp_path / 'notebooks' / paper / 'one.ipynb').read_text())
        assert executed['cells'][0]['outputs'][0]['text'] == [f'{expected}\n']


MISTAKES = {
    'dance': "'dance'",
    'reproduce low_frequency': 'low_frequency',
    'reproduce --scale huge': 'huge',
    'reproduce --seeds 0': '0',
    'reproduce --seeds two': 'two',
    'reproduce --wrong': '--wrong',
    'reproduce --data no_such_set': 'no_such_set',
    'reproduce --device abacus': 'abacus',
    'train --data no_such_set': 'no_such_set',
    'train --data nowhere/pets': 'nowhere/pets',
    'train --model lenet6': 'lenet6',
    'train --epochs 0': '0',
    'train --epochs many': 'many',
    'train --band low': 'radius',
    'train --conv dct': "'dct'",
    'train --penalty lowest': "'lowest'",
    'train --depth third --penalty highest': "'third'",
    'train --depth 0 --penalty highest': 'depth is 0',
    'reproduce --jobs 0': '0',
    'train --strength .1': '--penalty',
    'train --depth 1/3': '--penalty',
    'train --radius 4': 'radius',
    'train --milestones .5': '--schedule step',
    'train --swa-norm objective': '--swa',
    'train --basis ortho': '--conv',
    'robust --strength .2': '--method AT-FR',
    'robust --start .5 --method TRADES': '--method AT-FR',
    'robust --method FAT': "'FAT'",
    'robust --eps 8': "'8'",
    'robust --tested 0': '0',
    'train --milestones half': "'half'",
    'train --schedule stairs': "'stairs'",
    'train --optimizer lion': 'lion',
    'train --labels wrong': 'wrong',
    'train --device abacus': 'abacus',
    'train --seed 1.5': '1.5',
    'train --batch-size 0': '0',
    'train --lr 0': '0',
    'train --radius -1 --band low': '-1',
    'train --width 0': '0',
    'train --pad -1': '-1',
    'save api/99_nothing': 'api/99_nothing',
    'report now': 'now',
    'data --root': '--root',
    'sweep': 'nothing to sweep',
    'sweep dance': "'dance'",
    'sweep train strength': "'strength'; expected NAME=VALUE",
    'sweep train seed=0-x': "'0-x'",
    'sweep train sed=1': "'sed'",
    'sweep train epochs=0': 'epochs is 0',
    'sweep train penalty=none strength=1': '--penalty',
    'sweep train seed=0 --jobs 0': 'jobs is 0',
    'sweep train data=planted seed=0 images=200 --cluster moon': "cluster is 'moon'",
}


@pytest.mark.parametrize('line', MISTAKES)
def test_mistakes_get_a_sentence(line, typed, tmp_path):
    "A mistake that raises something else would reach the reader as a traceback, and fails here"
    status, out, err = typed(*line.split())
    assert status == 2, f'{status}\n{out[-500:]}\n{err[-1500:]}'
    assert MISTAKES[line] in err and len(err.strip().splitlines()) <= 12
    assert not list(tmp_path.rglob('state.pt')), 'nothing was trained'


def released_lines():
    "The three example runs of Lukasik et al., as the command line's page has them"
    cells = json.loads((ROOT / 'nbs' / 'api' / '10_cli.ipynb').read_text('utf-8'))['cells']
    text = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    return [line.split()[1:] for line in text.splitlines() if line.startswith('freqnb train --data cifar10')]


def test_there_are_three_released_lines():
    assert [line[line.index('--model') + 1] for line in released_lines()] == [
        'efficientnet_b0',
        'efficientnet_b0',
        'resnet9',
    ]
    assert [line[line.index('--penalty') + 1] for line in released_lines()[1:]] == ['highest', 'highest']


@pytest.mark.parametrize('line', released_lines(), ids=lambda o: f'{o[4]}-{"WD" if "WD" in o else "plain"}')
def test_a_released_line_trains(line, typed, tmp_path):
    "The line as it stands, on small data for one epoch; typed again it loads the run"
    draw, arrays = np.random.default_rng(0), {}
    for part, n in dict(train=60, test=20).items():
        arrays[f'x_{part}'] = draw.integers(256, size=(n, 32, 32, 3), dtype=np.uint8)
        arrays[f'y_{part}'] = np.arange(n) % 10
    np.savez(tmp_path / 'set.npz', **arrays)

    smaller = ['--data', str(tmp_path / 'set.npz'), '--epochs', '1', '--width', '8', '--batch-size', '16']
    status, out, err = typed(*line, *smaller)
    assert status == 0, err
    assert 'test accuracy' in out and 'high-frequency coefficients' in out
    recipe = json.loads(next(tmp_path.rglob('recipe.json')).read_text())
    assert recipe['optimizer'] == 'adamw' and recipe['label_smoothing'] == 0
    assert ('penalized' in recipe['objective']) == ('--penalty' in line)
    assert typed(*line, *smaller)[1] == out
