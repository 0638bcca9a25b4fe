// The Fourier transform of small images as two matrix products, and what a circle of frequencies keeps of them.

const tables = new Map();

// Cosines and sines of all products of a frequency and a place, of a side of n pixels
function table(n) {
  if (!tables.has(n)) {
    const cos = new Float64Array(n * n),
      sin = new Float64Array(n * n);
    for (let k = 0; k < n; k++) {
      for (let t = 0; t < n; t++) {
        const angle = (2 * Math.PI * ((k * t) % n)) / n;
        cos[k * n + t] = Math.cos(angle);
        sin[k * n + t] = Math.sin(angle);
      }
    }
    tables.set(n, { cos, sin });
  }
  return tables.get(n);
}

// Transform the last axis and exchange the axes: called twice it transforms an image. sign is -1, or 1 for the inverse
function alongRows(re, im, rows, columns, sign) {
  const { cos, sin } = table(columns);
  const outRe = new Float64Array(re.length),
    outIm = new Float64Array(re.length);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < columns; k++) {
      let a = 0,
        b = 0;
      for (let t = 0, p = r * columns, q = k * columns; t < columns; t++, p++, q++) {
        const s = sign * sin[q];
        a += re[p] * cos[q] - im[p] * s;
        b += re[p] * s + im[p] * cos[q];
      }
      outRe[k * rows + r] = a;
      outIm[k * rows + r] = b;
    }
  }
  return [outRe, outIm];
}

function transform(re, im, height, width, sign) {
  const [a, b] = alongRows(re, im, height, width, sign);
  return alongRows(a, b, width, height, sign);
}

export const fourier = (plane, height, width) => transform(plane, new Float64Array(plane.length), height, width, -1);

// The signed frequency of a place in an untouched spectrum, as numpy's fftfreq times n
export const frequency = (i, n) => (i < Math.ceil(n / 2) ? i : i - n);

// Whether each coefficient lies within the radius, in cycles per image
function disc(height, width, radius) {
  const inside = new Uint8Array(height * width);
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      const [u, v] = [frequency(i, height), frequency(j, width)];
      inside[i * width + j] = Math.sqrt(u * u + v * v) <= radius ? 1 : 0;
    }
  }
  return inside;
}

const planes = (image, [channels, height, width]) =>
  Array.from({ length: channels }, (_, i) => image.subarray(i * height * width, (i + 1) * height * width));

// The frequencies of an image up to the radius: low + high is the image
export function lowPass(image, shape, radius) {
  const [, height, width] = shape,
    size = height * width;
  const inside = disc(height, width, radius),
    out = new Float64Array(image.length);
  planes(image, shape).forEach((plane, i) => {
    const [re, im] = fourier(plane, height, width);
    for (let p = 0; p < size; p++) if (!inside[p]) re[p] = im[p] = 0;
    const [low] = transform(re, im, height, width, 1);
    for (let p = 0; p < size; p++) out[i * size + p] = low[p] / size;
  });
  return out;
}

export function split(image, shape, radius) {
  const low = lowPass(image, shape, radius);
  return { low, high: Float64Array.from(image, (value, i) => value - low[i]) };
}

// The part of an image that lies in a band: 'all', 'low' or 'high'
export function inBand(image, shape, radius, band) {
  if (band === 'all') return image;
  return split(image, shape, radius)[band];
}

// Magnitudes of the spectrum, summed over channels, with the zero frequency in the center
export function magnitudes(image, shape) {
  const [, height, width] = shape,
    out = new Float64Array(height * width);
  for (const plane of planes(image, shape)) {
    const [re, im] = fourier(plane, height, width);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const row = (i + Math.floor(height / 2)) % height,
          column = (j + Math.floor(width / 2)) % width;
        out[row * width + column] += Math.hypot(re[i * width + j], im[i * width + j]);
      }
    }
  }
  return out;
}

// Which share of an image's energy lies up to the radius
export function lowShare(image, shape, radius) {
  const energy = (values) => values.reduce((sum, value) => sum + value * value, 0);
  const whole = energy(image);
  return whole ? energy(lowPass(image, shape, radius)) / whole : 0;
}
