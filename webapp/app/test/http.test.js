/** What the server answers over HTTP, to good and to bad requests. */
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const { before, test } = require('node:test');
const { request, startServer } = require('../testing/server-process.js');

let server;
let get;
before(async () => {
  server = await startServer();
  get = (target, options) => request(server.port, target, options);
});

/** Sends bytes as they are; resolves with all that comes back until the server closes. */
async function sendRaw(text) {
  const socket = net.connect(server.port);
  socket.write(text);
  let answer = '';
  for await (const chunk of socket) answer += chunk;
  return answer;
}

test('the front page describes the node', async () => {
  const { status, headers, json } = await get('/');
  const { ip, id, ...rest } = json();
  assert.equal(status, 200);
  assert.deepEqual(rest, { hello: 'world!', host: os.hostname(), tag: 'test', sessionViews: 1 });
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.equal(headers['content-type'], 'application/json');
  assert.equal(headers['x-backend-ip'], ip);
});

test('a session is followed by its cookie', async () => {
  const first = await get('/');
  const cookie = first.headers['set-cookie'][0].split(';')[0];
  assert.equal(cookie, `NODESESSID=${first.json().id}`);
  for (const views of [2, 3]) {
    const next = await get('/?reload', { headers: { cookie } });
    assert.equal(next.json().sessionViews, views);
    assert.equal(next.json().id, first.json().id);
    assert.equal(next.headers['set-cookie'], undefined);
  }
});

test('a foreign cookie gets a new session and is not repeated', async () => {
  for (const value of ['evil<script>', 's1~evil', '"evil"', 'evil'.repeat(1000)]) {
    const { status, headers, text, json } = await get('/', {
      headers: { cookie: `NODESESSID=${value}` },
    });
    assert.equal(status, 200);
    assert.equal(json().sessionViews, 1);
    assert.ok(headers['set-cookie'][0].startsWith(`NODESESSID=${json().id};`));
    assert.ok(!`${JSON.stringify(headers)}${text}`.includes('evil'));
  }
});

test('HEAD answers without a body', async () => {
  for (const target of ['/', '/health', '/slow?seconds=600']) {
    const { status, text } = await get(target, { method: 'HEAD' });
    assert.equal(status, 200);
    assert.equal(text, '');
  }
});

test('connections are kept alive', async (t) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const sockets = new Set();
  agent.on('free', (socket) => sockets.add(socket));
  for (const target of ['/', '/health', '/none', '/', '/slow']) await get(target, { agent });
  assert.equal(sockets.size, 1);
});

test('health checks make no session', async () => {
  const { status, headers, json } = await get('/health');
  assert.equal(status, 200);
  assert.deepEqual(json(), { status: 'ok' });
  assert.equal(headers['set-cookie'], undefined);
});

test('unknown paths and wrong methods', async () => {
  for (const target of ['/none', '/health/', '//', '/%', '/%00', '/../', '/constructor', '*', 'http://[']) {
    const { status, json } = await get(target);
    assert.equal(status, 404, target);
    assert.deepEqual(json(), { error: 'no such path' });
  }
  for (const [method, target, allow] of [
    ['POST', '/', 'GET, HEAD'],
    ['DELETE', '/health', 'GET, HEAD'],
    ['GET', '/delay', 'POST'],
    ['PUT', '/slow?seconds=1', 'GET, HEAD'],
  ]) {
    const { status, headers } = await get(target, { method });
    assert.equal(status, 405);
    assert.equal(headers.allow, allow);
  }
  assert.equal((await get('/ws')).status, 426);
});

test('what is not HTTP is refused, and the server goes on', async () => {
  assert.match(await sendRaw('nonsense\r\n\r\n'), /^HTTP\/1\.1 400 /);
  assert.match(await sendRaw(`GET / HTTP/1.1\r\nA: ${'a'.repeat(20_000)}\r\n\r\n`), /^HTTP\/1\.1 431 /);
  assert.match(await sendRaw('GET / HTTP/1.0\r\n\r\n'), /^HTTP\/1\.1 200 /);
  assert.equal(await sendRaw('CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n'), '');
  const twice = await sendRaw('GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.0\r\n\r\n');
  assert.match(twice, /^HTTP\/1\.1 200 .*HTTP\/1\.1 404 /s);

  const halfBody = net.connect(server.port);
  halfBody.write('POST /delay HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n' +
    'Content-Length: 20\r\n\r\n{"delay"');
  halfBody.end();
  halfBody.resume();
  await once(halfBody, 'close');
  assert.equal((await get('/health')).status, 200);
  assert.equal(server.stderr, '');
});
