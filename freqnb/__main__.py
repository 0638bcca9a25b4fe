"""`python -m freqnb` is the command `freqnb`; Ctrl-C while it still imports is a line, too."""

import ctypes
import os
import sys

KEPT = {'MALLOC_TRIM_THRESHOLD_': -1, 'MALLOC_MMAP_THRESHOLD_': -3}  # glibc's variables, and options of `mallopt`


def keep_memory():
    "Let freed memory wait for the next batch: giving it back to Linux takes up to a tenth of a training on larger images"
    library = ctypes.CDLL(None) if sys.platform == 'linux' else None
    for name, option in KEPT.items():
        if hasattr(library, 'mallopt') and name not in os.environ:
            os.environ[name] = str(2**30)  # for processes that this one starts
            library.mallopt(option, 2**30)


def main():
    "Run the command that was typed"
    keep_memory()
    try:
        from freqnb.cli import main
    except KeyboardInterrupt:
        print('freqnb: stopped; run again to go on', file=sys.stderr)
        return 130
    return main()


if __name__ == '__main__':
    sys.exit(main())
