/** SIGTERM: no request is lost, running work ends by itself or is cut in time, exit 0. */
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const http = require('node:http');
const { describe, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { WebSocket } = require('ws');
const {
  isRefused, request, startServer, until, untilRefused,
} = require('../testing/server-process.js');

const CLIENTS = 12;
const LOAD_LIMIT_MS = 20_000;

/**
 * Starts clients that send one request after the other, half of them over kept connections, until
 * they are told to stop or the listener is closed. `lost` are the requests that failed before that.
 */
function startClients(t, server) {
  const load = { answered: 0, refused: 0, lost: [], notClosed: 0, stop: false };
  const end = performance.now() + LOAD_LIMIT_MS;
  async function client(keepAlive) {
    const agent = new http.Agent({ keepAlive, maxSockets: 1 });
    t.after(() => agent.destroy());
    while (!load.stop && load.refused === 0 && performance.now() < end) {
      const draining = server.stdout.includes('draining');
      try {
        const { status, headers } = await request(server.port, '/', { agent });
        assert.equal(status, 200);
        load.answered += 1;
        if (draining && headers.connection !== 'close') load.notClosed += 1;
      } catch (error) {
        if (await isRefused(server.port)) load.refused += 1;
        else load.lost.push(error);
      }
      await sleep(Math.random() * 10);
    }
  }
  load.done = Promise.all(Array.from({ length: CLIENTS }, (_, i) => client(i % 2 === 0)));
  return load;
}

async function openWebSocket(t, port) {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/ws`);
  t.after(() => ws.terminate());
  await once(ws, 'open');
  return ws;
}

describe('drain', { concurrency: 20 }, () => {
  for (const learnsAfterMs of [100, 1600, 2500]) {
    test(`a balancer that learns of it after ${learnsAfterMs} ms loses nothing`, async (t) => {
      const server = await startServer();
      const load = startClients(t, server);
      await until('requests run', () => load.answered > 50);
      await server.signal('SIGTERM');
      await sleep(learnsAfterMs);
      load.stop = true;
      await load.done;
      assert.deepEqual(load.lost, []);
      assert.equal(load.refused, 0);
      assert.equal(load.notClosed, 0);
      assert.equal(await server.exit(), 0);
      assert.equal(server.stderr, '');
    });
  }

  test('clients that never learn of it are refused in the end, and nothing is lost', async (t) => {
    const server = await startServer({ DRAIN_TIMEOUT: '5' });
    const load = startClients(t, server);
    await until('requests run', () => load.answered > 50);
    await server.signal('SIGTERM');
    await load.done;
    assert.ok(load.refused > 0);
    assert.deepEqual(load.lost, []);
    assert.equal(await server.exit(), 0);
    assert.match(server.stdout, /webapp: drained\n$/);
  });

  test('a single request that comes late is accepted', async () => {
    const server = await startServer();
    await server.signal('SIGTERM');
    await sleep(500);
    assert.equal((await request(server.port, '/')).status, 200);
    assert.equal(await server.exit(), 0);
  });

  test('an idle connection can still send a request, which closes it', async (t) => {
    const server = await startServer();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    await request(server.port, '/', { agent });
    const [socket] = Object.values(agent.freeSockets)[0];
    await server.signal('SIGTERM');
    const { headers } = await request(server.port, '/', { agent });
    assert.equal(headers.connection, 'close');
    await until('the connection is closed', () => socket.destroyed);
    assert.equal(await server.exit(), 0);
  });

  test('idle and silent connections do not keep the node', async (t) => {
    const server = await startServer({ DRAIN_TIMEOUT: '600' });
    const agent = new http.Agent({ keepAlive: true });
    t.after(() => agent.destroy());
    await request(server.port, '/', { agent });
    await once(agent.createConnection({ port: server.port }), 'connect');
    await server.signal('SIGINT');
    assert.equal(await server.exit(), 0);
  });

  test('health checks do not keep the node, and succeed until it is gone', async (t) => {
    const server = await startServer({ DRAIN_TIMEOUT: '600' });
    const agent = new http.Agent({ keepAlive: true });
    t.after(() => agent.destroy());
    await server.signal('SIGTERM');
    await until('the listener is closed', () =>
      request(server.port, '/health', { agent }).then(
        ({ status }) => assert.equal(status, 200),
        (error) => error.code === 'ECONNREFUSED',
      ),
    );
    assert.equal(await server.exit(), 0);
  });

  test('a delayed answer and a download end by themselves', async () => {
    const server = await startServer();
    const headers = { 'Content-Type': 'application/json' };
    await request(server.port, '/delay', { method: 'POST', headers, body: '{"delay": 4000}' });
    const download = request(server.port, '/slow?seconds=4');
    const expect = { Expect: '100-continue' };
    const delayed = http.get({ host: '127.0.0.1', port: server.port, headers: expect });
    const answer = once(delayed, 'response');
    await once(delayed, 'continue'); // the server has the request
    await server.signal('SIGTERM');
    await untilRefused(server.port);
    const [response] = await answer;
    response.resume();
    assert.equal(response.statusCode, 200);
    assert.equal(response.headers.connection, 'close');
    assert.equal((await download).text, '1 of 4\n2 of 4\n3 of 4\n4 of 4\n');
    assert.equal(await server.exit(), 0);
  });

  test('what runs too long is cut: a download, and a websocket with code 1001', async (t) => {
    const server = await startServer({ DRAIN_TIMEOUT: '3' });
    const ws = await openWebSocket(t, server.port);
    const closed = once(ws, 'close');
    const download = assert.rejects(request(server.port, '/slow?seconds=600'), { code: 'ECONNRESET' });
    await server.signal('SIGTERM');
    await untilRefused(server.port);
    ws.send('after the listener closed');
    assert.equal(String((await once(ws, 'message'))[0]), 'after the listener closed');
    assert.equal((await closed)[0], 1001);
    await download;
    assert.equal(await server.exit(), 0);
  });

  test('the node goes when its last websocket goes', async (t) => {
    const server = await startServer({ DRAIN_TIMEOUT: '600' });
    const ws = await openWebSocket(t, server.port);
    await server.signal('SIGTERM');
    await untilRefused(server.port);
    assert.equal(server.end, undefined);
    ws.close();
    assert.equal(await server.exit(), 0);
  });

  test('a second signal ends it at once', async () => {
    const server = await startServer({ DRAIN_TIMEOUT: '600' });
    await server.signal('SIGINT');
    server.child.kill('SIGTERM');
    assert.equal(await server.exit(), 143);
  });

  test('without time to drain, it ends at once with 0', async (t) => {
    const server = await startServer({ DRAIN_TIMEOUT: '0' });
    const ws = await openWebSocket(t, server.port);
    const closed = once(ws, 'close');
    await server.signal('SIGTERM');
    assert.equal((await closed)[0], 1001);
    assert.equal(await server.exit(), 0);
  });
});
