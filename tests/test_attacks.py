"""The laws of `freqnb.attacks`, for whatever shapes, norms and distances hypothesis thinks of."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from freqnb.attacks import (
    LOSSES,
    MEMBERS,
    NORMS,
    Budget,
    apgd,
    attacking,
    autoattack,
    dlr,
    fgsm,
    kl_divergence,
    margin,
    normalized_gradient,
    parse_eps,
    pgd,
    pgd_kl,
    project,
    random_in_ball,
    square,
)
from freqnb.ensemble import _tiles
from freqnb.layers import folded_batch_norm, to_dct
from freqnb.models import create, evaluating, predict

side, channels, seed = st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 2**31)
norm, loss, eps = st.sampled_from(NORMS), st.sampled_from(tuple(LOSSES)), st.floats(0, 1)
dtype = st.sampled_from([torch.float32, torch.float64])
laws = settings(deadline=None, max_examples=60)
ATTACKS = dict(
    fgsm=fgsm,
    linf=pgd,
    l2=partial(pgd, norm='l2'),
    restarts=partial(pgd, restarts=3),
    until_broken=partial(pgd, until_broken=True),
    kl=pgd_kl,
    apgd=partial(apgd, steps=10),
    apgd_l2=partial(apgd, norm='l2', steps=10),
    square=partial(square, queries=10),
    autoattack=partial(autoattack, version=Budget(steps=3, targets=2, queries=5)),
    fab=partial(autoattack, version=Budget('fab', steps=2), norm='l2'),
)
each_attack = pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS)


def images(*shape, seed=0, dtype=torch.float32):
    "Random images in [0, 1], with pixels at both ends, and labels from 0 to 4"
    draw = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(*shape, dtype=dtype, generator=draw) - 0.2).clamp(0, 1)
    return x, torch.randint(5, shape[:1], generator=draw)


def network(*shape, seed=0, dtype=torch.float32):
    "A curved function from images to five logits"
    draw = torch.Generator().manual_seed(seed + 1)
    pixels = int(np.prod(shape[1:]))
    first, last = (torch.randn(o, dtype=dtype, generator=draw) for o in ((pixels, 8), (8, 5)))
    return lambda x: torch.tanh((x.flatten(1) - 0.5) @ first) @ last


def lengths(delta, norm):
    flat = delta.double().flatten(1)
    return flat.abs().amax(1) if norm == 'linf' else flat.norm(dim=1)


def inside(attacked, x, eps, norm):
    "Within the ball, up to the rounding of pixels, and within [0, 1]"
    slack = 4 * torch.finfo(x.dtype).eps * x[0].numel() ** 0.5
    return bool(
        (lengths(attacked - x, norm) <= eps + slack).all() and attacked.min() >= 0 and attacked.max() <= 1
    )


def small():
    "A network with batch normalization, the same each time"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create('resnet9', width=4, channels=1)


@laws
@given(
    st.integers(1, 6),
    channels,
    side,
    side,
    eps,
    norm,
    loss,
    dtype,
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 7),
    seed,
)
def test_pgd_stays_inside(
    n, c, h, w, eps, norm, loss, dtype, steps, restarts, random_start, batch_size, seed
):
    (x, y), model = images(n, c, h, w, seed=seed, dtype=dtype), network(n, c, h, w, seed=seed, dtype=dtype)
    attack = partial(pgd, model, x, y, eps, None, steps, norm, loss, restarts, random_start, seed, batch_size)
    attacked = attack()
    assert attacked.shape == x.shape and attacked.dtype == dtype and not attacked.requires_grad
    assert inside(attacked, x, eps, norm) and torch.equal(attacked, attack())
    assert eps > 0 or torch.equal(attacked, x)


@laws
@given(side, side, eps, norm, loss, st.integers(1, 5), st.integers(0, 3), seed)
def test_restarts_never_help_the_network(h, w, eps, norm, loss, restarts, more, seed):
    (x, y), model = images(12, 1, h, w, seed=seed), network(12, 1, h, w, seed=seed)
    fewer, further = (
        predict(
            model, pgd(model, x, y, eps, steps=2, norm=norm, loss=loss, restarts=o, seed=seed, batch_size=5)
        )
        for o in (restarts, restarts + more)
    )
    right = further.argmax(1) == y
    assert bool((right <= (fewer.argmax(1) == y)).all())
    assert bool((LOSSES[loss](further, y) >= LOSSES[loss](fewer, y) - 1e-4)[right].all())


@laws
@given(side, side, eps, seed)
def test_a_linear_network_has_a_known_worst(h, w, eps, seed):
    x, _ = images(4, 1, h, w, seed=seed, dtype=torch.float64)
    x, y = 0.25 + x / 2, torch.zeros(4, dtype=torch.long)
    weights = torch.randn(1, h, w, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))

    def model(o):
        return torch.stack([0 * o[:, 0, 0, 0], (o * weights).sum((1, 2, 3))], 1)

    worst = (x + eps * weights.sign()).clamp(0, 1)
    for attacked in (pgd(model, x, y, eps, seed=seed), fgsm(model, x, y, eps)):
        assert (attacked - worst).abs().max() < 1e-12
    close, along = eps / 4, weights / weights.norm()
    assert (pgd(model, x, y, close, norm='l2', random_start=False) - x - close * along).abs().max() < 1e-12
    assert inside(pgd(model, x, y, eps, norm='l2', seed=seed), x, eps, 'l2')


@laws
@given(st.integers(1, 9), channels, side, side, eps, dtype, st.integers(1, 8), st.integers(1, 9), seed)
def test_square_stays_inside_and_changes_what_it_breaks(n, c, h, w, eps, dtype, queries, batch_size, seed):
    (x, y), model, state = (
        images(n, c, h, w, seed=seed, dtype=dtype),
        network(n, c, h, w, seed=seed, dtype=dtype),
        torch.get_rng_state(),
    )
    attacked = square(model, x, y, eps, queries, seed, batch_size)
    assert inside(attacked, x, eps, 'linf') and torch.equal(
        attacked, square(model, x, y, eps, queries, seed, batch_size)
    )
    moved = (attacked != x).flatten(1).any(1)
    assert bool(((model(attacked).argmax(1) == y) <= ~moved).all()) and torch.equal(
        torch.get_rng_state(), state
    )


@laws
@given(channels, side, side, eps, norm, dtype, seed)
def test_the_geometry_of_a_ball(c, h, w, eps, norm, dtype, seed):
    (x, _), (far, _) = (images(5, c, h, w, seed=o, dtype=dtype) for o in (seed, seed + 1))
    near, start = (
        project(far, x, eps, norm),
        random_in_ball(x, eps, norm, torch.Generator().manual_seed(seed)),
    )
    assert inside(near, x, eps, norm) and (project(near, x, eps, norm) - near).abs().max() < 1e-6
    assert (
        inside(project(start, x, eps, norm), x, eps, norm) and (lengths(start - x, norm) <= eps + 1e-5).all()
    )
    step = lengths(
        normalized_gradient(far * torch.tensor([1, 1e-30, 1e30, 0, 1]).view(-1, 1, 1, 1), norm), norm
    )
    some = (far.flatten(1) > 0).any(1) & torch.tensor([True, True, True, False, True])
    assert (step[some] - 1).abs().max() < 1e-5 if some.any() else True
    assert not step[~some].any()


@laws
@given(st.integers(2, 6), st.integers(1, 9), seed)
def test_margin_is_the_lead_of_the_best_wrong_class(classes, n, seed):
    logits = torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))
    y = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    expected = [
        max(row[j] for j in range(classes) if j != k) - row[k] for row, k in zip(logits.tolist(), y.tolist())
    ]
    assert np.allclose(margin(logits, y).tolist(), expected, atol=1e-6)


def test_pgd_is_the_textbook_loop():
    "The same images as a loop written out, with other batches and in another layout"
    model, (x, y) = small().eval(), images(9, 1, 12, 12)
    plain = x.clone()
    for _ in range(5):
        plain.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(plain), y), plain)
        plain = torch.min(torch.max(plain.detach() + 0.02 * gradient.sign(), x - 0.05), x + 0.05).clamp(0, 1)
    for images_, size in ((x, 500), (x, 4), (x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), 9)):
        attacked = pgd(model, images_, y, 0.05, alpha=0.02, steps=5, random_start=False, batch_size=size)
        assert (attacked - plain).abs().max() < 1e-6 and attacked.stride() == images_.stride()


@each_attack
def test_the_network_is_left_as_it_was(attack):
    model, (x, _) = small().train(), images(8, 1, 12, 12)
    y = predict(model, x).argmax(1)
    model.stage1.eval()
    model.head.bias.requires_grad_(False)
    waiting = model.head.weight.grad = torch.ones_like(model.head.weight)
    modes, state, pixels = (
        [o.training for o in model.modules()],
        {k: v.clone() for k, v in model.state_dict().items()},
        x.clone(),
    )
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            attacked = attack(model, x, y, 0.3)
        assert not attacked.requires_grad and not attacked.is_inference() and not torch.equal(attacked, x)
    assert [o.training for o in model.modules()] == modes and torch.equal(x, pixels)
    assert [name for name, o in model.named_parameters() if not o.requires_grad] == ['head.bias']
    assert [name for name, o in model.named_parameters() if o.grad is not None] == ['head.weight']
    assert model.head.weight.grad is waiting and bool((waiting == 1).all())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@each_attack
def test_modes_come_back_after_an_error(attack):
    model, (x, y) = small().train(), images(4, 1, 12, 12)
    with pytest.raises(RuntimeError):
        attack(model, x.repeat(1, 2, 1, 1), y, 0.05)
    assert all(o.training for o in model.modules())


@each_attack
@pytest.mark.parametrize('precision', [None, torch.bfloat16])
def test_a_training_step_around_an_attack(attack, precision):
    "Before, between and without: the gradients of the parameters do not notice, in mixed precision either"

    def gradients(*moments):
        torch.manual_seed(0)
        model, (x, y) = small().train(), images(8, 1, 12, 12)
        with torch.autocast('cpu', precision, enabled=precision is not None):
            if 'before' in moments:
                assert attack(model, x, y, 0.05).dtype == torch.float32
            value = F.cross_entropy(model(x), y)
            if 'between' in moments:
                attack(model, x, y, 0.05)
        value.backward()
        return torch.cat([o.grad.flatten() for o in model.parameters()])

    without = gradients()
    assert (
        without.any()
        and torch.equal(without, gradients('before'))
        and torch.equal(without, gradients('between'))
    )


def test_what_is_broken_is_not_attacked_again():
    "A network that is always wrong is asked no more often for ten attempts than for two"
    (x, y), seen = images(8, 1, 4, 4), []

    def wrong(o):
        seen.append(len(o))
        return F.one_hot((y[: len(o)] + 1) % 5, 5) * o.sum((1, 2, 3))[:, None]

    for restarts in (2, 10):
        pgd(wrong, x, y, 0.1, steps=3, restarts=restarts)
    assert seen == 2 * [8] * (3 + 1)


def test_square_may_be_given_a_view_of_the_images():
    "The library behind it writes into the logits"
    x, y = images(8, 1, 4, 4)
    same = [
        square(model, x.clone(), y, 0.2, 20)
        for model in (lambda o: o.flatten(1)[:, :5], lambda o: o.flatten(1)[:, :5].clone())
    ]
    assert torch.equal(*same) and not torch.equal(same[0], x)


def test_square_keeps_64_bits():
    "A network that any change breaks, and a distance that 32 bits round up"
    x = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)

    def touchy(o):
        return torch.stack([torch.full_like(o[:, 0, 0, 0], 0.01), (o - 0.5).abs().sum((1, 2, 3))], 1)

    attacked = square(touchy, x, torch.zeros(2, dtype=torch.long), 0.1, 5)
    assert 0.0999 < (attacked - x).abs().max() <= 0.1 + 1e-15


def test_only_seed_none_touches_the_global_random_state():
    model, (x, y), state = small(), images(4, 1, 12, 12), torch.get_rng_state()
    for attack in ATTACKS.values():
        attack(model, x, y, 0.05)
    assert torch.equal(torch.get_rng_state(), state)
    for attack in (pgd, pgd_kl, partial(apgd, steps=2)):
        torch.set_rng_state(state)
        attack(model, x, predict(model, x).argmax(1), 0.05, seed=None)
        assert not torch.equal(torch.get_rng_state(), state)


def test_silence_and_the_bar(capfd):
    model, (x, y) = small(), images(6, 1, 12, 12)
    for attack in ATTACKS.values():
        attack(model, x, y, 0.05)
    assert capfd.readouterr() == ('', '')
    pgd(model, x, y, 0.05, restarts=3, batch_size=4, progress=True)
    out, err = capfd.readouterr()
    assert out == '' and '100%' in err


@each_attack
@pytest.mark.parametrize('distance', [9, 8, 1.01, -0.1, float('nan'), float('inf')])
def test_a_distance_on_another_scale(attack, distance):
    "In `l2` the largest distance of two images of 64 pixels is 8"
    x, y = images(4, 1, 8, 8)
    norm = getattr(attack, 'keywords', {}).get('norm')
    if norm == 'l2' and 1 <= distance <= 8:
        assert inside(attack(small(), x, y, distance), x, distance, 'l2')
        return
    with pytest.raises(ValueError, match=rf'eps is {distance}; .*8/255'):
        attack(small(), x, y, distance)


@each_attack
def test_what_are_not_images_in_0_1(attack):
    x, y = images(4, 1, 8, 8)
    for bad, message in (
        (x * 255, 'pixels from 0 to 255'),
        (x - 0.5, 'pixels from -0.5'),
        (x * torch.nan, 'nan'),
        ((x * 255).byte(), 'torch.uint8'),
        (x.half(), 'torch.float16'),
        (x[0], r'\(1, 8, 8\)'),
        (x[:0], r'\(0, 1, 8, 8\)'),
        (x[:3], '3 images'),
    ):
        with pytest.raises(ValueError, match=message):
            attack(small(), bad, y[:0] if len(bad) == 0 else y, 0.1)


aa_budget = st.builds(
    Budget,
    st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=2),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 8),
)


@settings(laws, max_examples=40)
@given(
    st.integers(1, 9),
    channels,
    st.integers(3, 16),
    st.integers(3, 16),
    eps,
    norm,
    dtype,
    aa_budget,
    st.integers(1, 9),
    seed,
)
def test_autoattack_stays_inside_and_changes_what_it_breaks(
    n, c, h, w, eps, norm, dtype, budget, batch_size, seed
):
    (x, y), model, state = (
        images(n, c, h, w, seed=seed, dtype=dtype),
        network(n, c, h, w, seed=seed, dtype=dtype),
        torch.get_rng_state(),
    )
    attack = partial(autoattack, model, x, y, eps, norm, budget, seed, batch_size)
    if 'square' in budget.attacks and norm == 'l2' and eps > 0 and not _tiles(h, w):
        with pytest.raises(ValueError, match=rf'{h} x {w} pixels'):
            attack()
        return
    attacked, right = attack(), model(x).argmax(1) == y
    moved = (attacked != x).flatten(1).any(1)
    assert inside(attacked, x, eps, norm) and attacked.dtype == dtype and torch.equal(attacked, attack())
    assert bool((moved <= right).all()) and bool(
        ((predict(model, attacked).argmax(1) != y) == (moved | ~right)).all()
    )
    assert torch.equal(torch.get_rng_state(), state)


def trained(name, seed):
    "A small network that learned where in the image it is bright, and images it did not see"
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (300,), generator=draw)
    x = 0.25 + 0.3 * torch.rand(300, 1, 13, 13, generator=draw)
    for k in range(10):
        x[y == k, :, 2 * (k // 2) + 1 : 2 * (k // 2) + 3, 6 * (k % 2) : 6 * (k % 2) + 6] += 0.2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (
            create(name, width=4, channels=1)
            if name == 'resnet9'
            else torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(169, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
            )
        )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(15):
        for batch in torch.arange(260).split(26):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False), x[260:], y[260:]


@pytest.mark.parametrize(
    'name, norm, eps', [('resnet9', 'linf', 0.03), ('mlp', 'linf', 0.03), ('mlp', 'l2', 0.3)]
)
def test_autoattack_is_the_harder_attack_and_the_library_s_own(name, norm, eps):
    "No image survives AutoAttack that 20 steps of PGD break; the images are those of the library itself"
    from pyautoattack import AutoAttack

    model, x, y = trained(name, seed=1)
    budget, judge = Budget(steps=20, queries=50), lambda o: predict(model, o).argmax(1) == y
    attacked, pgd20 = autoattack(model, x, y, eps, norm, budget), pgd(model, x, y, eps, steps=20, norm=norm)
    assert bool((judge(attacked) <= judge(pgd20)).all()) and 0 < judge(pgd20).sum() < 0.9 * judge(x).sum()
    with torch.random.fork_rng():
        peer = AutoAttack(model, eps=eps, norm=norm.replace('l', 'L', 1), seed=0)
        for attack in (peer.apgd, peer.apgd_targeted, peer.fab):
            attack.n_iter = 20
        peer.square.n_queries = 50
        peer.apgd.n_iter_2 = peer.apgd_targeted.n_iter_2 = 4
        peer.apgd.n_iter_min = peer.apgd_targeted.n_iter_min = 1
        peer.apgd.size_decr = peer.apgd_targeted.size_decr = 1
        theirs, _ = peer.run_standard_evaluation(x, y, batch_size=100)
    assert torch.equal(judge(theirs), judge(attacked)) and (
        name != 'mlp' or (theirs - attacked).abs().max() < 1e-5
    )


def test_autoattack_standard_is_the_default():
    assert str(Budget()) == 'AutoAttack (standard)' and Budget() == Budget(
        ['apgd-ce', 'apgd-t', 'fab-t', 'square'], 100, 9, 5000
    )
    model, asked = network(4, 1, 6, 6), []

    def counted(o):
        asked.append(len(o))
        return model(o)

    x, _ = images(4, 1, 6, 6)
    attacked = autoattack(counted, x, model(x).argmax(1), 1e-6, version='standard')
    assert torch.equal(attacked, x) and sum(asked) >= 4 * (100 + 4 * 100 + 2 * 4 * 100 + 5000)


@pytest.mark.parametrize(
    'classes, attacks, refused',
    [
        (2, 'apgd-t', True),
        (3, 'apgd-t', True),
        (4, 'apgd-t', False),
        (2, 'apgd-dlr', True),
        (3, 'apgd-dlr', False),
        (2, 'fab-t', False),
        (2, 'apgd-ce', False),
        (2, 'square', False),
        (2, 'fab', False),
    ],
)
def test_autoattack_with_few_classes(classes, attacks, refused):
    (x, _), full = images(6, 1, 6, 6), network(6, 1, 6, 6)

    def model(o):
        return full(o)[:, :classes]

    y, attack = (
        model(x).argmax(1),
        partial(autoattack, model, x, eps=0.3, version=Budget(attacks, steps=5, queries=20)),
    )
    if refused:
        with pytest.raises(ValueError, match=f'{classes} classes and .{attacks}. needs'):
            attack(y)
    else:
        assert bool((model(attack(y)).argmax(1) != y).any())


def test_autoattack_leaves_the_gradients_of_a_network_in_a_function():
    "Nothing says whose parameters they are"
    model, (x, _) = small().eval(), images(8, 1, 12, 12)
    y = predict(model, x).argmax(1)
    attacked = autoattack(
        lambda o: model(o), x, y, 0.3, version=Budget(MEMBERS, steps=2, targets=1, queries=5)
    )
    assert not torch.equal(attacked, x) and all(o.grad is None for o in model.parameters())


def test_what_is_broken_is_not_attacked_by_the_next():
    "The first attack breaks all images but one"
    (x, _), seen = images(8, 1, 6, 6), []
    x, y = torch.full_like(x, 0.5), torch.zeros(8, dtype=torch.long)
    x[3] = 0.25

    def model(o):
        seen.append(len(o))
        return torch.stack(
            [0.49 + 0.05 * (o.mean((1, 2, 3)) < 0.4), o.mean((1, 2, 3)), *3 * [0 * o[:, 0, 0, 0]]], 1
        )[:, :5] * torch.tensor([1.0, 0.97, 1, 1, 1])

    attacked = autoattack(model, x, y, 0.05, version=Budget(('apgd-ce', 'square'), steps=5, queries=10))
    assert torch.equal((attacked != x).flatten(1).any(1), torch.arange(8) != 3) and set(seen[-10:]) == {1}


def test_no_number_breaks_nothing():
    "What an attack returns is judged again; images that are no numbers do not count"
    x = torch.full((3, 1, 6, 6), 0.5)

    def flat(o):
        return torch.stack([torch.ones_like(o[:, 0, 0, 0])] + 4 * [0 * (o - 0.5).sum((1, 2, 3))], 1)

    attacked = autoattack(
        flat, x, torch.zeros(3, dtype=torch.long), 0.1, version=Budget(MEMBERS, steps=4, targets=4, queries=4)
    )
    assert torch.equal(attacked, x)


@laws
@given(side, side, eps, norm, loss, st.integers(1, 4), st.integers(1, 3), st.integers(1, 15), seed)
def test_until_broken_never_leaves_more_right(h, w, eps, norm, loss, steps, restarts, batch_size, seed):
    "In 64 bits a step does not depend on the batch; in one attempt, what holds to the end is where it would have been"
    (x, y), model = (
        images(12, 1, h, w, seed=seed, dtype=torch.float64),
        network(12, 1, h, w, seed=seed, dtype=torch.float64),
    )
    attack = partial(pgd, model, x, y, eps, None, steps, norm, loss, restarts, seed=seed)
    early, late = attack(until_broken=True, batch_size=batch_size), attack(batch_size=batch_size)
    holds = model(early).argmax(1) == y
    assert inside(early, x, eps, norm)
    assert restarts > 1 or bool((holds <= (model(late).argmax(1) == y)).all())
    assert restarts > 1 or (early - late)[holds].abs().sum() < 1e-6 * len(x)


def test_until_broken_keeps_no_graph_in_any_layout():
    "Images that are channels-last already come back without a gradient, as all others do"
    model, (x, y) = small(), images(8, 1, 12, 12)
    last = x.to(memory_format=torch.channels_last)
    attacked = pgd(model, last, y, 0.05, until_broken=True)
    assert not attacked.requires_grad and torch.equal(attacked, pgd(model, x, y, 0.05, until_broken=True))


def test_until_broken_asks_only_what_is_left():
    "An image that the start breaks is asked about once; places are filled from the next batch"
    x, y, seen = torch.full((8, 1, 4, 4), 0.5), torch.zeros(8, dtype=torch.long), []
    y[:5] = 1

    def model(o):
        seen.append(len(o))
        return torch.stack([o.sum((1, 2, 3)), 0 * o.sum((1, 2, 3)), 0 * o.sum((1, 2, 3))], 1)

    attacked = pgd(model, x, y, 0.1, steps=3, random_start=False, batch_size=3, until_broken=True)
    assert (
        seen == [3, 3, 2, 3, 3] and torch.equal(attacked[:5], x[:5]) and not torch.equal(attacked[5:], x[5:])
    )


@laws
@given(side, side, eps, norm, loss, st.booleans(), seed)
def test_targets_are_what_is_aimed_at(h, w, eps, norm, loss, until_broken, seed):
    "One step of FGSM, or several of PGD with restarts, stay inside; restarts lose no target that was hit"
    (x, y), model = images(10, 1, h, w, seed=seed), network(10, 1, h, w, seed=seed)
    targets = (y + 1 + torch.arange(10) % 4) % 5
    once, thrice = (
        pgd(
            model,
            x,
            y,
            eps,
            steps=2,
            norm=norm,
            loss=loss,
            restarts=o,
            seed=seed,
            targets=targets,
            until_broken=until_broken,
        )
        for o in (1, 3)
    )
    assert inside(thrice, x, eps, norm) and inside(
        fgsm(model, x, y, eps, loss, targets=targets), x, eps, 'linf'
    )
    assert bool(
        ((predict(model, thrice).argmax(1) == targets) >= (predict(model, once).argmax(1) == targets)).all()
    )


def test_targets_are_reached_on_a_linear_network():
    x, weights = (
        0.3 + 0.4 * images(20, 1, 6, 6)[0].double(),
        torch.randn(36, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )

    def model(o):
        return o.flatten(1) @ weights

    y = model(x).argmax(1)
    targets = (y + 1 + torch.arange(20) % 5) % 6
    for loss in ('ce', 'margin'):
        for until_broken in (False, True):
            assert torch.equal(
                model(
                    pgd(model, x, y, 0.3, steps=30, loss=loss, targets=targets, until_broken=until_broken)
                ).argmax(1),
                targets,
            )
    with pytest.raises(ValueError, match=r'targets of shape \(3,\)'):
        pgd(model, x, y, 0.1, targets=targets[:3])


@laws
@given(st.integers(4, 8), st.integers(1, 9), st.floats(0.01, 100), st.floats(-10, 10), seed)
def test_the_ratio_knows_no_scale(classes, n, scale, shift, seed):
    draw = torch.Generator().manual_seed(seed)
    logits, y = (
        torch.randn(n, classes, dtype=torch.float64, generator=draw),
        torch.randint(classes, (n,), generator=draw),
    )
    targets = (y + 1) % classes
    for t in (None, targets):
        assert torch.allclose(dlr(scale * logits + shift, y, t), dlr(logits, y, t), atol=1e-6)
    wrong = logits.argmax(1) != y
    assert torch.equal(dlr(logits, y) > 0, wrong) and dlr(logits, y).min() >= -1 - 1e-9
    rows = logits.sort(1, descending=True).values
    z, t = (logits.gather(1, o[:, None])[:, 0] for o in (y, targets))
    assert torch.allclose(dlr(logits, y, targets), (t - z) / (rows[:, 0] - (rows[:, 2] + rows[:, 3]) / 2))


@pytest.mark.parametrize('classes, targeted', [(1, False), (2, False), (2, True), (3, True)])
def test_the_ratio_needs_classes(classes, targeted):
    (x, y), full = images(4, 1, 5, 5), network(4, 1, 5, 5)
    with pytest.raises(ValueError, match=f'{classes} classes'):
        pgd(
            lambda o: full(o)[:, :classes], x, 0 * y, 0.1, loss='dlr', targets=0 * y + 1 if targeted else None
        )


@pytest.mark.parametrize('text', ['8', '300', 'abc', '1/0', '', '-1/255', 'nan', 'inf', '256/255'])
def test_a_distance_in_words(text):
    assert parse_eps('8/255') == 8 / 255 and parse_eps('0.5') == 0.5
    with pytest.raises(ValueError, match=f"eps is '{text}'.*8/255"):
        parse_eps(text)


@laws
@given(
    st.integers(1, 6),
    channels,
    side,
    side,
    eps,
    norm,
    loss,
    dtype,
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(1, 7),
    seed,
)
def test_apgd_stays_inside_and_leaves_what_is_wrong(
    n, c, h, w, eps, norm, loss, dtype, steps, restarts, batch_size, seed
):
    (x, y), model, state = (
        images(n, c, h, w, seed=seed, dtype=dtype),
        network(n, c, h, w, seed=seed, dtype=dtype),
        torch.get_rng_state(),
    )
    attack = partial(apgd, model, x, y, eps, norm, loss, steps, restarts, seed, batch_size)
    attacked, wrong = attack(), predict(model, x).argmax(1) != y
    assert (
        attacked.dtype == dtype
        and not attacked.requires_grad
        and inside(attacked, x, eps, norm)
        and torch.equal(attacked, attack())
    )
    assert (
        torch.equal(attacked[wrong], x[wrong])
        and (eps > 0 or torch.equal(attacked, x))
        and torch.equal(torch.get_rng_state(), state)
    )


@laws
@given(st.integers(1, 6), channels, side, side, eps, norm, dtype, st.integers(1, 4), st.integers(1, 7), seed)
def test_pgd_kl_stays_inside_and_asks_for_no_label(n, c, h, w, eps, norm, dtype, steps, batch_size, seed):
    (x, y), model = images(n, c, h, w, seed=seed, dtype=dtype), network(n, c, h, w, seed=seed, dtype=dtype)
    attack = partial(pgd_kl, model, x, eps=eps, steps=steps, norm=norm, seed=seed, batch_size=batch_size)
    attacked = attack(y)
    assert attacked.dtype == dtype and not attacked.requires_grad and inside(attacked, x, eps, norm)
    assert torch.equal(attacked, attack((y + 1) % 5)) and (eps > 0 or torch.equal(attacked, x))


@laws
@given(side, side, st.floats(0, 0.2), norm, loss, st.integers(1, 30), seed)
def test_apgd_finds_the_worst_of_a_linear_network(h, w, eps, norm, loss, steps, seed):
    "For `linf` the first step is enough, whatever the direction; for `l2` the step turns towards the weights"
    # in 32 bits a loss below 1e-7 is none, hence the scale of the weights
    x, _ = images(4, 1, h, w, seed=seed, dtype=torch.float64)
    x, y = 0.25 + x / 2, torch.zeros(4, dtype=torch.long)
    weights = torch.randn(1, h, w, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    weights = weights / weights.abs().sum()

    def model(o):
        return torch.stack([1 + 0 * o[:, 0, 0, 0], (o * weights).sum((1, 2, 3)), 0 * o[:, 0, 0, 0] - 3], 1)

    attacked = apgd(model, x, y, eps, norm, loss, steps, seed=seed)
    if norm == 'linf':
        assert (attacked - x - eps * weights.sign()).abs().max() < 1e-12 or eps < 1e-5
    else:
        assert bool(
            ((attacked - x) * weights).sum((1, 2, 3)).min()
            >= (0.5 if steps < 10 else 0.98) * eps * weights.norm() - 1e-6
        )


@pytest.mark.parametrize('distance', [0.005, 0.02, 0.05])
def test_apgd_is_no_weaker_than_fgsm(distance):
    model, x, y = trained('resnet9', seed=1)
    held = [
        (predict(model, o).argmax(1) == y).sum()
        for o in (
            fgsm(model, x, y, distance),
            *(apgd(model, x, y, distance, loss=o, steps=20) for o in LOSSES),
        )
    ]
    assert max(held[1:]) <= held[0] <= (predict(model, x).argmax(1) == y).sum()


def test_apgd_asks_only_what_is_left():
    "The start breaks five of eight images; each other is asked then and after each step, in batches filled up"
    x, y, seen = torch.full((8, 1, 4, 4), 0.5), torch.zeros(8, dtype=torch.long), []
    x[:5] = 0.8

    def model(o):
        if o.requires_grad:
            seen.append(len(o))
        lead = torch.where(o.mean((1, 2, 3)) > 0.65, (o - 0.8).abs().sum((1, 2, 3)), o.sum((1, 2, 3)) - 10)
        return torch.stack([torch.full_like(lead, 0.01), lead, 0 * lead - 20], 1)

    attacked = apgd(model, x, y, 0.1, steps=4, batch_size=3, loss='margin')
    assert (
        sum(seen) == 5 + 3 * (4 + 1) and max(seen) == 3 and bool((model(attacked).argmax(1)[:5] == 1).all())
    )
    assert (attacked[5:] - 0.6).abs().max() < 1e-6


def test_pgd_kl_leads_away_from_the_prediction():
    model, x, y = trained('resnet9', seed=1)
    clean = predict(model, x)
    for norm, eps in (('linf', 0.02), ('l2', 0.2)):
        random = project(random_in_ball(x, eps, norm, torch.Generator().manual_seed(0)), x, eps, norm)
        near, far = (
            kl_divergence(clean, predict(model, o)).mean()
            for o in (random, pgd_kl(model, x, y, eps, norm=norm))
        )
        assert far > 2 * near > 0


def settled(model, channels=1):
    "A network whose normalization does something, in 64 bits"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for o, low, high in (
                    (norm.running_mean, -0.5, 0.5),
                    (norm.running_var, 0.5, 2),
                    (norm.weight, 0.5, 2),
                    (norm.bias, -0.5, 0.5),
                ):
                    if o is not None:
                        nn.init.uniform_(o, low, high)
    return model.double().eval()


def block(conv=None, norm=None):
    return nn.Sequential(
        conv or nn.Conv2d(1, 4, 3), norm or nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


class Taps(nn.Module):
    "Calls its layers one by one"

    def __init__(self):
        super().__init__()
        self.layers = block()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Other(nn.Module):
    "Calls a network with other weights than its own"

    def __init__(self):
        super().__init__()
        self.net = block()

    def forward(self, x):
        return torch.func.functional_call(self.net, {'0.weight': 2 * self.net[0].weight}, x)


class Twice(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(where):
    "A layer, or the whole, with a hook that doubles what comes out"
    net = block()
    (net if where is None else net[where]).register_forward_hook(lambda module, given, result: 2 * result)
    return net


def replaced():
    net = block()
    net[0].forward = lambda x: 2 * nn.Conv2d.forward(net[0], x)
    return net


FOLDED = dict(
    plain=block(),
    bias=block(nn.Conv2d(1, 4, 3, bias=False)),
    affine=block(norm=nn.BatchNorm2d(4, affine=False)),
    padding=block(nn.Conv2d(1, 4, 3, 2, 1, padding_mode='reflect')),
    groups=nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *block(nn.Conv2d(4, 4, 3, groups=2))),
    cosines=to_dct(block()),
    activation_hook=hooked(2),
    outer_hook=nn.Sequential(hooked(None)),
)
LEFT = dict(
    taps=Taps(),
    parametrized=block(parametrizations.weight_norm(nn.Conv2d(1, 4, 3))),
    subclass=block(Twice(1, 4, 3)),
    no_statistics=block(norm=nn.BatchNorm2d(4, track_running_stats=False)),
    conv_hook=hooked(0),
    norm_hook=hooked(1),
    replaced=replaced(),
    parallel=nn.DataParallel(block()),
    other=Other(),
)


@pytest.mark.parametrize(
    'model, folds',
    [*((o, True) for o in FOLDED.values()), *((o, False) for o in LEFT.values())],
    ids=[*FOLDED, *LEFT],
)
def test_folding_changes_no_prediction(model, folds):
    "Where it is not the same, normalization runs as before; afterwards nothing is left of it"
    model, x, seen = settled(model), images(3, 1, 4, 4, dtype=torch.float64)[0], []
    before, state, expected = (
        [dict(vars(o)) for o in model.modules()],
        {k: v.clone() for k, v in model.state_dict().items()},
        model(x),
    )
    forward = nn.BatchNorm2d.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, 'forward', lambda self, o: seen.append(1) or forward(self, o))
        with attacking(model):
            logits = model(x)
    assert (logits - expected).abs().max() < 1e-12 and len(seen) == (not folds)
    assert torch.equal(model(x), expected) and all(
        torch.equal(v, state[k]) for k, v in model.state_dict().items()
    )
    assert [set(vars(o)) for o in model.modules()] == [set(o) for o in before]


def test_what_a_hook_keeps_is_not_written_over():
    model, kept = settled(block()), []
    model[2].register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    with attacking(model):
        model(images(3, 1, 4, 4, dtype=torch.float64)[0])
    assert (kept[0] < 0).any()


@pytest.mark.parametrize('conv', ['plain', 'WD'])
@pytest.mark.parametrize('precision', [None, torch.bfloat16])
def test_a_folded_attack_is_the_same_attack(conv, precision):
    "In 64 bits image by image; equal seeds give equal images in any precision, and an error leaves nothing behind"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, (x, y) = (
            create('resnet9', width=4, channels=1, conv=conv),
            images(8, 1, 12, 12, dtype=torch.float64),
        )
    model, attack = settled(model), partial(pgd, steps=5, eps=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('freqnb.gradients.folded_batch_norm', lambda model: nullcontext())
        plain = attack(model, x, y)
    assert ((attack(model, x, y) - plain).abs() > 1e-9).sum() == 0
    model.float()
    with torch.autocast('cpu', precision, enabled=precision is not None):
        assert torch.equal(*(attack(model, x.float(), y) for _ in range(2)))
    with pytest.raises(RuntimeError):
        attack(model, x.float().repeat(1, 2, 1, 1), y)
    assert not any('forward' in vars(o) for o in model.modules())


def test_an_attack_within_an_attack():
    "The inner one leaves the folding of the outer one to it"
    model, (x, y) = settled(create('resnet9', width=4, channels=1)), images(4, 1, 12, 12, dtype=torch.float64)
    expected = pgd(model, x, y, 0.02)
    with attacking(model):
        folded = [vars(o).get('forward') for o in model.modules()]
        assert torch.equal(pgd(model, x, y, 0.02), expected) and any(folded)
        assert [vars(o).get('forward') for o in model.modules()] == folded
    assert not any('forward' in vars(o) for o in model.modules())


def test_a_compiled_network_is_left_alone():
    for model in (nn.Sequential(block()), block()):
        model[0].compile(backend='eager')
        before = [dict(vars(o)) for o in model.modules()]
        with evaluating(model), folded_batch_norm(model):
            assert [dict(vars(o)).keys() for o in model.modules()] == [o.keys() for o in before]
