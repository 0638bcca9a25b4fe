"""The facts of packaging agree, and what is built from them works outside the repository and offline."""

import ast
import email
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from contextlib import suppress
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    entry_points,
    packages_distributions,
    requires,
    version,
)
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_floors import API, MODULES, OTHERS, ROOT

import freqnb

FLOORS = {o.stem.partition('_')[2]: int(o.stem.partition('_')[0]) for o in API}
PEERS = {
    'bench_images': {'imagecorruptions', 'scikit-image', 'skimage'},
    'bench_networks': {'torchattacks'},
    '07_peers': {'torchattacks', 'foolbox'},
}  # rows are skipped where they are not; they belong into an environment of their own
EVERYTHING = ('requirements', 'coco_requirements', 'cluster_requirements', 'models_requirements', 'dev_requirements')
EXTRAS = {
    '07_detection': 'coco_requirements',
    'jobs': 'cluster_requirements',
    'network_files': 'models_requirements',
}  # what the message of the missing import says how to install
# Commands for those who write the project: they may need what only `.[dev]` installs
AUTHORS = {'site', 'pages', 'app', 'bench', 'bench_images', 'bench_networks'}
HEAVY = (
    'IPython',
    'ipykernel',
    'ipywidgets',
    'nbdev',
    'nbclient',
    'nbformat',
    'jupyterlab',
    'matplotlib',
    'torchvision',
    'PIL',
    'scipy',
    'pandas',
    'smalldocs',
)
LEFT_OUT = shutil.ignore_patterns(
    '.*', '__pycache__', '*.egg-info', 'build', 'dist', '_site*', '_proc', 'nbs', 'tests'
)


def settings():
    "The facts of settings.ini, read as setup.py reads them"
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    return ini['freqnb']


def required(*keys):
    "Requirements by name"
    return {
        canonicalize_name(o.name): o
        for o in map(Requirement, ' '.join(settings()[key] for key in keys).split())
    }


def metadata(file):
    "The metadata inside a wheel or an sdist"
    if file.suffix == '.whl':
        with zipfile.ZipFile(file) as opened:
            return email.message_from_bytes(
                opened.read(next(o for o in opened.namelist() if o.endswith('.dist-info/METADATA')))
            )
    with tarfile.open(file) as opened:
        return email.message_from_bytes(
            opened.extractfile(
                next(o for o in opened if o.name.count('/') == 1 and o.name.endswith('/PKG-INFO'))
            ).read()
        )


def run(*command, cwd, **env):
    "Run in a folder outside the repository, without a way to a package index"
    variables = (
        {k: v for k, v in os.environ.items() if not k.startswith(('FREQNB_', 'PIP_', 'PYTHONPATH'))}
        | dict(PIP_NO_INDEX='1')
        | env
    )
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "An sdist of the working tree, and a wheel built from that sdist"
    folder = tmp_path_factory.mktemp('build')
    shutil.copytree(ROOT, folder / 'source', ignore=LEFT_OUT)
    run(
        sys.executable,
        '-m',
        'build',
        '--no-isolation',
        '--outdir',
        folder / 'dist',
        folder / 'source',
        cwd=folder,
    )
    (sdist,) = (folder / 'dist').glob('*.tar.gz')
    (wheel,) = (folder / 'dist').glob('*.whl')
    return sdist, wheel


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    "A folder that the wheel is installed into"
    folder = tmp_path_factory.mktemp('installed')
    run(
        sys.executable,
        '-m',
        'pip',
        'install',
        '--no-deps',
        '--no-index',
        '--no-build-isolation',
        '--target',
        folder,
        built[1],
        cwd=folder,
    )
    return folder


def test_one_version(built):
    "It is written in __init__.py, and everything else reads it there"
    text = (ROOT / 'freqnb' / '__init__.py').read_text()
    assert re.findall(r"__version__ = ['\"]([^'\"]+)", text) == [freqnb.__version__] == [version('freqnb')]
    assert [metadata(o)['Version'] for o in built] == [freqnb.__version__] * 2
    assert (
        'version' not in settings()
        and 'version' not in tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    )


def test_metadata(built):
    project, facts, found = (
        tomllib.loads((ROOT / 'pyproject.toml').read_text())['project'],
        settings(),
        metadata(built[1]),
    )
    assert (found['Name'], found['Summary'], found['Requires-Python']) == (
        project['name'],
        project['description'],
        project['requires-python'],
    )
    assert found['Author'] == facts['author'] and facts['license'] in (found['License'] or '') + (
        found['License-Expression'] or ''
    )
    assert (ROOT / 'LICENSE').read_text().startswith(f'{facts["license"]} License')
    assert found.get_payload().startswith((ROOT / 'README.md').read_text('utf-8')[:200])
    base = {
        canonicalize_name(Requirement(o).name) for o in found.get_all('Requires-Dist') if 'extra' not in o
    }
    assert base == set(required('requirements'))
    assert set(found.get_all('Provides-Extra')) == {'coco', 'cluster', 'models', 'dev'}


def test_requirements_are_lower_bounds():
    bounds = {name: str(o.specifier) for name, o in required(*EVERYTHING).items()}
    assert {k: v for k, v in bounds.items() if not v.startswith('>=') or ',' in v} == {
        'smalldocs': '==0.5.4'
    }, 'smalldocs is young, and pinned'


def test_what_is_installed_satisfies_them():
    everything = required(*EVERYTHING)
    found = {name: version(name) for name in everything}
    fits = {name: o.specifier.contains(found[name], prereleases=True) for name, o in everything.items()}
    assert [name for name, fit in fits.items() if not fit] == []


def test_constraints_are_the_direct_requirements():
    "Each once, at a version that the requirements allow"
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith('#')]
    everything = required(*EVERYTHING)
    names = [canonicalize_name(pin.name) for pin in pins]
    assert sorted(names) == sorted(everything)
    for name, pin in zip(names, pins):
        ((operator, number),) = [(o.operator, o.version) for o in pin.specifier]
        assert operator == '==' and everything[name].specifier.contains(number)


def code(path):
    "What a module or a notebook runs"
    if path.suffix == '.py':
        return path.read_text('utf-8')
    return '\n'.join(
        ''.join(cell['source'])
        for cell in json.loads(path.read_text('utf-8'))['cells']
        if cell['cell_type'] == 'code'
    )


@functools.cache
def owners():
    "Which distributions bring which modules: slow to find out"
    return packages_distributions()


@functools.cache
def imports(path):
    "Distributions that a module or a notebook imports, at any depth, or runs with `python -m`"
    tree, found = ast.parse(code(path)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {o.name.split('.')[0] for o in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split('.')[0])
        if isinstance(node, ast.List):
            words = [getattr(o, 'value', None) for o in node.elts]
            found |= {b for a, b in zip(words, words[1:]) if a == '-m' and isinstance(b, str)}
    return {
        canonicalize_name(owners()[o][0]) if o in owners() else o
        for o in found - set(sys.stdlib_module_names) - {'freqnb'}
    }


def direct(names):
    "What the named distributions themselves require, as far as they are installed"
    found = set()
    for name in names:
        with suppress(PackageNotFoundError):
            found |= {canonicalize_name(Requirement(o).name) for o in requires(name) or () if 'extra ==' not in o}
    return found


@pytest.mark.parametrize('path', MODULES + OTHERS, ids=lambda o: o.stem)
def test_imports_are_required(path):
    "By settings.ini, or by something that stands there"
    extra = EXTRAS.get(path.stem, 'dev_requirements' if path.stem in AUTHORS else 'requirements')
    listed = set(required('requirements', extra))
    assert imports(path) - listed - direct(listed) - PEERS.get(path.stem, set()) == set()


def test_requirements_are_imported():
    used = set().union(*map(imports, MODULES + OTHERS))
    assert set(required('requirements')) - used == set()


def test_entry_points_load():
    commands = entry_points(group='freqnb.commands')
    assert {o.name for o in commands} >= {
        'reproduce',
        'report',
        'lab',
        'save',
        'train',
        'data',
        'docs',
        'bench',
    }
    loaded = {o.name: o.load() for o in commands}
    assert all(callable(o) and o.__doc__ for o in loaded.values())
    scripts = [o for o in distribution('freqnb').entry_points if o.group == 'console_scripts']
    assert [(o.name, o.value) for o in scripts] == [('freqnb', 'freqnb.__main__:main')] and callable(
        scripts[0].load()
    )
    (index,) = [o for o in distribution('freqnb').entry_points if o.group == 'nbdev']
    own = [o for o in MODULES if re.search(r'^(def|class|async def) ', o.read_text(), re.M)]
    assert set(index.load()['syms']) == {f'freqnb.{o.stem}' for o in own}


def test_sdist_and_wheel_hold_what_is_needed(built):
    sdist, wheel = built
    with tarfile.open(sdist) as opened:
        source = {o.name.partition('/')[2] for o in opened if o.isfile()}
    with zipfile.ZipFile(wheel) as opened:
        binary = set(opened.namelist())
    package = {
        o.relative_to(ROOT).as_posix()
        for o in (ROOT / 'freqnb').rglob('*')
        if o.is_file() and '__pycache__' not in o.parts
    }
    assert source >= package | {
        'settings.ini',
        'setup.py',
        'pyproject.toml',
        'README.md',
        'LICENSE',
        'MANIFEST.in',
    }
    assert {o for o in binary if not o.startswith('freqnb-')} == package
    assert any(o.endswith('LICENSE') for o in binary) and any(
        'fashion_mnist' in o and 'LICENSE' in o.upper() for o in binary
    )


def test_wheel_works_elsewhere(installed, tmp_path):
    "The bundled images load, a filter splits them, the commands are there"
    code = """import freqnb.data, freqnb.spectrum, freqnb.cli
images = freqnb.data.load('fashion_mnist_mini').test.take(5).float()
low, high = freqnb.spectrum.split_bands(images, 4)
assert (low + high - images).abs().max() < 1e-5
print(freqnb.__file__)"""
    where = run(sys.executable, '-c', code, cwd=tmp_path, PYTHONPATH=str(installed)).strip()
    assert Path(where).is_relative_to(installed)
    out = run(
        sys.executable,
        installed / 'bin' / 'freqnb',
        'data',
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        FREQNB_HOME=str(tmp_path / 'home'),
    )
    assert 'fashion_mnist_mini' in out and str(installed) in out


def test_modules_load_nothing_heavy(tmp_path):
    "One fresh interpreter imports every module, from the ground up, and says which of them brought what"
    names = sorted(FLOORS, key=FLOORS.get)
    code = f"""import importlib, sys
for name in {names!r}:
    before = set(sys.modules)
    importlib.import_module('freqnb.' + name)
    new = [o for o in {HEAVY!r} if o in sys.modules and o not in before]
    if new: print(name, *new)"""
    assert {'data', 'train', 'plots', 'cli'} <= set(names)
    assert run(sys.executable, '-c', code, cwd=tmp_path) == ''
