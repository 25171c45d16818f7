// The page of the fleet. It asks the API of the sensor that served it, and nobody else.
//
// Everything foreign (names, versions, facts, messages) reaches the document as text nodes or as attributes that
// are plain text, through `el` alone; nothing is ever parsed as HTML. Lists may have tens of thousands of rows, of
// which the document holds those that are visible: `Table`.
'use strict';

/* -- text -- */

// Characters that do something else than being seen are written as escapes, as the commands do it.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

function visible(text) {
  return String(text).replace(HIDDEN, (c) => {
    const hex = c.charCodeAt(0).toString(16);
    return c === '\n' ? '\\n' : c < ' ' ? '\\x' + hex.padStart(2, '0') : '\\u' + hex.padStart(4, '0');
  });
}

// An element with attributes and children; text becomes text nodes. The one door into the document.
function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child != null && child !== '') element.append(child instanceof Node ? child : visible(child));
  }
  return element;
}

// Foreign text in a box of its own direction.
const own = (text) => el('bdi', null, text);

const count = (number, one, many = one + 's') => `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
const or = (text) => (text == null || text === '' ? '-' : text);

const two = (number) => String(number).padStart(2, '0');
const clock = (at) => [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':');
const day = (at) => [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join('-');

// A time of the API in the time zone of the reader.
function local(text) {
  const at = new Date(text ?? '');
  return Number.isNaN(at.getTime()) ? or(text) : `${day(at)} ${clock(at)}`;
}

const time = (text) => el('time', { datetime: text, title: text }, local(text));

function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const duration = (seconds) => (seconds < 1 ? `${Math.round(1000 * seconds)} ms` : seconds < 10 ? `${seconds.toFixed(1)} s` : span(seconds));

const byText = new Intl.Collator('en', { numeric: true }).compare;

/* -- the API -- */

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value != null && value !== '' && value !== false);
  return given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
}

const address = (path, parameters = {}) => [path, query(parameters)].filter(Boolean).join('?');

async function ask(path, parameters, signal) {
  const response = await fetch(address(path, parameters), { signal, cache: 'no-store' });
  if (response.status === 401) {
    showLogin();
    throw new DOMException('not logged in', 'AbortError');
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok || answer === null) {
    throw new Error(answer?.error ?? `The sensor answered ${response.status} ${response.statusText}`);
  }
  return answer;
}

/* -- tables -- */

const EXTRA = 8; // rows before and behind those that are visible
const MOST_ROWS = 150;

// A table of which only the visible rows are in the document; every row says by aria-rowindex which one it is.
// Columns: {title, text(row), node(row), value(row) to sort by, size}.
class Table {
  constructor(label, columns, { key, sort = 0, down = false, short = false, empty = 'Nothing to show.' }) {
    Object.assign(this, { columns, key, sort, down, empty, all: [], rows: [], drawn: new Map(), height: 32, active: null });
    this.heads = columns.map((column, n) => {
      const head = el('th', { scope: 'col', class: column.size }, el('button', { type: 'button' }, column.title));
      head.firstChild.addEventListener('click', () => this.sortBy(n, this.sort === n && !this.down));
      return head;
    });
    const spacer = () => el('tr', { class: 'spacer', 'aria-hidden': 'true' }, el('td'));
    [this.before, this.after] = [spacer(), spacer()];
    this.body = el('tbody', null, this.before, this.after);
    this.table = el('table', { 'aria-label': label }, el('thead', null, el('tr', { 'aria-rowindex': 1 }, this.heads)), this.body);
    this.none = el('p', { class: 'faint', hidden: true }, empty);
    this.scroll = el('div', { class: short ? 'scroll short' : 'scroll', tabindex: 0, role: 'group', 'aria-label': `${label}, scrollable` }, this.table);
    this.element = el('div', null, this.scroll, this.none);
    this.scroll.addEventListener('scroll', () => this.draw(), { passive: true });
    this.scroll.addEventListener('keydown', (event) => this.move(event));
    this.scroll.addEventListener('focusin', (event) => {
      const row = event.target.closest('tbody tr');
      if (row) this.active = this.key(this.rows[row.ariaRowIndex - 2]);
    });
    new ResizeObserver(() => this.measure()).observe(this.scroll);
  }

  show(rows) {
    this.all = rows;
    this.order();
  }

  sortBy(n, down) {
    [this.sort, this.down] = [n, down];
    this.scroll.scrollTop = 0;
    this.order();
  }

  order() {
    const column = this.columns[this.sort];
    const value = column.value ?? column.text;
    const keyed = this.all.map((row) => [value(row), row]);
    const compare = typeof keyed[0]?.[0] === 'number' ? (a, b) => a - b : byText;
    keyed.sort(([a], [b]) => compare(a, b));
    this.rows = keyed.map(([, row]) => row);
    if (this.down) this.rows.reverse();
    this.heads.forEach((head, n) => {
      if (n === this.sort) head.setAttribute('aria-sort', this.down ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    });
    this.table.setAttribute('aria-rowcount', this.rows.length + 1);
    this.none.hidden = this.rows.length > 0;
    this.scroll.hidden = this.rows.length === 0;
    const hadFocus = this.body.contains(document.activeElement);
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
    this.draw();
    this.measure();
    if (hadFocus) this.focus(Math.max(0, this.rows.findIndex((row) => this.key(row) === this.active)));
  }

  // The rows that are drawn, from the first to behind the last.
  window() {
    const first = Math.max(0, Math.min(Math.floor(this.scroll.scrollTop / this.height), this.rows.length) - EXTRA);
    const fits = Math.ceil(this.scroll.clientHeight / this.height) + 2 * EXTRA;
    return [first, Math.min(this.rows.length, first + Math.min(fits, MOST_ROWS))];
  }

  draw() {
    const size = (spacer, rows) => { spacer.firstChild.style.height = `${rows * this.height}px`; };
    // The box has its height from what is in it.
    if (this.drawn.size === 0) size(this.after, this.rows.length);
    const [first, end] = this.window();
    // Before anything changes its size: a focus that moves makes the browser lay out half of the rows.
    const focused = document.activeElement.closest('tbody tr');
    if (this.body.contains(focused) && (focused.ariaRowIndex - 2 < first || focused.ariaRowIndex - 2 >= end)) this.scroll.focus({ preventScroll: true });
    size(this.before, first);
    size(this.after, this.rows.length - end);
    for (const [n, row] of this.drawn) {
      if (n >= first && n < end) continue;
      row.remove();
      this.drawn.delete(n);
    }
    let next = this.after;
    for (let n = end - 1; n >= first; n -= 1) {
      let row = this.drawn.get(n);
      if (!row) {
        row = this.row(n);
        this.body.insertBefore(row, next);
        this.drawn.set(n, row);
      }
      next = row;
    }
    this.stop(first);
  }

  // Rows have one height, which follows the size of the reader's text.
  measure() {
    const row = this.drawn.values().next().value;
    const height = row?.getBoundingClientRect().height;
    if (height > 0) this.height = height;
    this.draw();
  }

  row(n) {
    const row = this.rows[n];
    const cells = this.columns.map((column) => {
      const text = column.text(row);
      return el('td', { class: column.size, title: visible(text) }, column.node ? column.node(row) : own(text));
    });
    return el('tr', { 'aria-rowindex': n + 2 }, cells);
  }

  // One row is a stop of the Tab key, arrow keys move from there: thousands of stops would be a trap.
  stop(first) {
    const rows = [...this.drawn];
    const active = rows.find(([n]) => this.key(this.rows[n]) === this.active);
    const visibleFrom = Math.floor(this.scroll.scrollTop / this.height);
    const at = active?.[0] ?? Math.max(first, visibleFrom);
    for (const [n, row] of rows) {
      for (const link of row.querySelectorAll('a')) link.tabIndex = n === at ? 0 : -1;
    }
  }

  focus(n) {
    const top = n * this.height;
    const head = this.table.tHead.offsetHeight;
    const { scrollTop, clientHeight } = this.scroll;
    if (top < scrollTop) this.scroll.scrollTop = top;
    else if (top + this.height + head > scrollTop + clientHeight) this.scroll.scrollTop = top + this.height + head - clientHeight;
    if (this.rows[n]) this.active = this.key(this.rows[n]);
    this.draw();
    this.drawn.get(n)?.querySelector('a')?.focus({ preventScroll: true });
  }

  move(event) {
    const row = event.target.closest('tbody tr');
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / this.height) - 2);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.focus(Math.min(Math.max(row.ariaRowIndex - 2 + step, 0), this.rows.length - 1));
  }

  csv() {
    const lines = [this.columns.map((column) => column.title), ...this.rows.map((row) => this.columns.map((column) => column.text(row)))];
    return lines.map((cells) => cells.map(cell).join(',') + '\r\n').join('');
  }
}

// As RFC 4180 has it; what a spreadsheet would take for a formula begins with an apostrophe.
function cell(value) {
  const text = String(value ?? '');
  const safe = /^[=+\-@\t\r]./s.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function download(table, name) {
  const button = el('button', { type: 'button' }, 'Download CSV');
  button.addEventListener('click', () => {
    const url = URL.createObjectURL(new Blob([table.csv()], { type: 'text/csv' }));
    el('a', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  return button;
}

/* -- parts of views -- */

// A line of a change; no line ends within its arrow.
const changeText = (line) => el('bdi', null, line.split('->').map((part, n) => [n > 0 ? el('span', { class: 'arrow' }, '->') : null, part]));

const link = (path, parameters) => '#' + address(path, parameters);
const guestLink = (vm) => el('a', { href: link(`/guest/${encodeURIComponent(vm)}`) }, own(vm));
const field = (label, input, wide) => el('label', { class: wide ? 'wide' : null }, label, input);
const state = (guest) => el('span', { class: `state ${visible(guest.state ?? '')}` }, or(guest.state));

function choice(options, chosen) {
  return el('select', null, options.map(([value, title]) => el('option', { value, selected: value === chosen }, title)));
}

function heading(text) {
  document.title = `${visible(text)} - afferent fleet`;
  return el('h1', { tabindex: -1 }, own(text));
}

// What a change set did, one line a package, the way the commands word it.
function changeLines(change, withArch) {
  if (change.baseline != null) return [`first report, ${count(change.baseline, 'package')}`];
  const name = (p) => (withArch && p.arch ? `${p.name}.${p.arch}` : p.name);
  const pair = (p) => (p.from === p.to ? p.from : `${p.from} -> ${p.to}`);
  const other = (p) => (p.differs?.length ? `: other ${p.differs.join(', ')}` : '');
  return [
    ...(change.upgraded ?? []).map((p) => `${name(p)} ${pair(p)}`),
    ...(change.downgraded ?? []).map((p) => `${name(p)} ${pair(p)}, downgraded`),
    ...(change.changed ?? []).map((p) => `${name(p)} ${pair(p)}${other(p)}`),
    ...(change.added ?? []).map((p) => `${name(p)} ${p.version} added`),
    ...(change.removed ?? []).map((p) => `${name(p)} ${p.version} removed`),
  ];
}

/* -- guests, which several views show -- */

const fleet = { guests: [], notStored: 0, at: 0 };

async function loadGuests(signal, onPage = () => {}) {
  const guests = [];
  let cursor = null;
  do {
    // A short page first: it fills the screen.
    const page = await ask('/v1/guests', { cursor, limit: cursor ? 10000 : 200 }, signal);
    for (const guest of page.guests) guests.push(guest);
    fleet.notStored = page.not_stored ?? 0;
    cursor = page.next;
    if (guests.length === page.guests.length) onPage(guests);
  } while (cursor);
  [fleet.guests, fleet.at] = [guests, Date.now()];
  return guests;
}

// Shows what is known at once, and asks again if that is older than a minute, or nothing.
async function withGuests(signal, show) {
  if (fleet.at) show(fleet.guests);
  if (Date.now() - fleet.at > 60000) {
    const isFirst = !fleet.at;
    show(await loadGuests(signal, (guests) => isFirst && show(guests)));
  }
}

const STATES = ['waiting', 'polled', 'failing', 'silent', 'new', 'idle'];

async function guestsView(main, parameters, signal) {
  const search = el('input', { type: 'search', value: parameters.get('q') ?? '', autocomplete: 'off' });
  const only = choice([['', 'all'], ...STATES.map((name) => [name, name])], parameters.get('state') ?? '');
  const status = el('p', { role: 'status', class: 'faint' });
  const table = new Table('Guests', [
    { title: 'Guest', text: (g) => g.vm, node: (g) => guestLink(g.vm) },
    { title: 'OS', text: (g) => or(g.os), size: 'w2' },
    { title: 'State', text: (g) => or(g.state), node: state, size: 'w15' },
    { title: 'Packages', text: (g) => String(g.packages), value: (g) => g.packages, size: 'w15 number minor' },
    { title: 'Last change', text: (g) => local(g.changed_at), value: (g) => g.changed_at, size: 'w3 minor' },
    { title: 'Agent', text: (g) => or(g.agent), size: 'w1 minor' },
    { title: 'Reboot', text: (g) => or(g.reboot_needed), size: 'w2 minor' },
  ], { key: (g) => g.vm, empty: 'No guest matches.' });
  const tools = el('form', { role: 'search', 'aria-label': 'Filter guests' }, field('Name or OS', search, true), field('State', only), download(table, 'guests.csv'));
  main.append(heading('Guests'), tools, status, table.element);
  const show = (guests) => {
    const wanted = search.value.trim().toLowerCase();
    const rows = guests.filter((g) => (!only.value || g.state === only.value)
      && (!wanted || `${g.vm}\n${g.os}\n${g.os_name}`.toLowerCase().includes(wanted)));
    table.show(rows);
    const missing = fleet.notStored ? `; no report is stored yet of ${count(fleet.notStored, 'guest')}` : '';
    status.textContent = `${rows.length === guests.length ? '' : `${rows.length.toLocaleString('en')} of `}${count(guests.length, 'guest')}${missing}`;
  };
  const filter = () => {
    history.replaceState(null, '', link('/', { q: search.value, state: only.value }));
    show(fleet.guests);
  };
  search.addEventListener('input', filter);
  only.addEventListener('input', filter);
  tools.addEventListener('submit', (event) => event.preventDefault());
  let later = null;
  onChange = (change) => {
    const guest = fleet.guests.find((g) => g.vm === change.vm);
    if (!guest) return;
    [guest.changed_at, guest.seen_at] = [change.at, change.at];
    later ??= setTimeout(() => {
      later = null;
      if (!signal.aborted) show(fleet.guests);
    }, 1000);
  };
  await withGuests(signal, show);
}

const OPERATORS = { '<': 'lt', '<=': 'le', '=': 'eq', '>=': 'ge', '>': 'gt', '!=': 'ne' };

// `NAME [OP [EPOCH:]VERSION[-RELEASE]]` as parameters of the API, which checks the version.
function readFilter(text) {
  const parts = /^\s*([^\s<>=!]+)\s*(?:(<=|>=|!=|<|>|=)\s*(\S+)\s*)?$/.exec(text);
  if (!parts) throw new Error('This is not NAME [OP [EPOCH:]VERSION[-RELEASE]], with OP one of < <= = >= > !=');
  return { name: parts[1], op: OPERATORS[parts[2]], version: parts[3] };
}

async function findView(main, parameters, signal) {
  const given = (name) => parameters.get(name) ?? '';
  const text = el('input', { type: 'search', value: given('q'), placeholder: 'openssl < 1:3.0.7-28.el9_4', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' });
  const arch = el('input', { value: given('arch'), placeholder: 'any', size: 8, autocomplete: 'off', autocapitalize: 'off' });
  const os = el('input', { value: given('os'), placeholder: 'any, or rhel-9', size: 12, autocomplete: 'off', autocapitalize: 'off' });
  const not = el('input', { type: 'checkbox', checked: parameters.has('not') });
  const form = el('form', { role: 'search', 'aria-label': 'Find packages' }, field('Package, or package and version', text, true), field('Architecture', arch), field('OS', os),
    el('label', { class: 'tick' }, not, 'guests without it'), el('button', { class: 'main' }, 'Find'));
  const result = el('div');
  main.append(heading('Find'), form, result);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const to = link('/find', { q: text.value.trim(), arch: arch.value.trim(), os: os.value.trim(), not: not.checked && '1' });
    if (to === location.hash) route();
    else location.hash = to;
  });
  if (!given('q')) {
    result.append(el('p', { class: 'faint' }, 'A package name finds the guests that have it. With < <= = >= > or != and a version, as in "openssl < 1:3.0.7-28.el9_4", versions are compared the way rpm does: a missing epoch is 0, a missing release matches any.'));
    return;
  }
  const asked = { ...readFilter(given('q')), arch: given('arch'), os: given('os'), not: parameters.has('not') && 'true' };
  const status = el('p', { role: 'status' }, 'Searching...');
  result.append(status);
  const answer = await ask('/v1/packages', asked, signal);
  for (let { next } = answer; next;) {
    const page = await ask('/v1/packages', { ...asked, cursor: next }, signal);
    for (const guest of page.guests) answer.guests.push(guest);
    next = page.next;
  }
  const installed = (g) => or(g.packages.map((p) => (p.arch ? `${p.version}.${p.arch}` : p.version)).join(' '));
  const table = new Table('Guests found', [
    { title: 'Guest', text: (g) => g.vm, node: (g) => guestLink(g.vm) },
    { title: 'OS', text: (g) => or(g.os), size: 'w2' },
    { title: 'Installed', text: installed },
  ], { key: (g) => g.vm, empty: 'No guest.' });
  const missing = answer.not_stored ? `; no report is stored yet of ${count(answer.not_stored, 'guest')}` : '';
  status.textContent = visible(`${given('q')}: ${answer.guests.length.toLocaleString('en')} of ${count(answer.looked_at, 'guest')}${asked.not ? ' without it' : ''}${missing}`);
  result.append(el('div', { class: 'tools' }, download(table, 'found.csv'), el('a', { href: link('/packages', { name: asked.name }) }, 'All versions of this package')), table.element);
  table.show(answer.guests);
}

async function packagesView(main, parameters, signal) {
  const name = parameters.get('name') ?? '';
  const text = el('input', { type: 'search', value: name, placeholder: 'openssl', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' });
  const form = el('form', { role: 'search', 'aria-label': 'Versions of a package' }, field('Package', text, true), el('button', { class: 'main' }, 'Show versions'));
  const result = el('div');
  main.append(heading('Packages'), form, result);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    location.hash = link('/packages', { name: text.value.trim() });
  });
  if (!name) {
    result.append(el('p', { class: 'faint' }, 'How many versions of a package there are in the fleet, and how many guests have each.'));
    return;
  }
  const status = el('p', { role: 'status' }, 'Searching...');
  result.append(status);
  const { versions } = await ask('/v1/versions', { name }, signal);
  const total = versions.reduce((sum, v) => sum + v.guests, 0);
  const rank = new Map(versions.map((v, n) => [v, n]));
  const table = new Table('Versions', [
    { title: 'Version', text: (v) => v.version, value: (v) => rank.get(v), node: (v) => el('a', { href: link('/find', { q: `${name} = ${v.version}`, arch: v.arch }) }, own(v.version)) },
    { title: 'Architecture', text: (v) => or(v.arch), size: 'w2 minor' },
    { title: 'Guests', text: (v) => String(v.guests), value: (v) => v.guests, size: 'w1 number' },
    { title: 'Share', text: (v) => `${((100 * v.guests) / total).toFixed(1)} %`, value: (v) => v.guests, node: (v) => share(v.guests / total), size: 'w2' },
  ], { key: (v) => `${v.version} ${v.arch}`, empty: 'No guest has this package.' });
  status.textContent = visible(`${name}: ${count(new Set(versions.map((v) => v.version)).size, 'version')}, the newest first`);
  result.append(el('div', { class: 'tools' }, download(table, 'versions.csv')), table.element);
  table.show(versions);
}

function share(part) {
  const text = `${(100 * part).toFixed(1)} %`;
  return svg('svg', { class: 'track', viewBox: '0 0 100 10', preserveAspectRatio: 'none', role: 'img', 'aria-label': text }, svg('rect', { width: 100 * part, height: 10 }));
}

async function kernelsView(main, parameters, signal) {
  const isOld = (g) => g.kernel_running && g.kernel_installed && g.kernel_running !== g.kernel_installed;
  const needsReboot = (g) => g.reboot_needed && g.reboot_needed !== 'no';
  const only = choice([['old', 'not running their newest kernel'], ['reboot', 'that need a reboot'], ['all', 'all']], parameters.get('show') ?? 'old');
  const status = el('p', { role: 'status', class: 'faint' });
  const table = new Table('Kernels', [
    { title: 'Guest', text: (g) => g.vm, node: (g) => guestLink(g.vm) },
    { title: 'OS', text: (g) => or(g.os), size: 'w2 minor' },
    { title: 'Running', text: (g) => or(g.kernel_running) },
    { title: 'Newest installed', text: (g) => or(g.kernel_installed) },
    { title: 'Reboot', text: (g) => or(g.reboot_needed), size: 'w2 minor' },
  ], { key: (g) => g.vm, empty: 'No such guest.' });
  main.append(heading('Kernels'), el('div', { class: 'tools' }, field('Guests', only), download(table, 'kernels.csv')), status, table.element);
  const show = (guests) => {
    const is = { old: isOld, reboot: needsReboot, all: () => true }[only.value] ?? isOld;
    table.show(guests.filter(is));
    const silent = guests.filter((g) => !g.kernel_running).length;
    const parts = [`${guests.filter(isOld).length.toLocaleString('en')} of ${count(guests.length, 'guest')} do not run their newest kernel`,
      `${guests.filter(needsReboot).length.toLocaleString('en')} need a reboot`];
    if (silent) parts.push(`the agents of ${silent.toLocaleString('en')} do not tell which kernel runs`);
    status.textContent = parts.join('; ');
  };
  only.addEventListener('input', () => {
    history.replaceState(null, '', link('/kernels', { show: only.value }));
    show(fleet.guests);
  });
  await withGuests(signal, show);
}

async function guestView(main, parameters, signal, vm) {
  const at = parameters.get('at');
  const self = link(`/guest/${encodeURIComponent(vm)}`);
  main.append(heading(vm));
  const guest = await ask(`/v1/guests/${encodeURIComponent(vm)}`, { at }, signal);
  const list = (pairs) => el('dl', null, pairs.map(([name, value]) => [el('dt', null, own(name)), el('dd', null, value instanceof Node ? value : own(or(value)))]));
  const isOld = guest.kernel_running && guest.kernel_installed && guest.kernel_running !== guest.kernel_installed;
  main.append(list([
    ['OS', `${or(guest.os_name)} (${or(guest.os)})`],
    ['State', state(guest)],
    ['Last change', time(guest.changed_at)],
    ['Last seen', time(guest.seen_at)],
    ['Agent', guest.agent],
    ['Running kernel', isOld ? el('span', { class: 'warn' }, `${guest.kernel_running}; newer installed: ${guest.kernel_installed}`) : guest.kernel_running],
    ['Reboot needed', guest.reboot_needed],
    ['Report', guest.report],
  ]));
  const facts = Object.entries(guest.facts ?? {});
  main.append(el('details', null, el('summary', null, count(facts.length, 'fact')), list(facts)));

  const search = el('input', { type: 'search', autocomplete: 'off', autocapitalize: 'off' });
  const status = el('p', { role: 'status', class: 'faint' });
  const table = new Table('Packages', [
    { title: 'Package', text: (p) => p.name, node: (p) => el('a', { href: link('/packages', { name: p.name }) }, own(p.name)) },
    { title: 'Version', text: (p) => p.version },
    { title: 'Architecture', text: (p) => or(p.arch), size: 'w2 minor' },
    { title: 'Repository', text: (p) => or(p.repo), size: 'w2 minor' },
    { title: 'Module', text: (p) => or(p.module), size: 'w2 minor' },
  ], { key: (p) => `${p.name} ${p.version} ${p.arch}`, short: true, empty: 'No package matches.' });
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    const rows = guest.installed.filter((p) => !wanted || `${p.name}\n${p.version}`.toLowerCase().includes(wanted));
    table.show(rows);
    status.textContent = `${rows.length === guest.installed.length ? '' : `${rows.length} of `}${count(guest.installed.length, 'package')}`;
  };
  search.addEventListener('input', filter);
  const then = guest.at ? el('p', null, 'As they were at ', time(guest.at), '. ', el('a', { href: self }, 'Show them as they are now')) : null;
  main.append(...[el('h2', null, 'Packages'), then, el('div', { class: 'tools' }, field('Filter packages', search, true), download(table, `${vm}.csv`)), status, table.element].filter(Boolean));
  filter();

  const row = (change) => {
    const lines = changeLines(change, true);
    const shown = lines.slice(0, 50).map((line) => el('li', null, changeText(line)));
    if (lines.length > 50) shown.push(el('li', { class: 'faint' }, `and ${lines.length - 50} more`));
    return el('li', null, el('a', { href: self + '?' + query({ at: change.at }), title: 'Packages after this change' }, time(change.at)),
      ` ${change.trigger ?? ''}`, el('ul', null, shown));
  };
  main.append(el('h2', { id: 'history' }, 'History'), el('ol', { class: 'history', 'aria-labelledby': 'history' }, guest.history.map(row)));
  if (guest.more_history) main.append(el('p', { class: 'faint' }, `There is more: afferent fleet changes --vm ${vm}`));
}

/* -- header -- */

const summaryBox = document.getElementById('summary');

function tile(title, much, more) {
  return el('div', { class: 'tile' }, el('h2', null, title), el('p', { class: 'much' }, much), el('p', { class: 'faint more' }, more));
}

// Two lines over the last hour, in one scale: percentiles of the minutes in which reports were delivered.
function chart(minutes, from, to) {
  const most = Math.max(...minutes.map((minute) => minute.p99_s));
  const x = (minute) => Math.max(0, 100 * ((Date.parse(minute.at) - from) / (to - from)));
  const line = (name) => {
    const points = minutes.map((minute) => `${x(minute).toFixed(1)},${(29 - (28 * minute[`${name}_s`]) / most).toFixed(1)}`);
    // A line of one point would not be seen.
    if (points.length === 1) points.push(`100,${points[0].split(',')[1]}`);
    return svg('polyline', { class: name, points: points.join(' ') });
  };
  return svg('svg', { viewBox: '0 0 100 30', preserveAspectRatio: 'none', role: 'img', 'aria-label': `Latency by minute over the last hour, at most ${duration(most)}` }, line('p99'), line('p50'));
}

function latencyTile({ p50_s: p50, p99_s: p99, minutes }, now) {
  if (!minutes.length) return tile('Latency, last hour', '-', 'no change was delivered');
  const both = [el('b', { class: 'p50' }, `p50 ${duration(p50)}`), ', ', el('b', { class: 'p99' }, `p99 ${duration(p99)}`)];
  return tile('Latency, last hour', both, chart(minutes, now - 3600000, now));
}

function newestText(change) {
  const [line, ...others] = changeLines(change, false);
  return [guestLink(change.vm), ' ', changeText(line ?? ''), others.length ? `, and ${others.length} more` : null];
}

async function loadSummary() {
  const s = await ask('/v1/summary');
  const now = Date.parse(s.now);
  const since = (text) => `${span(Math.max(0, (now - Date.parse(text)) / 1000))} ago`;
  const guests = Object.entries(s.guests).filter(([, number]) => number > 0);
  const total = guests.reduce((sum, [, number]) => sum + number, 0);
  const states = guests.map(([name, number]) => [el('a', { class: `state ${name}`, href: link('/', { state: name }) }, `${number.toLocaleString('en')} ${name}`), ' ']);
  const { newest_change: newest, oldest_unreachable: oldest, pending } = s;
  const waiting = pending.reactive + pending.routine;
  const urgent = waiting ? `${pending.reactive.toLocaleString('en')} of changes, the oldest for ${span(pending.oldest_s)}` : 'everything is delivered';
  const dead = pending.dead ? el('span', { class: 'bad' }, `; ${count(pending.dead, 'dead letter')}`) : null;
  const tiles = [
    tile('Guests', total.toLocaleString('en'), states),
    newest ? tile('Newest change', since(newest.at), newestText(newest)) : tile('Newest change', '-', 'none is recorded'),
    oldest ? tile('Longest unreachable', guestLink(oldest.vm), `${oldest.state}, ${oldest.reported_at ? `last report ${since(oldest.reported_at)}` : 'never reported'}`) : tile('Unreachable', '0', 'every guest answers'),
    tile('Delivery', el('span', { class: s.state === 'ok' ? 'good' : 'bad' }, s.state), own(s.deliver)),
    tile('Reports pending', waiting.toLocaleString('en'), [urgent, dead]),
    s.latency ? latencyTile(s.latency, now) : null,
  ];
  const reasons = s.reasons.map((reason) => el('li', null, own(reason)));
  summaryBox.replaceChildren(el('div', { class: 'tiles' }, tiles), el('ul', { class: 'reasons', hidden: reasons.length === 0 }, reasons));
  summaryBox.hidden = false;
}

/* -- live changes -- */

const live = {
  box: document.getElementById('live'),
  feed: document.getElementById('feed'),
  state: document.getElementById('live-state'),
  pause: document.getElementById('live-pause'),
  isPaused: false,
  waiting: [],
  newest: -1,
  source: null,
};
const FEED_LINES = 200;
const LINES_OF_CHANGE = 20;
let onChange = () => {};

function feedLines(change) {
  const at = new Date(change.at);
  const lines = changeLines(change, false);
  const shown = lines.slice(0, LINES_OF_CHANGE).map((line) => el('p', null, el('time', { datetime: change.at, title: local(change.at) }, clock(at)), ' ', guestLink(change.vm), ' ', changeText(line), ` (${change.trigger})`));
  if (lines.length > LINES_OF_CHANGE) shown.push(el('p', null, guestLink(change.vm), ` and ${count(lines.length - LINES_OF_CHANGE, 'more package')}`));
  return shown;
}

// The newest is on top.
function put(changes) {
  for (const change of changes) {
    if (change.number <= live.newest) continue;
    live.newest = change.number;
    live.feed.prepend(...feedLines(change));
  }
  while (live.feed.childElementCount > FEED_LINES) live.feed.lastElementChild.remove();
}

function arrived(event) {
  const change = JSON.parse(event.data);
  if (live.isPaused) {
    live.waiting.push(change);
    live.waiting = live.waiting.slice(-FEED_LINES);
    live.pause.textContent = `Continue (${live.waiting.length})`;
  } else {
    put([change]);
  }
  onChange(change);
}

function listen() {
  live.source?.close();
  const source = new EventSource(address('/v1/changes/stream', { cursor: live.newest >= 0 ? live.newest : null }));
  live.source = source;
  source.addEventListener('open', () => { live.state.textContent = 'connected'; });
  source.addEventListener('message', arrived);
  source.addEventListener('change', arrived);
  source.addEventListener('error', () => {
    live.state.textContent = 'reconnecting...';
    // The browser tries again by itself unless it was answered with an error; `ask` finds out about the login.
    if (source.readyState === EventSource.CLOSED && live.source === source) setTimeout(() => startLive().catch(() => {}), 3000);
  });
}

async function startLive() {
  live.box.hidden = false;
  live.feed.setAttribute('aria-busy', 'true');
  try {
    let cursor = live.newest >= 0 ? live.newest : null;
    let page;
    const since = cursor === null ? '1h' : null;
    let changes = [];
    do {
      page = await ask('/v1/changes', { since: cursor === null ? since : null, cursor, limit: 1000 });
      changes = changes.concat(page.changes).slice(-FEED_LINES);
      cursor = page.next;
    } while (page.more);
    put(changes);
    if (cursor != null) live.newest = Math.max(live.newest, cursor);
    listen();
  } catch (error) {
    if (error.name !== 'AbortError') {
      live.state.textContent = 'not connected';
      setTimeout(() => startLive().catch(() => {}), 3000);
    }
  } finally {
    live.feed.removeAttribute('aria-busy');
  }
}

live.pause.addEventListener('click', () => {
  live.isPaused = !live.isPaused;
  live.pause.setAttribute('aria-pressed', String(live.isPaused));
  live.pause.textContent = live.isPaused ? 'Continue' : 'Pause';
  if (!live.isPaused) put(live.waiting.splice(0));
});

/* -- which view -- */

const VIEWS = { '': guestsView, find: findView, packages: packagesView, kernels: kernelsView, guest: guestView };
const main = document.getElementById('main');
let running = new AbortController();
let isFirstView = true;

async function route() {
  const [path, search] = location.hash.slice(1).split('?', 2);
  const [, name = '', part = ''] = path.split('/');
  running.abort();
  running = new AbortController();
  const { signal } = running;
  onChange = () => {};
  for (const item of document.querySelectorAll('nav a')) {
    if (item.dataset.view === (name || 'guests')) item.setAttribute('aria-current', 'page');
    else item.removeAttribute('aria-current');
  }
  main.replaceChildren();
  const view = VIEWS[name] ?? guestsView;
  const shown = (async () => view(main, new URLSearchParams(search ?? ''), signal, decodeURIComponent(part)))();
  // The reader is taken to the view that was asked for, but not away from the address bar at the start.
  if (!isFirstView) main.querySelector('h1')?.focus();
  isFirstView = false;
  try {
    await shown;
  } catch (error) {
    if (!signal.aborted && error.name !== 'AbortError') {
      main.querySelectorAll('[role="status"]').forEach((status) => status.remove());
      main.append(el('p', { role: 'alert' }, error.message));
    }
  }
}

function showLogin() {
  running.abort();
  clearInterval(timer);
  live.source?.close();
  live.box.hidden = true;
  summaryBox.hidden = true;
  document.querySelector('nav').hidden = true;
  const again = el('button', { type: 'button', class: 'main' }, 'Try again');
  again.addEventListener('click', () => location.reload());
  main.replaceChildren(heading('Log in'),
    el('p', null, 'You are not logged in, or your session has ended.'),
    el('p', null, 'Run ', el('code', null, 'afferent fleet login'), ' on the host of the sensor, as root or as the user of the service, and open the address that it prints in this browser. The address works once, for five minutes; the session lasts twelve hours, or until the sensor is restarted.'),
    again);
}

document.getElementById('skip').addEventListener('click', (event) => {
  // The part behind # names the view.
  event.preventDefault();
  main.focus();
});
const refresh = () => loadSummary().catch(() => {});
const timer = setInterval(() => { if (!document.hidden) refresh(); }, 10000);
addEventListener('hashchange', route);
route();
refresh();
startLive();
