// The routes of the service, drawn from its own schema; nothing comes from elsewhere.
import { byId, el, fill, plain, problem, table } from "./dom.js";
import { call } from "./api.js";

function resolved(schema, all) {
  const name = schema?.$ref?.split("/").pop();
  return name ? all[name] : schema ?? {};
}

function typeOf(schema, all) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf ?? schema.oneOf) return (schema.anyOf ?? schema.oneOf).map((one) => typeOf(one, all)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {}, all)}`;
  return schema.type ?? "anything";
}

function limits(schema) {
  const inner = (schema.anyOf ?? []).find((one) => one.type !== "null") ?? {};
  const get = (name) => schema[name] ?? inner[name];
  const found = [["at least", get("minimum")], ["at most", get("maximum")], ["at most", get("maxItems"), "of them"], ["at most", get("maxLength"), "characters"]];
  return found.filter(([, n]) => n !== undefined).map(([word, n, unit]) => `${word} ${n}${unit ? ` ${unit}` : ""}`).join(", ");
}

function fields(schema, all) {
  return Object.entries(schema.properties ?? {}).map(([name, one]) => [
    el("code", {}, plain(name)), typeOf(one, all), (schema.required ?? []).includes(name) ? "yes" : "",
    [one.description, limits(one), one.default !== undefined && one.default !== null ? `default ${JSON.stringify(one.default)}` : ""].filter(Boolean).join("; "),
  ]);
}

function body(kind, content, all) {
  return Object.entries(content ?? {}).map(([media, one]) => {
    const schema = resolved(one.schema, all);
    const rows = fields(schema, all);
    const title = `${kind}: ${media}${schema.title ? `, ${schema.title}` : ""}`;
    return rows.length ? table(["Name", "Type", "Required", ""], rows, title) : el("p", { class: "quiet" }, plain(title));
  });
}

function nested(content, all) {
  const seen = new Map();
  const visit = (schema) => {
    if (!schema || typeof schema !== "object") return;
    const name = schema.$ref?.split("/").pop();
    if (name && !seen.has(name)) { seen.set(name, all[name]); visit(all[name]); }
    Object.values(schema).forEach(visit);
  };
  for (const one of Object.values(content ?? {})) visit(resolved(one.schema, all));
  return [...seen].map(([name, schema]) => [name, fields(schema, all)]).filter(([, rows]) => rows.length)
    .map(([name, rows]) => table(["Name", "Type", "Required", ""], rows, plain(name)));
}

function route(where, method, one, all) {
  const parameters = (one.parameters ?? []).map((p) => [el("code", {}, plain(p.name)), p.in, p.required ? "yes" : "", [p.description, limits(p.schema ?? {})].filter(Boolean).join("; ")]);
  const answers = Object.entries(one.responses ?? {});
  const good = answers.find(([status]) => status.startsWith("2"))?.[1];
  return el("details", { class: "route" },
    el("summary", {}, el("span", { class: "method" }, method.toUpperCase()), el("code", {}, plain(where)), ` ${plain(one.description?.split("\n")[0] ?? one.summary ?? "")}`),
    parameters.length ? table(["Parameter", "In", "Required", ""], parameters, "Parameters") : null,
    ...body("Body", one.requestBody?.content, all), ...nested(one.requestBody?.content, all),
    ...body("Answer", good?.content, all),
    el("p", { class: "quiet" }, `Statuses: ${answers.map(([status]) => status).join(", ")}`));
}

async function start() {
  try {
    const schema = await call("GET", "/openapi.json");
    const all = schema.components?.schemas ?? {};
    byId("about").textContent = `${schema.info.title} ${schema.info.version}. ${schema.info.description ?? ""}`;
    const groups = new Map();
    for (const [where, methods] of Object.entries(schema.paths)) {
      for (const [method, one] of Object.entries(methods)) {
        const tag = one.tags?.[0] ?? "other";
        groups.set(tag, [...(groups.get(tag) ?? []), route(where, method, one, all)]);
      }
    }
    fill(byId("routes"), ...[...groups].map(([tag, routes]) => el("section", {}, el("h2", {}, plain(tag)), ...routes)));
  } catch (error) {
    fill(byId("routes"));
    problem(error);
  }
}

start();
