// Talking to the server: token, models, predictions, explanations. Every failure becomes a Trouble with a sentence for people.

const PATIENCE = { tries: 40, longest: 8000 }; // of a busy server, in attempts and milliseconds

export class Trouble extends Error {
  constructor(message, status = 0, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

let token = sessionStorage.getItem("coverslip-token") ?? "";
let askForToken = async () => "";

/** Say how a token is asked for: a function that is given a sentence and gives the token. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

export async function health() {
  try {
    const answer = await fetch("health", { cache: "no-store" });
    return (await answer.json()).status;
  } catch {
    return "away";
  }
}

export const modelNames = async () => (await ask("models")).models;

export const describe = (name) => ask(`model?${new URLSearchParams({ model: name })}`);

export const openapi = () => ask("openapi.json");

/** Predictions of samples, each an array of files, in their order. */
export async function predict(model, samples, signal, busy) {
  const query = new URLSearchParams({ model, thumbnails: "true" });
  const answer = await ask(`predict?${query}`, { method: "POST", body: form(samples.flat()), signal }, busy);
  return answer.predictions;
}

/** The heat map of one sample for a label. */
export function explain(model, files, label, signal) {
  const query = new URLSearchParams({ model, label });
  return ask(`explain?${query}`, { method: "POST", body: form(files), signal });
}

function form(files) {
  const data = new FormData();
  for (const file of files) data.append("images", file.content, file.path);
  return data;
}

/** One request: waits while the server is busy, asks for the token when it is wanted. */
async function ask(address, options = {}, busy = () => {}) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await send(address, options);
    if (answer.ok) return answer.json();
    const told = await answer.json().catch(() => ({}));
    const message = told.detail ?? `the server answered ${answer.status}`;
    if (answer.status === 401) {
      token = await askForToken(token ? "That token is not the right one." : "Whoever started it has set one.");
      sessionStorage.setItem("coverslip-token", token);
    } else if ((answer.status === 429 || answer.status === 503) && attempt < PATIENCE.tries) {
      busy(message);
      const told_seconds = Number(answer.headers.get("Retry-After")) || 1;
      await pause(Math.min(told_seconds * 1000 * 1.5 ** (attempt - 1), PATIENCE.longest) * (0.75 + Math.random() / 2), options.signal);
    } else {
      throw new Trouble(message, answer.status, told.problems ?? []);
    }
  }
}

async function send(address, options) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    return await fetch(address, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("no connection to the server: is it still running?");
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("stopped", "AbortError")); }, { once: true });
  });
}
