/**
 * The commands that every side of the benchmark runs: the orders example as many tenants use it. Each tenant stocks
 * five items; of what follows 8 in 10 commands place an order, 1 cancels one, 1 adds stock. Every command is accepted
 * and has one event. Two thirds carry an idempotency key where the side knows keys.
 */
export type Command =
  | { readonly command: 'addStock'; readonly input: { readonly item: string; readonly quantity: number } }
  | {
      readonly command: 'placeOrder';
      readonly input: { readonly id: string; readonly item: string; readonly quantity: number };
    }
  | { readonly command: 'cancelOrder'; readonly input: { readonly id: string } };

export type Request = Command & { readonly instance: string; readonly idempotencyKey?: string };

const items = 5;

/** The `n`th command of any one tenant. */
function commandOf(n: number): Command {
  const item = `item-${n % items}`;
  if (n < items) return { command: 'addStock', input: { item, quantity: 900_000 } };
  // The order that is cancelled was placed five commands before.
  if (n % 10 === 9 && n > 2 * items) return { command: 'cancelOrder', input: { id: `order-${n - 5}` } };
  if (n % 10 === 0) return { command: 'addStock', input: { item, quantity: 40 } };
  return { command: 'placeOrder', input: { id: `order-${n}`, item, quantity: 1 + (n % 9) } };
}

/** Commands of `tenants` tenants in turn, without end. */
export class Workload {
  readonly #tenants: number;
  readonly #keyed: boolean;
  #made = 0;

  constructor(tenants: number, keyed: boolean) {
    this.#tenants = tenants;
    this.#keyed = keyed;
  }

  get tenants(): readonly string[] {
    return Array.from({ length: this.#tenants }, (_, i) => `tenant-${i}`);
  }

  /** The next `count` commands, made before anything is measured. */
  take(count: number): readonly Request[] {
    return Array.from({ length: count }, () => {
      const i = this.#made++;
      const instance = `tenant-${i % this.#tenants}`;
      const command = commandOf(Math.floor(i / this.#tenants));
      return this.#keyed && i % 3 !== 0
        ? { instance, idempotencyKey: `0b7e5f7a-${i}`, ...command }
        : { instance, ...command };
    });
  }
}
