import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request as httpRequest, type ClientRequest, type IncomingMessage, type Server } from 'node:http';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { asFault } from '../../protocol/problem.ts';
import { BodyBytes, readBody, sendJson, sendProblem } from './answer.ts';

describe('bodies that a cell reads', () => {
  let server: Server;
  let bodies: BodyBytes;
  let port: number;
  const bytesMax = 8;
  const sentAll: ClientRequest[] = [];

  beforeEach(async () => {
    bodies = new BodyBytes(10);
    server = createServer((request, response) => {
      readBody(request, response, { bytesMax, timeMsMax: 60_000, expectsContinue: false, bodies }).then(
        (text) => sendJson(response, 200, text),
        (thrown: unknown) => response.headersSent || sendProblem(response, asFault(thrown)),
      );
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    port = address.port;
  });
  afterEach(async () => {
    for (const sent of sentAll.splice(0)) sent.destroy();
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });

  function send(text: string): ClientRequest {
    const sent = httpRequest({ port, host: '127.0.0.1', method: 'POST', agent: false });
    sent.on('error', () => undefined);
    sentAll.push(sent);
    sent.write(text);
    return sent;
  }
  async function answerTo(sent: ClientRequest): Promise<IncomingMessage> {
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    response.resume();
    return response;
  }
  const held = async (sizeBytes: number) => {
    while (bodies.held !== sizeBytes) await new Promise(setImmediate);
  };

  test('may come to the bound together, and the next byte is refused with Retry-After', async () => {
    const first = send('12345');
    await held(5);
    const second = send('12345');
    await held(10);
    const third = await answerTo(send('1'));
    assert.equal(third.statusCode, 503);
    assert.equal(third.headers['retry-after'], '1');
    assert.equal(bodies.held, 10, 'what was refused is not counted');
    first.end();
    assert.equal((await answerTo(first)).statusCode, 200);
    await held(5);
    const fourth = send('12345');
    await held(10);
    for (const sent of [second, fourth]) {
      sent.end();
      assert.equal((await answerTo(sent)).statusCode, 200);
    }
    await held(0);
  });

  test('count no longer when they are cut, or too large for one request', async () => {
    const cut = send('12345');
    await held(5);
    cut.destroy();
    await held(0);
    const large = send('12345678');
    await held(8);
    large.write('9');
    assert.equal((await answerTo(large)).statusCode, 413);
    await held(0);
  });

  test('that take too long are given up', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const slow = send('1');
    await held(1);
    t.mock.timers.tick(60_000);
    assert.equal((await answerTo(slow)).statusCode, 408);
    await held(0);
  });
});
