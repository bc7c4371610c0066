// The OpenAPI document of this server, for people.

import * as api from "./api.js";
import { element } from "./cards.js";

const at = (id) => document.getElementById(id);

api.onTokenNeeded(async (message) => prompt(`This server asks for a token. ${message}`) ?? "");

/** The properties of a schema as rows of a table: name, type, meaning. */
function fields(document_, schema) {
  const { properties = {} } = resolved(document_, schema);
  return Object.entries(properties).map(([name, one]) => [name, typeOf(document_, one), one.description ?? ""]);
}

function resolved(document_, schema) {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? document_.components.schemas[name] : schema ?? {};
}

function typeOf(document_, schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(document_, one)).join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.type === "array") return `list of ${typeOf(document_, schema.items ?? schema.prefixItems?.[0] ?? {})}`;
  if (schema.additionalProperties?.type) return `name → ${schema.additionalProperties.type}`;
  return schema.format === "binary" ? "file" : schema.type ?? "";
}

function table(head, rows) {
  const row = (cells, kind) => element("tr", {}, ...cells.map((text) => element(kind, { textContent: text })));
  return element("table", {}, element("thead", {}, row(head, "th")), element("tbody", {}, ...rows.map((cells) => row(cells, "td"))));
}

function section(title, head, rows) {
  return rows.length ? [element("h3", { textContent: title }), table(head, rows)] : [];
}

function operation(document_, path, method, one) {
  const parts = one.requestBody?.content["multipart/form-data"]?.schema;
  const answer = one.responses["200"]?.content?.["application/json"]?.schema;
  const secret = one.security?.length ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const example = `curl${secret}${parts ? " -F images=@image.png" : ""} ${location.origin}${path}`;
  return element(
    "section", { className: "operation" },
    element("h2", { textContent: `${method.toUpperCase()} ${path}` }), element("p", { textContent: one.description ?? "" }), element("pre", { textContent: example }),
    ...section("Parameters", ["name", "type", "meaning"], (one.parameters ?? []).map((parameter) => [parameter.name, typeOf(document_, parameter.schema), parameter.description ?? ""])),
    ...section("Parts of the form", ["name", "type", "meaning"], parts ? fields(document_, parts) : []),
    ...section("Answer", ["field", "type", "meaning"], answer ? fields(document_, answer) : []),
    ...section("Other answers", ["status", "", "meaning"], Object.entries(one.responses).filter(([status]) => status !== "200").map(([status, other]) => [status, "", other.description])),
  );
}

async function show() {
  const document_ = await api.openapi();
  at("about").textContent = document_.info.description;
  at("token-hint").textContent = document_.components.securitySchemes ? "Every request carries the token, except /health." : "";
  const all = Object.entries(document_.paths).flatMap(([path, item]) => Object.entries(item).map(([method, one]) => operation(document_, path, method, one)));
  const shared = ["Prediction", "Thresholds", "Problem"].filter((name) => document_.components.schemas[name]).map((name) => element(
    "section", { className: "operation" }, element("h2", { textContent: name }), table(["field", "type", "meaning"], fields(document_, document_.components.schemas[name])),
  ));
  at("operations").replaceChildren(...all, ...shared);
}

show().catch((error) => { at("operations").textContent = error.message; });
