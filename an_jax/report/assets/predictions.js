/* The predictions of one or two models for a test set: reading, filtering, ordering, counting. */

// Value of the filter -> its text, and whether an image passes, by whether A and B are right.
const ERROR_FILTERS = {
  wrong: ["A wrong", (a) => !a],
  right: ["A right", (a) => a],
  all: ["all images", () => true],
  split: ["A right and B wrong", (a, b) => a && !b],
};

// Value of the order -> its text, and the key of an image, the largest first.
const ERROR_ORDERS = {
  mistakes: ["most confident mistakes first", (scores, i, isRight) => (isRight ? -1 : 1) * scores.confidence[i]],
  unsure: ["least confident first", (scores, i) => -scores.confidence[i]],
  unlikely: ["true class least probable first", (scores, i) => -scores.probability[i]],
};

/** Reads what one or two models of a test set predict. */
async function readErrors(set, model, other) {
  const readJson = async (name) => JSON.parse(new TextDecoder().decode(await readBlob(name)));
  const readScores = async (index) => {
    const buffer = await readBlob(set.models[index].scores), n = set.images;
    return {
      predicted: new Uint32Array(buffer, 0, n),
      confidence: new Uint16Array(buffer, 4 * n, n),
      probability: new Uint16Array(buffer, 6 * n, n),
    };
  };
  const [files, classes, thumbnails, a, b] = await Promise.all([
    readJson(set.files), readJson(set.classes),
    set.thumbnails ? readJson(set.thumbnails) : { root: null, images: {} },
    readScores(model), other ? readScores(other) : null,
  ]);
  return {
    names: files.names, labels: Uint32Array.from(files.labels), classes, a, b,
    root: thumbnails.root, thumbnails: new Map(Object.entries(thumbnails.images)),
  };
}

/** Returns the indices of the images that pass the filters, in order. */
function findImages({ labels, classes, a, b }, { show, actual, predicted, min, max, sort }) {
  const isActual = matchClasses(classes, actual), isPredicted = matchClasses(classes, predicted);
  const passes = ERROR_FILTERS[show][1], key = ERROR_ORDERS[sort][1];
  const ranked = show === "split" ? b : a;
  const keys = new Int32Array(labels.length), found = [];
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i];
    if (a.confidence[i] < min || a.confidence[i] > max || !isActual[label] || !isPredicted[a.predicted[i]]) continue;
    if (!passes(a.predicted[i] === label, b?.predicted[i] === label)) continue;
    keys[i] = key(ranked, i, ranked.predicted[i] === label);
    found.push(i);
  }
  return Uint32Array.from(found).sort((i, j) => keys[j] - keys[i] || i - j);
}

/** Returns for each class whether it has the text as name or, if none has, in its name. */
function matchClasses(classes, text) {
  if (classes.includes(text)) return classes.map((name) => name === text);
  const part = text.trim().toLowerCase();
  return classes.map((name) => name.toLowerCase().includes(part));
}

/** Returns [label, predicted class, number of images] of each pair that differs, the most frequent first. */
function countPairs(labels, predicted, numClasses) {
  const counts = new Map();
  for (let i = 0; i < labels.length; i++) {
    const pair = labels[i] * numClasses + predicted[i];
    if (labels[i] !== predicted[i]) counts.set(pair, (counts.get(pair) ?? 0) + 1);
  }
  return [...counts].sort((p, q) => q[1] - p[1]).map(([pair, count]) => [Math.floor(pair / numClasses), pair % numClasses, count]);
}
