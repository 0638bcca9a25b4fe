"The filter penalties against the paper's table, written out coefficient by coefficient in float64"

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from freqnb.layers import DCTConv2d, DCTSignalConv2d, high_share, to_dct
from freqnb.models import create
from freqnb.penalties import SCHEMES, coefficient_norms, filter_penalty, penalized_layers

PAPERS = ('highest', 'weighted', 'first_order', 'monotone')  # those of Lukasik et al., which keep more laws
SUMS = (*PAPERS, 'highest+first_order', 'weighted+first_order', 'highest+weighted+monotone')
each_scheme = pytest.mark.parametrize('scheme', SCHEMES)
FORMS = {
    'plain': lambda net: net,
    'WD': to_dct,
    'SD': lambda net: to_dct(net, DCTSignalConv2d),
    'WD ortho': lambda net: to_dct(net, norm='ortho'),
    'SD ortho': lambda net: to_dct(net, DCTSignalConv2d, 'ortho'),
}
each_form = pytest.mark.parametrize('form', FORMS)
laws = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DIAGONALS = {
    3: ['00', '01 10', '02 11 20', '12 21', '22'],
    5: ['00', '01 10', '02 11 20', '03 12 21 30', '04 13 22 31 40', '14 23 32 41', '24 33 42', '34 43', '44'],
}


def element(i, j, rows, columns):
    "The cosine of vertical frequency i and horizontal frequency j, its magnitudes summing to one, number by number"
    values = torch.tensor(
        [
            [
                math.cos(math.pi * i * (m + 0.5) / rows) * math.cos(math.pi * j * (n + 0.5) / columns)
                for n in range(columns)
            ]
            for m in range(rows)
        ],
        dtype=torch.float64,
    )
    return values / values.abs().sum()


def norm_of(weight, i, j):
    "The norm over all filters of the coefficient (i, j); exactly zero, with a gradient of zero, where no filter has it"
    b = element(i, j, *weight.shape[2:])
    squares = ((weight * b).sum((2, 3)) / b.square().sum()).square().sum()
    return squares.sqrt() if squares > 0 else 0.0 * squares


def reference(weight, scheme):
    "The row of the paper's table for one layer of 3 x 3 or 5 x 5"
    size = weight.shape[-1]

    def c(name):
        return norm_of(weight, int(name[0]), int(name[1]))

    def add(names):
        return sum(c(name) for name in names.split())

    if scheme == 'highest' and size == 3:
        return 2 * add('02 12 20 21 22')
    if scheme == 'highest':
        return 3 * add('03 13 23 30 31 32 33') + 4 * add('04 14 24 34 40 41 42 43 44')
    if scheme == 'weighted' and size == 3:
        return add('01 10') + 2 * c('11') + 4 * add('02 20') + 5 * add('12 21') + 8 * c('22')
    if scheme == 'weighted':
        return (
            4 * add('02 20')
            + 5 * add('12 21')
            + 8 * c('22')
            + 9 * add('03 30')
            + 10 * add('13 31')
            + 13 * add('23 32')
            + 18 * c('33')
            + 16 * add('04 40')
            + 17 * add('14 41')
            + 20 * add('24 42')
            + 25 * add('34 43')
            + 32 * c('44')
        )
    if scheme == 'first_order':
        return sum(torch.relu(c(name) - c('00')) for name in ('01', '10', '11'))
    assert scheme == 'monotone'
    steps = zip(DIAGONALS[size], DIAGONALS[size][1:])
    return sum(
        torch.relu(c(b) - c(a)) for before, after in steps for a in before.split() for b in after.split()
    )


def slow(weights, scheme):
    return sum(reference(weight, name) for weight in weights for name in scheme.split('+'))


def stack(sizes, seed, channels=(3, 4, 2), dtype=torch.float64, **options):
    "A chain of convolutions with weights of random scale"
    torch.manual_seed(seed)
    inputs = [channels[i % len(channels)] for i in range(len(sizes) + 1)]
    layers = [nn.Conv2d(a, b, size, dtype=dtype, **options) for a, b, size in zip(inputs, inputs[1:], sizes)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.normal_().mul_(10.0 ** torch.randint(-3, 3, ()))
    return nn.Sequential(*layers)


def weights_of(net):
    return [layer.weight for layer in net]


def agree(ours, exact, tolerance):
    torch.testing.assert_close(
        ours.double(), exact.double(), rtol=tolerance, atol=tolerance * exact.abs().max().item()
    )


@settings(max_examples=40, **laws)
@given(
    st.lists(st.sampled_from([3, 5]), min_size=1, max_size=3),
    st.permutations([1, 2, 4]),
    st.sampled_from(SUMS),
    st.sampled_from([*FORMS]),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_the_papers_table(sizes, channels, scheme, form, seed, channels_last):
    net = FORMS[form](stack(sizes, seed, channels)).to(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    parameters = [layer._parameters['weight' if form == 'plain' else 'coefficients'] for layer in net]
    ours, exact = filter_penalty(net, scheme, 1.0), slow(weights_of(net), scheme)
    agree(ours, exact, 1e-12)
    if not exact.requires_grad:
        return
    for one, two in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(exact, parameters)):
        agree(one, two, 1e-10)
    size = slow(weights_of(net), 'weighted')  # of the norms, whose differences may be as small as they like
    rounded = filter_penalty(net.float(), scheme, 1.0).double()
    assert (rounded - exact).abs() <= 1e-5 * size


@each_scheme
@each_form
def test_gradients_by_differences(scheme, form):
    torch.manual_seed(0)
    net = FORMS[form](nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 5), nn.Conv2d(2, 1, 3)).double())
    names, values = zip(*[(name, p) for name, p in net.named_parameters() if not name.endswith('bias')])

    def penalty(*given):
        return torch.func.functional_call(
            Penalized(net, scheme), {f'net.{name}': value for name, value in zip(names, given)}
        )

    assert torch.autograd.gradcheck(penalty, [value.detach().requires_grad_() for value in values], atol=1e-7)


class Penalized(nn.Module):
    "The penalty as what a module computes"

    def __init__(self, net, scheme):
        super().__init__()
        self.net, self.scheme = net, scheme

    def forward(self):
        return filter_penalty(self.net, self.scheme, 1.0)


@each_form
def test_norms_of_a_layer(form):
    layer = FORMS[form](stack([(4, 2)], 3))[0]
    exact = torch.stack([torch.stack([norm_of(layer.weight, i, j) for j in range(2)]) for i in range(4)])
    agree(coefficient_norms(layer), exact, 1e-12)


@each_form
@each_scheme
def test_zeros_have_finite_gradients(form, scheme):
    net = FORMS[form](stack([3, 5], 0))
    for silence in (lambda p: p.zero_(), lambda p: p[..., 2, 1].zero_()):
        with torch.no_grad():
            for p in net.parameters():
                if p.ndim == 4:
                    silence(p.normal_())
        net.zero_grad()
        penalty = filter_penalty(net, scheme, 1.0)
        if penalty.requires_grad:
            penalty.backward()
        assert penalty.isfinite()
        for p in net.parameters():
            assert p.grad is None or p.grad.isfinite().all()


@each_form
@pytest.mark.parametrize('scheme', PAPERS)
def test_nothing_costs_nothing(form, scheme):
    net = FORMS[form](stack([3, 5], 0))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert filter_penalty(net, scheme, 1.0).item() == 0


def test_a_silent_frequency_has_no_slope():
    layer = to_dct(stack([3], 0))[0]
    with torch.no_grad():
        layer.coefficients[..., 2, 2] = 0
    filter_penalty(layer, 'weighted').backward()
    assert (
        layer.coefficients.grad[..., 2, 2].count_nonzero() == 0
        and layer.coefficients.grad[..., 2, 1].count_nonzero() > 0
    )
    agree(layer.coefficients.grad[..., 0, 2].square().sum().sqrt(), torch.tensor(4.0), 1e-9)


@settings(max_examples=60, **laws)
@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 40), st.floats(0.001, 1))
def test_depth(larger, ones, d, share):
    net = nn.Sequential(
        *[nn.Conv2d(1, 1, 3) for _ in range(larger)], *[nn.Conv2d(1, 1, 1) for _ in range(ones)]
    )
    net.insert(0, nn.Conv2d(1, 1, 1))
    counted = [layer for layer in net if layer.kernel_size == (3, 3)]
    assert penalized_layers(net, d) == counted[: larger // d + 1]
    taken = penalized_layers(net, share)
    assert taken == counted[: len(taken)] and len(taken) >= 1
    assert len(taken) - 1 < share * larger + 1e-6 and len(taken) >= share * larger - 1e-6
    assert penalized_layers(net, 1) == penalized_layers(net, 1.0) == counted
    assert len(penalized_layers(net)) == -(-larger // 3)


@pytest.mark.parametrize('depth', [0, -1, 0.0, 1.5, -0.5, '3', None, float('nan')])
def test_wrong_depths_are_echoed(depth):
    with pytest.raises(ValueError, match='expected a share'):
        filter_penalty(stack([3], 0), depth=depth)


@pytest.mark.parametrize('scheme', ['lowest', '', 'highest+', 'highest, weighted', 'highest+lowest'])
def test_wrong_schemes_are_echoed(scheme):
    with pytest.raises(ValueError, match=f'expected one of {", ".join(SCHEMES)}, or') as error:
        filter_penalty(stack([3], 0), scheme)
    assert repr(scheme) in str(error.value)


def test_sums_add_up():
    net = stack([3, 5, 3], 0)
    parts = {name: filter_penalty(net, name, 1.0).item() for name in SCHEMES}
    assert filter_penalty(net, '+'.join(SCHEMES), 1.0).item() == pytest.approx(sum(parts.values()), rel=1e-12)
    assert filter_penalty(net, 'highest+highest', 1.0).item() == pytest.approx(
        2 * parts['highest'], rel=1e-12
    )
    assert filter_penalty(net, depth=1.0).item() == pytest.approx(parts['highest'])


@pytest.mark.parametrize('net', [nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Linear(2, 2)])
def test_networks_without_frequencies(net):
    with pytest.raises(ValueError, match='larger than 1 x 1'):
        filter_penalty(net)


@settings(max_examples=100, **laws)
@given(
    st.lists(
        st.tuples(st.integers(1, 11), st.integers(1, 11)).filter(lambda k: k != (1, 1)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(PAPERS),
    st.sampled_from([*FORMS]),
    st.integers(0, 2**31),
)
def test_any_kernel(sizes, scheme, form, seed):
    plain = stack(sizes, seed)
    net = FORMS[form](plain)
    penalty = filter_penalty(net, scheme, 1.0)
    assert penalty.isfinite() and penalty >= 0
    agree(penalty, filter_penalty(plain, scheme, 1.0), 1e-10)
    turned = stack([(w, h) for h, w in sizes], seed)
    for one, two in zip(turned, plain):
        one.weight = nn.Parameter(two.weight.detach().mT)
    agree(filter_penalty(turned, scheme, 1.0), penalty.detach(), 1e-10)
    for layer in net:
        for p in layer.parameters():
            p.data = p.data * 3
    agree(filter_penalty(net, scheme, 1.0), 3 * penalty.detach(), 1e-10)


@pytest.mark.parametrize('scheme', PAPERS)
def test_flat_kernels_cost_nothing(scheme):
    net = stack([3, 5, (2, 7)], 0)
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(layer.weight[..., :1, :1].clone().expand_as(layer.weight))
    assert filter_penalty(net, scheme, 1.0).item() == pytest.approx(
        0, abs=1e-8 * sum(w.abs().sum().item() for w in weights_of(net))
    )


@each_form
@each_scheme
def test_under_autocast(form, scheme):
    net = FORMS[form](stack([3, 5], 1, (8, 16), torch.float32))
    expected = filter_penalty(net, scheme, 1.0)
    with torch.autocast('cpu', torch.bfloat16):
        penalty = filter_penalty(net, scheme, 1.0)
    assert penalty.dtype == torch.float32 and torch.equal(penalty, expected)
    penalty.backward()
    assert all(
        p.grad is None or (p.grad.dtype == torch.float32 and p.grad.isfinite().all())
        for p in net.parameters()
    )


@each_form
def test_depthwise(form):
    net = FORMS[form](stack([5, 3], 0, (6,), groups=6))
    for scheme in SUMS:
        agree(filter_penalty(net, scheme, 1.0), slow(weights_of(net), scheme), 1e-12)


def test_mixed_networks():
    plain = stack([3, 5, 3, 5, 3], 0)
    mixed = to_dct(
        to_dct(plain, where=lambda name, layer: name in '02'),
        DCTSignalConv2d,
        'ortho',
        where=lambda name, layer: name == '3',
    )
    assert [type(layer) for layer in mixed] == [DCTConv2d, nn.Conv2d, DCTConv2d, DCTSignalConv2d, nn.Conv2d]
    mixed[2].float()
    for depth in (1 / 3, 3, 1.0):
        taken = weights_of(penalized_layers(plain, depth))
        for scheme in SUMS:
            assert filter_penalty(mixed, scheme, depth).item() == pytest.approx(
                slow(taken, scheme).item(), rel=1e-5
            )


@each_form
@pytest.mark.parametrize('scheme', ['highest', 'weighted'])
def test_descent_lowers_high_frequencies(form, scheme):
    torch.manual_seed(0)
    net = FORMS[form](create('resnet9', width=4))

    def shares():
        return torch.stack([high_share(layer.weight.detach()).mean() for layer in penalized_layers(net, 1.0)])

    before, penalty = shares(), filter_penalty(net, scheme, 1.0)
    gradients = torch.autograd.grad(penalty, [p for p in net.parameters() if p.ndim == 4])
    step = 0.1 * penalty.item() / sum(g.square().sum() for g in gradients).item()
    with torch.no_grad():
        for p, g in zip([p for p in net.parameters() if p.ndim == 4], gradients):
            p.sub_(step * g)
    assert filter_penalty(net, scheme, 1.0) < penalty and (shares() < before).all()


def test_frozen_networks_have_a_value():
    net = stack([3, 5], 0).requires_grad_(False)
    agree(filter_penalty(net, depth=1.0), slow(weights_of(net), 'highest'), 1e-12)
    net[0].weight.requires_grad_()
    filter_penalty(net, depth=1.0).backward()
    assert net[0].weight.grad.isfinite().all() and net[1].weight.grad is None
