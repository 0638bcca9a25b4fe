"""`freqnb` as a reader types it: the papers run at the smallest scale, and every mistake gets a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from freqnb.cli import main

ROOT = Path(__file__).parents[1]
PAPERS = sorted(
    o
    for o in (ROOT / 'nbs').rglob('*.ipynb')
    if o.parent.name not in ('nbs', 'api') and not any(p[0] in '._' for p in o.relative_to(ROOT).parts)
)
NAMES = [f'{o.parent.name}/{o.stem}' for o in PAPERS]
COMMANDS = ['bench', 'data', 'docs', 'lab', 'report', 'reproduce', 'save', 'train']
LINES, COLUMNS = 48, 100  # a tall terminal window; `train` has 24 options


def freqnb(home, *arguments):
    "Type a command, with a home of its own and one thread for each kernel"
    env = {k: v for k, v in os.environ.items() if not k.startswith('FREQNB_')}
    env |= dict(FREQNB_HOME=str(home), COLUMNS=str(COLUMNS), OMP_NUM_THREADS='1')
    return subprocess.run(
        [Path(sys.executable).with_name('freqnb'), *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )


def content():
    "Everything under nbs, and what git says of the rest, where there is git"
    files = {o.relative_to(ROOT).as_posix(): o.read_bytes() for o in (ROOT / 'nbs').rglob('*') if o.is_file()}
    git = (
        subprocess.run(
            ['git', 'status', '--porcelain', '--ignored=no'], cwd=ROOT, capture_output=True, text=True
        )
        if (ROOT / '.git').exists()
        else None
    )
    return files, git and git.stdout


@pytest.fixture(scope='module')
def reproduced(tmp_path_factory):
    "Every paper at smoke scale, once"
    home, before = tmp_path_factory.mktemp('home'), content()
    done = freqnb(home, 'reproduce', '--scale', 'smoke')
    return home, done, before, content()


def test_every_paper_runs(reproduced):
    home, done, _, _ = reproduced
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    assert [name for name in NAMES if name not in done.stdout] == [] and NAMES
    assert f'{len(NAMES)} of {len(NAMES)} notebooks ran' in done.stdout and 'Traceback' not in done.stdout


def test_every_paper_has_a_verdict(reproduced):
    "A line that begins with one, after the notebook's name and before the next"
    _, done, _, _ = reproduced
    starts = sorted((done.stdout.index(f'\n{name} '), name) for name in NAMES)
    ends = [start for start, _ in starts[1:]] + [len(done.stdout)]
    for (start, name), end in zip(starts, ends):
        lines = done.stdout[start:end].splitlines()
        verdicts = [o for o in lines if o.startswith(('REPRODUCED: ', 'NOT REPRODUCED: ', 'UNDECIDED: '))]
        numbers = [o for o in lines if 'n=' in o and 'seeds=' in o and 'smoke' in o]
        assert verdicts and len(numbers) == len(verdicts), f'{name}: {lines}'


def test_progress_goes_to_the_terminal(reproduced):
    _, done, _, _ = reproduced
    assert 'step' in done.stderr and '<' in done.stderr, 'a bar with the time left'
    assert 'step/s' not in done.stdout and 's/step' not in done.stdout


def test_results_are_in_the_home(reproduced):
    home, _, _, _ = reproduced
    for path, name in zip(PAPERS, NAMES):
        executed = json.loads((home / 'notebooks' / f'{name}.ipynb').read_text())
        assert any(o['outputs'] for o in executed['cells'] if o['cell_type'] == 'code')
        assert not [
            o
            for cell in executed['cells']
            for o in cell.get('outputs', [])
            if o['output_type'] == 'error' or o.get('name') == 'stderr'
        ]
        title = path.stem.lstrip('0123456789_')
        records = list((home / 'records' / path.parent.name).glob(f'{title}-smoke-*.json'))
        assert records and all(json.loads(o.read_text())['claims'] for o in records)


def test_the_repository_stays_as_it_was(reproduced):
    _, _, (files, git), (files_after, git_after) = reproduced
    assert [o for o in files.keys() | files_after.keys() if files.get(o) != files_after.get(o)] == []
    assert git == git_after


def test_report_lists_the_claims(reproduced):
    home, _, _, _ = reproduced
    done = freqnb(home, 'report')
    assert done.returncode == 0 and not done.stderr
    claims = [
        claim for o in (home / 'records').rglob('*.json') for claim in json.loads(o.read_text())['claims']
    ]
    assert [o['says'] for o in claims if o['says'] not in done.stdout] == [] and len(claims) >= len(NAMES)
    assert all(claim['verdict'] in done.stdout for claim in claims)


def test_report_of_nothing(tmp_path):
    done = freqnb(tmp_path, 'report')
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr


def test_a_single_notebook_can_be_named(tmp_path):
    done = freqnb(
        tmp_path,
        'reproduce',
        'high_frequency/01',
        '--scale',
        'smoke',
        '--seeds',
        '1',
        '--data',
        'planted',
        '--device',
        'cpu',
    )
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    assert '1 of 1 notebooks ran' in done.stdout and 'planted' in done.stdout and '02_' not in done.stdout


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


def test_help_is_what_nothing_means(tmp_path):
    done = freqnb(tmp_path)
    assert (
        done.returncode == 0
        and done.stdout == freqnb(tmp_path, '--help').stdout
        and 'reproduce' in done.stdout
    )


def test_the_console_script_passes_the_status_on(tmp_path):
    done = freqnb(tmp_path, 'train', '--optimizer', 'lion')
    assert done.returncode == 2 and 'lion' in done.stderr and 'Traceback' not in done.stderr


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
    'train --depth third': "'third'",
    'train --depth 0 --penalty highest': 'got 0',
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
    cells = json.loads((ROOT / 'nbs' / 'api' / '11_cli.ipynb').read_text('utf-8'))['cells']
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
def test_a_released_line_trains(line, tmp_path):
    "The line as it stands, on small data for one epoch; typed again it loads the run"
    import numpy as np

    draw = np.random.default_rng(0)
    images = {
        f'x_{part}': draw.integers(256, size=(n, 32, 32, 3), dtype=np.uint8)
        for part, n in dict(train=60, test=20).items()
    }
    np.savez(
        tmp_path / 'set.npz',
        **images,
        **{f'y_{part}': np.arange(n) % 10 for part, n in dict(train=60, test=20).items()},
    )
    smaller = ['--data', str(tmp_path / 'set.npz'), '--epochs', '1', '--width', '8', '--batch-size', '16']
    done = freqnb(tmp_path, *line, *smaller)
    assert done.returncode == 0, done.stderr
    assert 'test accuracy' in done.stdout and 'high-frequency coefficients' in done.stdout
    recipe = json.loads(next(tmp_path.rglob('recipe.json')).read_text())
    assert (
        recipe['optimizer'] == 'adamw'
        and recipe['label_smoothing'] == 0
        and ('penalized' in recipe['objective']) == ('--penalty' in line)
    )
    assert freqnb(tmp_path, *line, *smaller).stdout == done.stdout
