/**
 * Who this node is: its address, its host name and its tag.
 */
'use strict';

const os = require('node:os');
const { Resolver } = require('node:dns').promises;

const LOOKUP_LIMIT_MS = 1000;

/** The node's first IPv4 address that is not loopback, or undefined. */
function ownAddress() {
  const addresses = Object.values(os.networkInterfaces()).flat();
  return addresses.find((a) => a.family === 'IPv4' && !a.internal)?.address;
}

/**
 * The name that the DNS server has for an IPv4 address, or undefined.
 *
 * This asks for the PTR record itself: `dns.reverse` looks into /etc/hosts first, finds the
 * container's own line there, and answers with an empty list.
 */
async function reverseName(ip) {
  const resolver = new Resolver({ tries: 1 });
  const limit = setTimeout(() => resolver.cancel(), LOOKUP_LIMIT_MS);
  try {
    const [name] = await resolver.resolvePtr(`${ip.split('.').reverse().join('.')}.in-addr.arpa`);
    return name;
  } catch {
    return undefined; // no such record, no DNS server, or no answer in time
  } finally {
    clearTimeout(limit);
  }
}

/**
 * Describes this node.
 *
 * The tag is `TAG` from the environment; else the container's name, which Docker's DNS server
 * gives as `<container>.<network>` (a container's name may have dots itself, so only the last
 * part is cut off); else the host name.
 *
 * @param {Record<string, string | undefined>} env the environment
 * @param {(ip: string) => Promise<string | undefined>} [lookup] finds the name of an address
 * @returns {Promise<{ip: string, host: string, tag: string}>}
 */
async function describeNode(env, lookup = reverseName) {
  const ip = ownAddress();
  const host = os.hostname();
  const name = !env.TAG && ip ? await lookup(ip) : undefined;
  const tag = env.TAG || name?.replace(/\.[^.]*$/, '') || host;
  return { ip: ip ?? '127.0.0.1', host, tag };
}

module.exports = { describeNode };
