// The page: what is chosen, what is asked, what is shown. It calls the same routes as every other client.
import { byId, el, fill, noProblem, option, plain, problem } from "./dom.js";
import { call, forgetKey, hasKey, keepKey, path, whenKeyIsNeeded } from "./api.js";
import { forget, picture, watch } from "./picture.js";
import { card } from "./hits.js";
import { showFacts, showPredictions } from "./facts.js";
import { showJobs } from "./jobs.js";

const state = { collection: "", info: null, heads: [], like: new Set(), unlike: new Set(), canMark: false, similar: null, searching: null };
const CONSE = "This encoder reads pictures by the names of ImageNet's classes: words find what ImageNet has a name for, and little else.";

async function start() {
  try {
    const [listed, schema] = await Promise.all([call("GET", "/v1/collections"), call("GET", "/openapi.json")]);
    state.canMark = Boolean(schema.components.schemas.SearchQuery?.properties?.like);
    const names = listed.collections.map((one) => one.name);
    const wanted = fromAddress().collection;
    const first = names.includes(wanted) ? wanted : names[0];
    fill(byId("collection"), ...listed.collections.map((one) => option(one.name, `${one.name} (${one.items.toLocaleString("en")})`, one.name === first)));
    if (!names.length) return says("The store has no collections yet. permafrost embed SOURCE --into NAME makes one.");
    await open(first, fromAddress());
  } catch (error) {
    problem(error);
  }
}

async function open(name, asked = {}) {
  Object.assign(state, { collection: name, similar: null, like: new Set(), unlike: new Set() });
  for (const id of ["hits", "predictions", "facts-body"]) fill(byId(id));
  says("Loading the collection.");
  noProblem();
  const info = await call("GET", path("v1", "collections", name));
  Object.assign(state, { info, heads: info.heads ?? [] });
  const spaces = info.spaces.map((space) => option(space.fingerprint, `${space.encoder}, ${space.dim}-d`, space.default));
  fill(byId("space"), ...spaces);
  fill(byId("head"), ...state.heads.map((head) => option(head.head, `${head.head}: ${head.label}`)));
  byId("classify").hidden = !state.heads.length;
  byId("text").value = asked.text ?? "";
  byId("filter").value = asked.filter ?? "";
  state.similar = asked.id ?? null;
  byId("filter").placeholder = example(info.columns);
  showFacts(info);
  showMarks();
  spaceChanged();
  if (!info.items) return says("This collection is empty.");
  if (state.similar || byId("text").value) return search();
  return browse();
}

function example(columns) {
  const [name, type] = Object.entries(columns).find(([one]) => one !== "group") ?? [];
  return !name ? "no columns to filter by" : type === "string" ? `${name} = '…'` : type === "bool" ? name : `${name} >= …`;
}

function spaceChanged() {
  const space = state.info.spaces.find((one) => one.fingerprint === byId("space").value);
  const media = space?.media ?? [];
  byId("text-row").querySelector("input").disabled = !media.includes("text");
  byId("text").placeholder = media.includes("text") ? "What to look for  ( / )" : "this Space reads pictures only";
  byId("picture-row").hidden = !media.includes("image");
  if (!media.includes("image")) forget();
  byId("note").hidden = !space?.encoder.startsWith("bundled:conse");
  byId("note").textContent = CONSE;
}

// Before anything is asked, some items are shown where the service lists them; a service that does not is no error.
async function browse() {
  const shown = await call("GET", `${path("v1", "collections", state.collection, "items")}?limit=${byId("k").value}`).catch(() => null);
  const items = (shown?.items ?? []).map((one) => ({ id: one.id, item: one.item ?? one, score: null }));
  showHits(items);
  says(items.length ? `The first ${items.length} of ${state.info.items.toLocaleString("en")} items. Ask for something.` : "Ask for something.");
}

function query() {
  const [like, unlike] = [[...state.like], [...state.unlike]];
  if (state.similar) return { id: state.similar };
  if (picture()) return { image: picture().base64 };
  if (byId("text").value.trim()) return { text: byId("text").value };
  if (like.length) return unlike.length ? { like, unlike } : { like };
  return null;
}

async function search() {
  const asked = query();
  if (!asked) return says(state.unlike.size ? "Like at least one item, or give words." : "Give words or a picture, or choose an item.");
  state.searching?.abort();
  const mine = (state.searching = new AbortController());
  const body = { query: asked, k: Number(byId("k").value), space: byId("space").value, exact: byId("exact").checked };
  const filter = byId("filter").value.trim();
  if (filter) body.filter = filter;
  wrongFilter("");
  noProblem();
  busy(true);
  says("Searching.");
  remember(asked, filter);
  try {
    const found = await call("POST", `${path("v1", "collections", state.collection)}/search`, body, { signal: mine.signal });
    showHits(found.hits);
    says(summary(found, asked));
  } catch (error) {
    if (error.name === "AbortError") return;
    showHits([]);
    says("");
    if (error.param === "filter") wrongFilter([error.message, error.hint].filter(Boolean).join(". "));
    else problem(error);
  } finally {
    if (state.searching === mine) busy(false);
  }
}

function summary(found, asked) {
  const how = found.exact ? `exact (${found.index})` : found.index;
  const hits = found.hits.length === 1 ? "1 hit" : `${found.hits.length} hits`;
  const of = `${hits} among ${found.searched.toLocaleString("en")}`;
  const about = asked.id ? `like ${plain(asked.id)}, ` : asked.like ? `like ${asked.like.length} marked, ` : "";
  const none = found.hits.length ? "" : " Loosen the filter or choose another Space.";
  return `${about}${of}, by ${plain(found.metric)}, ${plain(how)}, ${found.took_ms.toFixed(1)} ms, Space ${found.space.slice(0, 12)}.${none}`;
}

const act = {
  similar(id) {
    forget();
    byId("text").value = "";
    state.similar = id;
    byId("results").focus();
    search();
  },
  mark(kind, id) {
    const other = kind === "like" ? "unlike" : "like";
    if (!state[kind].delete(id)) state[kind].add(id);
    state[other].delete(id);
    showMarks();
  },
  async classify(input) {
    byId("predictions").textContent = "Classifying.";
    try {
      const where = `${path("v1", "collections", state.collection, "heads", byId("head").value)}/predict`;
      showPredictions(await call("POST", where, { inputs: [input] }));
      byId("classify").scrollIntoView({ block: "nearest" });
    } catch (error) {
      fill(byId("predictions"), el("p", { class: "problem", role: "alert" }, plain([error.message, error.hint].filter(Boolean).join(". "))));
    }
  },
};

function showHits(hits) {
  fill(byId("hits"), ...hits.map((hit) => card(hit, state, act)));
}

function showMarks() {
  const chips = ["like", "unlike"].flatMap((kind) => [...state[kind]].map((id) =>
    el("button", { type: "button", title: "remove this mark", click: () => { act.mark(kind, id); if (query()) search(); } }, `${kind === "like" ? "Liked" : "Unliked"}: ${plain(id)}`)));
  const go = el("button", { type: "button", class: "primary", click: () => { forget(); byId("text").value = ""; state.similar = null; search(); } }, "Search by marks");
  fill(byId("marks"), ...chips, chips.length ? go : null);
  byId("marks").hidden = !chips.length;
}

function says(text) {
  byId("status").textContent = text;
}

function busy(now) {
  byId("hits").setAttribute("aria-busy", String(now));
}

function wrongFilter(text) {
  byId("filter-error").textContent = plain(text);
  byId("filter").setAttribute("aria-invalid", String(Boolean(text)));
  if (text) byId("filter").focus();
}

// What is asked stands in the address, so that it can be reloaded and sent to somebody; pictures do not.
function remember(asked, filter) {
  const words = new URLSearchParams({ collection: state.collection });
  if (asked.text) words.set("text", asked.text);
  if (asked.id) words.set("id", asked.id);
  if (filter) words.set("filter", filter);
  history.replaceState(null, "", `#${words}`);
}

const fromAddress = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function askForKey(error) {
  const dialog = byId("key-dialog");
  byId("key").hidden = false;
  byId("key-why").textContent = plain(error?.message ?? "");
  byId("key-value").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    const key = byId("key-value").value.trim();
    byId("key-value").value = "";
    if (dialog.returnValue === "use" && key) keepKey(key);
    resolve(dialog.returnValue === "use" && key ? key : null);
  }, { once: true }));
}

whenKeyIsNeeded(askForKey);
byId("key").hidden = !hasKey();
byId("key").addEventListener("click", async () => { forgetKey(); if (await askForKey(null)) start(); });
byId("ask").addEventListener("submit", (event) => { event.preventDefault(); state.similar = null; search(); });
byId("text").addEventListener("input", () => { if (picture()) forget(); });
byId("collection").addEventListener("change", (event) => open(event.target.value).catch(problem));
byId("space").addEventListener("change", () => { spaceChanged(); if (query()) search(); });
for (const id of ["k", "exact"]) byId(id).addEventListener("change", () => { if (query()) search(); });
byId("classify-query").addEventListener("click", () => {
  const asked = query();
  if (asked && !asked.like) act.classify(asked);
  else byId("predictions").textContent = "Give words or a picture first.";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    byId("text").focus();
  }
});
byId("jobs").addEventListener("toggle", showJobs);
for (const button of document.querySelectorAll("[data-opens]")) {
  button.addEventListener("click", () => {
    const opened = byId(button.dataset.opens);
    opened.open = true;
    opened.scrollIntoView({ block: "nearest" });
    opened.querySelector("summary").focus();
  });
}
watch(() => { state.similar = null; byId("text").value = ""; search(); });
showJobs();
start();
