import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { Pool } from 'undici';
import { AcceptedSchema, ask, expectShape, ProblemSchema, StateSchema, type Answer } from './http.ts';
import type { Entry, Final, Operation, OrderRow, Outcome, StockRow, Write } from './history.ts';

/** A small seeded generator (mulberry32): one seed gives one order of operations for each client. */
export class Seeded {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** An integer from 0 to `below` − 1. */
  below(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  }

  pick<T>(from: readonly T[]): T {
    const picked = from[this.below(from.length)];
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  }
}

/** The seed of this run: given in CELLWRIGHT_SEED to repeat one, else new. Tests print it. */
export const seed: number = Number(process.env['CELLWRIGHT_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Long runs for `npm run soak`. */
export const soak: boolean = process.env['CELLWRIGHT_SOAK'] === '1';

const items = ['tea', 'rice', 'salt', 'lamp'] as const;
const attemptTimeoutMs = 20_000;
const pauseAfterFailureMs = 10;
const settleMsMax = 60_000;
/** The most that the example lists in one answer; a tenant of these tests has fewer. */
const ordersPageMax = 1_000;

/** Rows of the orders example: an array, or an object with one array in it. */
const RowsSchema = Type.Array(Type.Record(Type.String(), Type.Unknown()));
const OrderRowSchema = Type.Object({ id: Type.String(), item: Type.String(), quantity: Type.Integer() });
const StockRowSchema = Type.Object({ item: Type.String(), quantity: Type.Integer() });

export interface LoadOptions {
  readonly router: string;
  readonly tenants: readonly string[];
  /** Clients that each send one request after the other. */
  readonly clients: number;
  /** Ends by itself after so many requests; else `stop` ends it. */
  readonly requests?: number;
  readonly seed: number;
}

/**
 * A closed-loop load of mixed reads and writes on the orders example. Each write has a key of its
 * own; one with an unknown outcome is repeated at once with the same key, or left for `settle`.
 */
export class Load {
  readonly entries: Entry[] = [];
  readonly #options: LoadOptions;
  readonly #pool: Pool;
  readonly #run = randomUUID().slice(0, 8);
  readonly #watchers = new Set<(entry: Entry) => void>();
  #clock = 0;
  #sent = 0;
  #stopping = false;
  #clients: Promise<readonly void[]> | undefined;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#pool = new Pool(options.router, { connections: options.clients });
  }

  /** Starts all clients. */
  start(): void {
    this.#clients = Promise.all(Array.from({ length: this.#options.clients }, (_, client) => this.#client(client)));
    // Reported by `done`; without this a failure before that call would end the process.
    this.#clients.catch(() => {});
  }

  /** Ticks of the clock by which entries are ordered, for marking an instant between them. */
  get now(): number {
    return this.#clock;
  }

  /** Resolves at the first entry after now that satisfies the condition, or rejects at the deadline. */
  async next(what: string, deadlineMs: number, condition: (entry: Entry) => boolean): Promise<Entry> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#watchers.delete(watch);
        reject(new Error(`not within ${deadlineMs} ms under load: ${what}`));
      }, deadlineMs);
      const watch = (entry: Entry): void => {
        if (!condition(entry)) return;
        clearTimeout(timer);
        this.#watchers.delete(watch);
        resolve(entry);
      };
      this.#watchers.add(watch);
    });
  }

  /** Resolves after so many further answers: a random count makes a random instant of the load. */
  async after(answers: number, deadlineMs = 30_000): Promise<void> {
    let left = answers;
    await this.next(`${answers} further answers`, deadlineMs, () => (left -= 1) <= 0);
  }

  /** Waits until every client has ended by itself. */
  async done(): Promise<void> {
    await this.#clients;
  }

  /** Lets each client finish its request and ends. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#clients;
  }

  async #client(client: number): Promise<void> {
    const random = new Seeded(this.#options.seed * 7_919 + client * 104_729);
    const placed: { readonly tenant: string; readonly id: string }[] = [];
    for (let turn = 0; !this.#stopping && this.#sent < (this.#options.requests ?? Infinity); turn += 1) {
      this.#sent += 1;
      const tenant = random.pick(this.#options.tenants);
      const operation = this.#choose(random, `${this.#run}-${client}-${turn}`, tenant, placed);
      const entry = await this.#attempt(tenant, operation);
      if (entry.outcome.kind === 'failed' || entry.outcome.kind === 'broken') {
        await pause(pauseAfterFailureMs);
        if (operation.kind === 'write' && random.below(2) === 0) await this.#attempt(tenant, operation);
      } else if (operation.kind === 'write' && random.below(20) === 0) {
        await this.#attempt(tenant, operation);
      }
    }
  }

  #choose(random: Seeded, name: string, tenant: string, placed: { tenant: string; id: string }[]): Operation {
    const dice = random.below(100);
    if (dice < 25) return { kind: 'state' };
    if (dice < 35) return { kind: 'orders' };
    if (dice < 45) return { kind: 'stock' };
    return { kind: 'write', key: `key-${name}`, write: this.#chooseWrite(random, dice, name, tenant, placed) };
  }

  #chooseWrite(
    random: Seeded,
    dice: number,
    name: string,
    tenant: string,
    placed: { tenant: string; id: string }[],
  ): Write {
    const item = random.pick(items);
    if (dice < 65) return { kind: 'addStock', item, quantity: 1 + random.below(9) };
    if (dice < 92 || placed.length === 0) {
      placed.push({ tenant, id: `o-${name}` });
      return { kind: 'placeOrder', id: `o-${name}`, item, quantity: 1 + random.below(4) };
    }
    const mine = placed.filter((order) => order.tenant === tenant);
    return { kind: 'cancelOrder', id: mine.length === 0 ? 'none' : random.pick(mine).id };
  }

  async #attempt(tenant: string, operation: Operation): Promise<Entry> {
    const beganMs = performance.now();
    const began = (this.#clock += 1);
    const { outcome, cell } = await this.#send(tenant, operation);
    const entry: Entry = {
      tenant,
      operation,
      outcome,
      cell,
      began,
      ended: (this.#clock += 1),
      beganMs,
      endedMs: performance.now(),
    };
    this.entries.push(entry);
    for (const watch of this.#watchers) watch(entry);
    return entry;
  }

  async #send(tenant: string, operation: Operation): Promise<{ outcome: Outcome; cell: string | undefined }> {
    const common = { dispatcher: this.#pool, timeoutMs: attemptTimeoutMs };
    const headers = { 'x-tenant': tenant };
    try {
      const answer =
        operation.kind === 'write'
          ? await ask(`${this.#options.router}/commands/${operation.write.kind}`, {
              ...common,
              headers: { ...headers, 'idempotency-key': operation.key },
              json: inputOf(operation.write),
            })
          : await ask(`${this.#options.router}/${pathOf[operation.kind]}`, { ...common, headers });
      return { outcome: outcomeOf(operation, answer), cell: answer.headers['cellwright-cell'] };
    } catch (error) {
      return { outcome: { kind: 'broken', reason: reasonOf(error) }, cell: undefined };
    }
  }

  /**
   * After the load: repeats every write whose outcome is open with its own key until it is
   * answered, then reads what each tenant holds. Fails if that takes too long.
   */
  async settle(): Promise<ReadonlyMap<string, Final>> {
    const answered = new Set<string>();
    const open = new Map<string, Entry>();
    for (const entry of this.entries) {
      if (entry.operation.kind !== 'write') continue;
      const { key } = entry.operation;
      if (entry.outcome.kind === 'failed' || entry.outcome.kind === 'broken') open.set(key, entry);
      else answered.add(key);
    }
    const repeats = [...open.values()].filter(
      ({ operation }) => operation.kind === 'write' && !answered.has(operation.key),
    );
    const deadline = performance.now() + settleMsMax;
    await this.#each(repeats, ({ tenant, operation }) => this.#insist(tenant, operation, deadline));
    const touched = [...new Set(this.entries.map(({ tenant }) => tenant))];
    const finals = new Map<string, Final>();
    await this.#each(touched, async (tenant) => {
      const state = await this.#insist(tenant, { kind: 'state' }, deadline);
      const orders = await this.#insist(tenant, { kind: 'orders' }, deadline);
      const stock = await this.#insist(tenant, { kind: 'stock' }, deadline);
      if (state.kind !== 'state' || orders.kind !== 'orders' || stock.kind !== 'stock')
        throw new Error(`${tenant} is not served`);
      finals.set(tenant, { seq: state.seq, stateHash: state.stateHash, orders: orders.rows, stock: stock.rows });
    });
    return finals;
  }

  async #insist(tenant: string, operation: Operation, deadline: number): Promise<Outcome> {
    for (;;) {
      const { outcome } = await this.#attempt(tenant, operation);
      if (outcome.kind !== 'failed' && outcome.kind !== 'broken') return outcome;
      if (performance.now() > deadline)
        throw new Error(`${tenant}: ${operation.kind} still fails: ${JSON.stringify(outcome)}`);
      await pause(pauseAfterFailureMs);
    }
  }

  async #each<T>(work: readonly T[], act: (item: T) => Promise<unknown>): Promise<void> {
    const queue = work.values();
    const worker = async (): Promise<void> => {
      for (const item of queue) await act(item);
    };
    await Promise.all(Array.from({ length: 8 }, worker));
  }

  /** Closes the connections. */
  async close(): Promise<void> {
    this.#stopping = true;
    await this.#pool.destroy();
  }
}

const pathOf = { state: 'state', orders: `queries/orders?limit=${ordersPageMax}`, stock: 'queries/stock' } as const;

function inputOf(write: Write): unknown {
  const { kind: _, ...input } = write;
  return input;
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? `${String(error.code)} ` : '';
  return `${code}${error.message}`;
}

function outcomeOf(operation: Operation, answer: Answer): Outcome {
  if (answer.status === 200) return success(operation, answer);
  const problem = Value.Check(ProblemSchema, answer.json) ? answer.json : undefined;
  const code = problem?.code ?? `no problem document: ${answer.body.slice(0, 100)}`;
  const refused = operation.kind === 'write' && (answer.status === 409 || answer.status === 422);
  if (refused) return { kind: 'refused', status: answer.status, code };
  return { kind: 'failed', status: answer.status, code, retryAfter: answer.headers['retry-after'] };
}

function success({ kind }: Operation, { json }: Answer): Outcome {
  if (kind === 'write') {
    const { seq, events, stateHash } = expectShape(AcceptedSchema, json, 'answer to a command');
    return { kind: 'accepted', seq, events: events.length, stateHash };
  }
  if (kind === 'state') {
    const { seq, epoch, stateHash } = expectShape(StateSchema, json, 'GET /state');
    return { kind, seq, epoch, stateHash };
  }
  return kind === 'orders' ? { kind, rows: rowsIn(json).map(orderRow) } : { kind, rows: rowsIn(json).map(stockRow) };
}

function stockRow(row: Readonly<Record<string, unknown>>): StockRow {
  const { item, quantity } = expectShape(StockRowSchema, row, 'row of stock');
  return { item, quantity };
}

function rowsIn(json: unknown): readonly Readonly<Record<string, unknown>>[] {
  const rows = Array.isArray(json) ? json : Object.values(json ?? {}).find((value) => Array.isArray(value));
  const found = expectShape(RowsSchema, rows, 'answer to a query');
  if (found.length >= ordersPageMax) throw new Error(`a tenant has ${ordersPageMax} orders or more: use more tenants`);
  return found;
}

function orderRow(row: Readonly<Record<string, unknown>>): OrderRow {
  const { id, item, quantity } = expectShape(OrderRowSchema, row, 'row of orders');
  return { id, item, quantity };
}
