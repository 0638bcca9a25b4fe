"""Attacks against torchattacks, foolbox and pyautoattack: same network, starts, steps and distance."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from freqnb.attacks import apgd, pgd, project, random_in_ball
from freqnb.data import load
from freqnb.models import create, predict

STEPS, SEED, BATCH = 10, 0, 100


@pytest.fixture(scope='module')
def attacked():
    "A small network after one pass over real images, and 1,000 test images"
    splits = load('fashion_mnist_mini', valid=0)
    x, y = splits.train.float(), splits.train.y.long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, order = create('resnet9', width=4, channels=1), torch.randperm(len(x))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for batch in order.split(128):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False), splits.test.float()[:1000], splits.test.y[:1000].long()


def starts(x, eps, norm):
    "Where `pgd` begins with this seed"
    draw = torch.Generator().manual_seed(SEED)
    parts = x.split(BATCH)
    return torch.cat([project(random_in_ball(part, eps, norm, draw), part, eps, norm) for part in parts])


def share(model, x, y):
    return (predict(model, x).argmax(1) == y).double().mean().item()


def agree(model, x, y, eps, alpha, norm, theirs):
    "Robust accuracies within one image in a thousand, and the attack not idle"
    ours = pgd(model, x, y, eps, alpha, STEPS, norm, seed=SEED, batch_size=BATCH)
    a, b, clean = share(model, ours, y), share(model, theirs, y), share(model, x, y)
    print(f'{norm} {eps:.4f}: clean {clean:.3f}, freqnb {a:.3f}, peer {b:.3f}')
    assert abs(a - b) <= 1 / len(x) + 1e-9 and a < clean - 0.05


def drawn(values):
    "In place of a method that draws random numbers: these values"
    return lambda self, *_: self.copy_(values.view_as(self))


def started(start):
    "In place of foolbox's random start: this one"
    return lambda x0, epsilon: start if isinstance(x0, torch.Tensor) else type(x0)(start)


@pytest.mark.parametrize('norm, eps', [('linf', 2 / 255), ('linf', 8 / 255), ('l2', 0.3)])
def test_torchattacks(attacked, norm, eps, monkeypatch):
    torchattacks = pytest.importorskip('torchattacks')
    model, x, y = attacked
    alpha, begin, theirs = 2.5 * eps / STEPS, starts(x, eps, norm).split(BATCH), []
    for images, labels, start in zip(x.split(BATCH), y.split(BATCH), begin):
        peer = (
            torchattacks.PGD(model, eps, alpha, STEPS)
            if norm == 'linf'
            else torchattacks.PGDL2(model, eps, alpha, STEPS)
        )
        with monkeypatch.context() as patch:
            delta = start - images
            if norm == 'linf':
                patch.setattr(torch.Tensor, 'uniform_', drawn(delta))
            else:
                patch.setattr(torch.Tensor, 'normal_', drawn(delta))
                patch.setattr(torch.Tensor, 'uniform_', drawn(delta.flatten(1).norm(dim=1) / eps))
            theirs.append(peer(images, labels).detach())
    agree(model, x, y, eps, alpha, norm, torch.cat(theirs))


@pytest.mark.parametrize('norm, eps', [('linf', 2 / 255), ('linf', 8 / 255), ('l2', 0.3)])
def test_foolbox(attacked, norm, eps):
    foolbox = pytest.importorskip('foolbox')
    model, x, y = attacked
    alpha, begin, theirs = 2.5 * eps / STEPS, starts(x, eps, norm).split(BATCH), []
    Peer = foolbox.attacks.LinfPGD if norm == 'linf' else foolbox.attacks.L2PGD
    for images, labels, start in zip(x.split(BATCH), y.split(BATCH), begin):
        peer = Peer(abs_stepsize=alpha, steps=STEPS, random_start=True)
        peer.get_random_start = started(start)
        theirs.append(
            peer(foolbox.PyTorchModel(model, bounds=(0, 1), device='cpu'), images, labels, epsilons=eps)[1]
        )
    agree(model, x, y, eps, alpha, norm, torch.cat(theirs))


def surface(x, eps, norm, generator):
    "Where pyautoattack begins: on the surface of the ball, drawn anew for each batch"
    torch.manual_seed(SEED)
    if norm == 'l2':
        delta = torch.randn(x.shape)
    else:
        delta = 2 * torch.rand(x.shape) - 1
    length = delta.flatten(1).norm(dim=1) if norm == 'l2' else delta.flatten(1).abs().amax(1)
    return x + eps * delta / length.view(-1, 1, 1, 1)


@pytest.mark.parametrize('norm, eps, steps', [('linf', 2 / 255, 20), ('linf', 8 / 255, 50), ('l2', 0.3, 20)])
def test_pyautoattack(attacked, norm, eps, steps, monkeypatch):
    "Robust accuracies within one image in a thousand, and not those of fewer steps"
    autopgd = pytest.importorskip('pyautoattack.autopgd_base')
    model, x, y = attacked
    monkeypatch.setattr('freqnb.pgd.random_in_ball', surface)
    with torch.random.fork_rng():
        peer = autopgd.APGDAttack(
            model,
            n_iter=steps,
            norm=norm.replace('l', 'L', 1),
            eps=eps,
            seed=SEED,
            loss='ce',
            device=torch.device('cpu'),
        )
        parts = list(zip(x.split(BATCH), y.split(BATCH)))
        ours, theirs, short = (
            torch.cat([attack(*part) for part in parts])
            for attack in (
                partial(apgd, model, eps=eps, norm=norm, steps=steps),
                peer.perturb,
                partial(apgd, model, eps=eps, norm=norm, steps=3),
            )
        )
    a, b, c, clean = (share(model, o, y) for o in (ours, theirs, short, x))
    print(f'{norm} {eps:.4f}: clean {clean:.3f}, freqnb {a:.3f}, peer {b:.3f}, after 3 steps {c:.3f}')
    assert abs(a - b) <= 1 / len(x) + 1e-9 and a < c < clean
