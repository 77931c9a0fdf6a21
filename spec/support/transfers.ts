// Every way to take the memory of a buffer away from its owner.

export const TRANSFERS: readonly (readonly [name: string, take: (memory: ArrayBuffer) => unknown])[] = [
  ['structuredClone', (memory) => structuredClone(memory, { transfer: [memory] })],
  [
    'postMessage',
    (memory) => {
      const { port1, port2 } = new MessageChannel();
      try {
        port1.postMessage(memory, [memory]);
      } finally {
        port1.close();
        port2.close();
      }
    },
  ],
  // Node 20 has neither of these.
  ['transfer()', (memory) => (memory as unknown as { transfer?: () => unknown }).transfer?.()],
  [
    'transferToFixedLength()',
    (memory) => (memory as unknown as { transferToFixedLength?: () => unknown }).transferToFixedLength?.(),
  ],
];
