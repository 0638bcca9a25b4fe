"Cosine convolutions against `nn.Conv2d` over its options, conversions, states; smoothing against loops in float64"

import copy
import io

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from freqnb.layers import (
    Conversion,
    DCTConv2d,
    DCTSignalConv2d,
    convolutions,
    cosine_basis,
    dct_coefficients,
    first_convolution,
    fold,
    high_share,
    plain_state,
    smooth,
    smooth_kernels,
    synthesize,
    to_dct,
)
from freqnb.models import NETS, create

kernels = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31)
).map(lambda o: torch.randn(*o[:4], dtype=torch.float64, generator=torch.Generator().manual_seed(o[4])))
rhos = st.floats(0, 4, allow_nan=False)
KINDS, NORMS, MODES = (
    (DCTConv2d, DCTSignalConv2d),
    ('l1', 'ortho'),
    ('zeros', 'reflect', 'replicate', 'circular'),
)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
each_kind, each_norm = pytest.mark.parametrize('kind', KINDS), pytest.mark.parametrize('norm', NORMS)


def close(ours, plain, tolerance, typical=0.0):
    "Whether the largest difference is at most `tolerance` times the largest of `plain` and of `typical`"
    assert ours.shape == plain.shape
    return (ours - plain).abs().max() <= tolerance * max(plain.abs().max(), typical)


def same_state(a, b):
    "Whether two states are equal bit for bit, in names, order, types and values"
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def network():
    "Convolutions of several sizes, one of them depthwise and one of 1 x 1, for images of three channels"
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, (3, 5), groups=8),
        nn.Conv2d(8, 4, 1),
        nn.Conv2d(4, 6, 3, padding='same', bias=False),
    )


def pictures(dtype=torch.float32):
    return torch.rand(2, 3, 12, 14, generator=torch.Generator().manual_seed(1)).to(dtype)


@st.composite
def paddings(draw, mode, dilation, kernel, stride):
    "A padding that `nn.Conv2d` takes, and how many pixels it adds before and after each axis"
    kind = draw(st.sampled_from(['int', 'tuple', 'valid'] + (['same'] if stride == (1, 1) else [])))
    if kind == 'valid':
        return 'valid', [(0, 0)] * 2
    if kind == 'same':
        return 'same', [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for d, k in zip(dilation, kernel)]
    amounts = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    if kind == 'int':
        return amounts[0], [(amounts[0],) * 2] * 2
    return amounts, [(a, a) for a in amounts]


@st.composite
def convolution_options(draw):
    "Arguments of `nn.Conv2d`, with the smallest image that it takes"
    side, pair = st.integers(1, 11), lambda a, b: st.tuples(st.integers(a, b), st.integers(a, b))
    kernel = draw(st.one_of(side.map(lambda k: (k, k)), st.tuples(side, side)))
    stride, dilation, mode = (
        draw(st.one_of(st.just((1, 1)), pair(1, 3))),
        draw(pair(1, 2)),
        draw(st.sampled_from(MODES)),
    )
    assume(kernel != (1, 1) or stride == (1, 1))  # PyTorch's gradient writes past its memory; see `PointwiseConv2d`
    padding, added = draw(paddings(mode, dilation, kernel, stride))
    groups, inner, outer = draw(
        st.sampled_from([(1, 1, 1), (1, 3, 2), (2, 1, 3), (2, 2, 1), (3, 2, 2), (4, 1, 1), (3, 1, 2)])
    )
    within = {'zeros': 0, 'replicate': 0, 'reflect': 1, 'circular': 0}[mode]
    smallest = [
        max(1, d * (k - 1) + 1 - sum(p), max(p) + within if mode in ('reflect', 'circular') else 1)
        for d, k, p in zip(dilation, kernel, added)
    ]
    options = dict(
        in_channels=groups * inner,
        out_channels=groups * outer,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    return options, [s + draw(st.integers(0, 4)) for s in smallest]


def gradients(layer, forward, x, cotangent):
    "Outputs, input gradients, parameter gradients"
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = forward(x)
    return y.detach(), torch.autograd.grad(y, [x, *layer.parameters()], cotangent)


def typical_size(layer, x, cotangent):
    "The largest root sum of squares of the terms of each output and gradient: the size of a random sum"
    squared = copy.deepcopy(layer)
    with torch.no_grad():
        for p in squared.parameters():
            p.square_()
    y, more = gradients(squared, squared, x.square(), cotangent.square())
    return [value.max().sqrt() for value in (y, *more)]


@pytest.mark.filterwarnings('ignore:Using padding')
@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(
    convolution_options(),
    st.integers(1, 3),
    st.sampled_from([*TOLERANCE]),
    st.sampled_from(NORMS),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_five_forms_are_one_function(case, n, dtype, norm, channels_last, seed):
    (options, size), tolerance = case, TOLERANCE[dtype]
    torch.manual_seed(seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    plain = nn.Conv2d(**options, dtype=dtype).to(memory_format=layout)
    x = torch.randn(n, options['in_channels'], *size, dtype=dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        cotangent = torch.randn_like(plain(x))
        # On some processors oneDNN gets a plain convolution of unequal strides wrong: nothing to compare with
        exact = copy.deepcopy(plain).double().to(memory_format=torch.contiguous_format)(x.double())
        assume(close(plain(x).double(), exact, 1e-3))
    y, gradient = gradients(plain, plain, x, cotangent)
    expected, sizes = [y, *gradient], typical_size(plain, x, cotangent)
    in_cosines = synthesize(gradient[1].double(), cosine_basis(plain.kernel_size, norm).T).to(dtype)
    for kind in KINDS:
        wave = kind(**options, dtype=dtype, norm=norm).to(memory_format=layout)
        wave.load_state_dict(plain.state_dict())
        for forward in (wave, wave.two_step) if kind is DCTSignalConv2d else (wave,):
            assert list(dict(wave.named_parameters())) == ['coefficients', 'bias'][: 1 + options['bias']]
            y, gradient = gradients(wave, forward, x, cotangent)
            assert all(
                close(*o)
                for o in zip(
                    [y, *gradient], [*expected[:2], in_cosines, *expected[3:]], [tolerance] * 4, sizes
                )
            )
        folded = fold(wave)
        y, gradient = gradients(folded, folded, x, cotangent)
        assert type(folded) is nn.Conv2d and close(folded.weight, plain.weight, tolerance)
        assert all(close(*o) for o in zip([y, *gradient], expected, [tolerance] * 4, sizes))


@each_kind
def test_one_image_without_a_batch(kind):
    plain, x = nn.Conv2d(3, 4, 3, padding=1), pictures()[0]
    torch.testing.assert_close(to_dct(plain, kind)(x), plain(x), rtol=1e-5, atol=1e-5)


@each_kind
@each_norm
@pytest.mark.parametrize(
    'options', [dict(kernel_size=3), dict(kernel_size=(5, 2), groups=3, bias=False), dict(kernel_size=1)]
)
def test_the_same_seed_gives_the_same_function(kind, norm, options):
    x = pictures()

    def twins():
        for build in (nn.Conv2d, lambda *a, **k: kind(*a, norm=norm, **k)):
            torch.manual_seed(3)
            yield build(3, 6, **options)

    plain, wave = twins()
    assert close(wave(x), plain(x), 1e-5)
    held = wave.coefficients
    for layer in (plain, wave):
        torch.manual_seed(4)
        layer.reset_parameters()
    assert wave.coefficients is held and close(wave(x), plain(x), 1e-5)
    assert [tuple(p.shape) for p in wave.parameters()] == [tuple(p.shape) for p in plain.parameters()]
    assert plain.bias is None or torch.equal(wave.bias, plain.bias)


@each_kind
@each_norm
def test_conversion_leaves_the_original_alone(kind, norm):
    net = network().eval()
    before, x = snapshot(net), pictures()
    waves = to_dct(net, kind, norm)
    assert same_state(net.state_dict(), before) and not hasattr(net, 'conversion')
    assert all(type(layer) is nn.Conv2d for layer in convolutions(net).values())
    assert [type(layer) for layer in convolutions(waves).values()] == [kind, kind, nn.Conv2d, kind]
    assert close(waves(x), net(x), 1e-5)
    with torch.no_grad():
        waves[1].weight.add_(1)
    assert same_state(net.state_dict(), before)
    after = snapshot(waves)
    fold(waves)
    assert same_state(waves.state_dict(), after) and type(waves[0]) is kind


@each_kind
@each_norm
def test_folding_gives_the_weights_back(kind, norm):
    net = network().double()
    back = fold(to_dct(net, kind, norm))
    assert list(back.state_dict()) == list(net.state_dict())
    for name, value in back.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-12, atol=1e-14)
    assert [type(layer) for layer in back] == [type(layer) for layer in net]
    assert str(back) == str(net)


@each_kind
def test_in_place(kind):
    net = network().eval()
    x, layers = pictures(), list(net)
    expected, keys = net(x).detach(), list(net.state_dict())
    assert to_dct(net, kind, inplace=True) is net and list(net) == layers and type(net[0]) is kind
    assert close(net(x), expected, 1e-5)
    assert fold(net, inplace=True) is net and list(net) == layers and type(net[0]) is nn.Conv2d
    assert close(net(x), expected, 1e-5) and list(net.state_dict()) == keys


def test_reports():
    net = network()
    waves = to_dct(net, where=lambda name, layer: layer.groups == 1)
    assert waves.conversion == Conversion(
        'DCTConv2d', {'0': '5 x 5', '5': '3 x 3'}, {'3': 'by your choice', '4': 'of 1 x 1'}
    )
    assert str(waves.conversion) == (
        '2 of 4 convolutions became DCTConv2d: 1 of 5 x 5, 1 of 3 x 3; '
        'left alone: 1 by your choice, 1 of 1 x 1'
    )
    again = to_dct(waves, DCTSignalConv2d).conversion
    assert again.changed == {'3': '3 x 5'} and again.left == {
        name: 'in a cosine basis already' for name in '05'
    } | {'4': 'of 1 x 1'}
    assert fold(waves).conversion == Conversion(
        'nn.Conv2d', {'0': '5 x 5', '5': '3 x 3'}, {'3': 'plain already', '4': 'plain already'}
    )
    assert to_dct(nn.Linear(2, 2)).conversion == Conversion('DCTConv2d', {}, {})


@pytest.mark.parametrize('wrong', [nn.Conv2d, 'WD', DCTConv2d(1, 1, 3)])
def test_a_wrong_class_is_echoed(wrong):
    with pytest.raises(ValueError, match='DCTConv2d or DCTSignalConv2d'):
        to_dct(network(), wrong)


def test_a_wrong_basis_is_echoed():
    net = network()
    for build in (lambda: to_dct(net, norm='l2'), lambda: DCTConv2d(1, 1, 3, norm='l2')):
        with pytest.raises(ValueError, match="'l2'"):
            build()


@each_kind
def test_shared_weights_stay_shared(kind):
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)])
    net[2].weight = net[0].weight
    waves, x = to_dct(net, kind), pictures()
    back = fold(waves)
    assert waves[0].coefficients is waves[2].coefficients is not waves[1].coefficients
    assert back[0].weight is back[2].weight is not back[1].weight
    assert net[0].weight is net[2].weight
    assert close(waves(x), net(x), 1e-5) and close(back(x), net(x), 1e-5)
    for model in (net, waves):
        model(x).sum().backward()
    expected = synthesize(net[0].weight.grad, cosine_basis((3, 3)).T.float())
    assert close(waves[0].coefficients.grad, expected, 1e-4)


def test_a_module_used_twice_is_converted_once():
    layer = nn.Conv2d(3, 3, 3, padding=1)
    net, x = nn.Sequential(layer, nn.ReLU(), layer), pictures()
    waves = to_dct(net)
    assert waves[0] is waves[2] and len(waves.conversion.changed) == 1 and close(waves(x), net(x), 1e-5)


class Doubled(nn.Conv2d):
    "A convolution with a way of its own"

    def forward(self, x):
        return self._conv_forward(x, 2 * self.weight, self.bias)


@each_kind
def test_subclasses_keep_their_way(kind):
    net, x = nn.Sequential(Doubled(3, 4, 3), Doubled(4, 4, 1)), pictures()
    waves = to_dct(net, kind)
    assert isinstance(waves[0], Doubled) and isinstance(waves[0], kind) and type(waves[1]) is Doubled
    assert close(waves(x), net(x), 1e-5)
    assert type(to_dct(net, kind)[0]) is type(waves[0])
    assert type(copy.deepcopy(waves)[0]) is type(waves[0])
    back = fold(waves)
    assert type(back[0]) is Doubled and close(back[0].weight, net[0].weight, 1e-6)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'wrap',
    [
        nn.utils.weight_norm,
        parametrizations.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.spectral_norm,
    ],
)
def test_weights_computed_from_something_else_are_left_alone(wrap):
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), wrap(nn.Conv2d(4, 4, 3))).eval(), pictures()
    before, kind, expected = snapshot(net), type(net[1]), net(x).detach()
    net = to_dct(net, inplace=True)
    assert net.conversion.left == {'1': 'without a weight of its own'} and type(net[1]) is kind
    assert close(net(x), expected, 1e-5)
    assert all(
        torch.equal(value, before[name]) for name, value in net.state_dict().items() if name.startswith('1.')
    )


def test_lazy_convolutions_are_left_alone_until_they_know():
    net, x = nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 4, 3)), pictures()
    waves = to_dct(net)
    assert waves.conversion.left == {'0': 'without a weight of its own'} and type(waves[0]) is nn.LazyConv2d
    expected = waves(x)
    later = to_dct(waves)
    assert type(waves[0]) is nn.Conv2d and type(later[0]) is DCTConv2d and close(later(x), expected, 1e-5)


@each_kind
def test_gradients_stay_on_or_off(kind):
    net = network()
    net[0].weight.requires_grad_(False)
    waves = to_dct(net, kind)
    assert (
        waves[0].coefficients.requires_grad,
        waves[0].bias.requires_grad,
        waves[3].coefficients.requires_grad,
    ) == (False, True, True)
    assert [p.requires_grad for p in fold(waves).parameters()] == [p.requires_grad for p in net.parameters()]


def test_modes_and_hooks_stay():
    net, seen = network().eval(), []
    net[0].register_forward_hook(lambda module, given, result: seen.append(type(module)))
    for model in (to_dct(net), fold(to_dct(net))):
        model(pictures())
        assert not any(module.training for module in model.modules())
    assert seen == [DCTConv2d, nn.Conv2d]


def forms():
    "Builders of the network in each form"
    return dict(plain=network) | {
        f'{kind.__name__}_{norm}': lambda kind=kind, norm=norm: to_dct(network(), kind, norm)
        for kind in KINDS
        for norm in NORMS
    }


@pytest.mark.parametrize('assign', [False, True])
@pytest.mark.parametrize('target', forms())
@pytest.mark.parametrize('source', forms())
def test_states_move(source, target, assign):
    source, target, x = (
        forms()[source]().double().eval(),
        forms()[target]().double().eval(),
        pictures(torch.float64),
    )
    with torch.no_grad():
        for p in source.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    state = source.state_dict()
    given, kept = list(state), snapshot(source)
    if isinstance(target[0], DCTConv2d):
        target.load_state_dict(state, strict=True, assign=assign)
    else:
        target.load_state_dict(plain_state(state), strict=True, assign=assign)
    assert close(target(x), source(x), 1e-6)
    assert list(state) == given and same_state(source.state_dict(), kept)
    assert all(isinstance(p, nn.Parameter) for p in target.parameters()) and len(
        list(target.parameters())
    ) == len(list(source.parameters()))
    assert close(target[0].weight, source[0].weight, 1e-6)


@each_kind
def test_a_lone_layer_loads_a_plain_state(kind):
    plain = nn.Conv2d(3, 4, 3)
    wave = kind(3, 4, 3)
    assert not any(wave.load_state_dict(plain.state_dict()))
    assert close(wave.weight, plain.weight, 1e-6)
    assert set(plain_state(wave.state_dict())) == {'weight', 'bias'}


def test_plain_states_stay_as_they_are():
    state = network().state_dict()
    assert same_state(plain_state(state), state)
    other = dict(basis=torch.ones(2), coefficients=torch.ones(3))
    assert plain_state(dict(coefficients=other['coefficients']))['coefficients'] is other['coefficients']
    assert plain_state(dict(basis=other['basis']))['basis'] is other['basis']


@each_kind
@pytest.mark.parametrize(
    'other',
    [
        dict(out=5),
        dict(inputs=2),
        dict(size=5),
        dict(size=(3, 1)),
        dict(out=5, norm='ortho'),
        dict(size=5, norm='ortho'),
    ],
)
@pytest.mark.parametrize('plain', [False, True])
def test_wrong_shapes_are_torchs_error(kind, other, plain):

    def build(inputs=3, out=4, size=3, norm='l1'):
        return nn.Sequential(kind(inputs, out, size, norm=norm))

    wave, state = build(), build(**other).state_dict()
    before = snapshot(wave)
    with pytest.raises(RuntimeError, match=r'size mismatch for 0\.coefficients'):
        wave.load_state_dict(plain_state(state) if plain else state)
    assert torch.equal(wave[0].coefficients, before['0.coefficients'])


@each_kind
def test_missing_and_unexpected_keys_are_named(kind):
    wave = nn.Sequential(kind(3, 4, 3))
    with pytest.raises(RuntimeError, match=r'Missing key.*0\.coefficients'):
        wave.load_state_dict({})
    with pytest.raises(RuntimeError, match=r'Missing key.*0\.bias'):
        wave.load_state_dict({'0.weight': torch.ones(4, 3, 3, 3)})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*0\.scale'):
        wave.load_state_dict(wave.state_dict() | {'0.scale': torch.ones(1)})
    missing, unexpected = wave.load_state_dict(
        {'0.weight': torch.ones(4, 3, 3, 3), 'more': torch.ones(1)}, strict=False
    )
    assert (missing, unexpected) == (['0.bias'], ['more'])
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError, match=r'Missing key.*0\.weight'):
        plain.load_state_dict(wave.state_dict())


@each_kind
@each_norm
def test_copies_and_files(kind, norm):
    wave, x, file = to_dct(network(), kind, norm).eval(), pictures(), io.BytesIO()
    twin = copy.deepcopy(wave)
    assert same_state(twin.state_dict(), wave.state_dict()) and torch.equal(twin(x), wave(x))
    with torch.no_grad():
        twin[0].coefficients.zero_()
    assert wave[0].coefficients.abs().sum() > 0
    torch.save(wave.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin(x), wave(x)) and same_state(twin.state_dict(), wave.state_dict())


@each_kind
def test_built_without_memory(kind):
    "On the meta device, then filled from a state: of itself, of plain convolutions, of another basis"
    source, x = network().eval(), pictures()
    for state in (to_dct(source, kind), source, to_dct(source, kind, 'ortho')):
        with torch.device('meta'):
            empty = to_dct(network(), kind).eval()
        for filled in (copy.deepcopy(empty).to_empty(device='cpu'), empty):
            if filled is not empty:
                for value in filled.state_dict().values():
                    value.fill_(7)
            filled.load_state_dict(state.state_dict(), assign=filled is empty)
            assert close(filled(x), source(x), 1e-5)


@each_kind
def test_built_without_memory_and_drawn(kind):
    with torch.device('meta'):
        empty = kind(3, 4, 3)
    plain, wave = nn.Conv2d(3, 4, 3), empty.to_empty(device='cpu')
    for value in wave.state_dict().values():
        value.fill_(7)
    for layer in (plain, wave):
        torch.manual_seed(0)
        layer.reset_parameters()
    assert close(wave.weight, plain.weight, 1e-6)


@each_kind
@each_norm
def test_types_and_layouts(kind, norm):
    net, x = network().eval(), pictures()
    wave, expected = to_dct(net, kind, norm), net(x)
    assert close(wave.double()(x.double()), expected.double(), 1e-6)
    assert wave[0].coefficients.dtype == wave[0].basis.dtype == wave[0].weight.dtype == torch.float64
    wave.float()
    for layout in (torch.channels_last, torch.contiguous_format):
        wave.to(memory_format=layout)
        for images in (x, x.contiguous(memory_format=torch.channels_last)):
            assert close(wave(images), expected, 1e-5)
    assert close(wave.bfloat16()(x.bfloat16()).float(), expected, 5e-2)
    assert close(fold(to_dct(network().bfloat16(), kind, norm))[0].weight.float(), net[0].weight, 1e-2)


@each_kind
def test_under_autocast(kind):
    net, x = network().eval(), pictures()
    wave = to_dct(net, kind)
    with torch.autocast('cpu', torch.bfloat16):
        ours, plain = wave(x), net(x)
    assert ours.dtype == plain.dtype == torch.bfloat16
    assert close(ours.float(), net(x), 3e-2)
    wave.zero_grad()
    with torch.autocast('cpu', torch.bfloat16):
        wave(x).float().sum().backward()
    assert wave[0].coefficients.grad.dtype == torch.float32 and wave[0].coefficients.grad.isfinite().all()


@each_kind
def test_compiled(kind):
    net, x = network().eval(), pictures()
    wave = to_dct(net, kind)
    compiled = torch.compile(wave, backend='eager', fullgraph=True)
    assert close(compiled(x), net(x), 1e-5)


@each_kind
def test_an_optimizer_moves_it(kind):
    wave, x = to_dct(network(), kind), pictures()
    before, optimizer = wave(x).detach().square().mean(), torch.optim.SGD(wave.parameters(), 0.05)
    for _ in range(5):
        optimizer.zero_grad()
        wave(x).square().mean().backward()
        optimizer.step()
    assert wave(x).square().mean() < 0.9 * before and 'coefficients' in dict(wave[0].named_parameters())


@each_kind
@each_norm
@pytest.mark.parametrize('asked', NORMS)
def test_coefficients_do_not_depend_on_the_form(kind, norm, asked):
    layer = nn.Conv2d(3, 5, (5, 3)).double()
    expected = torch.einsum(
        'onp,kp->onk',
        layer.weight.flatten(2),
        cosine_basis((5, 3), asked) / cosine_basis((5, 3), asked).square().sum(1, keepdim=True),
    )
    for form in (layer, to_dct(layer, kind, norm)):
        assert close(dct_coefficients(form, asked).flatten(2), expected, 1e-12)


def reference(weight, rho):
    "Equation 3 one number at a time, from the old weights alone"
    out, rows, columns = weight.clone(), *weight.shape[-2:]
    for i in range(rows):
        for j in range(columns):
            for a, b in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                out[..., i, j] += (
                    rho * weight[..., min(max(i + a, 0), rows - 1), min(max(j + b, 0), columns - 1)]
                )
    return out


@settings(deadline=None, max_examples=60)
@given(kernels, rhos)
def test_smoothing_is_the_papers(weight, rho):
    expected = reference(weight, rho)
    torch.testing.assert_close(smooth(weight, rho), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        smooth(weight, rho, normalize=True), expected / (1 + 8 * rho), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(smooth(weight.float(), rho).double(), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(kernels, rhos)
def test_no_smoothing_and_constant_kernels(weight, rho):
    assert torch.equal(smooth(weight, 0), weight)
    flat = torch.ones_like(weight)
    torch.testing.assert_close(smooth(flat, rho), (1 + 8 * rho) * flat)
    torch.testing.assert_close(smooth(flat, rho, normalize=True), flat)


@pytest.mark.parametrize('name', NETS)
def test_only_the_first_layer_changes(name):
    model = create(name, width=6)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    smoothed = smooth_kernels(model, 0.5)
    first = next(key for key, value in model.named_parameters() if value is first_convolution(model).weight)
    assert [key for key, value in smoothed.state_dict().items() if not torch.equal(value, before[key])] == [
        first
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert high_share(smoothed.state_dict()[first]).mean() < high_share(before[first]).mean()


@pytest.mark.parametrize('rho', [-0.1, float('nan'), float('inf')])
def test_bad_rho_is_echoed(rho):
    with pytest.raises(ValueError, match=str(rho)):
        smooth(torch.ones(1, 1, 3, 3), rho)
