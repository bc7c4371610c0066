// The dialog of one image: large picture, heat map, all probabilities, correction.

import * as api from "./api.js";
import { bars, element, verdict } from "./cards.js";
import { isShown } from "./files.js";
import { doubt } from "./rules.js";

const DOUBTS = { score: "no label, or more than one, is likely enough", unlike: "the image is unlike all training images" };

const at = (id) => document.getElementById(id);

export class Detail {
  /** `page` gives: model, labelsOf(record), correct(record, labels), check(record, whether), step(record, by). */
  constructor(page) {
    this.page = page;
    this.record = null;
    this.dialog = at("detail");
    this.dialog.addEventListener("close", () => this.#left());
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    at("previous").addEventListener("click", () => this.#step(-1));
    at("next").addEventListener("click", () => this.#step(1));
    at("undo").addEventListener("click", () => page.correct(this.record, null));
    at("detail-checked").addEventListener("change", (event) => page.check(this.record, event.target.checked));
    at("heat-label").addEventListener("change", () => this.#explain());
  }

  open(record) {
    this.#forgetPictures();
    this.record = record;
    at("detail-name").textContent = record.name;
    this.#showPicture();
    this.#fillChoices();
    this.show();
    if (!this.dialog.open) this.dialog.showModal();
    this.#explain();
  }

  /** Bring what can change up to date. */
  show() {
    const { record, page } = this;
    if (!record) return;
    const labels = page.labelsOf(record);
    at("detail-verdict").replaceChildren(...verdict(record, labels));
    const why = doubt(record.prediction);
    at("detail-error").textContent = record.error || (why && `Uncertain: ${why.split("|").map((word) => DOUBTS[word] ?? word).join("; ")}.`);
    at("detail-error").hidden = !at("detail-error").textContent;
    at("detail-bars").replaceChildren(...(record.prediction ? bars(page.model, page.model.classes, record.prediction.probabilities, labels) : []));
    at("correct").hidden = !record.prediction;
    at("detail-checked").checked = record.checked;
    for (const input of at("correct-choices").querySelectorAll("input")) input.checked = labels.includes(input.value);
  }

  #showPicture() {
    const file = this.record.files.find(isShown);
    const image = at("detail-image");
    const several = this.record.files.length > 1;
    this.address = file && !several ? URL.createObjectURL(file.content) : null;
    image.src = this.address ?? this.record.prediction?.thumbnail ?? "";
    image.hidden = !image.getAttribute("src");
    image.alt = this.record.name;
    at("detail-caption").textContent = this.address ? "the image" : "what the network sees";
  }

  #fillChoices() {
    const { model } = this.page;
    const type = model.task === "multilabel" ? "checkbox" : "radio";
    at("correct-choices").replaceChildren(...model.classes.map((name, number) => {
      const input = element("input", { type, name: "right-label", value: name });
      input.addEventListener("change", () => this.#choose());
      const key = number < 9 ? element("kbd", { textContent: String(number + 1) }) : "";
      return element("label", {}, input, element("span", { textContent: name }), key);
    }));
    at("heat-label").replaceChildren(...model.classes.map((name) => new Option(name, name)));
    const said = this.page.labelsOf(this.record)[0];
    if (said) at("heat-label").value = said;
  }

  #choose() {
    const chosen = [...at("correct-choices").querySelectorAll("input:checked")].map((input) => input.value);
    this.page.correct(this.record, chosen);
  }

  async #explain() {
    const { record, page } = this;
    const image = at("heat-image");
    const say = (text) => { at("heat-message").textContent = text; at("heat-message").hidden = !text; };
    this.abort?.abort();
    at("heat").hidden = !record.prediction;
    image.hidden = true;
    at("detail-channels").hidden = true;
    if (!record.prediction) return;
    say("drawing the heat map …");
    this.abort = new AbortController();
    try {
      const answer = await api.explain(page.model.name, record.files, at("heat-label").value, this.abort.signal);
      image.src = answer.overlay;
      image.alt = `heat map of ${answer.label}`;
      image.hidden = false;
      say("");
      this.#showChannels(answer.channels);
    } catch (error) {
      if (error.name !== "AbortError") say(`No heat map: ${error.message}`);
    }
  }

  #showChannels(channels) {
    const names = Object.keys(channels);
    at("detail-channels").hidden = !names.length;
    const most = Math.max(...names.map((name) => Math.abs(channels[name])), 1e-9);
    const rows = names.map((name) => {
      const fill = element("i");
      fill.style.width = `${(100 * Math.abs(channels[name])) / most}%`;
      const track = element("span", { className: "track" }, fill);
      const number = `${channels[name] < 0 ? "−" : "+"}${Math.abs(channels[name]).toFixed(2)}`;
      return element(
        "li", { className: channels[name] > 0 ? "said" : "" },
        element("span", { className: "class", textContent: name }), track, element("span", { className: "number", textContent: number }),
      );
    });
    at("detail-channels").replaceChildren(element("li", { className: "title", textContent: "What each channel adds to the log-odds" }), ...rows);
  }

  #step(by) {
    const other = this.page.step(this.record, by);
    if (other) this.open(other);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const number = Number(event.key);
    const inputs = at("correct-choices").querySelectorAll("input");
    if (event.key === "ArrowLeft") this.#step(-1);
    else if (event.key === "ArrowRight") this.#step(1);
    else if (event.key === " " && !event.target.matches("button, input")) at("detail-checked").click();
    else if (number >= 1 && number <= Math.min(9, inputs.length) && !at("correct").hidden) this.#press(inputs[number - 1]);
    else return;
    event.preventDefault();
  }

  /** A label that is chosen once more is thereby confirmed. */
  #press(input) {
    if (input.type === "radio" && input.checked) this.#choose();
    else input.click();
  }

  #forgetPictures() {
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
  }

  #left() {
    this.abort?.abort();
    this.#forgetPictures();
    const { record } = this;
    this.record = null;
    record?.card?.parts.look.focus();
  }
}
