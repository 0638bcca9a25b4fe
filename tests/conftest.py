"""What several tests share: one thread a worker, a headless Chromium, and pages that remember what they fetched."""

import os
import shutil
import signal
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported: workers run side by side
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background, where commands would ignore Ctrl-C as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHROMIUM_FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-component-update',
    '--disable-background-networking',
    '--disable-sync',
]


LONGEST = ['test_reproduce', 'test_site', 'test_lens', 'test_notebooks', 'test_resume', 'test_manners']


def pytest_collection_modifyitems(items):
    "The files that take longest go first, so that no worker is left with one of them at the end"
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.module.__name__, len(LONGEST)))


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
