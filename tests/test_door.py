"""Inputs that cannot be meant are refused or named, at every function that takes them from outside."""

import re
import warnings
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from freqnb.attacks import Budget, apgd, autoattack, fgsm, pgd, pgd_kl, square
from freqnb.evaluate import (
    accuracy,
    correct,
    corruption_accuracy,
    fourier_heatmap,
    fourier_response,
    frequency_sweep,
    robust_accuracy,
    robust_correct,
)
from freqnb.layers import to_dct
from freqnb.models import as_model, averaged, create, default_batch_size, predict
from freqnb.penalties import logit_spectrum_distance
from freqnb.spectrum import split_bands

X = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 4
FLAT = 3 * 16 * 16


def small():
    "A network of four classes, the same each time"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 4)).eval()


def of(function):
    "A module that calls a function with a network and images"

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            return function(self.net, x)

    return Wrapped()


@contextmanager
def said():
    "The warnings inside the block, in words"
    words = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        yield words
    words += [str(o.message) for o in found]


ATTACKS = dict(
    pgd=partial(pgd, eps=0.1),
    until_broken=partial(pgd, eps=0.1, until_broken=True),
    fgsm=partial(fgsm, eps=0.1),
    apgd=partial(apgd, eps=0.1, steps=3),
    square=partial(square, eps=0.1, queries=3),
    autoattack=partial(autoattack, eps=0.1, version=Budget(('apgd-ce', 'fab'), steps=2)),
)
STRICT = {
    **ATTACKS,
    'robust': partial(robust_accuracy, attack=ATTACKS['pgd']),
    'sweep': partial(frequency_sweep, radii=[3]),
    'heat': fourier_heatmap,
    'corrupted': partial(corruption_accuracy, names=['brightness'], severities=[1]),
}
ASKED = {**STRICT, 'accuracy': accuracy, 'correct': correct}


def each(functions):
    return pytest.mark.parametrize('function', functions.values(), ids=functions)


@each(ASKED)
@pytest.mark.parametrize(
    'y, words',
    [
        (Y[:, None], r'labels of shape \(12, 1\); `y\[:, 0\]`'),
        (torch.eye(4)[Y].long(), r'labels of shape \(12, 4\); `y.argmax\(1\)`'),
        (Y[:5], r'12 images and labels of shape \(5,\)'),
        (Y + 1, 'expected labels from 0 to 3, one for each logit; got 1 to 4; subtract 1'),
        (Y - 1, 'got -1 to 2'),
        (Y.float(), 'torch.float32'),
        (Y.tolist(), 'type list'),
        (Y == 1, 'torch.bool'),
    ],
)
def test_labels(function, y, words):
    with pytest.raises(ValueError, match=words):
        function(small(), X, y)


@each(ASKED)
@pytest.mark.parametrize(
    'x, words',
    [
        (255 * X, 'pixels from .* to .*; divide pixels from 0 to 255 by 255'),
        (255 * X - 128, 'divide pixels'),
        (X.where(X < 0.99, torch.nan), 'nan or inf in 12 of 12 images'),
        (X[:1] / 0, 'nan or inf in 1 of 1 images'),
        (X[0], r'got shape \(3, 16, 16\); a single image is `x\[None\]`'),
        (X.permute(0, 2, 3, 1), r'\(12, 16, 16, 3\) with the channels at the end'),
        (X[:0], r'got shape \(0, 3, 16, 16\)'),
        (X.numpy(), 'type ndarray; `torch.from_numpy`'),
        ((255 * X).long(), 'torch.int64'),
    ],
)
def test_images(function, x, words):
    with pytest.raises(ValueError, match=words):
        function(small(), x, Y[: len(x)] if len(x) in (0, 1) else Y)


@each(STRICT)
@pytest.mark.parametrize(
    'x', [(X - 0.5) / 0.25, 2 * X - 1, X + 0.01], ids=['normalized', 'both signs', 'shifted']
)
def test_images_outside_0_1(function, x):
    with pytest.raises(ValueError, match=r'expected images in \[0, 1\], got pixels from .*`as_model'):
        function(small(), x, Y)


def test_a_look_at_filtered_images_is_allowed():
    high = split_bands(X, 3)[1]
    for function in (accuracy, correct):
        with said() as words:
            function(small(), high, Y)
            function(small(), high, Y, filtered=True)
        (warning,) = words
        assert 'got pixels from -' in warning and '`filtered=True`' in warning


@each(ASKED)
def test_rounding_is_clipped(function):
    "Undoing a normalization leaves pixels just outside; images inside are taken as they are"
    x = X.clone()
    x[:, :, 0, 0], x[:, :, 0, 1] = 1 + 1e-6, -1e-6
    with said() as words:
        function(small(), x, Y)
    assert not [o for o in words if 'pixels' in o]
    assert x.max() > 1, 'the images of the caller stay as they are'


@pytest.mark.parametrize(
    'returned, words',
    [
        (lambda net, x: dict(logits=net(x)), 'type dict; .*logits.*`as_model'),
        (lambda net, x: (net(x), None), 'type tuple; .*logits.*`as_model'),
        (lambda net, x: net(x)[:, 0], r'shape \(\d+,\); expected logits'),
        (lambda net, x: net(x)[:, :1], 'the logits have 1 classes'),
        (lambda net, x: net[:2](x), r'shape \(\d+, 4, 14, 14\); expected logits'),
        (lambda net, x: net(x).detach().numpy(), 'type ndarray; expected logits'),
    ],
)
@each(ASKED | dict(predict=lambda model, x, y: predict(model, x), kl=partial(pgd_kl, eps=0.1)))
def test_what_are_no_logits(function, returned, words):
    with pytest.raises(ValueError, match=words):
        function(of(returned), X, Y)


def test_logits_that_are_no_numbers():
    broken = of(lambda net, x: net(x) / 0)
    for function in (accuracy, ASKED['robust'], STRICT['heat']):
        with pytest.raises(ValueError, match='logits are nan or inf for'):
            function(broken, X, Y)


@each(ATTACKS)
def test_probabilities(function):
    if function is ATTACKS['square']:
        function = partial(robust_accuracy, attack=function)
    with said() as words:
        function(of(lambda net, x: net(x).softmax(1)), X, predict(small(), X).argmax(1))
        function(small(), X, Y)
    assert words and all('probabilities' in o for o in words)


@pytest.mark.parametrize(
    'write',
    [
        lambda net, x: net(x.sub_(0.5).mul_(2)),
        lambda net, x: net(x.data.sub_(0.5).mul_(2) * 1),
        lambda net, x: net(torch.clamp_(x, 0.2, 0.8)),
    ],
    ids=['in place', 'data', 'clamp'],
)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_a_network_that_writes_on_its_input(write, layout):
    x = X.to(memory_format=layout)
    model, before = of(write), x.clone()
    clean = of(lambda net, x: write(net, x.clone()))
    assert torch.equal(predict(model, x), predict(clean, x)) and torch.equal(x, before)
    try:
        found = pgd(model, x, Y, 0.05)
    except ValueError as error:
        assert 'no gradient' in str(error)
    else:
        assert torch.equal(found, pgd(clean, x, Y, 0.05))
    assert torch.equal(x, before)


@each(ASKED)
def test_a_network_that_flattens_with_view(function):
    old = of(lambda net, x: net[3](net[:2](x).view(len(x), -1)))
    x = X.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match='view'):
        old(x)
    function(old, x, Y)
    assert torch.allclose(predict(old, x), predict(small(), x), atol=1e-5)


def test_an_error_of_the_network_stays_what_it_is():
    with pytest.raises(RuntimeError, match='channels'):
        predict(small(), X[:, :1])
    with pytest.raises(ValueError, match=r'no weights yet in 1.weight, 1.bias'):
        accuracy(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), X, Y)


def test_a_random_network_is_named():
    noisy = of(lambda net, x: net(x) + torch.randn(len(x), 4))
    y = predict(small(), X).argmax(1)
    with said() as words:
        robust_accuracy(noisy, X, y, lambda model, x, y: x)
    assert any('answers differently' in o and '`averaged(network)`' in o for o in words)
    with said() as words:
        robust_accuracy(small(), X, y, lambda model, x, y: x)
        autoattack(noisy, X[:2], y[:2], 0.1, version=Budget('apgd-ce', steps=2, looks=3))
    assert words == []
    assert (predict(averaged(noisy, 200), X) - predict(small(), X)).abs().max() < 0.5


def hidden(net, x):
    return net(x.detach() + 0 * x)


def rounded(net, x):
    return net((255 * x).round() / 255)


def saturated(net, x):
    return 1e5 * net(x)


def rooted(net, x):
    return net(x + 1e-9 * (x - x.detach()).abs().sqrt())


SIGNS = {
    'hidden': (hidden, 'gradient is zero for 12 of 12 images .*passes none back.*`square`'),
    'rounded': (rounded, 'gradient is zero for 12 of 12 images .*rounds its input.*straight-through'),
    'saturated': (saturated, "gradient is zero for 12 of 12 images .*For 12 the softmax is 1.*loss='margin'"),
    'rooted': (rooted, 'gradient is nan or inf for 12 of 12 images'),
}


@pytest.mark.parametrize('name', SIGNS)
@each({name: ATTACKS[name] for name in ('pgd', 'until_broken', 'fgsm', 'apgd', 'autoattack')})
def test_a_blind_attack_says_so(function, name):
    network, pattern = SIGNS[name]
    y = predict(small(), X).argmax(1)
    with said() as words:
        found = function(of(network), X, y)
    text = ' '.join(words)
    assert re.search(pattern, text), text
    assert found.isfinite().all() and (found - X).abs().max() <= 0.1 + 1e-6


@each(ATTACKS)
def test_a_healthy_network_is_not_spoken_of(function):
    with said() as words:
        function(small(), X, predict(small(), X).argmax(1))
        ASKED['accuracy'](small(), X, Y)
    assert words == []


def test_while_it_is_trained_a_network_is_spoken_of_once():
    model, y = of(hidden), predict(small(), X).argmax(1)
    with said() as words:
        for _ in range(3):
            pgd(model, X, y, 0.1, seed=None)
    assert len(words) == 1


@pytest.mark.parametrize('attack', [pgd, apgd, pgd_kl, autoattack, square, fgsm])
@pytest.mark.parametrize('eps', [float('nan'), -0.1, 1.5, '8/255', None, [0.1], float('inf')])
def test_eps(attack, eps):
    with pytest.raises(ValueError, match=r'eps is .*expected a distance on the \[0, 1\] scale'):
        attack(small(), X, Y, eps)


def test_radii_of_l2():
    for attack in (pgd, partial(apgd, steps=3)):
        change = (attack(small(), X, Y, 3.0, norm='l2') - X).flatten(1).norm(dim=1)
        assert change.max() <= 3.001
    with pytest.raises(ValueError, match=r'eps is 128; .*Euclidean length .* up to 27.71'):
        pgd(small(), X, Y, 128, norm='l2')


@pytest.mark.parametrize('alpha', [0, -1, float('nan'), float('inf')])
def test_alpha(alpha):
    with pytest.raises(ValueError, match=f'alpha is {alpha}; expected'):
        pgd(small(), X, Y, 0.1, alpha=alpha)


def test_targets():
    for targets, words in (
        (Y, '12 of 12 are the label itself'),
        ((Y + torch.arange(12) % 2) % 4, '6 of 12 are the label itself'),
        (Y + 4, 'expected labels from 0 to 3'),
        ((Y + 1.0) % 4, 'torch.float32'),
        (Y[:3], r'targets of shape \(3,\)'),
    ):
        with pytest.raises(ValueError, match=words):
            pgd(small(), X, Y, 0.1, targets=targets)


@pytest.mark.parametrize(
    'attack, words',
    [
        (lambda model, x, y: x + 0.5, 'returned other images: .*pixels from'),
        (lambda model, x, y: x / 0, 'returned other images: .*nan or inf'),
        (lambda model, x, y: x[:1], r'returned \(1, 3, 16, 16\); expected adversarial images of shape'),
        (lambda model, x, y: (x, x), 'returned type tuple'),
        (lambda model, x, y: (255 * x).byte(), 'torch.uint8'),
        (
            lambda model, x, y, eps=0.1: (x + 0.2).clamp(0, 1),
            'moved an image by 0.2 in linf; expected at most its eps, 0.1',
        ),
        (
            partial(lambda model, x, y, eps, norm: (x + 0.2).clamp(0, 1), eps=0.5, norm='l2'),
            'moved an image by .* in l2; expected at most its eps, 0.5',
        ),
        ('pgd', "attack is 'pgd'; expected a function"),
        (lambda x, y: x, r'expected a function of \(model, x, y\)'),
    ],
)
def test_an_attack_of_your_own(attack, words):
    model = small()
    with pytest.raises(ValueError, match=words):
        robust_correct(model, X, predict(model, X).argmax(1), attack)


def test_an_attack_of_your_own_leaves_the_mode():
    model = small().train()

    def careless(network, x, y):
        assert not network.training
        network.train()
        return x

    robust_correct(model, X, predict(model, X).argmax(1), careless)
    assert all(o.training for o in model.modules())


def test_float64_all_the_way():
    model, x = small().double(), X.double()
    y = predict(model, x).argmax(1)
    assert predict(model, x).dtype == torch.float64 and pgd(model, x, y, 0.1).dtype == torch.float64
    clean = torch.randn(5, 4, dtype=torch.float64)
    tiny = logit_spectrum_distance(clean, clean + 1e-12, 'l1')
    assert tiny.dtype == torch.float64 and 3e-12 < tiny < 5e-12
    low, high = split_bands(x, 3)
    assert low.dtype == torch.float64 and (low + high - x).abs().max() < 1e-15


def test_batches_follow_the_size_of_images():
    cpu, gpu = torch.device('cpu'), torch.device('cuda')
    for device in (cpu, gpu):
        sizes = [default_batch_size(device, (3, side, side)) for side in (8, 32, 224, 1000, 10_000)]
        assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 1 and sizes[2] < sizes[1]
    asked = []

    def counting(x):
        asked.append(len(x))
        return x.mean((2, 3))

    predict(counting, torch.rand(20, 3, 224, 224))
    assert max(asked) < 20


def test_networks_from_elsewhere():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normalized = (X - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    inner = small()
    named = type('Output', (), {})

    def with_attribute(net, x):
        output = named()
        output.logits = net(x)
        return output

    for returned in (with_attribute, lambda net, x: dict(logits=net(x)), lambda net, x: (net(x), x)):
        model = as_model(of(returned), mean, std)
        assert torch.allclose(predict(model, X), inner(normalized), atol=1e-5)
        assert robust_accuracy(model, X, Y, ATTACKS['pgd']).n == 12
    for arguments, words in (
        (dict(mean=(123.7, 116.8, 103.9), std=1), 'mean is .*divide what belongs to pixels from 0 to 255'),
        (dict(mean=0.5, std=0), 'std is .*above 0'),
        (dict(mean=(0.5, 0.5), std=(1, 1, 1)), 'expected a mean and a positive std for each channel'),
    ):
        with pytest.raises(ValueError, match=words):
            as_model(inner, **arguments)
    with pytest.raises(ValueError, match='expected logits'):
        accuracy(as_model(of(lambda net, x: dict(scores=net(x)))), X, Y)


@pytest.mark.parametrize('where', [lambda o: o, lambda o: o.data, lambda o: o.detach(), lambda o: o[:, :]])
def test_the_weight_of_a_cosine_layer_can_be_written(where):
    "As that of any convolution, by functions of `nn.init` too"
    net = to_dct(create('lenet', 10, 3))
    layer = net.stem.conv
    for write in (
        nn.init.zeros_,
        nn.init.ones_,
        nn.init.xavier_uniform_,
        nn.init.orthogonal_,
        nn.init.dirac_,
        lambda o: o.fill_(3),
    ):
        weight = layer.weight
        with torch.no_grad():
            write(where(weight))
        assert torch.allclose(layer.weight, weight, atol=1e-5)
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))
    assert torch.allclose(layer.weight, torch.ones(()), atol=1e-5) and 'weight' not in vars(layer)
    assert [name for name, _ in layer.named_parameters()] == ['coefficients', 'bias']


def test_numpy_numbers_are_numbers():
    assert torch.equal(pgd(small(), X, Y, np.float64(0.1)), pgd(small(), X, Y, 0.1))


@each(dict(response=fourier_response))
def test_the_response_needs_no_labels(function):
    with pytest.raises(ValueError, match='divide pixels'):
        function(small(), 255 * X)
    with pytest.raises(ValueError, match='eps is nan'):
        function(small(), X[:2], eps=float('nan'))
