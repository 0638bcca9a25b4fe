"""What several tests share: one thread a worker, a headless Chromium, and pages that remember what they fetched."""

import os
import shutil
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported: workers run side by side

CHROMIUM_FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-component-update',
    '--disable-background-networking',
    '--disable-sync',
]


def shares_a_fixture(item):
    "Whether a test needs what is made once for its module"
    definitions = item._fixtureinfo.name2fixturedefs.values()
    return any(each.scope == 'module' for found in definitions for each in found)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "Tests that share a fixture of their module go to one worker; the papers' notebooks, the longest of all, go first"
    for item in items:
        if shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
    items.sort(key=lambda item: 'reproduced' not in item.fixturenames)


@pytest.fixture(scope='module')
def chromium():
    "A headless Chromium; closed after each module, so that its event loop meets no other test's"
    path = next(filter(None, map(shutil.which, ['chromium', 'chromium-browser', 'google-chrome'])), None)
    if path is None:
        pytest.skip('no chromium in PATH')
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def open_tab(chromium):
    "A function that opens a page in a new profile and notes requests that leave this machine and console errors"

    def open_tab():
        page = chromium.new_context(viewport=dict(width=1280, height=900)).new_page()
        tab = SimpleNamespace(page=page, outside=[], errors=[])
        page.on(
            'request', lambda o: urlsplit(o.url).hostname in (None, '127.0.0.1') or tab.outside.append(o.url)
        )
        page.on(
            'console',
            lambda o: o.type == 'error' and tab.errors.append(f'{o.text} {o.location.get("url", "")}'),
        )
        page.on('pageerror', lambda o: tab.errors.append(str(o)))
        return tab

    return open_tab


@pytest.fixture
def tab(open_tab):
    "One such page, closed after the test"
    tab = open_tab()
    yield tab
    tab.page.context.close()
