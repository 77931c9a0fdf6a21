// The interfaces of the web that this package uses, as far as it uses them. Declared here, because programs for Node do
// not have the types of browsers; the classes of browsers, Node, Bun and Deno and those of the package `ws` match them.

/** What is used of the events of a WebSocket; each kind has some of it. */
export interface WebSocketEventLike {
  /** `open`, `message`, `error` or `close`. */
  readonly type: string;
  /** Of `message`. */
  readonly data?: unknown;
  /** Of `close`. */
  readonly code?: number | undefined;
  /** Of `close`. */
  readonly reason?: string | undefined;
  /** Of `error`, except in browsers. */
  readonly message?: string | undefined;
  /** Of `error`, except in browsers. */
  readonly error?: unknown;
}

/** A WebSocket: that of the platform, or of the npm package `ws`. */
export interface WebSocketLike {
  /** Set to `arraybuffer` by this package. */
  binaryType: string;
  /** 0: connecting, 1: open, 2: closing, 3: closed. */
  readonly readyState: number;
  /** Bytes that were sent and have not left the process. */
  readonly bufferedAmount: number;
  /** Sends one binary message. */
  send(data: Uint8Array): void;
  /** Sends what waits, then closes. */
  close(code?: number, reason?: string): void;
  /** Adds a listener for `open`, `message`, `error` or `close`. */
  addEventListener(type: string, listener: (event: WebSocketEventLike) => void): void;
  /** Removes a listener. */
  removeEventListener(type: string, listener: (event: WebSocketEventLike) => void): void;
}

/** The class of such WebSockets. */
export type WebSocketClass = new (url: string, protocols?: string[]) => WebSocketLike;

/** A pair of web streams of bytes, such as a WebTransport stream, two TransformStreams, or a WebSocketStream's. */
export interface WebStreams {
  /** A ReadableStream of Uint8Arrays; must not be locked. */
  readonly readable: {
    /** Locks the stream. */
    getReader(): {
      /** The next bytes. */
      read(): Promise<{
        /** Whether the stream has ended. */
        done: boolean;
        /** The bytes. */
        value?: Uint8Array | undefined;
      }>;
      /** Ends the stream. */
      cancel(reason?: unknown): Promise<void>;
    };
  };
  /** A WritableStream of Uint8Arrays; must not be locked. */
  readonly writable: {
    /** Locks the stream. */
    getWriter(): {
      /** Sends bytes. */
      write(chunk: Uint8Array): Promise<void>;
      /** Ends the stream in good order. */
      close(): Promise<void>;
      /** Ends the stream at once. */
      abort(reason?: unknown): Promise<void>;
    };
  };
}

const has = (value: unknown, ...methods: readonly string[]): boolean =>
  typeof value === 'object' &&
  value !== null &&
  methods.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');

/** Whether the value is a WebSocket of any implementation. */
export const isWebSocket = (value: unknown): value is WebSocketLike =>
  has(value, 'send', 'close', 'addEventListener', 'removeEventListener') && 'readyState' in (value as object);

/** Whether the value is a pair of web streams. Node's Duplex has properties of these names, which are booleans. */
export function isWebStreams(value: unknown): value is WebStreams {
  const pair = value as Partial<WebStreams> | null;
  return typeof pair === 'object' && has(pair?.readable, 'getReader') && has(pair?.writable, 'getWriter');
}
