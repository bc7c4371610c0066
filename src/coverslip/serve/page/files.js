// What was dropped or chosen, as files with paths; and files as samples: one file each, or one a channel.

const ENDINGS = /\.(png|jpe?g|tiff?|bmp|webp|czi|nd2|lif)$/i;
const SHOWN = /\.(png|jpe?g|bmp|webp)$/i; // by every browser

/** Files of an <input>. */
export function chosenFiles(input) {
  return [...input.files].map((file) => ({ content: file, path: file.webkitRelativePath || file.name }));
}

/** Files and folders that were dropped, with all that is inside; called before anything is awaited, for the browser forgets them. */
export function droppedFiles(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()).filter(Boolean);
  return Promise.all(entries.map(walk)).then((lists) => lists.flat());
}

async function walk(entry) {
  if (entry instanceof File) return [{ content: entry, path: entry.name }];
  if (entry.isFile) {
    const content = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ content, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) { // a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(walk))).flat();
}

/** Those that are images by their names, where a whole folder came; a single file is sent whatever it is called. */
export function withoutOthers(files) {
  const kept = files.filter((file) => !file.path.includes("/") || (ENDINGS.test(file.path) && !/(^|\/)\./.test(file.path)));
  return { kept, left: files.length - kept.length };
}

export const isShown = (file) => SHOWN.test(file.path);

/** Files as samples: `{ name, files }`. Files whose paths differ in the channel only belong together. */
export function asSamples(files, channels) {
  if (channels.length < 2) return files.map((file) => ({ name: file.path, files: [file] }));
  const words = channels.map((word) => word.toLowerCase());
  const samples = new Map();
  for (const file of files) {
    const pieces = file.path.split(/([_\-/. ])/);
    const place = pieces.findLastIndex((piece) => words.includes(piece.toLowerCase()));
    const key = place < 0 ? file.path : pieces.map((piece, number) => (number === place ? "*" : piece)).join("");
    const sample = samples.get(key) ?? { name: key.replace(/[_-]\*(\.[^.]*)?$/, ""), files: [] };
    sample.files.push(file);
    samples.set(key, sample);
  }
  return [...samples.values()];
}
