"""Metrics against numbers worked out by hand and against plain formulas."""

import math
import struct
import warnings

import numpy as np
import pytest
import sklearn.utils.class_weight

from bert_keras3.tasks import metrics
from bert_keras3.tasks import squad_metrics

# Float64 sums of at most a thousand terms in another order than ours: 1e3 of
# its 1e-16, with room.
TOLERANCE = 1e-12

# class 1: 2 right, 1 too many, 2 missed; 3 rightly left out
BINARY_LABELS = [1, 1, 0, 1, 1, 0, 0, 0]
BINARY_PREDICTIONS = [1, 1, 1, 0, 0, 0, 0, 0]

# rows: the true classes 0, 1, 2
#   [2 1 0]   class 0: precision 2/2, recall 2/3, F1 4/5
#   [0 1 1]   class 1: precision 1/2, recall 1/2, F1 1/2
#   [0 0 1]   class 2: precision 1/2, recall 1/1, F1 2/3
LABELS = [0, 0, 0, 1, 1, 2]
PREDICTIONS = [0, 0, 1, 1, 2, 2]
MATRIX = [[2, 1, 0], [0, 1, 1], [0, 0, 1]]

# column 0: 1 right, 1 too many: F1 2/3; column 1: 1 right, 1 missed: F1 2/3;
# column 2: never a label or a prediction: undefined, 0
MULTI_LABELS = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
MULTI_PREDICTIONS = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.fixture(autouse=True)
def _warnings_are_errors():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    yield


def compute(name, labels, predictions):
  return metrics.compute([name], labels, predictions)[name]


def random_classes(num_labels, seed=7, count=1000):
  rng = np.random.default_rng(seed)
  labels = rng.integers(num_labels, size=count)
  noise = rng.integers(num_labels, size=count)
  return labels, np.where(rng.random(count) < 0.6, labels, noise)


def random_scores(seed=7, count=1000):
  rng = np.random.default_rng(seed)
  # One decimal, so that ranks have ties.
  labels = np.round(rng.uniform(0, 5, count), 1)
  return labels, np.round(labels + rng.normal(0, 1, count), 1)


# Metrics ----------------------------------------------------------------------


@pytest.mark.parametrize(
  ("name", "labels", "predictions", "expected"),
  [
    ("accuracy", BINARY_LABELS, BINARY_PREDICTIONS, 5 / 8),
    ("accuracy", LABELS, PREDICTIONS, 4 / 6),
    # 2 of 12 cells are wrong, in one row
    ("accuracy", MULTI_LABELS, MULTI_PREDICTIONS, 10 / 12),
    ("subset_accuracy", MULTI_LABELS, MULTI_PREDICTIONS, 3 / 4),
    ("subset_accuracy", LABELS, PREDICTIONS, 4 / 6),
    # 2 * 2 / (2 * 2 + 1 + 2)
    ("f1", BINARY_LABELS, BINARY_PREDICTIONS, 4 / 7),
    # (2 * 3 - 1 * 2) / sqrt(3 predicted * 4 true * 4 false * 5 not predicted)
    (
      "matthews_correlation",
      BINARY_LABELS,
      BINARY_PREDICTIONS,
      4 / math.sqrt(240),
    ),
    ("macro_f1", LABELS, PREDICTIONS, (4 / 5 + 1 / 2 + 2 / 3) / 3),
    ("micro_f1", LABELS, PREDICTIONS, 4 / 6),
    ("macro_f1", MULTI_LABELS, MULTI_PREDICTIONS, (2 / 3 + 2 / 3 + 0) / 3),
    # 2 right, 1 too many, 1 missed: 2 * 2 / (2 * 2 + 1 + 1)
    ("micro_f1", MULTI_LABELS, MULTI_PREDICTIONS, 2 / 3),
    # one column, of a task with one label: 1 right, 1 missed
    ("macro_f1", [[1], [1], [0]], [[1], [0], [0]], 2 / 3),
    ("micro_f1", [[1], [1], [0]], [[1], [0], [0]], 2 / 3),
    # deviations -1.5 -0.5 0.5 1.5 and -2 0 -1 3 around the means 2.5 and 3:
    # 3 + 0 - 0.5 + 4.5 over sqrt(5 * 14)
    ("pearson", [1, 2, 3, 4], [1, 3, 2, 6], 7 / math.sqrt(70)),
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * (1 + 1) / (4 * 15)
    ("spearman", [1, 2, 3, 4], [1, 3, 2, 6], 0.8),
    ("mse", [1.0, 2.0, 3.0], [1.5, 2.0, 1.0], (0.25 + 0 + 4) / 3),
  ],
)
def test_by_hand(name, labels, predictions, expected):
  value = compute(name, labels, predictions)
  assert type(value) is float
  assert value == pytest.approx(expected, abs=TOLERANCE)


def plain_f1(labels, predictions, label):
  right = np.sum((labels == label) & (predictions == label))
  return 2 * right / (np.sum(labels == label) + np.sum(predictions == label))


def plain_pearson(x, y):
  x, y = x - x.mean(), y - y.mean()
  return np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))


def plain_ranks(values):
  """Number of smaller values, and half of the equal ones."""
  below = (values[None] < values[:, None]).sum(axis=1)
  return below + (values[None] == values[:, None]).sum(axis=1) / 2


def test_class_metrics_equal_plain_formulas():
  labels, predictions = random_classes(5)
  found = metrics.compute(
    ["accuracy", "macro_f1", "micro_f1", "matthews_correlation"],
    labels,
    predictions,
  )
  # Gorodkin's R_K is the correlation of the one-hot rows, class by class.
  one_hot = np.eye(5)[labels] - np.eye(5)[labels].mean(axis=0)
  predicted = np.eye(5)[predictions] - np.eye(5)[predictions].mean(axis=0)
  share = sum(labels == predictions) / 1000
  assert found == pytest.approx(
    {
      "accuracy": share,
      "macro_f1": sum(plain_f1(labels, predictions, i) for i in range(5)) / 5,
      "micro_f1": share,
      "matthews_correlation": np.sum(one_hot * predicted)
      / np.sqrt(np.sum(one_hot**2) * np.sum(predicted**2)),
    },
    abs=TOLERANCE,
  )


def test_binary_metrics_equal_plain_formulas():
  labels, predictions = random_classes(2)
  assert compute("f1", labels, predictions) == pytest.approx(
    plain_f1(labels, predictions, 1), abs=TOLERANCE
  )
  assert compute("matthews_correlation", labels, predictions) == pytest.approx(
    plain_pearson(labels, predictions), abs=TOLERANCE
  )


def test_score_metrics_equal_plain_formulas():
  labels, predictions = random_scores()
  names = ["pearson", "spearman", "mse"]
  found = metrics.compute(names, labels, predictions)
  expected = {
    "pearson": plain_pearson(labels, predictions),
    "spearman": plain_pearson(plain_ranks(labels), plain_ranks(predictions)),
    "mse": sum((labels - predictions) ** 2) / 1000,
  }
  assert found == pytest.approx(expected, abs=TOLERANCE)
  assert list(found) == names


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_order_does_not_matter(name):
  if name in ("pearson", "spearman", "mse"):
    labels, predictions = random_scores()
  else:
    labels, predictions = random_classes(2)
  order = np.random.default_rng(1).permutation(len(labels))
  assert compute(name, labels[order], predictions[order]) == pytest.approx(
    compute(name, labels, predictions), abs=TOLERANCE
  )


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_perfect_predictions(name):
  expected = 0.0 if name == "mse" else 1.0
  # A correlation divides by its own rounded norms.
  assert compute(name, [0, 1, 1, 0, 1], [0, 1, 1, 0, 1]) == pytest.approx(
    expected, abs=TOLERANCE
  )


@pytest.mark.parametrize(
  ("name", "labels", "predictions"),
  [
    ("f1", [0, 1, 1], [0, 0, 0]),
    ("f1", [0, 0, 0], [0, 1, 1]),
    ("f1", [0, 0, 0], [0, 0, 0]),
    ("macro_f1", [0, 0, 0], [1, 1, 1]),
    ("macro_f1", [[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    ("micro_f1", [[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    ("micro_f1", [[0], [0]], [[0], [0]]),
    ("matthews_correlation", [0, 1, 1], [1, 1, 1]),
    ("matthews_correlation", [1, 1, 1], [0, 1, 1]),
    ("matthews_correlation", [1, 1, 1], [1, 1, 1]),
    ("pearson", [1.0, 2.0, 3.0], [2.5, 2.5, 2.5]),
    ("pearson", [0.1, 0.1, 0.1], [1.0, 2.0, 3.0]),
    ("pearson", [1.0], [2.0]),
    ("spearman", [1.0, 2.0, 3.0], [2.5, 2.5, 2.5]),
    ("spearman", [2.5, 2.5, 2.5], [1.0, 2.0, 3.0]),
    ("spearman", [1.0], [2.0]),
  ],
)
def test_undefined_is_zero_and_silent(name, labels, predictions, capfd):
  assert compute(name, labels, predictions) == 0.0
  assert capfd.readouterr() == ("", "")


def test_values_that_hardly_vary_are_correlated_without_a_warning():
  near = [1.0, 1.0 + 1e-14, 1.0 + 2e-14]
  # Such values have two digits.
  assert compute("pearson", [1, 2, 3], near) == pytest.approx(1, abs=0.1)


def test_many_classes_for_few_examples_give_no_warning():
  classes = list(range(30))
  assert compute("macro_f1", classes, classes) == 1.0
  assert compute("matthews_correlation", classes, classes) == pytest.approx(1)
  names = [str(i) for i in classes]
  metrics.class_report("single_label", names, classes, classes)


def test_broken_regression_stays_visible():
  scores = [math.nan, 1.0, 2.0]
  found = metrics.compute(["mse", "pearson"], [1.0, 2.0, 3.0], scores)
  assert math.isnan(found["mse"]) and math.isnan(found["pearson"])
  assert compute("mse", [1.0, 2.0], [math.inf, 2.0]) == math.inf
  assert math.isnan(compute("pearson", [1.0, 2.0], [math.inf, 2.0]))


def test_float32_scores_are_squared_in_float64():
  # 4e60 is beyond float32.
  huge = np.array([1e30, -1e30], np.float32)
  # 1e30 itself is rounded to float32: 6e-8 of it.
  assert compute("mse", huge, -huge) == pytest.approx(4e60, rel=1e-6)


def test_mistakes_in_the_call_are_named():
  with pytest.raises(ValueError, match="Unknown metric 'recall'.*macro_f1"):
    metrics.compute(["recall"], [1], [1])
  with pytest.raises(ValueError, match="f1 is for tasks of two classes"):
    compute("f1", [0, 1, 2], [0, 1, 2])
  with pytest.raises(ValueError, match="f1 is for tasks of two classes"):
    compute("f1", MULTI_LABELS, MULTI_PREDICTIONS)
  with pytest.raises(ValueError, match=r"\(3,\), predictions \(2,\)"):
    compute("accuracy", [0, 1, 2], [0, 1])
  with pytest.raises(ValueError, match="at least one example"):
    compute("accuracy", [], [])


# Logits -----------------------------------------------------------------------


def test_probabilities_by_hand():
  thirds = np.log([[1.0, 2.0, 1.0], [3.0, 1.0, 4.0]])
  np.testing.assert_allclose(
    metrics.probabilities("single_label", thirds),
    [[1 / 4, 1 / 2, 1 / 4], [3 / 8, 1 / 8, 1 / 2]],
    atol=TOLERANCE,
  )
  np.testing.assert_allclose(
    metrics.probabilities("multi_label", np.log([[1.0, 3.0, 1 / 4]])),
    [[1 / 2, 3 / 4, 1 / 5]],
    atol=TOLERANCE,
  )
  assert metrics.probabilities("regression", [[3.5]]).tolist() == [[3.5]]


@pytest.mark.parametrize("problem_type", ["single_label", "multi_label"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_big_logits(problem_type, dtype):
  logits = np.array([[1e4, -1e4, -1e30]], dtype)
  found = metrics.probabilities(problem_type, logits)
  assert found.dtype == dtype
  assert found.tolist() == [[1.0, 0.0, 0.0]]


def test_predicted_labels():
  logits = [[0.1, 3.0, -1.0], [2.0, -1.0, 2.0]]
  single = metrics.predict_labels("single_label", logits)
  assert single.tolist() == [1, 0] and single.dtype == np.int64
  # Probability 0.5, at logit 0, is not above the threshold.
  multi = metrics.predict_labels("multi_label", [[0.0, 0.1, -5.0]])
  assert multi.tolist() == [[0, 1, 0]] and multi.dtype == np.int64
  scores = metrics.predict_labels("regression", [[3.5], [-1.0]])
  assert scores.tolist() == [3.5, -1.0]


def test_probabilities_that_round_alike_do_not_hide_the_largest_logit():
  logits = np.array([[0.0, 1e-9]], np.float32)
  likely = metrics.probabilities("single_label", logits)
  assert likely.tolist() == [[0.5, 0.5]]
  assert metrics.predict_labels("single_label", logits).tolist() == [1]


def test_losses_by_hand():
  # probabilities 1/4 1/2 1/4 and 3/8 1/8 1/2
  logits = np.log([[1.0, 2.0, 1.0], [3.0, 1.0, 4.0]])
  found = metrics.cross_entropies("single_label", logits, [1, 0])
  np.testing.assert_allclose(found, np.log([2, 8 / 3]), atol=TOLERANCE)
  # probabilities 1/2 3/4 and 1/5 2/3; of what is so: 1/2 1/4 and 1/5 1/3
  logits = np.log([[1.0, 3.0], [1 / 4, 2.0]])
  found = metrics.cross_entropies("multi_label", logits, [[1, 0], [1, 0]])
  expected = [(np.log(2) + np.log(4)) / 2, (np.log(5) + np.log(3)) / 2]
  np.testing.assert_allclose(found, expected, atol=TOLERANCE)
  found = metrics.cross_entropies("regression", [[3.0], [1.0]], [1, 1.5])
  assert found.tolist() == [4.0, 0.25]


def test_losses_equal_plain_formulas():
  rng = np.random.default_rng(3)
  logits = rng.normal(0, 3, [50, 4])
  labels = rng.integers(4, size=50)
  exponentials = np.exp(logits)
  softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    metrics.cross_entropies("single_label", logits, labels),
    -np.log(softmax[np.arange(50), labels]),
    rtol=TOLERANCE,
  )
  sigmoid = 1 / (1 + np.exp(-logits))
  several = rng.integers(2, size=[50, 4])
  np.testing.assert_allclose(
    metrics.cross_entropies("multi_label", logits, several),
    -np.log(np.where(several, sigmoid, 1 - sigmoid)).mean(axis=1),
    # 1 - sigmoid of a large logit has lost the leading digits of the plain
    # formula, not of ours.
    rtol=1e-9,
  )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_of_big_logits(dtype):
  logits = np.array([[1e4, -1e4]] * 2, dtype)
  single = metrics.cross_entropies("single_label", logits, [0, 1])
  assert single.tolist() == [0.0, 2e4]
  multi = metrics.cross_entropies("multi_label", logits, [[1, 0], [0, 1]])
  assert multi.tolist() == [0.0, 1e4]
  # A small loss keeps its digits: log(1 + e^-30) is e^-30 to 1e-13 of it.
  small = np.array([[30.0, 0.0]], dtype)
  assert metrics.cross_entropies("single_label", small, [0])[
    0
  ] == pytest.approx(math.exp(-30), rel=1e-6)


@pytest.mark.parametrize(
  ("problem_type", "logits", "labels", "message"),
  [
    ("single_label", [[1.0, 2.0]], [2], "2 is not a class"),
    # as in files without labels
    ("single_label", [[1.0, 2.0]], [-1], "-1 is not a class"),
    ("multi_label", [[1.0, 2.0]], [[1, 2]], "2 is not a class"),
    ("single_label", [[1.0], [2.0]], [[0], [0]], "do not fit"),
    ("multi_label", [[1.0, 2.0]], [1], "do not fit"),
    ("regression", [[1.0], [2.0]], [[1.0], [2.0]], "do not fit"),
    ("regression", [[1.0, 2.0]], [1.0], "do not fit"),
    ("ranking", [[1.0]], [1.0], "Unknown problem type 'ranking'"),
  ],
)
def test_losses_refuse_what_does_not_fit(problem_type, logits, labels, message):
  with pytest.raises(ValueError, match=message):
    metrics.cross_entropies(problem_type, logits, labels)


# Collapse ---------------------------------------------------------------------


@pytest.mark.parametrize(
  ("labels", "predictions", "expected"),
  [
    ([0, 1] * 4, [1] * 8, True),
    ([0, 1] * 4, [1] * 7 + [0], False),
    ([0, 1] * 3 + [0], [1] * 7, False),
    ([1] * 8, [1] * 8, False),
    ([1] * 8, [0] * 8, False),
    ([[0, 1], [1, 0]] * 4, [[0, 1]] * 8, True),
    ([[0, 1], [1, 0]] * 4, [[0, 0], [0, 1]] * 4, False),
    ([1.0, 2.0] * 4, [1.5] * 8, True),
    ([], [], False),
  ],
)
def test_collapse(labels, predictions, expected):
  assert metrics.is_collapsed(labels, predictions) is expected


# Reports ----------------------------------------------------------------------


def report_rows(report):
  rows = [line.rsplit(maxsplit=4) for line in report.splitlines() if line]
  return {row[0].strip(): row[1:] for row in rows[1:]}


def test_class_report_by_hand():
  report = metrics.class_report(
    "single_label", ["no", "may be", "yes", "unseen"], LABELS, PREDICTIONS
  )
  rows = report_rows(report)
  assert rows["no"] == ["1.0000", "0.6667", "0.8000", "3"]
  assert rows["may be"] == ["0.5000", "0.5000", "0.5000", "2"]
  assert rows["yes"] == ["0.5000", "1.0000", "0.6667", "1"]
  assert rows["unseen"] == ["0.0000", "0.0000", "0.0000", "0"]
  # (1 + 1/2 + 1/2) / 4, (2/3 + 1/2 + 1) / 4, (4/5 + 1/2 + 2/3) / 4
  assert rows["macro avg"] == ["0.5000", "0.5417", "0.4917", "6"]
  # (3 + 1 + 1/2) / 6, (2 + 1 + 1) / 6, (12/5 + 1 + 2/3) / 6
  assert rows["weighted avg"] == ["0.7500", "0.6667", "0.6778", "6"]
  assert [line.split() for line in report.splitlines() if "acc" in line] == [
    ["accuracy", "0.6667", "6"]
  ]


def test_class_report_of_several_labels():
  rows = report_rows(
    metrics.class_report(
      "multi_label", ["a", "b", "c"], MULTI_LABELS, MULTI_PREDICTIONS
    )
  )
  assert rows["a"] == ["0.5000", "1.0000", "0.6667", "1"]
  assert rows["b"] == ["1.0000", "0.5000", "0.6667", "2"]
  assert rows["c"] == ["0.0000", "0.0000", "0.0000", "0"]
  assert rows["micro avg"] == ["0.6667", "0.6667", "0.6667", "3"]


def test_class_report_of_one_of_several_labels():
  rows = report_rows(
    metrics.class_report(
      "multi_label", ["spam"], [[1], [1], [0]], [[1], [0], [0]]
    )
  )
  assert rows["spam"] == ["1.0000", "0.5000", "0.6667", "2"]


def test_class_report_keeps_one_line_for_a_class():
  report = metrics.class_report(
    "single_label", ["first\nline", "tab\tbed"], [0, 1], [0, 1]
  )
  assert {"first line", "tab bed"} <= set(report_rows(report))


def test_class_report_refuses_what_has_no_classes():
  with pytest.raises(ValueError, match="regression task has no classes"):
    metrics.class_report("regression", ["score"], [1.0], [1.0])
  with pytest.raises(ValueError, match="2 is not a class: there are 2"):
    metrics.class_report("single_label", ["a", "b"], [0, 2], [0, 1])


def test_confusion_matrix_by_hand():
  matrix = metrics.confusion_matrix(3, LABELS, PREDICTIONS)
  assert matrix.tolist() == MATRIX and matrix.dtype == np.int64


def test_confusion_matrix_has_every_class():
  matrix = metrics.confusion_matrix(4, [1], [2])
  assert matrix.shape == (4, 4) and matrix[1, 2] == matrix.sum() == 1
  assert metrics.confusion_matrix(1, [0, 0], [0, 0]).tolist() == [[2]]


@pytest.mark.parametrize("predictions", [[0, 3], [0, -1]])
def test_confusion_matrix_refuses_other_classes(predictions):
  with pytest.raises(ValueError, match="is not a class: there are 3"):
    metrics.confusion_matrix(3, [0, 1], predictions)


def test_confusion_matrix_as_text():
  names = ["no", "may\tbe", "新闻\r\u2028"]
  assert metrics.format_confusion_matrix(names, np.array(MATRIX)) == (
    "true\\predicted\tno\tmay be\t新闻  \n"
    "no\t2\t1\t0\n"
    "may be\t0\t1\t1\n"
    "新闻  \t0\t0\t1\n"
  )
  with pytest.raises(ValueError):
    metrics.format_confusion_matrix(names[:2], np.array(MATRIX))


def png_size(path):
  data = path.read_bytes()
  assert data[:8] == b"\x89PNG\r\n\x1a\n"
  return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize(
  "names",
  [
    ["no", "may be", "yes"],
    ["新闻", "体育\n", "メール"],
    ["हिन्दी", "עברית", "العربية"],
    # not formulas
    ["$x_{$", r"$\nothing$", "a" * 2000],
  ],
)
def test_drawing_makes_a_png_and_prints_nothing(names, tmp_path, capfd):
  pytest.importorskip("matplotlib")
  path = tmp_path / "confusion_matrix.png"
  metrics.draw_confusion_matrix(names, np.array(MATRIX), path)
  width, height = png_size(path)
  assert 300 < width < 2000 and 300 < height < 2000
  assert path.stat().st_size > 5000
  assert capfd.readouterr() == ("", "")


def test_drawing_shows_the_matrix(tmp_path):
  pytest.importorskip("matplotlib")
  from matplotlib import image

  pixels = []
  for i, matrix in enumerate(([[9, 0], [0, 9]], [[0, 9], [9, 0]])):
    path = tmp_path / f"{i}.png"
    metrics.draw_confusion_matrix(["a", "b"], np.array(matrix), path)
    pixels.append(image.imread(path)[..., :3])
  # The dark cells have moved, a good part of the picture; nothing else has.
  assert pixels[0].shape == pixels[1].shape
  changed = np.mean(np.any(pixels[0] != pixels[1], axis=-1))
  assert 0.2 < changed < 0.8


@pytest.mark.parametrize("num_labels", [1, 20, 21, 119, 400])
def test_drawings_of_many_classes_stay_within_bounds(num_labels, tmp_path):
  pytest.importorskip("matplotlib")
  path = tmp_path / "confusion_matrix.png"
  names = [f"label {i}" for i in range(num_labels)]
  # Includes rows without examples.
  matrix = metrics.confusion_matrix(num_labels, [0], [0])
  metrics.draw_confusion_matrix(names, matrix, path)
  width, height = png_size(path)
  # 150 dots an inch; 20 inches at most, and the names beside them.
  assert max(width, height) < 3600
  # At 7 points a name needs 7 / 72 inches.
  named = min(num_labels, metrics.MAX_NAMED_LABELS)
  assert height > named * 7 / 72 * 150


def test_drawing_needs_a_name_for_each_class_and_a_directory(tmp_path):
  pytest.importorskip("matplotlib")
  with pytest.raises(ValueError, match="2 names for 3 classes"):
    metrics.draw_confusion_matrix(
      ["a", "b"], np.array(MATRIX), tmp_path / "a.png"
    )
  with pytest.raises(FileNotFoundError):
    metrics.draw_confusion_matrix(
      ["a", "b", "c"], np.array(MATRIX), tmp_path / "none" / "a.png"
    )
  assert list(tmp_path.iterdir()) == []


# Before and after a run -------------------------------------------------------


def test_balanced_weights_by_hand():
  # 6 examples, 3 classes of 4 occur: 6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1)
  weights = metrics.balanced_class_weights([0, 0, 0, 1, 1, 3], 4)
  assert weights.dtype == np.float64
  # The same divisions: exact.
  assert weights.tolist() == [6 / 9, 6 / 6, 1.0, 6 / 3]


def test_balanced_weights_are_scikit_learns():
  labels, _ = random_classes(7)
  expected = sklearn.utils.class_weight.compute_class_weight(
    "balanced", classes=np.arange(7), y=labels
  )
  found = metrics.balanced_class_weights(labels, 7)
  np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
  assert found[labels].mean() == pytest.approx(1.0, abs=TOLERANCE)


def test_balanced_weights_of_no_labels_and_of_wrong_ones():
  assert metrics.balanced_class_weights([], 2).tolist() == [1.0, 1.0]
  with pytest.raises(ValueError, match="-1 is not a class"):
    metrics.balanced_class_weights([0, -1], 2)


def test_mean_and_deviation_by_hand():
  # deviations -3 -1 1 3: 20 / (4 - 1)
  mean, deviation = metrics.mean_and_deviation([2, 4, 6, 8])
  assert mean == 5.0
  assert deviation == pytest.approx(math.sqrt(20 / 3), abs=TOLERANCE)
  assert metrics.mean_and_deviation([0.7]) == (0.7, 0.0)
  assert metrics.mean_and_deviation(np.float32([0.5] * 3)) == (0.5, 0.0)


def test_mean_of_nothing_and_of_a_diverged_run():
  with pytest.raises(ValueError, match="No values"):
    metrics.mean_and_deviation([])
  for bad in (math.nan, math.inf):
    found = metrics.mean_and_deviation([0.5, bad])
    assert all(math.isnan(value) for value in found)


@pytest.mark.parametrize("seed", range(20))
def test_the_null_threshold_found_is_the_best_there_is(seed):
  rng = np.random.default_rng(seed)
  count = int(rng.integers(1, 12))
  # Few different odds, so that some are equal.
  odds = {f"q{i}": float(rng.integers(-3, 4)) for i in range(count)}
  questions = [(x, ["red car"] if rng.random() < 0.6 else []) for x in odds]
  texts = {x: str(rng.choice(["red car", "red", "blue", ""])) for x in odds}

  def f1(threshold):
    scores = squad_metrics.squad_v2_scores(questions, texts, odds, threshold)
    return scores["f1"]

  found = squad_metrics.find_null_threshold(questions, texts, odds)
  best = max(map(f1, [-math.inf, *odds.values(), math.inf]))
  assert f1(found) == pytest.approx(best)


def test_the_null_threshold_is_the_official_one_where_that_is_reached():
  questions = [("a", ["red"]), ("b", []), ("c", ["blue"]), ("d", [])]
  texts = {"a": "red", "b": "red", "c": "blue", "d": "red"}
  odds = {"a": -2.0, "b": 1.0, "c": 0.5, "d": 3.0}
  scores = squad_metrics.squad_v2_scores(questions, texts, odds)
  found = squad_metrics.find_null_threshold(questions, texts, odds)
  assert found == scores["best_f1_thresh"] == 0.5


def test_no_null_threshold_without_odds():
  with pytest.raises(ValueError, match="'a' has a prediction but no null odds"):
    squad_metrics.find_null_threshold([("a", ["red"])], {"a": "red"}, {})
