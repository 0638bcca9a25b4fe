"""What the documents say is so: their code runs, their links lead somewhere, `.ci/run` takes their two lines."""

import contextlib
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from freqnb.papers import PAPERS

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ((ROOT / name).read_text('utf-8') for name in ('README.md', 'CONTRIBUTING.md'))
LONG = '.venv/bin/pytest -m long'
SET_UP = [
    'python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/freqnb reproduce',
    "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest",
]


def blocks(text, language):
    "The code blocks of a language"
    return [o.strip() for o in re.findall(rf'^```{language}\n(.*?)^```$', text, re.M | re.S)]


def test_title_and_subtitle_are_those_of_the_front_page():
    first = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text('utf-8'))['cells'][0]
    assert README.splitlines()[:3] == ''.join(first['source']).splitlines()


def test_two_lines_are_all_the_set_up():
    section = README.split('## Set up')[1].split('\n## ')[0]
    assert blocks(section, 'sh') == SET_UP
    assert [o for o in README.splitlines() if 'pip install' in o or 'venv .venv' in o] == SET_UP


def test_the_long_tests_are_named():
    assert f'`{LONG}`' in README
    assert LONG in (ROOT / '.github' / 'workflows' / 'tests.yml').read_text()


def test_ci_takes_those_lines(tmp_path):
    "The script runs what stands in README.md: here with a `bash` that only notes what it was asked to run"
    script = (ROOT / '.ci' / 'run').read_text()
    assert (
        os.access(ROOT / '.ci' / 'run', os.X_OK)
        and 'pip install' not in script
        and 'set -euo pipefail' in script
    )
    for folder in ('.ci', 'bin'):
        (tmp_path / folder).mkdir()
    (tmp_path / '.ci' / 'run').write_text(script)
    (tmp_path / 'README.md').write_text(README)
    for name, text in {'bash': f'printf "%s\\n" "$2" >> {tmp_path}/seen', 'chromium': 'true'}.items():
        (tmp_path / 'bin' / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / 'bin' / name).chmod(0o755)
    env = os.environ | dict(PATH=f'{tmp_path}/bin:{os.environ["PATH"]}')
    done = subprocess.run(
        ['/bin/bash', tmp_path / '.ci' / 'run'], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'seen').read_text().splitlines() == [*SET_UP, LONG]
    assert len(re.findall(r'^ +\d+ s  ', done.stdout, re.M)) == 4, 'the seconds of each step'


def test_ci_stops_when_a_line_fails(tmp_path):
    for folder in ('.ci', 'bin'):
        (tmp_path / folder).mkdir()
    (tmp_path / '.ci' / 'run').write_text((ROOT / '.ci' / 'run').read_text())
    (tmp_path / 'README.md').write_text(README)
    for name, text in {'bash': 'exit 3', 'chromium': 'true'}.items():
        (tmp_path / 'bin' / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / 'bin' / name).chmod(0o755)
    command, env = (
        ['/bin/bash', tmp_path / '.ci' / 'run'],
        os.environ | dict(PATH=f'{tmp_path}/bin:{os.environ["PATH"]}'),
    )
    assert subprocess.run(command, env=env, capture_output=True, timeout=60).returncode == 3
    (tmp_path / 'README.md').write_text(README.replace(SET_UP[1], ''))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and 'expected 2' in done.stderr


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.delenv('FREQNB_DEVICE', raising=False)
    (code,) = blocks(README, 'python')
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, 'README.md', 'exec'), {})
    assert re.fullmatch(r'(\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]\n){3}', printed.getvalue()), printed.getvalue()


def test_the_picture_is_what_its_lines_draw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'nbs' / 'images').mkdir(parents=True)
    (code,) = blocks(CONTRIBUTING, 'python')
    exec(compile(code, 'CONTRIBUTING.md', 'exec'), {})
    drawn, kept = (
        Image.open(folder / 'nbs' / 'images' / 'split.png').convert('RGB') for folder in (tmp_path, ROOT)
    )
    assert drawn.size == kept.size and max(ImageStat.Stat(ImageChops.difference(drawn, kept)).mean) < 4
    assert (ROOT / 'nbs' / 'images' / 'split.png').stat().st_size < 200_000
    (alt,) = re.findall(r'!\[([^\]]+)\]\(nbs/images/split.png\)', README)
    assert len(alt) > 40


def test_every_paper_can_be_cited():
    "Its title stands in the README; braces keep capitals in BibTeX"
    text = README.replace('{', '').replace('}', '')
    assert [paper.title for paper in PAPERS.values() if paper.title not in text] == []


@pytest.mark.parametrize('text', [README, CONTRIBUTING], ids=['README', 'CONTRIBUTING'])
def test_links_lead_somewhere(text):
    links = [o for o in re.findall(r'\]\(([^)#\s]+)', text) if '://' not in o]
    assert links and [o for o in links if not (ROOT / o).exists()] == []


@pytest.mark.parametrize('text', [README, CONTRIBUTING], ids=['README', 'CONTRIBUTING'])
def test_commands_exist(text):
    "Every `freqnb ...` in the documents is a command, and its options are its own"
    from freqnb.cli import commands, parse

    lines = re.findall(r'(?:`|^|&& )(?:\.venv/bin/)?freqnb ([a-z][^`\n]*)', text, re.M)
    offered = commands()
    assert len(lines) >= 3 and {o.split()[0] for o in lines} <= set(offered)
    for line in lines:
        parse(offered[line.split()[0]].load(), line.split()[1:])


@pytest.mark.parametrize('text', [README, CONTRIBUTING], ids=['README', 'CONTRIBUTING'])
def test_modules_and_files_that_are_named_exist(text):
    named = set(re.findall(r'`((?:nbs|tests|freqnb|\.ci)/[\w./-]+)`', text))
    assert [o for o in named if not (ROOT / o).exists()] == []
