"""One thought a line, one subject a room: ruff's rules, sizes of functions and cells, and the house's words."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest
from test_floors import API, MODULES, OTHERS, ROOT, code_cells, imported, python_of

sys.path.append(str(ROOT / 'tools'))
from tidy import tidy, tidy_notebook

COLUMNS = 120
LINES_OF_A_MODULE = 500
BODIES, CELLS = (5, 15, 30), (8, 16, 30)  # lines of code at most: median, 90%, longest
NODES_A_LINE = dict(package=14.5, api=12, papers=13)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRITISH = re.compile(
    'colour|grey|centre|behaviour|neighbour|labell|modell|'
    '(normal|general|regular|optim|penal|initial|minim|maxim|visual|summar|recogn|random|equal)is(e|ing|ation)'
)


def code_lines(source):
    "Lines that are neither empty nor a comment"
    return [o for o in source.splitlines() if o.strip() and not o.lstrip().startswith('#')]


def nodes(parts):
    "How many nodes of the syntax tree stand under some of them"
    return sum(1 for part in parts for _ in ast.walk(part))


@cache
def bodies():
    "Lines and nodes of each function of the package, without its docstring, by place"
    found = {}
    for path in MODULES:
        source = path.read_text('utf-8')
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, FUNCTIONS):
                body = node.body[ast.get_docstring(node) is not None :]
                lines = source.splitlines()[body[0].lineno - 1 : node.end_lineno] if body else []
                found[f'{path.name}:{node.lineno} {node.name}'] = (
                    len(code_lines('\n'.join(lines))),
                    nodes(body),
                )
    return {name: size for name, size in found.items() if size[0]}


@cache
def cells(paths):
    "Lines and nodes of each code cell, by place"
    found = {}
    for path in paths:
        for i, cell in enumerate(code_cells(path)):
            lines = code_lines(cell)
            if lines:
                tree = ast.parse(python_of('\n'.join(lines)))
                found[f'{path.parent.name}/{path.stem}, code cell {i}'] = len(lines), nodes([tree])
    return found


PARTS = dict(package=bodies, api=lambda: cells(tuple(API)), papers=lambda: cells(tuple(OTHERS)))


@pytest.mark.parametrize('part', PARTS)
def test_sizes(part):
    "Median, 90% and longest, in lines of code"
    sizes = {name: lines for name, (lines, _) in PARTS[part]().items()}
    half, most, longest = BODIES if part == 'package' else CELLS
    assert {name: n for name, n in sizes.items() if n > longest} == {}
    assert median(sizes.values()) <= half
    assert sorted(sizes.values())[int(0.9 * len(sizes))] <= most


@pytest.mark.parametrize('part', PARTS)
def test_nodes_a_line(part):
    "What a reader holds in mind for each line"
    sizes = PARTS[part]()
    total = sum(n for _, n in sizes.values()) / sum(lines for lines, _ in sizes.values())
    densest = sorted(sizes, key=lambda name: -sizes[name][1] / sizes[name][0])[:10]
    assert total <= NODES_A_LINE[part], densest


def test_ruff_finds_nothing():
    command = [
        Path(sys.executable).with_name('ruff'),
        'check',
        '--output-format',
        'concise',
        '--no-cache',
        '.',
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


def test_lines_of_cells_are_at_most_120_columns():
    "Comments and strings included"
    wide = []
    for path in API + OTHERS:
        for i, cell in enumerate(code_cells(path)):
            wide += [f'{path.stem}, code cell {i}: {o}' for o in cell.splitlines() if len(o) > COLUMNS]
    assert wide == []


def test_modules_are_at_most_500_lines():
    sizes = {path.name: len(code_lines(path.read_text('utf-8'))) for path in MODULES}
    assert {name: n for name, n in sizes.items() if n > LINES_OF_A_MODULE} == {}


def test_no_module_imports_itself_in_a_circle():
    "Imports inside functions included; a circle raises CycleError"
    graph = {path.stem: imported(path.read_text('utf-8')) - {path.stem} for path in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def defined(tree):
    "The functions of a module by name, those of its classes under their own names and under that of their class"
    found = {}
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            found.setdefault(node.name, []).append(node)
        if isinstance(node, ast.ClassDef):
            for method in [part for part in node.body if isinstance(part, FUNCTIONS)]:
                found.setdefault(method.name, []).append(method)
                if method.name in ('__init__', '__post_init__'):
                    found.setdefault(node.name, []).append(method)
    return found


def named(node):
    "The names that a function mentions, those after a dot included"
    inside = list(ast.walk(node))
    names = {o.id for o in inside if isinstance(o, ast.Name)}
    return names | {o.attr for o in inside if isinstance(o, ast.Attribute)}


def reached(source, start):
    "The functions of a file that a function reaches, by their names"
    functions = defined(ast.parse(source))
    seen, ahead = set(), [start]
    while ahead:
        for function in functions.get(ahead.pop(), []):
            if function not in seen:
                seen.add(function)
                ahead += named(function)
    return sorted(function.name for function in seen if function.name != start)


@pytest.mark.parametrize('place', ['train:fit', 'pgd:pgd', 'data:load'])
def test_a_reader_meets_at_most_15_functions_of_the_file(place):
    module, _, start = place.partition(':')
    source = (ROOT / 'freqnb' / f'{module}.py').read_text('utf-8')
    assert start in defined(ast.parse(source))
    assert len(reached(source, start)) <= 15, reached(source, start)


def test_reaching_is_found():
    source = 'def a(): return b\ndef b(): return C().d()\nclass C:\n    def d(self): e()\ndef e(): a()\ndef f(): a()'
    assert reached(source, 'a') == ['b', 'd', 'e'] and reached(source, 'e') == ['a', 'b', 'd']


def test_exported_names_are_american():
    "Those of functions, of their parameters, and of fields"
    found = []
    for path in MODULES:
        tree = ast.parse(path.read_text('utf-8'))
        for node in ast.walk(tree):
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                found.append((path.name, node.name))
            if isinstance(node, ast.arg):
                found.append((path.name, node.arg))
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                found += [(path.name, o.id) for o in ast.walk(node) if isinstance(o, ast.Name)]
    assert sorted({o for o in found if BRITISH.search(o[1].lower())}) == []


def stacks_over_networks(source):
    "Comprehensions over networks inside a stack: what the library does when it is handed several"
    calls = [o for o in ast.walk(ast.parse(python_of(source))) if isinstance(o, ast.Call)]
    inside = [o for call in calls if getattr(call.func, 'attr', '') == 'stack' for o in ast.walk(call)]
    loops = [o for o in inside if isinstance(o, ast.comprehension)]
    return sum(getattr(loop.target, 'id', '') in ('m', 'model', 'net') for loop in loops)


def test_the_library_says_it_once():
    "Several networks, and values by scale"
    sources = [cell for path in OTHERS for cell in code_cells(path)]
    text = '\n'.join(sources)
    assert sum(map(stacks_over_networks, sources)) <= 2
    assert text.count('dict(smoke=') <= 10
    assert len(re.findall(r'\[(\w+\.)?scale\]', text)) <= 5


def test_a_stack_over_networks_is_found():
    assert stacks_over_networks('torch.stack([correct(m, x, y) for m in models])') == 1
    assert stacks_over_networks('torch.stack([correct(models, x, y)])') == 0


UNTIDY = """
#| export
def f(
    x, # Images `(N, C, H, W)`
    y:int=1, # Why
):
    "A docstring with a description of each parameter"
    if y: return [x,
      y]
    a = "b" ; return a
def g(x): return "as it is written"
@property
def h(self):
    return  self
class A:
    "Its fields stay"
    x: int # Here

    def k(self): return self.x
    def l(self):
        return  dict(a=1,b = 2)
z = [1,2]; print( z )
"""


def test_tidy_changes_no_syntax_tree_and_is_done_after_once():
    done = tidy(UNTIDY)
    assert ast.dump(ast.parse(done)) == ast.dump(ast.parse(UNTIDY)) and tidy(done) == done != UNTIDY
    assert '    x, # Images `(N, C, H, W)`\n    y:int=1, # Why\n' in done, 'signatures as they are'
    assert 'def g(x): return "as it is written"\n' in done
    assert "    if y:\n        return [x, y]\n    a = 'b'\n    return a\n" in done
    assert done.endswith('z = [1, 2]\nprint(z)')


def test_tidy_keeps_one_empty_line_beside_functions():
    apart = 'x = 1\n\ndef f(): return x\n\ndef g(): return f\n\n# why\n\ndef h(): return g\n\ny = 2'
    close = apart.replace('\n\n', '\n')
    assert tidy(apart) == tidy(apart.replace('\n\n', '\n\n\n')) == apart
    assert tidy(close) == close


def test_tidy_leaves_cells_alone_that_are_not_python(tmp_path, capsys):
    path = tmp_path / 'a.ipynb'
    sources = ['%matplotlib inline\nx = 1', 'x  =  [1]\n\n\n\n# end']
    path.write_text(json.dumps(dict(cells=[dict(cell_type='code', source=o) for o in sources])))
    tidy_notebook(path)
    assert code_cells(path) == [sources[0], 'x = [1]\n\n# end']
    assert 'cell 0: left alone' in capsys.readouterr().out


def test_a_notebook_of_the_library_is_laid_out():
    "One of them, since each takes a second"
    cells = code_cells(next(path for path in API if path.stem.endswith('_spectrum')))
    assert [o for o in cells if tidy(o) != o] == []


def test_a_rule_of_the_style_sheet_stands_once():
    rules = [line for line in (ROOT / 'freqnb/assets/site/site.css').read_text('utf-8').splitlines() if '{' in line]
    ends = [line for line in rules if line.endswith('}')]
    assert [line for line, times in Counter(ends).items() if times > 1] == []
