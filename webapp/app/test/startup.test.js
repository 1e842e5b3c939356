/** Start-up: the environment, and the port. */
'use strict';

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { ServerProcess, request, startServer } = require('../testing/server-process.js');

describe('start-up', { concurrency: 2 }, () => {
  for (const env of [
    { PORT: 'http' }, { PORT: '-1' }, { PORT: '65536' }, { PORT: '80 ' }, { PORT: '\n80' },
    { DRAIN_TIMEOUT: 'x' }, { DRAIN_TIMEOUT: '-1' }, { DRAIN_TIMEOUT: '1.5' }, { DRAIN_TIMEOUT: '86401' },
  ]) {
    test(`${JSON.stringify(env)} is refused`, async () => {
      const server = new ServerProcess(env);
      assert.equal(await server.exit(), 2);
      assert.match(server.stderr, /^webapp: (PORT|DRAIN_TIMEOUT): must be a whole number .*\n$/);
      assert.equal(server.stdout, '');
    });
  }

  test('a taken port is one line and exit 1', async () => {
    const first = await startServer({ DRAIN_TIMEOUT: '' });
    const second = new ServerProcess({ PORT: String(first.port) });
    assert.equal(await second.exit(), 1);
    assert.equal(second.stderr, `webapp: port ${first.port} is taken\n`);
    assert.equal((await request(first.port, '/')).status, 200);
  });
});
