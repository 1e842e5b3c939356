/** The websocket echo. */
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { before, test } = require('node:test');
const { WebSocket } = require('ws');
const { request, startServer } = require('../testing/server-process.js');

let server;
before(async () => {
  server = await startServer();
});

async function open(t, target = '/ws') {
  const ws = new WebSocket(`ws://127.0.0.1:${server.port}${target}`);
  t.after(() => ws.terminate());
  await once(ws, 'open');
  return ws;
}

test('text and binary come back as they were', async (t) => {
  const ws = await open(t, '/ws?x=1');
  for (const message of ['hé', Buffer.from([0, 255, 10]), '', 'x'.repeat(64 * 1024)]) {
    ws.send(message);
    const [data, binary] = await once(ws, 'message');
    assert.deepEqual(data, Buffer.from(message));
    assert.equal(binary, typeof message !== 'string');
  }
});

test('many messages at once come back in order', async (t) => {
  const ws = await open(t);
  const sent = Array.from({ length: 500 }, (_, i) => String(i));
  const received = [];
  ws.on('message', (data) => received.push(String(data)));
  for (const message of sent) ws.send(message);
  ws.close();
  await once(ws, 'close');
  assert.deepEqual(received, sent);
});

test('a message over 64 KiB ends its connection only', async (t) => {
  const other = await open(t);
  const ws = await open(t);
  ws.send('x'.repeat(64 * 1024 + 1));
  const [code] = await once(ws, 'close');
  assert.equal(code, 1009);
  other.send('still here');
  assert.equal(String((await once(other, 'message'))[0]), 'still here');
});

test('an upgrade elsewhere is answered with 404', async () => {
  const ws = new WebSocket(`ws://127.0.0.1:${server.port}/none`);
  ws.on('error', () => {});
  const [, response] = await once(ws, 'unexpected-response');
  assert.equal(response.statusCode, 404);
  let body = '';
  for await (const chunk of response) body += chunk;
  assert.deepEqual(JSON.parse(body), { error: 'no such path' });
});

test('a bad handshake is refused', async () => {
  const headers = { Connection: 'Upgrade', Upgrade: 'websocket' };
  const { status } = await request(server.port, '/ws', { headers });
  assert.equal(status, 400);
  assert.equal(server.stderr, '');
});
