// The corrected table as CSV: the next training set. No page here.

/** The text of the table, and how many images it holds and leaves out. */
export function makeTable(model, records, labelsOf, onlyChecked) {
  const head = ["image", "label", "predicted", "corrected", "checked", "uncertain", ...model.classes.map((name) => `p_${name}`)];
  const single = model.task !== "multilabel";
  const kept = records.filter((record) => {
    if (!record.prediction) return false;
    if (onlyChecked && !record.checked) return false;
    return !single || labelsOf(record).length > 0;
  });
  const rows = kept.map((record) => [
    record.name,
    labelsOf(record).join("|"),
    record.decided.join("|"),
    record.corrected ? "yes" : "",
    record.checked ? "yes" : "",
    record.prediction.uncertain ?? "",
    ...model.classes.map((name) => String(record.prediction.probabilities[name])),
  ]);
  const text = [head, ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
  return { text, kept: kept.length, left: records.length - kept.length };
}

const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
