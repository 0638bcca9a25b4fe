// The element's HTML; element.js fills it.

const each = (list, html) => list.map(html).join('');

const slider = (name, label, settings) => `
  <div class="lens-slider">
    <label><span>${label}</span><input type="range" data-name="${name}" ${settings} autocomplete="off"></label>
    <output data-value="${name}"></output>
  </div>`;

const button = (name, value, label, more = '') =>
  `<button type="button" class="lens-button" data-${name}="${value}" aria-pressed="false"${more}>${label}</button>`;

const group = (id, name, label, content) => `
  <div class="lens-group" role="group" aria-labelledby="${id}-${name}">
    <span class="lens-label" id="${id}-${name}">${label}</span>${content}
  </div>`;

const thumb = ({ title }, i) => `
  <button type="button" class="lens-thumb" data-image="${i}" aria-pressed="false" aria-label="${title}"
    title="${title}"><canvas></canvas></button>`;

const own = (id) => `
  ${button('do', 'draw', 'Draw')}
  <span class="lens-tools" hidden>${button('ink', 1, 'Pen')}${button('ink', 0, 'Eraser')}
    <button type="button" class="lens-button" data-do="clear">Clear</button></span>
  <label class="lens-button lens-file" for="${id}-file">Open<input type="file" id="${id}-file" accept="image/*"
    aria-label="Open a picture of your own"></label>
  <span class="lens-caption" role="status" data-text="note"></span>`;

const networkButton = ({ name, title, says }) => button('network', name, title, ` title="${says}"`);

const stage = (reach) => `
  <div class="lens-stage" tabindex="0" role="slider" aria-label="Radius, on the spectrum"
    aria-valuemin="0" aria-valuemax="${reach}" aria-valuenow="0">
    <canvas data-picture="spectrum"></canvas>
    <svg aria-hidden="true"><circle class="lens-ring"/><circle class="lens-handle"/></svg>
  </div>
  <p class="lens-caption">spectrum: drag the circle</p>
  ${slider('radius', 'radius', `min="0" max="${reach}" step="1"`)}`;

const part = (name, caption) => `
  <th scope="col"><div class="lens-picture"><canvas data-picture="${name}" role="img"></canvas></div>
    <span class="lens-caption">${caption}</span></th>`;

const bars = (name, i) => `
  <tr><th scope="row">${name}</th>
    ${each(['whole', 'low', 'high'], (column) => `<td data-bars="${column}-${i}"></td>`)}</tr>`;

const table = (classes) => `
  <table class="lens-table">
    <caption class="lens-hidden">How likely each network finds each class, for the whole image and its parts</caption>
    <thead><tr><td class="lens-legend" data-text="legend"></td>
      ${part('whole', 'whole')}${part('low', 'low')}${part('high', 'high')}</tr></thead>
    <tbody>${each(classes, bars)}</tbody>
  </table>`;

const bands = () =>
  button('band', 'all', 'everywhere') +
  button('band', 'low', 'inside the circle') +
  button('band', 'high', 'outside');

const attack = (id) => `
  <section class="lens-box" aria-labelledby="${id}-attack">
    <div class="lens-head"><h2 id="${id}-attack">Attack it</h2>${button('do', 'attack', 'Attack')}</div>
    ${group(id, 'band', 'change', bands())}
    ${slider('eps', 'eps', 'min="0" max="64" step="1"')}
    ${slider('steps', 'PGD steps', 'min="1" max="40" step="1"')}
    <p class="lens-caption" data-text="hint">PGD changes every pixel a little, step by step, until the network errs.
      Choose where in the spectrum the change may lie.</p>
    <div data-rows="attack"></div>
  </section>`;

const kernels = (id) => `
  <section class="lens-box" aria-labelledby="${id}-kernels">
    <div class="lens-head"><h2 id="${id}-kernels">Smooth its first layer</h2></div>
    ${slider('rho', 'rho', 'min="0" max="1" step="0.05"')}
    <p class="lens-caption">Each kernel and, below it, its spectrum.
      Smoothing adds rho times its neighbors to every weight.</p>
    <div data-rows="kernels"></div>
  </section>`;

export const layout = (id, networks, images, classes, reach) => `
  <div class="lens">
    ${group(id, 'image', 'Image', each(images, thumb) + own(id))}
    ${group(id, 'network', 'Network', each(networks, networkButton))}
    <div class="lens-main"><div class="lens-left">${stage(reach)}</div>${table(classes)}</div>
    <p class="lens-sentence" data-text="parts"></p>
    <div class="lens-about" data-text="networks"></div>
    <div class="lens-boxes">${attack(id)}${kernels(id)}</div>
    <p class="lens-hidden" role="status" data-text="status"></p>
  </div>`;

const attackPicture = (name, i, caption) => `
  <div><canvas data-picture="${name}-${i}" role="img"></canvas>
    <span class="lens-caption" data-caption="${name}-${i}">${caption}</span></div>`;

export const attackRow = (_, i) => `
  <div class="lens-attack-row">
    ${attackPicture('attacked', i, 'attacked')}${attackPicture('change', i, 'the change')}
    ${attackPicture('of-change', i, 'its spectrum')}
    <p data-text="attack-${i}"></p>
  </div>`;

export const kernelRow = ({ title }, i) => `
  <div class="lens-kernel-row"><span class="lens-swatch lens-swatch-${i}"></span><span>${title}</span>
    <canvas data-picture="kernels-${i}" role="img"
      aria-label="First-layer kernels of ${title}, and their spectra"></canvas></div>`;

export const legend = ({ title }, i) => `<p>${title}<span class="lens-swatch lens-swatch-${i}"></span></p>`;

export const emptyBar = (_, i) => `<div class="lens-bar lens-bar-${i}"><i></i><span></span></div>`;
