// From probabilities to labels, as the model does it, with thresholds that people can move. No page here.

/** The model's own thresholds, as something to be changed. `floor`: of the most probable class, below it there is no label. */
export function ownThresholds(model) {
  return { values: { ...model.thresholds.values }, floor: 0, moved: false };
}

/** Classes whose threshold can be moved; none where the most probable class wins. */
export const adjustable = (model) => Object.keys(model.thresholds.values);

/** The labels of one prediction. Until a threshold is moved they are those that the server gave. */
export function decide(model, prediction, thresholds) {
  if (!thresholds.moved) return prediction.decision;
  const scores = prediction.probabilities;
  const { rule, at_least_one: atLeastOne } = model.thresholds;
  if (rule === "second_class") {
    const [first, second] = model.classes;
    return [scores[second] >= thresholds.values[second] ? second : first];
  }
  if (rule === "highest") {
    const best = highest(model.classes, (name) => scores[name]);
    return scores[best] >= thresholds.floor ? [best] : [];
  }
  const reached = model.classes.filter((name) => scores[name] >= thresholds.values[name]);
  if (reached.length || !atLeastOne) return reached;
  return [highest(model.classes, (name) => scores[name] / thresholds.values[name])];
}

/** How sure the model is, in [0, 1]: of its label, or, with several labels an image, of the least sure of all yes and no. */
export function sureness(model, prediction) {
  const scores = Object.values(prediction.probabilities);
  if (model.task === "multilabel") return Math.min(...scores.map((score) => Math.max(score, 1 - score)));
  return Math.max(...scores);
}

/** What is in doubt about a prediction, in words; empty where nothing is, or the model cannot tell. */
export const doubt = (prediction) => (prediction?.uncertain && prediction.uncertain !== "no" ? prediction.uncertain : "");

/** Classes from the most to the least probable. */
export function ranked(model, prediction) {
  return [...model.classes].sort((a, b) => prediction.probabilities[b] - prediction.probabilities[a]);
}

function highest(names, value) {
  return names.reduce((best, name) => (value(name) > value(best) ? name : best));
}
