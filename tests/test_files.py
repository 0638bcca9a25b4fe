"""Files that other libraries read wrongly without a word: each is read as a viewer shows it, or named."""

import io
import os
import shutil
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from freqnb import readers
from freqnb.cli import main
from freqnb.data import CONTENT, Images, StreamedImages, is_part_of, load
from freqnb.evaluate import accuracy, correct, robust_accuracy, robust_correct
from freqnb.images import content_of, dealing_order, image_keys, in_runs
from freqnb.train import Recipe, fit


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path / 'home'))


@pytest.fixture
def streams(monkeypatch):
    "Every tree is larger than memory"
    monkeypatch.setattr(readers, '_fits', lambda *_: False)


def encoded(image, form='PNG', **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def gray(value, side=8):
    return encoded(Image.new('L', (side, side), value))


def tree(folder, files):
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def zipped(file, files):
    with zipfile.ZipFile(file, 'w') as opened:
        for path, content in files.items():
            opened.writestr(path, content)
    return file


def pair(content, name='0.png'):
    "A set of two classes with one gray picture each; in class a, the training picture is `content`"
    others = {path: gray(9) for path in ('train/b/0.png', 'test/a/0.png', 'test/b/0.png')}
    return {f'train/a/{name}': content} | others


def first_of(folder, content, name='0.png', **options):
    "The first training picture of a set, loaded without warnings"
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        return load(tree(folder, pair(content, name)), valid=0, **options).train


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# Orientation
TURNED = {
    1: lambda o: o,
    2: lambda o: o[:, ::-1],
    3: lambda o: o[::-1, ::-1],
    4: lambda o: o[::-1],
    5: lambda o: o.swapaxes(0, 1),
    6: lambda o: np.rot90(o),
    7: lambda o: o[::-1, ::-1].swapaxes(0, 1),
    8: lambda o: np.rot90(o, -1),
}  # How a picture is stored that an orientation tag turns back


@pytest.mark.parametrize('tag', TURNED)
@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'WEBP'])
def test_a_photograph_stands_upright(tmp_path, tag, form):
    upright = noise(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = tag
    options = dict(lossless=True) if form == 'WEBP' else {}
    stored = Image.fromarray(np.ascontiguousarray(TURNED[tag](upright)))
    train = first_of(tmp_path / 'pets', encoded(stored, form, exif=exif, **options))
    assert torch.equal(train.x[0], torch.from_numpy(upright).permute(2, 0, 1))


def test_a_photograph_is_turned_before_it_is_cut(tmp_path):
    upright = np.zeros((24, 8, 3), np.uint8)
    upright[:8], upright[8:16] = 90, 200
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = encoded(Image.fromarray(np.rot90(upright).copy()), exif=exif)
    train = first_of(tmp_path / 'pets', stored, size=8)
    assert (train.x[0] == 200).all()


# Depth
def deep_png(array, color):
    "A PNG of 16 bits a channel"
    import struct
    import zlib

    h, w = array.shape[:2]
    raw = b''.join(b'\0' + row.astype('>u2').tobytes() for row in array)

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', w, h, 16, color, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b'')
    )


def deep_tiff():
    "An uncompressed TIFF of 8 x 8 pixels with 16 bits in each of three channels"
    import struct

    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, 384)]
    at = 14 + 384
    entries = b''.join(struct.pack('<HHII', *tag) for tag in tags)
    head = b'II*\0' + struct.pack('<I', at) + struct.pack('<HHH', 16, 16, 16)
    return head + bytes(384) + struct.pack('<H', len(tags)) + entries + struct.pack('<I', 0)


DEEP = {
    'color.png': lambda: deep_png(np.arange(192).reshape(8, 8, 3), 2),
    'gray.png': lambda: deep_png(np.arange(64).reshape(8, 8, 1), 0),
    'gray with alpha.png': lambda: deep_png(np.arange(128).reshape(8, 8, 2), 4),
    'color with alpha.png': lambda: deep_png(np.arange(256).reshape(8, 8, 4), 6),
    'color.ppm': lambda: b'P6 8 8 65535 ' + bytes(384),
    'plain.ppm': lambda: b'P3 8 8 1023 ' + b'7 ' * 192,
    'gray.pgm': lambda: b'P5 8 8 65535 ' + bytes(128),
    'color.tif': deep_tiff,
    'floats.tif': lambda: encoded(Image.new('F', (8, 8)), 'TIFF'),
    'integers.tif': lambda: encoded(Image.new('I', (8, 8)), 'TIFF'),
}


@pytest.mark.parametrize('name', DEEP)
def test_more_than_8_bits_are_refused_by_name(tmp_path, name):
    folder = tree(tmp_path / 'pets', pair(DEEP[name](), name))
    with pytest.raises(ValueError, match=rf'train/a/{name}: not a readable image \(.*expected .*8'):
        load(folder)


def test_8_bits_of_another_range_are_scaled(tmp_path):
    train = first_of(tmp_path / 'pets', b'P2 8 8 15 ' + b'15 ' * 64, '0.pgm')
    assert (train.x[0] == 255).all()


@pytest.mark.skipif(not features.check('jpg_2000'), reason='needs Pillow with JPEG 2000')
def test_a_deep_jpeg_2000_is_refused(tmp_path):
    shallow = encoded(Image.new('RGB', (8, 8)), 'JPEG2000', no_jp2=True)
    assert first_of(tmp_path / 'pets', shallow, '0.j2k').lossy == 'jpeg2000'
    deep = bytearray(shallow)
    deep[deep.index(b'\xff\x4f\xff\x51') + 42] = 15
    with pytest.raises(ValueError, match=r'0\.j2k: not a readable image \(16 bits a channel; expected 8\)'):
        load(tree(tmp_path / 'deep', pair(bytes(deep), '0.j2k')))


# Transparency
def cut_out(seed):
    "A red square on what is fully transparent, with noise hidden in it"
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., :3] = noise(8, 8, 3, seed=seed)
    image[2:6, 2:6] = 200, 60, 30, 255
    return Image.fromarray(image)


def keyed():
    "A red square on black, where black is the transparent color"
    image = Image.new('RGB', (8, 8))
    image.paste((200, 60, 30), (2, 2, 6, 6))
    return encoded(image, transparency=(0, 0, 0))


SEE_THROUGH = {
    'noise below': lambda: encoded(cut_out(0)),
    'other noise below': lambda: encoded(cut_out(1)),
    'palette': lambda: encoded(cut_out(2).quantize(8)),
    'color key': keyed,
    'webp': lambda: encoded(cut_out(3), 'WEBP', lossless=True, exact=True),
}


@pytest.mark.parametrize('kind', SEE_THROUGH)
def test_white_lies_under_what_is_transparent(tmp_path, kind):
    folder = tree(tmp_path / 'pets', pair(SEE_THROUGH[kind]()))
    with pytest.warns(
        UserWarning, match='1 of 4 images are transparent in places, so white was laid.*a/0.png'
    ):
        x = load(folder, valid=0).train.x[0]
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    assert (x[:, ~inside] == 255).all()
    red = torch.tensor([[200], [60], [30]], dtype=torch.uint8)
    assert (x[:, inside] == red).all()


def test_an_opaque_alpha_changes_nothing_and_says_nothing(tmp_path):
    pixels = noise(8, 8, 4)
    pixels[..., 3] = 255
    train = first_of(tmp_path / 'pets', encoded(Image.fromarray(pixels)))
    assert torch.equal(train.x[0].permute(1, 2, 0), torch.from_numpy(pixels[..., :3]))


def test_half_transparent_gray_is_half_white(tmp_path):
    folder = tree(tmp_path / 'pets', pair(encoded(Image.new('LA', (8, 8), (0, 51)))))
    with pytest.warns(UserWarning, match='transparent'):
        assert (load(folder, valid=0).train.x[0] == 204).all()


def test_remarks_of_a_zip_are_given_again_from_the_cache(tmp_path):
    file = zipped(tmp_path / 'pets.zip', pair(encoded(cut_out(0))))
    for _ in range(2):
        with pytest.warns(UserWarning, match='1 of 4 images are transparent'):
            load(file)
    assert len(list(tmp_path.glob('home/cache/*.pt'))) == 1


def test_remarks_of_a_stream_are_given_once(tmp_path, streams):
    splits = load(tree(tmp_path / 'pets', pair(encoded(cut_out(0)))), valid=0)
    with pytest.warns(UserWarning, match='some images are transparent'):
        list(splits.train.batches(2))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        list(splits.train.batches(2))


# Codings
def test_the_first_frame_of_an_animation_is_taken_and_said(tmp_path):
    frames = [Image.new('L', (8, 8), value) for value in (50, 100)]
    film = encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r'1 of 4 images are animated .* such as train/a/0\.gif'):
        assert (load(tree(tmp_path / 'pets', pair(film, '0.gif')), valid=0).train.x[0] == 50).all()


def test_cmyk_is_said(tmp_path):
    folder = tree(tmp_path / 'pets', pair(encoded(Image.new('CMYK', (8, 8)), 'JPEG'), '0.jpg'))
    with pytest.warns(UserWarning, match=r'1 of 4 images are in CMYK.*such as train/a/0\.jpg'):
        load(folder)


def coded(form, **options):
    return encoded(Image.fromarray(noise(8, 8, 3)), form, **options)


@pytest.mark.parametrize(
    'form, options, lossy',
    [
        ('JPEG', {}, 'jpeg'),
        ('WEBP', {}, 'webp'),
        ('WEBP', dict(lossless=True), ''),
        ('WEBP', dict(exif=b'Exif\0\0'), 'webp'),
        ('TIFF', dict(compression='jpeg'), 'jpeg'),
        ('TIFF', dict(compression='tiff_lzw'), ''),
        ('BMP', {}, ''),
    ],
)
def test_lossy_codings_have_a_name(tmp_path, form, options, lossy):
    splits = load(tree(tmp_path / 'pets', pair(coded(form, **options), '0.png')), valid=0)
    assert splits.train.lossy == lossy
    assert ('read from' in repr(splits.train)) == bool(lossy)


def test_several_lossy_codings_are_all_named(tmp_path):
    files = pair(coded('JPEG'), '0.jpg') | {'test/b/0.png': coded('WEBP')}
    assert load(tree(tmp_path / 'pets', files)).test.lossy == 'jpeg, webp'


@pytest.mark.skipif(not features.check('avif'), reason='needs Pillow with AVIF')
def test_avif_is_lossy(tmp_path):
    assert load(tree(tmp_path / 'pets', pair(coded('AVIF'), '0.avif'))).train.lossy == 'avif'


def test_a_stream_of_jpegs_after_a_png_is_lossy(tmp_path, streams):
    files = pair(gray(3)) | {'train/b/0.JPG': coded('JPEG')}
    assert load(tree(tmp_path / 'pets', files)).train.lossy == 'jpeg'


@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP'])
def test_a_file_that_was_cut_is_named(tmp_path, form):
    whole = encoded(Image.fromarray(noise(64, 64, 3)), form)
    folder = tree(tmp_path / 'pets', pair(whole[: len(whole) // 2], '0.img'))
    with pytest.raises(ValueError, match=r'train/a/0\.img: not a readable image'):
        load(folder, size=8)


def test_an_empty_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r'train/a/0\.png: not a readable image \(it is empty\)'):
        load(tree(tmp_path / 'pets', pair(b'')))


# Folders
BY_NUMBER = [
    ['0', '1', '2', '9', '10', '11', '100'],
    ['1_cat', '2_dog', '10_bird'],
    ['class 8', 'class 9', 'class 10'],
    ['007', '8', '0010'],
]


@pytest.mark.parametrize('names', BY_NUMBER)
@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_numbers_in_names_give_the_order(tmp_path, names, kind):
    files = {f'{part}/{name}/0.png': gray(i) for part in ('train', 'test') for i, name in enumerate(names)}
    source = tree(tmp_path / 'pets', files) if kind == 'folder' else zipped(tmp_path / 'pets.zip', files)
    test = load(source, valid=0).test
    assert test.classes == tuple(names)
    assert test.x[:, 0, 0, 0].tolist() == test.y.tolist() == list(range(len(names)))


def test_names_without_numbers_stand_in_the_order_of_their_letters(tmp_path):
    names = ['b', 'Dog', 'a', 'cat-2x', 'n01440764', 'n01443537']
    files = {f'{part}/{name}/0.png': gray(0) for part in ('train', 'test') for name in names}
    assert load(tree(tmp_path / 'pets', files)).test.classes == tuple(sorted(names))


def spelled(form, name='caf\u00e9'):
    return unicodedata.normalize(form, name)


@pytest.mark.parametrize('forms', [('NFC', 'NFD'), ('NFD', 'NFC'), ('NFD', 'NFD')])
@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_two_spellings_are_one_class(tmp_path, forms, kind):
    files = {}
    for part, form in zip(('train', 'test'), forms):
        files |= {f'{part}/{spelled(form)}/0.png': gray(1), f'{part}/bar/0.png': gray(2)}
    source = tree(tmp_path / 'pets', files) if kind == 'folder' else zipped(tmp_path / 'pets.zip', files)
    assert load(source, valid=0).train.classes == ('bar', spelled('NFC'))


def test_two_spellings_in_one_part_are_one_class(tmp_path):
    files = {f'train/{spelled(form)}/{form}.png': gray(1) for form in ('NFC', 'NFD')}
    files |= {f'test/{spelled("NFC")}/0.png': gray(1)}
    splits = load(zipped(tmp_path / 'pets.zip', files), valid=0)
    assert len(splits.train) == 2 and len(splits.train.classes) == 1


SHADOWS = (
    '._0.png',
    '.DS_Store',
    'Thumbs.db',
    'thumbs.db',
    'Desktop.ini',
    '@eaDir/0.png',
    '.thumbnails/0.png',
)


@pytest.mark.parametrize('shadow', SHADOWS)
def test_shadows_are_no_images(tmp_path, shadow):
    files = pair(gray(1)) | {
        f'train/a/{shadow}': b'x',
        f'train/{shadow}': b'x',
        f'__MACOSX/train/a/{shadow}': b'',
    }
    assert len(load(tree(tmp_path / 'pets', files), valid=0).train) == 2
    assert len(load(zipped(tmp_path / 'pets.zip', files), valid=0).train) == 2


def both(**parts):
    "A picture in each of two classes, for each part"
    return {f'{part}/{k}/0.png': gray(value) for part, value in parts.items() for k in 'ab'}


def test_val_beside_train_is_what_is_reported_on(tmp_path):
    imagenet = both(train=1, val=2) | {'test/unlabeled.png': gray(3)}
    for files in (both(train=1, val=2), both(train=1, validation=2), imagenet):
        folder = tree(tmp_path / str(len(files)), files)
        assert (load(folder, valid=0).test.x == 2).all()
        shutil.rmtree(folder)


def test_a_val_that_is_left_out_is_named(tmp_path):
    with pytest.warns(UserWarning, match='pets: val/ is not read; test/ holds the images to report on'):
        assert (load(tree(tmp_path / 'pets', both(train=1, val=2, test=3))).test.x == 3).all()


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_a_test_part_alone_is_for_measuring(tmp_path, kind):
    files = both(test=5)
    source = tree(tmp_path / 'pets', files) if kind == 'folder' else zipped(tmp_path / 'pets.zip', files)
    splits = load(source)
    assert [len(part) for part in splits] == [0, 0, 2] and splits.train.classes == ('a', 'b')
    with pytest.raises(ValueError, match='0 images; expected at least one batch'):
        fit(Recipe('planted', width=4, epochs=1), splits, progress=False)


def test_a_streamed_test_part_alone(tmp_path, streams):
    splits = load(tree(tmp_path / 'pets', both(test=5)))
    assert [len(part) for part in splits] == [0, 0, 2] and splits.train.fingerprint


FLAT = {
    'folders of images that belong to no part': {f'{k}/{i}.png': gray(0) for k in 'ab' for i in range(2)},
    'holds 2 files and no folders (0.png, 1.png)': {f'{i}.png': gray(0) for i in range(2)},
    "holds ['train']": both(train=1),
    'lies in no class': {'train/0.png': gray(0), 'test/0.png': gray(0)},
}


@pytest.mark.parametrize('words', FLAT)
def test_other_layouts_are_named(tmp_path, words):
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        load(tree(tmp_path / 'pets', FLAT[words]))
    assert words in str(raised.value) and 'expected' in str(raised.value)


def test_a_level_too_many_is_said(tmp_path):
    files = {f'{part}/animals/{k}/0.png': gray(0) for part in ('train', 'test') for k in 'ab'}
    with pytest.warns(
        UserWarning, match="holds one class, 'animals'; expected a folder for each class right below test/"
    ):
        load(tree(tmp_path / 'pets', files))


def test_a_class_without_test_images_is_named(tmp_path):
    files = both(train=1, test=1)
    del files['test/a/0.png']
    with pytest.raises(ValueError, match=r"train has 2 classes, test has 1; .*different: \['a'\]"):
        load(tree(tmp_path / 'pets', files))


@pytest.mark.parametrize('written', [lambda path: f'./{path}', lambda path: path.replace('/', '\\')])
def test_zips_of_other_programs_are_read(tmp_path, written):
    files = {written(path): content for path, content in both(train=1, test=2).items()}
    splits = load(zipped(tmp_path / 'pets.zip', files), valid=0)
    assert splits.test.classes == ('a', 'b') and (splits.test.x == 2).all()


def test_a_zip_that_holds_a_file_twice_is_refused(tmp_path):
    file = zipped(tmp_path / 'pets.zip', both(train=1, test=1))
    with zipfile.ZipFile(file, 'a') as opened, pytest.warns(UserWarning, match='Duplicate'):
        opened.writestr('train/a/0.png', gray(2))
    with pytest.raises(ValueError, match=r'pets\.zip: holds train/a/0\.png twice'):
        load(file)


# Arrays
def npz(file, **changes):
    x, y = noise(40, 5, 6), np.arange(40) % 4
    np.savez(file, **(dict(x_train=x, y_train=y, x_test=x, y_test=y) | changes))
    return file


LABELS = {
    'one-hot': (
        np.eye(4)[np.arange(40) % 4],
        r'y_train has shape \(40, 4\), one-hot rows.*y_train\.argmax\(1\)',
    ),
    'one-hot integers': (np.eye(4, dtype=int)[np.arange(40) % 4], 'one-hot rows; expected class numbers'),
    'floats': (np.arange(40) % 4 + 0.0, 'y_train is float64; expected integers'),
    'strings': (np.array(['cat', 'dog'] * 20), 'y_train is <U3; expected integers'),
    'from 1 on': (np.arange(40) % 4 + 1, r'labels from 1 to 4, no image of \[0\]'),
    'far apart': (
        np.arange(40) % 4 * 10**15,
        r'labels from 0 to 3000000000000000, no image of \[1, 2, 3, 4, 5\]',
    ),
    'pairs': (np.zeros((40, 2), int), r'y_train has shape \(40, 2\); expected \(N,\)'),
}


@pytest.mark.parametrize('kind', LABELS)
def test_labels_that_are_no_class_numbers_are_named(tmp_path, kind):
    y, words = LABELS[kind]
    with pytest.raises((ValueError, TypeError), match=words):
        load(npz(tmp_path / 'mine.npz', y_train=y))


def test_a_column_of_labels_is_read(tmp_path):
    y = (np.arange(40) % 4)[:, None].astype(np.uint8)
    assert load(npz(tmp_path / 'mine.npz', y_train=y), valid=0).train.y.tolist() == y[:, 0].tolist()


PIXELS = {
    'floats to 1': (noise(40, 5, 6) / 255, r'x_train is float64; expected uint8, .*these go from 0 to 1'),
    'floats to 255': (noise(40, 5, 6).astype('f'), r'x_train is float32; expected uint8, .*to 255'),
    'normalized': (np.linspace(-2, 2, 1200).reshape(40, 5, 6), 'these go from -2 to 2'),
    'integers': (noise(40, 5, 6).astype(int), 'x_train is int64; expected uint8'),
    'two layouts': (noise(40, 3, 6, 3), r'\(40, 3, 6, 3\); .*which could be both of the last two'),
    'with alpha': (noise(40, 5, 6, 4), r'\(40, 5, 6, 4\); expected .* with C = 1 or 3'),
    'rows': (noise(40, 30), r'x_train has shape \(40, 30\)'),
}


@pytest.mark.parametrize('kind', PIXELS)
def test_pixels_of_another_kind_are_named(tmp_path, kind):
    x, words = PIXELS[kind]
    with pytest.raises((ValueError, TypeError), match=words):
        load(npz(tmp_path / 'mine.npz', x_train=x, x_test=x))


def test_floats_that_were_cut_to_bytes_are_said(tmp_path):
    cut = (noise(40, 5, 6) / 255).astype(np.uint8)
    with pytest.warns(UserWarning, match='x_train holds nothing above 1; expected pixels from 0 to 255'):
        load(npz(tmp_path / 'mine.npz', x_train=cut))


def test_own_images_of_another_layout_are_named():
    x, y = torch.from_numpy(noise(4, 5, 6, 3)), torch.arange(4)
    with pytest.raises(
        ValueError, match=r'mine: the pixels have shape \(4, 5, 6, 3\); expected \(N, C, H, W\), as x'
    ):
        Images(x, y, tuple('abcd'), 'mine')


def test_arrays_of_other_names_are_named(tmp_path):
    np.savez(tmp_path / 'med.npz', train_images=noise(4, 5, 6), train_labels=np.arange(4))
    with pytest.raises(ValueError, match=r'no array x_train, .*; got train_images, train_labels'):
        load(tmp_path / 'med.npz')


SORTED = {
    'up': np.repeat(np.arange(4), 10),
    'down': np.repeat(np.arange(4)[::-1], 10),
    'blocks': np.concatenate([np.repeat(np.arange(4), 5)] * 2),
    'one class last': np.concatenate([np.arange(30) % 3, np.full(10, 3)]),
}


@pytest.mark.parametrize('kind', ['up', 'down', 'blocks'])
def test_sorted_arrays_are_dealt_out(tmp_path, kind):
    file = npz(tmp_path / 'mine.npz', y_train=SORTED[kind])
    with pytest.warns(UserWarning, match=r'x_train is sorted by class; its 40 images are dealt out'):
        train = load(file, valid=0).train
    assert train.take(8).y.bincount().tolist() == [2] * 4
    before = image_keys(torch.from_numpy(noise(40, 5, 6))[:, None], torch.from_numpy(SORTED[kind]))
    assert train.content == content_of(before), 'images keep their labels'


def test_arrays_in_a_random_order_keep_it(tmp_path):
    y = np.random.default_rng(1).permutation(np.repeat(np.arange(4), 10))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        train = load(npz(tmp_path / 'mine.npz', y_train=y), valid=0).train
    assert train.y.tolist() == y.tolist()


def test_the_bundled_images_keep_their_order():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        splits = load('fashion_mnist_mini', valid=0)
    assert splits.train.fingerprint == '00170490847ded90' and splits.test.fingerprint == '2bc353d254116161'


def test_a_part_of_own_images_that_misses_classes_is_said():
    y = torch.from_numpy(SORTED['up'])
    images = Images(torch.from_numpy(noise(40, 1, 5, 6)), y, tuple('abcd'), 'mine')
    with pytest.warns(
        UserWarning, match='mine: its images are sorted by class, and the first 20 hold 2 of 4 classes'
    ):
        images.take(20)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert images.dealt().take(20).y.bincount().tolist() == [5] * 4
        assert len(images.take(40)) == 40


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_dealing_is_a_permutation_and_even(labels):
    y = torch.tensor(labels)
    order = dealing_order(y)
    assert order.sort().values.tolist() == list(range(len(y)))
    for label in y.unique():
        seen = (y[order] == label).cumsum(0)
        share = torch.arange(1, len(y) + 1) * (y == label).float().mean()
        assert (seen - share).abs().max() <= 1 + len(y.unique()) / 2
        where = order[y[order] == label]
        assert where.tolist() == sorted(where.tolist()), 'each class keeps its order'


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 10), st.integers(20, 60), st.integers(0, 999))
def test_sorted_labels_are_in_runs_and_shuffled_ones_are_not(classes, each, seed):
    y = torch.arange(classes).repeat_interleave(each)
    assert in_runs(y) and in_runs(y.flip(0))
    assert not in_runs(y[dealing_order(y)]) and not in_runs(torch.zeros_like(y))
    assert not in_runs(y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))])


# Content
def test_content_does_not_depend_on_order_or_names():
    x, y = torch.from_numpy(noise(9, 3, 5, 6)), torch.arange(9) % 3
    images = Images(x, y, tuple('abc'), 'mine')
    order = torch.randperm(9)
    other = Images(x[order], y[order], tuple('xyz'), 'other')
    assert images.content == other.content and images.fingerprint != other.fingerprint
    relabeled = Images(x, y.flip(0), tuple('abc'), 'mine')
    changed = x.clone()
    changed[3, 1, 2, 2] ^= 1
    repeated = images[torch.tensor([0, *range(8)])]
    contents = {o.content for o in (images, relabeled, Images(changed, y, tuple('abc'), 'mine'), repeated)}
    assert len(contents) == 4
    assert Images(x.transpose(2, 3), y, tuple('abc'), 'mine').content not in contents


def test_gray_has_one_content_in_one_channel_or_three():
    x, y = torch.from_numpy(noise(9, 1, 5, 6)), torch.arange(9) % 3
    one, three = (Images(x.expand(-1, c, -1, -1), y, tuple('abc'), 'mine') for c in (1, 3))
    assert one.content == three.content


def test_a_part_of_a_known_set_is_known():
    test = load('fashion_mnist_mini').test
    assert test.content == CONTENT['fashion_mnist_mini']['test']
    assert is_part_of(test.take(7), 'fashion_mnist_mini') and not is_part_of(test.take(7), 'cifar10')


# Streams
def written(folder, seed=0, n=6, form='BMP'):
    "A tree of color noise, in files of one length"
    rng = np.random.default_rng(seed)
    files = {}
    for part in ('train', 'test'):
        for k in 'ab':
            for i in range(n):
                image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                files[f'{part}/{k}/{i}.bmp'] = encoded(image, form)
    return tree(folder, files)


def test_a_stream_is_known_by_its_bytes(tmp_path, streams):
    folder = written(tmp_path / 'pets')
    train = load(folder).train
    before = train.fingerprint, train.content
    file = folder / train.files[0]
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = load(folder).train
    assert after.fingerprint != before[0] and after.content != before[1]


def test_a_stream_that_moved_is_the_same(tmp_path, streams):
    folder = written(tmp_path / 'pets')
    before = load(folder).train.fingerprint
    moved = folder.rename(tmp_path / 'animals')
    copied = Path(shutil.copytree(moved, tmp_path / 'elsewhere' / 'copy'))
    assert load(moved).train.fingerprint == load(copied).train.fingerprint == before
    (moved / 'train' / 'a').rename(moved / 'train' / 'z')
    (moved / 'test' / 'a').rename(moved / 'test' / 'z')
    assert load(moved).train.fingerprint != before, 'another name of a class, and another order'


def test_a_fingerprint_is_kept_while_no_file_changes(tmp_path, streams, monkeypatch):
    train = load(written(tmp_path / 'pets')).train
    monkeypatch.setattr(readers.time, 'time_ns', lambda: 2**62)
    counted = []
    monkeypatch.setattr(readers, '_hash_files', lambda images: counted.append(1) or 'computed')
    assert [load(train.folder).train.fingerprint for _ in range(3)] == ['computed'] * 3
    assert len(counted) == 1
    file = train.folder / train.files[0]
    file.write_bytes(file.read_bytes())
    assert load(train.folder).train.fingerprint == 'computed' and len(counted) == 2


def test_a_stream_is_measured_and_attacked_as_a_set_in_memory(tmp_path, monkeypatch):
    folder = written(tmp_path / 'pets', n=20)
    whole = load(folder).test
    monkeypatch.setattr(readers, '_fits', lambda *_: False)
    stream = load(folder).test
    assert isinstance(stream, StreamedImages) and stream.content == whole.content

    def network(x):
        score = x[:, 0].mean((1, 2)) - 0.5
        return torch.stack([score, -score], 1)

    def darken(model, x, y):
        return x * 0.9

    assert torch.equal(correct(network, stream, stream.y), correct(network, whole.x, whole.y))
    robust = robust_correct([network, network], stream, stream.y, darken)
    assert torch.equal(robust, robust_correct([network, network], whole.float(), whole.y, darken))
    assert accuracy(network, stream, stream.y).n == robust_accuracy(network, stream, stream.y, darken).n == 40


def test_a_stream_hands_out_its_pixels_where_they_fit(tmp_path, monkeypatch):
    folder = written(tmp_path / 'pets')
    whole = load(folder).test
    monkeypatch.setattr(readers, '_fits', lambda *_: False)
    stream = load(folder).test
    with pytest.raises(MemoryError, match=r'pets: 12 images of 8x8 would fill over half .* take\(n\)'):
        _ = stream.x
    monkeypatch.undo()
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path / 'home'))
    assert torch.equal(stream.x, whole.x) and torch.equal(stream.float(), whole.float())


def test_streams_of_other_sizes_on_the_command_line(tmp_path, streams, capsys):
    files = {}
    for part, n in (('train', 80), ('test', 10)):
        for k in 'ab':
            files |= {f'{part}/{k}/{i}.png': gray(3 * i, side=9 + i % 3) for i in range(n)}
    folder = str(tree(tmp_path / 'pets', files))
    small = ['--data', folder, '--batch-size', '16', '--width', '4', '--device', 'cpu']
    assert main(['train', *small, '--epochs', '1']) == 2
    assert 'expected one size, or size= to bring all images to' in capsys.readouterr().err
    assert main(['train', *small, '--epochs', '1', '--size', '8']) == 0
    assert 'n=20' in capsys.readouterr().out
    assert main(['robust', *small, '--size', '8', '--scale', 'smoke', '--tested', '6']) == 0
    assert 'test images: 6' in capsys.readouterr().out
    assert main(['train', '--data', 'planted', '--size', '8']) == 2
    assert 'size is 8; expected None, planted has a size of its own' in capsys.readouterr().err


def test_a_test_part_alone_cannot_be_trained_on(tmp_path, capsys):
    folder = tree(tmp_path / 'pets', both(test=5))
    assert main(['train', '--data', str(folder), '--width', '4', '--device', 'cpu']) == 2
    assert '0 images; expected at least one batch' in capsys.readouterr().err
