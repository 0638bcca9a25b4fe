// The element's HTML, once; element.js fills it.

const slider = (name, label, settings, hint = '') => `
  <div class="lens-slider">
    <label><span>${label}</span>
      <input type="range" data-name="${name}" ${settings} autocomplete="off"${hint}></label>
    <output data-value="${name}"></output>
  </div>`;

const button = (name, value, label, more = '') =>
  `<button type="button" class="lens-button" data-${name}="${value}" aria-pressed="false"${more}>${label}</button>`;

const group = (id, name, label, content) => `
  <div class="lens-group" role="group" aria-labelledby="${id}-${name}">
    <span class="lens-label" id="${id}-${name}">${label}</span>${content}
  </div>`;

const images = (catalog) =>
  catalog.images
    .map(
      (image, i) => `
  <button type="button" class="lens-thumb" data-image="${i}" aria-pressed="false" aria-label="${image.title}"
    title="${image.title}"><canvas></canvas></button>`,
    )
    .join('');

const own = (id) => `
  ${button('do', 'draw', 'Draw')}
  <span class="lens-tools" hidden>${button('ink', 1, 'Pen')}${button('ink', 0, 'Eraser')}
    <button type="button" class="lens-button" data-do="clear">Clear</button></span>
  <label class="lens-button lens-file" for="${id}-file">Open<input type="file" id="${id}-file" accept="image/*"
    aria-label="Open a picture of your own"></label>
  <span class="lens-caption" role="status" data-text="note"></span>`;

const networks = (catalog) =>
  catalog.networks.map(({ name, title, says }) => button('network', name, title, ` title="${says}"`)).join('');

const stage = (radius) => `
  <div class="lens-stage" tabindex="0" role="slider" aria-label="Radius, on the spectrum" aria-valuemin="0">
    <canvas data-picture="spectrum" role="img" aria-label="Spectrum of the image"></canvas>
    <svg aria-hidden="true"><circle class="lens-ring"/><circle class="lens-handle"/></svg>
  </div>
  <p class="lens-caption">spectrum: drag the circle</p>
  ${slider('radius', 'radius', `min="0" max="${radius}" step="1"`)}`;

const part = (name, caption) => `
  <th scope="col"><div class="lens-picture"><canvas data-picture="${name}" role="img"></canvas></div>
    <span class="lens-caption">${caption}</span></th>`;

const bars = (classes) =>
  classes
    .map(
      (name, i) => `
  <tr><th scope="row">${name}</th>${['whole', 'low', 'high']
    .map((column) => `<td data-bars="${column}-${i}"></td>`)
    .join('')}</tr>`,
    )
    .join('');

const table = (classes) => `
  <table class="lens-table">
    <caption class="lens-hidden">How likely each network finds each class, for the whole image and its parts</caption>
    <thead><tr><td class="lens-legend" data-text="legend"></td>
      ${part('whole', 'whole')}${part('low', 'low')}${part('high', 'high, on gray')}</tr></thead>
    <tbody>${bars(classes)}</tbody>
  </table>`;

const bands = () =>
  button('band', 'all', 'everywhere') + button('band', 'low', 'inside the circle') + button('band', 'high', 'outside');

const attack = (id) => `
  <section class="lens-box" aria-labelledby="${id}-attack">
    <h3 id="${id}-attack">Attack it</h3>
    <div class="lens-group">${button('do', 'attack', 'Attack')}</div>
    ${group(id, 'band', 'change', bands())}
    ${slider('eps', 'eps, /255', 'min="0" max="64" step="1"')}
    ${slider('steps', 'PGD steps', 'min="1" max="40" step="1"')}
    <div data-rows="attack"></div>
  </section>`;

const kernels = (id) => `
  <section class="lens-box" aria-labelledby="${id}-kernels">
    <h3 id="${id}-kernels">Smooth its first layer</h3>
    ${slider('rho', 'rho', 'min="0" max="1" step="0.05"')}
    <p class="lens-caption">each kernel, and below it its spectrum; rho adds so much of every neighbor</p>
    <div data-rows="kernels"></div>
  </section>`;

export const layout = (id, catalog, classes, radius) => `
  <div class="lens">
    ${group(id, 'image', 'Image', images(catalog) + own(id))}
    ${group(id, 'network', 'Network', networks(catalog))}
    <div class="lens-about" data-text="networks"></div>
    <div class="lens-main"><div class="lens-left">${stage(radius)}</div>${table(classes)}</div>
    <p class="lens-sentence" data-text="parts"></p>
    <div class="lens-boxes">${attack(id)}${kernels(id)}</div>
    <p class="lens-hidden" role="status" data-text="status"></p>
  </div>`;

export const attackRow = (i) => `
  <div class="lens-attack-row">
    ${[
      ['attacked', 'attacked'],
      ['change', 'the change'],
      ['of-change', 'its spectrum'],
    ]
      .map(
        ([name, caption]) => `
      <div><canvas data-picture="${name}-${i}" role="img"></canvas>
        <span class="lens-caption" data-caption="${name}-${i}">${caption}</span></div>`,
      )
      .join('')}
    <p data-text="attack-${i}"></p>
  </div>`;

export const kernelRow = (i, title) => `
  <div class="lens-kernel-row"><span class="lens-swatch lens-swatch-${i}"></span><span>${title}</span>
    <canvas data-picture="kernels-${i}" role="img"
      aria-label="First-layer kernels of ${title}, and their spectra"></canvas></div>`;
