// The HTTP API, as far as the page uses it. Errors carry the one sentence the server sends.

export class Problem extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

async function call(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const file = options.body?.get("picture");
    if (file && !(await isReadable(file))) {
      throw new Problem(`${file.name}: the file was changed or removed after it was chosen; choose it again.`, 0);
    }
    throw new Problem("The server does not answer. Is it still running?", 0);
  }
  if (reply.ok) return reply.status === 204 ? null : reply.json();
  if (reply.status === 401) throw new Problem("The server asks for its token: reload the page to give it.", 401);
  const body = await reply.json().catch(() => ({}));
  const problem = new Problem(body.error || `The server answered with ${reply.status}.`, reply.status);
  problem.retryAfter = Number(reply.headers.get("Retry-After")) || 2;
  throw problem;
}

export const state = (id, signal) => call(`/api/jobs/${id}`, { signal });
export const networks = () => call("/api/networks");
export const health = () => call("/api/health");
export const remove = (id) => call(`/api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => null);
export const resultUrl = (id) => `/api/jobs/${id}/result`;
export const previewUrl = (id, which) => `/api/jobs/${id}/preview/${which}`;

// Sends a picture; when the queue is full, waits as long as the server asks and tries again.
export async function submit(file, fields, signal, onFull) {
  for (;;) {
    const form = new FormData();
    for (const [key, value] of Object.entries(fields)) if (value) form.append(key, value);
    form.append("picture", file, file.name || "picture");
    try {
      return await call("/api/jobs", { method: "POST", body: form, signal });
    } catch (error) {
      if (error.status !== 429) throw error;
      onFull();
      const end = Date.now() + 1000 * error.retryAfter;
      while (Date.now() < end) {
        await pause(200);
        signal.throwIfAborted();
      }
    }
  }
}

// Calls `update` with every new state of a job until it is finished; resolves with the last state.
export async function follow(id, signal, update) {
  let silent = 0;
  for (;;) {
    try {
      const job = await state(id, signal);
      silent = 0;
      update(job);
      if (["done", "failed", "cancelled"].includes(job.state)) return job;
    } catch (error) {
      if (error.status !== 0 || ++silent > 5) throw error;
    }
    await pause(silent ? 2000 : 300);
    signal.throwIfAborted();
  }
}
