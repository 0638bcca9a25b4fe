"""The built site in a real browser: complete in itself, readable on a phone, alive without a kernel."""

import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from freqnb.pages import Page
from freqnb.papers import PAPERS
from freqnb.site import build_site, notebooks, serve_site, strip_number

ROOT = Path(__file__).parents[1]
PHONE = dict(width=390, height=844)
MATH_DONE = """() => !document.querySelector('script[src*=MathJax]')
    || (window.MathJax?.Hub?.queue.pending === 0 && !document.querySelector('.MathJax_Preview:not(:empty)')
        && document.querySelectorAll('script[type^="math/tex"]').length > 0)"""
COUNTS = """() => ({
    formulas: document.querySelectorAll('.math.inline, .math.display').length,
    typeset: document.querySelectorAll('.math.inline .MathJax, .math.display .MathJax').length,
    faults: document.querySelectorAll('.MathJax_Error, .merror, .mjx-merror').length,
    sliders: document.querySelectorAll('.freqnb-explorer input[type=range]:not(:disabled)').length,
    nameless: document.querySelectorAll('main img:not([alt]), main img[alt=""]').length})"""
OVERFLOW = """() => document.documentElement.scrollWidth - document.documentElement.clientWidth"""


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    "A clone as Windows makes it: a symbolic link is a text file with the path it leads to"
    folder = tmp_path_factory.mktemp('clone')
    for name in ('pyproject.toml', '_quarto.yml'):
        shutil.copy(ROOT / name, folder)
    for name in ('nbs', 'freqnb'):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns('_quarto.yml', '__pycache__')
        )
    (folder / 'nbs' / '_quarto.yml').write_text('../_quarto.yml')
    return folder


@pytest.fixture(scope='module')
def site(clone, tmp_path_factory):
    "The site, built once"
    pytest.importorskip('smalldocs')
    return build_site(clone, tmp_path_factory.mktemp('built') / 'site')


@pytest.fixture(scope='module')
def address(site):
    "Where the site is served"
    with serve_site(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture(scope='module')
def facts(site, address, open_tab):
    "What the browser finds on each page, at a desk's width and at a phone's"
    found = {}
    for file in sorted(site.rglob('*.html')):
        tab, name = open_tab(), file.relative_to(site).as_posix()
        tab.page.goto(address + name)
        tab.page.wait_for_function(MATH_DONE)
        seen = tab.page.evaluate(COUNTS) | dict(desk=tab.page.evaluate(OVERFLOW))
        tab.page.set_viewport_size(PHONE)
        seen |= dict(phone=tab.page.evaluate(OVERFLOW), outside=tab.outside, errors=tab.errors)
        found[name] = SimpleNamespace(**seen)
        tab.page.context.close()
    return found


def test_every_notebook_has_a_page_and_a_copy(site):
    for name in notebooks(ROOT / 'nbs'):
        page = Page((site / strip_number(name)).with_suffix('.html').read_text('utf-8'))
        assert any(o.endswith(f'notebooks/{name}') for o in page.links), name
        assert (site / 'notebooks' / name).read_bytes() == (ROOT / 'nbs' / name).read_bytes()


def test_every_paper_has_its_section(site):
    "The sidebar takes the papers from `freqnb.papers`, and each section holds links to its notebooks"
    html = (site / 'index.html').read_text('utf-8')
    links = Page(html).links
    for folder, paper in PAPERS.items():
        assert f'{paper.topic} ({paper.cite})' in html
        assert any(link.removeprefix('./').startswith(f'{folder}/') for link in links), folder


def test_exported_functions_are_documented(site):
    from freqnb._modidx import d

    pages = {o.relative_to(site).as_posix(): Page(o.read_text('utf-8')) for o in site.rglob('*.html')}
    for module in d['syms'].values():
        for name, (link, _) in module.items():
            page, _, anchor = link.partition('#')
            public = name.count('.') == 2 and not name.split('.')[2].startswith('_')
            assert anchor in pages[page].ids or not public, link


def test_pages_ask_for_nothing_outside(facts):
    assert {k: v.outside for k, v in facts.items() if v.outside} == {}


def test_pages_load_without_errors(facts):
    assert {k: v.errors for k, v in facts.items() if v.errors} == {}


def test_formulas_are_typeset(facts):
    assert {
        k: (v.typeset, v.formulas, v.faults) for k, v in facts.items() if v.typeset < v.formulas or v.faults
    } == {}
    assert sum(v.formulas for v in facts.values()) > 0


def test_pictures_have_descriptions(facts):
    assert {k: v.nameless for k, v in facts.items() if v.nameless} == {}


def test_nothing_overflows(facts):
    assert {k: (v.desk, v.phone) for k, v in facts.items() if v.desk > 0 or v.phone > 0} == {}


def test_sliders_move_pictures(facts, address, tab):
    pages = [k for k, v in facts.items() if v.sliders]
    assert pages, 'no page of the site has a slider'
    for name in pages:
        tab.page.goto(address + name)
        for box in tab.page.locator('.freqnb-explorer:has(input[type=range]:not(:disabled))').all():
            check_explorer(tab.page, box, name)
    assert tab.errors == []


def check_explorer(page, box, name):
    "One step of the keyboard and one drag each change the picture, and the way back restores it"
    slider, picture = box.locator('input[type=range]').first, box.locator('img').first
    slider.scroll_into_view_if_needed()
    start = picture.get_attribute('src')
    low, high, value = (float(slider.evaluate(f'o => o.{k}')) for k in ('min', 'max', 'value'))
    there, back = ('ArrowRight', 'ArrowLeft') if value < high else ('ArrowLeft', 'ArrowRight')
    slider.press(there)
    assert picture.get_attribute('src') != start, f'{name}: {there} changed nothing'
    slider.press(back)
    assert picture.get_attribute('src') == start, f'{name}: {back} did not restore the picture'
    area = slider.bounding_box()
    place = area['x'] + area['width'] * (value - low) / (high - low)
    target = area['x'] + area['width'] * (0.05 if value > (low + high) / 2 else 0.95)
    page.mouse.move(
        min(max(place, area['x'] + 6), area['x'] + area['width'] - 6), area['y'] + area['height'] / 2
    )
    page.mouse.down()
    page.mouse.move(target, area['y'] + area['height'] / 2, steps=8)
    page.mouse.up()
    assert picture.get_attribute('src') != start, f'{name}: dragging changed nothing'


def brightness(page):
    "Mean of red, green and blue behind the text"
    color = page.evaluate('() => getComputedStyle(document.body).backgroundColor')
    return sum(float(o) for o in re.findall(r'[\d.]+', color)[:3]) / 3


def test_dark_and_light(address, tab):
    tab.page.goto(address + 'index.html')
    assert brightness(tab.page) > 200
    tab.page.locator('.quarto-color-scheme-toggle:visible').first.click()
    tab.page.wait_for_function("() => document.documentElement.classList.contains('quarto-dark')")
    assert brightness(tab.page) < 80
    tab.page.reload()
    assert brightness(tab.page) < 80, 'the choice is remembered'
    tab.page.locator('.quarto-color-scheme-toggle:visible').first.click()
    assert brightness(tab.page) > 200


def test_search_finds_a_function(address, tab):
    tab.page.goto(address + 'index.html')
    tab.page.locator('#quarto-search input').fill('split_bands')
    hit = tab.page.locator('.search-result', has_text='split_bands').first
    hit.click()
    tab.page.wait_for_url('**/api/spectrum.html*')
    assert tab.page.locator('[id="split_bands"]').count() == 1
    assert tab.errors == [] and tab.outside == []
