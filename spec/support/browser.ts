// Headless Chromium for specs, driven over its debugging pipe. The spec gives it a folder for its profile.

import { spawn, type ChildProcess } from 'node:child_process';
import { type Readable, type Writable } from 'node:stream';

import { findTool } from './tools.js';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'];
const MORE = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--remote-debugging-pipe',
  // A container's /dev/shm may be too small for a page.
  '--disable-dev-shm-usage',
  '--force-device-scale-factor=1',
];

type Result = Record<string, unknown>;

/** A page of a browser that speaks the DevTools protocol on descriptors 3 and 4, messages ended by NUL. */
export class Browser {
  readonly #child: ChildProcess;
  #hasEnded = false;
  readonly #waiting = new Map<number, { resolve: (result: Result) => void; reject: (error: Error) => void }>();
  #id = 0;
  #session: string | undefined;

  constructor(profile: string) {
    this.#child = spawn(findTool('chromium') ?? 'chromium', [...FLAGS, ...MORE, `--user-data-dir=${profile}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    const fail = (): void => {
      this.#hasEnded = true;
      for (const { reject } of this.#waiting.values()) reject(new Error('the browser has ended'));
      this.#waiting.clear();
    };
    this.#child.once('error', fail).once('close', fail);
    // What is written to a browser that has ended; its own end is reported above.
    (this.#child.stdio[3] as Writable).on('error', () => undefined);
    let rest = '';
    (this.#child.stdio[4] as Readable).setEncoding('utf8').on('data', (chunk: string) => {
      const messages = (rest + chunk).split('\0');
      rest = messages.pop() ?? '';
      for (const text of messages) {
        const message = JSON.parse(text) as { id?: number; result?: Result };
        if (message.id === undefined) continue;
        this.#waiting.get(message.id)?.resolve(message.result ?? {});
        this.#waiting.delete(message.id);
      }
    });
  }

  send(method: string, params: Result = {}): Promise<Result> {
    const id = ++this.#id;
    const sessionId = this.#session;
    (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** Shows a page, and resolves when it has loaded. */
  async open(url: string): Promise<void> {
    const { targetId } = await this.send('Target.createTarget', { url });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    this.#session = sessionId as string;
    const size = { width: 1200, height: 1400, deviceScaleFactor: 1, mobile: false };
    await this.send('Emulation.setDeviceMetricsOverride', size);
    while ((await this.evaluate('document.readyState + location.protocol')) !== `complete${new URL(url).protocol}`) {
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** The value of an expression in the page; a promise is waited for, and its rejection rejects. */
  async evaluate(expression: string): Promise<unknown> {
    const how = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = (await this.send('Runtime.evaluate', how)) as {
      result?: { value?: unknown };
      exceptionDetails?: { text?: string; exception?: { description?: string } };
    };
    if (exceptionDetails !== undefined) {
      throw new Error(`in the page: ${exceptionDetails.exception?.description ?? exceptionDetails.text ?? 'failed'}`);
    }
    return result?.value;
  }

  async close(): Promise<void> {
    if (this.#hasEnded) return;
    const ended = new Promise((done) => this.#child.once('close', done));
    this.#session = undefined;
    // It may end before it answers.
    this.send('Browser.close').catch(() => undefined);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 3000);
    await ended;
    clearTimeout(timer);
  }
}
