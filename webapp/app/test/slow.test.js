/** What takes its time: the delay of the front page, and slow downloads. */
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const http = require('node:http');
const { before, test } = require('node:test');
const { createRoutes } = require('../routes.js');
const { Sessions } = require('../sessions.js');
const { request, startServer, until } = require('../testing/server-process.js');

let get;
before(async () => {
  const { port } = await startServer();
  get = (target, options) => request(port, target, options);
});

function postDelay(body, headers = { 'Content-Type': 'application/json' }) {
  return get('/delay', { method: 'POST', headers, body });
}

test('the delay slows the front page and nothing else', async () => {
  assert.deepEqual((await postDelay('{"delay": 300}')).json(), { delay: 300 });
  const order = [];
  await Promise.all([
    get('/').then(() => order.push('slowed')),
    get('/health').then(() => order.push('health')),
  ]);
  assert.deepEqual(order, ['health', 'slowed']);

  const began = performance.now();
  await get('/');
  assert.ok(performance.now() - began >= 290);
  const off = await postDelay('{"delay": 0}', { 'Content-Type': 'Application/JSON; charset=utf-8' });
  assert.deepEqual(off.json(), { delay: 0 });
});

test('a bad delay is refused with its reason', async () => {
  const cases = [
    ['', /not JSON/],
    ['delay=5', /not JSON/],
    ['{"delay": 5', /not JSON/],
    ['null', /whole number/],
    ['5', /whole number/],
    ['[5]', /whole number/],
    ['{}', /whole number/],
    ['{"delay": "5"}', /whole number/],
    ['{"delay": null}', /whole number/],
    ['{"delay": -1}', /whole number/],
    ['{"delay": 1.5}', /whole number/],
    ['{"delay": 60001}', /whole number/],
    ['{"delay": 1e999}', /whole number/],
    [`{"delay": 5${' '.repeat(1024)}}`, /longer than 1024/],
    ['x'.repeat(2_000_000), /longer than 1024/],
  ];
  for (const [body, reason] of cases) {
    const { status, json } = await postDelay(body);
    assert.equal(status, 400, body.slice(0, 40));
    assert.match(json().error, reason);
  }
  for (const headers of [{}, { 'Content-Type': 'text/plain' }]) {
    const { status, json } = await postDelay('{"delay": 5}', headers);
    assert.equal(status, 400);
    assert.match(json().error, /Content-Type/);
  }
});

test('a slow download comes line by line and ends', async () => {
  const { status, text } = await get('/slow?seconds=2');
  assert.equal(status, 200);
  assert.equal(text, '1 of 2\n2 of 2\n');
});

test('a bad length of a slow download is refused', async () => {
  for (const query of ['', '?seconds=', '?seconds=0', '?seconds=601', '?seconds=-1', '?seconds=1.5',
    '?seconds=1e2', '?seconds=%zz', '?seconds=a', '?Seconds=1']) {
    const { status, json } = await get(`/slow${query}`);
    assert.equal(status, 400, query);
    assert.match(json().error, /from 1 to 600/);
  }
});

test('clients that go away leave no timer behind', async (t) => {
  const node = { ip: '127.0.0.1', host: 'h', tag: 't' };
  const local = http.createServer(createRoutes(node, new Sessions())).listen(0);
  t.after(() => local.close());
  await once(local, 'listening');
  const { port } = local.address();
  const headers = { 'Content-Type': 'application/json' };
  await request(port, '/delay', { method: 'POST', headers, body: '{"delay": 60000}', agent: false });

  const spy = (...names) => names.map((name) => t.mock.method(globalThis, name).mock);
  const started = spy('setTimeout', 'setInterval');
  const stopped = spy('clearTimeout', 'clearInterval');
  const timersStarted = () => started.flatMap(({ calls }) => calls.map((call) => call.result));
  const timersStopped = () => stopped.flatMap(({ calls }) => calls.map((call) => call.arguments[0]));

  const requests = ['/slow?seconds=600', '/'].map((path) => http.get({ port, path, agent: false }));
  for (const req of requests) req.on('error', () => {});
  await until('both timers run', () => timersStarted().length === 2);
  for (const req of requests) req.destroy();
  await until('both timers are stopped', () =>
    timersStarted().every((timer) => timersStopped().includes(timer)),
  );
});
