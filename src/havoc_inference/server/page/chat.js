// The chat page: one conversation, kept in this browser, with the server's OpenAI-compatible API.

const $ = (id) => document.getElementById(id);
const DEFAULTS = { system: "", temperature: 0.8, top_p: 0.95, max_tokens: 512, seed: "" };
const RENDER_EVERY_MS = 400;
const stored = (key, fallback) => { try { return JSON.parse(localStorage.getItem(key)) ?? fallback; } catch { return fallback; } };
const keep = (key, value) => { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* full or forbidden: it lives as long as the page */ } };

let messages = stored("havoc-messages", []);   // {role, content, facts?, problem?, tries?}
let settings = { ...DEFAULTS, ...stored("havoc-settings", {}) };
let model = null;                               // the entry of /v1/models
let running = null;                             // AbortController of the answer that is being written
let asking = null;                              // what resolves when the key's dialog closes

// ---- the server

function headers() {
  const key = sessionStorage.getItem("havoc-key");
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

/** fetch that asks for a key on 401 and throws {message, code} for whatever else is not 200. */
async function request(path, body, signal) {
  for (;;) {
    const given = sessionStorage.getItem("havoc-key");
    let reply;
    try {
      reply = await fetch(path, { method: body ? "POST" : "GET", headers: headers(), body: body && JSON.stringify(body), signal });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Error("The server cannot be reached.");
    }
    if (reply.ok) return reply;
    const found = (await reply.json().catch(() => ({}))).error ?? {};
    if (reply.status === 401 && (await askForKey(given))) continue;
    throw Object.assign(new Error(found.message || `The server answered ${reply.status}.`), { code: found.code });
  }
}

/** Opens the dialog once, however many requests wait for a key. True: try again. */
function askForKey(given) {
  if ((sessionStorage.getItem("havoc-key") ?? "") !== (given ?? "")) return true;
  asking ??= new Promise((resolve) => {
    const dialog = $("key");
    $("key-problem").textContent = given ? "The server does not know this key." : "";
    dialog.addEventListener("close", () => {
      asking = null;
      const key = dialog.returnValue === "key" ? dialog.querySelector("input").value.trim() : "";
      if (key) sessionStorage.setItem("havoc-key", key);
      dialog.querySelector("form").reset();
      resolve(Boolean(key));
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

/** The JSON of each server-sent event. */
async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection ended before the answer did.");
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const line of parts.flatMap((part) => part.split(/\r?\n/))) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw Object.assign(new Error(event.error.message), { code: event.error.code });
      yield event;
    }
  }
}

function body(history, tries) {
  const number = (value) => (value === "" || value === null ? undefined : Number(value));
  const seed = number(settings.seed);
  const dialog = history.map(({ role, content }) => ({ role, content }));
  if (settings.system.trim()) dialog.unshift({ role: "system", content: settings.system });
  return {
    model: model?.id, messages: dialog, stream: true, stream_options: { include_usage: true },
    temperature: Number(settings.temperature), top_p: Number(settings.top_p), max_completion_tokens: number(settings.max_tokens),
    seed: seed === undefined ? undefined : seed + messages.length + tries,   // the same conversation repeats, another try differs
  };
}

// ---- an answer

/** Write the answer to everything above `index`, which is its place. */
async function answer(index, tries = 0) {
  messages = [...messages.slice(0, index), { role: "assistant", content: "", tries }];
  draw(Math.max(0, index - 1));
  save();
  const message = messages[index], place = $("messages").lastElementChild, view = writer(place.querySelector(".answer"));
  running = new AbortController();
  busy(true);
  // A question that got no answer is not sent again; the last one waits for its own.
  const answered = (m, i) => i === index - 1 || (m.role === "user" ? messages[i + 1].content : m.content);
  let history = messages.slice(0, index).filter(answered), forgotten = 0, first = 0, usage = null, reason = null;
  const started = performance.now();
  try {
    let reply = null;
    while (!reply) {
      try {
        reply = await request("v1/chat/completions", body(history, tries), running.signal);
      } catch (error) {   // as in the terminal: the oldest turns are forgotten, never the system message
        if (error.code !== "context_length_exceeded" || history.length < 3) throw error;
        history = history.slice(2);
        forgotten += 2;
      }
    }
    for await (const event of events(reply)) {
      usage = event.usage ?? usage;
      const choice = event.choices?.[0];
      reason = choice?.finish_reason ?? reason;
      if (choice?.delta?.content) {
        first ||= performance.now();
        message.content += choice.delta.content;
        view.write(message.content);
        follow();
      }
    }
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped";
    else message.problem = error.message;
  }
  message.facts = facts({ usage, reason, forgotten, seconds: (performance.now() - (first || started)) / 1000 });
  running = null;
  busy(false);
  save();
  await view.end(message.content);
  finish(place, index);
  follow();
}

/** The line below an answer. */
function facts({ usage, reason, forgotten, seconds }) {
  const parts = [];
  if (reason === "stopped") parts.push("stopped");
  if (reason === "length") parts.push("cut off");
  if (forgotten) parts.push(`without the first ${forgotten} messages, which no longer fit`);
  if (usage) {
    parts.push(`${usage.completion_tokens} tokens`);
    const rate = (usage.completion_tokens - 1) / seconds;   // the first one begins the time
    if (rate > 0 && seconds > 0.05) parts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`);
    parts.push(`prompt ${usage.prompt_tokens}`);
  }
  return parts.join(" · ");
}

/** Shows text at once, and as Markdown whenever the server has rendered it. */
function writer(element) {
  const [html, tail] = element.children;
  let latest = "", shown = 0, timer = 0, work = null;
  const render = async () => {
    timer = 0;
    const text = latest, began = performance.now();
    try {
      const reply = await request("page/render", { text });
      html.innerHTML = (await reply.json()).html;   // made safe by the server; the page's policy forbids foreign scripts
      shown = text.length;
      addCopying(html);
    } catch { /* the plain text is there already */ }
    tail.textContent = latest.slice(shown);
    return performance.now() - began;
  };
  const later = (delay) => {
    timer ||= setTimeout(() => {
      work = render().then((took) => {
        work = null;
        if (latest.length > shown && element.classList.contains("writing")) later(Math.max(RENDER_EVERY_MS, 3 * took));
      });
    }, delay);
  };
  return {
    write(text) {
      latest = text;
      element.classList.remove("waiting");
      tail.textContent = text.slice(shown);
      if (!work) later(RENDER_EVERY_MS);
    },
    async end(text) {
      clearTimeout(timer);
      element.classList.remove("writing", "waiting");
      await work;
      latest = text;
      if (text) await render();
      element.setAttribute("aria-busy", "false");
    },
  };
}

// ---- drawing

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function tool(name, run, label = name) {
  const button = make("button", { type: "button", textContent: name, onclick: run });
  button.setAttribute("aria-label", label);
  return button;
}

function copier(text) {
  const button = tool("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {   // without https there is no clipboard but this one
      const area = make("textarea", { value: text() });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

function addCopying(html) {
  for (const block of html.querySelectorAll(".code")) {
    const button = copier(() => block.querySelector("code").textContent);
    button.className = "copy";
    block.append(button);
  }
}

/** Draw the messages from `first` on; what stands before them stays as it is. */
function draw(first = 0) {
  const list = $("messages");
  $("empty").hidden = messages.length > 0;
  $("clear").disabled = messages.length === 0;
  while (list.children.length > first) list.lastChild.remove();
  for (let index = first; index < messages.length; index++) {
    list.append(messages[index].role === "user" ? question(messages[index], index) : reply(messages[index], index));
  }
}

function question(message, index) {
  return make("li", { className: "user" },
    make("div", { className: "said", textContent: message.content }),
    make("div", { className: "tools" }, tool("Edit", () => edit(index), "Edit the question"), copier(() => message.content)));
}

function reply(message, index) {
  const place = make("li", { className: "assistant" },
    make("div", { className: "answer" }, make("div", { className: "html" }), make("span", { className: "tail" })),
    make("div", { className: "tools" }));
  const box = place.firstChild;
  box.setAttribute("aria-live", "polite");
  if (message.facts === undefined) {
    box.classList.add("writing", "waiting");
    box.setAttribute("aria-busy", "true");
  } else {
    box.lastChild.textContent = message.content;
    writer(box).end(message.content);
    finish(place, index);
  }
  return place;
}

/** What stands below a whole answer. */
function finish(place, index) {
  const message = messages[index];
  if (!message) return;   // dropped while its last words were rendered
  const again = () => { if (!running) answer(index, (message.tries ?? 0) + 1); };
  const tools = place.querySelector(".tools");
  const about = make("span", { className: "facts", textContent: message.facts });
  if (message.content) tools.replaceChildren(copier(() => message.content), tool("Regenerate", again, "Regenerate the answer"), about);
  else tools.replaceChildren(...(message.problem ? [] : [tool("Regenerate", again, "Regenerate the answer")]), about);
  if (message.problem) {
    const box = make("div", { className: "failure" }, message.problem, tool("Try again", again));
    box.setAttribute("role", "alert");
    tools.before(box);
  } else if (!message.content) {
    place.querySelector(".tail").replaceChildren(make("i", { className: "muted", textContent: "No answer." }));
  }
}

function edit(index) {
  if (running) return;
  const place = $("messages").children[index], before = [...place.children];
  const area = make("textarea", { value: messages[index].content });
  area.setAttribute("aria-label", "Edit the question");
  const cancel = () => { place.replaceChildren(...before); place.classList.remove("edit"); $("question").focus(); };
  const send = () => {
    if (running || !area.value.trim()) return;
    messages = [...messages.slice(0, index), { role: "user", content: area.value }];
    answer(index + 1);
    $("question").focus();
  };
  area.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); cancel(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  };
  place.classList.add("edit");
  place.replaceChildren(area, make("div", { className: "row" },
    make("button", { type: "button", className: "quiet", textContent: "Cancel", onclick: cancel }),
    make("button", { type: "button", className: "strong", textContent: "Send", onclick: send })));
  area.focus();
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
  $("clear").disabled = yes;
}

/** Stay at the end, unless the reader has scrolled up. */
let pinned = true;
addEventListener("scroll", () => { pinned = innerHeight + scrollY > document.documentElement.scrollHeight - 120; }, { passive: true });
function follow() { if (pinned) scrollTo(0, document.documentElement.scrollHeight); }

addEventListener("pagehide", () => { if (running) save(); });
const save = () => keep("havoc-messages", messages.map((message) => ({ facts: "", ...message })));

// ---- the composer

function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

function send(text) {
  if (running || !text.trim()) return;
  $("notice").replaceChildren();
  messages = [...messages, { role: "user", content: text.trim() }];
  $("question").value = "";
  grow();
  pinned = true;
  answer(messages.length);
  follow();
}

$("composer").onsubmit = (event) => { event.preventDefault(); send($("question").value); };
$("question").oninput = grow;
$("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(event.target.value); }
  if (event.key === "ArrowUp" && !event.target.value) {
    const last = messages.findLastIndex(({ role }) => role === "user");
    if (last >= 0) { event.preventDefault(); edit(last); }
  }
};
$("stop").onclick = () => { running?.abort(); $("question").focus(); };
addEventListener("keydown", (event) => { if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.abort(); });
for (const button of $("examples").children) button.onclick = () => { send(button.textContent); $("question").focus(); };
$("clear").onclick = () => {
  const before = messages;
  messages = [];
  save();
  draw();
  $("notice").replaceChildren("The conversation was deleted.", tool("Undo", () => { messages = before; save(); draw(); $("notice").replaceChildren(); }));
  $("question").focus();
};

// ---- settings, theme, key, model

const fields = $("settings").querySelector("form").elements;
function showSettings() {
  for (const name of Object.keys(DEFAULTS)) fields[name].value = settings[name];
  for (const name of ["temperature", "top_p"]) fields[`${name}_shown`].value = Number(settings[name]).toFixed(2);
}
$("settings").oninput = () => {
  for (const name of Object.keys(DEFAULTS)) if (fields[name].validity.valid) settings[name] = fields[name].value;
  for (const name of ["temperature", "top_p"]) fields[`${name}_shown`].value = Number(settings[name]).toFixed(2);
  keep("havoc-settings", settings);
};
$("open-settings").onclick = () => { showSettings(); $("settings").showModal(); };
$("defaults").onclick = () => { settings = { ...DEFAULTS }; limitTokens(); keep("havoc-settings", settings); showSettings(); };
$("model").onclick = () => $("card").showModal();
$("key").querySelector("form").onsubmit = (event) => { event.preventDefault(); $("key").close("key"); };
$("key-cancel").onclick = () => $("key").close("");
for (const dialog of document.querySelectorAll("dialog")) dialog.onclick = (event) => { if (event.target === dialog) dialog.close(""); };

const system = matchMedia("(prefers-color-scheme: dark)");
const themeNow = () => document.documentElement.dataset.theme || (system.matches ? "dark" : "light");
$("theme-toggle").onclick = () => {
  document.documentElement.dataset.theme = themeNow() === "dark" ? "light" : "dark";
  keep("havoc-theme", document.documentElement.dataset.theme);
};

/** Half of a short context is left to the question. */
function limitTokens() {
  const half = Math.floor(model?.max_model_len / 2);
  if (settings.max_tokens > half) settings.max_tokens = half;
}

async function loadModel() {
  try {
    model = (await (await request("v1/models")).json()).data[0];
  } catch (error) {
    $("model-name").textContent = "no model";
    $("notice").replaceChildren(error.message, tool("Try again", () => { $("notice").replaceChildren(); loadModel(); }));
    return;
  }
  const { parameters, step, dummy_data: dummy, demo, ...more } = model.havoc ?? {};
  const scale = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} billion` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : n.toLocaleString("en"));
  const lines = { Parameters: parameters && scale(parameters), "Step of training": step?.toLocaleString("en"), Context: model.max_model_len && `${model.max_model_len.toLocaleString("en")} tokens` };
  for (const [name, value] of Object.entries(more)) if (["string", "number"].includes(typeof value)) lines[name.replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase())] = value;
  const note = dummy ? "Dummy data: this model learnt from random words. Its answers show that the machinery works and mean nothing."
    : demo ? "Only a demo: a model of this size answers in form, not in fact. Check every number it gives." : "";
  $("model-name").textContent = $("card-title").textContent = model.id;
  $("facts").replaceChildren(...Object.entries(lines).filter(([, value]) => value).flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  $("demo").textContent = $("card-note").textContent = note;
  $("demo").hidden = !note;
  document.title = `${model.id} · HAVOC`;
  limitTokens();
}

document.documentElement.dataset.theme = stored("havoc-theme", "");
draw();
follow();
loadModel();
