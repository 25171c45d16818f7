// What the pages of afferent share: text, the API, tables, the parts and the choice of views. A page's own script
// follows it and calls `start`.
//
// Everything foreign (names, versions, facts, messages) reaches the document as text nodes or as attributes that
// are plain text, through `el` alone; nothing is ever parsed as HTML. Lists may have tens of thousands of rows, of
// which the document holds those that are visible: `Table`.
'use strict';

// `afferent fleet` or `afferent mirror`, and the service that answers.
const TITLE = document.title;
const SERVICE = document.documentElement.dataset.service;

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
    throw new Error(answer?.error ?? `The ${SERVICE} answered ${response.status} ${response.statusText}`);
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

const link = (path, parameters) => '#' + address(path, parameters);
const field = (label, input, wide) => el('label', { class: wide ? 'wide' : null }, label, input);

function choice(options, chosen) {
  return el('select', null, options.map(([value, title]) => el('option', { value, selected: value === chosen }, title)));
}

function heading(text) {
  document.title = `${visible(text)} - ${TITLE}`;
  return el('h1', { tabindex: -1 }, own(text));
}

const summaryBox = document.getElementById('summary');

function tile(title, much, more) {
  return el('div', { class: 'tile' }, el('h2', null, title), el('p', { class: 'much' }, much), el('p', { class: 'faint more' }, more));
}

/* -- which view -- */

const main = document.getElementById('main');
const page = { views: {}, home: '', loadSummary: async () => {}, onRoute: () => {}, onLogin: () => {} };
let running = new AbortController();
let isFirstView = true;
let timer = null;

async function route() {
  const [path, search] = location.hash.slice(1).split('?', 2);
  const [, name = '', part = ''] = path.split('/');
  running.abort();
  running = new AbortController();
  const { signal } = running;
  page.onRoute();
  for (const item of document.querySelectorAll('nav a')) {
    if (item.dataset.view === (name || page.home)) item.setAttribute('aria-current', 'page');
    else item.removeAttribute('aria-current');
  }
  main.replaceChildren();
  const view = page.views[name] ?? page.views[''];
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
  page.onLogin();
  summaryBox.hidden = true;
  document.querySelector('nav').hidden = true;
  const again = el('button', { type: 'button', class: 'main' }, 'Try again');
  again.addEventListener('click', () => location.reload());
  main.replaceChildren(heading('Log in'),
    el('p', null, 'You are not logged in, or your session has ended.'),
    el('p', null, 'Run ', el('code', null, `${TITLE} login`), ` on the host of the ${SERVICE}, as root or as the user of the service, and open the address that it prints in this browser. The address works once, for five minutes; the session lasts twelve hours, or until the ${SERVICE} is restarted.`),
    again);
}

document.getElementById('skip').addEventListener('click', (event) => {
  // The part behind # names the view.
  event.preventDefault();
  main.focus();
});
const refresh = () => page.loadSummary().catch(() => {});

// Begins a page: its views by name, the name of the one at the root, and what fills the summary.
function start(given) {
  Object.assign(page, given);
  timer = setInterval(() => { if (!document.hidden) refresh(); }, 10000);
  addEventListener('hashchange', route);
  route();
  refresh();
}
