/**
 * A small HTTP application that runs as a workload in the router's tests. It says what it was
 * sent, misbehaves on request, and counts what reached it.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { WebSocketServer } from 'ws';

const counts = new Map<string, number>();
const cell = process.env['CELL'] ?? '';

type Handler = (request: IncomingMessage, response: ServerResponse, url: URL) => void;

const routes: Readonly<Record<string, Handler>> = {
  '/': (_, response) => void response.end(cell),
  '/healthz': (_, response) => void response.end('ok'),
  '/counts': (_, response) => void response.end(JSON.stringify(Object.fromEntries(counts))),
  '/echo': (request, response) => {
    const hash = createHash('sha256');
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      length += chunk.length;
    });
    request.on('end', () => {
      const { method, url, headers } = request;
      const body = { length, sha256: hash.digest('hex') };
      response.setHeader('content-type', 'application/json').setHeader('x-own', 'kept');
      response.setHeader('set-cookie', ['a=1', 'b=2']);
      response.end(JSON.stringify({ method, url, headers, body, cell, pid: process.pid }));
    });
  },
  /** Its own 421, dressed up as a refusal of the gate. */
  '/misdirected': (request, response) => {
    request.resume();
    response.writeHead(421, {
      'cellwright-refusal': 'not-owner',
      'cellwright-assignment': 'elsewhere 99',
      'cellwright-cell': 'forged',
      'x-own': 'kept',
    });
    response.end('an answer of the application');
  },
  '/cut': (request) => void request.on('end', () => request.socket.destroy()).resume(),
  '/half': (request, response) => {
    response.writeHead(200, { 'content-length': '1000' });
    response.write('only this');
    request.on('end', () => response.socket?.destroy()).resume();
  },
  '/duplex': (request, response) => {
    response.writeHead(200).flushHeaders();
    request.pipe(response);
  },
  '/download': (_, response, url) => {
    let left = Number(url.searchParams.get('bytes'));
    const chunk = Buffer.alloc(64 * 1024, 'cell');
    const send = (): void => {
      while (left > 0) {
        const part = chunk.subarray(0, Math.min(left, chunk.length));
        left -= part.length;
        if (!response.write(part)) {
          response.once('drain', send);
          return;
        }
      }
      response.end();
    };
    send();
  },
  /** Sends until the client goes away, and counts that it noticed. */
  '/endless': (_, response) => {
    response.writeHead(200);
    const send = (): void => {
      while (response.write(Buffer.alloc(1024))) if (response.destroyed) return;
    };
    response.on('drain', send).on('close', () => counts.set('/endless closed', 1));
    send();
  },
  '/empty': (_, response) => void response.writeHead(204).end(),
  '/unchanged': (_, response) => void response.writeHead(304, { etag: '"7"' }).end(),
};

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://application');
  counts.set(url.pathname, (counts.get(url.pathname) ?? 0) + 1);
  const handler = routes[url.pathname];
  if (handler === undefined) response.writeHead(404).end('the application does not know that');
  else handler(request, response, url);
});
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket, request) => {
  socket.send(JSON.stringify({ cell, url: request.url, headers: request.headers }));
  socket.on('message', (data: Buffer, binary) => {
    if (!binary && data.toString() === 'close') socket.close(4_000, 'as you wish');
    else socket.send(data, { binary });
  });
});
server.listen(Number(process.env['PORT']), '127.0.0.1');
