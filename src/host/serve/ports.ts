import { createServer } from 'node:net';
import { Type } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { readJsonFile, writeFileAtomically } from '../../process/folder.ts';
import { nextPort, portAttemptsMax, portMax, portMin, type PortBook } from '../decide/ports.ts';

const PortBookSchema = Type.Record(Type.String(), Type.Integer({ minimum: 1, maximum: 65_535 }));

/** The ports of one machine. A port is on disk before anybody uses it, so that it outlives every process. */
export interface Ports {
  /** The port of a use: the one it had, if no other program took it meanwhile, else another one. */
  choose(use: string): Promise<number>;
  /** The port that a use had last, whether or not it is free. */
  known(use: string): number | undefined;
}

/** Opens the book of ports. Fault `file-unreadable` if it is damaged. */
export async function openPorts(file: string, address: string): Promise<Ports> {
  let book: PortBook = (await readJsonFile(file, PortBookSchema)) ?? {};
  let queue: Promise<unknown> = Promise.resolve();

  async function choose(use: string): Promise<number> {
    const known = book[use];
    if (known !== undefined && (await isPortFree(address, known))) return known;
    const tried = new Set<number>();
    const random = Math.random();
    while (tried.size < portAttemptsMax) {
      const port = nextPort(book, tried, random);
      if (port === undefined) break;
      if (await isPortFree(address, port)) {
        const next = { ...book, [use]: port };
        await writeFileAtomically(file, `${JSON.stringify(next, undefined, 2)}\n`);
        book = next;
        return port;
      }
      tried.add(port);
    }
    throw fault(
      'port-in-use',
      `No free port was found for ${use}: ${tried.size} ports between ${portMin} and ${portMax} are taken. Stop what holds them.`,
    );
  }

  return {
    known: (use) => book[use],
    choose(use) {
      // One at a time: two choices at once could promise the same port.
      const chosen = queue.then(() => choose(use));
      queue = chosen.catch(() => undefined);
      return chosen;
    },
  };
}

/** Whether a program could listen there now. */
export async function isPortFree(host: string, port: number): Promise<boolean> {
  return (await whyPortUnusable(host, port)) === undefined;
}

/** Why nobody can listen there now (the system's code, such as EADDRINUSE), found by trying for a moment. */
export function whyPortUnusable(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', (error) => resolve('code' in error ? String(error.code) : error.message));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(undefined)));
  });
}
