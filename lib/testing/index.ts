/// <reference types="node" preserve="true" />

/**
 * `nbd-sdk/testing`: a scripted NBD server for testing clients, with builders for every message that a server sends.
 *
 * @packageDocumentation
 */

export {
  blockSizeInfo,
  chunk,
  type ChunkFields,
  DEFAULT_FLAGS,
  DEFAULT_SIZE,
  exportInfo,
  extendedChunk,
  greeting,
  join,
  metaContext,
  oldstyle,
  optionReply,
  type OptionReplyFields,
  pattern,
  simpleReply,
  u16,
  u32,
  type U64,
  u64,
  u8,
} from './messages.js';
export { type PeerRecording, type ReceivedCommand, type ReceivedOption, type RecordingMark } from './recording.js';
export { type PeerScript } from './script.js';
export { type ListenOptions, ScriptedPeer } from './scripted-peer.js';
export {
  close,
  type CommandScript,
  fin,
  mode,
  on,
  type OptionScript,
  type PeerRequest,
  quiet,
  rawplain,
  recv,
  repeat,
  type ReplyMode,
  rst,
  type Script,
  seq,
  sleep,
  stall,
  type Step,
  type Steps,
  tls,
  trickle,
} from './steps.js';
