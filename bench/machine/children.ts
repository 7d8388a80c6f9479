import { fork, type ChildProcess } from 'node:child_process';

/**
 * Each side of a comparison runs in a process of its own, so that heaps and compiled code do not disturb each other, and
 * stays alive between its rounds, so that it is warm and rounds of the sides can take turns.
 */
export class Side {
  readonly #child: ChildProcess;
  #settle: { resolve(answer: unknown): void; reject(reason: Error): void } | undefined;
  #failed: Error | undefined;

  constructor(module: URL, execArgv: readonly string[] = []) {
    this.#child = fork(module, {
      // Emmett's connections to SQLite each wait for the lock on a thread of the pool, and deadlock if it has too few.
      env: { ...process.env, UV_THREADPOOL_SIZE: '64' },
      execArgv: ['--conditions=cellwright-source', '--disable-warning=ExperimentalWarning', ...execArgv],
      serialization: 'advanced',
    });
    this.#child.on('message', (message: { readonly answer?: unknown; readonly failed?: string }) => {
      if (message.failed === undefined) this.#settle?.resolve(message.answer);
      else this.#settle?.reject(new Error(message.failed));
    });
    this.#child.on('exit', (code, signal) => {
      this.#failed = new Error(`${module.pathname} ended with ${code ?? signal}`);
      this.#settle?.reject(this.#failed);
    });
  }

  /** One thing at a time. `Answer` is what the module on the other side promises for this ask. */
  ask<Answer>(ask: object): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#failed !== undefined) {
        reject(this.#failed);
        return;
      }
      this.#settle = { resolve: (answer) => resolve(answer as Answer), reject };
      this.#child.send(ask);
    });
  }

  end(): void {
    this.#child.removeAllListeners('exit');
    this.#child.kill();
  }
}

/** The other end: answers each ask with what `handle` returns. Ends when its parent does. */
export function answerAsks(handle: (ask: never) => unknown): void {
  process.on('message', (ask) => {
    const answer = async (): Promise<unknown> => handle(ask as never);
    answer().then(
      (value) => process.send?.({ answer: value }),
      (error: unknown) =>
        process.send?.({ failed: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
  process.on('disconnect', () => process.exit());
}
