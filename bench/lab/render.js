// Renders a Handlebars template: node render.js TEMPLATE <LINES, each of them `<name> <address>`.
const fs = require('fs');
const handlebars = require('handlebars');

const lines = fs.readFileSync(0, 'utf8').trim().split('\n');
const addresses = lines.map((line) => {
  const [host, ip] = line.split(' ');
  return { host, ip, port: process.env.BACKEND_PORT, weight: 100 };
});
const template = handlebars.compile(fs.readFileSync(process.argv[2], 'utf8'), { noEscape: true });
// The image's template has a section for each service.
const services = [{ name: 'nodes', check: '/health', cookie: 'NODESESSID', nodes: addresses }];
process.stdout.write(template({ addresses, services, routes: [], fallback: 'nodes' }));
