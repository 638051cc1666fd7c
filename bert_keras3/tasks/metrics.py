"""Numbers from labels and predictions of tasks, without TensorFlow.

Classification and regression: arrays in, numbers and text out. scikit-learn and
scipy do the counting; this module decides what the undefined cases are.
Questions: annotated and predicted answers in, SQuAD's official figures out.

A problem type says what logits and labels mean:

problem type | logits                 | labels                         |
------------ | ---------------------- | ------------------------------ |
single_label | [examples, num_labels] | ints [examples]                |
multi_label  | [examples, num_labels] | 0 or 1, [examples, num_labels] |
regression   | [examples, 1]          | floats [examples]              |

Predictions have the shape of labels.
"""

import collections
import functools
import math
import re
import statistics
import string
import sys
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

# Questions without a prediction are named up to this many.
SHOWN_QUESTIONS = 5

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# What ends a line for str.splitlines, and the tab.
_LINE_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


# Logits -----------------------------------------------------------------------


def probabilities(problem_type, logits):
  """What a model's logits say, on the scale that a user reads.

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
  """The predictions, shaped as the labels are.

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
    # Of the logits: two large ones that differ can have equal probabilities.
    return np.argmax(logits, axis=-1).astype(np.int64)
  if problem_type == "multi_label":
    return (likely > MULTI_LABEL_THRESHOLD).astype(np.int64)
  return likely[:, 0]


def cross_entropies(problem_type, logits, labels):
  """Every example's loss.

  That of single_label is upstream's (per_example_loss in run_classifier).

  Args:
    problem_type: one of PROBLEM_TYPES.
    logits: floats [examples, num_labels]; [examples, 1] for regression.
    labels: see the table at the top of this module.

  Returns:
    float64 [examples]: for single_label -log(softmax) of the label, in nats;
    for multi_label the mean over labels of -log(sigmoid) of what is so; for
    regression the squared error.

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
  # Both through the logarithm of the function, whose terms are of the loss's
  # own size; the logarithm of a probability is -inf once that rounds to 0.
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
  """Makes a formula over arrays a metric: checked, a Python float."""

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
  # Early in training scores hardly vary, or are not finite; a warning at every
  # evaluation would say no more than the number.
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
  """Several metrics of the same predictions.

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
  """Whether a model has stopped looking at its input.

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


# Answers to questions ---------------------------------------------------------
# The figures of SQuAD's evaluate-v1.1.py and evaluate-v2.0.py, in percent. Both
# take `questions`, (id, texts of the annotated answers) of each, `predictions`,
# a dict from id to text, and make dicts.


def normalize_answer(text):
  """Brings an answer into the form in which SQuAD compares it.

  Lower case, without ASCII punctuation (other marks stay), without the articles
  a, an and the, one blank between words.
  """
  text = text.lower().translate(_NO_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def squad_v1_scores(questions, predictions):
  """Exact match and F1 as evaluate-v1.1.py computes them.

  A question counts with the annotated answer that its prediction is nearest to.
  One without a prediction counts 0; how many there are is printed.

  Args:
    questions: iterable of (id, list of answers).
    predictions: dict from id to text.

  Returns:
    {"exact_match": ..., "f1": ...}, percentages.

  Raises:
    ValueError: there is no question, one has no answer, or a prediction is no
      text.
  """
  questions = list(questions)
  _check_questions(questions)
  exact_match = f1 = 0
  for qas_id, answers in questions:
    if not answers:
      raise ValueError(
        f"question {qas_id!r} has no answer to compare with; score the file as "
        "SQuAD 2.0, pass --version_2_with_negative"
      )
    if qas_id in predictions:
      prediction = _prediction(predictions, qas_id)
      exact_match += max(_exact_match(x, prediction) for x in answers)
      # Nothing in common with an answer, be it nothing too, is 0 in 1.1.
      f1 += max(_token_f1(x, prediction, if_empty=0) for x in answers)
  _report_missing(questions, predictions, "count as wrong")
  return {
    "exact_match": 100.0 * exact_match / len(questions),
    "f1": 100.0 * f1 / len(questions),
  }


def squad_v2_scores(questions, predictions, null_odds=None, null_threshold=1.0):
  """The figures of evaluate-v2.0.py.

  A question without an answer is answered rightly by "". Questions without a
  prediction are left out; how many there are is printed.

  Args:
    questions: iterable of (id, list of answers), empty if there is none.
    predictions: dict from id to text, "" for no answer. For `best_...` to mean
      something these should be the best texts that are not empty.
    null_odds: dict from id to how much speaks for there being no answer; any
      scale. None if unknown.
    null_threshold: odds above it make the answer "". The script's default is 1,
      meant for probabilities.

  Returns:
    Dict of `exact`, `f1` (percentages) and `total`; the same three with the
    prefixes `HasAns_` and `NoAns_`, where there are such questions; and if
    there are null odds `best_exact` and `best_f1`, the highest that a threshold
    gives, with `best_exact_thresh` and `best_f1_thresh`, those thresholds.

  Raises:
    ValueError: no question has a prediction, a prediction is no text, or a
      question has one but no null odds.
  """
  answers = dict(questions)
  _check_questions(answers)
  has_answer = {qas_id: bool(texts) for qas_id, texts in answers.items()}
  exact, f1 = _squad_v2_raw_scores(answers, predictions)
  _report_missing(answers.items(), predictions, "are left out")
  if not exact:
    raise ValueError(
      "no question of the file has a prediction; pass the predictions of the "
      "same file"
    )
  odds = dict.fromkeys(exact, 0.0) if null_odds is None else null_odds
  _check_null_odds(exact, odds)
  pairs = [
    _apply_null_threshold(scores, odds, has_answer, null_threshold)
    for scores in (exact, f1)
  ]
  result = _mean_scores("", *pairs, list(exact))
  for prefix, kind in (("HasAns_", True), ("NoAns_", False)):
    result |= _mean_scores(
      prefix, *pairs, [x for x in exact if has_answer[x] == kind]
    )
  if null_odds is not None:
    for name, scores in (("exact", exact), ("f1", f1)):
      best, threshold = _best_null_threshold(
        predictions, scores, null_odds, has_answer
      )
      result[f"best_{name}"] = best
      result[f"best_{name}_thresh"] = threshold
  return result


def find_null_threshold(questions, predictions, null_odds):
  """The threshold of the odds with the highest F1.

  `best_f1_thresh` of evaluate-v2.0.py, but one that gives what it promises:
  questions with equal odds are answered together or not at all, and where it
  is best to answer none the threshold is below all odds, not 0.

  Args:
    questions: iterable of (id, list of answers).
    predictions: dict from id to the best text that is not empty.
    null_odds: dict from id to float.

  Returns:
    float; odds above it mean that there is no answer.

  Raises:
    ValueError: see `squad_v2_scores`.
  """
  answers = dict(questions)
  _, f1 = _squad_v2_raw_scores(answers, predictions)
  _check_null_odds(f1, null_odds)
  if not f1:
    return 0.0
  odds = np.array([null_odds[x] for x in f1])
  gains = np.array([f1[x] - (not answers[x]) for x in f1])
  # None answered, then those of the lowest odds, then of the second lowest, ...
  thresholds, group = np.unique(odds, return_inverse=True)
  totals = np.cumsum([0.0, *np.bincount(group, gains)])
  thresholds = [thresholds[0] - 1.0, *thresholds]
  return float(thresholds[np.argmax(totals)])


def _check_questions(questions):
  if not questions:
    raise ValueError("There is no question to score; check the file.")


def _check_null_odds(scores, null_odds):
  missing = [x for x in scores if x not in null_odds]
  if missing:
    raise ValueError(
      f"question {missing[0]!r} has a prediction but no null odds; pass the "
      "null_odds.json that was written with the predictions"
    )


def _prediction(predictions, qas_id):
  text = predictions[qas_id]
  if not isinstance(text, str):
    raise ValueError(
      f"the prediction for question {qas_id!r} should be a text, not {text!r}"
    )
  return text


def _report_missing(questions, predictions, what):
  missing = [x for x, _ in questions if x not in predictions]
  if missing:
    shown = ", ".join(missing[:SHOWN_QUESTIONS])
    more = ", ..." if len(missing) > SHOWN_QUESTIONS else ""
    print(
      f"{len(missing)} questions have no prediction and {what}: {shown}{more}",
      file=sys.stderr,
    )


def _exact_match(answer, prediction):
  return int(normalize_answer(answer) == normalize_answer(prediction))


def _token_f1(answer, prediction, if_empty):
  """F1 of the words, each as often as it is there.

  `if_empty` is the result if neither has a word.
  """
  wanted = normalize_answer(answer).split()
  found = normalize_answer(prediction).split()
  if not wanted and not found:
    return if_empty
  common = collections.Counter(wanted) & collections.Counter(found)
  num_common = sum(common.values())
  if not num_common:
    return 0
  precision, recall = num_common / len(found), num_common / len(wanted)
  return 2 * precision * recall / (precision + recall)


def _squad_v2_raw_scores(answers, predictions):
  """({id: exact match}, {id: F1}) of the questions that have a prediction."""
  exact, f1 = {}, {}
  for qas_id, texts in answers.items():
    if qas_id in predictions:
      prediction = _prediction(predictions, qas_id)
      # An answer such as "the" is none.
      texts = [x for x in texts if normalize_answer(x)] or [""]
      exact[qas_id] = max(_exact_match(x, prediction) for x in texts)
      f1[qas_id] = max(_token_f1(x, prediction, if_empty=1) for x in texts)
  return exact, f1


def _apply_null_threshold(scores, null_odds, has_answer, threshold):
  """Scores if "" is predicted where the odds are above the threshold."""
  return {
    qas_id: float(not has_answer[qas_id])
    if null_odds[qas_id] > threshold
    else score
    for qas_id, score in scores.items()
  }


def _mean_scores(prefix, exact, f1, qas_ids):
  if not qas_ids:
    return {}
  return {
    f"{prefix}exact": 100.0 * sum(exact[x] for x in qas_ids) / len(qas_ids),
    f"{prefix}f1": 100.0 * sum(f1[x] for x in qas_ids) / len(qas_ids),
    f"{prefix}total": len(qas_ids),
  }


def _best_null_threshold(predictions, scores, null_odds, has_answer):
  """The highest mean score by a threshold of the odds, and the first such.

  As find_best_thresh of evaluate-v2.0.py, question by question: of questions
  with equal odds, in the order of `null_odds`, some may count as answered and
  others not, which no threshold can do.
  """
  # At first everything is answered with "".
  score = best = sum(not x for x in has_answer.values())
  threshold = 0.0
  for qas_id in sorted(null_odds, key=null_odds.get):
    if qas_id not in scores:
      continue
    if has_answer[qas_id]:
      score += scores[qas_id]
    elif predictions[qas_id]:
      score -= 1
    if score > best:
      best, threshold = score, null_odds[qas_id]
  return 100.0 * best / len(scores), threshold


# Reports ----------------------------------------------------------------------


def format_results(results):
  """Lines `key = value`, sorted by key, as upstream's eval_results.txt.

  Floats are written as float32, the precision they were computed in.
  """
  return "".join(
    f"{key} = {str(np.float32(value)) if isinstance(value, float) else value}\n"
    for key, value in sorted(results.items())
  )


def class_report(problem_type, label_names, labels, predictions):
  """A table of precision, recall, F1 and number of examples by class.

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
  """How often which class was taken for which.

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
  r"""The matrix as tab-separated text.

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
  """Weights under which every class that occurs counts the same.

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
  """Mean and sample standard deviation, of a result over several seeds.

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
