// One card an image: picture, label, bars, correction. Cards are made once and then changed.

import { doubt, ranked } from "./rules.js";

const BARS = 3; // of a card, and more where more labels are said
const SAID = 5; // labels that a card names, at most

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Bars of probabilities, with a mark at the threshold of a class that has one, which `placeMarks` moves. */
export function bars(model, classes, probabilities, labels) {
  return classes.map((name) => {
    const fill = element("i");
    fill.style.width = `${100 * probabilities[name]}%`;
    const track = element("span", { className: "track" }, fill);
    if (name in model.thresholds.values) {
      const mark = element("b");
      mark.style.left = `calc(100% * var(${variable(model, name)}))`;
      track.append(mark);
    }
    const row = element(
      "li", { className: labels.includes(name) ? "said" : "" },
      element("span", { className: "class", textContent: name, title: name }), track,
      element("span", { className: "number", textContent: probabilities[name].toFixed(3) }),
    );
    return row;
  });
}

const variable = (model, name) => `--threshold-${model.classes.indexOf(name)}`;

/** Move the marks of all bars, which need not be drawn anew. */
export function placeMarks(model, values) {
  for (const [name, value] of Object.entries(values)) document.documentElement.style.setProperty(variable(model, name), value);
}

/** The words of a verdict: labels, at most so many, and what else is to be known. */
export function verdict(record, labels, most = Infinity) {
  if (record.error) return [element("span", { className: "badge stop", textContent: "not read" })];
  if (!record.prediction) return [element("span", { className: "badge", textContent: "waiting" })];
  const shown = labels.slice(0, most).map((name) => element("span", { className: "label", textContent: name }));
  if (!labels.length) shown.push(element("span", { className: "label none", textContent: "no label" }));
  if (labels.length > most) shown.push(element("span", { className: "badge", textContent: `and ${labels.length - most} more`, title: labels.slice(most).join(", ") }));
  if (record.corrected) shown.push(element("span", { className: "badge", textContent: "corrected" }));
  else if (record.checked) shown.push(element("span", { className: "badge", textContent: "checked" }));
  const why = doubt(record.prediction);
  if (why) shown.push(element("span", { className: "badge warn", textContent: "uncertain", title: why }));
  return shown;
}

/** A card for a record. `act` holds `open(record)` and `correct(record, labels or null)`. */
export function makeCard(record, model, act) {
  const image = element("img", { alt: "", decoding: "async", hidden: true });
  const look = element("button", { type: "button", className: "look" }, image);
  look.addEventListener("click", () => act.open(record));
  const parts = {
    image, look,
    name: element("p", { className: "name" }),
    verdict: element("p", { className: "verdict" }),
    error: element("p", { className: "error", hidden: true }),
    bars: element("ul", { className: "bars" }),
    correct: model.task === "multilabel" ? correctButton(record, act) : correctChoice(record, model, act),
  };
  const card = element("li", { className: "card" }, look, parts.name, parts.verdict, parts.error, parts.bars, parts.correct);
  card.parts = parts;
  return card;
}

/** Bring a card up to date, where anything changed. */
export function showCard(card, record, model, labels) {
  const { parts } = card;
  const state = JSON.stringify([record.name, labels, record.error, record.corrected, record.checked, Boolean(record.prediction)]);
  if (card.state === state) return;
  card.state = state;
  parts.name.textContent = record.name;
  parts.name.title = record.name;
  parts.look.setAttribute("aria-label", `${record.name}: ${record.error ? "not read" : labels.join(", ") || "no label yet"}. Open`);
  if (record.prediction?.thumbnail && parts.image.hidden) {
    parts.image.src = record.prediction.thumbnail;
    parts.image.hidden = false;
  }
  card.classList.toggle("failed", Boolean(record.error));
  parts.verdict.replaceChildren(...verdict(record, labels, SAID));
  parts.error.hidden = !record.error;
  parts.error.textContent = record.error ?? "";
  const prediction = record.prediction;
  parts.bars.replaceChildren(...(prediction ? bars(model, mostTelling(model, prediction, labels), prediction.probabilities, labels) : []));
  parts.correct.hidden = !prediction;
  const choice = parts.correct.querySelector("select");
  if (choice) choice.value = record.corrected ? record.corrected[0] ?? "" : "";
}

/** The classes whose bars a card shows: first the labels, then those that come next. */
function mostTelling(model, prediction, labels) {
  const order = ranked(model, prediction);
  const said = order.filter((name) => labels.includes(name));
  return [...said, ...order.filter((name) => !labels.includes(name))].slice(0, Math.max(BARS, Math.min(said.length, SAID)));
}

function correctChoice(record, model, act) {
  const choice = element("select", {}, new Option("as predicted", ""), ...model.classes.map((name) => new Option(name, name)));
  choice.addEventListener("change", () => act.correct(record, choice.value ? [choice.value] : null));
  return element("label", { className: "correct" }, "Right label ", choice);
}

function correctButton(record, act) {
  const button = element("button", { type: "button", textContent: "Correct labels" });
  button.addEventListener("click", () => act.open(record));
  return element("p", { className: "correct" }, button);
}
