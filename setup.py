"""Hand the facts of settings.ini to setuptools; pyproject.toml holds the rest."""

from configparser import ConfigParser

from setuptools import find_packages, setup

ini = ConfigParser(delimiters=['='])
ini.read('settings.ini', encoding='utf-8')
facts = ini['freqnb']
coco = facts['coco_requirements'].split()
cluster = facts['cluster_requirements'].split()
models = facts['models_requirements'].split()

COMMANDS = dict(
    reproduce='cli',
    report='cli',
    lab='cli',
    save='cli',
    train='cli',
    robust='cli',
    data='cli',
    docs='site',
    voila='app',
    bench='bench',
    sweep='sweep',
    zoo='zoo',
    inspect='inspect_command',
    compare='inspect_command',
)

setup(
    author=facts['author'],
    license=facts['license'],
    keywords=facts['keywords'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['freqnb', 'freqnb.*']),
    package_data={'freqnb': ['assets/**/*', 'py.typed']},
    install_requires=facts['requirements'].split(),
    extras_require={
        'coco': coco,
        'cluster': cluster,
        'models': models,
        'dev': [*facts['dev_requirements'].split(), *coco, *cluster, *models],
    },
    entry_points={
        'nbdev': ['freqnb=freqnb._modidx:d'],
        'console_scripts': ['freqnb=freqnb.__main__:main'],
        'freqnb.commands': [f'{name}=freqnb.{module}:{name}' for name, module in COMMANDS.items()],
    },
)
