"""Numbers from labels and predictions of tasks, without TensorFlow.

Classification and regression: arrays in, numbers and text out. scikit-learn and
scipy do the counting; this module defines the undefined cases.

A problem type says what logits and labels mean:

problem type | logits                 | labels                         |
------------ | ---------------------- | ------------------------------ |
single_label | [examples, num_labels] | ints [examples]                |
multi_label  | [examples, num_labels] | 0 or 1, [examples, num_labels] |
regression   | [examples, 1]          | floats [examples]              |

Predictions have the shape of labels.
"""

import functools
import math
import re
import statistics
import warnings

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

PROBLEM_TYPES = ("single_label", "multi_label", "regression")
# A label of a multi-label task is predicted above this probability.
MULTI_LABEL_THRESHOLD = 0.5
# Fewer examples than this can all be predicted alike by chance.
MIN_EXAMPLES_TO_COLLAPSE = 8

# Up to this many labels a drawn confusion matrix has its counts in its cells;
# beyond, they would overlap.
MAX_LABELS_WITH_COUNTS = 20
# Beyond this many labels only every second, third, ... is named on the axes.
MAX_NAMED_LABELS = 125
# Characters of a name on an axis; whole sentences would leave the matrix no
# room.
MAX_NAME_LENGTH = 30

# Characters that end a line for str.splitlines, and the tab.
_LINE_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


# Logits -----------------------------------------------------------------------


def probabilities(problem_type, logits):
  """Converts logits to the scale that a user reads.

  Args:
    problem_type: one of PROBLEM_TYPES.
    logits: floats [examples, num_labels].

  Returns:
    An array of the logits' shape and dtype: for single_label the softmax (rows
    sum to 1), for multi_label the sigmoid, for regression the logits.

  Raises:
    ValueError: the problem type is unknown.
  """
  _check_problem_type(problem_type)
  logits = np.asarray(logits)
  if problem_type == "single_label":
    return scipy.special.softmax(logits, axis=-1)
  if problem_type == "multi_label":
    return scipy.special.expit(logits)
  return logits


def predict_labels(problem_type, logits):
  """Computes the predictions, in the shape of labels.

  Args:
    problem_type: one of PROBLEM_TYPES.
    logits: floats [examples, num_labels].

  Returns:
    For single_label int64 [examples], of equal logits the first; for
    multi_label int64 0 or 1 [examples, num_labels]; for regression the scores,
    [examples].

  Raises:
    ValueError: the problem type is unknown.
  """
  likely = probabilities(problem_type, logits)
  if problem_type == "single_label":
    # Not of probabilities, which can be equal for large logits that differ.
    return np.argmax(logits, axis=-1).astype(np.int64)
  if problem_type == "multi_label":
    return (likely > MULTI_LABEL_THRESHOLD).astype(np.int64)
  return likely[:, 0]


def cross_entropies(problem_type, logits, labels):
  """Computes every example's loss.

  For single_label it is upstream's (per_example_loss in run_classifier).

  Args:
    problem_type: one of PROBLEM_TYPES.
    logits: floats [examples, num_labels]; [examples, 1] for regression.
    labels: see the table at the top of this module.

  Returns:
    float64 [examples]: for single_label -log(softmax) of the label, in nats;
    for multi_label the mean over labels of -log(sigmoid), or of
    -log(1 - sigmoid) where the label is 0; for regression the squared error.

  Raises:
    ValueError: the problem type is unknown, the shapes do not fit, or a label
      is none of the classes (as the -1 of files without labels).
  """
  _check_problem_type(problem_type)
  logits = np.asarray(logits, np.float64)
  labels = np.asarray(labels)
  _check_shapes(problem_type, logits, labels)
  if problem_type == "regression":
    return np.square(logits[:, 0] - labels)
  # By log-softmax and log-sigmoid, since the logarithm of a probability is -inf
  # once the probability rounds to 0.
  if problem_type == "multi_label":
    _check_classes(labels, 2)
    signs = np.where(labels == 1, 1.0, -1.0)
    return -scipy.special.log_expit(signs * logits).mean(axis=-1)
  _check_classes(labels, logits.shape[1])
  log_softmax = scipy.special.log_softmax(logits, axis=-1)
  columns = labels.astype(np.int64)[:, None]
  return -np.take_along_axis(log_softmax, columns, axis=-1)[:, 0]


def _check_problem_type(problem_type):
  if problem_type not in PROBLEM_TYPES:
    raise ValueError(
      f"Unknown problem type {problem_type!r}; there are "
      f"{', '.join(PROBLEM_TYPES)}."
    )


def _check_shapes(problem_type, logits, labels):
  expected = logits.shape if problem_type == "multi_label" else logits.shape[:1]
  width_fits = problem_type != "regression" or logits.shape[1:] == (1,)
  # Unchecked, [examples, 1] would be broadcast to [examples, examples].
  if logits.ndim != 2 or labels.shape != expected or not width_fits:
    raise ValueError(
      f"Logits of shape {logits.shape} and labels of shape {labels.shape} do "
      f"not fit each other in a {problem_type} task."
    )


def _check_classes(values, num_labels):
  """Raises ValueError unless all are ints in [0, num_labels)."""
  wrong = values[~np.isin(values, np.arange(num_labels))]
  if wrong.size:
    raise ValueError(
      f"{wrong.flat[0]} is not a class: there are {num_labels}, from 0 to "
      f"{num_labels - 1}."
    )


# Metrics ----------------------------------------------------------------------


def _metric(function):
  """Makes a metric of a formula: checks its arrays, returns a Python float."""

  def metric(labels, predictions):
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    _check_pairs(labels, predictions)
    return float(function(labels, predictions))

  return metric


def _check_pairs(labels, predictions):
  if labels.shape != predictions.shape or not labels.size:
    raise ValueError(
      "A metric needs at least one example and as many predictions as labels; "
      f"labels have shape {labels.shape}, predictions {predictions.shape}."
    )


def _is_constant(values):
  return bool(np.all(values == values[:1]))


def _accuracy(labels, predictions):
  return np.mean(labels == predictions)


def _subset_accuracy(labels, predictions):
  right = (labels == predictions).reshape(len(labels), -1)
  return np.mean(np.all(right, axis=1))


def _f1(labels, predictions):
  if labels.ndim > 1 or not np.isin([labels, predictions], [0, 1]).all():
    raise ValueError(
      "f1 is for tasks of two classes; macro_f1 and micro_f1 are for others."
    )
  return _average_f1("macro", labels[:, None], predictions[:, None])


def _average_f1(average, labels, predictions):
  classes = None
  if labels.shape[1:] == (1,):
    # scikit-learn takes one column for a task of two classes, 0 and 1.
    labels, predictions, classes = labels[:, 0], predictions[:, 0], [1]
  return sklearn.metrics.f1_score(
    labels, predictions, labels=classes, average=average, zero_division=0
  )


def _matthews_correlation(labels, predictions):
  # scikit-learn returns 0.0 as well, but warns.
  if _is_constant(labels) or _is_constant(predictions):
    return 0.0
  return sklearn.metrics.matthews_corrcoef(labels, predictions)


def _correlation(function, labels, predictions):
  # float32 sums lose digits that float64 keeps.
  labels, predictions = np.float64(labels), np.float64(predictions)
  if _is_constant(labels) or _is_constant(predictions):
    return 0.0
  # Early in training scores hardly vary, or are not finite. The number says so;
  # a warning at every evaluation adds nothing.
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return function(labels, predictions).statistic


def _mse(labels, predictions):
  return np.mean(np.square(np.float64(labels) - np.float64(predictions)))


# Name -> function(labels, predictions) -> float. Labels and predictions are
# arrays or lists of one shape, never empty (ValueError). Where a metric is
# undefined it is 0.0, without a warning: F1 without positive labels and
# predictions, correlations where either side is constant. NaN predictions of
# regression stay NaN: the model is broken, not the metric undefined.
METRICS = {
  # Share of equal entries; of a multi-label task, of [examples, num_labels].
  "accuracy": _metric(_accuracy),
  # Share of examples with every label right; of single labels, the accuracy.
  "subset_accuracy": _metric(_subset_accuracy),
  # F1 of class 1 of two, as GLUE's for MRPC and QQP.
  "f1": _metric(_f1),
  # Mean of the F1 of the classes that occur in labels or predictions; of a
  # multi-label task, of all labels.
  "macro_f1": _metric(functools.partial(_average_f1, "macro")),
  # F1 of the summed counts; of single labels this is the accuracy.
  "micro_f1": _metric(functools.partial(_average_f1, "micro")),
  # Of two or more classes; GLUE's for CoLA.
  "matthews_correlation": _metric(_matthews_correlation),
  # GLUE's two for STS-B.
  "pearson": _metric(functools.partial(_correlation, scipy.stats.pearsonr)),
  "spearman": _metric(functools.partial(_correlation, scipy.stats.spearmanr)),
  "mse": _metric(_mse),
}


def compute(names, labels, predictions):
  """Computes several metrics of predictions.

  Args:
    names: keys of METRICS.
    labels: see the table at the top of this module.
    predictions: of `predict_labels`, of the labels' shape.

  Returns:
    Dict from name, in the order of `names`, to a Python float.

  Raises:
    ValueError: a name is unknown, the shapes differ, there is no example, or
      the metric does not exist for such labels (f1 of three classes).
  """
  unknown = [name for name in names if name not in METRICS]
  if unknown:
    raise ValueError(
      f"Unknown metric {unknown[0]!r}; there are {', '.join(sorted(METRICS))}."
    )
  return {name: METRICS[name](labels, predictions) for name in names}


def is_collapsed(labels, predictions):
  """Returns whether a model gives one answer only, whatever its input.

  Fine-tuning on small data sometimes ends with one class for everything: the
  instability of arXiv 1810.04805, section 4.1; the failed runs of 2006.04884.

  Args:
    labels: see the table at the top of this module.
    predictions: of the labels' shape.

  Returns:
    True if there are at least MIN_EXAMPLES_TO_COLLAPSE examples whose
    predictions are all equal although their labels are not; of a multi-label
    task, the rows.
  """
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  enough = len(labels) >= MIN_EXAMPLES_TO_COLLAPSE
  return enough and _is_constant(predictions) and not _is_constant(labels)


# Reports ----------------------------------------------------------------------


def class_report(problem_type, label_names, labels, predictions):
  """Formats a table of precision, recall, F1 and number of examples by class.

  Args:
    problem_type: single_label or multi_label.
    label_names: list of strings, by class.
    labels: see the table at the top of this module.
    predictions: of the labels' shape.

  Returns:
    Lines of text: a row for every class, also one that does not occur (zeros),
    then accuracy (of multi-label tasks the micro average) and the macro and
    weighted averages.

  Raises:
    ValueError: the problem type has no classes, as regression; the shapes
      differ, there is no example, or a label is none of the classes.
  """
  _check_problem_type(problem_type)
  if problem_type == "regression":
    raise ValueError("A regression task has no classes to report on.")
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  _check_pairs(labels, predictions)
  classes = range(len(label_names))
  if problem_type == "single_label":
    _check_classes(np.stack([labels, predictions]), len(label_names))
  elif len(label_names) == 1:
    # scikit-learn takes one column for a task of two classes, 0 and 1.
    labels, predictions, classes = labels[:, 0], predictions[:, 0], [1]
  return sklearn.metrics.classification_report(
    labels,
    predictions,
    labels=list(classes),
    target_names=[_one_line(name) for name in label_names],
    digits=4,
    zero_division=0,
  )


def confusion_matrix(num_labels, labels, predictions):
  """Counts examples by true and by predicted class.

  Args:
    num_labels: int, number of classes.
    labels: ints [examples].
    predictions: ints [examples].

  Returns:
    int64 [num_labels, num_labels]: at [i, j], the number of examples of class i
    that were predicted as j.

  Raises:
    ValueError: the shapes differ, there is no example, or a value is none of
      the classes.
  """
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  _check_pairs(labels, predictions)
  _check_classes(np.stack([labels, predictions]), num_labels)
  cells = labels.astype(np.int64) * num_labels + predictions.astype(np.int64)
  counts = np.bincount(cells, minlength=num_labels**2)
  return counts.reshape(num_labels, num_labels)


def format_confusion_matrix(label_names, matrix):
  r"""Formats the matrix as tab-separated text.

  Args:
    label_names: list of strings, by class. Tabs and line breaks in them become
      spaces.
    matrix: ints [num_labels, num_labels], of `confusion_matrix`.

  Returns:
    A line of `true\predicted` and the names, then a line of name and counts for
    each true class.

  Raises:
    ValueError: there are not as many names as rows.
  """
  names = [_one_line(name) for name in label_names]
  rows = [["true\\predicted", *names]]
  for name, counts in zip(names, matrix, strict=True):
    rows.append([name, *map(str, counts)])
  return "".join("\t".join(row) + "\n" for row in rows)


def _one_line(name):
  return _LINE_BREAKS.sub(" ", str(name))


def draw_confusion_matrix(label_names, matrix, path):
  """Draws the matrix as a PNG.

  A cell's colour is its share of the true class, so that rare classes are seen;
  its text, with few labels, is the count.

  Args:
    label_names: list of strings, by class.
    matrix: ints [num_labels, num_labels], of `confusion_matrix`.
    path: where to write; a file there is replaced.

  Raises:
    ImportError: matplotlib, which is optional, is not installed.
    OSError: the file cannot be written.
    ValueError: there are not as many names as rows.
  """
  # Not pyplot: it chooses a backend and keeps figures for the whole process.
  from matplotlib.figure import Figure

  matrix = np.asarray(matrix)
  if len(label_names) != len(matrix):
    raise ValueError(f"{len(label_names)} names for {len(matrix)} classes.")
  # Inches: room for a count, for the smallest readable name, for memory.
  wide = min(len(matrix), MAX_LABELS_WITH_COUNTS) * 0.5
  side = min(max(3.0, wide, len(matrix) * 0.15), 20.0)
  figure = Figure(figsize=(side, side))
  axes = figure.add_subplot()
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  figure.colorbar(image, label="share of the true class", shrink=0.6)
  _name_axes(axes, label_names)
  if len(matrix) <= MAX_LABELS_WITH_COUNTS:
    _write_counts(axes, matrix, shares)
  with warnings.catch_warnings():
    # One warning for each Chinese character: matplotlib's own font has none and
    # draws boxes. The same matrix as text has the names.
    warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not")
    figure.savefig(path, format="png", dpi=150, bbox_inches="tight")


def _name_axes(axes, label_names):
  step = math.ceil(len(label_names) / MAX_NAMED_LABELS)
  names = [_one_line(name) for name in label_names[::step]]
  short = [
    name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
    for name in names
  ]
  ticks = range(0, len(label_names), step)
  # A name with two dollar signs is not a formula.
  style = {"fontsize": 7, "parse_math": False}
  axes.set_xticks(ticks, short, rotation=90, **style)
  axes.set_yticks(ticks, short, **style)
  axes.set_xlabel("predicted")
  axes.set_ylabel("true")


def _write_counts(axes, matrix, shares):
  for (row, column), count in np.ndenumerate(matrix):
    color = "white" if shares[row, column] > 0.5 else "black"
    axes.text(
      column, row, str(count), color=color, fontsize=8, ha="center", va="center"
    )


# Before and after a run -------------------------------------------------------


def balanced_class_weights(labels, num_labels):
  """Computes weights by which every class that occurs has an equal total.

  As scikit-learn's class_weight="balanced": examples / (classes that occur *
  examples of the class). The mean weight of an example is 1.

  Args:
    labels: ints [examples].
    num_labels: int, number of classes.

  Returns:
    float64 [num_labels]; 1.0 for classes that do not occur.

  Raises:
    ValueError: a label is none of the classes.
  """
  labels = np.asarray(labels, np.int64)
  _check_classes(labels, num_labels)
  counts = np.bincount(labels, minlength=num_labels)
  occurs = counts > 0
  weights = np.ones(num_labels)
  weights[occurs] = len(labels) / (occurs.sum() * counts[occurs])
  return weights


def mean_and_deviation(values):
  """Computes mean and sample standard deviation of a result over seeds.

  Args:
    values: floats, at least one.

  Returns:
    Two Python floats. The deviation divides by n - 1, and is 0.0 for one value.
    Both are NaN if a value is not finite.

  Raises:
    ValueError: there is no value.
  """
  values = [float(value) for value in values]
  if not values:
    raise ValueError("No values to take the mean of.")
  if not all(math.isfinite(value) for value in values):
    return math.nan, math.nan
  deviation = statistics.stdev(values) if len(values) > 1 else 0.0
  return statistics.fmean(values), deviation
