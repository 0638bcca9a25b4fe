// What the page asks for and a worker answers: networks are loaded once and then known by their names.

import { ATTACK, pgd } from './attack.js';
import { fourier, lowShare, magnitudes, split } from './fourier.js';
import { answer, firstConvolution, gradient, network, withSmoothKernels } from './network.js';
import { checkChoice } from './shared.js';

const networks = new Map();
const smooth = new Map(); // The network with smoothed kernels that was asked for last, by name

function load({ manifest, bytes }) {
  networks.set(manifest.name, network(manifest, bytes));
}

function known(name, rho = 0) {
  checkChoice('network', name, [...networks.keys()]);
  const net = networks.get(name);
  if (!rho) return net;
  if (smooth.get(name)?.rho !== rho) smooth.set(name, { rho, net: withSmoothKernels(net, rho) });
  return smooth.get(name).net;
}

// Logits of an image; those of the image that a network was asked for last are kept,
// since a slider changes the parts only
const last = new WeakMap();
function kept(net, image) {
  const old = last.get(net);
  if (!old || old.image.some((value, i) => value !== image[i])) last.set(net, { image, logits: answer(net, image) });
  return last.get(net).logits;
}

// The parts of an image and their spectrum, and what each network says of them
function look({ pixels, shape, radius, names, rho }) {
  const image = Float64Array.from(pixels);
  const { low, high } = split(image, shape, radius);
  const answers = names.map((name) => {
    const net = known(name, rho);
    return { whole: kept(net, image), low: answer(net, low), high: answer(net, high) };
  });
  return { low, high, spectrum: magnitudes(image, shape), answers };
}

// PGD, the change, its spectrum, and which share of its energy lies inside the circle
function attack({ name, pixels, label, rho, ...options }) {
  const net = known(name, rho);
  const before = answer(net, pixels);
  const target = label ?? before.indexOf(Math.max(...before));
  const found = pgd(net, pixels, target, options);
  const change = found.pixels.map((value, i) => value - pixels[i]);
  const spectrum = magnitudes(change, net.input);
  return {
    ...found,
    before,
    label: target,
    change,
    spectrum,
    lowShare: lowShare(change, net.input, options.radius ?? ATTACK.radius),
  };
}

const SIDE = 16; // Of a kernel's spectrum

// A kernel's magnitudes, zero frequency in the center, from the kernel among zeros
function kernelSpectrum(kernel, height, width) {
  const padded = new Float64Array(SIDE * SIDE);
  for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) padded[r * SIDE + c] = kernel[r * width + c];
  const [re, im] = fourier(padded, SIDE, SIDE);
  const out = new Float64Array(SIDE * SIDE);
  for (let i = 0; i < SIDE; i++) {
    for (let j = 0; j < SIDE; j++) {
      const at = ((i + SIDE / 2) % SIDE) * SIDE + ((j + SIDE / 2) % SIDE);
      out[at] = Math.hypot(re[i * SIDE + j], im[i * SIDE + j]);
    }
  }
  return out;
}

// The kernels of the first layer, the mean over its input channels, and their spectra
function kernels({ name, rho }) {
  const net = known(name, rho);
  const {
    shape: [count, inputs, height, width],
    data,
  } = net.tape[firstConvolution(net)].weight;
  const size = height * width;
  const found = Array.from({ length: count }, (_, i) => {
    const kernel = new Float64Array(size);
    for (let j = 0; j < inputs * size; j++) kernel[j % size] += data[i * inputs * size + j] / inputs;
    return { kernel, spectrum: kernelSpectrum(kernel, height, width) };
  });
  return { height, width, side: SIDE, kernels: found };
}

const TASKS = {
  load,
  look,
  attack,
  kernels,
  split: ({ pixels, shape, radius }) => split(Float64Array.from(pixels), shape, radius),
  answer: ({ name, pixels, rho }) => answer(known(name, rho), pixels),
  gradient: ({ name, pixels, label, rho }) => Array.from(gradient(known(name, rho), pixels, label).gradient),
};

// Answer one request {id, task, ...}: with {id, result}, or with {id, error} in words
export function serve({ id, task, ...request }) {
  try {
    return { id, result: TASKS[task](request) };
  } catch (error) {
    return { id, error: error.message };
  }
}
