"""`python -m freqnb` is the command `freqnb`; Ctrl-C while it still imports is a line, too."""

import sys


def main():
    "Run the command that was typed"
    try:
        from freqnb.cli import main
    except KeyboardInterrupt:
        print('freqnb: stopped; run again to go on', file=sys.stderr)
        return 130
    return main()


if __name__ == '__main__':
    sys.exit(main())
