"""What a network of the registry promises, and what a network or several of them give."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from freqnb.models import NETS, create, default_batch_size, evaluating, networks_of, predict, takes_option


def small(classes, channels, width=4, norm=True):
    "A convolution, batch normalization where wanted, and a linear head"
    layers = OrderedDict(conv=nn.Conv2d(channels, width, 3))
    if norm:
        layers['norm'] = nn.BatchNorm2d(width)
    layers |= dict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(width, classes))
    return nn.Sequential(layers)


def headless(classes, channels):
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), last=nn.LazyLinear(classes)))


class Own(nn.Module):
    "A module with a forward of its own, which cannot be taken apart into layers"

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 10)

    def forward(self, x):
        return self.last(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(NETS, 'small', small)
    monkeypatch.setitem(NETS, 'headless', headless)
    monkeypatch.setitem(NETS, 'own', lambda classes, channels: Own())


@pytest.fixture
def x():
    return torch.rand(7, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_one_registry_is_enough(x):
    "A network of NETS gets dropout, initial weights, cosine convolutions and normalization like any other"
    net = create('small', width=8, norm=False, dropout=0.5, init='xavier', conv='WD')
    assert [name for name, _ in net.named_children()] == ['normalize', 'conv', 'pool', 'flatten', 'head']
    assert [type(layer).__name__ for layer in net.head] == ['Dropout', 'Linear']
    assert type(net.conv).__name__ == 'DCTConv2d' and net.conv.out_channels == 8
    assert predict(net, x).shape == (7, 10)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(name='resnet1001'), ("'resnet1001'", 'small')),
        (dict(kernel=5), ('kernel is 5', "'small' takes width, norm")),
        (dict(name='headless', width=3), ('width is 3', "'headless' takes no options")),
        (dict(name='headless', dropout=0.5), ('dropout is 0.5', '`head`', 'flatten, last')),
        (dict(name='own'), ("'own' is a module of type Own", 'nn.Sequential')),
        (dict(width=0), ('width is 0', '>= 1')),
        (dict(dropout=1), ('dropout is 1', '[0, 1)')),
        (dict(init='zeros'), ("init is 'zeros'", 'xavier')),
        (dict(conv='dct'), ("conv is 'dct'", 'plain, WD, SD')),
    ],
)
def test_errors_name_the_value_and_the_promise(arguments, words):
    with pytest.raises(ValueError) as error:
        create(**dict(name='small') | arguments)
    for word in words:
        assert word in str(error.value)


def test_head_without_linear_layer(monkeypatch):
    def flat(classes, channels):
        return nn.Sequential(OrderedDict(head=nn.Sequential(nn.Flatten())))

    monkeypatch.setitem(NETS, 'flat', flat)
    with pytest.raises(ValueError, match='needs a child `head` with linear layers'):
        create('flat', dropout=0.1)


@pytest.mark.parametrize('name', [name for name in NETS if name != 'wide_resnet34_10'])
def test_every_network_keeps_its_promise(name):
    small = {option: value for option, value in dict(width=4, kernel=5).items() if takes_option(name, option)}
    net = create(name, classes=7, channels=1, dropout=0.5, init='xavier', **small)
    assert predict(net, torch.rand(2, 1, 20, 23)).shape == (2, 7)
    assert isinstance(net, nn.Sequential) and any(isinstance(o, nn.Dropout) for o in net.head.modules())


def test_several_networks_have_an_axis_in_front(x):
    first, second = create('small'), create('small', width=6)
    one_by_one = torch.stack([predict(first, x), predict(second, x)])
    assert torch.equal(predict([first, second], x), one_by_one)
    assert torch.equal(predict((first, second), x), one_by_one)
    assert torch.equal(predict([first], x), predict(first, x)[None])
    assert predict(first, x).shape == (7, 10)


def test_networks_of():
    net = create('small')
    assert networks_of(net) == [net] and networks_of((net, torch.sin)) == [net, torch.sin]
    assert networks_of(torch.sin) == [torch.sin]
    with pytest.raises(ValueError, match='at least one'):
        networks_of([])


def test_predict_leaves_networks_alone(x):
    nets = [create('small').train(), create('small').eval()]
    nets[0].conv.eval()
    modes = [[module.training for module in net.modules()] for net in nets]
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in nets]
    logits = predict(nets, x, batch_size=2)
    assert not logits.requires_grad and logits.dtype == torch.float32
    assert [[module.training for module in net.modules()] for net in nets] == modes
    for net, state in zip(nets, before):
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())


def test_modes_come_back_after_an_error():
    net = create('small').train()
    with pytest.raises(RuntimeError), evaluating(net):
        raise RuntimeError
    assert all(module.training for module in net.modules())


def test_bytes_are_divided_by_255(x):
    pixels = (x * 255).byte()
    net = create('small')
    assert torch.equal(predict(net, pixels), predict(net, pixels.float() / 255))
    with pytest.raises(ValueError, match=r'\(0, 3, 12, 12\)'):
        predict([net], x[:0])


def test_default_batch_size():
    assert default_batch_size(torch.device('cpu')) < default_batch_size(torch.device('cuda'))
