// What the networks consist of, forward and backward. A tensor is {shape, data}: channels, rows, columns; float64.
// Every operation has forward(step, tensors) -> {value, kept} and backward(step, gradient, kept) -> gradients of its
// inputs, where `kept` is what the way back needs to know. Only images have gradients here, weights have none.

export const tensor = (shape, data) => ({ shape, data: data ?? new Float64Array(shape.reduce((a, b) => a * b, 1)) });

// out[i, j] = the sum over k of a[i, k] b[j, k]: four rows by two columns at a time, which stay in registers
export function products(a, b, rows, columns, depth) {
  const out = new Float64Array(rows * columns);
  const whole = rows - (rows % 4),
    even = columns - (columns % 2);
  for (let i = 0; i < whole; i += 4) {
    for (let j = 0; j < even; j += 2) block(a, b, out, i, j, columns, depth);
  }
  for (let i = 0; i < rows; i++) {
    for (let j = i < whole ? even : 0; j < columns; j++) {
      let sum = 0;
      for (let k = 0, p = i * depth, q = j * depth; k < depth; k++) sum += a[p++] * b[q++];
      out[i * columns + j] = sum;
    }
  }
  return out;
}

// prettier-ignore
function block(a, b, out, i, j, columns, depth) {
  let s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0;
  let p0 = i * depth, p1 = p0 + depth, p2 = p1 + depth, p3 = p2 + depth;
  let q0 = j * depth, q1 = q0 + depth;
  for (let k = 0; k < depth; k++) {
    const b0 = b[q0++], b1 = b[q1++];
    const a0 = a[p0++], a1 = a[p1++], a2 = a[p2++], a3 = a[p3++];
    s00 += a0 * b0; s01 += a0 * b1;
    s10 += a1 * b0; s11 += a1 * b1;
    s20 += a2 * b0; s21 += a2 * b1;
    s30 += a3 * b0; s31 += a3 * b1;
  }
  const at = i * columns + j;
  out[at] = s00; out[at + 1] = s01;
  out[at + columns] = s10; out[at + columns + 1] = s11;
  out[at + 2 * columns] = s20; out[at + 2 * columns + 1] = s21;
  out[at + 3 * columns] = s30; out[at + 3 * columns + 1] = s31;
}

export function transposed(a, rows, columns) {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j];
  return out;
}

// For each number of each patch the pixel it is taken from; patches stand in the order of the output's pixels, and
// what lies outside of the image is taken from a zero behind its last pixel
function placesOf(step) {
  const [channels, height, width] = step.inputs;
  const [, , kh, kw] = step.weight.shape;
  const [, outHeight, outWidth] = step.shape;
  const places = new Int32Array(outHeight * outWidth * channels * kh * kw);
  let n = 0;
  for (let r = 0; r < outHeight; r++) {
    for (let c = 0; c < outWidth; c++) {
      for (let i = 0; i < channels; i++) {
        for (let k = 0; k < kh * kw; k++) {
          const row = r * step.stride[0] - step.padding[0] + Math.floor(k / kw);
          const column = c * step.stride[1] - step.padding[1] + (k % kw);
          const inside = row >= 0 && row < height && column >= 0 && column < width;
          places[n++] = inside ? (i * height + row) * width + column : channels * height * width;
        }
      }
    }
  }
  return places;
}

// The patches of an image as rows: output pixels by (channels x kernel)
function patches(step, x) {
  step.places ??= placesOf(step);
  const { places } = step,
    out = new Float64Array(places.length),
    padded = new Float64Array(x.length + 1);
  padded.set(x);
  for (let i = 0; i < places.length; i++) out[i] = padded[places[i]];
  return out;
}

// The reverse: every number of a patch is added to the pixel it was taken from
function unpatched(step, rows) {
  step.places ??= placesOf(step);
  const { places } = step,
    count = step.inputs[0] * step.inputs[1] * step.inputs[2];
  const padded = new Float64Array(count + 1);
  for (let i = 0; i < places.length; i++) padded[places[i]] += rows[i];
  return tensor(step.inputs, padded.subarray(0, count));
}

function addBias(values, bias, size) {
  for (let o = 0; o < bias.length; o++) {
    const shift = bias[o];
    for (let i = o * size, end = i + size; i < end; i++) values[i] += shift;
  }
}

// With a stride of 1 the way back is a convolution, too: with the kernels turned around, from outputs to inputs
function wayBack(step) {
  const [outputs, inputs, kh, kw] = step.weight.shape, size = kh * kw;
  const data = new Float64Array(step.weight.data.length);
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      const from = (o * inputs + i) * size, to = (i * outputs + o) * size;
      for (let k = 0; k < size; k++) data[to + size - 1 - k] = step.weight.data[from + k];
    }
  }
  const padding = [kh - 1 - step.padding[0], kw - 1 - step.padding[1]];
  const weight = { shape: [inputs, outputs, kh, kw], data };
  return { inputs: step.shape, shape: step.inputs, stride: [1, 1], padding, weight };
}

const convolve = {
  forward(step, [x]) {
    const [outputs, height, width] = step.shape, depth = step.weight.data.length / outputs;
    const data = products(step.weight.data, patches(step, x.data), outputs, height * width, depth);
    if (step.bias) addBias(data, step.bias.data, height * width);
    return { value: tensor(step.shape, data) };
  },
  backward(step, gradient) {
    const [outputs, height, width] = step.shape, depth = step.weight.data.length / outputs;
    if (step.stride[0] === 1 && step.stride[1] === 1) {
      step.back ??= wayBack(step);
      return [convolve.forward(step.back, [gradient]).value];
    }
    step.weight.turned ??= transposed(step.weight.data, outputs, depth);
    const turned = transposed(gradient.data, outputs, height * width);
    return [unpatched(step, products(turned, step.weight.turned, height * width, depth, outputs))];
  },
};

const linear = {
  forward(step, [x]) {
    const [outputs, inputs] = step.weight.shape;
    const data = products(step.weight.data, x.data, outputs, 1, inputs);
    if (step.bias) addBias(data, step.bias.data, 1);
    return { value: tensor(step.shape, data) };
  },
  backward(step, gradient) {
    const [outputs, inputs] = step.weight.shape;
    step.weight.turned ??= transposed(step.weight.data, outputs, inputs);
    return [tensor(step.inputs, products(step.weight.turned, gradient.data, inputs, 1, outputs))];
  },
};

// A factor and a shift for each channel: normalization of images, and batch norm that no convolution took in
const scale = {
  forward(step, [x]) {
    const value = tensor(step.shape);
    const size = x.data.length / step.factor.length;
    for (let i = 0; i < x.data.length; i++) {
      const channel = Math.floor(i / size);
      value.data[i] = x.data[i] * step.factor[channel] + step.shift[channel];
    }
    return { value };
  },
  backward(step, gradient) {
    const size = gradient.data.length / step.factor.length;
    return [
      tensor(
        step.inputs,
        gradient.data.map((g, i) => g * step.factor[Math.floor(i / size)]),
      ),
    ];
  },
};

const rectify = {
  forward(step, [x]) {
    const value = tensor(step.shape);
    for (let i = 0; i < x.data.length; i++) if (x.data[i] > 0) value.data[i] = x.data[i];
    return { value, kept: value };
  },
  backward(step, gradient, kept) {
    const out = tensor(step.inputs);
    for (let i = 0; i < out.data.length; i++) if (kept.data[i] > 0) out.data[i] = gradient.data[i];
    return [out];
  },
};

// Call visit(output pixel, first row, last row, first column, last column) for each window of each channel
function eachWindow(step, visit) {
  const [channels, height] = step.inputs;
  let n = 0;
  for (let i = 0; i < channels; i++) {
    for (const [top, bottom] of step.rows) {
      for (const [left, right] of step.columns) visit(n++, i * height + top, i * height + bottom, left, right);
    }
  }
}

const maximum = {
  forward(step, [x]) {
    const value = tensor(step.shape),
      kept = new Int32Array(value.data.length),
      width = step.inputs[2];
    eachWindow(step, (n, top, bottom, left, right) => {
      let best = -Infinity;
      for (let r = top; r < bottom; r++) {
        for (let p = r * width + left, end = r * width + right; p < end; p++) {
          if (x.data[p] > best) {
            best = x.data[p];
            kept[n] = p;
          }
        }
      }
      value.data[n] = best;
    });
    return { value, kept };
  },
  backward(step, gradient, kept) {
    const out = tensor(step.inputs);
    kept.forEach((place, n) => {
      out.data[place] += gradient.data[n];
    });
    return [out];
  },
};

const mean = {
  forward(step, [x]) {
    const value = tensor(step.shape),
      width = step.inputs[2];
    eachWindow(step, (n, top, bottom, left, right) => {
      let sum = 0;
      for (let r = top; r < bottom; r++) for (let c = left; c < right; c++) sum += x.data[r * width + c];
      value.data[n] = sum / ((bottom - top) * (right - left));
    });
    return { value };
  },
  backward(step, gradient) {
    const out = tensor(step.inputs),
      width = step.inputs[2];
    eachWindow(step, (n, top, bottom, left, right) => {
      const share = gradient.data[n] / ((bottom - top) * (right - left));
      for (let r = top; r < bottom; r++) for (let c = left; c < right; c++) out.data[r * width + c] += share;
    });
    return [out];
  },
};

const add = {
  forward: (step, [a, b]) => ({
    value: tensor(
      step.shape,
      a.data.map((v, i) => v + b.data[i]),
    ),
  }),
  backward: (step, gradient) => [gradient, gradient],
};

const flatten = {
  forward: (step, [x]) => ({ value: tensor(step.shape, x.data) }),
  backward: (step, gradient) => [tensor(step.inputs, gradient.data)],
};

export const OPERATIONS = { scale, convolve, rectify, maximum, mean, add, flatten, linear };
