// What the element shows. Each function gets the element, and the state as it was when the engine was asked.

import { brightness, draw } from './drawing.js';
import { attackRow, emptyBar, legend } from './layout.js';
import { softmax } from './shared.js';
import { aboutAttack, aboutNetwork, aboutParts, best, percent } from './words.js';

export const find = (element, kind, name) => element.querySelector(`[data-${kind}="${name}"]`);

// Draw a picture and say what it shows
function picture(element, name, values, shape, text) {
  const canvas = find(element, 'picture', name);
  draw(canvas, values, shape);
  canvas.setAttribute('aria-label', text);
}

function press(element, kind, isPressed) {
  for (const button of element.querySelectorAll(`[data-${kind}]`)) {
    button.setAttribute('aria-pressed', String(isPressed(button.dataset[kind])));
  }
}

export function showControls(element, state, images) {
  const { image, names, radius, rho, eps, steps, band, attacking, drawing, ink } = state;
  press(element, 'image', (i) => images[i] === image);
  press(element, 'network', (name) => names.includes(name));
  press(element, 'band', (name) => name === band);
  press(element, 'ink', (value) => Number(value) === ink);
  find(element, 'do', 'draw').setAttribute('aria-pressed', String(drawing));
  find(element, 'do', 'attack').setAttribute('aria-pressed', String(attacking));
  for (const button of element.querySelectorAll('[data-network]')) {
    button.dataset.place = names.indexOf(button.dataset.network);
  }
  const words = { radius: `${radius} cycles`, rho: rho.toFixed(2), eps: `${eps}/255`, steps: String(steps) };
  for (const [name, value] of Object.entries({ radius, rho, eps, steps })) {
    const input = find(element, 'name', name);
    input.value = value;
    input.setAttribute('aria-valuetext', words[name]);
    find(element, 'value', name).value = words[name];
  }
  element.querySelector('.lens-tools').hidden = !drawing;
}

// The circle stands on the middle of the zero frequency's pixel; its handle on the diagonal, where it never leaves
export function showCircle(element, { radius, image }) {
  const [, height, width] = image.shape;
  const stage = element.querySelector('.lens-stage'), [ring, handle] = stage.querySelectorAll('circle');
  stage.setAttribute('aria-valuenow', radius);
  stage.setAttribute('aria-valuetext', `${radius} cycles per image`);
  stage.querySelector('svg').setAttribute('viewBox', `0 0 ${width} ${height}`);
  const x = width / 2 + 0.5, y = height / 2 + 0.5, along = radius * Math.SQRT1_2;
  place(ring, x, y, Math.max(radius, 0.35));
  place(handle, Math.min(x + along, width - 1), Math.max(y - along, 1), 0.8);
}

function place(circle, cx, cy, r) {
  for (const [name, value] of Object.entries({ cx, cy, r })) circle.setAttribute(name, value);
}

export function showParts(element, { image, radius, rho }, networks, found) {
  const { title, shape } = image;
  picture(element, 'whole', image.pixels, shape, title);
  picture(element, 'low', found.low, shape, `${title}, frequencies up to ${radius} cycles`);
  const high = found.high.map((value) => value + 0.5);
  picture(element, 'high', high, shape, `${title}, frequencies above ${radius} cycles`);
  draw(find(element, 'picture', 'spectrum'), brightness(found.spectrum), [1, ...shape.slice(1)]);
  for (const part of ['whole', 'low', 'high']) {
    showBars(element, part, networks, found.answers.map((answer) => softmax(answer[part])));
  }
  const about = networks.map((network, i) => `<p>${aboutNetwork(network, i)}</p>`);
  find(element, 'text', 'networks').innerHTML = about.join('');
  find(element, 'text', 'legend').innerHTML = networks.map(legend).join('');
  find(element, 'text', 'parts').innerHTML = aboutParts(networks, found.answers, { radius, rho });
}

// A bar a network for each class; bars stay where they are, so that they grow and shrink in place
function showBars(element, part, networks, shares) {
  const tops = shares.map((all) => all.indexOf(Math.max(...all)));
  networks[0].classes.forEach((_, k) => {
    const cell = find(element, 'bars', `${part}-${k}`);
    if (cell.childElementCount !== networks.length) cell.innerHTML = networks.map(emptyBar).join('');
    [...cell.children].forEach((bar, i) => {
      const share = percent(shares[i][k]);
      bar.classList.toggle('lens-top', tops[i] === k);
      bar.firstChild.style.setProperty('--share', shares[i][k]);
      bar.lastChild.textContent = share;
      bar.title = `${networks[i].title}: ${share}`;
    });
  });
}

export function showAttack(element, state, networks, found) {
  const rows = find(element, 'rows', 'attack');
  if (rows.childElementCount !== networks.length) rows.innerHTML = networks.map(attackRow).join('');
  networks.forEach((network, i) => showAttackRow(element, state, network, i, found[i]));
}

function showAttackRow(element, state, network, i, found) {
  const { image: { shape, title }, eps } = state;
  const largest = Math.max(...found.change.map(Math.abs)) || 1, { name } = best(found.logits, network.classes);
  picture(element, `attacked-${i}`, found.pixels, shape, `${title}, attacked; ${network.title} reads it as ${name}`);
  const change = found.change.map((value) => 0.5 + value / (2 * largest));
  picture(element, `change-${i}`, change, shape, `The change, at most ${eps}/255`);
  picture(element, `of-change-${i}`, brightness(found.spectrum), [1, ...shape.slice(1)], 'Spectrum of the change');
  const times = eps ? `the change, ×${(0.5 / largest).toFixed(0)}` : 'no change';
  find(element, 'caption', `change-${i}`).textContent = times;
  find(element, 'text', `attack-${i}`).innerHTML = aboutAttack(network, i, found, state);
}
