// What a scripted peer does instead of the right thing, step by step.

import type { ReceivedCommand, ReceivedOption } from './recording.js';

/** One step of a script: bytes to send, or one of the actions made by the functions of this module. */
export type Step =
  | Uint8Array
  | { readonly do: 'close' | 'fin' | 'rst' | 'stall' | 'tls' }
  | { readonly do: 'sleep' | 'quiet'; readonly milliseconds: number }
  | { readonly do: 'recv'; readonly count: number }
  | { readonly do: 'trickle'; readonly bytes: Uint8Array; readonly gap: number }
  | { readonly do: 'repeat'; readonly count: number; readonly make: (index: number) => Uint8Array }
  | { readonly do: 'rawplain'; readonly bytes: Uint8Array }
  | { readonly do: 'mode'; readonly mode: ReplyMode };

/** How commands are answered. */
export type ReplyMode = 'simple' | 'structured' | 'extended';

/** One step or several. */
export type Steps = Step | readonly Step[];

/** Steps, or a function that makes them from what is being answered. */
export type Script<Arguments extends readonly unknown[]> = Steps | ((...request: Arguments) => Steps);

/** Instead of the default answer to an option. */
export interface OptionScript {
  /** NBD_OPT_*. */
  readonly option: number;
  /** Only the n-th time that this option arrives, from 1; every time unless told. */
  readonly nth?: number;
  /** What to send and do. */
  readonly steps: Script<[ReceivedOption]>;
}

/** A command as a script sees it. */
export interface PeerRequest extends ReceivedCommand {
  /** The contents of the range, as a right answer has them. */
  readonly data: Buffer;
  /** The first negotiated meta context's ID; 1 unless a script chose another. */
  readonly contextId: number;
}

/** Instead of the right answer to a command; used once. */
export interface CommandScript {
  /** NBD_CMD_*: the first command of this type; the first of any type but NBD_CMD_DISC unless told. */
  readonly command?: number;
  /** Wait for so many matching commands, which all come to the steps in their order. */
  readonly collect?: number;
  /** What to send and do. */
  readonly steps: Script<PeerRequest[]>;
}

/** Instead of the default answer to an option: {@link OptionScript} in short. */
export function on(option: number, steps: Script<[ReceivedOption]>, nth?: number): OptionScript {
  return nth === undefined ? { option, steps } : { option, steps, nth };
}

/** Sends a FIN after what was sent, and closes. */
export const close = (): Step => ({ do: 'close' });

/** Sends a FIN after what was sent, and goes on reading. */
export const fin = (): Step => ({ do: 'fin' });

/** Resets the connection. A Unix socket has no reset: there it only closes. */
export const rst = (): Step => ({ do: 'rst' });

/** Sends nothing more, and takes what comes until the client closes. */
export const stall = (): Step => ({ do: 'stall' });

/** Does nothing for a while. */
export const sleep = (milliseconds: number): Step => ({ do: 'sleep', milliseconds });

/** Waits, and records a violation if the client sends anything meanwhile. */
export const quiet = (milliseconds: number): Step => ({ do: 'quiet', milliseconds });

/** Reads so many bytes and drops them. */
export const recv = (count: number): Step => ({ do: 'recv', count });

/** Sends one byte per segment, `gap` milliseconds apart. */
export const trickle = (bytes: Uint8Array, gap = 2): Step => ({ do: 'trickle', bytes, gap });

/** Sends the same bytes again and again, until the count is reached or the client has closed. */
export const repeat = (count: number, bytes: Uint8Array): Step => ({ do: 'repeat', count, make: () => bytes });

/** Sends what `make` gives for 0, 1, 2 … */
export const seq = (count: number, make: (index: number) => Uint8Array): Step => ({ do: 'repeat', count, make });

/** Performs the server's half of a TLS handshake, with the script's certificate. */
export const tls = (): Step => ({ do: 'tls' });

/** Sends bytes below the TLS layer. */
export const rawplain = (bytes: Uint8Array): Step => ({ do: 'rawplain', bytes });

/** Answers commands in another style than the negotiated one from now on. */
export const mode = (replies: ReplyMode): Step => ({ do: 'mode', mode: replies });
