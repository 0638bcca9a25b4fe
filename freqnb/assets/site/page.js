// What every page does: light or dark, the list of pages on a phone, copying and showing code, the place in the contents,
// scroll areas that the keyboard reaches, and definitions of terms.
(() => {
  'use strict';
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // ---- light or dark; the script in the head has set data-scheme before the page is drawn
  const keep = (scheme) => {
    try { localStorage.setItem('freqnb-scheme', scheme); } catch { /* private window: the choice lasts for this page */ }
  };
  const show = (scheme) => {
    root.dataset.scheme = scheme;
    root.classList.toggle('dark', scheme === 'dark');
    all('.scheme').forEach((button) => button.setAttribute('aria-pressed', String(scheme === 'dark')));
  };
  show(root.dataset.scheme);
  all('.scheme').forEach((button) => button.addEventListener('click', () => {
    const scheme = root.dataset.scheme === 'dark' ? 'light' : 'dark';
    keep(scheme);
    show(scheme);
  }));

  // ---- the list of pages on a narrow screen
  const pages = document.querySelector('.pages');
  const toggle = document.querySelector('.pages-toggle');
  toggle?.addEventListener('click', () => {
    const shown = pages.classList.toggle('shown');
    toggle.setAttribute('aria-expanded', String(shown));
  });
  if (pages) {
    const here = pages.querySelector('[aria-current]');
    if (here && here.offsetTop > pages.clientHeight) pages.scrollTop = here.offsetTop - pages.clientHeight / 2;
  }

  // ---- copy buttons
  all('.code-copy-button').forEach((button) => button.addEventListener('click', async () => {
    const code = button.parentElement.querySelector('pre code');
    try { await navigator.clipboard.writeText(code.innerText); } catch { return; }
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  }));

  // ---- all code of a page at once
  const folds = all('main details.code-fold');
  const ways = document.querySelector('p.open');
  if (folds.length && ways) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = 'Show all code';
    button.addEventListener('click', () => {
      const shown = folds.every((fold) => fold.open);
      folds.forEach((fold) => { fold.open = !shown; });
      button.textContent = shown ? 'Show all code' : 'Hide all code';
    });
    ways.append(button);
  }

  // ---- an answer that the reader is to guess is covered until then, or until it is asked for
  all('.freqnb-guess').forEach((box) => {
    const told = all('.in-short li').find((item) => item.dataset.key === box.dataset.key);
    if (!told || box.querySelector('input:checked')) return;
    const cover = document.createElement('li');
    const link = document.createElement('a');
    const button = document.createElement('button');
    box.id = 'guess';
    link.href = '#guess';
    link.textContent = box.querySelector('legend').textContent;
    button.type = 'button';
    button.textContent = 'Show the answer';
    cover.append('Guess first: ', link, ' ', button);
    const uncover = () => { cover.remove(); told.hidden = false; };
    button.addEventListener('click', uncover);
    box.addEventListener('change', uncover, { once: true });
    addEventListener('beforeprint', uncover);
    told.hidden = true;
    told.before(cover);
  });

  // ---- the contents show where the reader is
  const links = all('.contents a');
  const marks = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const mark = () => {
    const top = 100;
    let here = marks.findLastIndex((target) => target && target.getBoundingClientRect().top < top);
    here = Math.max(here, 0);
    links.forEach((link, i) => link.classList.toggle('here', i === here));
  };
  if (links.length) {
    document.addEventListener('scroll', mark, { passive: true });
    mark();
  }

  // ---- what scrolls sideways is reached by the keyboard
  const areas = 'main pre, main .scroll, main .cell-output-display, main .math.display, .pages, .contents';
  const reach = () => all(areas).forEach((area) => {
    const scrolls = area.scrollWidth > area.clientWidth + 1 || (area.scrollHeight > area.clientHeight + 1 && getComputedStyle(area).overflowY !== 'visible');
    if (scrolls && !area.hasAttribute('tabindex')) {
      area.tabIndex = 0;
      if (!area.hasAttribute('aria-label') && !/^(NAV|ASIDE)$/.test(area.tagName)) {
        area.setAttribute('role', 'group');
        area.setAttribute('aria-label', 'scrolls');
      }
    }
  });
  const later = () => requestAnimationFrame(reach);
  addEventListener('load', later);
  addEventListener('resize', later);
  document.addEventListener('toggle', later, true);
  window.MathJax?.Hub?.Queue?.(later);
  reach();

  // ---- the definition of a term, on hover and on focus; Escape puts it away
  let tip = null;
  let owner = null;
  let closing = 0;
  const close = () => {
    clearTimeout(closing);
    owner?.removeAttribute('aria-describedby');
    tip?.remove();
    tip = owner = null;
  };
  const closeSoon = () => { closing = setTimeout(close, 200); };
  const open = (term) => {
    if (owner === term) { clearTimeout(closing); return; }
    close();
    owner = term;
    tip = document.createElement('div');
    tip.id = 'tip';
    tip.setAttribute('role', 'tooltip');
    tip.textContent = term.dataset.means;
    tip.addEventListener('mouseenter', () => clearTimeout(closing));
    tip.addEventListener('mouseleave', closeSoon);
    document.body.append(tip);
    const box = term.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left), root.clientWidth - tip.offsetWidth - 8);
    const below = box.bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${scrollY + (below ? box.bottom + 6 : box.top - tip.offsetHeight - 6)}px`;
    term.setAttribute('aria-describedby', 'tip');
  };
  all('a.term').forEach((term) => {
    term.addEventListener('mouseenter', () => open(term));
    term.addEventListener('mouseleave', closeSoon);
    term.addEventListener('focus', () => open(term));
    term.addEventListener('blur', close);
  });
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') close(); });
})();
