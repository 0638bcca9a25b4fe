"""An Explorer in the real JupyterLab: a drag of its slider shows the same picture as the page without a kernel."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

CELLS = [
    """from freqnb.spectrum import low_pass
from freqnb.widgets import Explorer
import torch""",
    """picture = torch.eye(32).repeat(1, 3, 1, 1)
def below(radius): return low_pass(picture, radius)[0].clamp(0, 1)""",
    """Explorer(below, radius=range(1, 17))""",
]

FLAGS = [
    '--no-browser',
    '--allow-root',
    '--ip=127.0.0.1',
    '--IdentityProvider.token=',
    '--expose-app-in-browser',
]


def write_notebook(path):
    "A notebook as a newcomer would write it"
    empty = dict(cell_type='code', metadata={}, outputs=[], execution_count=None)
    cells = [empty | dict(id=f'cell-{i}', source=o) for i, o in enumerate(CELLS)]
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    path.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))


def free_port():
    "A port that nothing listens on"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(ready, seconds, what):
    "Ask until the answer is yes"
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f'{what} was not ready after {seconds} seconds'
        time.sleep(0.1)


@contextmanager
def running_lab(folder, port):
    "JupyterLab on a folder, with settings of its own, until the block ends"
    names = ['CONFIG', 'DATA', 'RUNTIME']
    own = {f'JUPYTER_{o}_DIR': str(folder / o.lower()) for o in names}
    env = os.environ | own | dict(IPYTHONDIR=str(folder / 'ipython'), FREQNB_STATIC='0')
    command = [sys.executable, '-m', 'jupyterlab', *FLAGS, f'--port={port}']
    with open(folder / 'lab.log', 'w') as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab on a folder with one notebook"
    pytest.importorskip('jupyterlab')
    write_notebook(tmp_path / 'waves.ipynb')
    port = free_port()
    url = f'http://127.0.0.1:{port}/'
    with running_lab(tmp_path, port) as process:

        def answers():
            assert process.poll() is None, (tmp_path / 'lab.log').read_text()
            try:
                return urllib.request.urlopen(url + 'api/status', timeout=1).status == 200
            except OSError:
                return False

        wait_for(answers, 60, 'JupyterLab')
        yield url


IDLE = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle'}"""
BYTES = """async o => {
    const bytes = new Uint8Array(await (await fetch(o.src)).arrayBuffer());
    return btoa(Array.from(bytes, b => String.fromCharCode(b)).join(''))}"""


def drag(page, handle, dx):
    "Drag a slider's handle to the right"
    box = handle.bounding_box()
    x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y, steps=10)
    page.mouse.up()


def test_slider_in_jupyterlab(lab, tab):
    from freqnb.widgets import Explorer

    page = tab.page
    page.goto(lab + 'lab/tree/waves.ipynb?reset')
    page.wait_for_function(IDLE, timeout=60_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    faults = ':text("javascript error"), [data-mime-type$=stderr], [data-mime-type$=error]'
    outcome = page.locator(f'.jp-OutputArea-output :is(img, {faults})').first
    outcome.wait_for(timeout=60_000)
    assert outcome.evaluate('o => o.tagName') == 'IMG', outcome.inner_text()
    picture = page.locator('.jp-OutputArea-output img').first
    first = picture.get_attribute('src')
    drag(page, page.locator('.noUi-handle').first, 60)
    page.wait_for_function('([o, src]) => o.src !== src', arg=[picture.element_handle(), first])
    page.wait_for_function(IDLE)
    page.wait_for_timeout(300)
    scope = {}
    for cell in CELLS[:2]:
        exec(cell, scope)
    radius = int(page.locator('.widget-readout').first.inner_text())
    assert radius > 1, 'the drag did not move the slider'
    static = Explorer(scope['below'], radius=[radius]).frame(0)
    assert base64.b64decode(picture.evaluate(BYTES)) == static, 'the live picture is not the static one'
    assert tab.outside == []
