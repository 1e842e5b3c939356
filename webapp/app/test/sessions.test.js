/** Sessions: counting, bounds, and which cookies are accepted. */
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Sessions } = require('../sessions.js');

const cookie = (id) => `NODESESSID=${id}`;

test('a new session starts at one view and sets its cookie', () => {
  const { id, views, setCookie } = new Sessions().view();
  assert.equal(views, 1);
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.equal(setCookie, `NODESESSID=${id}; Path=/; HttpOnly; SameSite=Lax`);
});

test('a known session is counted and sets no cookie', () => {
  const sessions = new Sessions();
  const { id } = sessions.view();
  assert.deepEqual(sessions.view(cookie(id)), { id, views: 2 });
  assert.deepEqual(sessions.view(`a=b; ${cookie(id)};c`), { id, views: 3 });
  assert.deepEqual(sessions.view(`${cookie('stale')}; ${cookie(id)}`), { id, views: 4 });
});

test('an id that was not given out gets a new session', () => {
  const sessions = new Sessions();
  const { id } = sessions.view();
  const strangers = ['', 'x', `s1~${id}`, id.toUpperCase(), '__proto__', '%0d%0aSet-Cookie:a', '=', ';'];
  for (const value of strangers) {
    const answer = sessions.view(cookie(value));
    assert.equal(answer.views, 1);
    assert.notEqual(answer.id, id);
    assert.ok(answer.setCookie.startsWith(cookie(answer.id)));
  }
  assert.equal(sessions.view(`OTHER${cookie(id)}`).views, 1);
});

test('a full store drops the session that was idle for longest', () => {
  const sessions = new Sessions({ max: 2 });
  const first = sessions.view().id;
  const second = sessions.view().id;
  sessions.view(cookie(first));
  sessions.view();
  assert.equal(sessions.view(cookie(first)).views, 3);
  assert.equal(sessions.view(cookie(second)).views, 1);
});

test('an idle session expires, a used one does not', () => {
  let now = 0;
  const sessions = new Sessions({ idleMs: 100, now: () => now });
  const used = sessions.view().id;
  const idle = sessions.view().id;
  now = 60;
  sessions.view(cookie(used));
  now = 120;
  assert.equal(sessions.view(cookie(used)).views, 3);
  assert.equal(sessions.view(cookie(idle)).views, 1);
});
