"""Compare the metrics of two folders of records, such as those of two versions of the code.

Usage: python tools/compare_metrics.py BEFORE AFTER [TOLERANCE]   (1e-6 unless given; exits 1 where a metric differs)
"""

import json
import sys
from pathlib import Path


def metrics_of(folder):
    "Value, low and high of every metric, by record and name; the scale and the data stand in the file's name"
    found = {}
    for path in sorted(folder.rglob('*.json')):
        record = path.relative_to(folder).with_suffix('').as_posix()
        for name, metric in json.loads(path.read_text(encoding='utf-8'))['metrics'].items():
            found[record, name] = [metric[key] for key in ('value', 'low', 'high')]
    return found


def compare(before, after, tolerance):
    "One line a record, and every metric that differs; whether all are equal"
    old, new = metrics_of(before), metrics_of(after)
    equal = True
    for record in sorted({record for record, _ in old | new}):
        names = [name for other, name in old | new if other == record]
        missing = [name for name in names if (record, name) not in old or (record, name) not in new]
        apart = {
            name: max(abs(a - b) for a, b in zip(old[record, name], new[record, name], strict=True))
            for name in names
            if name not in missing
        }
        print(f'{record}: {len(apart)} metrics in both, largest difference {max(apart.values(), default=0):.1e}')
        for name in missing:
            print(f'    only {"after" if (record, name) in new else "before"}: {name}')
        for name, distance in apart.items():
            if not distance <= tolerance:
                print(f'    {name}: {old[record, name]} before, {new[record, name]} after')
        equal = equal and not missing and all(distance <= tolerance for distance in apart.values())
    return equal and bool(old)


if __name__ == '__main__':
    folders = [Path(name) for name in sys.argv[1:3]]
    tolerance = float(sys.argv[3]) if len(sys.argv) > 3 else 1e-6
    sys.exit(not compare(*folders, tolerance))
