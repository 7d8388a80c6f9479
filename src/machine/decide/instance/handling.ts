/**
 * Which handler of a machine runs now. Handlers say it here, around every call; whoever may see a clock, a
 * random number or a locale can then refuse to (`serve/traps.ts`). Nothing here knows what ambient is.
 */
interface Handling {
  /** The handler, as a message calls it: `command placeOrder`. Empty outside handlers. */
  who: string;
  /** What it was refused, once it was: kept here, because a handler may catch what is thrown at it. */
  refused: string | undefined;
}

export const handling: Handling = { who: '', refused: undefined };

/** A handler used what differs between two runs. Whatever it did after that, it has failed. */
export class AmbientUsed extends Error {
  override readonly name = 'AmbientUsed';
}

/** The same handler, known by name while it runs. Throws AmbientUsed if it was refused something, also if it caught that. */
export function watched<Given extends readonly unknown[], Result>(
  who: string,
  handler: (...given: Given) => Result,
): (...given: Given) => Result {
  return (...given) => {
    const outer = handling.who;
    handling.who = who;
    let result: Result;
    try {
      result = handler(...given);
    } catch (thrown) {
      handling.who = outer;
      if (handling.refused === undefined) throw thrown;
      throw ambientUsed(thrown);
    }
    handling.who = outer;
    if (handling.refused !== undefined) throw ambientUsed(undefined);
    return result;
  };
}

/** Runs our own part of what a handler asked for, which may use what the handler may not. */
export function unwatched<Result>(part: () => Result): Result {
  const { who } = handling;
  handling.who = '';
  try {
    return part();
  } finally {
    handling.who = who;
  }
}

function ambientUsed(cause: unknown): AmbientUsed {
  const message = handling.refused;
  handling.refused = undefined;
  return new AmbientUsed(message, { cause });
}
