// What happens to a request before it is carried out: it is reported to `onRequest`, meets a fault, and waits for its
// share of the rate.

import * as c from '../../protocol/constants.js';
import { wireError } from '../../protocol/names.js';
import type { ReplyEncoder } from '../../protocol/reply-encoder.js';
import type { Request } from '../../protocol/request-decoder.js';
import type { RateLimiter } from '../../transport/rate-limiter.js';
import type { ChosenFault, FaultPlan } from '../faults.js';
import type { FaultedRequest } from '../held-requests.js';
import type { Statistics } from '../statistics.js';
import { commandNameOf } from './command-name.js';
import { corrupted } from './corruption.js';
import type { Postponed } from './postponed.js';
import { HeldReply, type ReplySink } from './reply-output.js';
import { RequestHandler } from './request-handler.js';
import type { Session } from './request-validation.js';

export interface DispatchOptions {
  readonly connection: number;
  readonly faults: FaultPlan;
  readonly statistics: Statistics;
  readonly onRequest: ((request: FaultedRequest) => void) | undefined;
  /** Limits the payload of reads and of writes, over all connections. */
  readonly rate: { readonly reads: RateLimiter; readonly writes: RateLimiter } | undefined;
}

/** How a request is carried out. */
export interface Way {
  readonly handler: RequestHandler;
  readonly sink: ReplySink;
  /** Called when the reply has been passed to the sink. */
  readonly done?: () => void;
}

/** The part of the transmission phase that the dispatcher uses. */
export interface DispatchHost extends DispatchOptions {
  readonly session: Session;
  readonly encoder: ReplyEncoder;
  readonly output: ReplySink;
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
  readonly postponed: Postponed;
  /** Bytes that a request holds. */
  weight(request: Request): number;
  perform(request: Request, way: Way): void;
  refuse(request: Request, error: number, message: string): void;
  fail(request: Request, error: unknown): void;
  cut(how: 'close' | 'reset'): void;
}

export class Dispatcher {
  readonly #options: DispatchHost;
  /** How all requests are carried out that no fault changes. */
  readonly #plain: Way;

  constructor(options: DispatchHost) {
    this.#options = options;
    const { session, encoder, output, signal } = options;
    this.#plain = { handler: new RequestHandler(session, encoder, output, signal), sink: output };
  }

  /** Carries the request out, unless a fault concerns it. */
  begin(request: Request): void {
    this.#options.statistics.requests[commandNameOf(request.type)] += 1;
    let chosen: ChosenFault | null;
    try {
      chosen = this.#faultOf(request);
    } catch (error) {
      this.#options.fail(request, error);
      return;
    }
    if (chosen === null) this.#carryOut(request, this.#plain);
    else this.#applyFault(chosen, request);
  }

  /** Reports the request to `onRequest` and the fault plan; both call functions of the user's, which may throw. */
  #faultOf(request: Request): ChosenFault | null {
    const { faults, onRequest } = this.#options;
    if (onRequest === undefined && faults.isEmpty) return null;
    const seen = this.#describe(request);
    onRequest?.(seen);
    return faults.match(seen);
  }

  #describe({ type, flags, offset, count }: Request): FaultedRequest {
    const { connection } = this.#options;
    return {
      command: commandNameOf(type),
      flags,
      offset,
      count,
      exportName: this.#options.session.export.name,
      connection,
    };
  }

  #applyFault({ fault, hash }: ChosenFault, request: Request): void {
    const { session, encoder, output, signal, postponed } = this.#options;
    const bytes = this.#options.weight(request);
    const goOn = (): void => {
      this.#carryOut(request, this.#plain);
    };
    if ('stall' in fault) return;
    if ('cut' in fault) {
      this.#options.cut(fault.cut);
    } else if ('error' in fault) {
      // A disconnect has no reply, not even an error.
      if (request.type === c.NBD_CMD_DISC) this.#carryOut(request, this.#plain);
      else this.#options.refuse(request, wireError(fault.error), fault.message ?? '');
    } else if ('corrupt' in fault) {
      const backend = corrupted(session.export.backend, fault.corrupt, hash);
      const handler = new RequestHandler(session, encoder, output, signal, backend);
      this.#carryOut(request, { handler, sink: output });
    } else if ('delay' in fault) {
      postponed.delay(fault.delay, { bytes, goOn });
    } else if (fault.hold === 'request') {
      this.#hold(request, bytes, goOn);
    } else {
      this.#carryOutHeld(request);
    }
  }

  #hold(request: Request, bytes: number, goOn: () => void): void {
    const seen = this.#describe(request);
    this.#options.postponed.hold((released) => this.#options.faults.hold(seen, released), { bytes, goOn });
  }

  /** Carries the request out and holds its reply. */
  #carryOutHeld(request: Request): void {
    const { session, encoder, output, signal } = this.#options;
    const reply = new HeldReply(output);
    this.#carryOut(request, {
      handler: new RequestHandler(session, encoder, reply, signal),
      sink: reply,
      done: () => {
        if (signal.aborted) return;
        this.#hold(request, reply.bytes, () => {
          reply.release();
        });
      },
    });
  }

  /** Carries the request out when its payload is due. */
  #carryOut(request: Request, way: Way): void {
    const { rate } = this.#options;
    const bytes = rate === undefined ? 0 : this.#options.weight(request);
    if (rate === undefined || bytes === 0) {
      this.#options.perform(request, way);
      return;
    }
    const limiter = request.type === c.NBD_CMD_READ ? rate.reads : rate.writes;
    this.#options.postponed.after(limiter.take(bytes, this.#options.signal), {
      bytes,
      goOn: () => {
        this.#options.perform(request, way);
      },
    });
  }
}
