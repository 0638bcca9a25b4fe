"""The English of notebooks and library: American spelling, and words that must not come back."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(o for o in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)
PAGES = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md')]

# British spellings. What a paper wrote stays as it wrote it: quotations are not read.
STEMS = (
    'colour', 'grey', 'centre[sd]?\\b', 'behaviour', 'neighbour', 'favour', 'honour', 'humour', 'rumour', 'vapour',
    'rigour', 'labell[ei]', 'modell[ei]n?g?', 'cancell[ei]', 'travell[ei]', 'signall[ei]', 'fulfil\\b', 'skilful',
    'artefact', 'catalogue', 'programme\\b', 'licence', 'defence', 'judgement', 'analys(?:e\\b|ed|ing)', 'whilst',
    'amongst', 'learnt\\b', 'spelt\\b', 'towards\\b', 'maths\\b', 'metres?\\b', 'litres?\\b', 'aluminium',
)
ISE = (
    'normal', 'general', 'regular', 'optim', 'penal', 'initial', 'minim', 'maxim', 'visual', 'summar', 'recogn',
    'random', 'equal', 'real', 'organ', 'character', 'categor', 'memor', 'standard', 'emphas', 'priorit', 'special',
    'util', 'critic', 'apolog', 'local', 'stabil', 'symbol', 'quant', 'vector', 'serial', 'token', 'parametr',
    'parameter', 'discret', 'linear', 'final', 'factor', 'sanit', 'synchron', 'custom', 'parallel', 'polar',
    'harmon', 'neutral', 'modern',
)
BRITISH = re.compile(rf'\b\w*(?:{"|".join(STEMS)})\w*|\b\w*(?:{"|".join(ISE)})is(?:e|es|ed|er|ers|ing|ations?)\b', re.I)

# What was said before, and what to say instead
PRIVATE = {
    r'along training': 'during training',
    r'attacked_loss': 'adversarial_cross_entropy',
    r'perturb_weights': 'awp',
    r'estimate_norm': 'update_batch_norm',
    r'images_at_once': 'default_batch_size',
    r'rule of the house|by the house': 'the sentence without it',
    r'no attacker is bound': 'this is a diagnosis, not an attack',
    r'not to be had': 'could not be obtained',
    r'(?:has|have) broken nothing': 'do not count as adversarial',
    r'climbs? the loss': 'raises the loss',
    r'utilize[sd]?|utilizing': 'use',
    r'in order to': 'to',
}
WORDS = re.compile('|'.join(rf'\b(?:{o})' for o in PRIVATE), re.I)


def prose(markdown):
    "Markdown without code, addresses, formulas and quotations"
    text = re.sub(r'```.*?```|\$\$.*?\$\$', ' ', markdown, flags=re.S)
    text = re.sub(r'^>.*$', ' ', text, flags=re.M) if not markdown.lstrip().startswith('# ') else text
    text = re.sub(r'`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+', ' ', text)
    return re.sub(r'"[^"]*"|“[^”]*”', ' ', text)


def spoken(source):
    "Docstrings, descriptions of parameters and comments of Python"
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ''
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    docs = [ast.get_docstring(o) or '' for o in ast.walk(tree) if isinstance(o, kinds)]
    comments = re.findall(r'(?:^|\s)# (.*)$', source, re.M)
    return prose('\n'.join(docs + comments))


@cache
def texts():
    "What each notebook and page says, by its path"
    found = {o.name: prose(o.read_text('utf-8')) for o in PAGES}
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text('utf-8'))['cells']
        read = dict(markdown=prose, code=spoken)
        said = [read[o['cell_type']](''.join(o['source'])) for o in cells if o['cell_type'] in read]
        found[path.relative_to(ROOT).as_posix()] = '\n'.join(said)
    return found


def findings(pattern):
    "The words that a pattern finds, by path, with what stands around them"
    found = {}
    for path, text in texts().items():
        around = [' '.join(text[max(0, m.start() - 30) : m.end() + 30].split()) for m in pattern.finditer(text)]
        if around:
            found[path] = around
    return found


def test_spelling_is_american():
    assert findings(BRITISH) == {}


def test_words_that_must_not_come_back():
    assert findings(WORDS) == {}, PRIVATE


@pytest.mark.parametrize(
    'word',
    [
        'colours', 'grey', 'center-colour', 'labelled', 'normalisation', 'recognised', 'analysed', 'towards',
        'regularising',
    ],
)
def test_a_british_spelling_is_found(word):
    assert BRITISH.search(f'some {word} here')


@pytest.mark.parametrize(
    'word',
    [
        'noise', 'raise', 'promise', 'otherwise', 'precise', 'exercise', 'advertise', 'comprised', 'raised', 'modeling',
        'analysis',
    ],
)
def test_an_american_spelling_is_let_be(word):
    assert not BRITISH.search(f'some {word} here')


def test_quotations_and_code_are_not_read():
    read = prose('A `colour` and "a colour" and $colour$\n\n> a colour of a paper\n\n```\ncolour\n```')
    assert not BRITISH.search(read)
    assert BRITISH.search(spoken('def f(\n    x, # A colour\n): return x'))
    assert BRITISH.search(spoken('def f():\n    "A colour"\n    return 1'))


def test_the_glossary_explains_the_abbreviations():
    "Pages mark a word of the glossary where they use it first"
    known = (ROOT / 'nbs' / 'glossary.ipynb').read_text('utf-8')
    for short in ('FGSM', 'PGD', 'DCT', 'TRADES', 'AT-FR', 'HFC', 'LFC', 'FFT'):
        assert short in known
