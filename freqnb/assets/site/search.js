// Search without a server: the index is a script that sets window.freqnbIndex, loaded at the first touch of the field.
// An entry is [page, title, kind, anchor, section, text]; kind 0 is a page to read, 1 is an entry of the library.
(() => {
  'use strict';
  const box = document.querySelector('.search');
  if (!box) return;
  const input = box.querySelector('input');
  const list = box.querySelector('.hits');
  const status = box.querySelector('[role=status]');
  const up = document.documentElement.dataset.up;

  let loading = null;
  const load = () => {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement('script');
      script.src = `${up}site_libs/search-index.js`;
      script.onload = () => resolve(window.freqnbIndex);
      script.onerror = () => reject(new Error('the search index is missing'));
      document.head.append(script);
    });
    return loading;
  };

  const words = (text) => text.toLowerCase().split(/[^\p{L}\p{N}_.]+/u).filter(Boolean);
  // how well one field answers one word: the whole word, the beginning of one, or somewhere inside
  const match = (field, word) => {
    const at = field.indexOf(word);
    if (at < 0) return 0;
    const before = at === 0 || !/[\p{L}\p{N}]/u.test(field[at - 1]);
    const after = at + word.length === field.length || !/[\p{L}\p{N}]/u.test(field[at + word.length]);
    return before && after ? 3 : before ? 2 : 1;
  };
  const score = (entry, asked) => {
    const [, title, kind, , section, text] = entry.lower;
    let sum = 0;
    for (const word of asked) {
      const here = 12 * match(section || title, word) + 4 * match(title, word) + match(text, word);
      if (!here) return 0;
      sum += here;
    }
    const exact = (section || title) === asked.join(' ') ? 60 : 0;
    return (sum + exact) * (kind ? 1 : 2);
  };

  const escape = (text) => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }[c]));
  const snippet = (text, asked) => {
    const at = Math.max(0, text.toLowerCase().indexOf(asked[0]));
    const start = Math.max(0, at - 50);
    const part = escape((start ? '…' : '') + text.slice(start, start + 150));
    const found = asked.map((word) => escape(word).replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|');
    return part.replace(new RegExp(found, 'gi'), '<b>$&</b>');
  };
  const row = ([page, title, , anchor, section, text], asked) => {
    const name = `<strong>${escape(section || title)}</strong>${section ? `<span>${escape(title)}</span>` : ''}`;
    const hash = anchor ? `#${encodeURIComponent(anchor)}` : '';
    return `<li><a href="${up}${page}${hash}">${name}<span>${snippet(text, asked)}</span></a></li>`;
  };

  const run = async () => {
    const asked = words(input.value);
    if (!asked.length || input.value.trim().length < 2) { list.innerHTML = status.textContent = ''; return; }
    const entries = await load();
    entries.forEach((entry) => { entry.lower ??= entry.map((o) => (typeof o === 'string' ? o.toLowerCase() : o)); });
    const found = entries.map((entry) => [score(entry, asked), entry]).filter(([points]) => points > 0);
    found.sort((a, b) => b[0] - a[0]);
    const best = found.slice(0, 12).map(([, entry]) => row(entry, asked));
    list.innerHTML = best.join('') || '<li>Nothing was found.</li>';
    status.textContent = found.length === 1 ? '1 place' : `${found.length} places`;
  };
  input.addEventListener('focus', () => { load(); if (input.value) run(); });
  input.addEventListener('input', run);

  const hide = () => { list.innerHTML = ''; };
  box.addEventListener('keydown', (event) => {
    const places = [input, ...list.querySelectorAll('a')];
    const at = places.indexOf(document.activeElement);
    if (event.key === 'Escape') { hide(); input.focus(); }
    else if (event.key === 'ArrowDown' && at < places.length - 1) { event.preventDefault(); places[at + 1].focus(); }
    else if (event.key === 'ArrowUp' && at > 0) { event.preventDefault(); places[at - 1].focus(); }
    else if (event.key === 'Enter' && at === 0 && places[1]) { event.preventDefault(); places[1].click(); }
  });
  document.addEventListener('click', (event) => { if (!box.contains(event.target)) hide(); });
  box.addEventListener('focusout', (event) => { if (event.relatedTarget && !box.contains(event.relatedTarget)) hide(); });
  document.addEventListener('keydown', (event) => {
    const writes = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (event.key === '/' && !writes && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); input.focus(); }
  });
})();
