
// A proposal that is played takes up to a minute: its form is sent without leaving the page, which says how far it is until the answer
// takes its place.
async function followProposal(form) {
  const line = document.createElement('p');
  line.className = 'played';
  const words = document.createElement('span');
  words.className = 'quiet';
  words.role = 'status';
  words.textContent = 'Checking it';
  const bar = document.createElement('progress');
  bar.max = 100;
  bar.ariaLabel = 'How far the days are played';
  line.append(words, bar);
  form.querySelector('.actions').append(line);
  let said = 0;
  const played = (percent) => {
    bar.value = percent;
    // Those who hear the page hear at most one change a second.
    if (performance.now() - said < 1000) return;
    said = performance.now();
    words.textContent = `Played ${percent}\u00a0% of the days`;
  };
  const show = (html) => {
    const page = new DOMParser().parseFromString(html, 'text/html');
    const main = page.querySelector('main');
    document.title = page.title;
    document.querySelector('main').replaceWith(main);
    history.replaceState(null, '', form.action);
    scrollTo(0, 0);
    main.tabIndex = -1;
    main.focus();
  };
  const fail = (why) => {
    words.textContent = why;
    bar.remove();
    delete form.dataset.sent;
  };
  try {
    const request = { method: 'post', body: new FormData(form), headers: { accept: 'application/x-ndjson, text/html' } };
    const answer = await fetch(form.action, request);
    // What is wrong with the form, or with its sender, is told as a page.
    if (!answer.headers.get('content-type')?.startsWith('application/x-ndjson')) return show(await answer.text());
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return fail('It ended without an answer. Send it again.');
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const told of lines.map((text) => JSON.parse(text))) {
        if (told.page !== undefined) return show(told.page);
        if (told.failed) return fail('It could not be shown. Send it again.');
        played(told.percent);
      }
    }
  } catch {
    fail('The service does not answer. Send it again.');
  }
}

document.addEventListener('submit', (event) => {
  const form = event.target;
  if (event.defaultPrevented || !form.matches('form[data-follow]') || !form.elements.replay.checked) return;
  event.preventDefault();
  for (const before of form.querySelectorAll('.played')) before.remove();
  followProposal(form);
});
