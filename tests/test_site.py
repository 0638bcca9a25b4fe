"""The built site in a real browser: complete in itself, open to everybody, alive without a kernel or a server."""

import json
import re
import shutil
import threading
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from freqnb.board import board_records
from freqnb.links import read_rooms, uses_of
from freqnb.pages import Page
from freqnb.papers import PAPERS, notebooks_of
from freqnb.site import build_site, notebooks, serve_site, strip_number, zip_site

ROOT = Path(__file__).parents[1]
DESK = dict(width=1400, height=900)
PHONE = dict(width=360, height=740)
MEGABYTES = 20
FRONT_BYTES, FRONT_HEIGHT = 700_000, 2400
MATH_DONE = """() => !document.querySelector('script[src*=MathJax]')
    || (window.MathJax?.Hub?.queue.pending === 0 && !document.querySelector('.MathJax_Preview:not(:empty)')
        && document.querySelectorAll('script[type^="math/tex"]').length > 0)"""
COUNTS = """() => ({
    opens: [...document.querySelectorAll('.in-short')].map(
        o => (o.getBoundingClientRect().bottom + scrollY) / document.documentElement.scrollHeight),
    formulas: document.querySelectorAll('.math.inline, .math.display').length,
    typeset: document.querySelectorAll('.math.inline .MathJax, .math.display .MathJax').length,
    faults: document.querySelectorAll('.MathJax_Error, .merror, .mjx-merror').length,
    sliders: document.querySelectorAll('.freqnb-explorer input[type=range]:not(:disabled)').length,
    nameless: document.querySelectorAll('main img:not([alt]), main img[alt=""]:not([width="1"])').length})"""
OVERFLOW = """() => {
    const wider = (o) => {
        if (!o.clientWidth || o.scrollWidth <= o.clientWidth + 1) return false;
        const {overflowX, display} = getComputedStyle(o);
        const spills = overflowX === 'visible' && display !== 'inline';
        return spills && !o.closest('.MathJax, .MathJax_Display, svg, .unseen, thead')};
    const page = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const inside = [...document.querySelectorAll('main *')].filter(wider).map(o => o.outerHTML.slice(0, 120));
    return [...(page > 0 ? [`page by ${page}`] : []), ...inside].slice(0, 3)}"""
# Of what repeats itself, axe sees the first: rows, links of a list, lines of code, formulas
FIRST_OF_MANY = """() => {
    const beyond = (rule, count) => [...document.querySelectorAll(rule)].slice(count);
    const rows = document.querySelectorAll('tbody tr:nth-child(n+9), nav li:nth-child(n+9), pre span:nth-child(n+9)');
    [...beyond('main pre', 6), ...beyond('main .MathJax', 4), ...rows].forEach(o => o.remove())}"""
AXE = """async (rules) => {
    const run = rules.length ? {runOnly: {type: 'rule', values: rules}} : {rules: {'target-size': {enabled: true}}};
    const found = await axe.run(document, {...run, resultTypes: ['violations'], preload: false});
    const serious = found.violations.filter(o => ['serious', 'critical'].includes(o.impact));
    return serious.map(o => `${o.id}: ${o.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' | ')}`)}"""
DRAWN = '() => new Promise(o => requestAnimationFrame(() => requestAnimationFrame(o)))'
SEEN = 'o => { const {top, bottom} = o.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight }'
LOOKS = ['color-contrast', 'link-in-text-block', 'target-size', 'scrollable-region-focusable']


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
def axe():
    "The script of axe-core, which looks for what keeps people out of a page"
    spec = find_spec('axe_playwright_python')
    if spec is None:
        pytest.skip("axe-core is missing: pip install -e '.[dev]'")
    return (Path(spec.origin).parent / 'axe.min.js').read_text('utf-8')


@pytest.fixture(scope='module')
def facts(site, address, open_tab, axe):
    """What the browser finds on each page, at a desk's width and at a phone's, in light and in dark mode

    A browser remembers the mode: every other page is seen in dark mode at a desk, and in light mode on a phone.
    """
    found, tab = {}, open_tab()
    page = tab.page

    def show(size):
        page.set_viewport_size(size)
        page.evaluate(DRAWN)

    for file in sorted(site.rglob('*.html')):
        name, tab.outside, tab.errors = file.relative_to(site).as_posix(), [], []
        page.set_viewport_size(DESK)
        page.goto(address + name)
        page.wait_for_function(MATH_DONE)
        seen = page.evaluate(COUNTS) | dict(desk=page.evaluate(OVERFLOW))
        show(PHONE)
        seen |= dict(phone=page.evaluate(OVERFLOW))
        page.evaluate(FIRST_OF_MANY)
        page.evaluate(axe)
        show(DESK)
        seen |= dict(rules=page.evaluate(AXE, []))
        page.evaluate("document.querySelector('.scheme').click()")
        show(PHONE)
        seen |= dict(looks=page.evaluate(AXE, LOOKS))
        found[name] = SimpleNamespace(**seen, outside=tab.outside, errors=tab.errors)
    page.context.close()
    return found


def test_every_notebook_has_a_page_and_a_copy(site):
    for name in notebooks(ROOT / 'nbs'):
        page = Page((site / strip_number(name)).with_suffix('.html').read_text('utf-8'))
        assert any(o.endswith(f'notebooks/{name}') for o in page.links), name
        copy, original = (json.loads((o / name).read_text('utf-8')) for o in (site / 'notebooks', ROOT / 'nbs'))
        sources = [[(o['id'], o['source']) for o in notebook['cells']] for notebook in (copy, original)]
        assert sources[0] == sources[1]
        assert not any(o.get('outputs') for o in copy['cells']), 'outputs are on the page'


def test_pages_say_nothing_of_the_machine_that_built_them(site):
    for page in site.rglob('*.html'):
        found = re.findall(rf'{re.escape(str(ROOT))}|\b0x[0-9a-f]{{9,}}', page.read_text('utf-8'))
        assert not found, (page, found)


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


PAPER_PAGES = {
    path: strip_number(f'{folder}/{path.name}').replace('.ipynb', '.html')
    for folder in PAPERS
    for path in notebooks_of(folder)
}


def test_pages_and_library_lead_to_each_other(site):
    "Whatever a paper's page imports; the links to single entries are among those that `check_site` follows"
    rooms = read_rooms(ROOT / 'nbs')
    links = {o.relative_to(site).as_posix(): set(Page(o.read_text('utf-8')).links) for o in site.rglob('*.html')}
    for path, page in PAPER_PAGES.items():
        used = uses_of(path, rooms)
        assert len(used) >= 5 and {f'../api/{room}.html' for room in used} <= links[page]
        assert all(f'../{page}' in links[f'api/{room}.html'] for room in used)
    assert '../api/spectrum.html#split_bands' in links['high_frequency/split.html']


@pytest.mark.long
def test_the_finding_of_a_paper_page_is_near_its_top(facts):
    "In short ends above 15% of the page's height, code and folds closed"
    places = {page: facts[page].opens for page in PAPER_PAGES.values()}
    assert {page: place for page, place in places.items() if len(place) != 1 or place[0] >= 0.15} == {}


@pytest.mark.long
def test_pages_ask_for_nothing_outside(facts):
    assert {k: v.outside for k, v in facts.items() if v.outside} == {}


@pytest.mark.long
def test_pages_load_without_errors(facts):
    assert {k: v.errors for k, v in facts.items() if v.errors} == {}


@pytest.mark.long
def test_formulas_are_typeset(facts):
    assert {
        k: (v.typeset, v.formulas, v.faults) for k, v in facts.items() if v.typeset < v.formulas or v.faults
    } == {}
    assert sum(v.formulas for v in facts.values()) > 0


@pytest.mark.long
def test_pictures_have_descriptions(facts):
    assert {k: v.nameless for k, v in facts.items() if v.nameless} == {}


@pytest.mark.long
def test_nothing_is_wider_than_its_column(facts):
    assert {k: (v.desk, v.phone) for k, v in facts.items() if v.desk or v.phone} == {}


@pytest.mark.long
def test_axe_finds_nothing_serious(facts):
    "All rules at a desk, and those about looks again on a phone, in the other mode"
    assert {k: (v.rules, v.looks) for k, v in facts.items() if v.rules or v.looks} == {}


def test_what_axe_and_the_widths_would_find(address, tab, axe):
    "Were pale words, a nameless field, a small button and a wide box not seen, the tests above would pass for nothing"
    tab.page.set_viewport_size(PHONE)
    tab.page.goto(address + 'glossary.html')
    tab.page.evaluate(axe)
    small = 'style="width:9px;height:9px;padding:0"'
    bad = f'<p style="color:#999;background:#fff">pale</p><input><button {small}>a</button><button {small}>b</button>'
    bad += '<div style="width:900px;height:9px">wide</div>'
    tab.page.evaluate("bad => document.querySelector('main').insertAdjacentHTML('afterbegin', bad)", bad)
    found = {o.partition(':')[0] for o in tab.page.evaluate(AXE, [])}
    assert {'color-contrast', 'label', 'target-size'} <= found
    assert tab.page.evaluate(OVERFLOW)


@pytest.mark.long
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


def test_all_code_of_a_page_is_shown_and_hidden(address, tab):
    "The code of the answer in short is no part of it"
    tab.page.goto(address + 'high_frequency/split.html')
    folds, shown = (tab.page.locator(f'main details.code-fold{o}') for o in ('', '[open]'))
    tab.page.get_by_role('button', name='Show all code').click()
    assert shown.count() == folds.count() > 10
    assert 'in_short(' not in tab.page.locator('main').inner_text()
    tab.page.get_by_role('button', name='Hide all code').click()
    assert shown.count() == 0


@pytest.mark.parametrize('asks', [True, False])
def test_a_guess_covers_its_answer(address, tab, asks):
    "The answer in short appears once the reader has guessed, or has asked for it; a guess that is kept leaves it open"
    page = tab.page
    page.goto(address + 'adversarial_frequency/low_pass.html')
    box = page.locator('.freqnb-guess')
    told = page.locator(f'.in-short li[data-key="{box.get_attribute("data-key")}"]')
    assert told.is_hidden() and page.locator('.in-short li:visible').count() > 1
    if asks:
        page.get_by_role('button', name='Show the answer').click()
    else:
        page.get_by_role('link', name=box.locator('legend').inner_text()).click()
        box.locator('input').first.check()
    assert told.is_visible() and page.get_by_role('button', name='Show the answer').count() == 0
    page.reload()
    assert told.is_visible() == (not asks)


def brightness(page):
    "Mean of red, green and blue behind the text"
    color = page.evaluate('() => getComputedStyle(document.body).backgroundColor')
    return sum(float(o) for o in re.findall(r'[\d.]+', color)[:3]) / 3


def test_dark_and_light(address, tab):
    tab.page.goto(address + 'index.html')
    assert brightness(tab.page) > 200
    button = tab.page.get_by_role('button', name='Dark mode')
    assert button.get_attribute('aria-pressed') == 'false'
    button.click()
    assert brightness(tab.page) < 80 and button.get_attribute('aria-pressed') == 'true'
    tab.page.reload()
    assert brightness(tab.page) < 80, 'the choice is remembered'
    button.click()
    assert brightness(tab.page) > 200


def test_the_skip_link_comes_first(address, tab):
    tab.page.goto(address + 'index.html')
    tab.page.keyboard.press('Tab')
    assert tab.page.evaluate('document.activeElement.className') == 'skip'
    tab.page.keyboard.press('Enter')
    assert tab.page.evaluate('document.activeElement.id') == 'text'


def test_pages_load_one_style_and_mathematics_where_there_is_some(site):
    for file in site.rglob('*.html'):
        assets = Page(file.read_text('utf-8')).assets
        styles = [o for o in assets if o.endswith('.css') and 'site_libs/lens/' not in o]
        assert len(styles) == 1, file
        formulas = '<span class="math ' in file.read_text('utf-8')
        assert any('MathJax' in o for o in assets) == formulas, file


def search_for(page, words):
    "What the search finds: the addresses, best first"
    page.get_by_role('searchbox', name='Search').fill(words)
    page.locator('.hits li').first.wait_for()
    return [link.get_attribute('href') for link in page.locator('.hits a').all()]


def test_search_finds_a_function(address, tab):
    tab.page.goto(address + 'index.html')
    assert search_for(tab.page, 'split_bands')[0] == 'api/spectrum.html#split_bands'
    tab.page.keyboard.press('ArrowDown')
    tab.page.keyboard.press('Enter')
    tab.page.wait_for_url('**/api/spectrum.html*')
    assert tab.page.locator('[id="split_bands"]').count() == 1
    assert tab.errors == [] and tab.outside == []


@pytest.mark.parametrize('words', ['batch normalization', 'robust accuracy', 'spectrum', 'mixup'])
def test_search_puts_what_is_to_be_read_before_the_library(address, tab, words):
    tab.page.goto(address + 'api/spectrum.html')
    found = search_for(tab.page, words)
    assert not found[0].removeprefix('../').startswith('api/'), found


def test_the_page_on_ones_own_model_is_near(address, tab):
    "In the sidebar above the papers, on the front page, and found by what it is about"
    tab.page.goto(address + 'index.html')
    links = [link.get_attribute('href') for link in tab.page.locator('nav.pages a').all()]
    assert links.index('how_to.html') < 3
    assert tab.page.locator('main a[href="how_to.html"]').count() == 1
    for words in ('timm', 'Lightning', 'ONNX file', 'own attack'):
        assert search_for(tab.page, words)[0].startswith('how_to.html'), words


def test_the_site_works_from_a_disk(site, tmp_path, tab):
    "Unpacked from its zip, opened as files: pages, formulas, a slider, the search, the scoreboard"
    with zipfile.ZipFile(zip_site(site)) as packed:
        packed.extractall(tmp_path)
    (home,) = tmp_path.glob('*/index.html')
    page = tab.page
    page.goto(home.as_uri())
    found = search_for(page, 'split_bands')
    page.locator('.hits a').first.click()
    page.wait_for_url('**/api/spectrum.html*')
    page.goto((home.parent / 'high_frequency' / 'split.html').as_uri())
    page.wait_for_function(MATH_DONE)
    assert page.evaluate(COUNTS)['sliders'] and found
    page.goto((home.parent / 'scoreboard.html').as_uri())
    page.get_by_label('paper', exact=True).select_option(index=1)
    assert tab.errors == []


def test_the_front_page_is_light(address, tab):
    "All that it loads until the network answers, as it comes over the wire; and two screens and a half in height"
    page, sizes = tab.page, {}
    page.set_viewport_size(DESK)
    network = page.context.new_cdp_session(page)
    network.on('Network.loadingFinished', lambda found: sizes.update({found['requestId']: found['encodedDataLength']}))
    network.send('Network.enable')
    page.goto(address + 'index.html')
    page.evaluate('freqnb.ready')
    asked = "freqnb.answer('natural', new Array(784).fill(0.5)).then(() => performance.now())"
    print(f'first answer after {page.evaluate(asked):.0f} ms; {sum(sizes.values()):,} bytes')
    page.get_by_text('reads the whole image as').wait_for()
    assert len(sizes) >= 7 and 100_000 < sum(sizes.values()) <= FRONT_BYTES
    assert page.evaluate('document.documentElement.scrollHeight') <= FRONT_HEIGHT


def test_the_site_is_small(site):
    assert sum(o.stat().st_size for o in site.rglob('*') if o.is_file()) < MEGABYTES * 1e6


def board(page):
    "The rows of the scoreboard that are shown"
    return page.locator('#board tbody tr:visible')


def values(page, key):
    "What the rows that are shown say of one thing"
    return page.eval_on_selector_all(
        '#board tbody tr:not([hidden])', '(rows, key) => rows.map(o => o.dataset[key])', key
    )


def test_the_scoreboard_shows_every_claim_of_the_records(site, address, tab):
    "Also without scripts; each leads to a cell"
    claims = [claim.says for record in board_records(ROOT / 'nbs' / 'records') for claim in record.claims]
    html = (site / 'scoreboard.html').read_text('utf-8')
    rows = re.findall(r'<tr data-.*?</tr>', html, re.S)
    assert len(rows) == len(claims) > 0
    links = [Page(row).links[0] for row in rows]
    assert [o for o in links if not re.search(r'\.html#cell-\d+$', o)] == []
    page = tab.page.context.browser.new_context(java_script_enabled=False).new_page()
    page.goto(address + 'scoreboard.html')
    assert board(page).count() == len(claims) and not page.locator('.filters').is_visible()
    page.context.close()


@pytest.mark.parametrize('name', ['paper', 'verdict', 'setting', 'who says so'])
def test_the_scoreboard_filters(address, tab, name):
    "By each of its lists; the address keeps what was chosen"
    tab.page.goto(address + 'scoreboard.html')
    everything = board(tab.page).count()
    choice = tab.page.get_by_label(name, exact=True)
    key = choice.get_attribute('name')
    value = choice.locator('option').nth(1).inner_text()
    choice.select_option(value)
    shown = values(tab.page, key)
    assert set(shown) == {value} and len(shown) < everything
    assert tab.page.get_by_role('status').last.inner_text() == f'{len(shown)} of {everything} claims'
    tab.page.reload()
    assert board(tab.page).count() == len(shown)


def test_a_claim_of_the_scoreboard_leads_to_its_words(address, tab):
    "In the table of claims, below the code that has them, too; the cell is long before its last row"
    tab.page.goto(address + 'scoreboard.html?words=older+networks+narrower')
    (says,) = {link.inner_text() for link in board(tab.page).locator('.says a').all()}
    board(tab.page).locator('.says a').first.click()
    row = tab.page.locator('td', has_text=f'{says} (').first
    row.wait_for()
    assert '/training_heuristics.html' in tab.page.url
    tab.page.wait_for_function(SEEN, arg=row.element_handle(), timeout=20_000)


def test_the_scoreboard_sorts(address, tab):
    "By each heading that is a button, one way and the other"
    tab.page.goto(address + 'scoreboard.html')
    for head in tab.page.locator('#board th[data-key]').all():
        key = head.get_attribute('data-key')
        head.get_by_role('button').click()
        up = values(tab.page, key)
        head.get_by_role('button').click()
        down = values(tab.page, key)
        assert down == up[::-1] and len(set(up)) > 1
        if key in ('effect', 'n'):
            assert [float(o) for o in up] == sorted(float(o) for o in up)
    assert tab.errors == []


def test_on_a_phone_a_verdict_comes_first(address, tab):
    tab.page.set_viewport_size(PHONE)
    tab.page.goto(address + 'scoreboard.html')
    row = board(tab.page).first
    tops = {kind: row.locator(kind).bounding_box()['y'] for kind in ('.verdict', '.says', '.forest')}
    assert tops['.verdict'] < tops['.says'] < tops['.forest']


def test_a_term_says_what_it_means(address, tab):
    "To the mouse and to the keyboard; Escape puts it away; without scripts it is a link to the glossary"
    tab.page.goto(address + 'high_frequency/split.html')
    term = tab.page.locator('a.term').first
    means = term.get_attribute('data-means')
    tip = tab.page.get_by_role('tooltip')
    for begin in (term.hover, term.focus):
        begin()
        assert tip.inner_text() == means and term.get_attribute('aria-describedby') == tip.get_attribute('id')
        tab.page.keyboard.press('Escape')
        assert tip.count() == 0
    term.click()
    place = tab.page.locator(f'[id="{tab.page.url.partition("#")[2]}"]')
    assert '/glossary.html#' in tab.page.url and means[:30] in place.inner_text()


def test_without_scripts_a_page_is_whole(address, tab):
    "The text comes before the list of pages, and nothing stands there that does nothing"
    page = tab.page.context.browser.new_context(java_script_enabled=False, viewport=PHONE).new_page()
    page.goto(address + 'high_frequency/split.html')
    places = {o: page.locator(o).bounding_box()['y'] for o in ('main h1', '.pages')}
    assert places['main h1'] < places['.pages']
    assert page.get_by_role('button').count() == 0 and page.get_by_role('searchbox').count() == 0
    page.context.close()


def test_the_pages_are_behind_a_button_on_a_phone(address, tab):
    tab.page.set_viewport_size(PHONE)
    tab.page.goto(address + 'index.html')
    pages = tab.page.get_by_role('navigation', name='Pages')
    assert not pages.is_visible()
    tab.page.get_by_role('button', name='Pages').click()
    assert pages.is_visible() and pages.get_by_role('link', name='Scoreboard').is_visible()
