"""The rule of direction: a notebook of the library imports only lower numbers, and papers feed nothing."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
API = sorted((ROOT / 'nbs' / 'api').glob('*.ipynb'))
OTHERS = sorted(
    o
    for o in (ROOT / 'nbs').rglob('*.ipynb')
    if o.parent.name != 'api' and '.ipynb_checkpoints' not in o.parts
)
MODULES = sorted(o for o in (ROOT / 'freqnb').glob('*.py') if not o.name.startswith('_'))
EXPORTS = re.compile(r'^\s*#\s*\|\s*(export\w*|default_exp)\b', re.M)


def code_cells(path):
    "The sources of a notebook's code cells"
    return [
        ''.join(o['source']) for o in json.loads(path.read_text('utf-8'))['cells'] if o['cell_type'] == 'code'
    ]


def floors(paths):
    "From a module's name to the number of its notebook"
    found = {}
    for path in paths:
        number, _, name = path.stem.partition('_')
        assert number.isdigit() and name, f'{path.name}: expected a number, an underscore and a name'
        found[name] = int(number)
    return found


def python_of(cell):
    "A cell without its magics and shell commands"
    return '\n'.join('pass' if o.startswith(('%', '!')) else o for o in cell.splitlines())


def modules_of(node):
    "The modules of freqnb that one node of a syntax tree imports or reaches into"
    if isinstance(node, ast.Import):
        names = [o.name for o in node.names]
    elif isinstance(node, ast.ImportFrom) and (
        node.level == 1 or (node.module or '').split('.')[0] == 'freqnb'
    ):
        base = '.'.join(filter(None, ['freqnb' * bool(node.level), node.module]))
        names = [base] if base != 'freqnb' else [f'freqnb.{o.name}' for o in node.names]
    elif isinstance(node, ast.Call) and getattr(node.func, 'attr', getattr(node.func, 'id', '')) in (
        'import_module',
        '__import__',
    ):
        names = [o.value for o in node.args[:1] if isinstance(o, ast.Constant)]
    elif isinstance(node, ast.Attribute) and getattr(node.value, 'id', '') == 'freqnb':
        names = [f'freqnb.{node.attr}']
    else:
        names = []
    parts = [o.split('.') for o in names]
    return {o[1] for o in parts if o[0] == 'freqnb' and len(o) > 1 and not o[1].startswith('_')}


def imported(source):
    "The modules of freqnb that Python source imports, at any depth"
    return set().union(*map(modules_of, ast.walk(ast.parse(python_of(source)))))


def faults(name, sources, numbers):
    "What the module `name` must not import but does; a name without a floor may import every module there is"
    used = set().union(*map(imported, sources)) - {name}
    unknown = [
        f'{name} imports {o}, which no notebook under nbs/api exports' for o in sorted(used - set(numbers))
    ]
    higher = [
        f'{name} ({numbers[name]:02}) imports {o} ({numbers[o]:02})'
        for o in sorted(used & set(numbers))
        if name in numbers and numbers[o] >= numbers[name]
    ]
    return unknown + higher


def test_each_notebook_has_its_own_module():
    "A floor may hold several notebooks, which cannot import each other; a name belongs to one"
    numbers = floors(API)
    assert len(numbers) == len(API), 'two notebooks share a name'
    for path in API:
        named = re.findall(r'^#\s*\|\s*default_exp\s+(\S+)', '\n'.join(code_cells(path)), re.M)
        assert named == [path.stem.partition('_')[2]], f'{path.name} exports to {named}'
    assert {o.stem for o in MODULES} == set(numbers), (
        'a module without a notebook, or a notebook without a module'
    )


@pytest.mark.parametrize('path', API, ids=lambda o: o.stem)
def test_notebook_imports_lower_numbers(path):
    assert faults(path.stem.partition('_')[2], code_cells(path), floors(API)) == []


@pytest.mark.parametrize('path', MODULES, ids=lambda o: o.stem)
def test_module_imports_lower_numbers(path):
    assert faults(path.stem, [path.read_text('utf-8')], floors(API)) == []


def test_the_rule_reads_real_imports():
    "Were the imports not seen, the tests above would pass for nothing"
    seen = {o.stem: imported(o.read_text('utf-8')) for o in MODULES}
    assert {'data', 'models', 'spectrum'} <= seen['train']
    assert 'spectrum' in seen['evaluate'] and seen['basics'] <= {'basics'}


@pytest.mark.parametrize('path', OTHERS, ids=lambda o: f'{o.parent.name}/{o.stem}')
def test_papers_export_nothing(path):
    cells = code_cells(path)
    assert [o for o in cells if EXPORTS.search(o)] == []
    assert faults(f'{path.parent.name}/{path.stem}', cells, floors(API)) == []


BAD = {
    'import freqnb.train': 'train',
    'from freqnb.train import fit': 'train',
    'from freqnb import train': 'train',
    'from .train import fit': 'train',
    'from . import train': 'train',
    'import freqnb\nfreqnb.train.fit': 'train',
    'def f():\n    if True:\n        from freqnb.train import fit': 'train',
    'import torch, freqnb.train as t': 'train',
    "import importlib\nimportlib.import_module('freqnb.train')": 'train',
    '%matplotlib inline\nfrom freqnb.train import fit': 'train',
    'class A:\n    def g(self):\n        from .train import fit': 'train',
}
GOOD = [
    'from freqnb.data import load',
    'from .data import load',
    'import freqnb\nfreqnb.__version__',
    'from freqnb._modidx import d',
    "text = 'from freqnb.train import fit'",
    'import trainer',
    'from freqnb.spectrum import dct2',
]


def write_notebook(path, *cells):
    path.write_text(
        json.dumps(dict(cells=[dict(cell_type='code', source=o.splitlines(True)) for o in cells]))
    )
    return path


@pytest.mark.parametrize('source', BAD)
def test_a_step_upwards_is_found(source, tmp_path):
    numbers = dict(data=0, spectrum=1, train=6)
    cells = code_cells(
        write_notebook(tmp_path / '01_spectrum.ipynb', '#| default_exp spectrum', '#| export\n' + source)
    )
    assert faults('spectrum', cells, numbers) == ['spectrum (01) imports train (06)']
    assert faults('high_frequency/01_split', cells, numbers) == []


@pytest.mark.parametrize('source', GOOD)
def test_a_step_down_is_allowed(source):
    assert faults('spectrum', [source], dict(data=0, spectrum=1, train=6)) == []


def test_a_step_to_the_side_is_found():
    assert faults('corruptions', ['from freqnb.attacks import pgd'], dict(attacks=5, corruptions=5)) == [
        'corruptions (05) imports attacks (05)'
    ]


def test_an_unknown_module_is_found():
    assert 'imports split' in faults('train', ['from freqnb.split import cases'], dict(train=6))[0]


@pytest.mark.parametrize(
    'line', ['#| export', '#|export', '# | exporti', '#| default_exp split', '#| exports']
)
def test_an_export_is_found(line):
    assert EXPORTS.search(f'x = 1\n{line}\n')
