// The scoreboard: filters that hide rows, headings that sort them. Without scripts the table stands as it is.
(() => {
  'use strict';
  const table = document.querySelector('#board');
  const filters = document.querySelector('.filters');
  if (!table || !filters) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const status = filters.querySelector('[role=status]');
  const fields = [...filters.querySelectorAll('select, input')];
  filters.hidden = false;

  // ---- filters; the address keeps them, so that a view can be sent to somebody
  const fits = (row, field) => {
    const wanted = field.value.trim().toLowerCase();
    if (!wanted) return true;
    if (field.name === 'words') return wanted.split(/\s+/).every((word) => row.textContent.toLowerCase().includes(word));
    return row.dataset[field.name].toLowerCase() === wanted;
  };
  const filter = () => {
    rows.forEach((row) => { row.hidden = !fields.every((field) => fits(row, field)); });
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = `${shown} of ${rows.length} claims`;
  };
  const remember = () => {
    const chosen = new URLSearchParams(fields.filter((o) => o.value).map((o) => [o.name, o.value]));
    try { history.replaceState(null, '', `${location.pathname}${chosen.size ? `?${chosen}` : ''}${location.hash}`); } catch { /* file:// in some browsers */ }
  };
  const asked = new URLSearchParams(location.search);
  fields.forEach((field) => {
    if (asked.has(field.name)) field.value = asked.get(field.name);
    field.addEventListener('input', () => { filter(); remember(); });
  });

  // ---- a claim is one of many rows in its cell: a browser that can scrolls to its words there, and marks them
  const quoted = (words) => encodeURIComponent(words).replaceAll('-', '%2D');
  if ('fragmentDirective' in document) {
    rows.forEach((row) => {
      const link = row.querySelector('.says a');
      const {paper, whose} = row.dataset;
      const words = `${link.textContent} (${whose === 'our control' ? whose : paper}`; // as the table has it, and code has not
      link.addEventListener('click', () => { link.hash = `:~:text=${quoted(words)}`; });
    });
  }

  // ---- sorting
  const keyOf = (row, name) => {
    const value = row.dataset[name];
    return value !== '' && Number.isFinite(Number(value)) ? Number(value) : value;
  };
  const compare = (a, b) => (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b)));
  table.querySelectorAll('th[data-key]').forEach((head) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      table.querySelectorAll('th').forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const sorted = [...rows].sort((a, b) => compare(keyOf(a, head.dataset.key), keyOf(b, head.dataset.key)));
      body.append(...(down ? sorted.reverse() : sorted));
    });
  });
  filter();
})();
