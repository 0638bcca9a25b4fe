"""A table of a paper: a seed axis where there are several networks, rows trained as by hand, the papers' recipes."""

from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from freqnb import huang2022, lukasik2023, wang2020
from freqnb.data import Splits, planted
from freqnb.evaluate import (
    accuracy,
    correct,
    difference,
    estimate,
    high_coefficients,
    matched_difference,
    per_network,
    proportion,
    robust_accuracy,
    robust_correct,
)
from freqnb.experiment import Experiment, epoch_means, estimates, final_mean, named, train_rows
from freqnb.models import create
from freqnb.objectives import mixup, penalized
from freqnb.penalties import filter_penalty
from freqnb.pgd import pgd
from freqnb.recipe import Recipe
from freqnb.records import Claim, best_committed, read_record
from freqnb.train import fit

ATTACK = partial(pgd, eps=8 / 255, steps=2, seed=0)
SMALL = Recipe('planted', width=2, images=64, batch_size=32, epochs=2, scale='smoke')
PENALTY = partial(penalized, penalty=filter_penalty)


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path_factory):
    "Runs and records of these tests go to a folder of their own; nothing is chosen by the environment"
    for name in ('SCALE', 'DATA', 'SEEDS', 'RECORDS'):
        monkeypatch.delenv(f'FREQNB_{name}', raising=False)
    monkeypatch.setenv('FREQNB_HOME', str(tmp_path_factory.getbasetemp() / 'experiment'))


@pytest.fixture(scope='module')
def splits():
    images = planted(160, seed=3)
    return Splits(images[:80], images[80:100], images[100:])


@pytest.fixture(scope='module')
def networks():
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append(create('resnet9', 4, 1, width=2).eval())
    return found


# One network, or one for each seed


def test_several_networks_are_a_stack_of_single_calls(networks, splits):
    x, y = splits.test.float(), splits.test.y
    for measure in (correct, partial(robust_correct, attack=ATTACK)):
        alone = torch.stack([measure(network, x, y) for network in networks])
        assert torch.equal(measure(networks, x, y), alone)
        assert torch.equal(measure(tuple(networks), x, y), alone)
    assert torch.equal(high_coefficients(networks), torch.stack([high_coefficients(o) for o in networks]))


def test_a_sequence_of_layers_is_one_network(networks, splits):
    x, y = splits.test.float(), splits.test.y
    wrapped = nn.Sequential(networks[0], nn.Identity()).eval()
    assert torch.equal(correct(wrapped, x, y), correct(networks[0], x, y))
    assert correct([wrapped], x, y).shape == (1, len(x))
    assert per_network(lambda network: torch.tensor(1.0), wrapped).shape == ()


def test_accuracy_has_the_interval_that_fits(networks, splits):
    x, y = splits.test.float(), splits.test.y
    assert accuracy(networks[0], x, y) == proportion(correct(networks[0], x, y))
    assert accuracy(networks[:1], x, y) == proportion(correct(networks[0], x, y))
    assert accuracy(networks, x, y) == estimate(correct(networks, x, y))
    assert robust_accuracy(networks, x, y, ATTACK) == estimate(robust_correct(networks, x, y, ATTACK))


def test_an_attack_of_nothing_changes_nothing(networks, splits):
    x, y = splits.test.float(), splits.test.y
    nothing = partial(pgd, eps=0.0, steps=2)
    assert torch.equal(robust_correct(networks, x, y, nothing), correct(networks, x, y))


def test_no_network_is_refused(splits):
    with pytest.raises(ValueError, match='at least one'):
        correct([], splits.test.float(), splits.test.y)


@given(st.integers(0, 10_000))
def test_matched_difference_takes_off_what_was_there_before(seed):
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 3, 30, generator=draw) < 0.5
    clean_a, clean_b = torch.rand(2, 3, 40, generator=draw) < 0.9
    measured = matched_difference(a, b, clean_a, clean_b)
    before = difference(clean_a[:, :30], clean_b[:, :30])
    assert measured.value == pytest.approx(difference(a, b).value - before.value)
    assert (measured.n, measured.seeds) == (30, 3)
    assert matched_difference(a, b, a, b).value == 0


# Rows


def test_rows_are_trained_as_by_hand(splits):
    trained = train_rows({'plain': SMALL, ('a', 1): (SMALL, PENALTY)}, splits, seeds=2)
    assert {name: [run.recipe.seed for run in runs] for name, runs in trained.items()} == {
        'plain': [0, 1],
        ('a', 1): [0, 1],
    }
    alone = fit(SMALL, splits, objective=PENALTY, progress=False)
    for ours, theirs in zip(trained['a', 1][0].model.parameters(), alone.model.parameters()):
        assert torch.equal(ours, theirs)


def linear(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def test_a_row_may_have_a_network_of_its_own(splits, monkeypatch, tmp_path):
    "Beside one that the recipe names; the record says which is which"
    monkeypatch.setenv('FREQNB_RECORDS', str(tmp_path))
    own = replace(SMALL, width=Recipe.width)
    experiment = Experiment('example/own', {'plain': SMALL, 'own': (own, mixup, linear)}, splits, seeds=2)
    alone = fit(own, splits, objective=mixup, model=linear, progress=False)
    assert experiment.runs['own'][0].path == alone.path
    assert str(alone) == f'{linear.__module__}.linear on planted, seed 0'
    models = [recipe['model'] for recipe in experiment.record([], {}).recipes]
    assert models == ['resnet9', f'{linear.__module__}.linear']


def test_history_is_averaged_over_seeds(splits):
    runs = train_rows({'plain': SMALL}, splits, seeds=2)['plain']
    first, second = ([epoch['loss'] for epoch in run.history] for run in runs)
    expected = (torch.tensor(first) + torch.tensor(second)) / 2
    assert torch.allclose(epoch_means(runs, 'loss'), expected)
    assert final_mean(runs, 'loss') == pytest.approx(expected[-1].item())
    assert epoch_means(runs, 'never measured').isnan().all()


def test_experiment_holds_rows_images_and_seeds(splits):
    experiment = Experiment('example/rows', {'plain': SMALL}, splits, tested=40, seeds=2)
    assert (len(experiment.test), experiment.seeds, experiment.scale) == (40, 2, 'smoke')
    assert torch.equal(experiment.x, splits.test.float()[:40])
    assert torch.equal(experiment.y, splits.test.y[:40])
    assert len(Experiment('example/rows', {'plain': SMALL}, splits, tested=9999).test) == len(splits.test)

    experiment.train({'penalized': (SMALL, PENALTY)}, seeds=1)
    assert [len(models) for models in experiment.models.values()] == [2, 1]
    assert experiment.caption('accuracy', 'a fact', n=30) == (
        f'accuracy, n = 30 test images of {splits.test.name}, 2 seeds, 95% intervals; a fact'
    )


def test_experiment_records_what_it_trained(splits, monkeypatch, tmp_path):
    monkeypatch.setenv('FREQNB_RECORDS', str(tmp_path))
    rows = {'plain': SMALL, 'penalized': (SMALL, PENALTY)}
    experiment = Experiment('example/record', rows, splits, seeds=2)
    right = {
        name: {'clean': correct(row, experiment.x, experiment.y)} for name, row in experiment.models.items()
    }
    effect = difference(right['plain']['clean'], right['penalized']['clean'])
    record = experiment.record([Claim('a > b', 'section', 'a - b', effect)], estimates(right))
    assert read_record(tmp_path / record.file) == record
    assert list(record.metrics) == ['plain, clean', 'penalized, clean']
    assert [recipe['objective'] for recipe in record.recipes] == [
        'cross_entropy',
        'penalized(penalty=filter_penalty)',
    ]
    assert experiment.table(right).rows[0] == ['plain', record.metrics['plain, clean']]


def test_records_of_the_old_scale_are_read(splits, monkeypatch, tmp_path):
    monkeypatch.setenv('FREQNB_RECORDS', str(tmp_path))
    record = Experiment('example/old', {'plain': SMALL}, splits, seeds=1).record([], {})
    old = tmp_path / 'old.json'
    old.write_text((tmp_path / record.file).read_text().replace('"scale": "smoke"', '"scale": "full"'))
    assert read_record(old).scale == 'laptop'


@given(
    st.dictionaries(st.text('abc', min_size=1), st.dictionaries(st.text('xyz', min_size=1), st.integers()))
)
def test_names_of_nested_and_of_joined_keys_agree(table):
    joined = {(row, column): value for row, values in table.items() for column, value in values.items()}
    assert named(table) == named(joined)
    assert list(named(table).values()) == list(joined.values())


# The papers' recipes, field by field

GRAY = dict(data='fashion_mnist_mini', width=8, label_smoothing=0.0)
PAPER = dict(scale='paper', data='cifar10', width=None, label_smoothing=0.0)
SCALES = {
    'smoke': dict(GRAY, scale='smoke'),
    'demo': dict(GRAY, scale='demo'),
    'laptop': dict(GRAY, scale='laptop'),
    'gpu': dict(scale='gpu', data='cifar10', width=64, label_smoothing=0.0),
    'paper': PAPER,
}
STEPS = (0.24, 0.48, 0.72, 0.96)
RESNET = dict(optimizer='adamw', lr=0.01, weight_decay=0.01, schedule='step', warmup=0.0, milestones=STEPS)
WANG = dict(
    paper=dict(
        model='resnet18', norm=False, optimizer='adam', lr=1e-4, init='xavier', weight_decay=0.0,
        schedule='constant', warmup=0.0, batch_size=100, epochs=100,
    ),
    smoke=dict(images=512, epochs=1),
    demo=dict(images=1000, epochs=5, batch_size=32),
    laptop=dict(images=10_000, epochs=10),
    gpu=dict(
        norm=False, optimizer='adam', lr=1e-3, init='xavier', weight_decay=0.0,
        schedule='constant', warmup=0.0, batch_size=250, epochs=20,
    ),
)  # fmt: skip
HUANG_ALL = dict(optimizer='momentum', schedule='step', swa=0.75, select='robust accuracy')
HUANG_GRAY = dict(HUANG_ALL, batch_size=64, warmup=0.1)
HUANG = dict(
    paper=dict(HUANG_ALL, model='wide_resnet34_10', warmup=0.0, epochs=100, pad=4, flip=True),
    smoke=dict(HUANG_GRAY, images=128, epochs=4),
    demo=dict(HUANG_GRAY, images=600, epochs=4, batch_size=40),
    laptop=dict(HUANG_GRAY, images=10_000, epochs=12),
    gpu=dict(HUANG_ALL, warmup=0.1, epochs=8, pad=4, flip=True),
)
LUKASIK = dict(
    paper=dict(batch_size=256, epochs=125),
    smoke=dict(images=512, epochs=1),
    demo=dict(images=600, epochs=5, batch_size=48),
    laptop=dict(images=10_000, epochs=10),
    gpu=dict(batch_size=256, epochs=30),
)
EFFICIENT = dict(
    model='efficientnet_b0', optimizer='adamw', lr=1e-3, weight_decay=0.05, schedule='cosine', warmup=0.04
)  # fmt: skip
BASES = {
    'wang2020': (wang2020.base, {}, WANG),
    'huang2022': (huang2022.base, {}, HUANG),
    'lukasik2023': (lukasik2023.base, RESNET, LUKASIK),
    'lukasik2023, resnet20': (
        partial(lukasik2023.base, 'resnet20'),
        dict(RESNET, model='resnet20'),
        LUKASIK,
    ),
    'lukasik2023, efficientnet_b0': (partial(lukasik2023.base, 'efficientnet_b0'), EFFICIENT, LUKASIK),
}


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('name', BASES)
def test_base_recipes(name, scale):
    base, common, by_scale = BASES[name]
    expected = Recipe(**SCALES[scale] | common | by_scale[scale])
    assert asdict(base(scale=scale)) == asdict(expected)


BASE_FUNCTIONS = {name: base for name, (base, *_) in BASES.items()}


@pytest.mark.parametrize('name', BASE_FUNCTIONS)
def test_what_is_explicit_wins_over_the_environment(name, monkeypatch):
    base = BASE_FUNCTIONS[name]
    small = base(scale='smoke')
    monkeypatch.setenv('FREQNB_SCALE', 'paper')
    assert base(scale='smoke') == small
    assert base().scale == 'paper'
    monkeypatch.setenv('FREQNB_DATA', 'cifar100')
    assert base(scale='smoke').data == 'cifar100'
    assert base(data='planted').data == 'planted'
    assert base(lr=0.5).lr == 0.5


def test_demo_is_the_scale_where_nobody_chose_one():
    for base in BASE_FUNCTIONS.values():
        assert base() == base(scale='demo')


def test_training_attacks_take_their_time_at_the_larger_scales():
    smoke, paper = (huang2022.training_attack(huang2022.base(scale=scale)) for scale in ('smoke', 'paper'))
    assert smoke.keywords == dict(eps=24 / 255, alpha=1.25 * 24 / 255, steps=1, seed=None)
    assert paper.keywords == dict(eps=8 / 255, alpha=2 / 255, steps=10, seed=None)


PUBLISHED = {
    'high_frequency/low_generalizes': wang2020.TABLE_1,
    'high_frequency/smooth_kernels': wang2020.TABLE_2,
    'high_frequency/detection': wang2020.SECTION_7,
    'adversarial_frequency/low_pass': huang2022.TABLE_1,
    'adversarial_frequency/table_two': huang2022.TABLE_2,
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_numbers_have_the_names_of_ours(name):
    published = named(PUBLISHED[name])
    assert set(published) <= set(best_committed(name).metrics)
    assert all(0 <= value <= 1 for value in published.values())
