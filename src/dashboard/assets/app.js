'use strict';
// The page as the server made it is whole without this script. It keeps it current, opens the drawer, and acts.
(() => {
const root = document.documentElement, main = document.getElementById('main');
const byId = (id) => document.getElementById(id);
root.dataset.js = '1';

let bearer = '', live = null, paused = false, last = Date.now(), wait = 1000, word = '';

// --- who we are ---------------------------------------------------------------------------------------------------
const headers = (more) => Object.assign({}, bearer ? { Authorization: 'Bearer ' + bearer } : {}, more);

// Trades the token in the address for a bearer, kept here alone. The next token replaces it, so that a reload works.
async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get('t');
  if (root.dataset.door !== 'token') return true;
  if (!token) { stop('This page needs the link that spillway dashboard prints. Press Enter there for a new one.'); return false; }
  try {
    const answer = await fetch('session', { method: 'POST', headers: { 'X-Spillway-Act': '1' }, body: JSON.stringify({ token }) });
    const said = await answer.json();
    if (!answer.ok) { stop(said.message + '. ' + said.help); return false; }
    bearer = said.bearer;
    history.replaceState(null, '', location.search + '#t=' + said.next);
    return true;
  } catch (error) { stop('spillway dashboard does not answer: does it still run?'); return false; }
}

function stop(text) {
  const stale = byId('stale');
  stale.textContent = text; stale.hidden = false; root.dataset.stale = '1';
}

// --- what is pushed -----------------------------------------------------------------------------------------------
async function follow() {
  if (live) live.abort();
  const mine = live = new AbortController();
  try {
    const answer = await fetch('live' + location.search, { headers: headers(), signal: mine.signal });
    if (answer.status === 401) { stop('The link is over. Press Enter where spillway dashboard runs for a new one.'); return; }
    if (!answer.ok) { const said = await answer.json(); stop(said.message + ': ' + said.help); throw new Error(said.code); }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ''; ;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) show(JSON.parse(text.slice(6, end)));
    }
  } catch (error) { /* said below */ }
  if (mine !== live) return;
  setTimeout(() => { if (mine === live && !paused) follow(); }, wait);
  wait = Math.min(wait * 2, 10000);
}

function show(news) {
  last = Date.now(); wait = 1000;
  root.dataset.role = news.role; byId('role').textContent = news.role; byId('who').textContent = news.who; byId('host').textContent = news.host;
  for (const panel of news.panels) {
    let section = byId(panel.id);
    if (!section) {
      section = document.createElement('section'); section.id = panel.id; main.append(section);
    }
    section.className = 'panel ' + panel.class;
    const made = document.createElement('template');
    made.innerHTML = panel.html;
    morph(section, made.content);
  }
  const here = [...main.children];
  for (const child of here) if (!news.order.includes(child.id)) child.remove();
  news.order.forEach((id, at) => { const child = byId(id); if (child && main.children[at] !== child) main.insertBefore(child, main.children[at]); });
  filter(); readout();
  const state = document.querySelector('#verdict .state b');
  if (state && state.textContent !== word) {
    if (word) byId('news').textContent = state.textContent + ': ' + document.querySelector('#verdict .sentence').textContent;
    word = state.textContent;
  }
}

// Makes `old` look like `fresh` without replacing what is the same: focus and selection stay where they are.
function morph(old, fresh) {
  const kept = new Map();
  for (const child of old.children) if (child.id) kept.set(child.id, child);
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    let match = next.id && kept.get(next.id);
    if (match && match.tagName === next.tagName) { if (match !== at) old.insertBefore(match, at); else at = at.nextSibling; }
    else if (at && at.nodeType === next.nodeType && at.nodeName === next.nodeName && !at.id && !next.id) { match = at; at = at.nextSibling; }
    else { old.insertBefore(next, at); continue; }
    if (match.nodeType === 3) { if (match.data !== next.data) match.data = next.data; continue; }
    if (match.nodeType !== 1 || match.id === 'filter' || match.tagName === 'OUTPUT') continue;
    for (const { name } of [...match.attributes]) if (!next.hasAttribute(name) && name !== 'hidden') match.removeAttribute(name);
    for (const { name, value } of next.attributes) if (match.getAttribute(name) !== value) match.setAttribute(name, value);
    morph(match, next);
  }
  while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
}

setInterval(() => {
  const age = Math.round((Date.now() - last) / 1000);
  if (paused || (root.dataset.door === 'token' && !bearer)) return;
  if (age > 3) stop('NOT LIVE: no news for ' + age + ' s. What you see is old. On the node: spillway status');
  else if (root.dataset.stale) { delete root.dataset.stale; byId('stale').hidden = true; }
}, 1000);

// --- getting around -----------------------------------------------------------------------------------------------
function go(search, push) {
  if (push) history.pushState(null, '', (search || '?') + location.hash);
  main.replaceChildren(); last = Date.now(); follow(); main.focus(); scrollTo(0, 0);
}
document.addEventListener('click', (event) => {
  const link = event.target.closest('a[data-view]');
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) { event.preventDefault(); go(link.getAttribute('href'), true); return; }
  const raw = event.target.closest('footer a');
  if (raw && bearer) { event.preventDefault(); open_raw(raw.getAttribute('href')); return; }
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.act === 'isolate') drawer(button.dataset.kind, button.dataset.name);
  else if (button.dataset.act === 'release') sure('Release ' + button.dataset.name + '?', 'It may do again what its lane lets it do.', 'spillway release ' + button.dataset.id, 'v1/isolations/release', { which: button.dataset.id });
  else if (button.dataset.act === 'do') sure(button.dataset.title + '?', button.dataset.text, button.dataset.command, button.dataset.path, JSON.parse(button.dataset.body));
  else if (button.dataset.act === 'lever') pull(button.dataset);
  else if ('close' in button.dataset) button.closest('dialog').close();
  else if (button.dataset.copy) navigator.clipboard.writeText(byId(button.dataset.copy).textContent).then(() => { button.textContent = 'Copied'; }, () => { button.textContent = 'Select it instead'; });
});
addEventListener('popstate', () => go('', false));
async function open_raw(path) {
  const answer = await fetch(path, { headers: headers() });
  open(URL.createObjectURL(new Blob([await answer.text()], { type: 'text/plain' })), '_blank', 'noopener');
}

const pause = byId('pause');
pause.addEventListener('click', () => {
  paused = !paused; pause.setAttribute('aria-pressed', String(paused)); pause.textContent = paused ? 'Paused: go on' : 'Pause';
  if (paused) live && live.abort(); else { last = Date.now(); follow(); }
});

function filter() {
  const field = byId('filter'); if (!field) return;
  const want = field.value.trim().toLowerCase();
  for (const row of document.querySelectorAll('tr.talker')) row.hidden = want !== '' && !row.textContent.toLowerCase().includes(want);
}
document.addEventListener('input', (event) => { if (event.target.id === 'filter') filter(); });

document.addEventListener('keydown', (event) => {
  const plot = event.target.closest('.plot svg');
  if (plot && (event.key === 'ArrowLeft' || event.key === 'ArrowRight')) { event.preventDefault(); step(plot, event.key === 'ArrowLeft' ? -1 : 1); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input,select,textarea,dialog')) return;
  if (event.key === '/') { const field = byId('filter'); if (field) { event.preventDefault(); field.focus(); } }
  else if (event.key === 'p') pause.click();
  else if (event.key === '?') go('?help=1', true);
  else if (event.key === 'o') go('?', true);
  else if (event.key === 'i') {
    const button = event.target.closest('tr')?.querySelector('[data-act=isolate]') || document.querySelector('#verdict [data-act=isolate], [data-act=isolate]');
    if (button && root.dataset.role !== 'viewer') { event.preventDefault(); button.click(); }
  }
});

// --- reading a chart ----------------------------------------------------------------------------------------------
let reading = null; // { figure id, x from the right end }
const right = (svg) => svg.viewBox.baseVal.width;
function step(svg, by) {
  const now = reading && reading.id === svg.closest('figure').id ? reading.back : -1;
  reading = { id: svg.closest('figure').id, back: Math.min(Math.max(now - by, 0), right(svg)) };
  readout();
}
function readout() {
  for (const cursor of document.querySelectorAll('.cursor')) cursor.remove();
  for (const output of document.querySelectorAll('.axis output')) output.textContent = '';
  if (!reading) return;
  const figure = byId(reading.id), svg = figure && figure.querySelector('.plot svg');
  if (!svg) { reading = null; return; }
  const x = right(svg) - reading.back, most = Number(svg.dataset.most), names = [...figure.querySelectorAll('.legend li')];
  const values = names.map((item) => {
    const kind = item.querySelector('polyline').getAttribute('class');
    for (const line of svg.querySelectorAll('polyline.' + kind)) {
      const point = line.getAttribute('points').split(' ').find((text) => text.startsWith(x + ','));
      if (point) { const value = (100 - Number(point.split(',')[1])) / 100 * most; return item.childNodes[1].data.trim() + ' ' + (value < 10 ? value.toFixed(2) : Math.round(value)); }
    }
    return item.childNodes[1].data.trim() + ' –';
  });
  figure.querySelector('output').textContent = reading.back * Number(svg.dataset.step) + ' s ago: ' + values.join(', ');
  const cursor = svg.querySelector('.base').cloneNode();
  cursor.setAttribute('class', 'cursor'); cursor.setAttribute('x1', x); cursor.setAttribute('x2', x); cursor.setAttribute('y1', 0);
  svg.append(cursor);
}
document.addEventListener('pointermove', (event) => {
  const svg = event.target.closest && event.target.closest('.plot svg');
  if (!svg) { if (reading && reading.by === 'pointer') { reading = null; readout(); } return; }
  const box = svg.getBoundingClientRect();
  const x = Math.round((event.clientX - box.left) / box.width * right(svg));
  reading = { id: svg.closest('figure').id, back: Math.min(Math.max(right(svg) - x, 0), right(svg)), by: 'pointer' };
  readout();
});

// --- acting -------------------------------------------------------------------------------------------------------
async function post(path, body) {
  const answer = await fetch(path, { method: 'POST', headers: headers({ 'X-Spillway-Act': '1', 'Content-Type': 'application/json' }), body: JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) throw said;
  return said;
}
const trouble = (problem) => (problem.code ? '[' + problem.code + '] ' : '') + (problem.message || String(problem)) + (problem.help ? '. ' + problem.help : '');
let undone = null;
function toast(text, undo) {
  byId('toast-text').textContent = text; byId('toast').hidden = false; byId('undo').hidden = !undo; undone = undo || null;
}
byId('toast-close').addEventListener('click', () => { byId('toast').hidden = true; });
byId('undo').addEventListener('click', async () => {
  try { await post(undone.path, undone.body); toast('Undone.'); } catch (problem) { toast(trouble(problem)); }
});

const form = byId('isolate');
const time = (seconds) => seconds % 3600 ? seconds / 60 + 'm' : seconds / 3600 + 'h';
const list = (lines) => { const made = document.createElement('ul'); for (const [text, mark] of lines) { const item = document.createElement('li'); item.textContent = text; item.className = mark || ''; made.append(item); } return made; };
const quoted = (text) => /^[A-Za-z0-9_./:@%+=-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
const wish = (dryRun) => ({ kind: form.kind.value, name: form.elements.name.value.trim(), to: form.to.value, forSeconds: Number(form.ttl.value), reason: form.reason.value.trim(), forceProtected: byId('force').checked, dryRun });
let asked = 0, good = false;
function drawer(kind, name) {
  form.reset(); form.kind.value = kind; form.elements.name.value = name; byId('force').checked = false; byId('confirm').value = '';
  if (!byId('drawer').open) byId('drawer').showModal();
  byId('reason').focus(); preview();
}
function allowed() {
  const word = form.elements.name.value.trim().split(/[/:]/).pop(), deny = form.to.value === 'deny';
  byId('confirm-word').textContent = word; byId('confirm-box').hidden = !deny;
  byId('apply').disabled = !(good && form.reason.value.trim() && (!deny || byId('confirm').value === word));
}
async function preview() {
  const body = wish(true), turn = ++asked, box = byId('preview');
  byId('command').textContent = 'spillway isolate ' + body.kind + ' ' + quoted(body.name) + ' --to ' + body.to + ' --for ' + time(body.forSeconds) + ' --reason ' + quoted(body.reason || '…') + (body.forceProtected ? ' --force-protected' : '');
  good = false; allowed();
  if (!body.reason) body.reason = 'preview';
  try {
    const { preview: seen } = await post('v1/isolations', body);
    if (turn !== asked) return;
    const lines = [], add = (text, mark) => lines.push([text, mark]);
    if (!seen.matching) add('Nobody of this name was here lately: is it spelt right?' + (seen.near ? ' Did you mean ' + seen.near + '?' : ''), 'warn');
    else add('Hits ' + seen.matching + (seen.matching === 1 ? ' client' : ' clients') + ' that were here lately:');
    for (const client of seen.clients) add(client.user + ': ' + client.servedPerSecond + '/s served, ' + client.shedPerSecond + '/s refused, ' + (client.addresses > 15 ? '16 addresses or more' : client.addresses + (client.addresses === 1 ? ' address' : ' addresses')) + ', ' + client.lanes.join(', '));
    for (const reason of seen.protected) add('■ PROTECTED: ' + reason, 'bad');
    if (!seen.protected.length && seen.matching) add('● Not on the protected list.', 'ok');
    box.replaceChildren(list(lines));
    const guarded = seen.protected.length > 0;
    byId('force-box').hidden = !guarded || root.dataset.role !== 'admin';
    good = !guarded || byId('force').checked; allowed();
  } catch (problem) { if (turn === asked) { const text = document.createElement('p'); text.className = 'bad'; text.textContent = trouble(problem); box.replaceChildren(text); } }
}
let typing = 0;
form.addEventListener('input', (event) => { if (event.target.id === 'confirm') { allowed(); return; } clearTimeout(typing); good = false; allowed(); typing = setTimeout(preview, 250); });
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  if (byId('apply').disabled) return;
  byId('apply').disabled = true;
  try {
    const done = await post('v1/isolations', wish(false)), view = done.isolation;
    byId('drawer').close();
    toast('Isolated ' + view.kind + ' ' + view.name + ' (' + view.action + ') as ' + view.id + ', for ' + Math.round(view.remainingSeconds / 60) + ' min.' + (done.kept.onDisk ? '' : ' It would not survive a restart: ' + done.kept.problem), { path: 'v1/isolations/release', body: { which: view.id } });
  } catch (problem) { const text = document.createElement('p'); text.className = 'bad'; text.textContent = trouble(problem); byId('preview').replaceChildren(text); allowed(); }
});

// Lockdown, the limit, and whether a newcomer may stay: what each asks, shows first, and says in a shell.
const pulled = byId('lever-form'), field = (name) => pulled.elements[name].value.trim();
const lost = ['operators', 'workload', 'unknown', 'telemetry'];
const LEVERS = {
  lockdown: {
    title: 'Lock the cluster down', yes: 'Lock down', path: 'v1/lockdown', undo: () => ({ path: 'v1/lockdown/release', body: {} }),
    body: () => ({ forSeconds: Number(field('until')), reason: field('why') }),
    command: () => 'spillway lockdown --for ' + time(Number(field('until'))) + ' --reason ' + quoted(field('why') || '…'),
    ready: () => byId('lever-word').value === 'lockdown',
    async preview() {
      const status = await ask('v1/status');
      const rate = status.lanes.filter((lane) => lost.includes(lane.name)).reduce((sum, lane) => sum + lane.servedPerSecond, 0);
      return [['Refuses ' + lost.join(', ') + ': ' + Math.round(rate) + ' of ' + Math.round(status.servedPerSecond) + ' requests a second that are served now.', 'warn'],
        ['Lets in break-glass, node-health, control-plane, platform. Running watches go on.'], ['Operators with their everyday credentials are refused, too: use the break-glass kubeconfig.', 'warn']];
    },
  },
  limit: {
    title: 'Hold the limit L', yes: 'Hold it', path: 'v1/limit', undo: () => ({ path: 'v1/limit/release', body: {} }),
    body: () => ({ hold: field('hold'), seats: Number(field('seats')), forSeconds: Number(field('until')), reason: field('why') }),
    command: () => 'spillway limit ' + (field('hold') === 'exactly' ? 'pin ' : 'set ') + (field('seats') || '…') + ' --for ' + time(Number(field('until'))) + ' --reason ' + quoted(field('why') || '…'),
    ready: () => /^[1-9][0-9]*$/.test(field('seats')) && !byId('lever-preview').querySelector('.bad'),
    async preview() {
      const status = await ask('v1/status'), seats = Number(field('seats'));
      const lines = [['L is ' + status.limit + ' seats now, ' + status.seats + ' in use; the policy lets it be ' + status.limitMin + ' to ' + status.limitMax + '.']];
      if (!field('seats')) return lines.concat([['Say how many seats.']]);
      if (seats < status.limitMin || seats > status.limitMax) return lines.concat([['■ ' + seats + ' is outside of what the policy allows.', 'bad']]);
      if (seats < status.seats) lines.push(['▲ ' + (status.seats - seats) + ' of the seats in use are not given out again: lower lanes wait and are refused.', 'warn']);
      if (field('hold') === 'exactly') lines.push(['▲ If kube-apiserver gets slower, L stays at ' + seats + '.', 'warn']);
      return lines;
    },
  },
  approve: {
    title: 'Approve a newcomer', yes: 'Approve', path: 'v1/newcomers/approve', undo: (body) => ({ path: 'v1/newcomers/doubt', body: { name: body.name, program: body.program } }),
    body: (whom) => ({ name: whom.name, program: whom.program, lane: field('lane') || null, reason: field('why') }),
    command: (whom) => 'spillway newcomers approve ' + quoted(whom.name) + (whom.program ? ' --program ' + quoted(whom.program) : '') + (field('lane') ? ' --as ' + field('lane') : '') + ' --reason ' + quoted(field('why') || '…'),
    ready: () => true,
    async preview(whom) {
      const all = await ask('v1/newcomers'), one = all.newcomers.find((other) => other.user === whom.user && other.program === whom.program);
      if (!one) return [['It is not new any more.', 'warn']];
      const lane = field('lane') ? 'It is ranked no higher than ' + field('lane') + '.' : 'It is ranked as the rules say, and gives way to nobody for being new.';
      return [[one.user + (one.program ? ', ' + one.program : '') + ': ' + (one.spreads ? 'on ' + one.places + ' of ' + all.nodes + ' nodes' : one.places + (one.places === 1 ? ' place' : ' places')) + ', ' + one.growthPerSecond.toFixed(1) + ' more each second.'],
        [(one.warned ? '■ ' : '● ') + 'When everywhere it takes ' + one.projectedSeats.toFixed(1) + ' of ' + all.limit + ' seats; warned of from ' + Math.round(all.warnedFrom) + ' on.', one.warned ? 'bad' : 'ok'], [lane], ['It stays known until somebody doubts it: spillway newcomers doubt.']];
    },
  },
};
async function ask(path) {
  const answer = await fetch(path, { headers: headers() }), said = await answer.json();
  if (!answer.ok) throw said;
  return said;
}
let whom = null, looked = 0, seen = false;
function pull(data) {
  whom = { ...data }; pulled.reset();
  const is = LEVERS[whom.kind];
  byId('lever-title').textContent = is.title + (whom.name ? ': ' + whom.name : ''); byId('lever-yes').textContent = is.yes;
  for (const part of pulled.querySelectorAll('[data-for]')) part.hidden = !part.dataset.for.split(' ').includes(whom.kind);
  byId('lever').showModal(); byId('lever-why').focus(); foresee();
}
function ripe() { byId('lever-yes').disabled = !(seen && field('why') && LEVERS[whom.kind].ready()); }
async function foresee() {
  const is = LEVERS[whom.kind], turn = ++looked;
  byId('lever-command').textContent = is.command(whom); seen = false; ripe();
  let lines;
  try { lines = await is.preview(whom); } catch (problem) { lines = [[trouble(problem), 'bad']]; }
  if (turn !== looked) return;
  byId('lever-preview').replaceChildren(list(lines)); seen = true; ripe();
}
let writing = 0;
pulled.addEventListener('input', () => { byId('lever-command').textContent = LEVERS[whom.kind].command(whom); seen = false; ripe(); clearTimeout(writing); writing = setTimeout(foresee, 250); });
pulled.addEventListener('submit', async (event) => {
  event.preventDefault();
  if (byId('lever-yes').disabled) return;
  byId('lever-yes').disabled = true;
  const is = LEVERS[whom.kind], body = is.body(whom);
  try {
    const { kept } = await post(is.path, body);
    byId('lever').close();
    toast('Done: ' + byId('lever-title').textContent + '.' + (kept.onDisk ? '' : ' It would not survive a restart: ' + kept.problem), is.undo(body));
  } catch (problem) { byId('lever-preview').replaceChildren(list([[trouble(problem), 'bad']])); ripe(); }
});

let todo = null;
function sure(title, text, command, path, body) {
  byId('sure-title').textContent = title; byId('sure-text').textContent = text; byId('sure-command').textContent = command;
  todo = { path, body, title }; byId('sure').showModal();
}
byId('sure-form').addEventListener('submit', async (event) => {
  event.preventDefault(); byId('sure').close();
  try { await post(todo.path, todo.body); toast('Done: ' + todo.title.replace(/\?$/, '') + '.'); } catch (problem) { toast(trouble(problem)); }
});

enter().then((may) => { if (may) follow(); });
})();
