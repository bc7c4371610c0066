// Sends records to the server, a few requests at a time, each as large as the server takes them.

import * as api from "./api.js";

const AT_ONCE = 2;
const MOST = 32; // records of a request: small enough that something is seen soon

export class Sender {
  /** `told` is called after every change of a record; `busy` with a sentence while the server has no room. */
  constructor(told, busy) {
    this.told = told;
    this.busy = busy;
    this.waiting = [];
    this.running = 0;
    this.abort = new AbortController();
  }

  get working() {
    return this.running > 0 || this.waiting.length > 0;
  }

  add(model, records) {
    for (const record of records) Object.assign(record, { error: null, failed: false });
    this.waiting.push(...records);
    while (this.running < AT_ONCE && this.waiting.length) this.#run(model);
  }

  /** What has not been sent is given back. */
  stop() {
    this.abort.abort();
    this.abort = new AbortController();
    return this.waiting.splice(0);
  }

  async #run(model) {
    this.running += 1;
    const signal = this.abort.signal;
    while (this.waiting.length && !signal.aborted) await this.#send(model, this.#next(model), signal);
    this.running -= 1;
    this.told([]);
  }

  #next(model) {
    const room = 0.9 * model.limits.body_bytes;
    const most = Math.min(MOST, model.limits.images);
    let count = 0;
    let bytes = 0;
    while (count < Math.min(most, this.waiting.length)) {
      bytes += size(this.waiting[count]);
      if (count && bytes > room) break;
      count += 1;
    }
    return this.waiting.splice(0, count);
  }

  async #send(model, records, signal) {
    try {
      if (records.length === 1 && size(records[0]) > model.limits.body_bytes) {
        throw new api.Trouble(`larger than the ${model.limits.body_bytes / 1e6} MB that this server takes at a time`, 413);
      }
      const rows = await api.predict(model.name, records.map((record) => record.files), signal, this.busy);
      if (rows.length !== records.length) throw new api.Trouble(`the server found ${rows.length} samples where ${records.length} were sent: are channels named as the model expects?`);
      records.forEach((record, number) => settle(record, rows[number]));
    } catch (error) {
      if (error.name === "AbortError") records.forEach((record) => fail(record, "stopped", true));
      else if (error.status === 413 && records.length > 1) return this.#halve(model, records, signal);
      else if (error.problems?.length === records.length) records.forEach((record, number) => fail(record, error.problems[number].reason));
      else records.forEach((record) => fail(record, error.message, error.status !== 413 && error.status !== 422));
      if (!(error instanceof api.Trouble) && error.name !== "AbortError") throw error;
    }
    this.told(records);
    return undefined;
  }

  async #halve(model, records, signal) {
    const middle = records.length >> 1;
    await this.#send(model, records.slice(0, middle), signal);
    await this.#send(model, records.slice(middle), signal);
  }
}

const size = (record) => record.files.reduce((total, file) => total + file.content.size, 0);

function settle(record, row) {
  if (row.error) return fail(record, row.error);
  record.name = record.files.length > 1 ? row.image : record.name;
  record.prediction = row;
  return undefined;
}

/** `again`: whether it may work another time. */
function fail(record, reason, again = false) {
  Object.assign(record, { error: reason, failed: again });
}
