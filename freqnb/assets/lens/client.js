// The page's side of the engine: a worker that starts from the script itself, networks that load when they are asked
// for, and what other scripts find in window.freqnb.

import { checkChoice, fromBase64 } from './shared.js';

const folder = document.currentScript.src.replace(/[^/]*$/, '');
export const catalog = window.freqnbCatalog ?? { networks: [], images: [] };

// A worker out of the engine's own source: no file is asked for, so that it starts under file://, too.
// Where a page allows no worker, the engine computes in the page.
function startWorker(take) {
  try {
    const source = `const serve = (${startEngine})(); onmessage = (event) => postMessage(serve(event.data));`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
    worker.onmessage = (event) => take(event.data);
    return (request) => worker.postMessage(request);
  } catch {
    const serve = startEngine();
    return (request) => setTimeout(() => take(serve(request)));
  }
}

const waiting = new Map();
let count = 0;

function receive({ id, result, error }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
}

// Two workers, so that a slider never waits for an attack
const quick = startWorker(receive), slow = startWorker(receive);

// The engine's answer to a task of service.js, as a promise
export function ask(task, request, send = task === 'attack' ? slow : quick) {
  const id = count++;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    send({ id, task, ...request });
  });
}

const loading = new Map(); // A promise for each network that was asked for, by name
const delivered = new Map(); // What its script brought

function addScript(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = `${folder}${name}.js`;
    script.onload = () => resolve(delivered.get(name));
    script.onerror = () => reject(new Error(`${script.src} did not load`));
    document.head.append(script);
  });
}

async function fetchNetwork(name) {
  checkChoice(
    'network',
    name,
    catalog.networks.map((network) => network.name),
  );
  const { manifest, weights } = delivered.get(name) ?? (await addScript(name));
  const brought = { manifest, bytes: fromBase64(weights) };
  await Promise.all([quick, slow].map((send) => ask('load', brought, send)));
}

// Load a network once; a load that failed may be tried again
export function load(name) {
  if (!loading.has(name)) {
    const promise = fetchNetwork(name);
    loading.set(name, promise);
    promise.catch(() => loading.delete(name));
  }
  return loading.get(name);
}

// A function that asks once the last answer has come, and then for the newest request only:
// a moving slider never queues
export function newestOnly(work) {
  let busy = false,
    next = null;
  return async function request(...wanted) {
    if (busy) {
      next = wanted;
      return;
    }
    busy = true;
    try {
      await work(...wanted);
    } finally {
      busy = false;
      if (next) {
        const newest = next;
        next = null;
        request(...newest);
      }
    }
  };
}

async function on(task, name, request) {
  await load(name);
  return ask(task, { name, ...request });
}

window.freqnb = {
  networks: catalog.networks,
  images: catalog.images,
  // Logits of an image: a flat array, channels first, in [0, 1]
  // with rho the kernels of the first layer are smoothed
  answer: (name, pixels, { rho } = {}) => on('answer', name, { pixels: Array.from(pixels), rho }),
  // Gradient of the cross-entropy with respect to the image
  gradient: (name, pixels, label, { rho } = {}) => on('gradient', name, { pixels: Array.from(pixels), label, rho }),
  // The low and the high frequencies of an image of a shape: channels, height, width
  split: (pixels, shape, radius) => ask('split', { pixels: Array.from(pixels), shape, radius }),
  // PGD: options are eps, steps, alpha, band ('all', 'low' or 'high'), radius, and a seed for a random start
  attack: (name, pixels, label, options = {}) => on('attack', name, { pixels: Array.from(pixels), label, ...options }),
  // A network's script calls it
  deliver: (brought) => delivered.set(brought.manifest.name, brought),
  ready: catalog.networks.length ? load(catalog.networks[0].name).then(() => true) : Promise.resolve(true),
};
