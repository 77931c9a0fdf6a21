// jest's environment for Node, with a context whose global object is an ordinary one. Jest's own looks up every use of
// `Buffer`, `BigInt` or `Math` by an interceptor, which takes several times as long.

import vm from 'node:vm';

import { TestEnvironment } from 'jest-environment-node';

// Jest loads an environment by its default export.
export default class PlainEnvironment extends TestEnvironment {
  constructor(config, context) {
    const { createContext } = vm;
    vm.createContext = () => createContext(vm.constants.DONT_CONTEXTIFY);
    try {
      super(config, context);
    } finally {
      vm.createContext = createContext;
    }
    // Jest's own 100 lines make every error of a table of thousands slow.
    this.global.Error.stackTraceLimit = 25;
  }
}
