"Intervals cover what they say, on answers drawn one by one"

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freqnb.coverage import coverage
from freqnb.statistics import (
    combination,
    difference,
    equivalence,
    estimate,
    fixed_estimate,
    function_estimate,
    proportion,
    recompute,
    smallest,
)

REPEATS = 1000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def holding(intervals, truth):
    "The share of intervals that hold the truth"
    return sum(each.low <= truth <= each.high for each in intervals) / len(intervals)


def answers(draw, seeds, n, tau, image_share, rate):
    "Right or wrong for each seed and image: networks differ by `tau`, images by their part of the variance"
    hard = torch.rand(n, generator=draw) < image_share
    always = torch.rand(n, generator=draw) < rate
    by_seed = (rate + tau * torch.randn(seeds, 1, generator=draw)).clamp(0, 1)
    free = torch.rand(seeds, n, generator=draw) < by_seed
    shifted = torch.rand(n, generator=draw) < by_seed
    return torch.where(hard, shifted if tau else always, free)


@pytest.mark.parametrize('seeds, least', [(3, 0.9), (5, 0.925), (8, 0.925)])
@pytest.mark.parametrize('tau', [0, 0.02, 0.05])
@pytest.mark.parametrize('image_share', [0.1, 0.8])
def test_intervals_of_right_and_wrong_cover(seeds, least, tau, image_share):
    draw = generator()
    found = [estimate(answers(draw, seeds, 300, tau, image_share, 0.8)) for _ in range(REPEATS)]
    assert least <= holding(found, 0.8) <= 0.995


@pytest.mark.parametrize('seeds', [3, 5])
@pytest.mark.parametrize('tau', [0, 0.03])
def test_intervals_of_paired_differences_cover(seeds, tau):
    draw = generator(1)
    found = []
    for _ in range(REPEATS):
        a = answers(draw, seeds, 300, tau, 0.2, 0.8)
        found.append(difference(a, answers(draw, seeds, 300, tau, 0.2, 0.7)))
    assert 0.91 <= holding(found, 0.1) <= 0.995


@pytest.mark.parametrize('seeds', [3, 5, 8])
@pytest.mark.parametrize('tau', [0, 0.02, 0.05])
@pytest.mark.parametrize('n', [200, 2000, 10_000])
def test_simulated_coverage_is_what_the_page_says(seeds, tau, n):
    held = [coverage(seeds, n, tau, share)[0] for share in (0.1, 0.5, 0.8)]
    assert (0.92 if seeds == 3 else 0.94) <= min(held) and max(held) <= 0.99


def test_one_network_covers_images_alone():
    draw = generator()
    found = [estimate(torch.rand(300, generator=draw) < 0.8) for _ in range(REPEATS)]
    assert 0.93 <= holding(found, 0.8) <= 0.975
    assert {each.seeds for each in found} == {1}


def test_the_smallest_of_several_covers_the_true_smallest():
    draw = generator()
    found = []
    for _ in range(REPEATS):
        rivals = {k: estimate(torch.randn(4, 100, generator=draw)) for k in range(5)}
        found.append(smallest(rivals)[1])
    assert holding(found, 0) >= 0.94
    assert sum(each.low > 0 for each in found) <= 0.03 * REPEATS


def test_functions_of_means_cover():
    draw = generator()
    found = []
    for _ in range(400):
        a = 2 + torch.randn(4, 80, 1, generator=draw) + 0.1 * torch.randn(4, 1, 1, generator=draw)
        b = 4 + torch.randn(4, 80, 1, generator=draw)
        found.append(function_estimate(lambda a, b: (a / b)[:, 0], a, b))
    assert 0.92 <= holding(found, 0.5) <= 0.995


@given(st.integers(2, 6), st.integers(2, 50), st.booleans())
def test_no_event_and_no_variance_are_never_a_point(seeds, n, event):
    same = estimate(torch.full((seeds, n), event))
    assert same.high - same.low == pytest.approx(min(1, 3 / n))
    assert proportion(torch.full((n,), event)).high - same.low <= 1
    constant = estimate(torch.full((seeds, n), 0.3))
    assert constant.high - constant.low == pytest.approx(6 / n)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 30))
def test_estimates_can_be_computed_again(seed, seeds, n):
    draw = generator(seed)
    a, b = torch.rand(2, seeds, n, generator=draw) < 0.5
    for effect in (estimate(a), difference(a, b), combination((1, a), (-0.5, b)), fixed_estimate(a)):
        assert recompute(effect) == effect


@given(st.floats(-1, 1), st.floats(0.01, 0.1))
def test_equivalence_is_symmetric_and_falls_with_the_margin(value, margin):
    draw = generator()
    values = value + 0.1 * torch.randn(4, 50, generator=draw)
    there, back = estimate(values), estimate(-values)
    assert equivalence(there, margin) == pytest.approx(equivalence(back, margin))
    assert equivalence(there, 2 * margin) <= equivalence(there, margin)


def test_a_fixed_set_of_one_network_says_nothing_about_others():
    one = fixed_estimate(torch.rand(1, 9))
    assert math.isinf(one.low) and math.isinf(one.high) and 'one network' in str(one)


@pytest.mark.parametrize(
    'values, said',
    [
        (torch.rand(2, 3, 4), r'\(2, 3, 4\)'),
        (torch.rand(3, 1), r'\(3, 1\)'),
        (torch.tensor([[1.0, math.inf]]), '1 of 2 values'),
        (torch.rand(0, 5), r'\(0, 5\)'),
    ],
)
def test_what_is_no_table_of_seeds_and_images_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        estimate(values)


def test_rows_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match=r'\(1, 5\) and \(3, 5\)'):
        difference(torch.rand(1, 5), torch.rand(3, 5))
