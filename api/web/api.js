// The service, as the page calls it: one kind of error, and a key that is asked for when it is needed.

const KEY = "permafrost.key";
let asked = null;
let askForKey = async () => null;

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body?.message ?? `the service answered ${status}`);
    this.status = status;
    this.hint = body?.hint ?? "";
    this.param = body?.param ?? null;
    this.requestId = body?.request_id ?? "";
    if (status === 429 && retryAfter) this.hint = `${this.hint} (again in ${retryAfter} s)`.trim();
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);
export const whenKeyIsNeeded = (ask) => { askForKey = ask; };

// Each part of a path is encoded: an id may hold slashes, question marks and anything else.
export const path = (...parts) => "/" + parts.map(encodeURIComponent).join("/");

export async function call(method, where, body, { signal } = {}) {
  const reply = await send(method, where, body, signal);
  return reply.json();
}

export async function blob(where, { signal } = {}) {
  return (await send("GET", where, undefined, signal)).blob();
}

async function send(method, where, body, signal) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const reply = await once(method, where, body, signal, key);
    if (reply.ok) return reply;
    const error = await explained(reply);
    if (reply.status !== 401 && reply.status !== 403) throw error;
    if (sessionStorage.getItem(KEY) !== key) continue;
    asked ??= askForKey(error).finally(() => { asked = null; });
    if (!(await asked)) throw error;
  }
}

async function once(method, where, body, signal, key) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  try {
    return await fetch(where, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "the service cannot be reached", hint: "is it still running, and is this tab still on its address?" });
  }
}

async function explained(reply) {
  const text = await reply.text();
  let body = null;
  try {
    body = JSON.parse(text).error;
  } catch {
    body = { message: `the service answered ${reply.status} without saying why` };
  }
  return new ApiError(reply.status, body, reply.headers.get("retry-after"));
}
