// The page: what is there (records), what is shown (filter, order, thresholds), and what people do.

import * as api from "./api.js";
import { cardElements } from "./card.js";
import { element, makeCard, placeMarks, showCard } from "./cards.js";
import { Detail } from "./detail.js";
import { asSamples, chosenFiles, droppedFiles, withoutOthers } from "./files.js";
import { adjustable, decide, doubt, ownThresholds, sureness } from "./rules.js";
import { Sender } from "./sending.js";
import { makeTable } from "./table.js";

const PAGE = 120; // cards that are shown at first, and that are added with each "more"
const ALL = "all classes";
const at = (id) => document.getElementById(id);

const page = {
  model: null,
  records: [],
  thresholds: null,
  limit: PAGE,
  shown: [],
  early: [], // files that came before the model was there
  unsaved: false, // whether something was corrected or checked since the table was downloaded
  labelsOf: (record) => record.corrected ?? record.decided,
  correct(record, labels) {
    record.corrected = labels && same(labels, record.decided) ? null : labels;
    record.checked = labels !== null;
    page.unsaved = true;
    refresh([record]);
  },
  check(record, whether) {
    record.checked = whether;
    page.unsaved = true;
    refresh([record]);
  },
  step(record, by) {
    const place = page.shown.indexOf(record) + by;
    return page.shown[place];
  },
};
const detail = new Detail(page);
const sender = new Sender(arrived, (message) => { at("progress-text").textContent = message; });
const actions = { open: (record) => detail.open(record), correct: page.correct };

const same = (a, b) => a.length === b.length && a.every((name) => b.includes(name));

// What comes in ------------------------------------------------------------------------------------------------------

function sayThatTheyWait(files) {
  if (files) notice(`${files} ${files === 1 ? "file waits" : "files wait"} until the model is open.`, "note");
}

async function add(found) {
  if (!page.model) { // it is being opened, or described
    page.early.push(...found);
    sayThatTheyWait(found.length);
    return;
  }
  const { kept, left } = withoutOthers(found);
  const known = new Set(page.records.flatMap((record) => record.files.map(key)));
  const fresh = kept.filter((file) => !known.has(key(file)));
  if (fresh.some((file) => file.path.includes("/"))) fresh.sort(byPath);
  if (left) notice(`${left} ${left === 1 ? "file is no image" : "files are no images"} by name and left out.`, "note");
  if (fresh.length < kept.length) notice(`${kept.length - fresh.length} of ${kept.length} files ${kept.length - fresh.length === 1 ? "is" : "are"} here already.`, "note");
  if (!found.length) notice("There was no file in what you dropped or chose.", "note");
  const records = asSamples(fresh, page.model.files).map((sample) => ({ ...sample, decided: [], corrected: null, checked: false, prediction: null, error: null }));
  page.records.push(...records);
  sender.add(page.model, records);
  refresh();
}

const byPath = (a, b) => a.path.localeCompare(b.path, undefined, { numeric: true }); // folders come in the order of the disk
const key = (file) => `${file.path} ${file.content.size} ${file.content.lastModified}`;

/** Called when records were answered, or failed, and when the last request is done. */
function arrived(records) {
  for (const record of records) if (record.prediction) record.decided = decide(page.model, record.prediction, page.thresholds);
  const failed = records.filter((record) => record.failed);
  if (failed.length && failed[0].error !== "stopped") notice(failed[0].error, "problem");
  refresh();
}

// What is shown ------------------------------------------------------------------------------------------------------

let asked = false;
let changed = new Set();

/** Draw soon; without records everything is looked at again. */
function refresh(records) {
  if (records && changed) for (const record of records) changed.add(record);
  if (!records) changed = null;
  if (!asked) requestAnimationFrame(draw);
  asked = true;
}

function draw() {
  asked = false;
  if (!page.model) return; // another one is being asked for; it draws when it is there
  const again = changed;
  changed = new Set();
  at("results").hidden = !page.records.length;
  document.body.classList.toggle("filled", page.records.length > 0);
  showProgress();
  if (!again || filtering()) list();
  placeMarks(page.model, page.thresholds.values);
  for (const record of again ?? []) {
    if (record.card) showCard(record.card, record, page.model, page.labelsOf(record));
  }
  showSummary();
  detail.show();
}

const filtering = () => at("only-label").value || at("only-state").value !== "all" || at("order").value === "label";

function list() {
  page.shown = order(page.records.filter(fits));
  const visible = page.shown.slice(0, page.limit);
  for (const record of visible) {
    record.card ??= makeCard(record, page.model, actions);
    showCard(record.card, record, page.model, page.labelsOf(record));
  }
  const cards = visible.map((record) => record.card);
  const now = at("cards").children;
  if (now.length !== cards.length || cards.some((card, place) => now[place] !== card)) {
    const focused = document.activeElement;
    at("cards").replaceChildren(...cards);
    if (focused?.isConnected && focused !== document.body) focused.focus({ preventScroll: true });
  }
  at("nothing").hidden = visible.length > 0;
  at("more").hidden = page.shown.length <= page.limit;
  at("more").textContent = `Show ${Math.min(PAGE, page.shown.length - page.limit)} more of ${page.shown.length}`;
}

function fits(record) {
  const text = at("find").value.trim().toLowerCase();
  const label = at("only-label").value;
  const state = at("only-state").value;
  if (text && !record.name.toLowerCase().includes(text)) return false;
  if (label && !(record.prediction && (label === "(none)" ? !page.labelsOf(record).length : page.labelsOf(record).includes(label)))) return false;
  if (state === "uncertain") return Boolean(doubt(record.prediction));
  if (state === "corrected") return Boolean(record.corrected);
  if (state === "unchecked") return Boolean(record.prediction) && !record.checked;
  if (state === "failed") return Boolean(record.error);
  return true;
}

function order(records) {
  const sure = (record) => (record.prediction ? sureness(page.model, record.prediction) : 2);
  const ways = {
    added: null,
    least: (a, b) => sure(a) - sure(b),
    most: (a, b) => (sure(b) % 2) - (sure(a) % 2),
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
    label: (a, b) => page.labelsOf(a).join("|").localeCompare(page.labelsOf(b).join("|"), undefined, { numeric: true }),
  };
  const way = ways[at("order").value];
  return way ? records.sort(way) : records;
}

function showProgress() {
  const done = page.records.filter((record) => record.prediction || record.error).length;
  at("progress").hidden = !sender.working;
  at("progress-bar").value = page.records.length ? done / page.records.length : 0;
  at("progress-text").textContent = `${done} of ${page.records.length}`;
}

function showSummary() {
  const done = page.records.filter((record) => record.prediction);
  const failed = page.records.filter((record) => record.error);
  const counts = new Map();
  for (const record of done) {
    const labels = page.labelsOf(record);
    for (const name of labels.length ? labels : ["no label"]) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const pieces = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([name, count]) => `${count} ${name}`);
  if (counts.size > 8) pieces.push("…");
  const extra = [
    [done.filter((record) => record.corrected).length, "corrected"], [done.filter((record) => record.checked).length, "checked"],
    [done.filter((record) => doubt(record.prediction)).length, "uncertain"], [failed.length, "not read"],
  ].filter(([count]) => count).map(([count, word]) => `${count} ${word}`);
  const noun = done.length === 1 ? "image" : "images";
  at("summary").textContent = `${done.length} ${noun}: ${[pieces.join(", "), ...extra].filter(Boolean).join("; ")}`;
  at("download").disabled = !done.length;
  at("retry").hidden = sender.working || !page.records.some((record) => record.failed);
}

/** A message that stays until it is closed; the same one is not shown twice. */
function notice(text, kind) {
  if ([...at("notices").children].some((one) => one.dataset.text === text)) return;
  const close = element("button", { type: "button", textContent: "✕", ariaLabel: "Close this message" });
  const shown = element("p", { className: `notice ${kind}` }, element("span", { textContent: text }), close);
  shown.dataset.text = text;
  close.addEventListener("click", () => shown.remove());
  at("notices").append(shown);
}

// Thresholds ---------------------------------------------------------------------------------------------------------

function showThreshold() {
  const { model, thresholds } = page;
  const classes = adjustable(model);
  at("threshold-legend").textContent = { highest: "No label below", second_class: `${model.classes[1]} from`, each_class: "Label from" }[model.thresholds.rule];
  if (at("threshold-class").options.length === 0) at("threshold-class").replaceChildren(new Option(ALL, ""), ...classes.map((name) => new Option(name, name)));
  at("threshold-class").hidden = model.thresholds.rule !== "each_class";
  const chosen = chosenThreshold();
  const values = model.thresholds.rule === "highest" ? [thresholds.floor] : (chosen ? [chosen] : classes).map((name) => thresholds.values[name]);
  const alike = values.every((value) => value === values[0]);
  at("threshold").value = String(values[0]);
  at("threshold-value").textContent = alike ? values[0].toFixed(3) : "different";
  at("threshold-reset").disabled = !thresholds.moved;
}

const chosenThreshold = () => (page.model.thresholds.rule === "each_class" ? at("threshold-class").value : page.model.classes[1]);

function moveThreshold(value) {
  const { thresholds, model } = page;
  const moved = Math.max(0.001, Math.round(value * 1000) / 1000);
  thresholds.moved = true;
  if (model.thresholds.rule === "highest") thresholds.floor = moved;
  else for (const name of chosenThreshold() ? [chosenThreshold()] : adjustable(model)) thresholds.values[name] = moved;
  decideAgain();
}

function decideAgain() {
  for (const record of page.records) if (record.prediction) record.decided = decide(page.model, record.prediction, page.thresholds);
  showThreshold();
  refresh();
}

// Models and the server ----------------------------------------------------------------------------------------------

async function chooseModel(name) {
  const files = page.records.flatMap((record) => record.files);
  forget();
  sayThatTheyWait(page.early.length); // those that came in before
  page.model = null;
  page.model = await api.describe(name);
  page.thresholds = ownThresholds(page.model);
  const { model } = page;
  at("about-card").replaceChildren(...cardElements(model.card || "There is no model card in the bundle."));
  at("about-open").hidden = false;
  const size = `${model.size[0]} × ${model.size[1]} pixels`;
  const parts = model.files.length ? ` A sample is one file a channel, <name>_<channel>: ${model.files.join(", ")}.` : "";
  at("hint").textContent = `Looked at in ${size}.${parts} They go to this server only, and are not kept there.`;
  at("only-label").replaceChildren(new Option("any", ""), ...model.classes.map((one) => new Option(one, one)), new Option("no label", "(none)"));
  at("threshold-class").replaceChildren();
  showThreshold();
  for (const id of ["choose-files", "choose-folder"]) at(id).disabled = false;
  if (page.early.length) at("notices").replaceChildren();
  files.push(...page.early.splice(0));
  if (files.length) await add(files);
  else refresh();
}

function forget() {
  sender.stop();
  page.records = [];
  page.shown = [];
  page.limit = PAGE;
  page.unsaved = false;
  at("cards").replaceChildren();
  at("notices").replaceChildren();
  refresh();
}

/** Ask before corrections are lost that no table holds. */
const mayForget = () => !page.unsaved || confirm("You corrected or checked images, and have not downloaded the table since. Go on, and lose that?");

async function start() {
  const words = { starting: "opening the models …", away: "no connection to the server", stopping: "the server is stopping" };
  for (;;) {
    const status = await api.health();
    at("status").textContent = words[status] ?? status;
    at("status").className = status;
    if (status === "ready") break;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  const names = await api.modelNames();
  at("model").replaceChildren(...names.map((name) => new Option(name, name)));
  at("model-choice").hidden = names.length < 2;
  at("model-name").textContent = names.length < 2 ? names[0] : "";
  await chooseModel(names[0]);
  setInterval(watch, 10_000);
}

async function watch() {
  if (document.hidden) return;
  const status = await api.health();
  at("status").textContent = status === "away" ? "no connection to the server" : status;
  at("status").className = status;
}

// What people do -----------------------------------------------------------------------------------------------------

function listen() {
  at("choose-files").addEventListener("click", () => at("files").click());
  at("choose-folder").addEventListener("click", () => at("folder").click());
  at("choose-folder").hidden = !("webkitdirectory" in at("folder"));
  for (const id of ["files", "folder"]) {
    at(id).addEventListener("change", async (event) => { await add(chosenFiles(event.target)); event.target.value = ""; });
  }
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  document.addEventListener("drop", (event) => droppedFiles(event.dataTransfer).then(add));
  at("tools").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["find", "only-label", "only-state", "order"]) at(id).addEventListener("input", () => { page.limit = PAGE; refresh(); });
  at("more").addEventListener("click", () => { page.limit += PAGE; refresh(); });
  at("threshold").addEventListener("input", (event) => moveThreshold(Number(event.target.value)));
  at("threshold-class").addEventListener("change", showThreshold);
  at("threshold-reset").addEventListener("click", () => { page.thresholds = ownThresholds(page.model); decideAgain(); });
  at("stop").addEventListener("click", () => { for (const record of sender.stop()) Object.assign(record, { error: "stopped", failed: true }); refresh(); });
  at("retry").addEventListener("click", () => { at("notices").replaceChildren(); sender.add(page.model, page.records.filter((record) => record.failed)); refresh(); });
  at("clear").addEventListener("click", () => { if (mayForget()) forget(); });
  at("download").addEventListener("click", download);
  at("model").addEventListener("change", (event) => {
    if (mayForget()) chooseModel(event.target.value).catch(tell);
    else event.target.value = page.model.name;
  });
  at("about-open").addEventListener("click", () => at("about").showModal());
  at("cards").addEventListener("keydown", walkCards);
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog && dialog.id !== "ask-token") dialog.close(); });
  }
}

/** The arrow keys go from card to card, up and down by rows. */
function walkCards(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
  if (!by || !event.target.matches(".look")) return;
  const looks = [...at("cards").querySelectorAll(".look")];
  looks[looks.indexOf(event.target) + by]?.focus();
  event.preventDefault();
}

function columns() {
  const cards = [...at("cards").children];
  const next = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
  return next < 0 ? cards.length : next;
}

function download() {
  const { text, kept, left } = makeTable(page.model, page.records, page.labelsOf, at("only-checked").checked);
  if (!kept) {
    notice("No image has a label to write down.", "note");
    return;
  }
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: address, download: `${page.model.name}-labels.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  page.unsaved = false;
  notice(`${kept} rows written${left ? `; ${left} left out (without a label, not read, or not checked)` : ""}.`, "note");
}

function askToken(message) {
  const dialog = at("ask-token");
  at("token-message").textContent = message;
  at("token").value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(at("token").value), { once: true }));
}

const tell = (error) => notice(error instanceof api.Trouble ? error.message : `the page made a mistake: ${error.message}`, "problem");

window.addEventListener("unhandledrejection", (event) => tell(event.reason));
window.addEventListener("error", (event) => tell(event.error ?? new Error(event.message)));
window.addEventListener("beforeunload", (event) => { if (page.unsaved) event.preventDefault(); });
api.onTokenNeeded(askToken);
listen();
start().catch(tell);
