import { describe, expect, it } from '@jest/globals';
import { MemoryBudget, type MemoryAccount } from '../../lib/server/transmission/memory-budget.js';
import { until } from '../support/waiting.js';

/** A holder that takes what it wants as soon as it may. */
class Taker {
  readonly account: MemoryAccount;
  readonly evicted: string[];
  readonly name: string;
  wanted: number[] = [];
  isStalled = false;

  constructor(budget: MemoryBudget, name: string, evicted: string[] = []) {
    this.name = name;
    this.evicted = evicted;
    this.account = budget.open({
      roomAgain: () => {
        this.pump();
      },
      isStalled: () => this.isStalled,
      evict: () => {
        this.evicted.push(this.name);
        this.account.close();
        this.account.set(0);
      },
    });
  }

  want(bytes: number): void {
    this.wanted.push(bytes);
    this.pump();
  }

  pump(): void {
    for (let next = this.wanted[0]; next !== undefined; next = this.wanted[0]) {
      if (!this.account.mayTake(next)) return;
      this.wanted.shift();
      this.account.set(this.account.held + next);
    }
  }
}

describe('MemoryBudget', () => {
  it('admits up to the limit, then in order, and one that is larger alone', () => {
    const budget = new MemoryBudget(100);
    const [a, b, c] = [new Taker(budget, 'a'), new Taker(budget, 'b'), new Taker(budget, 'c')];
    a.want(60);
    b.want(60);
    c.want(10);
    // c would fit, but b was first.
    expect([a, b, c].map(({ account }) => account.held)).toEqual([60, 0, 0]);
    a.account.set(0);
    expect([a, b, c].map(({ account }) => account.held)).toEqual([0, 60, 10]);
    a.want(1000);
    b.account.set(0);
    expect(a.account.held).toBe(0);
    c.account.set(0);
    expect(a.account.held).toBe(1000);
    expect(budget.used).toBe(1000);
    a.account.set(0);
    expect(budget.used).toBe(0);
  });

  it('serves those behind one that leaves, and counts what still runs for it', () => {
    const budget = new MemoryBudget(100);
    const [a, b, c] = [new Taker(budget, 'a'), new Taker(budget, 'b'), new Taker(budget, 'c')];
    a.want(60);
    b.want(60);
    c.want(30);
    b.account.close();
    expect(c.account.held).toBe(30);
    a.account.close();
    expect(budget.used).toBe(90);
    a.account.set(0);
    expect(budget.used).toBe(30);
  });

  it('takes it from the client that stands still and holds most, when others wait for it', async () => {
    const budget = new MemoryBudget(100, 5);
    const evicted: string[] = [];
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => new Taker(budget, name, evicted));
    a!.want(20);
    b!.want(50);
    c!.want(30);
    a!.isStalled = true;
    c!.isStalled = true;
    await new Promise((resolve) => setTimeout(resolve, 30));
    // No client waits: the others may take their time.
    expect(evicted).toEqual([]);
    d!.want(40);
    await until(() => d!.account.held === 40, 'there is room');
    expect(evicted).toEqual(['c', 'a']);
    expect(b!.account.held).toBe(50);
  });
});
