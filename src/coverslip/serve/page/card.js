// The model card for people: as much of Markdown as cards are written in, made into elements; nothing in it is taken for HTML.

import { element } from "./cards.js";

/** The elements of a card: headings, lists, tables, code and paragraphs. Its head, which is for programs, is left out. */
export function cardElements(text) {
  const lines = text.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const made = [];
  while (lines.length) {
    const way = WAYS.find(([starts]) => starts.test(lines[0]));
    if (!way) lines.shift();
    else made.push(way[2](taken(lines, way[1])));
  }
  return made;
}

// What a block starts with, what its further lines look like, and what becomes of it.
const WAYS = [
  [/^#+ /, null, ([line]) => element(line.startsWith("##") ? "h4" : "h3", {}, ...inline(line.replace(/^#+ /, "")))],
  [/^- /, /^(- |\s+\S)/, (lines) => element("ul", {}, ...items(lines).map((item) => element("li", {}, ...inline(item))))],
  [/^\|/, /^\|/, table],
  [/^ {4}\S/, /^ {4}/, (lines) => element("pre", { textContent: lines.map((line) => line.slice(4)).join("\n") })],
  [/\S/, /^(?!#+ |- |\||\s*$)/, (lines) => element("p", {}, ...inline(lines.join(" ")))],
];

/** The first line, and those after it that go with it; they are taken away. */
function taken(lines, further) {
  const found = [lines.shift()];
  while (further && lines.length && further.test(lines[0])) found.push(lines.shift());
  return found;
}

const items = (lines) => lines.reduce((found, line) => (line.startsWith("- ") ? [...found, line.slice(2)] : [...found.slice(0, -1), `${found.at(-1)} ${line.trim()}`]), []);

function table(lines) {
  const rows = lines.filter((line) => !/^\|(-+\|)+$/.test(line)).map(cells);
  const made = rows.map((row, number) => element("tr", {}, ...row.map((cell) => element(number ? "td" : "th", {}, ...inline(cell)))));
  return element("div", { className: "scroll", tabIndex: 0 }, element("table", {}, ...made));
}

/** The cells of a row; a \| in one is no end of it. */
const cells = (line) => line.replaceAll("\\|", "\0").split("|").slice(1, -1).map((cell) => cell.trim().replaceAll("\0", "|"));

/** Text with `code` in it. */
const inline = (text) => text.split(/`([^`]*)`/).map((piece, number) => (number % 2 ? element("code", { textContent: piece }) : piece));
