"""Lay out the code cells of notebooks: a statement a line, at most 110 columns.

    python tools/tidy.py nbs/api/01_spectrum.ipynb ...

Statements and the bodies of functions go through `ruff format`. Signatures with a description of each parameter and
the fields of classes stay as they are written, because ruff would move their comments; so do functions of one line.
The syntax tree of a cell never changes. A cell that does not parse, such as one with a magic, is left alone.
"""

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

COLUMNS, ONE_LINE = 110, 88
RUFF = Path(sys.executable).with_name('ruff')
OPTIONS = ['--isolated', '--line-length', str(COLUMNS), '--config', 'format.quote-style="single"']
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def ruff_format(text: str, depth: int = 0) -> str:
    """Statements as ruff lays them out, `depth` blocks deep."""
    nested = textwrap.indent(textwrap.dedent(text), '    ' * depth)
    blocks = ''.join('    ' * i + 'if True:\n' for i in range(depth))
    command = [RUFF, 'format', '-q', *OPTIONS, '--stdin-filename', 'cell.py', '-']
    done = subprocess.run(command, input=blocks + nested, capture_output=True, text=True, encoding='utf-8')
    if done.returncode:
        raise SyntaxError(done.stderr)
    return '\n'.join(done.stdout.split('\n')[depth:]).rstrip('\n')


def first_line(node: ast.AST) -> int:
    """Where a definition begins, with its decorators."""
    return min(part.lineno for part in (node, *getattr(node, 'decorator_list', ())))


def signature_end(node: ast.FunctionDef) -> int:
    """The last line of a function's parameters and of what it returns."""
    parts = [*ast.walk(node.args), node.returns]
    return max([node.lineno, *(part.end_lineno for part in parts if hasattr(part, 'end_lineno'))])


def tidy_function(node: ast.FunctionDef, lines: list[str], depth: int = 0) -> str:
    """Its signature and docstring as they are, then its body laid out."""
    start, first = first_line(node), node.body[0]
    whole = '\n'.join(lines[start - 1 : node.end_lineno])
    if first.lineno <= signature_end(node):
        opening = lines[node.lineno - 1]
        is_short = node.end_lineno == node.lineno and len(opening) <= ONE_LINE
        return whole if is_short or '#' in opening else ruff_format(whole, depth)

    has_docstring = ast.get_docstring(node, clean=False) is not None
    kept = first.end_lineno if has_docstring else first_line(first) - 1
    head, body = lines[start - 1 : kept], '\n'.join(lines[kept : node.end_lineno])
    return '\n'.join([*head, ruff_format(body, depth + 1)] if body.strip() else head)


def tidy_class(node: ast.ClassDef, lines: list[str]) -> str:
    """Its fields as they are, its functions laid out."""
    parts, done = [], first_line(node) - 1
    for function in [part for part in node.body if isinstance(part, FUNCTIONS)]:
        parts += lines[done : first_line(function) - 1]
        parts.append(tidy_function(function, lines, depth=1))
        done = function.end_lineno
    return '\n'.join(parts + lines[done : node.end_lineno])


def tidy_statements(lines: list[str]) -> list[str]:
    """What stands between two definitions; of the empty lines before and after it, one stays."""
    written = [line for line in lines if line.strip()]
    if not written:
        return [''] if lines else []

    text = '\n'.join(lines)
    only_comments = all(line.lstrip().startswith('#') for line in written)
    laid_out = text.strip('\n') if only_comments else ruff_format(text)
    before = [] if lines[0].strip() else ['']
    after = [] if lines[-1].strip() else ['']
    return [*before, laid_out, *after]


def tidy(source: str) -> str:
    """A cell, laid out."""
    tree, lines = ast.parse(source), source.split('\n')
    parts, done = [], 0
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            parts += tidy_statements(lines[done : first_line(node) - 1])
            parts.append((tidy_class if isinstance(node, ast.ClassDef) else tidy_function)(node, lines))
            done = node.end_lineno
    parts += tidy_statements(lines[done:])

    result = '\n'.join(parts).strip('\n')
    result = re.sub(r'\n{3,}', '\n\n', result)
    if ast.dump(ast.parse(result)) != ast.dump(tree):
        raise SyntaxError('the syntax tree would change')
    return result


def tidy_notebook(path: Path) -> None:
    """Every code cell of a notebook, in place."""
    notebook = json.loads(path.read_text('utf-8'))
    for i, cell in enumerate(notebook['cells']):
        if cell['cell_type'] != 'code':
            continue
        try:
            cell['source'] = tidy(''.join(cell['source'])).splitlines(keepends=True)
        except SyntaxError as error:
            print(f'{path.name}, cell {i}: left alone ({str(error)[:100]})')
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + '\n', 'utf-8')


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        tidy_notebook(Path(name))
