// The page of the mirror, on top of shell.js. It asks the API of the mirror that served it, and nobody else.
'use strict';

/* -- words: no state is told by its colour alone -- */

const TYPES = { Compute: 'machine', NVSwitch: 'switch', PowerShelf: 'shelf' };
const PLURALS = { machine: 'machines', switch: 'switches', shelf: 'shelves' };
const typeWord = (type) => TYPES[type] ?? or(type);
const counted = (type, number) => count(number, typeWord(type), PLURALS[typeWord(type)] ?? typeWord(type));

// Class of a kind of drift, a word for it, and the same at length.
const DRIFTS = {
  mismatch: ['differs', 'differs', 'differs from what is expected'],
  missing_in_actual: ['missing', 'missing', 'expected, not observed'],
  missing_in_expected: ['nowhere', 'not expected', 'observed, expected nowhere'],
};
const driftState = (type) => el('span', { class: `state ${DRIFTS[type]?.[0] ?? ''}` }, DRIFTS[type]?.[1] ?? type);
const fieldDiff = (d) => `${d.field_name}: ${d.expected_value} expected, ${d.actual_value} observed`;

function driftWords(drift) {
  return drift.diffs?.length ? drift.diffs.map(fieldDiff).join('; ') : DRIFTS[drift.drift_type]?.[2] ?? drift.drift_type;
}

// `2 differ, 1 missing`, or that nothing is wrong.
function driftCounts(drift) {
  const words = { mismatch: ['differs', 'differ'], missing_in_actual: ['missing', 'missing'], missing_in_expected: ['not expected', 'not expected'] };
  const parts = Object.entries(drift ?? {}).map(([type, number]) => `${number.toLocaleString('en')} ${(words[type] ?? [type, type])[number === 1 ? 0 : 1]}`);
  return parts.join(', ') || 'none';
}

const total = (counts) => Object.values(counts ?? {}).reduce((sum, number) => sum + number, 0);
const rackName = (rack) => rack.external_id || rack.name;
const rackLink = (id, name) => el('a', { href: link(`/rack/${encodeURIComponent(id)}`) }, own(name));
const ago = (text, now) => (text ? `${span(Math.max(0, (now - Date.parse(text)) / 1000))} ago` : '-');

/* -- what changes with a cycle -- */

let onCycle = () => {};
let generation = null;

// Runs `load` now, and again when a cycle has written something.
async function live(signal, load) {
  onCycle = () => { if (!signal.aborted) load().catch(() => {}); };
  await load();
}

async function all(path, name, parameters, signal, onPage = () => {}) {
  const rows = [];
  let cursor = null;
  do {
    // A short page first: it fills the screen.
    const part = await ask(path, { ...parameters, cursor, limit: cursor ? 5000 : 200 }, signal);
    for (const row of part[name]) rows.push(row);
    cursor = part.next;
    onPage(rows);
  } while (cursor);
  return rows;
}

/* -- racks -- */

const known = { racks: [] };

async function racksView(main, parameters, signal) {
  const search = el('input', { type: 'search', value: parameters.get('q') ?? '', autocomplete: 'off' });
  const only = choice([['', 'all'], ['drift', 'with drift']], parameters.get('show') ?? '');
  const status = el('p', { role: 'status', class: 'faint' });
  const of = (type) => (r) => r.count[type] ?? 0;
  const number = (title, type) => ({ title, text: (r) => String(of(type)(r)), value: of(type), size: 'w15 number minor' });
  const place = (r) => Object.entries(r.location ?? {}).map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(', ');
  const table = new Table('Racks', [
    { title: 'Rack', text: rackName, node: (r) => rackLink(r.id, rackName(r)) },
    { title: 'Drift', text: (r) => driftCounts(r.drift), value: (r) => total(r.drift), size: 'w3', node: (r) => el('span', { class: total(r.drift) ? 'warn' : 'good' }, driftCounts(r.drift)) },
    number('Machines', 'Compute'), number('Switches', 'NVSwitch'), number('Shelves', 'PowerShelf'),
    { title: 'Where', text: (r) => or(place(r)), size: 'w3 minor' },
  ], { key: (r) => r.id, empty: 'No rack matches.' });
  const tools = el('form', { role: 'search', 'aria-label': 'Filter racks' }, field('Name, serial number or place', search, true), field('Show', only), download(table, 'racks.csv'));
  main.append(heading('Racks'), tools, status, table.element);
  const show = (racks) => {
    const wanted = search.value.trim().toLowerCase();
    const rows = racks.filter((r) => (!only.value || total(r.drift) > 0)
      && (!wanted || `${r.external_id}\n${r.name}\n${r.serial_number}\n${place(r)}`.toLowerCase().includes(wanted)));
    table.show(rows);
    const drifting = racks.filter((r) => total(r.drift) > 0).length;
    status.textContent = `${rows.length === racks.length ? '' : `${rows.length.toLocaleString('en')} of `}${count(racks.length, 'rack')}; ${drifting.toLocaleString('en')} with drift`;
  };
  const filter = () => {
    history.replaceState(null, '', link('/', { q: search.value, show: only.value }));
    show(known.racks);
  };
  search.addEventListener('input', filter);
  only.addEventListener('input', filter);
  tools.addEventListener('submit', (event) => event.preventDefault());
  let isFirst = known.racks.length === 0;
  if (!isFirst) show(known.racks);
  await live(signal, async () => {
    known.racks = await all('/v1/racks', 'racks', {}, signal, (racks) => isFirst && show(racks));
    isFirst = false;
    show(known.racks);
  });
}

/* -- one rack -- */

// What is the matter with a component: class, word, and the same at length.
function componentState(component) {
  const drift = component.drift[0];
  if (drift) return [DRIFTS[drift.drift_type]?.[0] ?? '', DRIFTS[drift.drift_type]?.[1] ?? drift.drift_type, component.drift.map(driftWords).join('; ')];
  return component.external_id ? ['expected', 'ok', 'observed as expected'] : ['', 'not observed', 'no device is linked, and none is missed'];
}

const componentName = (c) => c.name || c.serial_number || c.id;

// Where it was observed instead, as far as it is a slot.
function otherSlot(component) {
  const diffs = component.drift.flatMap((drift) => drift.diffs ?? []);
  const slot = Number(diffs.find((d) => d.field_name === 'slot_id')?.actual_value ?? NaN);
  return Number.isInteger(slot) && slot >= 0 && slot !== component.slot_id ? slot : null;
}

// The rows of a rack from top to bottom: a slot with what is in it, or so many empty slots at once.
function elevationRows(components) {
  const slots = new Map();
  const put = (slot, item) => slots.set(slot, [...(slots.get(slot) ?? []), item]);
  for (const component of components) {
    if (component.slot_id >= 0) put(component.slot_id, { component });
    const other = otherSlot(component);
    if (other !== null) put(other, { component, isElsewhere: true });
  }
  const rows = [];
  let above = null;
  for (const slot of [...slots.keys()].sort((a, b) => b - a)) {
    const gap = above === null ? 0 : above - slot - 1;
    if (gap > 4) rows.push({ label: '', items: [], words: `${gap.toLocaleString('en')} empty slots` });
    else for (let n = 1; n <= gap; n += 1) rows.push({ label: above - n, items: [] });
    rows.push({ label: slot, items: slots.get(slot).sort((a, b) => a.component.tray_index - b.component.tray_index) });
    above = slot;
  }
  for (const component of components.filter((c) => !(c.slot_id >= 0))) rows.push({ label: '?', items: [{ component }] });
  return rows;
}

const ROW = 24;
const [LEFT, WIDTH] = [34, 340];

function elevation(rack, components) {
  const rows = elevationRows(components);
  const box = (item, x, y, width) => {
    const [state, word, words] = componentState(item.component);
    const name = componentName(item.component);
    const tag = item.isElsewhere ? 'observed here' : word;
    // Letters of this size are some 6.2 wide.
    const fits = Math.max(1, Math.floor((width - 12) / 6.2) - (width > 150 ? tag.length + 2 : 0));
    const cut = [...visible(name)];
    const text = cut.length > fits ? `${cut.slice(0, Math.max(1, fits - 1)).join('')}\u2026` : cut.join('');
    return svg('g', { class: item.isElsewhere ? 'elsewhere' : state },
      svg('title', null, `${typeWord(item.component.type)} ${name}: ${item.isElsewhere ? 'observed here, expected elsewhere' : words}`),
      svg('rect', { class: 'box', x, y: y + 2, width, height: ROW - 4, rx: 3 }),
      svg('text', { x: x + 6, y: y + 16 }, text),
      width > 150 ? svg('text', { class: 'word', x: x + width - 6, y: y + 16 }, tag) : null);
  };
  const drawn = rows.map((row, n) => {
    const y = 4 + n * ROW;
    const width = (WIDTH - LEFT - 8) / Math.max(1, row.items.length);
    return [
      svg('text', { class: 'slot', x: LEFT - 8, y: y + 16 }, String(row.label)),
      row.items.length ? row.items.map((item, i) => box(item, LEFT + 2 + i * width, y, width - 2)) : [
        svg('rect', { class: 'empty', x: LEFT + 2, y: y + 3, width: WIDTH - LEFT - 10, height: ROW - 6 }),
        row.words ? svg('text', { x: LEFT + 10, y: y + 16 }, row.words) : null,
      ],
    ];
  });
  const height = 8 + Math.max(1, rows.length) * ROW;
  const states = components.map((c) => componentState(c)[1]);
  const says = ['ok', 'differs', 'missing', 'not observed'].map((word) => [word, states.filter((state) => state === word).length]);
  const label = `Elevation of rack ${rackName(rack)}: ${says.filter(([, n]) => n).map(([word, n]) => `${n} ${word}`).join(', ') || 'empty'}`;
  return svg('svg', { class: 'elevation', viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-label': label },
    svg('rect', { class: 'frame', x: LEFT - 2, y: 2, width: WIDTH - LEFT, height: height - 4, rx: 4 }), drawn);
}

const pairs = (list) => el('dl', null, list.filter(([, value]) => value != null && value !== '').map(([name, value]) => [el('dt', null, name), el('dd', null, value instanceof Node ? value : own(value))]));

async function rackView(main, parameters, signal, id) {
  const title = heading(id);
  const facts = el('div');
  const drawing = el('div');
  const status = el('p', { role: 'status', class: 'faint' });
  const more = (c) => or([...c.bmcs.map((bmc) => `${bmc.mac_address}${bmc.ip_address ? ` (${bmc.ip_address})` : ''}`), c.power_state && `power ${c.power_state}`,
    c.firmware_version && `firmware ${c.firmware_version}`, c.status, c.lifecycle_state].filter(Boolean).join(', '));
  const position = (c) => (c.slot_id >= 0 ? [c.slot_id, c.tray_index, c.host_id].join('/') : '-');
  const table = new Table('Components', [
    { title: 'Position', text: position, value: (c) => -(c.slot_id * 1e6 + c.tray_index * 1e3 + c.host_id), size: 'w15' },
    { title: 'Type', text: (c) => typeWord(c.type), size: 'w15' },
    { title: 'Name', text: componentName, node: (c) => el('a', { href: link('/changes', { row: c.id }), title: 'Changes of this component' }, own(componentName(c))) },
    { title: 'State', text: (c) => componentState(c)[1], node: (c) => el('span', { class: `state ${componentState(c)[0]}` }, componentState(c)[1]), size: 'w2' },
    { title: 'In words', text: (c) => componentState(c)[2] },
    { title: 'More', text: more, size: 'w3 minor' },
  ], { key: (c) => c.id, short: true, empty: 'Nothing is expected in this rack.' });
  const legend = el('ul', { class: 'legend' }, [['expected', 'ok: observed as expected'], ['differs', 'differs from what is expected; dashed where it was observed'], ['missing', 'missing: expected, not observed'], ['', 'not observed: no device is linked']]
    .map(([state, words]) => el('li', null, el('span', { class: `state ${state}` }, words))));
  main.append(title, facts, el('div', { class: 'rack' }, el('div', null, drawing, legend),
    el('div', null, el('h2', null, 'Components'), el('div', { class: 'tools' }, download(table, 'rack.csv')), status, table.element)));
  await live(signal, async () => {
    const rack = await ask(`/v1/racks/${encodeURIComponent(id)}`, {}, signal);
    title.replaceChildren(own(rackName(rack)));
    document.title = `${visible(rackName(rack))} - ${TITLE}`;
    facts.replaceChildren(pairs([
      ['Name', rack.name],
      ['Hardware', [rack.manufacturer, rack.serial_number].filter(Boolean).join(' ')],
      ['Where', Object.entries(rack.location ?? {}).map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(', ')],
      ['Group', rack.rack_group_id],
      ['NVLink domain', rack.nvldomain_id],
      ['Status', rack.status],
      ['Deleted', rack.deleted_at ? time(rack.deleted_at) : null],
      ['Drift', driftCounts(rack.drift)],
    ]));
    drawing.replaceChildren(elevation(rack, rack.components));
    const parts = Object.entries(rack.count).map(([type, number]) => counted(type, number));
    status.textContent = visible(`${parts.join(', ') || 'empty'}${rack.more ? '; only the first are shown' : ''}`);
    table.show(rack.components);
  });
}

/* -- drift -- */

async function driftView(main, parameters, signal) {
  const kind = choice([['', 'all'], ...Object.entries(TYPES).map(([type, word]) => [type, PLURALS[word]])], parameters.get('kind') ?? '');
  const code = choice([['', 'all'], ...Object.entries(DRIFTS).map(([type, [, word]]) => [type, word])], parameters.get('code') ?? '');
  const search = el('input', { type: 'search', value: parameters.get('q') ?? '', autocomplete: 'off' });
  const status = el('p', { role: 'status', class: 'faint' });
  const table = new Table('Drift', [
    { title: 'Since', text: (d) => local(d.checked_at), value: (d) => d.checked_at ?? '', node: (d) => time(d.checked_at), size: 'w3' },
    { title: 'Type', text: (d) => typeWord(d.component_type), size: 'w15 minor' },
    { title: 'Component', text: (d) => d.name },
    { title: 'Rack', text: (d) => or(d.rack?.name), node: (d) => (d.rack ? rackLink(d.rack.id, d.rack.name) : '-'), size: 'w2' },
    { title: 'State', text: (d) => DRIFTS[d.drift_type]?.[1] ?? d.drift_type, node: (d) => driftState(d.drift_type), size: 'w2' },
    { title: 'In words', text: driftWords, size: 'minor' },
  ], { key: (d) => d.id, empty: 'Nothing differs from what is expected.' });
  const tools = el('form', { role: 'search', 'aria-label': 'Filter drift' }, field('Component or rack', search, true), field('Type', kind), field('State', code), download(table, 'drift.csv'));
  main.append(heading('Drift'), tools, status, table.element);
  let rows = [];
  const show = (drifts) => {
    rows = drifts;
    const wanted = search.value.trim().toLowerCase();
    const shown = rows.filter((d) => (!kind.value || d.component_type === kind.value) && (!code.value || d.drift_type === code.value)
      && (!wanted || `${d.name}\n${d.rack?.name}\n${driftWords(d)}`.toLowerCase().includes(wanted)));
    table.show(shown);
    status.textContent = `${shown.length === rows.length ? '' : `${shown.length.toLocaleString('en')} of `}${count(rows.length, 'difference')}, the oldest first`;
  };
  for (const input of [search, kind, code]) {
    input.addEventListener('input', () => {
      history.replaceState(null, '', link('/drift', { q: search.value, kind: kind.value, code: code.value }));
      show(rows);
    });
  }
  tools.addEventListener('submit', (event) => event.preventDefault());
  let isFirst = true;
  await live(signal, async () => {
    const drifts = await all('/v1/drift', 'drift', {}, signal, (part) => isFirst && show(part));
    isFirst = false;
    show(drifts);
  });
}

/* -- changes -- */

const MOST_LINES = 100;
const value = (v) => (v === null || v === undefined ? 'nothing' : typeof v === 'object' ? JSON.stringify(v) : String(v));

function changeLine(row) {
  const what = row.field ? ` ${row.field}: ${value(row.old)} -> ${value(row.new)}` : '';
  return el('li', null, own(row.key), el('bdi', null, what), el('span', { class: 'faint' }, ` ${row.op}; ${row.reason}`));
}

// One run of the mirror, or a part of it: how often what was done to which type, and the rows.
function runItem(rows) {
  const [{ time: at, source }] = rows;
  const counts = new Map();
  for (const row of rows) counts.set(`${row.kind} ${row.op}`, (counts.get(`${row.kind} ${row.op}`) ?? 0) + 1);
  const lines = rows.slice(0, MOST_LINES).map(changeLine);
  if (rows.length > MOST_LINES) lines.push(el('li', { class: 'faint' }, `and ${count(rows.length - MOST_LINES, 'more row')}`));
  const sum = [...counts].map(([what, number]) => `${number.toLocaleString('en')} ${what}`).join(', ');
  return el('li', null, el('details', { open: rows.length <= 8 }, el('summary', null, time(at), ' ', own(sum)), el('p', { class: 'faint' }, own(source)), el('ul', null, lines)));
}

async function changesView(main, parameters, signal) {
  const row = el('input', { type: 'search', value: parameters.get('row') ?? '', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false' });
  const since = choice([['', 'ever'], ['1h', 'the last hour'], ['24h', 'the last day'], ['168h', 'the last week']], parameters.get('since') ?? '');
  const form = el('form', { role: 'search', 'aria-label': 'Filter changes' }, field('Row: id, address or name, whole', row, true), field('Since', since), el('button', { class: 'main' }, 'Show'));
  const status = el('p', { role: 'status', class: 'faint' });
  const list = el('ol', { class: 'timeline', 'aria-label': 'Changes, the newest first' });
  const more = el('button', { type: 'button', hidden: true }, 'Older changes');
  main.append(heading('Changes'), form, status, list, more);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const to = link('/changes', { row: row.value.trim(), since: since.value });
    if (to === location.hash) route();
    else location.hash = to;
  });
  let [cursor, shown] = [null, 0];
  const load = async () => {
    const part = await ask('/v1/audit', { row: parameters.get('row'), since: parameters.get('since'), cursor, limit: 1000 }, signal);
    let group = [];
    const put = () => { if (group.length) list.append(runItem(group)); };
    for (const one of part.audit) {
      if (group.length && group[0].run !== one.run) {
        put();
        group = [];
      }
      group.push(one);
    }
    put();
    [cursor, shown] = [part.next, shown + part.audit.length];
    more.hidden = cursor === null;
    status.textContent = shown ? `${count(shown, 'row')} of the audit log${cursor === null ? '' : ', and there are older ones'}` : cursor === null ? 'Nothing was changed.' : 'Nothing yet; there are older rows.';
  };
  more.addEventListener('click', () => load().catch((error) => { if (!signal.aborted) status.textContent = visible(error.message); }));
  await load();
}

/* -- withheld deletes -- */

function copyButton(text) {
  const said = el('span', { role: 'status' });
  const button = el('button', { type: 'button', class: 'main' }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = 'Copied.';
    } catch {
      // Without TLS a browser gives the clipboard to pages of localhost only.
      getSelection().selectAllChildren(button.previousElementSibling);
      said.textContent = 'Selected: copy it with the keyboard.';
    }
  });
  return [button, said];
}

async function withheldView(main, parameters, signal) {
  const box = el('div');
  main.append(heading('Withheld deletes'), el('p', { class: 'faint' }, 'Deletes of a type beyond both limits of the guard are not carried out. If they are right, run the command on the host of the mirror, as root or as the user of the service: it holds for the next cycle, and for exactly these rows.'), box);
  await live(signal, async () => {
    const { withheld } = await ask('/v1/withheld', { limit: 1000 }, signal);
    const types = withheld.map((type) => {
      const table = new Table(`Withheld deletes of ${type.type}`, [
        { title: 'Row', text: (r) => or(r.key), node: (r) => el('a', { href: link('/changes', { row: r.id }) }, own(or(r.key))) },
        { title: 'Id', text: (r) => r.id, size: 'minor' },
      ], { key: (r) => r.id, short: true });
      table.show(type.rows);
      const rest = type.deletes - type.rows.length;
      return el('section', { 'aria-label': `Withheld deletes of ${type.type}` }, el('h2', null, `${type.type}: ${count(type.deletes, 'delete')} withheld`),
        el('div', { class: 'approve' }, el('code', null, type.approve), copyButton(type.approve)), table.element, rest > 0 ? el('p', { class: 'faint' }, `and ${count(rest, 'more row')}`) : null);
    });
    box.replaceChildren(...(types.length ? types : [el('p', null, 'Nothing is withheld.')]));
  });
}

/* -- pulls -- */

async function pullsView(main, parameters, signal) {
  const facts = el('div');
  const table = new Table('Pulls', [
    { title: 'Type', text: (p) => p.type, size: 'w2' },
    { title: 'List', text: (p) => p.list, size: 'w2' },
    { title: 'State', text: (p) => p.state, node: (p) => el('span', { class: `state ${p.state.replace(' ', '-')}` }, p.state), size: 'w2' },
    { title: 'Last complete', text: (p) => (p.complete_at ? local(p.complete_at) : 'not since the start'), value: (p) => p.complete_at ?? '', size: 'w3' },
    { title: 'Why', text: (p) => or(p.why), size: 'minor' },
  ], { key: (p) => `${p.type} ${p.list}`, short: true });
  table.sort = 1;
  main.append(heading('Pulls'), facts, table.element);
  await live(signal, async () => {
    const s = await ask('/v1/status', {}, signal);
    const last = s.last_cycle;
    facts.replaceChildren(pairs([
      ['Source', s.core],
      ['State', el('span', { class: `state ${s.state}` }, s.state)],
      ['Cycles', s.cycles.toLocaleString('en')],
      ['Last cycle', last ? el('span', null, time(last.began_at), ' to ', time(last.ended_at)) : 'none has ended yet'],
      ['Now', s.running ? el('span', null, 'a cycle runs since ', time(s.running.began_at), ': ', own(s.running.doing)) : 'waiting for the next cycle'],
      ['Warnings', last ? String(last.warnings ?? '-') : null],
    ]));
    table.show(s.pulls);
  });
}

/* -- header -- */

let cycles = null;

async function loadSummary() {
  let s;
  try {
    s = await ask('/v1/status');
  } catch (error) {
    if (error.name !== 'AbortError') summaryBox.prepend(summaryBox.querySelector('[role="alert"]') ?? el('p', { role: 'alert' }, 'The mirror does not answer; what is shown is of before.'));
    throw error;
  }
  const now = Date.parse(s.now);
  const live = (type) => s.rows[type]?.live ?? 0;
  const drift = {};
  for (const kinds of Object.values(s.drift)) for (const [type, number] of Object.entries(kinds)) drift[type] = (drift[type] ?? 0) + number;
  const withheld = Object.entries(s.types ?? {}).map(([type, counters]) => [type, counters.withheld_deletes ?? 0]).filter(([, number]) => number > 0);
  const stale = s.pulls.filter((pull) => pull.state === 'failed' || pull.state === 'in part');
  const ended = s.last_cycle?.ended_at;
  const tiles = [
    tile('Racks', live('rack').toLocaleString('en'), Object.keys(TYPES).map((type) => counted(type, live(type))).join(', ')),
    tile('Drift', el('a', { href: link('/drift') }, total(drift).toLocaleString('en')), driftCounts(drift)),
    tile('Withheld deletes', el('a', { href: link('/withheld') }, withheld.reduce((sum, [, number]) => sum + number, 0).toLocaleString('en')), withheld.map(([type, number]) => `${number} of ${type}`).join(', ') || 'nothing is withheld'),
    tile('Pulls', el('a', { href: link('/pulls') }, stale.length ? `${stale.length} stale` : 'all read'), stale.map((pull) => `${pull.type} ${pull.list} ${pull.state}`).join(', ') || own(s.core)),
    tile('Last cycle', ended ? ago(ended, now) : '-', s.running ? 'one runs now' : ended ? `took ${duration((Date.parse(ended) - Date.parse(s.last_cycle.began_at)) / 1000)}` : 'none has ended yet'),
    tile('State', el('span', { class: s.state === 'ok' ? 'good' : 'bad' }, s.state), `version ${s.version}`),
  ];
  const reasons = s.reasons.map((reason) => el('li', null, own(reason)));
  summaryBox.replaceChildren(el('div', { class: 'tiles' }, tiles), el('ul', { class: 'reasons', hidden: reasons.length === 0 }, reasons));
  summaryBox.hidden = false;
  const before = [generation, cycles];
  [generation, cycles] = [s.generation, s.cycles];
  if (before[1] !== null && (before[0] !== generation || before[1] !== cycles)) onCycle();
}

start({
  views: { '': racksView, rack: rackView, drift: driftView, changes: changesView, withheld: withheldView, pulls: pullsView },
  home: 'racks',
  loadSummary,
  onRoute: () => { onCycle = () => {}; },
});
