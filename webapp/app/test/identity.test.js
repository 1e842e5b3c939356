/** Identity: where the tag comes from. */
'use strict';

const assert = require('node:assert/strict');
const os = require('node:os');
const { test } = require('node:test');
const { describeNode } = require('../identity.js');

test('TAG goes before the name of the address', async () => {
  const node = await describeNode({ TAG: 's1' }, async () => 'other.heig');
  assert.equal(node.tag, 's1');
  assert.equal(node.host, os.hostname());
  assert.match(node.ip, /^\d+\.\d+\.\d+\.\d+$/);
});

test('the network is cut off the name of the address', async () => {
  assert.equal((await describeNode({}, async () => 's1.heig')).tag, 's1');
  assert.equal((await describeNode({}, async () => 'web.s1.heig')).tag, 'web.s1');
  assert.equal((await describeNode({ TAG: '' }, async () => 's1')).tag, 's1');
});

test('without a name the tag is the host name', async () => {
  assert.equal((await describeNode({}, async () => undefined)).tag, os.hostname());
});

test('the real lookup always ends', async () => {
  assert.ok((await describeNode({})).tag);
});
