"""Write constraints.txt: the installed version of each direct requirement.

python tools/renew_constraints.py
"""

from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HEAD = """\
# The versions of the direct requirements that the tests last passed with; renewed every week by
# .github/workflows/constraints.yml. Use them with: pip install -c constraints.txt -e .
"""


def direct_requirements() -> list[str]:
    """The names in settings.ini, those of the extras included."""
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    keys = [key for key in ini['freqnb'] if key.endswith('requirements')]
    names = {Requirement(text).name for key in keys for text in ini['freqnb'][key].split()}
    return sorted(names, key=str.lower)


def main() -> None:
    """Replace the file."""
    pins = [f'{name}=={version(name).partition("+")[0]}\n' for name in direct_requirements()]
    (ROOT / 'constraints.txt').write_text(HEAD + ''.join(pins))


if __name__ == '__main__':
    main()
