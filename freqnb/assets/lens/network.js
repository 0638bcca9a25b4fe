// A trained network: its tape of operations, read from a manifest and float16 weights, and asked forward and backward.

import { OPERATIONS, tensor } from './operations.js';
import { checkChoice, softmax } from './shared.js';

// The number that 16 bits stand for (IEEE 754: a sign, 5 bits of exponent, 10 of fraction)
export function fromFloat16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31,
    fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// A weight of the manifest, {at, shape}, with its numbers
function withNumbers(place, halves) {
  if (!place) return null;
  const count = place.shape.reduce((a, b) => a * b, 1);
  return { shape: place.shape, data: Float64Array.from(halves.subarray(place.at, place.at + count), fromFloat16) };
}

export function network(manifest, bytes) {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const tape = manifest.tape.map((step) => {
    checkChoice('operation', step.operation, Object.keys(OPERATIONS));
    return { ...step, weight: withNumbers(step.weight, halves), bias: withNumbers(step.bias, halves) };
  });
  return { ...manifest, tape };
}

// Every tensor on the way, the image first, and what each step keeps for the way back
function run(net, pixels) {
  const values = [tensor(net.input, Float64Array.from(pixels))],
    kept = [];
  for (const step of net.tape) {
    const made = OPERATIONS[step.operation].forward(
      step,
      step.from.map((place) => values[place]),
    );
    values.push(made.value);
    kept.push(made.kept);
  }
  return { values, kept };
}

function checkPixels(net, pixels) {
  const count = net.input.reduce((a, b) => a * b, 1);
  if (pixels.length !== count) {
    throw new Error(`${pixels.length} pixels; ${net.name} expects ${count}: ${net.input.join(' x ')}, channels first`);
  }
}

// Logits of an image: a flat list, channels first, in [0, 1]
export function answer(net, pixels) {
  checkPixels(net, pixels);
  return Array.from(run(net, pixels).values.at(-1).data);
}

// Add a gradient to what has arrived at a place of the tape
function arrive(arrived, place, more) {
  const before = arrived[place];
  const sum = () => more.data.map((g, i) => g + before.data[i]);
  arrived[place] = before ? tensor(more.shape, sum()) : more;
}

// Gradient of the cross-entropy with respect to the image, with the logits and the loss
export function gradient(net, pixels, label) {
  checkPixels(net, pixels);
  const { values, kept } = run(net, pixels);
  const logits = values.at(-1).data;
  if (!(label >= 0 && label < logits.length)) throw new Error(`label is ${label}; expected 0 to ${logits.length - 1}`);
  const shares = softmax(logits);
  const arrived = [];
  arrived[net.tape.length] = tensor(
    [logits.length],
    Float64Array.from(shares, (p, i) => p - (i === label)),
  );
  for (let i = net.tape.length - 1; i >= 0; i--) {
    const step = net.tape[i];
    const back = OPERATIONS[step.operation].backward(step, arrived[i + 1], kept[i]);
    step.from.forEach((place, j) => arrive(arrived, place, back[j]));
    arrived[i + 1] = undefined;
  }
  return { gradient: arrived[0].data, logits: Array.from(logits), loss: -Math.log(shares[label]) };
}

// Add to each weight rho times the sum of its eight neighbors, the edge repeated (Wang et al. 2020, equation 3)
export function smoothed({ shape, data }, rho) {
  const [outputs, inputs, height, width] = shape;
  const out = new Float64Array(data.length);
  const inside = (i, size) => Math.min(Math.max(i, 0), size - 1);
  for (let plane = 0; plane < outputs * inputs; plane++) {
    for (let r = 0; r < height; r++) {
      for (let c = 0; c < width; c++) {
        let around = 0;
        for (let i = -1; i <= 1; i++) {
          for (let j = -1; j <= 1; j++) {
            around += data[(plane * height + inside(r + i, height)) * width + inside(c + j, width)];
          }
        }
        const at = (plane * height + r) * width + c;
        out[at] = data[at] + rho * (around - data[at]);
      }
    }
  }
  return { shape, data: out };
}

export const firstConvolution = (net) => net.tape.findIndex((step) => step.operation === 'convolve');

// The same network with the kernels of its first convolution smoothed
export function withSmoothKernels(net, rho) {
  if (!rho) return net;
  const first = firstConvolution(net);
  const change = (step, i) => (i === first ? { ...step, weight: smoothed(step.weight, rho), back: undefined } : step);
  return { ...net, tape: net.tape.map(change) };
}
