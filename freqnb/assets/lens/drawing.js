// Pictures: pixels onto canvases, a spectrum's brightness, and images that a reader brings.

const byte = (value) => 255 * Math.min(1, Math.max(0, value));

// Draw numbers, channels first, where 0 is black, 1 is white, and what is not a number is transparent
export function draw(canvas, values, [channels, height, width]) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d'),
    picture = context.createImageData(width, height),
    size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = byte(values[(channels === 3 ? c : 0) * size + i]);
    picture.data[4 * i + 3] = Number.isNaN(values[i]) ? 0 : 255;
  }
  context.putImageData(picture, 0, 0);
}

// The brightness of a spectrum: the logarithm over three powers of ten below its largest number
export function brightness(magnitudes) {
  const most = Math.max(...magnitudes) || 1;
  return Array.from(magnitudes, (value) => 1 + Math.log10(Math.max(value / most, 1e-9)) / 3);
}

// Kernels in a row above their spectra, each as bright as its own largest number
export function drawKernels(canvas, { height, width, side, kernels }) {
  const cell = side + 2,
    out = new Float64Array(2 * cell * cell * kernels.length).fill(NaN);
  const across = cell * kernels.length;
  kernels.forEach(({ kernel, spectrum }, i) => {
    const most = Math.max(...kernel.map(Math.abs)) || 1,
      strongest = Math.max(...spectrum) || 1;
    for (let r = 0; r < side; r++) {
      for (let c = 0; c < side; c++) {
        const at = (r + 1) * across + i * cell + c + 1;
        const place = Math.floor((r * height) / side) * width + Math.floor((c * width) / side);
        out[at] = 0.5 + kernel[place] / (2 * most);
        out[at + cell * across] = spectrum[r * side + c] / strongest;
      }
    }
  });
  draw(canvas, out, [1, 2 * cell, across]);
}

// The pixels of a file: its middle square, as small as the network wants it. A gray picture on a bright ground is
// turned around, since the networks know bright things on black; `turned` says so.
export async function readPicture(file, [channels, height, width]) {
  const bitmap = await createImageBitmap(file);
  const side = Math.min(bitmap.width, bitmap.height);
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height),
    size = height * width;
  const color = (i, c) => data[4 * i + c] / 255;
  if (channels === 3)
    return { pixels: Array.from({ length: 3 * size }, (_, i) => color(i % size, Math.floor(i / size))), turned: false };
  const gray = Array.from({ length: size }, (_, i) => 0.299 * color(i, 0) + 0.587 * color(i, 1) + 0.114 * color(i, 2));
  const rim = gray.filter((_, i) => i < width || i >= size - width || i % width === 0 || i % width === width - 1);
  const turned = rim.reduce((a, b) => a + b) / rim.length > 0.5;
  return { pixels: turned ? gray.map((value) => 1 - value) : gray, turned };
}

// Ink around a place, in pixels: whole in the middle, less a pixel further; ink is 1 for a pen and 0 for an eraser
export function paint(pixels, [channels, height, width], row, column, ink) {
  const out = Array.from(pixels),
    size = height * width;
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      const share = Math.min(1, Math.max(0, 1.6 - Math.hypot(r + 0.5 - row, c + 0.5 - column)));
      for (let i = 0; i < channels && share > 0; i++) {
        const at = i * size + r * width + c;
        out[at] = ink ? Math.max(out[at], share) : Math.min(out[at], 1 - share);
      }
    }
  }
  return out;
}
