// The handshake on a transport, as the phase of a link. Invariant: bytes that arrive while the handshake expects none
// are a protocol violation; they are never interpreted.

import { Buffer } from '../../util/buffer.js';
import { NbdProtocolError } from '../../errors.js';
import { HandshakeDriver } from '../../protocol/handshake/driver.js';
import type { Handshake } from '../../protocol/handshake/effects.js';
import type { Transport } from '../../transport/transport.js';
import type { ByteConsumer } from '../link.js';

const SCRATCH_LENGTH = 16 * 1024;

export class HandshakePhase implements ByteConsumer {
  #transport: Transport;
  readonly #driver: HandshakeDriver;
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_LENGTH);
  #stopped: { readonly error: unknown } | null = null;
  bytesSent = 0;

  /** `startTls` takes the transport away at once and resolves with the encrypted one. */
  constructor(transport: Transport, startTls: () => Promise<Transport>) {
    this.#transport = transport;
    this.#driver = new HandshakeDriver({
      write: (bytes, early) => {
        // Every reply to an option has been read before the next option is sent: a reply left over answers nothing.
        if (early > 0) throw outOfTurn(early, 'before the next option was sent');
        this.bytesSent += bytes.length;
        this.#transport.write([bytes], () => undefined);
      },
      plaintextBeforeTls: (early) => outOfTurn(early, 'in plaintext after it had agreed to TLS'),
      startTls: () => {
        startTls().then(
          (secure) => {
            this.#transport = secure;
            this.#driver.secured();
          },
          (error: unknown) => {
            this.#driver.fail(error);
          },
        );
      },
    });
  }

  get isBusy(): boolean {
    return this.#driver.isRunning;
  }

  /**
   * Runs a handshake to its end. Both callbacks are synchronous: the bytes behind the last reply belong to the next
   * phase and may arrive in the same event.
   */
  run<Result>(handshake: Handshake<Result>, done: (result: Result) => void, failed: (error: unknown) => void): void {
    // On a connection that has ended nothing would be sent, and no reply would ever arrive.
    if (this.#stopped !== null) failed(this.#stopped.error);
    else this.#driver.run(handshake, done, failed);
  }

  /** The connection is over: a handshake that is running fails with `error`, and so does every later one. */
  stop(error: unknown): void {
    this.#stopped ??= { error };
    this.#driver.fail(error);
  }

  /** What arrived behind the end of the handshake: the first bytes of the transmission phase. */
  takeRest(): readonly Buffer[] {
    return this.#driver.takeRest();
  }

  target(): Uint8Array {
    return this.#scratch;
  }

  advance(length: number): void {
    this.push(this.#scratch.subarray(0, length));
  }

  push(chunk: Uint8Array): void {
    if (!this.#driver.isRunning) throw outOfTurn(chunk.length, 'while no option was pending');
    this.#driver.push(Buffer.from(chunk));
  }
}

const outOfTurn = (length: number, when: string): NbdProtocolError =>
  new NbdProtocolError(`handshake: the server sent ${length} bytes ${when}`, { code: 'EPROTO' });
