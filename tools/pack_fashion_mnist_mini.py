"""Pack the first 10,000 training and 2,000 test images of Fashion-MNIST into the .npz that the package carries.

    python tools/pack_fashion_mnist_mini.py FOLDER_OF_THE_IDX_FILES freqnb/assets/fashion_mnist_mini.npz

The bytes depend on nothing but the pixels, the labels and zlib. The sha256 that it prints belongs into
nbs/api/02_arrays.ipynb.
"""

import gzip
import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

COUNTS = {'train': 10_000, 't10k': 2_000}


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The uint8 array in an IDX file, plain or gzipped."""
    plain = folder / name
    content = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f'{name}.gz').read_bytes())
    rank = content[3]
    shape = np.frombuffer(content[4 : 4 + 4 * rank], '>u4')
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def pack(folder: Path) -> bytes:
    """The whole .npz, with fixed dates."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for part, count in COUNTS.items():
            suffix = 'train' if part == 'train' else 'test'
            for key, name in (('x', f'{part}-images-idx3-ubyte'), ('y', f'{part}-labels-idx1-ubyte')):
                array = io.BytesIO()
                np.lib.format.write_array(array, read_idx(folder, name)[:count].copy(), version=(1, 0))
                member = zipfile.ZipInfo(f'{key}_{suffix}.npy', date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                member.create_system = 3
                packed.writestr(member, array.getvalue(), compresslevel=9)
    return file.getvalue()


def main(folder: str, output: str) -> None:
    """Write the file beside its place, then move it there."""
    content, beside = pack(Path(folder)), Path(f'{output}.new')
    beside.write_bytes(content)
    os.replace(beside, output)
    print(f'{output}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}')


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
