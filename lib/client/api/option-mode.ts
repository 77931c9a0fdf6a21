// The opt* methods of a connection: the handshake's options, one at a time, after `optMode`.

import type { NbdError } from '../../errors.js';
import { listMetaContext, setMetaContext } from '../../protocol/handshake/opt-meta-context.js';
import type { ListedExport } from '../../protocol/handshake/opt-list.js';
import { extendedHeaders, startTls, structuredReply } from '../../protocol/handshake/opt-simple.js';
import { toCallback } from '../../protocol/strict.js';
import { lifecycleOf } from './settings.js';
import {
  optBoolean,
  optGo,
  optInfo,
  optList,
  optMetaContext,
  optRequired,
  type OptionRun,
} from '../connect/option-runs.js';
import { checkNames, checkSignal } from '../options/options.js';
import { NbdSecuritySettings } from './security-settings.js';
import { checkState, WHEN_NEGOTIATING } from '../state.js';

/** Called once with the outcome of a raw option. */
export type OptionCallback = (error: NbdError | null) => void;

/** Called for every export of a list; the description is `''` if the server sends none. */
export type ListCallback = (name: string, description: string) => void;

/** Called for every context that the server reports. */
export type ContextCallback = (name: string) => void;

/**
 * Option mode of an {@link NbdConnection}. Its methods are permitted only while negotiating: otherwise they fail with
 * an NbdStateError, ENOTCONN before connecting and EINVAL after. A refusal is an NbdOptionError and the connection
 * stays negotiating (an ESHUTDOWN closes it); a server that violates the protocol, or does not answer within
 * `connectTimeout`, ends the connection. If a callback throws, the call rejects with what it threw. Only one option may
 * be pending: until the server has answered, the connection is `connecting`, and other options, the settings of the
 * handshake and the facts of the export are refused with EINVAL. An option cannot be cancelled: an abort rejects at
 * once, but the connection still waits for the answer.
 */
export abstract class NbdOptionMode extends NbdSecuritySettings {
  /**
   * Opens the export (libnbd: `nbd_opt_go`); the connection is ready then. First it asks for the contexts that were
   * added, unless `requestMetaContext` is false.
   *
   * @throws (rejects) NbdOptionError, `ENOENT` for an unknown export.
   */
  optGo(signal?: AbortSignal): Promise<void> {
    return this.#promise('optGo', () => optGo, signal);
  }

  /**
   * Asks about the export without opening it (libnbd: `nbd_opt_info`): `getSize`, `can*` and so on are available then.
   */
  optInfo(signal?: AbortSignal): Promise<void> {
    return this.#promise('optInfo', () => optInfo, signal);
  }

  /**
   * Asks for the server's exports (libnbd: `nbd_opt_list`): resolves with them, and calls `found` for each if given.
   *
   * @throws (rejects) NbdOptionError if the server refuses to list them; `EOVERFLOW` above 10,000 exports.
   */
  optList(found?: ListCallback, signal?: AbortSignal): Promise<readonly ListedExport[]> {
    return this.#promise('optList', () => optList, signal, eachExport(toCallback(found, 'optList', 'found')));
  }

  /**
   * Resolves with those of the added contexts that the export has, or with all of its contexts if none was added
   * (libnbd: `nbd_opt_list_meta_context`).
   */
  optListMetaContext(found?: ContextCallback, signal?: AbortSignal): Promise<readonly string[]> {
    return this.#contexts('optListMetaContext', listMetaContext, this.#added, found, signal);
  }

  /** The same for given queries (libnbd: `nbd_opt_list_meta_context_queries`). */
  optListMetaContextQueries(
    queries: readonly string[],
    found?: ContextCallback,
    signal?: AbortSignal,
  ): Promise<readonly string[]> {
    return this.#contexts('optListMetaContextQueries', listMetaContext, queries, found, signal);
  }

  /** Asks for the contexts that were added (libnbd: `nbd_opt_set_meta_context`); resolves with those selected. */
  optSetMetaContext(found?: ContextCallback, signal?: AbortSignal): Promise<readonly string[]> {
    return this.#contexts('optSetMetaContext', setMetaContext, this.#added, found, signal);
  }

  /** The same for given queries (libnbd: `nbd_opt_set_meta_context_queries`). */
  optSetMetaContextQueries(
    queries: readonly string[],
    found?: ContextCallback,
    signal?: AbortSignal,
  ): Promise<readonly string[]> {
    return this.#contexts('optSetMetaContextQueries', setMetaContext, queries, found, signal);
  }

  /** Asks for TLS (libnbd: `nbd_opt_starttls`); false when the server refuses. Discards what was negotiated before. */
  optStarttls(signal?: AbortSignal): Promise<boolean> {
    return this.#promise('optStarttls', () => optBoolean(startTls), signal);
  }

  /** Asks for extended headers (libnbd: `nbd_opt_extended_headers`); false when the server refuses. */
  optExtendedHeaders(signal?: AbortSignal): Promise<boolean> {
    return this.#promise('optExtendedHeaders', () => optBoolean(extendedHeaders), signal);
  }

  /** Asks for structured replies (libnbd: `nbd_opt_structured_reply`); false when the server refuses. */
  optStructuredReply(signal?: AbortSignal): Promise<boolean> {
    return this.#promise('optStructuredReply', () => optBoolean(structuredReply), signal);
  }

  /** Ends the negotiation without opening an export (libnbd: `nbd_opt_abort`): the connection is closed then. */
  async optAbort(): Promise<void> {
    this.#check('optAbort');
    await lifecycleOf(this).shutdown();
  }

  /** Raw form of {@link optGo} (libnbd: `nbd_aio_opt_go`). */
  aioOptGo(completion?: OptionCallback | null): void {
    this.#raw('aioOptGo', optGo, completion);
  }

  /** Raw form of {@link optInfo} (libnbd: `nbd_aio_opt_info`). */
  aioOptInfo(completion?: OptionCallback | null): void {
    this.#raw('aioOptInfo', optInfo, completion);
  }

  /** Raw form of {@link optList} (libnbd: `nbd_aio_opt_list`). */
  aioOptList(found: ListCallback, completion?: OptionCallback | null): void {
    this.#raw('aioOptList', optList, completion, eachExport(toCallback(found, 'aioOptList', 'found')));
  }

  /** Raw form of {@link optListMetaContext} (libnbd: `nbd_aio_opt_list_meta_context`). */
  aioOptListMetaContext(found: ContextCallback, completion?: OptionCallback | null): void {
    this.#rawContexts('aioOptListMetaContext', listMetaContext, this.#added, found, completion);
  }

  /** Raw form of {@link optListMetaContextQueries} (libnbd: `nbd_aio_opt_list_meta_context_queries`). */
  aioOptListMetaContextQueries(
    queries: readonly string[],
    found: ContextCallback,
    completion?: OptionCallback | null,
  ): void {
    this.#rawContexts('aioOptListMetaContextQueries', listMetaContext, queries, found, completion);
  }

  /** Raw form of {@link optSetMetaContext} (libnbd: `nbd_aio_opt_set_meta_context`). */
  aioOptSetMetaContext(found: ContextCallback, completion?: OptionCallback | null): void {
    this.#rawContexts('aioOptSetMetaContext', setMetaContext, this.#added, found, completion);
  }

  /** Raw form of {@link optSetMetaContextQueries} (libnbd: `nbd_aio_opt_set_meta_context_queries`). */
  aioOptSetMetaContextQueries(
    queries: readonly string[],
    found: ContextCallback,
    completion?: OptionCallback | null,
  ): void {
    this.#rawContexts('aioOptSetMetaContextQueries', setMetaContext, queries, found, completion);
  }

  /** Raw form of {@link optStarttls} (libnbd: `nbd_aio_opt_starttls`); a refusal is the callback's error. */
  aioOptStarttls(completion?: OptionCallback | null): void {
    this.#raw('aioOptStarttls', optRequired(startTls), completion);
  }

  /** Raw form of {@link optExtendedHeaders} (libnbd: `nbd_aio_opt_extended_headers`). */
  aioOptExtendedHeaders(completion?: OptionCallback | null): void {
    this.#raw('aioOptExtendedHeaders', optRequired(extendedHeaders), completion);
  }

  /** Raw form of {@link optStructuredReply} (libnbd: `nbd_aio_opt_structured_reply`). */
  aioOptStructuredReply(completion?: OptionCallback | null): void {
    this.#raw('aioOptStructuredReply', optRequired(structuredReply), completion);
  }

  /** Raw form of {@link optAbort} (libnbd: `nbd_aio_opt_abort`); `close` is emitted when it is over. */
  aioOptAbort(): void {
    this.#check('aioOptAbort');
    void lifecycleOf(this).shutdown();
  }

  get #added(): readonly string[] {
    return lifecycleOf(this).settings.metaContexts;
  }

  #check(method: string): void {
    const lifecycle = lifecycleOf(this);
    lifecycle.checkNoOption(method);
    checkState(method, lifecycle.phase, WHEN_NEGOTIATING, lifecycle.error);
  }

  async #promise<Result>(
    method: string,
    run: () => OptionRun<Result>,
    signal?: AbortSignal,
    report?: (result: Result) => void,
  ): Promise<Result> {
    this.#check(method);
    checkSignal(method, signal);
    const result = await lifecycleOf(this).runOption(method, run(), signal);
    report?.(result);
    return result;
  }

  #contexts(
    method: string,
    option: Parameters<typeof optMetaContext>[0],
    queries: readonly string[],
    found: ContextCallback | undefined,
    signal: AbortSignal | undefined,
  ): Promise<readonly string[]> {
    return this.#promise(
      method,
      () => optMetaContext(option, checkNames(method, queries)),
      signal,
      eachName(toCallback(found, method, 'found')),
    );
  }

  #rawContexts(
    method: string,
    option: Parameters<typeof optMetaContext>[0],
    queries: readonly string[],
    found: ContextCallback,
    completion: OptionCallback | null | undefined,
  ): void {
    const names = checkNames(method, queries);
    this.#raw(method, optMetaContext(option, names), completion, eachName(toCallback(found, method, 'found')));
  }

  #raw<Result>(
    method: string,
    run: OptionRun<Result>,
    completion: OptionCallback | null | undefined,
    report?: (result: Result) => void,
  ): void {
    const callback = toCallback(completion, method, 'completion');
    this.#check(method);
    this.#promise(method, () => run, undefined, report).then(
      () => callback?.(null),
      (error: unknown) => callback?.(error as NbdError),
    );
  }
}

const eachExport =
  (found: ListCallback | null) =>
  (exports: readonly ListedExport[]): void => {
    for (const { name, description } of exports) found?.(name, description);
  };

const eachName =
  (found: ContextCallback | null) =>
  (names: readonly string[]): void => {
    for (const name of names) found?.(name);
  };
