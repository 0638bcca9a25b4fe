"""What we compute on images, logits and weights keeps its digits inside somebody's `torch.autocast` block."""

from functools import partial

import pytest
import torch

from freqnb.corruptions import CORRUPTIONS, corrupt
from freqnb.evaluate import high_coefficients
from freqnb.layers import smooth, to_dct
from freqnb.losses import LOSSES, attack_loss
from freqnb.models import create
from freqnb.penalties import DISTANCES, SCHEMES, filter_penalty
from freqnb.spectrum import apply_mask, dct2, high_pass, idct2, low_pass, radial_energy, radial_mask, svd_split

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(2, 3, 32, 32, generator=DRAW)
LARGE = torch.rand(1, 1, 160, 160, generator=DRAW)
LOGITS, OTHERS = torch.randn(2, 4, 10, generator=DRAW)
LABELS = torch.tensor([1, 2, 3, 4])
KERNELS = torch.randn(4, 3, 3, 3, generator=DRAW)
COSINES = to_dct(create('resnet9', 10, 3, width=4))


COMPUTED = {
    'low part': partial(low_pass, IMAGES, 5),
    'low part by the FFT': partial(low_pass, LARGE, 70),
    'high part': partial(high_pass, IMAGES, 5),
    'low part under autograd': lambda: low_pass(IMAGES.clone().requires_grad_(), 5).detach(),
    'mask': partial(apply_mask, IMAGES, radial_mask(32, 32, 5)),
    'singular values': lambda: svd_split(IMAGES, 5)[0],
    'energy': partial(radial_energy, IMAGES),
    'cosines': partial(dct2, IMAGES),
    'cosines back': partial(idct2, IMAGES),
    'smooth kernels': partial(smooth, KERNELS, 0.5),
    'high coefficients': partial(high_coefficients, COSINES),
}
COMPUTED |= {name: partial(corrupt, IMAGES, name) for name in CORRUPTIONS}
COMPUTED |= {f'distance {name}': partial(distance, LOGITS - OTHERS, 0) for name, distance in DISTANCES.items()}
COMPUTED |= {f'penalty {name}': partial(filter_penalty, COSINES, name) for name in SCHEMES}
COMPUTED |= {f'loss {name}': partial(attack_loss, name, LOGITS, LABELS) for name in LOSSES}


@pytest.mark.parametrize('name', COMPUTED)
def test_autocast_takes_no_digit(name):
    expected = COMPUTED[name]()
    with torch.autocast('cpu', torch.bfloat16):
        found = COMPUTED[name]()
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
