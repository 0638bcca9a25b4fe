"Records: what they keep, what they say of the setting, and what is not a record"

import copy
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from freqnb.claims import Claim
from freqnb.data import Splits, load, planted
from freqnb.records import placed, read_record, record, records, report, scoreboard, write_record
from freqnb.statistics import Estimate, difference, estimate, fixed_estimate, smallest
from freqnb.train import Recipe, fit
from freqnb.verdicts import add_seeds, check, compare_records

NAME = 'high_frequency/example'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    images = planted(120, size=8, classes=2, high=None, low=(1, 2))
    splits = Splits(images[:96], images[96:108], images[108:])
    with mock.patch.dict(os.environ, FREQNB_HOME=str(tmp_path_factory.mktemp('home'))):
        yield fit(Recipe('planted', scale='smoke', width=2, epochs=1, batch_size=32), splits, progress=False)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('FREQNB_RECORDS', str(tmp_path))
    return tmp_path


def right(seed=0, seeds=3, n=60):
    return torch.rand(seeds, n, generator=torch.Generator().manual_seed(seed)) < 0.7


OF_WANG = dict(model='resnet18', width=None, norm=False)


def claims(seed=0):
    a, b = right(seed), right(seed + 100)
    rivals = {name: difference(a, right(seed + name)) for name in (1, 2)}
    return [
        Claim('A exceeds B', 'section 1', 'A - B', difference(a, b), margin=0.02),
        Claim('A exceeds every rival', 'section 2', 'A - rival', smallest(rivals)[1]),
        Claim('A leaves nothing', 'section 2', 'A', estimate(a), 0.5, 0.02, kind='equivalent'),
        Claim('Layers keep half', '', 'share', fixed_estimate(torch.rand(3, 4)), 0.5, exploratory=True),
    ]


def kept(run, made, name=NAME, scale='smoke', **options):
    metrics = {'A': made[0].effect, 'by hand': Estimate(0.5, 0.4, 0.6, 10)}
    test = options.pop('test', None) or load('fashion_mnist_mini').test
    return record(name, [run], test, metrics, made, scale, **options)


def test_a_record_comes_back_with_all_answers(run, folder):
    written = kept(run, claims())
    back = read_record(folder / written.file)
    assert back == written
    for ours, theirs in zip(written.claims, back.claims):
        pairs = zip(ours.effect.terms, theirs.effect.terms, strict=True)
        assert all(a == b and torch.equal(x.double(), y.double()) for (a, x), (b, y) in pairs)
    assert {row[-1] for row in check(back).rows} == {'the same'}


def test_every_claim_says_what_it_is(run, folder):
    written = kept(run, claims())
    for claim in json.loads((folder / written.file).read_text())['claims']:
        assert {'control', 'kind', 'setting', 'verdict', 'p'} <= claim.keys()
        assert {'value', 'low', 'high', 'n', 'seeds'} <= claim['effect'].keys()
        assert 'fashion_mnist_mini, gray, 28 x 28' in claim['setting']
        assert 'reproduced' not in claim['verdict']


def test_answers_are_kept_once(run, folder):
    written = kept(run, claims())
    answers = json.loads((folder / written.file).read_text())['answers']
    assert len(answers) == 5, answers.keys()


def test_no_name_makes_other_images_the_papers_own(run):
    named = replace(load('fashion_mnist_mini').test, name='cifar10')
    made = kept(run, claims(), scale='paper', test=named)
    assert any('images' in words for words in made.claims[0].differs)


def test_a_paper_scale_run_of_its_network_on_its_images_is_the_papers_own(run, monkeypatch):
    own = replace(run, recipe=replace(run.recipe, **OF_WANG, epochs=100), architecture='')
    monkeypatch.setattr('freqnb.records.is_part_of', lambda images, name: name == 'cifar10')
    made = kept(own, claims(), scale='paper')
    assert made.claims[0].differs == ()
    assert {claim.verdict for claim in made.claims} <= {
        'reproduced',
        'contradicted',
        'undecided',
        'holds',
    } | {'no difference', 'does not hold'}


def test_a_claim_on_other_images_is_not_reproduced_by_a_record_on_the_papers_own(run, monkeypatch):
    own = replace(run, recipe=replace(run.recipe, **OF_WANG, epochs=100), architecture='')
    monkeypatch.setattr('freqnb.records.is_part_of', lambda images, name: images.name == 'papers own')
    images = load('fashion_mnist_mini').test
    made = claims()
    made[0] = replace(made[0], effect=estimate(right(n=1000)))
    made[:1] = placed(made[:1], NAME, [own], replace(images, name='others'), 'paper')
    written = kept(own, made, scale='paper', test=replace(images, name='papers own'))
    elsewhere, here, *_ = written.claims
    assert (elsewhere.setting.split(',')[0], here.setting.split(',')[0]) == ('others', 'papers own')
    assert (elsewhere.verdict, here.differs) == ('holds here', ())
    shown = {row[0]: row[1] for row in written.table().rows}
    assert [says for says in shown if 'others' in shown[says]] == [f'{elsewhere.says} ({elsewhere.source})']


def test_reports_of_papers_and_of_controls_are_parts_of_the_whole(run):
    kept(run, claims())
    both, papers, ours = (report(controls).rows for controls in (None, False, True))
    assert len(both) == len(papers) + len(ours) and papers and ours
    assert all('our control' in row[0] for row in ours) and not any('our control' in row[0] for row in papers)


def test_fewer_epochs_than_the_papers_are_said(run, monkeypatch):
    short = replace(run, recipe=replace(run.recipe, **OF_WANG, epochs=3), architecture='')
    monkeypatch.setattr('freqnb.records.is_part_of', lambda images, name: True)
    made = kept(short, claims(), scale='paper')
    assert made.claims[0].differs == ('training: 3 epochs, not 100',)
    assert 'reproduced' not in {claim.verdict for claim in made.claims}


def test_networks_that_answer_every_image_alike_are_counted(run, monkeypatch):
    own = replace(run, recipe=replace(run.recipe, **OF_WANG, epochs=100), architecture='')
    monkeypatch.setattr('freqnb.records.is_part_of', lambda images, name: True)
    zeros = {name: torch.zeros_like(value) for name, value in run.model.state_dict().items()}
    dead = copy.deepcopy(run.model)
    dead.load_state_dict(zeros | {'normalize.std': run.model.normalize.std})
    placed_on = placed(claims(), NAME, [own, replace(own, model=dead)], load('fashion_mnist_mini').test, 'paper')
    assert placed_on[0].differs == ('dead: 1 of 2 networks answer every image alike',)
    assert {claim.outcome for claim in placed_on} == {'undecided'}


@pytest.mark.parametrize('seeds', [1, 2])
def test_one_or_two_networks_decide_nothing(seeds):
    sure = torch.arange(1000).expand(seeds, 1000) % 10 > 0
    claim = Claim('A is right', 'section 1', 'A', estimate(sure), 0.5)
    assert (claim.verdict, claim.p) == ('undecided here', None)
    assert replace(claim, effect=estimate(sure[:1].expand(3, 1000))).verdict == 'holds here'


def test_two_claims_never_say_the_same(run):
    with pytest.raises(ValueError, match='A exceeds B'):
        kept(run, claims()[:1] * 2)


def test_what_is_cut_or_foreign_is_named(run, folder):
    whole = (folder / kept(run, claims()).file).read_text()
    (folder / '._shadow.json').write_bytes(b'\0\5\x16')
    assert len(records()) >= 1 and len(report().rows) >= 4 and scoreboard().rows
    for text in (whole[: len(whole) // 2], '[]', '{}', '"x"', whole.replace('"value"', '"worth"')):
        (folder / 'cut.json').write_text(text)
        with pytest.raises(ValueError, match=r'cut\.json is not a whole record'):
            records()


def test_a_name_keeps_what_follows_a_dot(run):
    images = replace(load('fashion_mnist_mini').test, name='photos.v2')
    own = replace(run, data=dict(run.data, name='photos.v2'))
    assert kept(own, claims(), test=images).file == f'{NAME}-smoke-photos.v2.json'


def test_a_forged_number_shows(run, folder):
    path = folder / kept(run, claims()).file
    forged = json.loads(path.read_text())
    forged['claims'][0]['effect'].update(value=0.9, low=0.8, high=1.0)
    path.write_text(json.dumps(forged))
    assert [row[-1] != 'the same' for row in check(read_record(path)).rows] == [True, False, False, False]


def test_the_files_here_say_what_their_intervals_allow():
    "A reader of the JSON sees the verdict of the site, also after a rule changed"
    for path in sorted((Path(__file__).parents[1] / 'nbs/records').glob('*/*.json')):
        written = json.loads(path.read_text(encoding='utf-8'))['claims']
        for said, claim in zip(written, read_record(path).claims, strict=True):
            assert said['verdict'] == claim.verdict, (path.name, claim.says)
            assert said.get('p', claim.p) == pytest.approx(claim.p, abs=1e-9), (path.name, claim.says)


def test_added_seeds_decide_alone_and_looks_are_counted(run, folder):
    first = kept(run, claims())
    later = [replace(run, recipe=replace(run.recipe, seed=seed)) for seed in (3, 4, 5)]
    test = load('fashion_mnist_mini').test
    second = record(NAME, later, test, {}, claims(7), 'smoke')
    assert second.file.endswith('-seeds-3-5.json')
    both = add_seeds(first, second)
    assert [c.effect for c in both.claims] == [c.effect for c in second.claims]
    assert [c.earlier for c in both.claims] == [(c.effect,) for c in first.claims]
    assert both.looks == [[0], [3, 4, 5]]
    assert 'look 2' in both.claims[0].source
    assert read_record(write_record(both)) == both
    assert compare_records(first, second).columns[1:3] == [first.file, second.file]
    with pytest.raises(ValueError, match='expected new ones'):
        add_seeds(both, second)


def test_nothing_infinite_stands_in_the_file(run, folder):
    lonely = Claim('One network says nothing', '', 'share', fixed_estimate(torch.rand(1, 4)))
    path = folder / kept(run, [lonely]).file
    text = path.read_text()
    assert 'Infinity' not in text and 'NaN' not in text
    assert math.isinf(read_record(path).claims[0].effect.high)


def published(run, **changes):
    recipe = replace(run.recipe, model='resnet18', width=None, init='autoattack_resnet18', **changes)
    return replace(run, recipe=recipe, architecture='')


def test_a_published_network_decides_what_is_said_of_networks_and_names_itself(run, monkeypatch):
    monkeypatch.setattr('freqnb.records.is_part_of', lambda images, name: True)
    of_one = [Claim('A exceeds B', 'section 1', 'A - B', estimate(right()[0]))]
    natural = kept(published(run, epochs=0), of_one, name='adversarial_frequency/low_pass')
    assert natural.file.startswith('adversarial_frequency/low_pass-autoattack_resnet18-')
    assert natural.claims[0].verdict == 'reproduced'
    assert 'of one published network' in natural.claims[0].source

    without_norm = kept(published(run, epochs=0), of_one, name='high_frequency/split').claims[0]
    assert without_norm.lacking == ('batch norm: with, not without',)
    assert without_norm.verdict == 'holds here'
    enough = [replace(of_one[0], needs=('images', 'network'))]
    assert kept(published(run, epochs=0), enough, name='high_frequency/split').claims[0].verdict == 'reproduced'


def test_a_published_network_that_was_trained_further_says_so(run, monkeypatch):
    monkeypatch.setattr('freqnb.records.is_part_of', lambda images, name: True)
    of_one = [Claim('A exceeds B', 'section 1', 'A - B', estimate(right()[0]))]
    tuned = kept(published(run, epochs=5), of_one, name='adversarial_frequency/low_pass').claims[0]
    assert tuned.lacking == ('training: 5 epochs from the published weights of autoattack_resnet18',)
    assert tuned.verdict == 'holds here'

    both = [published(run, epochs=0), published(run, epochs=5)]
    test = load('fashion_mnist_mini').test
    (mixed,) = placed(of_one, 'adversarial_frequency/low_pass', both, test, 'smoke')
    assert mixed.lacking == tuned.lacking
    (alone,) = placed(of_one, 'adversarial_frequency/low_pass', both[:1], test, 'smoke')
    assert alone.lacking == ()


def test_networks_of_one_width_are_named_together(run):
    networks = [('resnet9', 8), ('lenet', 8), ('resnet9', 4), ('vgg11', 8), ('resnet18', None)]
    recipes = [replace(run.recipe, model=model, width=width) for model, width in networks]
    runs = [replace(run, architecture='', recipe=recipe) for recipe in recipes]
    found = placed(claims(), NAME, runs, load('fashion_mnist_mini').test, 'smoke')[0]
    assert found.setting.endswith('resnet9, lenet and vgg11 of width 8 and resnet9 of width 4 and resnet18')
