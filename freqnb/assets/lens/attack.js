// Projected gradient descent (Madry et al. 2018), and the same with the change kept to a band of frequencies.

import { answer, gradient } from './network.js';
import { inBand } from './fourier.js';
import { checkChoice } from './shared.js';

// Numbers in [0, 1) that are the same for the same seed (mulberry32)
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const clip = (value, low, high) => Math.min(Math.max(value, low), high);

// The nearest image within eps of each pixel and within [0, 1]
const intoBall = (image, center, eps) =>
  image.map((value, i) => clip(clip(value, center[i] - eps, center[i] + eps), 0, 1));

// Leave of a change what lies in the band, and go back into the ball, several times: the ball has the last word
function confine(image, center, shape, settings) {
  let moved = intoBall(image, center, settings.eps);
  if (settings.band === 'all') return moved;
  for (let i = 0; i < 3; i++) {
    const change = inBand(
      moved.map((value, j) => value - center[j]),
      shape,
      settings.radius,
      settings.band,
    );
    moved = intoBall(
      change.map((value, j) => value + center[j]),
      center,
      settings.eps,
    );
  }
  return moved;
}

export const ATTACK = { eps: 8 / 255, steps: 20, band: 'all', radius: 8, seed: null };

function checkAttack({ eps, steps, band }) {
  if (!(eps >= 0)) throw new Error(`eps is ${eps}; expected a number >= 0, such as 8/255`);
  if (!(Number.isInteger(steps) && steps >= 1)) throw new Error(`steps is ${steps}; expected a whole number >= 1`);
  checkChoice('band', band, ['all', 'low', 'high']);
}

// Anywhere in the ball for a seed; the image itself where there is none
function start(center, { eps, seed }) {
  if (seed === null) return center;
  const random = generator(seed);
  return center.map((value) => value + eps * (2 * random() - 1));
}

// An image that the network shall take for something other than its label, and the logits there
export function pgd(net, pixels, label, options = {}) {
  const settings = { ...ATTACK, ...options };
  checkAttack(settings);
  const { eps, steps, band, radius } = settings;
  const alpha = settings.alpha ?? (2.5 * eps) / steps;
  const center = Float64Array.from(pixels);
  let image = confine(start(center, settings), center, net.input, settings);
  for (let i = 0; i < steps && eps > 0; i++) {
    const slope = inBand(gradient(net, image, label).gradient, net.input, radius, band);
    const moved = image.map((value, j) => value + alpha * Math.sign(slope[j]));
    image = confine(moved, center, net.input, settings);
  }
  return { pixels: image, logits: answer(net, image) };
}
