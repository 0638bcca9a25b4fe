"Whole networks in the cosine basis: torchvision's classifiers, odd convolutions of timm, robustness in every form"

from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import nn

from freqnb.attacks import pgd
from freqnb.data import load
from freqnb.evaluate import correct, robust_correct
from freqnb.layers import DCTConv2d, DCTSignalConv2d, convolutions, fold, to_dct
from freqnb.train import Recipe, fit

KINDS = (DCTConv2d, DCTSignalConv2d)
POOL = torch.randn(2**22, generator=torch.Generator().manual_seed(0))
SMALL = ('resnet18', 'mobilenet_v3_small', 'efficientnet_b0', 'squeezenet1_1')
ODD = (
    'tf_efficientnet_b0',
    'tf_mobilenetv3_small_075',
    'resnetv2_50',
    'nf_regnet_b0',
    'mixnet_s',
    'convnext_atto',
    'ghostnet_050',
)


def zoo():
    "Names of torchvision's classifiers"
    models = pytest.importorskip('torchvision').models
    return models.list_models(module=models)


def without_memory(name):
    "A classifier of torchvision whose parameters are on the meta device; numbers that decide its shape are real"
    from torchvision.models import get_model

    original = nn.Module.register_parameter

    def register(self, name, parameter):
        original(self, name, parameter)
        if parameter is not None:
            self._parameters[name] = nn.Parameter(parameter.to('meta'), parameter.requires_grad)

    quick = dict(init_weights=False) if name in ('googlenet', 'inception_v3') else {}
    with patch.object(nn.Module, 'register_parameter', register):
        return get_model(name, weights=None, **quick)


def drawn(layer, place):
    "Normal weights of the usual scale for a convolution; another `place` gives others"
    shape, count = layer.weight.shape, layer.weight.numel()
    start = place * 12345 % 2**20
    values = (
        POOL[start : start + count]
        if start + count <= len(POOL)
        else POOL.repeat(-(-count // len(POOL)))[:count]
    )
    return values.view(shape) / layer.weight[0].numel() ** 0.5


@pytest.mark.long
@pytest.mark.parametrize('shard', range(4))
def test_every_classifier_of_torchvision_comes_back(shard):
    for index, name in enumerate(zoo()[shard::4]):
        model, kind, norm = without_memory(name), KINDS[index % 2], ('l1', 'ortho')[index // 2 % 2]
        before = {where: layer for where, layer in convolutions(model).items() if layer.kernel_size != (1, 1)}
        weights = [drawn(layer, place) for place, layer in enumerate(before.values())]
        for layer, weight in zip(before.values(), weights):
            layer.weight = nn.Parameter(weight)
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        to_dct(model, kind, norm, inplace=True)
        assert set(model.conversion.changed) == set(before), name
        assert all(type(layer) is kind for layer in before.values()), name
        fold(model, inplace=True)
        assert set(model.conversion.changed) == set(before), name
        assert {key: value.shape for key, value in model.state_dict().items()} == shapes, name
        for layer, weight in zip(before.values(), weights):
            assert torch.dist(layer.weight, weight, torch.inf) <= 1e-6, name


def outputs_stay(model, size, tolerance=1e-5):
    "Both forms and the folded network give the outputs and weights of `model`"
    model, x = model.eval(), torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
    assert expected.isfinite().all() and expected.abs().max() > 0
    larger = {name for name, layer in convolutions(model).items() if layer.kernel_size != (1, 1)}
    for kind in KINDS:
        waves = to_dct(model, kind)
        assert set(waves.conversion.changed) == larger
        back = fold(waves)
        with torch.no_grad():
            for form in (waves, back):
                torch.testing.assert_close(
                    form(x), expected, rtol=0, atol=tolerance * expected.abs().max().item()
                )
        for (name, layer), folded in zip(
            convolutions(model).items(), convolutions(back).values(), strict=True
        ):
            assert type(folded) is type(layer), name
            torch.testing.assert_close(folded.weight, layer.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', SMALL)
def test_outputs_of_torchvision_stay(name):
    models = pytest.importorskip('torchvision').models
    torch.manual_seed(0)
    outputs_stay(models.get_model(name, weights=None), 96)


@pytest.mark.parametrize('name', ODD)
def test_outputs_of_timm_stay(name):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    outputs_stay(timm.create_model(name, pretrained=False), 96, 5e-5)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A small network that learned something, in float64, and test images"
    recipe = Recipe('fashion_mnist_mini', 'resnet9', width=4, epochs=2, images=6000, precision='float32')
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv('FREQNB_HOME', str(tmp_path_factory.mktemp('home')))
        model = fit(recipe).model
    test = load('fashion_mnist_mini', valid=0).test.take(150)
    return model.cpu().double().eval(), test.float().double(), test.y.long()


def forms(model):
    "The same function, four times"
    return dict(plain=model, WD=to_dct(model), SD=to_dct(model, DCTSignalConv2d), folded=fold(to_dct(model)))


@pytest.mark.parametrize(
    'attack', [partial(pgd, steps=5), partial(pgd, steps=5, norm='l2', until_broken=True)], ids=['linf', 'l2']
)
def test_robust_accuracy_is_the_same_for_all_forms(trained, attack):
    model, x, y = trained
    attack = partial(attack, eps=1.0 if attack.keywords.get('norm') else 6 / 255)
    clean, expected = correct(model, x, y), robust_correct(model, x, y, attack)
    assert 0.1 < expected.double().mean() < clean.double().mean() - 0.1
    for name, form in forms(model).items():
        assert torch.equal(robust_correct(form, x, y, attack), expected), name
    single, x = forms(model.float()), x.float()
    expected = robust_correct(single['plain'], x, y, attack)
    for name, form in single.items():
        assert (robust_correct(form, x, y, attack) != expected).sum() <= 1, name
    model.double()
