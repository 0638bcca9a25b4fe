"""What a public project is expected to have: a citation, a changelog, workflows, hooks, issue templates."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))
TEMPLATES = sorted((ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml'))


def read(path):
    "A YAML file"
    return yaml.safe_load(path.read_text('utf-8'))


def steps(path):
    "What a workflow runs"
    jobs = read(path)['jobs'].values()
    return [step['run'] for job in jobs for step in job['steps'] if 'run' in step]


def test_citation_names_the_papers():
    "As the registry does; the version stands in freqnb/__init__.py alone"
    from freqnb.papers import PAPERS

    citation = read(ROOT / 'CITATION.cff')
    assert citation['cff-version'] == '1.2.0' and {'message', 'title', 'authors'} <= set(citation)
    assert citation['authors'] == [{'name': 'the freqnb authors'}] and 'version' not in citation
    assert [o['title'] for o in citation['references']] == [paper.title for paper in PAPERS.values()]
    assert all({'type', 'authors', 'year'} <= set(o) for o in citation['references'])


def test_changelog_keeps_its_form():
    text = (ROOT / 'CHANGELOG.md').read_text('utf-8')
    releases = re.findall(r'^## \[(.+?)\]', text, re.M)
    assert text.startswith('# Changelog\n') and releases[0] == 'Unreleased'
    assert set(re.findall(r'^### (.+)', text, re.M)) <= {
        'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security',
    }  # fmt: skip


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda o: o.stem)
def test_workflows_run_what_exists(path):
    "Commands of freqnb with their own options, files that are there"
    from freqnb.cli import commands, parse

    lines = [line for step in steps(path) for line in step.splitlines()]
    assert lines and read(path)['permissions']
    for line in lines:
        words = line.split()
        if words[:3] == ['python', '-m', 'freqnb']:
            parse(commands()[words[3]].load(), words[4:])
        assert [o for o in words if o.startswith('tools/') and not (ROOT / o).exists()] == []


def test_the_test_line_is_that_of_the_readme():
    (command,) = [step for step in steps(ROOT / '.github/workflows/tests.yml') if 'README.md' in step]
    pattern = re.search("grep '(.+?)' README.md", command)[1]
    found = [o for o in (ROOT / 'README.md').read_text('utf-8').splitlines() if re.search(pattern, o)]
    assert len(found) == 1 and found[0].endswith(tuple('abcdefghijklmnopqrstuvwxyz0123456789'))


def test_three_systems_install_it():
    install = read(ROOT / '.github/workflows/tests.yml')['jobs']['install']
    assert {o.partition('-')[0] for o in install['strategy']['matrix']['os']} == {
        'ubuntu',
        'macos',
        'windows',
    }


@pytest.mark.parametrize('path', TEMPLATES, ids=lambda o: o.stem)
def test_issue_templates_are_forms(path):
    form = read(path)
    assert {'name', 'description', 'body'} <= set(form)
    assert all(o['type'] in ('textarea', 'input', 'markdown') for o in form['body'])
    assert len({o['id'] for o in form['body']}) == len(form['body'])


def test_hooks_run_what_is_installed():
    (local,) = read(ROOT / '.pre-commit-config.yaml')['repos']
    assert local['repo'] == 'local' and [o['id'] for o in local['hooks']] == ['ruff', 'nbdev-clean']
    assert all(o['language'] == 'system' for o in local['hooks'])


def test_constraints_are_named_in_the_readme():
    assert 'constraints.txt' in (ROOT / 'README.md').read_text('utf-8')
