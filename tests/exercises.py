"""The exercises of the pages, as their Markdown holds them, and their solutions as cells to run."""

import re
from dataclasses import dataclass

CODE = re.compile(r'```python\n(.+?)\n```', re.S)
HEADING = re.compile(r'### Exercise (\d+): (.+)')
LEVEL = re.compile(r'\*\*(Easy|Medium|Hard), (\d+) minutes\.\*\* (.+)', re.S)


@dataclass
class Exercise:
    "What a reader gets to see, the last two when a fold is opened"

    number: int
    title: str
    level: str
    minutes: int
    question: str
    starter: str
    hint: str
    solution: str
    meaning: str


def folded(text, summary):
    "What stands in a fold of Markdown; blank lines around it let Jupyter render it"
    found = re.search(rf'\n\n<details>\n<summary>{summary}</summary>\n\n(.+?)\n\n</details>(\n\n|$)', text, re.S)
    assert found, f'no fold {summary!r} in {text[:60]!r}'
    return found[1]


def read_exercise(text):
    "An exercise from its cell; an AssertionError says what it lacks"
    heading = HEADING.match(text)
    before_folds = text.partition('\n\n<details>')[0]
    question = LEVEL.search(before_folds)
    assert heading and question, f'no level and minutes in {text[:60]!r}'
    starters, solutions = CODE.findall(before_folds), CODE.findall(folded(text, 'Solution'))
    assert len(starters) == len(solutions) == 1, f'{len(starters)} starters, {len(solutions)} solutions: {text[:60]!r}'
    return Exercise(
        int(heading[1]),
        heading[2],
        question[1].lower(),
        int(question[2]),
        CODE.sub('', question[3]).strip(),
        starters[0],
        folded(text, 'Hint'),
        solutions[0],
        CODE.sub('', folded(text, 'Solution')).strip(),
    )


def exercises_of(notebook):
    "The exercises of a notebook, each in a cell of its own"
    sources = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'markdown']
    return [read_exercise(source) for source in sources if source.startswith('### Exercise')]


def with_solutions(notebook):
    "A notebook that goes on with the solutions of its exercises"
    more = []
    for exercise in exercises_of(notebook):
        cell = dict(cell_type='code', id=f'solution-{exercise.number}', metadata={}, outputs=[])
        more.append(cell | dict(source=exercise.solution, execution_count=None))
    return notebook | dict(cells=notebook['cells'] + more)
