// The HTTP API, as far as the page uses it. Errors carry the one sentence the server sends.

export class Problem extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

const PAUSES = [1, 2, 4, 8, 15, 30]; // seconds between attempts where the server does not answer
const PATIENCE = 30_000; // milliseconds that a short answer may take: a network that loses everything says nothing
const silence = () => new Problem("The server does not answer. Is it still running?", 0);

// By one timer: browsers slow down those that follow each other while the page is not seen.
async function rest(seconds, signal) {
  signal.throwIfAborted();
  await new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal.addEventListener("abort", stop);
  });
}

const brief = (signal) => AbortSignal.any([AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])]);

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

async function call(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const file = options.body?.get("picture");
    if (file && !(await isReadable(file))) {
      throw new Problem(`${file.name}: the file was changed or removed after it was chosen; choose it again.`, -1);
    }
    throw silence();
  }
  const broken = (error) => {
    throw error.name === "AbortError" ? error : silence(); // the connection was lost in the middle of the answer
  };
  if (reply.ok) return reply.status === 204 ? null : reply.json().catch(broken);
  if (reply.status === 401) throw new Problem("The server asks for its token: reload the page to give it.", 401);
  const body = await reply.json().catch(() => ({}));
  // of a proxy, or of a server with too many connections; what the server itself cannot do, it says
  if ([502, 504].includes(reply.status) || (reply.status === 503 && !body.error)) throw silence();
  throw new Problem(body.error || `The server answered with ${reply.status}.`, reply.status);
}

export const state = (id, signal) => call(`/api/jobs/${id}`, { signal: brief(signal) });
export const networks = () => call("/api/networks");
export const health = (signal) => call("/api/health", { signal: brief(signal) });
export const remove = (id) => call(`/api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => null);
export const resultUrl = (id) => `/api/jobs/${id}/result`;
export const shownUrl = (id) => `${resultUrl(id)}?shown`; // to be looked at: does not count as delivered
export const archiveUrl = (ids) => `/api/results.zip?${ids.map((id) => `id=${id}`).join("&")}`;
export const previewUrl = (id, which) => `/api/jobs/${id}/preview/${which}`;

// Whether all results of an archive are there.
export async function isThere(address) {
  const reply = await fetch(address, { method: "HEAD", signal: brief() }).catch(() => null);
  if (!reply || reply.status > 499) throw silence();
  return reply.ok;
}

// Tries again, ever more slowly, where the server does not answer.
async function patiently(attempt, signal, onSilence = () => {}) {
  for (const seconds of [...PAUSES, null]) {
    try {
      return await attempt();
    } catch (error) {
      if (error.status !== 0 || seconds === null) throw error;
      onSilence();
      await rest(seconds, signal);
    }
  }
}

const hasRoom = (signal) => health(signal).then(({ waiting, capacity }) => waiting < capacity, () => true);

// Sends a picture when the queue has room for it; `onWait` is told what it waits for, "room" or "answer".
export async function submit({ file, name }, fields, signal, onWait) {
  for (;;) {
    while (!(await hasRoom(signal))) {
      onWait("room");
      await rest(2, signal);
    }
    signal.throwIfAborted();
    const form = new FormData();
    for (const [key, value] of Object.entries(fields)) if (value) form.append(key, value);
    form.append("picture", file, name);
    try {
      const send = () => call("/api/jobs", { method: "POST", body: form, signal });
      return await patiently(send, signal, () => onWait("answer"));
    } catch (error) {
      if (error.status !== 429) throw error; // another one was faster
      onWait("room");
      await rest(2, signal);
    }
  }
}

// Calls `update` with every new state of a job until it is finished.
export async function follow(id, signal, update) {
  for (;;) {
    const job = await patiently(() => state(id, signal), signal);
    signal.throwIfAborted(); // it may have been cancelled while the answer was read
    update(job);
    if (["done", "failed", "cancelled"].includes(job.state)) return;
    await rest(job.state === "running" ? 0.3 : 1, signal);
  }
}
