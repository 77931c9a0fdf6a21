// The steps of a scripted peer, which replace its correct behaviour.

import type { ReceivedCommand, ReceivedOption } from './recording.js';

/** One step of a script: bytes to send, or an action that one of the functions of this module returns. */
export type Step =
  | Uint8Array
  | { readonly do: 'close' | 'fin' | 'rst' | 'stall' | 'tls' }
  | { readonly do: 'sleep' | 'quiet'; readonly milliseconds: number }
  | { readonly do: 'recv'; readonly count: number }
  | { readonly do: 'trickle'; readonly bytes: Uint8Array; readonly gap: number }
  | { readonly do: 'repeat'; readonly count: number; readonly make: (index: number) => Uint8Array }
  | { readonly do: 'rawplain'; readonly bytes: Uint8Array }
  | { readonly do: 'mode'; readonly mode: ReplyMode };

/** The format of replies to commands. */
export type ReplyMode = 'simple' | 'structured' | 'extended';

/** One step or several. */
export type Steps = Step | readonly Step[];

/** Steps, or a function that returns them for the option or commands to reply to. */
export type Script<Arguments extends readonly unknown[]> = Steps | ((...request: Arguments) => Steps);

/** Replaces the correct reply to an option. */
export interface OptionScript {
  /** NBD_OPT_*. */
  readonly option: number;
  /** Only the n-th time that this option arrives, from 1. Default every time. */
  readonly nth?: number | undefined;
  /** The steps to perform instead of the reply. */
  readonly steps: Script<[ReceivedOption]>;
}

/** A command as a script receives it. */
export interface PeerRequest extends ReceivedCommand {
  /** The content of the range, as in a correct reply. */
  readonly data: Buffer;
  /** ID of the first negotiated meta context; 1 unless a script chose another. */
  readonly contextId: number;
}

/** Replaces the correct reply to a command; used once. */
export interface CommandScript {
  /** NBD_CMD_* of the command to wait for. Default any type but NBD_CMD_DISC. */
  readonly command?: number | undefined;
  /** Number of matching commands to wait for; all of them are passed to the steps, in order. Default 1. */
  readonly collect?: number | undefined;
  /** The steps to perform instead of the replies. */
  readonly steps: Script<PeerRequest[]>;
}

/** Replaces the correct reply to an option; short for {@link OptionScript}. */
export function on(option: number, steps: Script<[ReceivedOption]>, nth?: number): OptionScript {
  return nth === undefined ? { option, steps } : { option, steps, nth };
}

/** Sends a FIN after all data, and closes. */
export const close = (): Step => ({ do: 'close' });

/** Sends a FIN after all data, and continues to read. */
export const fin = (): Step => ({ do: 'fin' });

/** Resets the connection; a Unix socket, which has no reset, is closed. */
export const rst = (): Step => ({ do: 'rst' });

/** Sends nothing more, and reads until the client closes. */
export const stall = (): Step => ({ do: 'stall' });

/** Does nothing for this many milliseconds. */
export const sleep = (milliseconds: number): Step => ({ do: 'sleep', milliseconds });

/** Waits this many milliseconds, and records a violation if the client sends anything meanwhile. */
export const quiet = (milliseconds: number): Step => ({ do: 'quiet', milliseconds });

/** Reads this many bytes and discards them. */
export const recv = (count: number): Step => ({ do: 'recv', count });

/** Sends one byte per segment, `gap` milliseconds apart. */
export const trickle = (bytes: Uint8Array, gap = 2): Step => ({ do: 'trickle', bytes, gap });

/** Sends the same bytes `count` times, or until the client has closed. */
export const repeat = (count: number, bytes: Uint8Array): Step => ({ do: 'repeat', count, make: () => bytes });

/** Sends the bytes that `make` returns for 0, 1, 2 … up to `count - 1`, or until the client has closed. */
export const seq = (count: number, make: (index: number) => Uint8Array): Step => ({ do: 'repeat', count, make });

/** Performs the server's half of a TLS handshake, with the script's certificate. */
export const tls = (): Step => ({ do: 'tls' });

/** Sends bytes below the TLS layer. */
export const rawplain = (bytes: Uint8Array): Step => ({ do: 'rawplain', bytes });

/** From now on replies to commands in this mode, whatever was negotiated. */
export const mode = (replies: ReplyMode): Step => ({ do: 'mode', mode: replies });
