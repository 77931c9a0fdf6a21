// The state that one handshake works on: what the user asked for, and what has been negotiated so far.

import type { ExportInfo, Negotiated, ProtocolName } from '../export-info.js';

/** What the user asked for; setters change it until the export is open. */
export interface HandshakeRequest {
  exportName: string;
  /** Messages and errors are not to show the name. */
  maskExportName: boolean;
  /** TLS_DISABLE, TLS_ALLOW or TLS_REQUIRE. */
  tls: number;
  /** HANDSHAKE_FLAG_* bits that may be answered. */
  handshakeFlags: number;
  /** The export is opened with EXPORT_NAME, and GO is not tried. */
  exportNameOnly?: boolean;
  structuredReplies: boolean;
  extendedHeaders: boolean;
  blockSize: boolean;
  metaContext: boolean;
  metaContexts: readonly string[];
  fullInfo: boolean;
  optMode: boolean;
}

export class HandshakeSession {
  readonly request: HandshakeRequest;
  protocol: ProtocolName | null = null;
  readonly negotiated: Negotiated = { structuredReplies: false, extendedHeaders: false, tls: false, contexts: null };
  info: ExportInfo | null = null;
  /** NO_ZEROES was offered and taken. */
  noZeroes = false;
  /** Options sent: each is a chunk of libnbd's stats_chunks_sent. */
  optionsSent = 0;
  /** The last of them: where a server hangs up, it is what it did not take. */
  lastOption: number | null = null;

  constructor(request: HandshakeRequest) {
    this.request = request;
  }

  get isFixedNewstyle(): boolean {
    return this.protocol === 'newstyle-fixed';
  }

  /** The export name as messages may show it. */
  get shownName(): string {
    const { exportName, maskExportName } = this.request;
    return maskExportName && exportName !== '' ? '***' : exportName;
  }

  /** What was learnt of an export no longer holds. */
  forgetExport(): void {
    this.info = null;
    this.negotiated.contexts = null;
  }

  /** TLS starts afresh: nothing that was said in plaintext may survive. */
  forgetAll(): void {
    this.forgetExport();
    this.negotiated.structuredReplies = false;
    this.negotiated.extendedHeaders = false;
  }
}
