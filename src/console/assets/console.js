// Keeps pages up to date. Every page is whole without it.

// The least time between two readings of the page, in ms: events come at up to four a second.
const pace = 2000;

// Follows the events that a page names, and replaces what changed in place.
function follow(mark) {
  let source;
  let due;
  let later;
  const refresh = () => {
    due ??= setTimeout(async () => {
      due = undefined;
      const trouble = await replace();
      if (trouble) {
        show(trouble, true);
        clearTimeout(later);
        later = setTimeout(refresh, 8000);
      } else if (source.readyState === EventSource.OPEN) {
        show('live', false);
      }
    }, pace);
  };
  const start = () => {
    source?.close();
    source = new EventSource(mark.dataset.events);
    // The first snapshot comes with the stream itself, and makes up for what changed since the page was made.
    for (const kind of ['budget', 'alert', 'snapshot']) source.addEventListener(kind, refresh);
    // The policy changed, or the service stops: what may be seen now, the page itself says.
    source.addEventListener('end', refresh);
    source.onopen = () => show('live', false);
    source.onerror = () => {
      show('not live: trying again', true);
      // Browsers try no more where the answer was none of events: as many streams are open as may be, or the session is over.
      if (source.readyState === EventSource.CLOSED) {
        refresh();
        setTimeout(start, 30_000);
      }
    };
  };
  const show = (words, held) => {
    mark.hidden = false;
    mark.classList.toggle('live-held', held);
    if (mark.textContent !== words) mark.textContent = words;
  };
  // Browsers keep few connections to one host: a page that is not looked at gives its own back.
  document.addEventListener('visibilitychange', () => {
    source?.close();
    clearTimeout(later);
    if (document.visibilityState === 'visible') {
      start();
      refresh();
    }
  });
  start();
}

// Reads the page again, and takes over each live part that is another now, unless someone is in it. Answers why it could not be read.
async function replace() {
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } }).catch(() => undefined);
  // The session is over, or the reader may no longer see this: the page itself says so.
  if (answer?.redirected || [401, 403].includes(answer?.status)) location.reload();
  if (!answer?.ok) return answer?.status === 503 ? 'not live: the store does not answer' : 'not live: trying again';
  if (answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  for (const old of document.querySelectorAll('[data-live-class]')) {
    const fresh = page.getElementById(old.id);
    if (fresh) old.className = fresh.className;
  }
  for (const old of document.querySelectorAll('[data-live]')) {
    const fresh = page.getElementById(old.id);
    if (!fresh || old.contains(document.activeElement)) continue;
    const open = [...old.querySelectorAll('details')].map((details) => details.open);
    [...fresh.querySelectorAll('details')].forEach((details, place) => { details.open = open[place] ?? false; });
    if (fresh.innerHTML !== old.innerHTML) old.replaceChildren(...fresh.childNodes);
  }
}

const mark = document.getElementById('live-mark');
if (mark) follow(mark);
