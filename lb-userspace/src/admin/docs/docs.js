// Shows the OpenAPI document as a page. Every text of it becomes a text node: nothing in it is taken for HTML.
"use strict";

let schemas = {};

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function nameOf(schema) {
  if (!schema || Object.keys(schema).length === 0) return "anything";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.map(nameOf).filter((name) => name !== "null").join(" or ");
  if (schema.type === "array") return "list of " + nameOf(schema.items);
  if (schema.type === "object" && schema.additionalProperties) return "table of " + nameOf(schema.additionalProperties);
  return [].concat(schema.type || "value").filter((name) => name !== "null").join(" or ");
}

function resolve(schema) {
  return schema && schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
}

function rows(table, entries) {
  for (const [name, kind, meaning] of entries) {
    const row = element("tr");
    const cell = element("td");
    cell.append(element("code", name));
    row.append(cell, element("td", kind), element("td", meaning || ""));
    table.append(row);
  }
}

function fields(title, schema) {
  const part = element("section");
  part.append(element("h4", title + ": " + nameOf(schema)));
  let inner = resolve(schema);
  if (inner && inner.type === "array") inner = resolve(inner.items);
  const table = element("table");
  const required = new Set((inner && inner.required) || []);
  rows(table, Object.entries((inner && inner.properties) || {}).map(([name, property]) =>
    [name + (required.has(name) ? " *" : ""), nameOf(property), property.description]));
  if (table.firstChild) part.append(table);
  return part;
}

function operation(path, method, what) {
  const box = element("details");
  const line = element("summary");
  line.append(element("span", method.toUpperCase(), "method " + method), element("code", path), " ", what.summary);
  line.append(element("span", what["x-role"], "role"));
  box.append(line);
  if (what.parameters) {
    const table = element("table");
    rows(table, what.parameters.map((one) => [one.name, one.in + ", " + nameOf(one.schema), one.description]));
    box.append(element("h4", "Parameters"), table);
  }
  const body = what.requestBody && what.requestBody.content["application/json"];
  if (body) box.append(fields("Body", body.schema));
  for (const [media, content] of Object.entries(what.responses["200"].content)) {
    box.append(content.schema ? fields("Answer", content.schema) : element("h4", "Answer: " + media));
  }
  box.dataset.words = (method + " " + path + " " + what.summary).toLowerCase();
  return box;
}

function show(api) {
  schemas = api.components.schemas;
  document.getElementById("about").textContent = api.info.description;
  const groups = new Map();
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const [method, what] of Object.entries(operations)) {
      const tag = what.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(path, method, what));
    }
  }
  const main = document.getElementById("routes");
  main.replaceChildren();
  for (const [tag, boxes] of [...groups].sort(([one], [other]) => one.localeCompare(other))) {
    const group = element("section");
    group.append(element("h2", tag.replaceAll("_", " ")), ...boxes);
    main.append(group);
  }
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const box of main.querySelectorAll("details")) box.hidden = !box.dataset.words.includes(wanted);
    for (const group of main.children) group.hidden = !group.querySelector("details:not([hidden])");
  });
}

fetch("/api/v1/openapi.json").then((answer) => answer.json()).then(show).catch((error) => {
  document.getElementById("routes").textContent = "The document cannot be shown: " + error;
});
