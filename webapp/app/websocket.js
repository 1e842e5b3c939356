/**
 * The websocket echo at /ws.
 */
'use strict';

const { WebSocketServer } = require('ws'); // Debian's package node-ws

const MAX_MESSAGE_BYTES = 64 * 1024;
const NOT_FOUND =
  'HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n' +
  '{"error":"no such path"}\n';
const GOING_AWAY = 1001;

function echo(ws) {
  ws.on('error', () => {}); // ws closes the connection itself, with the code that fits
  ws.on('message', (data, binary) => {
    // The next message is read when this one is on its way: a client that never reads
    // cannot fill the memory.
    ws.pause();
    ws.send(data, { binary }, () => ws.resume());
  });
}

/**
 * Answers websocket handshakes on /ws; refuses every other upgrade.
 *
 * @param {import('node:http').Server} server
 * @returns {{closeAll: () => void}} `closeAll` says goodbye (code 1001) to every client
 */
function attachEcho(server) {
  const wss = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES });
  server.on('upgrade', (req, socket, head) => {
    if (req.url.split('?', 1)[0] === '/ws') return wss.handleUpgrade(req, socket, head, echo);
    socket.on('error', () => {});
    socket.end(NOT_FOUND, () => socket.destroy());
  });
  return {
    closeAll() {
      for (const ws of wss.clients) ws.close(GOING_AWAY, 'the node stops');
    },
  };
}

module.exports = { attachEcho };
