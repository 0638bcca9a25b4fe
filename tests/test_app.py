"""A notebook as an application: Voila with our template asks for nothing outside, and its widget is alive."""

import os
import subprocess

import pytest
from test_lab import announced, drag, free_port, wait_for, write_notebook

from freqnb.app import voila_command, with_template


@pytest.fixture
def app(tmp_path):
    "The address of a Voila on one notebook"
    pytest.importorskip('voila')
    write_notebook(tmp_path / 'waves.ipynb')
    command = voila_command(str(tmp_path / 'waves.ipynb'), free_port(), browser=False)
    own = dict(IPYTHONDIR=str(tmp_path / 'ipython'), JUPYTER_RUNTIME_DIR=str(tmp_path / 'runtime'))
    path = tmp_path / 'voila.log'
    with open(path, 'w') as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=with_template(os.environ | own), stdout=log, stderr=log)
        try:
            yield wait_for(lambda: announced(process, path), 240, path)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_voila_asks_for_nothing_outside(app, tab):
    tab.page.goto(app, timeout=240_000)
    picture = tab.page.locator('.freqnb-live img').first
    picture.wait_for(timeout=240_000)
    tab.page.wait_for_load_state('networkidle')  # widgets are drawn before they are connected to their kernel
    before = picture.get_attribute('src')
    drag(tab.page, tab.page.locator('.noUi-handle').first, 60)
    tab.page.wait_for_function('([o, src]) => o.src !== src', arg=[picture.element_handle(), before])
    assert tab.outside == []
    assert 'Explorer(below' not in tab.page.locator('body').inner_text(), 'the code is not shown'
