"""The lens in a real browser, from a folder without a server: it computes what torch does, and answers the hand."""

import re
from functools import partial

import pytest
import torch
from test_floors import ROOT
from torch.nn.functional import cross_entropy

from freqnb.data import load
from freqnb.layers import smooth_kernels
from freqnb.lens import ENGINE, PAGE, lens_html, lens_page, write_lens
from freqnb.models import ZOO, create, predict, pretrained, zoo_manifest, zoo_order
from freqnb.pgd import pgd
from freqnb.spectrum import split_bands

SOURCES = sorted((ROOT / 'freqnb' / 'assets' / 'lens').glob('*.js'))
NETWORKS = zoo_order()
ATTACKED = ('natural', 'adversarial', 'no_norm')
EPS = 8 / 255
PICTURE = 'name => document.querySelector(`[data-picture="${name}"]`).toDataURL()'
CHANGED = '([name, old]) => document.querySelector(`[data-picture="${name}"]`).toDataURL() !== old'
SETTLED = "() => !document.querySelector('.lens-waiting')"
SHOWN = "() => document.querySelector('.lens-top')"
DROP = """async () => {
    const canvas = document.createElement('canvas'), context = canvas.getContext('2d');
    context.fillStyle = 'white';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.clearRect(100, 50, 90, 60);
    const blob = await new Promise(resolve => canvas.toBlob(resolve, 'image/jpeg'));
    const data = new DataTransfer();
    data.items.add(new File([blob], 'mine.jpg', {type: 'image/jpeg'}));
    document.querySelector('.lens').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}));
}"""
OVERFLOW = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "A page with the whole zoo, in a folder"
    return lens_page(tmp_path_factory.mktemp('lens'), ['natural', 'adversarial']).as_uri()


def shown(tab, address):
    "A tab in which the lens has drawn its first picture"
    tab.page.goto(address)
    tab.page.wait_for_function(SHOWN)
    return tab


@pytest.fixture(scope='module')
def page(address, open_tab):
    "The page, open; at the end nothing was asked for from outside, and nothing went wrong"
    tab = shown(open_tab(), address)
    yield tab.page
    assert (tab.outside, tab.errors) == ([], [])


@pytest.fixture(scope='module')
def images():
    "20 test images and their labels"
    test = load('fashion_mnist_mini').test.take(20)
    return test.float(), test.y.long()


def flat(x):
    "Images as the page takes them"
    return x.flatten(1).double().tolist()


def distances(found, expected):
    "||difference|| / ||expected|| of each image"
    expected = expected.detach().flatten(1).double()
    return (torch.tensor(found, dtype=torch.float64) - expected).norm(dim=1) / expected.norm(dim=1)


def test_the_page_lists_the_zoo(page):
    assert page.evaluate('freqnb.ready.then(() => freqnb.networks.map(o => o.name))') == NETWORKS
    assert len(page.evaluate('freqnb.images')) == 6


@pytest.mark.parametrize('name', NETWORKS)
def test_logits_and_gradients_are_those_of_torch(page, images, name):
    """Of the same weights in float16, both in float64

    On black, values are equal, and it is chance which of them is a maximum: so the images get some noise.
    """
    x, y = images
    x = 0.9 * x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    ask = """([name, x, y]) => Promise.all(x.map(async (pixels, i) =>
        [await freqnb.answer(name, pixels), Array.from(await freqnb.gradient(name, pixels, y[i]))]))"""
    logits, gradients = zip(*page.evaluate(ask, [name, flat(x), y.tolist()]))
    model = pretrained(name).double()
    pixels = x.double().requires_grad_()
    expected = model(pixels)
    (gradient,) = torch.autograd.grad(cross_entropy(expected, y, reduction='sum'), pixels)
    assert distances(logits, expected).max() <= 1e-4
    assert distances(gradients, gradient).max() <= 1e-4


@pytest.mark.parametrize('name', ATTACKED)
def test_an_attack_is_as_strong_as_ours(page, images, name):
    "PGD-20 ends within the ball, and fools as many images within one, though ours starts at random"
    x, y = images
    ask = """([name, x, y, eps]) => Promise.all(x.map(async (pixels, i) =>
        Array.from((await freqnb.attack(name, pixels, y[i], {eps, steps: 20})).pixels)))"""
    found = torch.tensor(page.evaluate(ask, [name, flat(x), y.tolist(), EPS]), dtype=torch.float64)
    found = found.view(x.shape)
    assert (found - x.double()).abs().max() <= EPS + 1e-12
    assert found.min() >= 0 and found.max() <= 1
    model = pretrained(name)
    ours = pgd(model, x, y, EPS, steps=20)
    fooled, expected = ((predict(model, o).argmax(1) != y).sum().item() for o in (found.float(), ours))
    assert abs(fooled - expected) <= 1


def test_a_change_lies_where_it_is_meant_to(page, images):
    "Inside the circle or outside of it, as far as pixels in [0, 1] let it"
    x, y = images
    ask = """async ([pixels, label, band]) =>
        (await freqnb.attack('natural', pixels, label, {band, radius: 6})).lowShare"""
    shares = {band: page.evaluate(ask, [flat(x)[1], y[1].item(), band]) for band in ('low', 'all', 'high')}
    assert shares['low'] > shares['all'] > shares['high']


def test_no_eps_is_no_change(page, images):
    x, y = images
    ask = "async ([x, y]) => Array.from((await freqnb.attack('natural', x, y, {eps: 0})).pixels)"
    assert page.evaluate(ask, [flat(x)[0], y[0].item()]) == flat(x)[0]


@pytest.mark.parametrize('radius', [0, 6, 9.5, 20])
def test_parts_are_those_of_the_library(page, images, radius):
    x = images[0][:3].double()
    ask = """([x, radius]) => Promise.all(x.map(async pixels => {
        const {low, high} = await freqnb.split(pixels, [1, 28, 28], radius);
        return [Array.from(low), Array.from(high)]}))"""
    found = torch.tensor(page.evaluate(ask, [flat(x), radius]), dtype=torch.float64)
    expected = torch.stack(split_bands(x, radius), 1).flatten(2)
    assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize('rho', [0.25, 1.0])
def test_smooth_kernels_are_those_of_the_library(page, images, rho):
    x = images[0][:5]
    ask = '([x, rho]) => Promise.all(x.map(pixels => freqnb.answer("natural", pixels, {rho})))'
    expected = smooth_kernels(pretrained('natural'), rho)(x)
    assert distances(page.evaluate(ask, [flat(x), rho]), expected).max() <= 1e-4


@pytest.mark.parametrize(
    'call, message',
    [
        ('freqnb.answer("lion", [])', 'network is lion; expected one of natural'),
        ('freqnb.answer("natural", [1, 2])', '2 pixels; natural expects 784'),
        ('freqnb.gradient("natural", Array(784).fill(0), 10)', 'label is 10; expected 0 to 9'),
        ('freqnb.attack("natural", Array(784).fill(0), 1, {eps: -1})', 'eps is -1'),
        ('freqnb.attack("natural", Array(784).fill(0), 1, {steps: 0})', 'steps is 0'),
        (
            'freqnb.attack("natural", Array(784).fill(0), 1, {band: "middle"})',
            'band is middle; expected one of all',
        ),
    ],
)
def test_errors_echo_the_value(page, call, message):
    assert message in page.evaluate(f'{call}.then(() => "", error => error.message)')


def other_networks(folder):
    "Untrained networks with strides, shortcuts, mean pooling and batch normalization that no convolution takes in"
    from freqnb.lens import export_network

    torch.manual_seed(0)
    classes = list('abcdefghij')
    for place, name in enumerate(['lenet', 'resnet20', 'preact_resnet18', 'alexnet']):
        model = create(name, 10, 3, width=8).eval()
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(layer.running_var, 0.5, 2)
                torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
        shared = dict(title=name, says='', place=place)
        export_network(model, name, folder, (3, 32, 32), classes, **shared)
        yield name, model


def test_other_networks_run_in_color(open_tab, tmp_path):
    "Weights are rounded to float16, so this is about operations: within a hundredth of the network's own logits"
    zoo, images = tmp_path / 'zoo', load('planted').test
    models = dict(other_networks(zoo))
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32)
    write_lens(tmp_path / 'lens', images=images, labels=range(2), zoo=zoo)
    (tmp_path / 'index.html').write_text(lens_html())
    tab = open_tab()
    tab.page.goto((tmp_path / 'index.html').as_uri())
    for name, model in models.items():
        ask = '([name, x]) => Promise.all(x.map(pixels => freqnb.answer(name, pixels)))'
        assert distances(tab.page.evaluate(ask, [name, flat(x)]), model(x)).max() < 1e-2, name
        pixels = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            cross_entropy(model(pixels), torch.tensor([1, 2]), reduction='sum'), pixels
        )
        ask = """([name, x]) => Promise.all(x.map(async (pixels, i) =>
            Array.from(await freqnb.gradient(name, pixels, i + 1))))"""
        assert distances(tab.page.evaluate(ask, [name, flat(x)]), gradient).max() < 5e-2, name
    assert tab.errors == []


def press(key, page, control):
    "A key on a control"
    page.locator(control).press(key)


def click(page, control):
    "A click on a control"
    page.locator(control).click()


def drag(page, control, share=0.8):
    "A pointer from the middle of a control to a share of its width"
    box = page.locator(control).bounding_box()
    middle = box['y'] + box['height'] / 2
    page.mouse.move(box['x'] + box['width'] / 2, middle)
    page.mouse.down()
    page.mouse.move(box['x'] + share * box['width'], middle, steps=4)
    page.mouse.up()


right = partial(press, 'ArrowRight')
enter = partial(press, 'Enter')
CONTROLS = [
    ('[data-image="2"]', enter, 'whole'),
    ('[data-image="3"]', click, 'whole'),
    ('[data-name=radius]', right, 'low'),
    ('[data-name=radius]', drag, 'high'),
    ('.lens-stage', right, 'low'),
    ('.lens-stage', drag, 'low'),
    ('[data-network=shuffled]', enter, 'kernels-1'),
    ('[data-network=natural]', click, 'kernels-1'),
    ('[data-name=rho]', right, 'kernels-0'),
    ('[data-name=rho]', drag, 'kernels-0'),
    ('[data-name=eps]', right, 'change-0'),
    ('[data-name=eps]', drag, 'attacked-0'),
    ('[data-name=steps]', right, 'change-0'),
    ('[data-name=steps]', drag, 'change-0'),
    ('[data-band=low]', enter, 'of-change-0'),
    ('[data-band=high]', click, 'of-change-1'),
    ('[data-band=all]', click, 'of-change-1'),
]


@pytest.fixture(scope='module')
def attacked(address, open_tab):
    "A page whose attack is on"
    tab = shown(open_tab(), address)
    enter(tab.page, '[data-do=attack]')
    tab.page.wait_for_selector('[data-picture=change-1]')
    tab.page.wait_for_function('() => document.querySelector("[data-text=attack-1]").textContent')
    return tab


@pytest.mark.parametrize('control, act, picture', CONTROLS)
def test_controls_change_their_picture(attacked, control, act, picture):
    page = attacked.page
    page.wait_for_function(SETTLED)
    before = page.evaluate(PICTURE, picture)
    page.locator(control).scroll_into_view_if_needed()
    act(page, control)
    page.wait_for_function(CHANGED, arg=[picture, before])
    assert attacked.errors == []


def test_the_sentence_follows(attacked):
    page = attacked.page
    sentence = page.locator('[data-text=parts]')
    before = sentence.text_content()
    page.locator('[data-name=radius]').press('Home')
    page.wait_for_function(
        'old => document.querySelector("[data-text=parts]").textContent !== old', arg=before
    )
    assert 'up to 0 cycles' in sentence.text_content()


def test_one_network_stays(attacked):
    "Two may be chosen, a third takes the place of the first, and the last one cannot be put away"
    page = attacked.page
    chosen = "() => [...document.querySelectorAll('[data-network][aria-pressed=true]')].map(o => o.dataset.network)"
    before = page.evaluate(chosen)
    assert len(before) == 2
    other = next(name for name in NETWORKS if name not in before)
    click(page, f'[data-network="{other}"]')
    assert other in page.evaluate(chosen) and len(page.evaluate(chosen)) == 2
    for _ in range(2):
        for name in page.evaluate(chosen):
            click(page, f'[data-network="{name}"]')
    assert len(page.evaluate(chosen)) == 1


def test_a_drawing_and_a_file_are_images(tab, address, tmp_path):
    from PIL import Image

    page = tab.page
    page.goto(address)
    page.wait_for_function(SHOWN)
    for act in (click, partial(drag, control='.lens-pad'), partial(press, ' ', control='.lens-pad')):
        before = page.evaluate(PICTURE, 'whole')
        act(page, '[data-do=draw]') if act is click else act(page)
        page.wait_for_function(CHANGED, arg=['whole', before])
        page.locator('.lens-pad').press('ArrowDown')
        page.locator('.lens-pad').press('ArrowDown')
    enter(page, '[data-ink="0"]')
    for act in (partial(drag, page, '.lens-pad'), partial(click, page, '[data-do=clear]')):
        page.locator('[data-ink="1"]').click()
        drag(page, '.lens-pad', 0.2)
        page.locator('[data-ink="0"]').click()
        page.wait_for_timeout(100)
        before = page.evaluate(PICTURE, 'whole')
        act()
        page.wait_for_function(CHANGED, arg=['whole', before])

    file = tmp_path / 'mine.png'
    Image.linear_gradient('L').resize((60, 40)).save(file)
    before = page.evaluate(PICTURE, 'whole')
    page.locator('input[type=file]').set_input_files(file)
    page.wait_for_function(CHANGED, arg=['whole', before])
    assert page.locator('[data-picture=whole]').get_attribute('aria-label') == 'your picture'

    before = page.evaluate(PICTURE, 'whole')
    page.evaluate(DROP)
    page.wait_for_function(CHANGED, arg=['whole', before])
    assert 'exchanged' in page.locator('[data-text=note]').text_content(), 'a bright picture is turned around'
    assert tab.errors == []


@pytest.mark.parametrize('width', [360, 1400])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_its_column_and_its_page(chromium, address, width, scheme):
    "Nothing is wider than the page, targets have 24 pixels, colors follow those of the page"
    context = chromium.new_context(
        viewport=dict(width=width, height=900), color_scheme=scheme, reduced_motion='reduce'
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_function(SHOWN)
    click(page, '[data-do=attack]')
    page.wait_for_selector('[data-picture=change-1]')
    assert page.evaluate(OVERFLOW) <= 0
    sizes = """() => [...document.querySelectorAll('.lens button, .lens input')].filter(o => o.offsetParent)
        .map(o => o.getBoundingClientRect()).map(o => Math.min(o.width, o.height))"""
    assert min(page.evaluate(sizes)) >= 24
    assert page.evaluate("document.querySelector('freq-lens').classList.contains('lens-dark')") == (
        scheme == 'dark'
    )
    moving = "() => getComputedStyle(document.querySelector('.lens-bar i')).transitionDuration"
    assert page.evaluate(moving) in ('0s', '')
    context.close()


def test_without_scripts_something_else_stays(chromium, tmp_path):
    write_lens(tmp_path / 'lens', ['natural'])
    (tmp_path / 'index.html').write_text(lens_html(instead='<p id="still">a picture</p>'))
    for scripts in (False, True):
        context = chromium.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto((tmp_path / 'index.html').as_uri())
        if scripts:
            page.wait_for_selector('.lens')
        assert page.locator('#still').count() == (not scripts)
        context.close()


def test_the_zoo_is_small_and_says_where_it_is_from():
    assert sum(path.stat().st_size for path in ZOO.iterdir()) <= 2e6
    fingerprint = load('fashion_mnist_mini').test.fingerprint
    for name in NETWORKS:
        record = zoo_manifest(name)['record']
        assert record['accuracy']['n'] == 2000 and record['tested_on']['fingerprint'] == fingerprint
        assert [attack['accuracy']['n'] for attack in record['attacks']] == [500, 500]
        assert (
            record['recipe']['model'] == 'resnet9' and record['data']['fingerprint'] and record['objective']
        )


@pytest.mark.parametrize('path', SOURCES, ids=lambda o: o.name)
def test_modules_are_readable(path):
    "Lines of 120 columns, no leftovers, and every import is an export of the module it names"
    text = path.read_text('utf-8')
    assert [line for line in text.splitlines() if len(line) > 120] == []
    assert not re.search(r'\bvar\b|\bconsole\.|\bdebugger\b|==[^=]*(?<![=!])== ', text)
    for names, module in re.findall(r"^import \{([^}]*)\} from '\./(\w+)\.js';", text, re.M):
        exported = re.findall(
            r'^export (?:async )?(?:const|function|class) (\w+)',
            path.with_name(f'{module}.js').read_text(),
            re.M,
        )
        wanted = [name.strip() for name in names.split(',') if name.strip()]
        assert set(wanted) <= set(exported), module


def test_no_name_stands_twice():
    "The modules are joined into one scope, where a second function of a name would replace the first in silence"
    top = re.compile(r'^(?:export )?(?:async )?(?:const|let|function|class) (\w+)', re.M)
    for modules in (ENGINE, PAGE):
        names = [name for o in modules for name in top.findall((SOURCES[0].parent / f'{o}.js').read_text())]
        assert sorted(set(names)) == sorted(names)
    assert {f'{o}.js' for o in (*ENGINE, *PAGE)} == {path.name for path in SOURCES}
