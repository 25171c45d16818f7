// The page of the fleet, on top of shell.js. It asks the API of the sensor that served it, and nobody else.
'use strict';

/* -- parts of views -- */

// A line of a change; no line ends within its arrow.
const changeText = (line) => el('bdi', null, line.split('->').map((part, n) => [n > 0 ? el('span', { class: 'arrow' }, '->') : null, part]));

const guestLink = (vm) => el('a', { href: link(`/guest/${encodeURIComponent(vm)}`) }, own(vm));
const state = (guest) => el('span', { class: `state ${visible(guest.state ?? '')}` }, or(guest.state));

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
  const stateField = field('State', only);
  const tools = el('form', { role: 'search', 'aria-label': 'Filter guests' }, field('Name or OS', search, true), stateField, download(table, 'guests.csv'));
  main.append(heading('Guests'), tools, status, table.element);
  const show = (guests) => {
    const wanted = search.value.trim().toLowerCase();
    const rows = guests.filter((g) => (!only.value || g.state === only.value)
      && (!wanted || `${g.vm}\n${g.os}\n${g.os_name}`.toLowerCase().includes(wanted)));
    table.show(rows);
    // Where reports of other sensors are read, no guest has a state.
    stateField.hidden = !only.value && guests.length > 0 && !guests.some((g) => g.state);
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
  const text = el('input', { type: 'search', value: name, placeholder: 'all', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' });
  const system = el('input', { value: parameters.get('os') ?? '', placeholder: 'any, or rhel-9', size: 12, autocomplete: 'off', autocapitalize: 'off' });
  const form = el('form', { role: 'search', 'aria-label': 'Versions of a package' }, field('Package', text, true), field('OS', system), el('button', { class: 'main' }, 'Show versions'));
  const result = el('div');
  main.append(heading('Packages'), form, result);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    location.hash = link('/packages', { name: text.value.trim(), os: system.value.trim() });
  });
  const status = el('p', { role: 'status' }, 'Searching...');
  result.append(status);
  const os = parameters.get('os') ?? '';
  if (!name) return driftView(result, status, os, signal);
  const { versions } = await ask('/v1/versions', { name, os }, signal);
  const total = versions.reduce((sum, v) => sum + v.guests, 0);
  const rank = new Map(versions.map((v, n) => [v, n]));
  const table = new Table('Versions', [
    { title: 'Version', text: (v) => v.version, value: (v) => rank.get(v), node: (v) => el('a', { href: link('/find', { q: `${name} = ${v.version}`, arch: v.arch, os }) }, own(v.version)) },
    { title: 'Architecture', text: (v) => or(v.arch), size: 'w2 minor' },
    { title: 'Guests', text: (v) => String(v.guests), value: (v) => v.guests, size: 'w1 number' },
    { title: 'Share', text: (v) => `${((100 * v.guests) / total).toFixed(1)} %`, value: (v) => v.guests, node: (v) => share(v.guests / total), size: 'w2' },
  ], { key: (v) => `${v.version} ${v.arch}`, empty: 'No guest has this package.' });
  status.textContent = visible(`${name}${os && ` on ${os}`}: ${count(new Set(versions.map((v) => v.version)).size, 'version')}, the newest first`);
  result.append(el('div', { class: 'tools' }, download(table, 'versions.csv')), table.element);
  table.show(versions);
}

// All packages by the number of their versions: how far the guests are apart.
async function driftView(result, status, os, signal) {
  const packages = [];
  let cursor = null;
  let guests = 0;
  do {
    const page = await ask('/v1/versions', { os, cursor, limit: 10000 }, signal);
    for (const line of page.packages) packages.push(line);
    [cursor, guests] = [page.next, page.looked_at];
  } while (cursor);
  const search = el('input', { type: 'search', autocomplete: 'off', autocapitalize: 'off' });
  const table = new Table('Packages by number of versions', [
    { title: 'Package', text: (p) => p.name, node: (p) => el('a', { href: link('/packages', { name: p.name, os }) }, own(p.name)) },
    { title: 'Versions', text: (p) => String(p.versions), value: (p) => p.versions, size: 'w15 number' },
    { title: 'Guests', text: (p) => String(p.guests), value: (p) => p.guests, size: 'w15 number minor' },
    { title: 'Behind', text: (p) => String(p.behind), value: (p) => p.behind, size: 'w15 number' },
    { title: 'Newest', text: (p) => p.newest, size: 'w3 minor' },
  ], { key: (p) => p.name, sort: 1, down: true, empty: 'No package matches.' });
  const several = packages.filter((p) => p.versions > 1).length;
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    table.show(packages.filter((p) => !wanted || p.name.toLowerCase().includes(wanted)));
  };
  search.addEventListener('input', filter);
  status.textContent = visible(`${several.toLocaleString('en')} of ${count(packages.length, 'package')} in several versions, on ${count(guests, 'guest')}${os && ` of ${os}`}; "behind" are guests without the newest of them`);
  result.append(el('div', { class: 'tools' }, field('Filter packages', search, true), download(table, 'drift.csv')), table.element);
  filter();
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

const stateOf = (s) => el('span', { class: s.state === 'ok' ? 'good' : 'bad' }, s.state);

// Of a sensor with guests of its own.
function sensorTiles(s, since, now) {
  const guests = Object.entries(s.guests).filter(([, number]) => number > 0);
  const total = guests.reduce((sum, [, number]) => sum + number, 0);
  const states = guests.map(([name, number]) => [el('a', { class: `state ${name}`, href: link('/', { state: name }) }, `${number.toLocaleString('en')} ${name}`), ' ']);
  const { oldest_unreachable: oldest, pending } = s;
  const waiting = pending.reactive + pending.routine;
  const urgent = waiting ? `${pending.reactive.toLocaleString('en')} of changes, the oldest for ${span(pending.oldest_s)}` : 'everything is delivered';
  const dead = pending.dead ? el('span', { class: 'bad' }, `; ${count(pending.dead, 'dead letter')}`) : null;
  return [
    tile('Guests', total.toLocaleString('en'), states),
    oldest ? tile('Longest unreachable', guestLink(oldest.vm), `${oldest.state}, ${oldest.reported_at ? `last report ${since(oldest.reported_at)}` : 'never reported'}`) : tile('Unreachable', '0', 'every guest answers'),
    tile('Delivery', stateOf(s), own(s.deliver)),
    tile('Reports pending', waiting.toLocaleString('en'), [urgent, dead]),
    s.latency ? latencyTile(s.latency, now) : null,
  ];
}

// Of one that reads what others deliver: it has neither guests of its own nor deliveries.
function readerTiles(s, since) {
  const { address: from, lag, last } = s.reports_from;
  return [
    tile('Guests', s.stored.toLocaleString('en'), 'of all sensors that deliver to the stream'),
    tile('Reading', stateOf(s), own(from)),
    tile('Documents to read', lag == null ? '-' : lag.toLocaleString('en'), lag == null ? 'the stream has not answered yet' : lag ? 'in the stream' : 'everything is read'),
    last ? tile('Last document', since(last.at), ['of ', guestLink(last.vm)]) : tile('Last document', '-', 'none since the start'),
  ];
}

async function loadSummary() {
  const s = await ask('/v1/summary');
  const now = Date.parse(s.now);
  const since = (text) => `${span(Math.max(0, (now - Date.parse(text)) / 1000))} ago`;
  const { newest_change: newest } = s;
  const [guests, ...others] = s.reports_from ? readerTiles(s, since) : sensorTiles(s, since, now);
  const changed = newest ? tile('Newest change', since(newest.at), newestText(newest)) : tile('Newest change', '-', 'none is recorded');
  const tiles = [guests, changed, ...others];
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
  accepted: new Map(),
  marks: new Map(),
  newest: -1,
  source: null,
};
const FEED_LINES = 200;
const LINES_OF_CHANGE = 20;
let onChange = () => {};

// Where a line says which sinks accepted its report: filled when they do.
function mark(change) {
  const key = `${change.vm} ${change.report}`;
  const place = el('span', null, acceptedText(live.accepted.get(key) ?? change.accepted ?? []));
  live.marks.set(key, [...(live.marks.get(key) ?? []), place]);
  while (live.marks.size > FEED_LINES) live.marks.delete(live.marks.keys().next().value);
  return place;
}

function acceptedText(sinks) {
  return sinks.map(({ sink, after_ms: ms }) => `, at ${sink === 'default' ? 'Central' : sink} after ${duration(ms / 1000)}`).join('');
}

// A sink accepted a report; its change may come later, or wait while the feed is paused.
function accepted(event) {
  const { vm, report, ...sink } = JSON.parse(event.data);
  const key = `${vm} ${report}`;
  const sinks = [...(live.accepted.get(key) ?? []).filter((it) => it.sink !== sink.sink), sink];
  live.accepted.set(key, sinks);
  while (live.accepted.size > FEED_LINES) live.accepted.delete(live.accepted.keys().next().value);
  for (const place of live.marks.get(key) ?? []) place.textContent = visible(acceptedText(sinks));
}

function feedLines(change) {
  const at = new Date(change.at);
  const lines = changeLines(change, false);
  const shown = lines.slice(0, LINES_OF_CHANGE).map((line) => el('p', null, el('time', { datetime: change.at, title: local(change.at) }, clock(at)), ' ', guestLink(change.vm), ' ', changeText(line), ` (${change.trigger}`, mark(change), ')'));
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
  source.addEventListener('accepted', accepted);
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

start({
  views: { '': guestsView, find: findView, packages: packagesView, kernels: kernelsView, guest: guestView },
  home: 'guests',
  loadSummary,
  onRoute: () => { onChange = () => {}; },
  onLogin: () => {
    live.source?.close();
    live.box.hidden = true;
  },
});
startLive();
