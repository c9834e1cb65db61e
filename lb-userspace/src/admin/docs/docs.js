// Shows the OpenAPI document as a page, logs in and out, and sends requests. Every text becomes a text node: nothing in the
// document or in an answer is taken for HTML.
"use strict";

let schemas = {};
// Of the session; goes with every request that changes something, where no page of others can send it.
let csrf = "";

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
  box.append(sender(path, method, what));
  box.dataset.words = (method + " " + path + " " + what.summary).toLowerCase();
  return box;
}

function input(form, label, name, kind) {
  const field = document.createElement(kind);
  field.name = name;
  const around = element("label", label + " ");
  around.append(field);
  form.append(around);
  return field;
}

// The path with what was typed in, and its query.
function address(path, parameters, typed) {
  const query = new URLSearchParams();
  for (const one of parameters) {
    const value = typed[one.name].value;
    if (one.in === "path") path = path.replace("{" + one.name + "}", encodeURIComponent(value));
    else if (value !== "") query.set(one.name, value);
  }
  return query.size ? path + "?" + query : path;
}

// A form that sends the request, and shows what comes back.
function sender(path, method, what) {
  const form = element("form", undefined, "sender");
  const parameters = what.parameters || [];
  const typed = {};
  for (const one of parameters) {
    typed[one.name] = input(form, one.name, one.name, "input");
    typed[one.name].required = one.in === "path";
  }
  const body = method !== "get" && what.requestBody && input(form, "Body", "body", "textarea");
  form.append(element("button", "Send"));
  const answer = element("pre");
  form.append(answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const headers = method === "get" ? {} : { "Content-Type": "application/json", "X-CSRF-Token": csrf };
    const request = { method: method.toUpperCase(), headers, cache: "no-store" };
    if (body && body.value) request.body = body.value;
    answer.textContent = "…";
    fetch(address(path, parameters, typed), request)
      .then((reply) => reply.text().then((text) => {
        const json = (reply.headers.get("Content-Type") || "").includes("json");
        answer.textContent = reply.status + "\n" + (json ? JSON.stringify(JSON.parse(text), null, 2) : text);
      }))
      .catch((error) => { answer.textContent = String(error); });
  });
  return form;
}

// Whom the session belongs to; without one, the form.
function who(session) {
  csrf = session ? session.csrf || "" : "";
  document.getElementById("login").hidden = Boolean(session);
  document.getElementById("logout").hidden = !csrf;
  if (session) document.getElementById("about").textContent = "Logged in as " + session.name + ", " + session.role + ".";
}

function setUpLogin() {
  const said = document.getElementById("who");
  const json = { "Content-Type": "application/json" };
  document.getElementById("login").addEventListener("submit", (event) => {
    event.preventDefault();
    const password = document.getElementById("password");
    const body = JSON.stringify({ name: document.getElementById("name").value, password: password.value });
    password.value = "";
    fetch("/api/v1/session", { method: "POST", headers: json, body })
      .then((reply) => reply.json().then((answer) => {
        if (reply.ok) who(answer);
        else said.textContent = answer.detail;
      }))
      .catch((error) => { said.textContent = String(error); });
  });
  document.getElementById("logout").addEventListener("click", () => {
    fetch("/api/v1/session", { method: "DELETE", headers: { ...json, "X-CSRF-Token": csrf } }).finally(() => location.reload());
  });
  fetch("/api/v1/session", { cache: "no-store" }).then((reply) => (reply.ok ? reply.json().then(who) : undefined));
}

function show(api) {
  schemas = api.components.schemas;
  const about = document.getElementById("about");
  if (!about.textContent) about.textContent = api.info.description;
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

setUpLogin();
fetch("/api/v1/openapi.json").then((answer) => answer.json()).then(show).catch((error) => {
  document.getElementById("routes").textContent = "The document cannot be shown: " + error;
});
