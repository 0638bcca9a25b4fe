"""Every page of the library begins with an example that runs anywhere, and with a table of its names."""

import ast
import json
from pathlib import Path

import pytest

from freqnb.entries import example_of, handed_on, own_names

LIBRARY = sorted((Path(__file__).parents[1] / 'nbs' / 'api').glob('*.ipynb'))


@pytest.mark.parametrize('path', LIBRARY, ids=lambda path: path.stem)
def test_page_has_an_example_that_runs_by_itself(path, monkeypatch, tmp_path):
    "Three lines at most, which use the page's own names, and show something"
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path))
    monkeypatch.setenv('FREQNB_SCALE', 'smoke')
    example = example_of(path)
    assert example is not None, 'no cell begins with "#| example"'
    assert example.names and example.outputs
    assert len(example.code.splitlines()) <= 3 and max(map(len, example.whole.splitlines())) <= 120
    module = path.stem.partition('_')[2]
    assert any(line.startswith(f'from freqnb.{module} import ') for line in example.imports)
    file = tmp_path / 'example.py'  # where Python finds the source of what an example defines
    file.write_text(example.whole)
    tree = ast.parse(example.whole)
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), 'an example shows, a test asserts'
    exec(compile(tree, str(file), 'exec'), {'__name__': 'example'})


def test_names_are_those_of_the_module():
    "What the table lists can be imported"
    import importlib

    for path in LIBRARY:
        cells = json.loads(path.read_text('utf-8'))['cells']
        names = [*own_names(cells), *handed_on(cells)]
        module = importlib.import_module(f'freqnb.{path.stem.partition("_")[2]}')
        assert [name for name in names if not hasattr(module, name)] == [], path.stem


def test_an_example_that_fails_would_be_found(tmp_path):
    source = ['#| export\ndef f(x): return 1 / x', '#| example\nf(0)']
    cells = [dict(cell_type='code', source=text, outputs=[]) for text in source]
    file = tmp_path / '01_a.ipynb'
    file.write_text(json.dumps(dict(cells=cells)))
    example = example_of(file)
    assert example.whole == 'from freqnb.a import f\n\nf(0)' and example.names == ['f']
    with pytest.raises(ZeroDivisionError):
        exec('def f(x): return 1 / x\n' + example.code, {})
