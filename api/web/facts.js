// What is known of a collection, its Spaces and its heads; and what a head says.
import { byId, el, fill, plain, table } from "./dom.js";

const MOST_CLASSES = 5;
const count = (n) => (n ?? 0).toLocaleString("en");

export function showFacts(info) {
  const spaces = info.spaces.map((space) => [
    space.encoder + (space.default ? " (default)" : ""), el("code", {}, plain(space.fingerprint.slice(0, 12))), space.dim,
    (space.media ?? []).join(", "), count(space.vectors) + (space.missing ? `, ${count(space.missing)} missing` : ""), indexOf(space.index),
  ]);
  const heads = (info.heads ?? []).map((head) => [`${head.head}@${head.version}`, head.kind, head.label, (head.classes ?? []).length, metric(head), head.stale ?? ""]);
  const columns = Object.entries(info.columns).map(([name, type]) => `${plain(name)} (${plain(type)})`).join(", ");
  fill(byId("facts-body"),
    el("p", {}, `${count(info.items)} items. Columns for filters: ${columns || "none"}.`),
    table(["Encoder", "Space", "Dimensions", "Reads", "Vectors", "Index"], spaces, "Spaces"),
    heads.length ? table(["Head", "Kind", "Label", "Classes", "Held-out accuracy", "Stale"], heads, "Heads") : el("p", { class: "quiet" }, "No heads yet."));
}

function indexOf(index) {
  if (!index) return "none: every vector is scored";
  const recall = typeof index.recall_at_10 === "number" ? `, recall@10 ${index.recall_at_10.toFixed(3)}` : "";
  return `${index.kind} of ${count(index.rows)}${index.fresh ? ` and ${count(index.fresh)} newer` : ""}${recall}`;
}

const metric = (head) => (typeof head.metrics?.accuracy === "number" ? head.metrics.accuracy.toFixed(3) : "");

export function showPredictions(answer) {
  const blocks = answer.results.map((one) => {
    const best = Object.entries(one.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
    const rows = best.slice(0, MOST_CLASSES).map(([name, p]) => [name, el("meter", { min: 0, max: 1, value: p, "aria-label": plain(name) }), p.toFixed(3)]);
    const more = best.length > MOST_CLASSES ? `${best.length - MOST_CLASSES} more classes are less likely` : "";
    return el("div", {}, el("p", {}, el("strong", {}, plain(one.label ?? "no label")), ` for ${plain(one.input)}`),
      ...remarks(one).map((text) => el("p", { class: "quiet" }, plain(text))),
      typeof one.value === "number" ? null : table(["Class", "Probability", ""], rows, `${plain(answer.head)}@${answer.version}`), more ? el("p", { class: "quiet" }, more) : null);
  });
  const stale = answer.stale ? el("p", { class: "notice" }, plain(answer.stale)) : null;
  fill(byId("predictions"), stale, ...blocks);
}

function remarks(one) {
  const found = [];
  if (Array.isArray(one.prediction_set)) found.push(`prediction set: ${one.prediction_set.join(", ") || "empty"}`);
  if (Array.isArray(one.interval) && typeof one.interval[0] === "number") found.push(`interval: ${one.interval[0].toPrecision(4)} to ${one.interval[1].toPrecision(4)}`);
  if (one.abstained) found.push("the head abstains: it is not sure enough");
  if (one.domain && typeof one.domain !== "object") found.push(`domain: ${one.domain}`);
  else if (one.domain) found.push(`domain: ${JSON.stringify(one.domain)}`);
  return found;
}
