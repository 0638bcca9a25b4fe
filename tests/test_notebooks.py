"""The notebooks: exports in step, outputs clean and small, tests that pass, claims on record, pages to learn from."""

import ast
import html
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exercises import exercises_of, read_exercise, with_solutions

from freqnb.papers import PAPERS as FOLDERS
from freqnb.papers import title_of
from freqnb.records import best_committed, read_record
from freqnb.verdicts import check

ROOT = Path(__file__).parents[1]
NBS, BIN = ROOT / 'nbs', Path(sys.executable).parent
NOTEBOOKS = sorted(o for o in NBS.rglob('*.ipynb') if not any(p[0] in '._' for p in o.relative_to(NBS).parts))
PAPERS = [o for o in NOTEBOOKS if o.parent.name in FOLDERS]
BEYOND = [o for o in NOTEBOOKS if o.parent.name == 'beyond']
LARGEST, LONGEST = 300_000, 30
BY_HAND = ('__init__.py', '__main__.py')  # all other modules are exported
WIDGET = 'application/vnd.jupyter.widget-view+json'
PARAMETER = re.compile(r'\s+[*\w]+\s*:[^#]*,?\s*# ')  # a parameter with its description
MACHINE = re.compile(r'(?<![\w.:/])/(?:work|root|home|tmp|Users|mnt|opt|private|var/folders)/[\w.-]*')
HOST = re.compile(
    r"""(?<=://)(?:[^/\s"'<>]*(?:pypi|registry|artifact|nexus|mirror|proxy|internal|\.local\b)[^\s"'<>]*
                      |(?!127\.)\d+\.\d+\.\d+\.\d+[^\s"'<>]*)|--(?:extra-)?index-url|--proxy""",
    re.I | re.X,
)


def name_of(path):
    return path.relative_to(NBS).with_suffix('').as_posix()


def read(path):
    return json.loads(path.read_text('utf-8'))


def text_of(value):
    return (
        ''.join(value) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
    )


def outputs(notebook):
    "All the outputs of a notebook"
    return [output for cell in notebook['cells'] for output in cell.get('outputs', [])]


def output_texts(notebook):
    "What the outputs say, without the bytes of their pictures"
    parts = [
        text_of(value)
        for o in outputs(notebook)
        for kind, value in (o.get('data') or {}).items()
        if not kind.startswith('image/')
    ]
    parts += [text_of(o.get(key, '')) for o in outputs(notebook) for key in ('text', 'traceback', 'evalue')]
    return [re.sub(r'base64,[A-Za-z0-9+/=]+', 'base64,', part) for part in parts]


def texts(notebook):
    return [text_of(cell['source']) for cell in notebook['cells']] + output_texts(notebook)


def private(text):
    "Paths of a machine, and addresses of package registries and of machines without a name"
    return MACHINE.findall(text) + HOST.findall(text)


def source_lines(cell):
    return [o for o in text_of(cell['source']).splitlines() if o.strip() and not o.startswith('#|')]


def own_lines(cell):
    return [o for o in source_lines(cell) if not PARAMETER.match(o)]


def every(check):
    "What `check` finds in each notebook that has something to find"
    found = {name_of(path): check(read(path)) for path in NOTEBOOKS}
    return {name: faults for name, faults in found.items() if faults}


def test_there_are_notebooks():
    assert {o.parent.name for o in NOTEBOOKS} >= {'nbs', 'api', 'beyond', *FOLDERS} and PAPERS


def test_titles():

    def faults(notebook):
        cell, lines = notebook['cells'][0], text_of(notebook['cells'][0]['source']).splitlines()
        good = (
            cell['cell_type'] == 'markdown'
            and len(lines) == 3
            and lines[0].startswith('# ')
            and not lines[1]
            and lines[2].startswith('> ')
        )
        return [] if good else lines[:4]

    assert every(faults) == {}


def test_no_errors_are_saved():
    assert (
        every(lambda notebook: [o['evalue'] for o in outputs(notebook) if o['output_type'] == 'error']) == {}
    )


def test_no_progress_bars_or_warnings_are_saved():
    assert (
        every(
            lambda notebook: [text_of(o['text'])[:80] for o in outputs(notebook) if o.get('name') == 'stderr']
        )
        == {}
    )


def test_outputs_need_no_kernel():
    assert every(lambda notebook: [1 for o in outputs(notebook) if WIDGET in o.get('data', {})]) == {}
    assert every(lambda notebook: [o for o in notebook['metadata'] if o == 'widgets']) == {}


def test_nothing_of_a_machine():
    assert every(lambda notebook: sorted({o for text in texts(notebook) for o in private(text)})) == {}


@pytest.mark.parametrize(
    'text',
    [
        'saved in /tmp/tmpa1/x',
        '"/root/a"',
        '(/home/me)',
        "Path('/mnt/main')",
        'https://registry.example/simple',
        '--index-url',
        'http://a.mirror.net/a',
        'http://10.1.2.3:8080/simple',
    ],
)
def test_what_is_private_is_seen(text):
    assert private(text)


@pytest.mark.parametrize(
    'text',
    [
        'FREQNB_HOME/runs',
        'a/tmp/b',
        'https://arxiv.org/abs/1905.13545',
        '~/.cache/freqnb',
        'http://127.0.0.1:8000/',
        'nbs/home/x',
    ],
)
def test_what_is_public_is_not(text):
    assert private(text) == []


def test_small():
    sizes = {name_of(path): path.stat().st_size for path in NOTEBOOKS}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


def test_cells_are_short():
    "The longest; test_style measures the median and the ninth tenth"

    def faults(notebook):
        cells = [own_lines(o) for o in notebook['cells'] if o['cell_type'] == 'code']
        return [f'{len(lines)} lines: {lines[0]}' for lines in cells if len(lines) > LONGEST]

    assert every(faults) == {}


def test_expected_failures_are_real():
    "`expect_fail` is a context manager: given a function it calls nothing and checks nothing"
    assert (
        every(lambda notebook: [o for o in texts(notebook) if re.search(r'expect_fail\(\s*lambda', o)]) == {}
    )


def test_public_functions_are_described():
    "Each parameter that a reader meets in the documentation has its comment there"
    from fastcore.docments import docments

    from freqnb._modidx import d

    found = {}
    for module, symbols in d['syms'].items():
        loaded = __import__(module, fromlist=['*'])
        for name in (o.removeprefix(f'{module}.') for o in symbols):
            function = getattr(loaded, name, None) if '.' not in name else None
            if name.startswith('_') or not callable(function):
                continue
            if not (function.__doc__ or '').strip():
                found[f'{module}.{name}'] = 'no docstring'
            if isinstance(function, type):
                continue
            more = {
                o.name for o in inspect.signature(function).parameters.values() if o.kind is o.VAR_KEYWORD
            }  # docments leaves these out
            bare = [o for o, said in docments(function).items() if o not in more | {'return'} and not said]
            if bare:
                found[f'{module}.{name}'] = bare
    assert found == {}


@pytest.fixture
def copy(tmp_path):
    "A copy of what nbdev reads, with a place of its own for Jupyter's signatures"
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    ignored = shutil.ignore_patterns('.*', '__pycache__', 'kernel-*')
    for name in ('nbs', 'freqnb'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def nbdev(command, folder, *options):
    "Run a command of nbdev in a folder"
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ('IN_TEST', 'FREQNB_SCALE', 'FREQNB_DATA', 'FREQNB_SEEDS')
    }
    env |= dict(
        JUPYTER_DATA_DIR=str(folder / 'jupyter'),
        IPYTHONDIR=str(folder / 'ipython'),
        FREQNB_HOME=str(folder / 'home'),
        FREQNB_SCALE='smoke',
    )
    return subprocess.run(
        [BIN / f'nbdev-{command}', *options], cwd=folder, env=env, capture_output=True, text=True, timeout=900
    )


def exported(folder):
    return {o.name: o.read_text('utf-8') for o in folder.glob('*.py')}


def test_exports_are_in_step(copy):
    "Also finds modules that no notebook exports any more, and an index that lags behind"
    before = exported(copy / 'freqnb')
    for name in before:
        if name not in BY_HAND:
            (copy / 'freqnb' / name).unlink()
    done = nbdev('export', copy)
    assert done.returncode == 0, done.stderr
    after = exported(copy / 'freqnb')
    assert sorted(after) == sorted(before) == sorted(exported(ROOT / 'freqnb'))
    differ = [name for name in after if after[name] != exported(ROOT / 'freqnb')[name]]
    assert differ == [], 'run nbdev-export'


def test_notebooks_are_clean(copy):
    done = nbdev('clean', copy)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert [
        name_of(path)
        for path in NOTEBOOKS
        if (copy / path.relative_to(ROOT)).read_bytes() != path.read_bytes()
    ] == [], 'run nbdev-clean'
    assert every(lambda notebook: [1 for cell in notebook['cells'] if cell.get('execution_count')]) == {}


# The papers' notebooks run in test_reproduce.py. The others run here, in four parts that the workers share; those with
# exercises go on with the solutions.
LIBRARY = [name_of(path) for path in NOTEBOOKS if path not in PAPERS]


@pytest.mark.long
@pytest.mark.parametrize('part', range(4))
def test_library_notebooks_pass(copy, part):
    for path in BEYOND:
        notebook = with_solutions(read(path))
        (copy / path.relative_to(ROOT)).write_text(json.dumps(notebook), 'utf-8')
    names = '|'.join(map(re.escape, LIBRARY[part::4]))
    done = nbdev('test', copy, '--path-re', rf'nbs/({names})\.ipynb$', '--n-workers', '0')
    assert done.returncode == 0 and 'Success' in done.stdout, f'{done.stdout[-3000:]}\n{done.stderr[-6000:]}'


@pytest.mark.parametrize('path', PAPERS, ids=name_of)
def test_paper_notebook_shows_its_record(path):
    "What is claimed was measured, is committed, and stands in the saved outputs to the last digit"
    title = path.stem.lstrip('0123456789_')
    files = sorted((NBS / 'records' / path.parent.name).glob(f'{title}-*.json'))
    assert files, f'no record nbs/records/{path.parent.name}/{title}-*.json'
    shown = html.unescape('\n'.join(output_texts(read(path))))
    for record in map(read_record, files):
        assert record.name == f'{path.parent.name}/{title}' and record.claims
    missing = {
        file.name: [
            str(o.effect)
            for o in read_record(file).claims
            if str(o.effect) not in shown or o.verdict not in shown.lower()
        ]
        for file in files
    }
    assert [] in missing.values(), f'claims whose numbers or verdicts no output shows: {missing}'


def test_committed_verdicts_can_be_computed_again():
    "From the answers in the records; nothing is reproduced outside a paper's own setting"
    for file in sorted((NBS / 'records').rglob('*.json')):
        record = read_record(file)
        states = {row[-1] for row in check(record).rows}
        assert states <= {'the same', 'no answers kept'}, (file, states)
        assert all(claim.setting for claim in record.claims if not claim.control)
        own = [claim for claim in record.claims if claim.verdict in ('reproduced', 'contradicted')]
        assert not any(claim.lacking for claim in own), file
        assert not own or record.data['name'] == 'cifar10', file


def test_other_records_say_what_the_page_says():
    "A claim measured elsewhere, or by a tool, is one of the notebook's own: else it stands beside nothing"
    for file in sorted((NBS / 'records').rglob('*.json')):
        record = read_record(file)
        shown = {claim.says for claim in best_committed(record.name).claims}
        assert {claim.says for claim in record.claims} <= shown, file


@pytest.mark.parametrize('path', PAPERS, ids=name_of)
def test_paper_notebook_has_a_slider_that_works_without_a_kernel(path):
    pages = [text_of(o['data']['text/html']) for o in outputs(read(path)) if 'text/html' in o.get('data', {})]
    explorers = [o for o in pages if 'freqnb-explorer' in o]
    assert explorers and all('type="range"' in o and 'alt="' in o and 'data:image/' in o for o in explorers)
    assert not any('<script' in o for o in explorers)


# What a reader meets on a paper's page, from top to bottom


@pytest.mark.parametrize('path', PAPERS, ids=name_of)
def test_paper_page_opens_with_a_question_and_its_answer(path):
    "Nothing but imports stands between them; the answer says on which images and networks it rests"
    title, *cells = read(path)['cells']
    assert text_of(title['source']).splitlines()[0].endswith('?')
    first = next(cell for cell in cells if 'import ' not in text_of(cell['source']))
    assert first['cell_type'] == 'code' and re.search(r'^in_short\($', text_of(first['source']), re.M)
    pages = [text_of(o['data']['text/html']) for o in first['outputs'] if 'text/html' in o.get('data', {})]
    assert len(pages) == 1 and 'class="in-short"' in pages[0]
    badge = re.search(r'<small class="badge">(.+?)</small>', pages[0])
    assert badge and re.search(r'; (\d[\d,]* (test|training) images, )?\d+ networks?; scale \w+', badge[1]), badge


@pytest.mark.parametrize('path', PAPERS + BEYOND, ids=name_of)
def test_page_has_exercises(path):
    "Two to four, each complete; their solutions run in test_reproduce.py, or with the library's notebooks above"
    exercises = exercises_of(read(path))
    assert [o.number for o in exercises] == list(range(1, len(exercises) + 1)) and 2 <= len(exercises) <= 4
    assert len({o.title for o in exercises}) == len(exercises)
    for exercise in exercises:
        assert 1 <= exercise.minutes <= 30 and exercise.question and exercise.hint and exercise.meaning
        ast.parse(exercise.starter)
        assert any(isinstance(o, ast.Assert) for o in ast.walk(ast.parse(exercise.solution))), exercise.title
        code = f'{exercise.starter}\n{exercise.solution}'.splitlines()
        assert [line for line in code if len(line) > 120] == []


WHOLE = """### Exercise 1: One

**Easy, 5 minutes.** Add.

```python
1
```

<details>
<summary>Hint</summary>

Two.

</details>

<details>
<summary>Solution</summary>

```python
assert 1 + 1 == 2
```

Two.

</details>"""


def test_an_exercise_is_read():
    exercise = read_exercise(WHOLE)
    assert (exercise.level, exercise.minutes, exercise.question) == ('easy', 5, 'Add.')
    assert (exercise.starter, exercise.hint, exercise.meaning) == ('1', 'Two.', 'Two.')
    notebook = dict(cells=[dict(cell_type='markdown', source=WHOLE.splitlines(True))])
    assert with_solutions(notebook)['cells'][-1]['source'] == exercise.solution == 'assert 1 + 1 == 2'


@pytest.mark.parametrize(
    'part', ['**Easy, 5 minutes.** ', '```python\n1\n```', '<summary>Hint</summary>\n', '\nassert 1 + 1 == 2']
)
def test_an_exercise_that_lacks_something_is_found(part):
    assert part in WHOLE
    with pytest.raises(AssertionError):
        read_exercise(WHOLE.replace(part, ''))


@pytest.mark.parametrize('path', PAPERS, ids=name_of)
def test_paper_page_leads_to_others(path):
    "At least one of another paper; a link is called as the page it leads to"
    sources = [text_of(cell['source']) for cell in read(path)['cells'] if cell['cell_type'] == 'markdown']
    (related,) = [source for source in sources if source.startswith('## Related pages')]
    links = re.findall(r'^- \[(.+?)\]\((\S+?\.ipynb)\): \w', related, re.M)
    targets = [(path.parent / link).resolve() for _, link in links]
    assert len(links) >= 2 and path not in targets
    assert [name for name, _ in links] == [title_of(target) for target in targets]
    assert {target.parent.name for target in targets} - {path.parent.name}
