// <freq-lens>: a network in the reader's hand. Its state is one object; whatever the hand does goes through set().

import { ask, catalog, load, newestOnly } from './client.js';
import { draw, drawKernels, paint, readPicture } from './drawing.js';
import { kernelRow, layout } from './layout.js';
import { fromBase64 } from './shared.js';
import { find, showAttack, showCircle, showControls, showParts } from './view.js';

const START = { radius: 6, rho: 0, eps: 8, steps: 20, band: 'all', attacking: false, drawing: false, ink: 1 };
const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 4, PageDown: -4, Home: -99, End: 99 };
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], ' ': [0, 0] };
let elements = 0;

const between = (value, low, high) => Math.min(Math.max(value, low), high);
const shipped = (image) => ({ ...image, pixels: Array.from(fromBase64(image.pixels), (value) => value / 255) });
const networkOf = (name) => catalog.networks.find((network) => network.name === name);
const kind = (name) => String([networkOf(name).input, networkOf(name).classes]);

// Where a pointer is on something, as shares of its width and height
function shares(event, area) {
  const box = area.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

// Call follow(event) while a pointer is down on something
function drag(area, follow) {
  area.addEventListener('pointerdown', (event) => {
    area.setPointerCapture(event.pointerId);
    follow(event);
  });
  area.addEventListener('pointermove', (event) => {
    if (area.hasPointerCapture(event.pointerId)) follow(event);
  });
}

class FreqLens extends HTMLElement {
  connectedCallback() {
    if (this.state || !catalog.networks.length) return;
    const asked = (this.getAttribute('networks') ?? '').split(' ').filter(networkOf).slice(0, 2);
    this.state = { ...START, names: asked.length ? asked : [catalog.networks[0].name] };
    const newest = (show) => newestOnly(() => show.call(this).catch((error) => this.note(error.message)));
    this.changes = 0;
    this.requests = [this.askParts, this.askKernels, this.askAttack].map(newest);
    window.freqnb.ready.then(() => this.begin()).catch((error) => this.append(error.message));
  }

  begin() {
    this.build();
    this.listen();
    this.followColors();
    this.update();
  }

  // The HTML for images and classes of the kind that the networks take
  build() {
    const { classes, input } = networkOf(this.state.names[0]), [, height, width] = input;
    this.images = catalog.images.filter(({ shape }) => String(shape) === String(input)).map(shipped);
    this.state.image = this.images[0] ?? this.blank(input);
    this.reach = Math.ceil(Math.hypot(height / 2, width / 2));
    this.innerHTML = layout(`lens-${elements++}`, catalog.networks, this.images, classes, this.reach);
    this.querySelectorAll('[data-image]').forEach((thumb, i) => draw(thumb.firstChild, this.images[i].pixels, input));
    this.listenToStage(this.querySelector('.lens-stage'));
    this.addPad();
  }

  set(change) {
    if (change.image) this.note('');
    Object.assign(this.state, change);
    this.update();
  }

  update() {
    this.changes += 1;
    showControls(this, this.state, this.images);
    showCircle(this, this.state);
    this.pad.hidden = !this.state.drawing;
    this.showCursor();
    const [parts, kernels, attack] = this.requests;
    parts();
    const shown = `${this.state.names} ${this.state.rho}`;
    if (shown !== this.shown) kernels();
    this.shown = shown;
    find(this, 'text', 'hint').hidden = this.state.attacking;
    find(this, 'rows', 'attack').hidden = !this.state.attacking;
    find(this, 'rows', 'attack').classList.add('lens-waiting');
    clearTimeout(this.later);
    if (this.state.attacking) this.later = setTimeout(attack, 60);
  }

  listen() {
    this.addEventListener('input', ({ target }) => {
      if (target.type === 'range') this.slide(target.dataset.name, Number(target.value));
      if (target.type === 'file' && target.files.length) this.open(target.files[0]);
    });
    this.addEventListener('click', ({ target }) => {
      const pressed = target.closest('button');
      if (pressed) this.press({ ...pressed.dataset });
    });
    this.addEventListener('dragover', (event) => event.preventDefault());
    this.addEventListener('drop', (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.open(event.dataTransfer.files[0]);
    });
  }

  slide(name, value) {
    const ofAttack = name === 'eps' || name === 'steps';
    this.set({ [name]: value, attacking: this.state.attacking || ofAttack });
  }

  press({ image, network, band, ink, do: action }) {
    const { attacking, drawing } = this.state;
    if (image !== undefined) this.set({ image: this.images[image], drawing: false });
    if (network !== undefined) this.choose(network);
    if (band !== undefined) this.set({ band, attacking: true });
    if (ink !== undefined) this.set({ ink: Number(ink) });
    if (action === 'attack') this.set({ attacking: !attacking });
    if (action === 'clear') this.set({ image: this.blank() });
    if (action === 'draw') this.set(drawing ? { drawing: false } : { drawing: true, ink: 1, image: this.blank() });
  }

  // One network or two: a third takes the place of the first, the last one stays, and two take images of one kind
  choose(name) {
    const { names } = this.state;
    const rest = names.filter((other) => other !== name);
    if (rest.length < names.length) {
      if (rest.length) this.set({ names: rest });
      return;
    }
    const kin = names.filter((other) => kind(other) === kind(name));
    this.state.names = [...kin.slice(-1), name];
    if (!kin.length) this.build();
    this.update();
  }

  blank(shape = this.state.image.shape) {
    const count = shape.reduce((a, b) => a * b, 1);
    return { pixels: Array(count).fill(0), shape, title: 'your drawing' };
  }

  async open(file) {
    const { shape } = this.state.image;
    try {
      const { pixels, turned } = await readPicture(file, shape);
      this.set({ image: { pixels, shape, title: 'your picture' }, drawing: false });
      if (turned) this.note('bright around the rim, so black and white are exchanged');
    } catch {
      this.note(`${file.name} is no picture that this browser reads`);
    }
  }

  // On the spectrum the distance from its center is the radius; arrow keys are steps
  listenToStage(stage) {
    drag(stage, (event) => {
      const [, height, width] = this.state.image.shape, [across, down] = shares(event, stage);
      const distance = Math.hypot(across * width - width / 2 - 0.5, down * height - height / 2 - 0.5);
      this.set({ radius: Math.min(this.reach, Math.round(distance)) });
    });
    stage.addEventListener('keydown', (event) => {
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      this.set({ radius: between(this.state.radius + STEPS[event.key], 0, this.reach) });
    });
  }

  // Over the whole picture lies a pad while the reader draws: a pointer paints, or arrow keys and the space bar do
  addPad() {
    const pad = document.createElement('div');
    pad.className = 'lens-pad';
    pad.innerHTML = '<span></span>';
    const words = 'Drawing pad: arrow keys move, the space bar draws, shift draws along';
    const attributes = { tabindex: 0, role: 'application', 'aria-label': words };
    for (const [name, value] of Object.entries(attributes)) pad.setAttribute(name, value);
    find(this, 'picture', 'whole').after(pad);
    this.pad = pad;
    this.shown = '';
    this.cursor = this.state.image.shape.slice(1).map((side) => side / 2);
    drag(pad, (event) => {
      const [, height, width] = this.state.image.shape, [across, down] = shares(event, pad);
      this.stroke(down * height, across * width);
    });
    pad.addEventListener('keydown', (event) => this.moveOnPad(event));
  }

  moveOnPad(event) {
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    const sides = this.state.image.shape.slice(1);
    this.cursor = this.cursor.map((place, i) => between(place + MOVES[event.key][i], 1, sides[i] - 1));
    if (event.key === ' ' || event.shiftKey) this.stroke(...this.cursor);
    this.showCursor();
  }

  stroke(row, column) {
    const { image, ink } = this.state;
    this.cursor = [row, column];
    this.set({ image: { ...image, pixels: paint(image.pixels, image.shape, row, column, ink) } });
  }

  showCursor() {
    const sides = this.state.image.shape.slice(1);
    const [top, left] = this.cursor.map((place, i) => `${(100 * place) / sides[i]}%`);
    Object.assign(this.pad.firstChild.style, { top, left });
  }

  async askParts() {
    const state = { ...this.state }, { image, names, radius, rho } = state;
    await Promise.all(names.map(load));
    const found = await ask('look', { pixels: image.pixels, shape: image.shape, radius, names, rho });
    if (kind(names[0]) !== kind(this.state.names[0])) return;
    showParts(this, state, names.map(networkOf), found);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this.say(find(this, 'text', 'parts').textContent), 800);
  }

  async askKernels() {
    const { names, rho } = this.state, networks = names.map(networkOf), rows = find(this, 'rows', 'kernels');
    await Promise.all(names.map(load));
    const found = await Promise.all(names.map((name) => ask('kernels', { name, rho })));
    if (rows.dataset.names !== String(names)) {
      rows.dataset.names = names;
      rows.innerHTML = networks.map(kernelRow).join('');
    }
    found.forEach((kernels, i) => drawKernels(find(rows, 'picture', `kernels-${i}`), kernels));
  }

  // Away from the image's class or, where nobody knows that, away from the network's own answer
  async askAttack() {
    const state = { ...this.state }, { image, names, radius, rho, eps, steps, band } = state, { changes } = this;
    await Promise.all(names.map(load));
    const shared = { pixels: image.pixels, label: image.label, eps: eps / 255, steps, band, radius, rho };
    const found = await Promise.all(names.map((name) => ask('attack', { name, ...shared })));
    if (kind(names[0]) !== kind(this.state.names[0])) return;
    showAttack(this, state, names.map(networkOf), found);
    if (changes === this.changes) find(this, 'rows', 'attack').classList.remove('lens-waiting');
  }

  note(text) {
    find(this, 'text', 'note').textContent = text;
  }

  say(text) {
    find(this, 'text', 'status').textContent = text;
  }

  // Dark where the page's text is bright, however the page decides that
  followColors() {
    const follow = () => {
      const [red, green, blue] = getComputedStyle(this).color.match(/[\d.]+/g).map(Number);
      this.classList.toggle('lens-dark', red + green + blue > 382);
    };
    follow();
    const options = { attributes: true, attributeFilter: ['class', 'data-theme', 'data-bs-theme'] };
    const observer = new MutationObserver(follow);
    for (const part of [document.documentElement, document.body]) observer.observe(part, options);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', follow);
  }
}

customElements.define('freq-lens', FreqLens);
