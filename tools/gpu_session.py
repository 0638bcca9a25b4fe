"""The papers' own setting on one GPU, most valuable first, within some minutes: what is finished is written at once

On a machine with a GPU, in the project's root, with CIFAR-10 as an `.npz`:

    FREQNB_RECORDS=$OUT/records python tools/gpu_session.py --data ~/cifar10.npz --minutes 12
    python tools/gpu_session.py --try                     (planted images, tiny networks: that every line runs)

It prints its plan and the clock. Every run is kept after each epoch, so that the same command goes on where it was cut.
One process leaves such a card idle most of the time: FREQNB_JOBS=4 trains four networks side by side.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from freqnb import huang2022, wang2020
from freqnb.attacks import apgd, pgd
from freqnb.data import load
from freqnb.evaluate import correct, robust_correct
from freqnb.experiment import Experiment, estimates
from freqnb.objectives import cross_entropy
from freqnb.records import Claim
from freqnb.statistics import difference

EPS = 8 / 255
TABLE_1 = 'Wang et al. 2020, section 4.2, Table 1'


@dataclass
class Session:
    "What all parts share: images, sizes, and when to stop"

    data: str
    trial: bool
    end: float  # By `time.monotonic`

    def pick(self, real, tiny):
        "A size: the real one, or that of a trial"
        return tiny if self.trial else real

    def left(self) -> float:
        "Seconds"
        return self.end - time.monotonic()


def say(session: Session, words: str) -> None:
    "A line with the clock"
    print(f'[{session.left():5.0f} s left] {words}', flush=True)


def objective_rows(session: Session) -> partial:
    "AT, equation 2 from epoch 1 and late, and L1 pairing without the transform, with averages"
    sizes = session.pick(dict(epochs=6), dict(epochs=4, images=256, batch_size=64, width=4))
    base = huang2022.base(scale='gpu', data=session.data, select=None, **sizes)
    pair = partial(huang2022.frequency_regularization, base, eps=EPS)
    rows = {
        'AT': (base, pair(strength=0, start=0)),
        'AT-FR, epoch 1': (base, pair(start=0)),
        'AT-L1': (base, pair(form='l1', start=0)),
        'AT-FR, late': (base, pair(start=0.75)),
    }
    tested = session.pick(2000, 64)
    return partial(Experiment, 'gpu/objectives', rows, load(base.data), tested)


def attacks(session: Session) -> dict[str, Callable]:
    "PGD-20 and Auto-PGD"
    steps = session.pick((20, 50), (2, 2))
    return {
        'PGD-20': partial(pgd, eps=EPS, alpha=EPS / 4, steps=steps[0], seed=0, until_broken=True),
        'Auto-PGD': partial(apgd, eps=EPS, steps=steps[1], seed=0),
    }


def measure_objectives(session: Session, experiment: Experiment) -> None:
    "Clean, PGD-20 and Auto-PGD of each row and its average, and a record"
    right = {}
    for name, networks in huang2022.with_averages(experiment.runs, 'last').items():
        right[name, 'clean'] = correct(networks, experiment.x, experiment.y)
        for attack_name, attack in attacks(session).items():
            right[name, attack_name] = robust_correct(networks, experiment.x, experiment.y, attack)

    paper = 'Huang et al. 2022, Table 2'
    claims = []
    for column in attacks(session):
        for row, words in {
            'AT-FR, epoch 1': 'Frequency regularization from epoch 1 on',
            'AT-FR, late': 'Frequency regularization',
            'AT-SWA': 'Weight averaging',
        }.items():
            effect = difference(right[row, column], right['AT', column])
            measured = f'robust accuracy under {column}, {row} - AT'
            claims.append(
                Claim(f'{words} raises robust accuracy under {column}', paper, measured, effect, margin=0.01)
            )
        effect = difference(right['AT-FR, epoch 1', column], right['AT-L1', column])
        says = f'Pairing in frequency is worth more than pairing logits under {column}'
        claims.append(Claim(says, '', f'{column}, AT-FR - AT-L1, both from epoch 1', effect, margin=0.01))
    print(experiment.record(claims, estimates(right)))


def low_and_high(session: Session) -> partial:
    "Table 1 of Wang et al. without batch norm at two radii: low, high, and high with each image's mean"
    sizes = session.pick(dict(), dict(epochs=1, images=256, batch_size=64, width=4))
    base = wang2020.base(scale='gpu', data=session.data, **sizes)
    rows = {}
    for radius in (4, 12):
        rows[f'LFC, r = {radius}'] = replace(base, band='low', radius=radius)
        rows[f'HFC, r = {radius}'] = replace(base, band='high', radius=radius)
        rows[f'HFC + mean, r = {radius}'] = replace(base, band='high', radius=radius, rescale='mean-shift')
    return partial(Experiment, 'gpu/low_and_high', rows, load(base.data))


def measure_low_and_high(session: Session, experiment: Experiment) -> None:
    "Accuracy on whole test images, and a record"
    right = {name: correct(networks, experiment.x, experiment.y) for name, networks in experiment.models.items()}
    claims = []
    for radius in (4, 12):
        for high, words, where in (('HFC', 'high ones', TABLE_1), ('HFC + mean', 'high ones with their mean', '')):
            effect = difference(right[f'LFC, r = {radius}'], right[f'{high}, r = {radius}'])
            says = f'Networks without BN learn more from low frequencies than from {words}, at r = {radius}'
            claims.append(Claim(says, where, f'accuracy, LFC - {high}, r = {radius}', effect))
    print(experiment.record(claims, estimates(right)))


def labels(session: Session) -> partial:
    "Natural against shuffled labels on all training images"
    sizes = session.pick(dict(epochs=60), dict(epochs=1, images=256, batch_size=64, width=4))
    base = wang2020.base(scale='gpu', data=session.data, **sizes)
    rows = {'natural': base, 'shuffled': replace(base, labels='shuffled')}
    return partial(Experiment, 'gpu/labels', rows, load(base.data))


def measure_labels(session: Session, experiment: Experiment) -> None:
    "How soon each fits its labels, and a record"
    final = {name: runs[0].history[-1]['train_accuracy'] for name, runs in experiment.runs.items()}
    right = {name: correct(networks, experiment.x, experiment.y) for name, networks in experiment.models.items()}
    say(session, f'training accuracy at the end: {final}')
    says = 'Natural labels carry over to test images, and shuffled ones do not'
    effect = difference(right['natural'], right['shuffled'])
    print(experiment.record([Claim(says, '', 'test accuracy, natural - shuffled', effect)], estimates(right)))


def wide_epoch(session: Session) -> None:
    "WRN-34-10, one epoch, timed"
    sizes = session.pick(dict(), dict(model='resnet9', width=4, images=256, batch_size=64))
    recipe = huang2022.base(scale='paper', data=session.data, epochs=1, swa=None, select=None, **sizes)
    experiment = Experiment('gpu/wide', {'wide': (recipe, cross_entropy)}, seeds=1)
    say(session, f'one epoch of {recipe.model}: {experiment.runs["wide"][0].seconds:.1f} s')


PARTS = [(objective_rows, measure_objectives), (low_and_high, measure_low_and_high), (labels, measure_labels)]


def by_seeds(most: int) -> Iterator[tuple[int, Callable, Callable]]:
    "Every part with one network a row, and then with all: a cut loses seeds, not a part"
    for seeds in sorted({1, most}):
        for prepare, measure in PARTS:
            yield seeds, prepare, measure


def main() -> None:
    "Work through the plan until the time is over"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default='cifar10', help='an .npz of CIFAR-10, or what load takes')
    parser.add_argument('--minutes', type=float, default=12, help='time to work')
    parser.add_argument('--seeds', type=int, default=3, help='networks a row')
    parser.add_argument('--try', dest='trial', action='store_true', help='planted images and tiny networks')
    given = parser.parse_args()
    data = 'planted' if given.trial else given.data
    session = Session(data, given.trial, time.monotonic() + 60 * given.minutes)

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
    plan = '; '.join(prepare.__doc__ for prepare, _ in PARTS)
    say(session, f'{device}. Plan, with one network a row, then {given.seeds}: {plan}; {wide_epoch.__doc__}')
    longest = {}
    for seeds, prepare, measure in by_seeds(given.seeds):
        if session.left() < 1.3 * (seeds - 1) * longest.get(prepare, 0):
            say(session, f'no time for {seeds} seeds of: {prepare.__doc__}')
            continue
        start = time.monotonic()
        say(session, f'{seeds} seed(s): {prepare.__doc__}')
        measure(session, prepare(session)(seeds=seeds))
        longest[prepare] = time.monotonic() - start
    if session.left() > 0:
        wide_epoch(session)
    say(session, 'done')


if __name__ == '__main__':
    main()
