// The sentences of the lens: what was asked, what came out, in numbers that follow the reader's hand.

import { softmax } from './shared.js';

export const percent = (share) => (share > 0 && share < 0.005 ? '<1%' : `${Math.round(100 * share)}%`);

// The most likely class of some logits, and how likely
export function best(logits, classes) {
  const shares = softmax(logits),
    at = shares.indexOf(Math.max(...shares));
  return { at, name: classes[at].toLowerCase(), share: shares[at] };
}

const said = (logits, classes) => {
  const { name, share } = best(logits, classes);
  return `<b>${name}</b> (${percent(share)})`;
};

// One sentence a network: what it reads the whole image and its two parts as
export function aboutParts(networks, answers, { radius, rho }) {
  const how = rho ? `, its first layer smoothed with rho = ${rho.toFixed(2)},` : '';
  const sentences = networks.map(({ title, classes }, i) => {
    const { whole, low, high } = answers[i];
    return `<b class="lens-name-${i}">${title}</b>${how} reads the whole image as ${said(whole, classes)},
      its low frequencies (up to ${radius} cycles per image) as ${said(low, classes)},
      and its high ones as ${said(high, classes)}.`;
  });
  return sentences.join(' ');
}

const PLACES = { all: 'anywhere in the spectrum', low: 'inside the circle', high: 'outside the circle' };

// What the attack did to a network's answer, and where the change lies
export function aboutAttack({ title, classes }, i, found, { eps, steps, band, radius }) {
  const name = `<b class="lens-name-${i}">${title}</b>`;
  if (!eps) return `Without a change ${name} stays at ${said(found.before, classes)}.`;
  const before = best(found.before, classes),
    after = best(found.logits, classes);
  const effect =
    after.at === before.at
      ? `leaves ${name} at <b>${before.name}</b>, ${percent(before.share)} before and ${percent(after.share)} after`
      : `turns ${name} from ${said(found.before, classes)} to ${said(found.logits, classes)}`;
  const taken = `${steps} PGD ${steps === 1 ? 'step' : 'steps'}`;
  return `A change of at most ${eps}/255 a pixel, ${PLACES[band]}, ${effect} (${taken}).
    Of its energy, ${percent(found.lowShare)} lies at up to ${radius} cycles per image.`;
}

const counted = ({ value, low, high }) => `${percent(value)} [${Math.round(100 * low)}, ${percent(high)}]`;
const many = ({ n }) => `${n.toLocaleString('en-US')} test images`;

function aboutRecord({ accuracy, attacks }) {
  const held = attacks.map((attack) => `${counted(attack.accuracy)} at ${Math.round(255 * attack.eps)}/255`);
  const under = attacks.length
    ? `; under ${attacks[0].attack}, of ${many(attacks[0].accuracy)}: ${held.join(', ')}`
    : '';
  return ` Right on ${counted(accuracy)} of ${many(accuracy)}${under}.`;
}

// How a network was trained, and the measurements of its record: shares with their intervals
export function aboutNetwork({ title, says, record }, i) {
  const swatch = `<span class="lens-swatch lens-swatch-${i}"></span>`;
  return `${swatch}<b>${title}</b>: ${says}.${record ? aboutRecord(record) : ''}`;
}
