// A collector for tests: the wire of docs/protocol.md as far as a client meets it, and faults on request.

import http from 'node:http';
import zlib from 'node:zlib';

/** The answer of a collector that refuses a whole batch, for `faults`. */
export const refusal = (status, code) => [
  status,
  { 'content-type': 'application/problem+json' },
  JSON.stringify({ type: 'urn:subway:problem:' + code, title: code, status, detail: 'the batch is refused', code }),
];

export class Collector {
  /** Every event, by ID, in the order of first arrival. */
  stored = new Map();
  /** Every request that carried a batch: { headers, url, batch, status }. */
  requests = [];
  /** What the next requests get instead of the normal treatment: (batch, request) => [status, headers, body] or null. */
  faults = [];
  /** Pages to serve on GET: path => [content type, text or bytes]. */
  pages = new Map();

  async start() {
    this.server = http.createServer((request, response) => this.#receive(request, response));
    await new Promise((ready) => this.server.listen(0, '127.0.0.1', ready));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  events() {
    return [...this.stored.values()];
  }

  #receive(request, response) {
    if (request.method === 'GET') {
      const page = this.pages.get(request.url.split('?')[0]);
      response.writeHead(page ? 200 : 404, page ? { 'content-type': page[0], 'access-control-allow-origin': '*' } : {});
      return response.end(page ? page[1] : '');
    }
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      let body = Buffer.concat(parts);
      const zipped = body[0] === 0x1f && body[1] === 0x8b;
      if (zipped) body = zlib.gunzipSync(body);
      const batch = JSON.parse(body.toString('utf8'));
      const fault = this.faults.shift();
      const answer = (fault && fault(batch, request)) || this.#accept(batch);
      this.requests.push({ headers: request.headers, url: request.url, batch, zipped, status: answer[0] });
      response.writeHead(answer[0], { 'access-control-allow-origin': '*', ...answer[1] });
      response.end(answer[2]);
    });
  }

  #accept(batch) {
    const duplicate = [];
    batch.events.forEach((event, index) => {
      if (this.stored.has(event.id)) duplicate.push(index);
      else this.stored.set(event.id, { ...event, install_id: batch.install_id });
    });
    const stored = batch.events.length - duplicate.length;
    const receipt = { batch_id: batch.batch_id, server_time: Date.now(), stored, duplicate, rejected: [] };
    return [200, { 'content-type': 'application/json' }, JSON.stringify(receipt)];
  }
}
