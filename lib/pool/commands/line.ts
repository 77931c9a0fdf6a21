// The line in which commands wait that no connection has room for: in the order of their calls, those that are issued
// again before all others, for they were called earlier.

import type { Task } from './task.js';

export class Line {
  #first: Task[] = [];
  #rest: Task[] = [];
  /** Where #rest begins; what was before has gone. */
  #head = 0;
  #gone = 0;

  get length(): number {
    return this.#first.length + this.#rest.length - this.#head - this.#gone;
  }

  get isEmpty(): boolean {
    return this.#first.length === 0 && this.#head === this.#rest.length;
  }

  /** A new command. */
  push(task: Task): void {
    this.#rest.push(task);
  }

  /** A command that was issued before. */
  pushAgain(task: Task): void {
    const first = this.#first;
    let at = first.length;
    while (at > 0 && (first[at - 1] as Task).order > task.order) at--;
    first.splice(at, 0, task);
  }

  /** The next one, without taking it. */
  get head(): Task | undefined {
    if (this.#first.length > 0) return this.#first[0];
    for (; this.#head < this.#rest.length; this.#head++) {
      const task = this.#rest[this.#head] as Task;
      if (task.resolve !== null) return task;
      this.#gone--;
    }
    this.#rest = [];
    this.#head = 0;
    return undefined;
  }

  /** Takes the head. */
  shift(): void {
    if (this.#first.length > 0) {
      this.#first.shift();
      return;
    }
    if (++this.#head >= 1024 && this.#head * 2 >= this.#rest.length) this.#compact();
  }

  /** Takes out a task that waits here and is not settled yet. */
  remove(task: Task): void {
    const at = this.#first.indexOf(task);
    if (at >= 0) {
      this.#first.splice(at, 1);
      return;
    }
    // It is passed over, or swept out with as many others: an abort of all of them stays linear.
    task.resolve = null;
    if (++this.#gone >= 1024 && this.#gone * 2 >= this.#rest.length - this.#head) this.#compact();
    else if (this.length === 0) this.#compact();
  }

  /** Takes all. */
  takeAll(): Task[] {
    const all = [...this.#first, ...this.#rest.slice(this.#head).filter((task) => task.resolve !== null)];
    this.#first = [];
    this.#rest = [];
    this.#head = 0;
    this.#gone = 0;
    return all;
  }

  #compact(): void {
    this.#rest = this.#rest.slice(this.#head).filter((task) => task.resolve !== null);
    this.#head = 0;
    this.#gone = 0;
  }
}
