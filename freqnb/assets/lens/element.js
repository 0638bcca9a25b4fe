// <freq-lens>: a network in the reader's hand. The state is one object; whatever changes it calls update().

import { ask, catalog, load, newestOnly } from './client.js';
import { brightness, draw, drawKernels, paint, readPicture } from './drawing.js';
import { attackRow, kernelRow, layout } from './layout.js';
import { fromBase64, softmax } from './shared.js';
import { aboutAttack, aboutNetwork, aboutParts, best, percent } from './words.js';

const PARTS = ['whole', 'low', 'high'];
let elements = 0;

const shipped = (image) => ({ ...image, pixels: Array.from(fromBase64(image.pixels), (value) => value / 255) });
const networkOf = (name) => catalog.networks.find((network) => network.name === name);

class FreqLens extends HTMLElement {
  connectedCallback() {
    if (this.state || !catalog.networks.length) return;
    this.images = catalog.images.map(shipped);
    const asked = (this.getAttribute('networks') ?? '').split(' ').filter(networkOf);
    this.state = {
      image: this.images[0],
      names: asked.length ? asked.slice(0, 2) : [catalog.networks[0].name],
      radius: 6,
      rho: 0,
      eps: 8,
      steps: 20,
      band: 'all',
      attacking: false,
      drawing: false,
      ink: 1,
    };
    window.freqnb.ready.then(
      () => this.build(),
      (error) => {
        this.append(error.message);
      },
    );
  }

  build() {
    const {
      classes,
      input: [, height, width],
    } = networkOf(this.state.names[0]);
    this.reach = Math.ceil(Math.hypot(height / 2, width / 2));
    this.innerHTML = layout(`lens-${elements++}`, catalog, classes, this.reach);
    const newest = (show) => newestOnly(() => show.call(this).catch((error) => this.note(error.message)));
    this.look = newest(this.showParts);
    this.attack = newest(this.showAttack);
    this.kernels = newest(this.showKernels);
    this.querySelectorAll('[data-image]').forEach((thumb, i) =>
      draw(thumb.firstChild, this.images[i].pixels, this.images[i].shape),
    );
    this.listen();
    this.listenToStage();
    this.listenToPad();
    this.followColors();
    this.update();
  }

  find(kind, name) {
    return this.querySelector(`[data-${kind}="${name}"]`);
  }

  // Change the state, and show what follows from it
  set(change) {
    if (change.image) this.note('');
    Object.assign(this.state, change);
    this.update();
  }

  update() {
    this.showControls();
    this.look();
    this.kernels();
    clearTimeout(this.later);
    this.later = setTimeout(() => this.attack(), this.state.attacking ? 60 : 0);
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
    this.set({ [name]: value, ...(ofAttack ? { attacking: true } : {}) });
  }

  press({ image, network, band, ink, do: action }) {
    if (image !== undefined) this.set({ image: this.images[image], drawing: false });
    if (network !== undefined) this.choose(network);
    if (band !== undefined) this.set({ band, attacking: true });
    if (ink !== undefined) this.set({ ink: Number(ink) });
    if (action === 'attack') this.set({ attacking: !this.state.attacking });
    if (action === 'clear') this.set({ image: this.blank() });
    if (action === 'draw')
      this.set(this.state.drawing ? { drawing: false } : { drawing: true, ink: 1, image: this.blank() });
  }

  // One network or two: a third takes the place of the first; the last one stays
  choose(name) {
    const { names } = this.state;
    const rest = names.filter((other) => other !== name);
    if (rest.length < names.length) return this.set({ names: rest.length ? rest : names });
    const kin = names.filter((other) => String(networkOf(other).input) === String(networkOf(name).input));
    const image = kin.length
      ? this.state.image
      : this.images.find(({ shape }) => String(shape) === String(networkOf(name).input));
    return this.set({ names: [...kin.slice(-1), name], image: image ?? this.state.image });
  }

  blank() {
    const { shape } = this.state.image;
    return { pixels: Array(shape[0] * shape[1] * shape[2]).fill(0), shape, title: 'your drawing', label: null };
  }

  async open(file) {
    try {
      const { pixels, turned } = await readPicture(file, this.state.image.shape);
      this.set({
        image: { pixels, shape: this.state.image.shape, title: 'your picture', label: null },
        drawing: false,
      });
      if (turned) this.note('bright around the rim, so black and white are exchanged');
    } catch {
      this.note(`${file.name} is no picture that this browser reads`);
    }
  }

  // A pointer on the spectrum: its distance from the center is the radius; arrow keys are steps
  listenToStage() {
    const stage = this.querySelector('.lens-stage');
    const measure = (event) => {
      const box = stage.getBoundingClientRect(),
        [, height, width] = this.state.image.shape;
      const across = ((event.clientX - box.left) / box.width) * width - width / 2 - 0.5;
      const down = ((event.clientY - box.top) / box.height) * height - height / 2 - 0.5;
      this.set({ radius: Math.min(this.reach, Math.round(Math.hypot(across, down))) });
    };
    stage.addEventListener('pointerdown', (event) => {
      stage.setPointerCapture(event.pointerId);
      measure(event);
    });
    stage.addEventListener('pointermove', (event) => {
      if (stage.hasPointerCapture(event.pointerId)) measure(event);
    });
    const steps = {
      ArrowUp: 1,
      ArrowRight: 1,
      ArrowDown: -1,
      ArrowLeft: -1,
      PageUp: 4,
      PageDown: -4,
      Home: -99,
      End: 99,
    };
    stage.addEventListener('keydown', (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.set({ radius: Math.min(this.reach, Math.max(0, this.state.radius + steps[event.key])) });
    });
  }

  // The whole picture is a pad while the reader draws: a pointer paints, or arrow keys and the space bar do
  listenToPad() {
    const pad = document.createElement('div');
    pad.className = 'lens-pad';
    pad.hidden = true;
    pad.innerHTML = '<span></span>';
    Object.entries({
      tabindex: 0,
      role: 'application',
      'aria-label': 'Drawing pad: arrow keys move, space draws',
    }).forEach(([name, value]) => pad.setAttribute(name, value));
    this.find('picture', 'whole').after(pad);
    this.pad = pad;
    this.cursor = this.state.image.shape.slice(1).map((side) => side / 2);
    const atPointer = (event) => {
      const box = pad.getBoundingClientRect(),
        [, height, width] = this.state.image.shape;
      this.stroke(((event.clientY - box.top) / box.height) * height, ((event.clientX - box.left) / box.width) * width);
    };
    pad.addEventListener('pointerdown', (event) => {
      pad.setPointerCapture(event.pointerId);
      atPointer(event);
    });
    pad.addEventListener('pointermove', (event) => {
      if (pad.hasPointerCapture(event.pointerId)) atPointer(event);
    });
    pad.addEventListener('keydown', (event) => this.padKey(event));
  }

  padKey(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], ' ': [0, 0] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const sides = this.state.image.shape.slice(1);
    this.cursor = this.cursor.map((place, i) => Math.min(sides[i] - 1, Math.max(1, place + moves[event.key][i])));
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

  showControls() {
    const { image, names, radius, rho, eps, steps, band, attacking, drawing, ink } = this.state;
    const pressed = (kind, is) =>
      this.querySelectorAll(`[data-${kind}]`).forEach((button) =>
        button.setAttribute('aria-pressed', String(is(button.dataset[kind]))),
      );
    pressed('image', (i) => this.images[i] === image);
    pressed('network', (name) => names.includes(name));
    pressed('band', (name) => name === band);
    pressed('ink', (value) => Number(value) === ink);
    this.find('do', 'draw').setAttribute('aria-pressed', String(drawing));
    this.find('do', 'attack').setAttribute('aria-pressed', String(attacking));
    this.querySelectorAll('[data-network]').forEach((button) => {
      button.dataset.place = names.indexOf(button.dataset.network);
    });
    const words = { radius: `${radius} cycles`, rho: rho.toFixed(2), eps: `${eps}/255`, steps: String(steps) };
    for (const [name, value] of Object.entries({ radius, rho, eps, steps })) {
      this.find('name', name).value = value;
      this.find('name', name).setAttribute('aria-valuetext', words[name]);
      this.find('value', name).value = words[name];
    }
    this.querySelector('.lens-tools').hidden = !drawing;
    this.pad.hidden = !drawing;
    this.showCursor();
    this.showCircle();
  }

  showCircle() {
    const {
      radius,
      image: {
        shape: [, height, width],
      },
    } = this.state;
    const stage = this.querySelector('.lens-stage'),
      center = [width / 2 + 0.5, height / 2 + 0.5];
    stage.setAttribute('aria-valuemax', this.reach);
    stage.setAttribute('aria-valuenow', radius);
    stage.setAttribute('aria-valuetext', `${radius} cycles per image`);
    stage.querySelector('svg').setAttribute('viewBox', `0 0 ${width} ${height}`);
    const [ring, handle] = stage.querySelectorAll('circle'),
      along = radius * Math.SQRT1_2;
    const places = [
      [ring, ...center, Math.max(radius, 0.35)],
      [handle, Math.min(center[0] + along, width - 1), Math.max(center[1] - along, 1), 0.8],
    ];
    places.forEach(([circle, cx, cy, r]) =>
      Object.entries({ cx, cy, r }).forEach(([name, value]) => circle.setAttribute(name, value)),
    );
  }

  async showParts() {
    const { image, names, radius, rho } = this.state,
      networks = names.map(networkOf);
    await Promise.all(names.map(load));
    const found = await ask('look', { pixels: image.pixels, shape: image.shape, radius, names, rho });
    const pictures = { whole: image.pixels, low: found.low, high: found.high.map((value) => value + 0.5) };
    for (const [name, pixels] of Object.entries(pictures)) draw(this.find('picture', name), pixels, image.shape);
    draw(this.find('picture', 'spectrum'), brightness(found.spectrum), [1, ...image.shape.slice(1)]);
    this.showBars(networks, found.answers);
    this.describe(image, radius);
    this.find('text', 'networks').innerHTML = networks
      .map((network, i) => `<p>${aboutNetwork(network, i)}</p>`)
      .join('');
    this.find('text', 'legend').innerHTML = networks
      .map(({ title }, i) => `<p>${title}<span class="lens-swatch lens-swatch-${i}"></span></p>`)
      .join('');
    const sentence = this.find('text', 'parts');
    sentence.innerHTML = aboutParts(networks, found.answers, radius);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this.say(sentence.textContent), 800);
  }

  describe(image, radius) {
    const words = {
      whole: image.title,
      low: `${image.title}, frequencies up to ${radius} cycles`,
      high: `${image.title}, frequencies above ${radius} cycles`,
    };
    for (const [name, text] of Object.entries(words)) this.find('picture', name).setAttribute('aria-label', text);
  }

  // A bar a network in each cell; the bars of a cell stay, so that they grow and shrink in place
  showBars(networks, answers) {
    for (const part of PARTS) {
      const shares = answers.map((answer) => softmax(answer[part])),
        tops = shares.map((all) => all.indexOf(Math.max(...all)));
      networks[0].classes.forEach((_, k) => {
        const cell = this.find('bars', `${part}-${k}`);
        if (cell.childElementCount !== networks.length) {
          cell.innerHTML = networks
            .map((__, i) => `<div class="lens-bar lens-bar-${i}"><i></i><span></span></div>`)
            .join('');
        }
        [...cell.children].forEach((bar, i) => {
          bar.classList.toggle('lens-top', tops[i] === k);
          bar.firstChild.style.setProperty('--share', shares[i][k]);
          bar.lastChild.textContent = percent(shares[i][k]);
          bar.title = `${networks[i].title}: ${percent(shares[i][k])}`;
        });
      });
    }
  }

  async showAttack() {
    const { image, names, radius, rho, eps, steps, band, attacking } = this.state;
    const rows = this.find('rows', 'attack');
    rows.hidden = !attacking;
    if (!attacking) return;
    await Promise.all(names.map(load));
    const shared = {
      pixels: image.pixels,
      label: image.label ?? undefined,
      eps: eps / 255,
      steps,
      band,
      radius,
      rho,
      seed: 0,
    };
    const found = await Promise.all(names.map((name) => ask('attack', { name, ...shared })));
    if (rows.childElementCount !== names.length) rows.innerHTML = names.map((_, i) => attackRow(i)).join('');
    found.forEach((attack, i) => this.showAttackRow(networkOf(names[i]), i, attack));
  }

  showAttackRow(network, i, found) {
    const {
        image: { shape, title },
        eps,
      } = this.state,
      range = Math.max(...found.change.map(Math.abs)) || 1;
    draw(this.find('picture', `attacked-${i}`), found.pixels, shape);
    draw(
      this.find('picture', `change-${i}`),
      found.change.map((value) => 0.5 + value / (2 * range)),
      shape,
    );
    draw(this.find('picture', `of-change-${i}`), brightness(found.spectrum), [1, ...shape.slice(1)]);
    const after = best(found.logits, network.classes);
    const words = {
      attacked: `${title}, attacked; ${network.title} takes it for ${after.name}`,
      change: `The change, at most ${eps}/255`,
      'of-change': 'Spectrum of the change',
    };
    for (const [name, text] of Object.entries(words))
      this.find('picture', `${name}-${i}`).setAttribute('aria-label', text);
    this.find('caption', `change-${i}`).textContent = eps ? `the change, ×${(0.5 / range).toFixed(0)}` : 'no change';
    this.find('text', `attack-${i}`).innerHTML = aboutAttack(network, i, found, this.state);
  }

  async showKernels() {
    const { names, rho } = this.state,
      rows = this.find('rows', 'kernels'),
      shown = names.join(' ');
    await Promise.all(names.map(load));
    const found = await Promise.all(names.map((name) => ask('kernels', { name, rho })));
    if (rows.dataset.names !== shown) {
      rows.dataset.names = shown;
      rows.innerHTML = names.map((name, i) => kernelRow(i, networkOf(name).title)).join('');
    }
    found.forEach((kernels, i) => drawKernels(this.find('picture', `kernels-${i}`), kernels));
  }

  note(text) {
    this.find('text', 'note').textContent = text;
  }

  say(text) {
    this.find('text', 'status').textContent = text;
  }

  // Dark where the page's text is bright, however the page decides that
  followColors() {
    const follow = () => {
      const [red, green, blue] = getComputedStyle(this)
        .color.match(/[\d.]+/g)
        .map(Number);
      this.classList.toggle('lens-dark', red + green + blue > 382);
    };
    follow();
    const options = { attributes: true, attributeFilter: ['class', 'data-theme', 'data-bs-theme'] };
    const observer = new MutationObserver(follow);
    [document.documentElement, document.body].forEach((part) => observer.observe(part, options));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', follow);
  }
}

customElements.define('freq-lens', FreqLens);
