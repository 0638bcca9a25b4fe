"""Bad input to `freqnb.data`, the sources that need files of their own, and the laws of its batches."""

import gzip
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from freqnb import arrays, readers
from freqnb.data import Images, StreamedImages, augment, batches, load, planted, sources
from freqnb.images import hold_out
from freqnb.planted import Planted, _shapes, _textures

DEBIAN = Path('/usr/share/datasets/fashion-mnist')
TIDY = {
    f'{part}/{name}/{i}.png': (40 * k + 5 * i, 8)
    for part in ('train', 'test')
    for k, name in enumerate(('cat', 'dog'))
    for i in range(3)
}


def png(gray=0, side=8, mode='L', coding='PNG'):
    file = io.BytesIO()
    Image.new(mode, (side, side), gray if mode == 'L' else (gray,) * 3).save(file, coding)
    return file.getvalue()


def tree(folder, **changes):
    """A folder of pictures; a change gives the content of a path, or leaves it out with None."""
    files = {path: png(*spec) for path, spec in TIDY.items()} | changes
    for path, content in files.items():
        if content is None:
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def zipped(file, **changes):
    files = {f'pets/{path}': png(*spec) for path, spec in TIDY.items()} | changes
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as opened:
        for path, content in files.items():
            if content is not None:
                opened.writestr(path, content)
    return file


def npz(file, **changes):
    x, y = np.arange(8 * 5 * 6, dtype=np.uint8).reshape(8, 5, 6), np.arange(8) % 2
    arrays = dict(x_train=x, y_train=y, x_test=x, y_test=y) | changes
    np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
    return file


def idx(file, array, pack=False):
    content = (
        bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape) + array.tobytes()
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if pack else content)


def idx_folder(folder, pack=False):
    for i, name in enumerate(arrays.IDX_FILES):
        n = 6 if i < 2 else 4
        array = (
            np.arange(n * 16, dtype=np.uint8).reshape(n, 4, 4) if i % 2 == 0 else np.arange(n, dtype=np.uint8)
        )
        idx(folder / (name + '.gz' * pack), array, pack)
    return folder


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path / 'home'))


def refused(kind, *words):
    """Expect an error that holds every one of `words`."""
    return pytest.raises(kind, match='(?s)' + ''.join(f'(?=.*{re.escape(str(word))})' for word in words))


# Trees
@pytest.mark.parametrize('kind', ['tree', 'zip'])
def test_tree_and_zip_give_the_same(tmp_path, kind):
    source = tree(tmp_path / 'pets') if kind == 'tree' else zipped(tmp_path / 'pets.zip')
    for _ in range(2):
        splits = load(source, valid=0)
        assert [tuple(part.x.shape) for part in splits] == [(6, 1, 8, 8), (0, 1, 8, 8), (6, 1, 8, 8)]
        assert (
            splits.train.name == 'pets'
            and splits.train.classes == ('cat', 'dog')
            and splits.train.lossy == ''
        )
        assert splits.train.x[:, 0, 0, 0].tolist() == [0, 40, 5, 45, 10, 50]
        assert splits.train.y.tolist() == [0, 1, 0, 1, 0, 1], 'the classes are dealt out'


def test_color_anywhere_makes_all_color_and_jpeg_is_told(tmp_path):
    splits = load(tree(tmp_path / 'pets', **{'test/dog/0.png': png(9, mode='RGB', coding='JPEG')}))
    assert (
        splits.train.x.shape[1] == 3
        and splits.train.lossy == 'jpeg'
        and 'read from JPEG files' in repr(splits.test)
    )
    assert not list(tmp_path.glob('home/cache/*'))


def test_litter_is_ignored(tmp_path):
    litter = {
        'train/cat/.DS_Store': b'x',
        'train/cat/Thumbs.db': b'x',
        '__MACOSX/train/cat/._1.png': b'x',
        '.git/x': b'x',
        'README.txt': b'x',
        'train/.hidden/1.png': b'x',
        'train/cat/desktop.ini': b'x',
    }
    assert len(load(tree(tmp_path / 'pets', **litter), valid=0).train) == 6
    assert (
        len(load(zipped(tmp_path / 'pets.zip', **{f'pets/{k}': v for k, v in litter.items()}), valid=0).train)
        == 6
    )


def test_missing_folder(tmp_path):
    with refused(FileNotFoundError, tmp_path / 'none', 'no such file or folder'):
        load(tmp_path / 'none')


def test_neither_train_nor_test(tmp_path):
    (tmp_path / 'pets' / 'val').mkdir(parents=True)
    with refused(FileNotFoundError, tmp_path / 'pets', "['val']", 'train/ and test/'):
        load(tmp_path / 'pets')


def test_class_without_images(tmp_path):
    folder = tree(tmp_path / 'pets')
    (folder / 'train' / 'fish').mkdir()
    (folder / 'train' / 'fish' / '.DS_Store').write_bytes(b'')
    with refused(ValueError, folder, 'train/fish holds no images'):
        load(folder)


def test_different_classes(tmp_path):
    with refused(ValueError, 'pets', 'train has 3 classes, test has 2', "['fish']"):
        load(tree(tmp_path / 'pets', **{'train/fish/1.png': png()}))


def test_image_outside_any_class(tmp_path):
    with refused(ValueError, 'pets', 'train/1.png lies in no class'):
        load(tree(tmp_path / 'pets', **{'train/1.png': png()}))


@pytest.mark.parametrize('coding', ['PNG', 'JPEG', 'BMP'])
def test_truncated_image(tmp_path, coding):
    whole = png(7, side=64, mode='RGB', coding=coding)
    folder = tree(tmp_path / 'pets', **{'test/dog/1.png': whole[: len(whole) * 2 // 3]})
    with refused(ValueError, folder / 'test' / 'dog' / '1.png', 'not a readable image'):
        load(folder, size=8)


@pytest.mark.parametrize('content', [b'', b'just text', b'\x89PNG\r\n\x1a\n'])
def test_no_image(tmp_path, content):
    folder = tree(tmp_path / 'pets', **{'train/cat/0.png': content})
    with refused(ValueError, folder / 'train' / 'cat' / '0.png', 'not a readable image'):
        load(folder)


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(file, 'PNG')
    with refused(ValueError, '0.png', 'mode I;16'):
        load(tree(tmp_path / 'pets', **{'train/cat/0.png': file.getvalue()}))


def test_different_sizes(tmp_path):
    folder = tree(tmp_path / 'pets', **{'test/cat/2.png': png(3, side=11)})
    with refused(
        ValueError,
        folder / 'train' / 'cat' / '0.png is 8x8',
        folder / 'test' / 'cat' / '2.png is 11x11',
        'size=',
    ):
        load(folder)
    assert load(folder, size=6).test.x.shape == (6, 1, 6, 6)


def test_size_keeps_the_center(tmp_path):
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    file = io.BytesIO()
    Image.fromarray(wide).save(file, 'PNG')
    splits = load(tree(tmp_path / 'pets', **{'test/cat/0.png': file.getvalue()}), size=10)
    assert (splits.test.x[0] == 200).all()


def test_link_to_its_own_parent(tmp_path):
    folder = tree(tmp_path / 'pets')
    (folder / 'train' / 'cat' / 'again').symlink_to(folder / 'train')
    with refused(ValueError, folder / 'train' / 'cat' / 'again', 'links back'):
        load(folder)


# Zips
@pytest.mark.parametrize(
    'name', ['../x.png', 'pets/../../x.png', '/etc/x.png', '..\\x.png', 'C:\\x.png', 'C:/x.png']
)
def test_zip_that_climbs_out(tmp_path, name):
    with refused(ValueError, tmp_path / 'pets.zip', 'refused', 'climbs out'):
        load(zipped(tmp_path / 'pets.zip', **{name: png()}))
    assert not (tmp_path / 'home').exists()


def test_zip_with_a_link(tmp_path):
    file = zipped(tmp_path / 'pets.zip')
    link = zipfile.ZipInfo('pets/train/cat/9.png')
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(file, 'a') as opened:
        opened.writestr(link, '/etc/passwd')
    with refused(ValueError, file, 'refused', '9.png', 'is a link'):
        load(file)


def test_no_zip(tmp_path):
    (tmp_path / 'pets.zip').write_bytes(b'PK\x03\x04 and no more')
    with refused(ValueError, tmp_path / 'pets.zip', 'not a readable zip'):
        load(tmp_path / 'pets.zip')


def test_damaged_member(tmp_path):
    file = zipped(tmp_path / 'pets.zip')
    with zipfile.ZipFile(file) as opened:
        start = opened.getinfo('pets/test/cat/1.png').header_offset
    content = bytearray(file.read_bytes())
    content[start + 60] ^= 255
    file.write_bytes(content)
    with refused(ValueError, file, 'pets/test/cat/1.png'):
        load(file)


def test_zip_that_changed_is_decoded_again(tmp_path):
    before = load(zipped(tmp_path / 'pets.zip')).test.fingerprint
    after = load(zipped(tmp_path / 'pets.zip', **{'pets/test/cat/0.png': png(77)})).test.fingerprint
    assert before != after and len(list(tmp_path.glob('home/cache/*.pt'))) == 2


def test_damaged_cache_is_named(tmp_path):
    file = zipped(tmp_path / 'pets.zip')
    load(file)
    cache = next(tmp_path.glob('home/cache/*.pt'))
    cache.write_bytes(cache.read_bytes()[:100])
    with refused(ValueError, cache, 'delete it'):
        load(file)


def test_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('no folder')
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path / 'file' / 'home'))
    with pytest.warns(UserWarning, match='not kept'):
        assert len(load(zipped(tmp_path / 'pets.zip')).test) == 6


# Arrays
@pytest.mark.parametrize(
    'changes, kind, words',
    [
        (dict(x_train=np.zeros((8, 5, 6), np.float32)), TypeError, ['x_train is float32', 'expected uint8']),
        (dict(y_train=np.zeros(8)), TypeError, ['y_train is float64', 'expected integers']),
        (dict(x_test=None), ValueError, ['no array x_test', 'expected x_train, y_train, x_test, y_test']),
        (dict(y_test=np.array([{}] * 8)), ValueError, ['not a readable .npz of plain arrays']),
        (dict(y_test=np.arange(7) % 2), ValueError, ['x_test has 8 images, y_test has 7 labels']),
        (dict(y_test=np.arange(8) % 3), ValueError, ['[0, 1]', '[0, 1, 2]']),
        (dict(y_train=np.arange(8) % 2 * 2), ValueError, ['no image of [1]']),
        (dict(y_train=np.arange(8) % 2 - 1), ValueError, ['labels from -1']),
        (dict(y_train=np.zeros((4, 2), int)), ValueError, ['y_train has shape (4, 2)']),
        (dict(y_train=np.array(1)), ValueError, ['y_train has shape ()']),
        (
            dict(x_train=np.zeros((8, 5, 6, 2), np.uint8)),
            ValueError,
            ['x_train has shape (8, 5, 6, 2)', 'C = 1 or 3'],
        ),
        (dict(x_train=np.zeros((8, 7, 6), np.uint8)), ValueError, ['(1, 7, 6)', '(1, 5, 6)']),
        (
            dict(x_train=np.zeros((0, 5, 6), np.uint8), y_train=np.zeros(0, int)),
            ValueError,
            ['y_train is empty'],
        ),
    ],
)
def test_bad_arrays(tmp_path, changes, kind, words):
    with refused(kind, tmp_path / 'mine.npz', *words):
        load(npz(tmp_path / 'mine.npz', **changes))


def test_a_pickle_is_never_run(tmp_path):

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'sprung'),)

    trap = np.empty(1, object)
    trap[0] = Trap()
    npz(tmp_path / 'a.npz', y_test=trap)
    (tmp_path / 'b.npz').write_bytes(pickle.dumps(Trap()))
    for file in (tmp_path / 'a.npz', tmp_path / 'b.npz'):
        with refused(ValueError, file):
            load(file)
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('content', [b'', b'text', b'PK\x03\x04'])
def test_no_npz(tmp_path, content):
    (tmp_path / 'mine.npz').write_bytes(content)
    with refused(ValueError, tmp_path / 'mine.npz', 'not a readable .npz'):
        load(tmp_path / 'mine.npz')


def test_arrays_keep_their_orientation(tmp_path):
    x = np.arange(8 * 5 * 6 * 3, dtype=np.uint8).reshape(8, 5, 6, 3)
    last = load(npz(tmp_path / 'a.npz', x_train=x, x_test=x), valid=0).train.x
    turned = x.transpose(0, 3, 1, 2)
    first = load(npz(tmp_path / 'b.npz', x_train=turned, x_test=turned), valid=0).train.x
    assert torch.equal(last, first) and last.shape == (8, 3, 5, 6) and last[1, 2, 3, 4] == x[1, 3, 4, 2]


# Sets with a name
@pytest.mark.parametrize('pack', [False, True])
@pytest.mark.parametrize('below', ['', 'FashionMNIST/raw'])
def test_idx_files_plain_or_gzipped(tmp_path, pack, below):
    idx_folder(tmp_path / 'root' / below, pack)
    splits = load('fashion_mnist', root=tmp_path / 'root', valid=0)
    assert splits.train.x.shape == (6, 1, 4, 4) and splits.test.x[3, 0, 3, 3] == 63
    assert splits.test.y.tolist() == [0, 1, 2, 3] and splits.test.classes[9] == 'Ankle boot'
    assert next(s for s in sources(tmp_path / 'root') if s.name == 'fashion_mnist').present


@pytest.mark.parametrize(
    'damage, words',
    [
        (lambda c: c[:-5], ['cut short']),
        (lambda c: c + b'x', ['damaged']),
        (lambda c: b'not idx at all', ['not an IDX file']),
    ],
)
def test_damaged_idx(tmp_path, damage, words):
    folder = idx_folder(tmp_path / 'root')
    file = folder / arrays.IDX_FILES[0]
    file.write_bytes(damage(file.read_bytes()))
    with refused(ValueError, file, *words):
        load('mnist', root=folder)


def test_truncated_gzip(tmp_path):
    folder = idx_folder(tmp_path / 'root', pack=True)
    file = folder / f'{arrays.IDX_FILES[0]}.gz'
    file.write_bytes(file.read_bytes()[:-12])
    with refused(ValueError, file, 'not readable'):
        load('mnist', root=folder)


def test_idx_counts_that_differ(tmp_path):
    folder = idx_folder(tmp_path / 'root')
    idx(folder / arrays.IDX_FILES[1], np.zeros(5, np.uint8))
    with refused(ValueError, folder / arrays.IDX_FILES[0], '(6, 4, 4)', '(5,)'):
        load('mnist', root=folder)


def offline(monkeypatch):
    import urllib.request

    def fail(*args, **kwargs):
        raise OSError('no network here')

    monkeypatch.setattr(urllib.request, 'urlopen', fail)


@pytest.mark.parametrize(
    'name, file',
    [
        ('cifar10', 'data_batch_1'),
        ('cifar100', 'meta'),
        ('svhn', 'test_32x32.mat'),
        ('mnist', 't10k-labels-idx1-ubyte'),
        ('fashion_mnist', 'FashionMNIST'),
    ],
)
def test_neither_files_nor_network(tmp_path, monkeypatch, name, file):
    offline(monkeypatch)
    with refused(FileNotFoundError, name, tmp_path / 'root', 'could not be downloaded', 'Put ', file):
        load(name, root=tmp_path / 'root')


def test_cifar10_files(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    offline(monkeypatch)
    folder, pixels = tmp_path / 'cifar-10-batches-py', np.arange(10 * 3072, dtype=np.uint8).reshape(10, 3072)
    folder.mkdir()
    for name in (*(f'data_batch_{k}' for k in range(1, 6)), 'test_batch'):
        (folder / name).write_bytes(pickle.dumps(dict(data=pixels, labels=list(range(10)))))
    names = [f'kind {k}' for k in range(10)]
    (folder / 'batches.meta').write_bytes(pickle.dumps(dict(label_names=names)))
    for attribute in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR10, attribute, [[name, None] for name, _ in getattr(CIFAR10, attribute)])
    monkeypatch.setattr(CIFAR10, 'meta', CIFAR10.meta | {'md5': None})
    splits = load('cifar10', root=tmp_path)
    assert [len(part) for part in splits] == [40, 10, 10] and splits.test.classes == tuple(names)
    assert torch.equal(splits.test.x, torch.from_numpy(pixels).view(10, 3, 32, 32))
    assert next(s for s in sources(tmp_path) if s.name == 'cifar10').present


def test_svhn_files(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    offline(monkeypatch)
    pixels, labels = (
        np.arange(32 * 32 * 3 * 10, dtype=np.uint8).reshape(32, 32, 3, 10),
        np.arange(1, 11)[:, None],
    )
    for name in ('train_32x32.mat', 'test_32x32.mat'):
        savemat(tmp_path / name, dict(X=pixels, y=labels))
    monkeypatch.setattr(SVHN, 'split_list', {k: [*v[:2], None] for k, v in SVHN.split_list.items()})
    test = load('svhn', root=tmp_path).test
    assert test.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert torch.equal(test.x, torch.from_numpy(pixels).permute(3, 2, 0, 1))


@pytest.mark.parametrize('name', ['cifar11', 'Planted'])
def test_unknown_name(name):
    with refused(
        ValueError, repr(name), 'planted, fashion_mnist_mini, fashion_mnist, mnist, cifar10, cifar100, svhn'
    ):
        load(name)


def test_path_of_another_kind(tmp_path):
    (tmp_path / 'pets.tar').write_bytes(b'')
    with refused(ValueError, tmp_path / 'pets.tar', 'expected a folder, a .zip or an .npz'):
        load(tmp_path / 'pets.tar')


@pytest.mark.parametrize(
    'arguments, word',
    [(dict(valid=1), 'valid is 1'), (dict(valid=-0.1), 'valid is -0.1'), (dict(size=0), 'size is 0')],
)
def test_bad_arguments(tmp_path, arguments, word):
    with refused(ValueError, word):
        load(tree(tmp_path / 'pets'), **arguments)


def test_damaged_asset(tmp_path):
    file = tmp_path / 'fashion_mnist_mini.npz'
    with refused(FileNotFoundError, file):
        arrays.read_mini(file)
    content = bytearray(arrays.MINI.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with refused(ValueError, file, 'sha256', arrays.MINI_SHA256):
        arrays.read_mini(file)


def test_asset_carries_its_license():
    assert 'Zalando SE' in arrays.MINI.with_name('fashion_mnist_mini.LICENSE.txt').read_text()


@pytest.mark.skipif(not DEBIAN.exists(), reason='needs the package dataset-fashion-mnist')
def test_asset_is_packed_from_fashion_mnist(tmp_path):
    script = Path(__file__).parent.parent / 'tools' / 'pack_fashion_mnist_mini.py'
    whole = load('fashion_mnist', root=DEBIAN, valid=0)
    mini = load('fashion_mnist_mini', valid=0)
    assert mini.train.fingerprint == whole.train.take(10000).fingerprint
    assert mini.test.fingerprint == whole.test.take(2000).fingerprint
    packed = [tmp_path / 'a.npz', tmp_path / 'b.npz']
    for file in packed:
        subprocess.run([sys.executable, script, DEBIAN, file], check=True, capture_output=True)
    assert packed[0].read_bytes() == packed[1].read_bytes()


# Streams
def test_a_tree_larger_than_memory_streams(tmp_path, monkeypatch):
    folder = tree(tmp_path / 'pets', **{'train/cat/0.png': png(9, mode='RGB')})
    whole = load(folder, valid=0.34)
    monkeypatch.setattr(readers, '_free_memory', lambda: 1000)
    stream = load(folder, valid=0.34)
    assert isinstance(stream.train, StreamedImages) and 'streamed from' in repr(stream.train)
    assert [len(part) for part in stream] == [len(part) for part in whole] == [4, 2, 6]
    for part, other in zip(stream, whole):
        assert (part.name, part.classes, part.y.tolist()) == (other.name, other.classes, other.y.tolist())
        assert torch.equal(part.take(2).x, other.take(2).x)
        seeded = [
            list(images.batches(4, torch.Generator().manual_seed(3), pad=1, flip=True))
            for images in (part, other)
        ]
        for (a, b), (c, d) in zip(*seeded, strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)
    assert stream.train.fingerprint != stream.test.fingerprint
    assert len(list(stream.test.batches(4, drop_last=True))) == 1


def test_a_stream_names_the_bad_file(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, '_free_memory', lambda: 1000)
    test = load(tree(tmp_path / 'pets', **{'test/dog/1.png': b'text', 'test/cat/1.png': png(0, side=9)})).test
    with pytest.raises(ValueError, match=r'dog/1\.png: not a readable image'):
        list(test[torch.tensor([0, 3])].batches(2))
    with pytest.raises(ValueError, match=r'cat/0\.png is 8x8 and .*cat/1\.png is 9x9'):
        list(test[torch.tensor([0, 2])].batches(2))


def test_a_zip_larger_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, '_free_memory', lambda: 1000)
    with refused(MemoryError, tmp_path / 'pets.zip', 'unpack it'):
        load(zipped(tmp_path / 'pets.zip'))


# Laws

shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 3), st.booleans(), st.integers(0, 99), st.booleans())
def test_augment_is_a_crop_of_the_padded_image_or_its_mirror(shape, pad, flip, seed, uint8):
    x = torch.randint(1, 255, shape, dtype=torch.uint8)
    x = x if uint8 else x.float() - 100
    out = augment(x, torch.Generator().manual_seed(seed), pad, flip)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert torch.equal(out, augment(x, torch.Generator().manual_seed(seed), pad, flip))
    padded = torch.nn.functional.pad(x, [pad] * 4)
    for image, source in zip(out, padded):
        crops = [
            source[:, i : i + shape[2], j : j + shape[3]]
            for i in range(2 * pad + 1)
            for j in range(2 * pad + 1)
        ]
        assert any(torch.equal(image, crop) or (flip and torch.equal(image, crop.flip(-1))) for crop in crops)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 5), st.one_of(st.none(), st.integers(0, 9)), st.booleans())
def test_batches_hold_every_image_once_beside_its_label(shape, batch_size, seed, drop_last):
    x, y = torch.randint(256, shape, dtype=torch.uint8), torch.arange(shape[0])
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    parts = list(batches(x, y, batch_size, generator, drop_last=drop_last))
    assert all(
        torch.equal(a, x[b] / 255) and a.is_contiguous(memory_format=torch.channels_last) for a, b in parts
    )
    labels = [k for _, b in parts for k in b.tolist()]
    assert len(labels) == len(set(labels)) == (len(y) // batch_size * batch_size if drop_last else len(y))
    assert seed is not None or labels == list(range(len(labels)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0, 0.99), st.integers(0, 9))
def test_held_out_images_are_the_wanted_fraction_of_each_class(labels, valid, seed):
    y = torch.tensor(labels)
    numbered = torch.arange(len(y), dtype=torch.uint8).view(-1, 1, 1, 1)
    images = Images(numbered, y, tuple('abcd'), 'numbered')
    splits = hold_out(images, images[:0], valid, seed)
    again = hold_out(images, images[:0], valid, seed)
    assert torch.equal(splits.valid.x, again.valid.x) and torch.equal(splits.train.x, again.train.x)

    both = torch.cat([splits.train.x, splits.valid.x]).flatten()
    assert torch.equal(both.sort().values, numbered.flatten()), 'every image is in one part'
    for label in y.unique():
        count = int((splits.valid.y == label).sum())
        total = int((y == label).sum())
        assert count < total and (abs(count - valid * total) <= 1 or count == total - 1)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([(32, 32), (33, 40), (29, 31), (64, 30)]),
    st.sampled_from([1, 3]),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_planted_signals_stay_in_their_ring(size, channels, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    down, across = (torch.fft.fftfreq(k, 1 / k) for k in size)
    radius = (down[:, None].square() + across.square()).sqrt()
    for band, make in (((1, 4), _shapes), ((10, 14), _textures)):
        drawn = make(band, 1.0, classes, *size)(3, generator)
        energy = torch.fft.fft2(drawn.double()).abs().square().sum((0, 1))
        assert energy[(radius < band[0]) | (radius > band[1])].sum() / energy.sum() < 1e-9
        assert torch.allclose(drawn.square().mean((2, 3)), torch.ones(classes, 3).double(), atol=1e-9)
    images = planted(9, size, channels, classes, conflict=True, seed=seed)
    assert images.x.shape == (9, channels, *size) and (images.shapes != images.textures).all()
    assert images.x.min() >= 0 and images.x.max() <= 255 and torch.equal(images.y, images.shapes)


def test_planted_classes_do_not_depend_on_the_seed():
    means = [
        torch.stack([p.float()[p.y == k].mean(0).flatten() for k in range(4)])
        for p in (planted(2000, high=None, seed=s) for s in (0, 1))
    ]
    close = torch.corrcoef(torch.cat(means))[:4, 4:]
    assert (close.diag() > 0.9).all() and (close - close.diag().diag()).abs().max() < 0.6


def test_planted_parts_keep_both_labels():
    part = planted(20, conflict=True)[torch.tensor([3, 1])]
    assert type(part) is Planted and len(part.shapes) == len(part.textures) == 2
    only = planted(20, low=None)
    assert only.shapes is None and torch.equal(only.y, only.textures)
    neither = planted(20, low_strength=0, high=None)
    assert neither.shapes is None and neither.textures is None and len(neither) == 20


def test_fingerprint_ignores_the_layout():
    x, y = torch.randint(256, (4, 3, 5, 6), dtype=torch.uint8), torch.arange(4)
    a, b = (Images(i, y, tuple('abcd'), 'x') for i in (x, x.contiguous(memory_format=torch.channels_last)))
    assert a.fingerprint == b.fingerprint != Images(x, y, tuple('abce'), 'x').fingerprint


def test_import_is_light():
    code = (
        'import sys, freqnb.data; '
        'print(sorted({"torchvision", "PIL", "scipy", "matplotlib.pyplot"} & set(sys.modules)))'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == '[]'
