
// Decisions as they are made: new rows on top of the list, a line that counts the last minute, and a list that can be held. What others
// wrote is only ever text.
function watchDecisions(list) {
  // The most rows, as the page has.
  const most = 100;
  const table = list.querySelector('.table');
  const rows = list.querySelector('tbody');
  const tally = document.getElementById('tally');
  const form = document.getElementById('hold');
  const button = form.querySelector('button');
  const older = document.getElementById('older');
  const cameHeld = list.hasAttribute('data-held');
  const number = new Intl.NumberFormat('en-US');
  const clock = new Intl.DateTimeFormat('en-GB', {
    timeZone: list.dataset.zone, hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23',
  });
  // Each second of the last minute: how many there were, and how many of them denied.
  const seconds = new Map();
  for (const part of list.dataset.minute.split(' ').filter(Boolean)) {
    const [second, all, denied] = part.split(':').map(Number);
    seconds.set(second, [all, denied]);
  }
  const began = Number(list.dataset.now) - performance.now() / 1000;
  // Someone who reads an explanation is not to lose their place.
  let held = cameHeld || rows.querySelector('.explain') !== null;
  let newer = Number(list.dataset.newer);
  let leftOut = 0;
  let trouble = '';
  let waiting = [];
  let source;
  let last = new URL(list.dataset.events, location.href).searchParams.get('after');

  const element = (name, className, ...content) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...content);
    return made;
  };

  const cost = (money) => {
    if (!money) return '';
    const micros = Number(money.units ?? 0) * 1e6 + Math.round((money.nanos ?? 0) / 1e3);
    return `$${number.format(Math.floor(micros / 1e6))}.${String(micros % 1e6).padStart(6, '0')}`;
  };

  const many = (count, name) => `${number.format(count)}\u00a0${name}${count === 1 ? '' : 's'}`;

  const input = (facts) => {
    if (!facts) return '';
    if (facts.batch) return many(Number(facts.batch.requestCount), 'line');
    if (facts.audioDuration) return `${number.format(Math.floor(parseFloat(facts.audioDuration) * 10) / 10)}\u00a0s`;
    if (Number(facts.characterCount) > 0) return many(Number(facts.characterCount), 'character');
    return number.format(Number(facts.inputTokens));
  };

  const output = (facts) => (Number(facts?.maxOutputTokens ?? 0) > 0 ? number.format(Number(facts.maxOutputTokens)) : '');

  const result = (event) => {
    if (event.decision === 'DECISION_DENIED') return element('span', 'badge badge-over', 'denied');
    if (event.degraded) return element('span', 'badge badge-warn', 'without the store');
    if (event.shadowViolations.length > 0) return element('span', 'badge badge-warn', 'in shadow');
    return element('span', 'quiet', 'allowed');
  };

  const when = (event, refused) => {
    const at = new Date(event.time);
    const time = element('time', '', clock.format(at));
    time.dateTime = at.toISOString();
    time.title = `${at.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
    if (refused.length === 0) return time;
    const link = element('a', '', time);
    const address = new URL(list.dataset.page, location.href);
    address.searchParams.set('open', event.id);
    link.href = address.pathname + address.search;
    return link;
  };

  const why = (refused) => {
    if (refused.length === 0) return [];
    const reason = element('span', 'reason', refused[0].reason.replace(/^REASON_/, ''));
    return refused.length === 1 ? [reason] : [reason, ' ', element('span', 'quiet', `and ${refused.length - 1} more`)];
  };

  const row = (event) => {
    const refused = event.violations.length > 0 ? event.violations : event.shadowViolations;
    const head = element('th', '', when(event, refused));
    head.scope = 'row';
    const operation = event.operation.replace(/^OPERATION_(UNSPECIFIED$)?/, '').toLowerCase().replaceAll('_', ' ');
    const made = element(
      'tr', '', head,
      element('td', '', result(event)),
      element('td', '', ...why(refused)),
      element('td', '', event.team),
      element('td', '', event.key),
      element('td', '', element('bdi', '', event.model)),
      element('td', '', operation),
      element('td', 'num', input(event.request)),
      element('td', 'num', output(event.request)),
      element('td', 'num', cost(event.reservedCost)),
    );
    made.dataset.id = event.id;
    return made;
  };

  // What comes before the last row, of a list that is held from then on.
  const leadToOlder = () => {
    const listed = [...rows.querySelectorAll('tr[data-id]')];
    if (listed.length === 0) return;
    const address = new URL(list.dataset.page, location.href);
    address.searchParams.set('hold', listed[0].dataset.id);
    address.searchParams.set('before', listed.at(-1).dataset.id);
    older.href = address.pathname + address.search;
    if (listed.length >= most) older.hidden = false;
  };

  const words = () => {
    let [all, denied] = [0, 0];
    for (const [some, refused] of seconds.values()) {
      all += some;
      denied += refused;
    }
    const none = denied === 0 ? 'none' : number.format(denied);
    const line = all === 0 ? 'None in the last minute' : `${number.format(all)} in the last minute, ${none} of them denied`;
    return held ? `${line}; held, ${number.format(newer)} newer` : line;
  };

  // Once a second, so that those who hear the page hear at most one change a second.
  const draw = () => {
    const now = Math.floor(began + performance.now() / 1000);
    for (const second of seconds.keys()) if (second <= now - 60) seconds.delete(second);
    if (!held && waiting.length > 0) {
      rows.prepend(...waiting.map(row).reverse());
      if (form.elements.hold) form.elements.hold.value = waiting.at(-1).id;
      waiting = [];
      for (const over of [...rows.children].slice(most)) over.remove();
      leadToOlder();
      table.hidden = false;
      document.getElementById('none').hidden = true;
    }
    const line = trouble || words();
    if (tally.textContent !== line) tally.textContent = line;
    tally.classList.toggle('live-held', held || trouble !== '');
    const label = held ? 'Follow' : 'Hold the list';
    if (button.textContent !== label) button.textContent = label;
  };

  const take = (message) => {
    const event = JSON.parse(message.data);
    last = message.lastEventId;
    const second = Math.floor(Date.parse(event.time) / 1000);
    const [all, denied] = seconds.get(second) ?? [0, 0];
    seconds.set(second, [all + 1, denied + (event.decision === 'DECISION_DENIED' ? 1 : 0)]);
    waiting.push(event);
    if (waiting.length > most) waiting.shift();
    if (held) newer += 1;
  };

  const lagged = (message) => {
    leftOut += Number(JSON.parse(message.data).skippedCount);
    const note = document.getElementById('left-out');
    note.hidden = false;
    note.textContent = `${number.format(leftOut)} left out: there were too many`;
  };

  const start = () => {
    const address = new URL(list.dataset.events, location.href);
    address.searchParams.set('after', last);
    source = new EventSource(address);
    source.addEventListener('decision', take);
    source.addEventListener('lagged', lagged);
    source.onopen = () => { trouble = ''; };
    source.onerror = () => {
      trouble = 'Not live: trying again';
      // What is refused is not asked again by the browser: the store does not answer, or the session is over.
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 5000);
    };
  };

  const again = async () => {
    if (source.readyState !== EventSource.CLOSED || document.visibilityState !== 'visible') return;
    const answer = await fetch(location.href, { headers: { accept: 'text/html' } }).catch(() => undefined);
    // The page itself says what its reader may see now.
    if (answer?.redirected || [401, 403].includes(answer?.status)) location.reload();
    else start();
  };

  form.addEventListener('submit', (event) => {
    // Of a list that was held when it came, the newer ones are not all here.
    if (cameHeld) return;
    event.preventDefault();
    held = !held;
    newer = 0;
    const address = new URL(location.href);
    const top = form.elements.hold.value;
    if (held && top) address.searchParams.set('hold', top);
    else address.searchParams.delete('hold');
    history.replaceState(null, '', address);
    draw();
  });
  // Browsers keep few connections to one host: a page that is not looked at gives its own back, and takes up where it was.
  document.addEventListener('visibilitychange', () => {
    source?.close();
    if (document.visibilityState === 'visible') start();
  });
  tally.classList.add('live');
  start();
  draw();
  setInterval(draw, 1000);
}

const decisions = document.getElementById('decisions');
if (decisions) watchDecisions(decisions);
