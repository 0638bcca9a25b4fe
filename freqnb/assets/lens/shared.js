// What the engine and the page both use.

export function fromBase64(text) {
  const letters = atob(text);
  return Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
}

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (z) => Math.exp(z - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((p) => p / sum);
}

export function checkChoice(name, value, choices) {
  if (!choices.includes(value)) throw new Error(`${name} is ${value}; expected one of ${choices.join(', ')}`);
}
