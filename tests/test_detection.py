"""The detection notebook away from its own scenes: a folder made like COCO's, COCO's own matching, no extra."""

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from freqnb.records import read_record

PATH = Path(__file__).parents[1] / 'nbs' / 'high_frequency' / '07_detection.ipynb'
DOG, CLOCK = 18, 85  # two of COCO's numbers, between which some are missing
COLORS = {('L', DOG): 255, ('RGB', DOG): (255, 255, 255), ('RGB', CLOCK): (0, 255, 0)}


def code_cells():
    "The sources of the notebook's code cells"
    cells = json.loads(PATH.read_text('utf-8'))['cells']
    return [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']


def defines(node):
    "Whether a statement imports, or defines a function, a class or a constant"
    if isinstance(node, ast.Try):
        return all(map(defines, node.body))
    targets = [o for target in getattr(node, 'targets', []) for o in ast.walk(target)]
    names = [o.id for o in targets if isinstance(o, ast.Name)]
    constant = bool(names) and all(name.isupper() for name in names)
    return constant or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


@pytest.fixture(scope='module')
def notebook():
    "What the notebook defines, without what it runs"
    space = dict(__name__='detection')
    for cell in code_cells():
        if all(map(defines, ast.parse(cell).body)):
            exec(compile(cell, PATH.name, 'exec'), space)
    return SimpleNamespace(**space)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Three images as in COCO: bright boxes (dogs, and green clocks) on black; a crowd; one image is gray, and one empty"
    root = tmp_path_factory.mktemp('coco')
    (root / 'val2017').mkdir()
    (root / 'annotations').mkdir()
    boxes = {
        139: (
            (60, 90),
            'RGB',
            [(DOG, (10, 10, 30, 20), 0), (CLOCK, (50, 30, 24, 25), 0), (DOG, (40, 0, 40, 8), 1)],
        ),
        285: ((80, 50), 'L', [(DOG, (5, 40, 40, 30), 0)]),
        632: ((64, 64), 'RGB', []),
    }
    images, annotations = [], []
    for i, ((h, w), mode, objects) in boxes.items():
        picture = Image.new(mode, (w, h))
        for k, (left, top, width, height), crowd in objects:
            color = COLORS[mode, k]
            if not crowd:
                picture.paste(color, (left, top, left + width, top + height))
            annotations.append(
                dict(
                    id=1000 + len(annotations),
                    image_id=i,
                    category_id=k,
                    bbox=[left, top, width, height],
                    area=width * height,
                    iscrowd=crowd,
                )
            )
        picture.save(root / 'val2017' / f'{i:012}.jpg', quality=95)
        images.append(dict(id=i, file_name=f'{i:012}.jpg', height=h, width=w))
    content = dict(
        images=images[::-1],
        annotations=annotations,
        categories=[dict(id=DOG, name='dog'), dict(id=CLOCK, name='clock')],
    )
    (root / 'annotations' / 'instances_val2017.json').write_text(json.dumps(content))
    return root


class Bright(nn.Module):
    "Finds the bright box in each half of an image, at the size at which it is handed over"

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.transform = SimpleNamespace(min_size=(200,), max_size=400)

    def forward(self, images):
        return [self.found(image) for image in images]

    def found(self, image):
        assert min(image.shape[1:]) == 200 or max(image.shape[1:]) == 400
        boxes, labels = [], []
        for k, mask in ((DOG, image.amin(0) > 0.5), (CLOCK, (image[1] > 0.5) & (image[0] < 0.5))):
            down, across = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            if mask.sum() < 200:
                continue
            boxes.append([across[0], down[0], across[-1] + 1, down[-1] + 1])
            labels.append(k)
        return dict(
            boxes=torch.tensor(boxes).float().reshape(-1, 4),
            labels=torch.tensor(labels).long(),
            scores=torch.full((len(boxes),), 0.9),
        )


def test_what_is_missing_is_said(notebook, tmp_path, folder, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    both = notebook.coco_missing(None)
    assert len(both) == 2
    assert 'FREQNB_COCO is not set' in both[0] and 'cocodataset.org' in both[0]
    assert 'https://' in both[1] and 'TORCH_HOME' in both[1]
    assert str(tmp_path) not in ''.join(both)
    elsewhere = notebook.coco_missing(str(tmp_path))[0]
    assert str(tmp_path) in elsewhere and 'instances_val2017.json' in elsewhere
    assert notebook.coco_missing(str(folder)) == both[1:]
    monkeypatch.setitem(notebook.coco_missing.__globals__, 'COCO', None)
    assert "pip install 'freqnb[coco]'" in notebook.coco_missing(str(folder))[0]
    monkeypatch.undo()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    checkpoint = tmp_path / 'hub' / 'checkpoints' / notebook.WEIGHTS_NAME
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert notebook.coco_missing(str(folder)) == [] and notebook.weights_file(folder) == checkpoint


def test_a_known_detector_has_its_known_precision(notebook, folder):
    images = notebook.coco_images(folder)
    assert len(images) == 3 and images.image(285).shape == (1, 3, 80, 50)
    samples, gained, drops = notebook.coco_measured(Bright(), images, 128, torch.device('cpu'))
    assert samples['full images'].shape == (1, 3) and samples['full images'].mean() > 0.85, (
        'boxes come back to the size of the image'
    )
    assert samples['HFC'].mean() < 0.5 and gained['LFC'].shape == (1, 3)
    assert drops[0, :, [1, 3]].sum() == 3 and not drops[0, 2].any(), 'objects without the crowd'
    assert gained['full images'].tolist() == [[0, 0, -1]], (
        'nothing is gained by no change, and nothing in an empty image'
    )


def test_the_published_architecture_runs_from_folder_to_record(notebook, folder, tmp_path, monkeypatch):
    "With random weights, and images that are enlarged less than the real ones"
    monkeypatch.setenv('FREQNB_RECORDS', str(tmp_path))
    torch.manual_seed(0)
    net = notebook.coco_net(min_size=128, max_size=192, score_thresh=0.0, detections_per_img=20)
    torch.save(net.state_dict(), tmp_path / 'weights.pth')
    monkeypatch.setitem(
        notebook.coco_record.__globals__, 'weights_file', lambda folder: tmp_path / 'weights.pth'
    )
    monkeypatch.setitem(
        notebook.coco_record.__globals__,
        'coco_net',
        lambda state: notebook.coco_net(state, min_size=128, max_size=192, score_thresh=0.0),
    )
    record = notebook.coco_record(folder, 'smoke', torch.device('cpu'))
    assert read_record(tmp_path / 'high_frequency' / 'detection-smoke-coco_val2017.json') == record
    assert (
        record.metrics['mAP on LFC'].n == 3
        and all(0 <= o.value <= 1 for o in record.metrics.values())
        and len(record.claims) == 6
    )
    assert {claim.differs for claim in record.claims} == {()}
    assert {claim.verdict for claim in record.claims} == {'undecided'}, 'one network decides nothing'


def test_published_weights_fit(notebook, tmp_path):
    "The file holds frozen normalization layers, which have no counter of batches; loaded, they compute the same"
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.resnet import resnet50
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7
    from torchvision.ops.misc import FrozenBatchNorm2d

    torch.manual_seed(0)
    body = _resnet_fpn_extractor(
        resnet50(norm_layer=lambda n: FrozenBatchNorm2d(n, eps=0.0)),
        5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    frozen = RetinaNet(body, 91, min_size=64, max_size=64).eval()
    torch.save(frozen.state_dict(), tmp_path / 'weights.pth')
    loaded, x = (
        notebook.coco_net(tmp_path / 'weights.pth', min_size=64, max_size=64),
        torch.rand(1, 3, 64, 64),
    )
    with torch.no_grad():
        levels = [net.backbone(x) for net in (frozen, loaded)]
    for name, values in levels[0].items():
        torch.testing.assert_close(levels[1][name], values, rtol=1e-3, atol=1e-4)


def scattered(generator, images=30, most=9):
    "Objects of three classes, some of them crowds, and detections around and beside them"
    truth, found = {}, {}
    for i in range(images):
        n = int(torch.randint(0, most, (1,), generator=generator))
        corner = 80 * torch.rand(n, 2, generator=generator, dtype=torch.double)
        boxes = torch.cat([corner, corner + 30 + 40 * torch.rand(n, 2, generator=generator)], 1).double()
        labels = torch.randint(3, (n,), generator=generator)
        crowd = torch.rand(n, generator=generator) < 0.2
        truth[i] = dict(boxes=boxes, labels=labels, crowd=crowd)
        moved = boxes.repeat(3, 1) + 3 * torch.randn(3 * n, 4, generator=generator)
        scores = torch.rand(3 * n, generator=generator).mul(20).round() / 20  # many are equal
        order = scores.argsort(descending=True, stable=True)
        found[i] = dict(boxes=moved[order].float(), labels=labels.repeat(3)[order], scores=scores[order])
    return truth, found


def as_coco(boxes):
    "Boxes in the form that COCO's code reads"
    left, top, right, bottom = boxes
    return dict(bbox=[left, top, right - left, bottom - top], area=(right - left) * (bottom - top))


def coco_precision(truth, found):
    "The mAP that COCO's own code computes, for boxes of every size"
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def index(images, columns):
        rows = []
        for i, one in images.items():
            for box, *values in zip(
                one['boxes'].tolist(), *(one[name].tolist() for name in columns.values())
            ):
                rows.append(dict(zip(columns, values)) | as_coco(box) | dict(id=len(rows) + 1, image_id=i))
        given = COCO()
        given.dataset = dict(
            images=[dict(id=i) for i in images], categories=[dict(id=k) for k in range(3)], annotations=rows
        )
        given.createIndex()
        return given

    with contextlib.redirect_stdout(io.StringIO()):
        objects = index(truth, dict(category_id='labels', iscrowd='crowd'))
        matching = COCOeval(objects, index(found, dict(category_id='labels', score='scores')), 'bbox')
        matching.evaluate()
        matching.accumulate()
        matching.summarize()
    return matching.stats[0]


@pytest.mark.parametrize('seed', range(5))
def test_our_precision_is_that_of_coco(notebook, seed):
    "With crowds, images without objects, several detections an object, and equal scores"
    truth, found = scattered(torch.Generator().manual_seed(seed))
    assert any(one['crowd'].any() for one in truth.values())
    assert any(not len(one['boxes']) for one in truth.values())
    ours = notebook.mean_precision(truth, found, torch.ones(1, len(truth)).double()).item()
    assert 0.05 < ours < 0.95
    assert abs(ours - coco_precision(truth, found)) < 1e-3, 'levels of recall that differ in their last bit'


def test_an_image_of_weight_two_counts_twice(notebook):
    truth, found = scattered(torch.Generator().manual_seed(9), images=8)
    weights = torch.tensor([[2.0, 0, 1, 1, 0, 3, 1, 0]]).double()
    numbers = [i for i, weight in enumerate(weights[0].int().tolist()) for _ in range(weight)]
    repeated = [{j: images[i] for j, i in enumerate(numbers)} for images in (truth, found)]
    alone = notebook.mean_precision(*repeated, torch.ones(1, len(numbers)).double())
    torch.testing.assert_close(notebook.mean_precision(truth, found, weights), alone, rtol=0, atol=0.03)


@pytest.mark.parametrize('most', [200, 8])
def test_what_images_add_to_the_precision_has_it_as_its_mean(notebook, most):
    "And without the first group it is what the images of the other groups have"
    truth, found = scattered(torch.Generator().manual_seed(3))
    values = notebook.map_values(truth, found, most)
    whole = notebook.mean_precision(truth, found, torch.ones(1, len(truth)).double())
    assert len(values) == min(most, len(truth))
    torch.testing.assert_close(values.mean(), whole[0])

    kept = notebook.left_out(len(truth), most)[1].nonzero()[:, 0].tolist()
    rest = [{i: images[i] for i in kept} for images in (truth, found)]
    without = notebook.mean_precision(*rest, torch.ones(1, len(kept)).double())
    others = whole + (values.mean() - values) / (len(values) - 1)
    weights = notebook.left_out(len(truth), most)[1:]
    mean_of_others = notebook.mean_precision(truth, found, weights).mean()
    torch.testing.assert_close(others[:1] - whole + mean_of_others, without)


BLOCKED = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torchmetrics', 'pycocotools'):
            raise ModuleNotFoundError(f'no {name} here', name=name)


sys.meta_path.insert(0, Blocked())
"""


def test_it_runs_without_the_extra(tmp_path):
    "Its own precision needs neither torchmetrics nor pycocotools; each place that would use them says what to install"
    script = tmp_path / 'detection.py'
    script.write_text(BLOCKED + '\n\n'.join(code_cells()))
    env = {name: value for name, value in os.environ.items() if not name.startswith('FREQNB_')}
    env |= dict(FREQNB_SCALE='smoke', FREQNB_HOME=str(tmp_path / 'home'), OMP_NUM_THREADS='1')
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("pip install 'freqnb[coco]'") >= 2
    assert (tmp_path / 'home/records/high_frequency/detection-smoke-planted_scenes.json').exists()
