// The long acts of the service: what they are at, how they ended, and what a report found.
import { byId, el, fill, plain, table } from "./dom.js";
import { call, path } from "./api.js";

const AGAIN_MS = 2000;
const MOST = 50;
const ENDED = new Set(["finished", "failed", "cancelled"]);
let waiting = 0;

export async function showJobs() {
  clearTimeout(waiting);
  if (!byId("jobs").open) return;
  try {
    const { jobs } = await call("GET", "/v1/jobs");
    const rows = jobs.slice(0, MOST).map((job) => [when(job), job.kind, job.collection, job.state, told(job), ENDED.has(job.state) ? "" : cancel(job)]);
    fill(byId("jobs-body"), rows.length ? table(["Begun", "Job", "Collection", "State", "", ""], rows, "The newest first")
      : el("p", { class: "quiet" }, "No jobs yet: runs, indexes, heads and reports that are begun over HTTP are listed here."));
    if (jobs.some((job) => !ENDED.has(job.state))) waiting = setTimeout(showJobs, AGAIN_MS);
  } catch (error) {
    fill(byId("jobs-body"), el("p", { class: "problem" }, plain(error.message)));
  }
}

const when = (job) => new Date(1000 * job.created).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

function cancel(job) {
  return el("button", { type: "button", "aria-label": `Cancel ${job.kind} of ${plain(job.collection)}`, click: () => call("DELETE", path("v1", "jobs", job.id)).then(showJobs, showJobs) }, "Cancel");
}

function told(job) {
  if (job.error) return [job.error.message, job.error.hint].filter(Boolean).join(". ");
  const verdicts = Object.values(job.result?.verdicts ?? {}).map((one) => one?.sentence).filter(Boolean);
  if (verdicts.length) return el("ul", {}, ...verdicts.map((text) => el("li", {}, plain(text))));
  const result = job.result ?? {};
  if (job.kind === "heads" && result.head) return `${result.head}@${result.version}${typeof result.metrics?.accuracy === "number" ? `, accuracy ${result.metrics.accuracy.toFixed(3)}` : ""}`;
  if (job.kind === "indexes" && result.kind) return `${result.kind}${typeof result.recall_at_10 === "number" ? `, recall@10 ${result.recall_at_10.toFixed(3)}` : ""}`;
  if (job.kind === "runs" && typeof result.embedded === "number") return `${result.embedded} embedded, ${result.unchanged} unchanged, ${result.failed} failed`;
  const progress = job.progress ?? {};
  const done = typeof progress.done === "number" ? `${progress.done}${progress.total ? ` of ${progress.total}` : ""}` : "";
  return [progress.phase, progress.what, done].filter(Boolean).join(", ");
}
