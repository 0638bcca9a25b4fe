"""An Explorer in the real JupyterLab: live, as it was saved, and when the kernel it lived in is gone."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from freqnb.widgets import Explorer

pytestmark = pytest.mark.long

CELLS = [
    """from freqnb.spectrum import low_pass
from freqnb.widgets import Explorer
import torch""",
    """picture = torch.eye(32).repeat(1, 3, 1, 1)
def below(radius): return low_pass(picture, radius)[0].clamp(0, 1)""",
    """Explorer(below, radius=range(1, 17))""",
    """Explorer(below, radius=[k / 20 for k in range(20, 321)])""",
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


def wait_for(ready, seconds, log):
    "Ask until the answer is yes, which is returned"
    end = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < end, f'not ready after {seconds} seconds, and said: {log.read_text("utf-8")}'
        time.sleep(0.1)
    return answer


def announced(process, log):
    "The address that a server says it has, once it says so"
    said = log.read_text('utf-8')
    assert process.poll() is None, said
    found = re.search(r'http://127\.0\.0\.1:\d+/', said)
    return found and found[0]


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
    log = tmp_path / 'lab.log'
    with running_lab(tmp_path, free_port()) as process:
        yield wait_for(lambda: announced(process, log), 60, log)


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


def scope():
    "What the notebook's first cells define"
    found = {}
    for cell in CELLS[:2]:
        exec(cell, found)
    return found


def frame(radius):
    "The picture at a radius, drawn here"
    from freqnb.widgets import Explorer

    return Explorer(scope()['below'], radius=[radius]).frame(0)


def open_notebook(lab, page):
    "Open it with a kernel that is ready"
    page.goto(lab + 'lab/tree/waves.ipynb?reset')
    page.wait_for_function(IDLE, timeout=60_000)


def run_all(page):
    "Run every cell until both explorers are there"
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    faults = ':text("javascript error"), [data-mime-type$=stderr], [data-mime-type$=error]'
    outcome = page.locator(f'.jp-OutputArea-output :is(.freqnb-live img, {faults})').first
    outcome.wait_for(timeout=60_000)
    assert outcome.evaluate('o => o.tagName') == 'IMG', outcome.inner_text()


def test_the_page_works_with_a_kernel(lab, tab):
    page = tab.page
    open_notebook(lab, page)
    run_all(page)
    picture = page.locator('.freqnb-explorer img')
    slider = page.locator('.freqnb-explorer input[type=range]')
    assert slider.is_enabled()
    slider.evaluate("o => {o.value = 11; o.dispatchEvent(new Event('input'))}")
    assert base64.b64decode(picture.evaluate(BYTES)) == frame(12)
    assert tab.outside == []


def test_a_live_slider_and_what_is_left_of_it(lab, tab):
    "It redraws while its kernel lives; saved, and opened with another kernel, a still picture is there"
    page = tab.page
    open_notebook(lab, page)
    run_all(page)
    live, still = page.locator('.freqnb-live img').first, page.locator('.freqnb-still img')
    still.wait_for(state='hidden')
    first = live.get_attribute('src')
    drag(page, page.locator('.noUi-handle').first, 60)
    page.wait_for_function('([o, src]) => o.src !== src', arg=[live.element_handle(), first])
    page.wait_for_function(IDLE)
    page.wait_for_timeout(300)
    radius = float(page.locator('.widget-readout').first.inner_text())
    assert radius != 8.5, 'the drag did not move the slider'
    assert base64.b64decode(live.evaluate(BYTES)) == frame(radius), 'the live picture is not the static one'

    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)
    page.evaluate(
        'window.jupyterapp.serviceManager.sessions.shutdownAll()'
    )  # the reader comes back another day
    page.wait_for_timeout(1000)
    open_notebook(lab, page)
    still.wait_for(state='visible')
    page.wait_for_timeout(3000)
    assert still.is_visible() and base64.b64decode(still.evaluate(BYTES)) == frame(8.5)
    assert page.get_by_text('model not found').locator('visible=true').count() == 0
    assert page.locator('.freqnb-explorer input[type=range]').is_enabled(), 'the page works as it was saved'
    assert tab.outside == []


def test_a_film_plays_to_its_end_and_pauses(tab):
    "The button moves the slider step by step; a second press stops it, and at the end it stops by itself"

    def shade(epoch):
        return torch.full((8, 8), epoch / 6)

    film = Explorer(shade, epoch=range(1, 7), play='epoch', alt='A square that grows brighter')
    page = tab.page
    page.set_content(film.html())
    slider, button = page.locator('input[type=range]'), page.get_by_role('button')
    assert slider.input_value() == '2'
    first = page.locator('img').get_attribute('src')
    button.press('Enter')
    assert button.inner_text() == 'Pause'
    page.wait_for_function("document.querySelector('input').value === '3'")
    button.click()
    page.wait_for_timeout(1200)
    assert slider.input_value() == '3' and page.locator('img').get_attribute('src') != first
    button.click()
    page.wait_for_function("document.querySelector('input').value === '5'")
    assert button.inner_text() == 'Play' and page.locator('output').inner_text() == '6'
    button.click()
    page.wait_for_function("document.querySelector('input').value === '0'")
    assert tab.errors == []
