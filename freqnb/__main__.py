"""`python -m freqnb` is the command `freqnb`."""

import sys

from freqnb.cli import main

if __name__ == '__main__':
    sys.exit(main())
