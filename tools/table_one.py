"""Table 1 of Huang et al. (2022) for the published ResNet-18: its natural row on all 10,000 test images, and a record

    FREQNB_INIT=autoattack_resnet18 FREQNB_RECORDS=nbs/records python tools/table_one.py --data cifar10.npz

An hour of one core. The notebook `adversarial_frequency/01_low_pass` measures more, and a robust twin as well, which
takes a GPU. The claims are those of the notebook that need a natural network alone.
"""

import argparse
from functools import partial

from torch import Tensor

from freqnb import huang2022
from freqnb.attacks import pgd
from freqnb.data import load
from freqnb.evaluate import correct, own_correct, per_network, robust_correct
from freqnb.experiment import Experiment
from freqnb.filter_defense import Defended
from freqnb.records import Claim
from freqnb.spectrum import apply_mask, square_mask
from freqnb.statistics import difference, estimate, matched_difference

EPS, STEPS = 8 / 255, 20
SHARES = dict(zip(huang2022.BANDWIDTHS, huang2022.TABLE_1_COLUMNS)) | {8: '1/4 of the side'}
ANALYSIS = 'Huang et al. 2022, Analysis, Table 1'
BLIND, KNOWING = f'PGD-{STEPS}', f'PGD-{STEPS} through the filter'


def window(x: Tensor, bandwidth: int, symmetric: bool) -> Tensor:
    "Images behind the window of the paper, half open or symmetric"
    return apply_mask(x, square_mask(*x.shape[-2:], bandwidth, symmetric))


def behind(networks: list, bandwidth: int, symmetric: bool = False) -> list:
    "Each network with a filter before it"
    function = partial(window, bandwidth=bandwidth, symmetric=symmetric)
    return [Defended(network, function).eval() for network in networks]


def measure(networks: list, x, y, attacked: int) -> dict:
    "Right or wrong for each input and bandwidth: clean on all images, attacked on the first of them"
    some, labels = x[:attacked], y[:attacked]
    attack = partial(pgd, eps=EPS, alpha=EPS / 4, steps=STEPS, seed=0)
    adversarial = per_network(partial(attack, x=some, y=labels), networks)
    print('attacked', flush=True)
    right = {}
    for bandwidth in SHARES:
        row = behind(networks, bandwidth)
        right['clean', bandwidth] = correct(row, x, y)
        right[BLIND, bandwidth] = own_correct(row, adversarial, labels)
        right[KNOWING, bandwidth] = robust_correct(row, some, labels, partial(attack, until_broken=True))
        right['clean, symmetric', bandwidth] = correct(behind(networks, bandwidth, symmetric=True), x, y)
        seen = {kind: round(hits.float().mean().item(), 4) for (kind, at), hits in right.items() if at == bandwidth}
        print(bandwidth, seen, flush=True)
    return right


def claims(right: dict) -> list[Claim]:
    "What needs a natural network alone"

    def paper(kind):
        row = huang2022.TABLE_1['natural'][kind]
        return row[SHARES[32]] - row[SHARES[16]]

    def gain(kind, bandwidth):
        return difference(right[kind, bandwidth], right[kind, 32])

    def loses(where, bandwidth, words, **options):
        says = f'A natural network loses more than five points of clean accuracy behind a low pass of {words}'
        lost = difference(right['clean', 32], right['clean', bandwidth])
        return Claim(says, where, f'clean accuracy, no filter - B = {bandwidth}, above 0.05', lost, 0.05, **options)

    def overstated(bandwidth, words):
        parts = [right[kind, at] for kind, at in ((BLIND, bandwidth), (KNOWING, bandwidth), (BLIND, 32), (KNOWING, 32))]
        return Claim(
            f"An attack that ignores a low pass of {words} overstates what it adds to a natural network's robustness",
            '',
            f'gain of the natural network at B = {bandwidth}, {BLIND} - {KNOWING}',
            matched_difference(*parts),
            margin=0.02,
        )

    return [
        loses(ANALYSIS, 16, 'half the side', printed=paper('clean')),
        loses('', 8, 'a quarter of the side'),
        Claim(
            'A low pass of half the side repairs images that were attacked for the natural network',
            ANALYSIS,
            f'accuracy of the natural network under {BLIND}, non-adaptive, B = 16 - no filter',
            gain(BLIND, 16),
            margin=0.02,
            printed=-paper('PGD'),
        ),
        Claim(
            'A low pass of half the side gives a natural network more than five points under an attack through it',
            '',
            f'accuracy of the natural network under {KNOWING}, B = 16 - no filter, above 0.05',
            gain(KNOWING, 16),
            0.05,
        ),
        overstated(16, 'half the side'),
        overstated(8, 'a quarter of the side'),
    ]


def main() -> None:
    "Measure, and keep a record"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default='cifar10', help='an .npz of CIFAR-10, or what load takes')
    parser.add_argument('--tested', type=int, default=10_000, help='clean images')
    parser.add_argument('--attacked', type=int, default=1000, help='attacked images, the first of them')
    given = parser.parse_args()
    base = huang2022.analysis_base(scale='laptop', data=given.data)
    if base.epochs:
        raise SystemExit('a network would be trained; expected FREQNB_INIT=autoattack_resnet18')
    row = {'natural': huang2022.rows(base)['natural']}
    experiment = Experiment('adversarial_frequency/low_pass', row, load(base.data), given.tested)
    right = measure(experiment.models['natural'], experiment.x, experiment.y, given.attacked)
    names = {key: f'natural, {key[0].replace(BLIND, "PGD")}, {SHARES[key[1]]}' for key in right}
    print(experiment.record(claims(right), {names[key]: estimate(hits) for key, hits in right.items()}))


if __name__ == '__main__':
    main()
