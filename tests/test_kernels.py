"""Kernels that are copies of one process do what new processes do."""

import json
import os
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != 'linux', reason='kernels are copied on Linux only'),
]

# Runs two notebooks of a folder; what follows are variables for the second kernel.
SCRIPT = """
import sys
from pathlib import Path
from freqnb.reproduce import run_notebooks
folder, more = Path(sys.argv[1]), dict(o.split('=') for o in sys.argv[2:])
for name, variables in dict(one={}, two=more).items():
    path = folder / f'{name}.ipynb'
    run_notebooks({path: path}, dict(FREQNB_SCALE='smoke') | variables)
"""
FACTS = """import json, multiprocessing, os, sys
loaded = 'torch' in sys.modules
import torch
print(json.dumps(dict(
    pid=os.getpid(), parent=os.getppid(), loaded=loaded, threads=torch.get_num_threads(), folder=os.getcwd(),
    scale=os.environ['FREQNB_SCALE'], starts=multiprocessing.get_start_method(), main=__name__)))"""
FIGURE = 'import matplotlib.pyplot as plt\nplt.plot([1, 2]);'


def facts_of(folder, *variables, **own):
    "What two notebooks, run by a process of their own, say of their kernels"
    cells = [nbformat.v4.new_code_cell(source) for source in (FACTS, FIGURE)]
    for name in ('one', 'two'):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f'{name}.ipynb')
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(folder), *variables],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and 'leaked' not in done.stderr, done.stderr
    found = []
    for name in ('one', 'two'):
        facts, figure = nbformat.read(folder / f'{name}.ipynb', 4).cells
        assert 'image/png' in figure.outputs[-1].data, 'the figure is shown'
        found.append(json.loads(facts.outputs[0].text))
    return found


def test_kernels_are_copies_of_one_process(tmp_path):
    one, two = facts_of(tmp_path)
    assert one['parent'] == two['parent'] and one['pid'] != two['pid']
    for facts in (one, two):
        assert facts['loaded'] and facts['threads'] == 1 and facts['main'] == '__main__'
        assert facts['folder'] == str(tmp_path) and facts['scale'] == 'smoke'


def test_another_variable_makes_a_new_process(tmp_path):
    "Libraries that were imported already would not have seen it"
    one, two = facts_of(tmp_path, 'HOLIDAY=1')
    assert one['loaded'] and not two['loaded'] and one['parent'] != two['parent']
    assert two['threads'] == 1


def test_what_this_process_knows_a_copy_knows(tmp_path):
    one, two = facts_of(tmp_path, OMP_NUM_THREADS='2')
    plain = [sys.executable, '-c', 'import multiprocessing as m; print(m.get_start_method())']
    starts = subprocess.run(plain, capture_output=True, text=True).stdout.strip()
    for facts in (one, two):
        assert facts['loaded'] and facts['threads'] == 2 and facts['starts'] == starts


ENDLESS = """
from pathlib import Path
from freqnb.reproduce import run_notebooks
path = Path('endless.ipynb')
run_notebooks({path: path})
"""


def test_kernels_end_with_who_was_killed(tmp_path):
    "Neither the server nor a kernel outlives a process that had no time to say so"
    source = "import time\nopen('runs', 'w').close()\ntime.sleep(600)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / 'endless.ipynb')
    process = psutil.Popen([sys.executable, '-c', ENDLESS], cwd=tmp_path, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / 'runs').exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)

    family = process.children(recursive=True)
    process.kill()
    process.wait()
    assert len(family) >= 2 and psutil.wait_procs(family, timeout=20)[1] == []
