"""Logits of a classification task to metrics and to the files users read."""

import io
import json
import sys

import numpy as np
import tqdm

from bert_keras3.tasks import metrics as task_metrics
from bert_keras3.training import evaluation


def predict_logits(strategy, step, split, batch_size):
  """Runs a model on the examples of a file.

  Args:
    strategy: tf.distribute strategy the model lives in.
    step: what evaluation.prediction_step returned.
    split: classifier_data.Split.
    batch_size: global batch size.

  Returns:
    float32 [examples, num_labels], means over the windows of long texts.
  """
  batches = evaluation.predict(strategy, step, split.source, batch_size)
  return gather_logits(split, batches)


def gather_logits(split, batches):
  """The same from pairs (record numbers, dict with their `logits`)."""
  sums = None
  with tqdm.tqdm(
    total=len(split.owners),
    unit="text",
    leave=False,
    disable=not sys.stderr.isatty(),
  ) as bar:
    for numbers, outputs in batches:
      logits = outputs["logits"]
      if sums is None:
        sums = np.zeros([len(split.examples), logits.shape[1]], np.float32)
      np.add.at(sums, split.owners[numbers], logits)
      bar.update(len(numbers))
  counts = np.bincount(split.owners, minlength=len(sums))
  return sums / counts[:, np.newaxis].astype(np.float32)


def evaluate(task, labels, logits, batch_size):
  """The numbers of eval_results.txt.

  Args:
    task: classifier_data.Task.
    labels: array as of classifier_data.label_ids.
    logits: float32 [examples, num_labels].
    batch_size: examples per batch of upstream's `loss`.

  Returns:
    Dict of floats: `eval_loss`, `loss`, `eval_accuracy` unless labels are
    scores, and `eval_<metric>` for each of the task's. `loss` is the mean of
    the batches' means, a partial last one counting like the others, which is
    what upstream's Estimator calls loss; all others count every example once.
  """
  losses = task_metrics.cross_entropies(task.problem_type, logits, labels)
  batches = [
    losses[start : start + batch_size]
    for start in range(0, len(losses), batch_size)
  ]
  names = dict.fromkeys(task.metrics)
  if task.problem_type != "regression":
    names["accuracy"] = None
  predictions = task_metrics.predict_labels(task.problem_type, logits)
  metrics = task_metrics.compute(names, labels, predictions)
  return {
    **{f"eval_{name}": value for name, value in metrics.items()},
    "eval_loss": float(np.mean(losses)),
    "loss": float(np.mean([np.mean(batch) for batch in batches])),
  }


def collapse_warning(task, label_names, labels, logits):
  """What to tell the user of a model that knows one answer, else None."""
  if task.problem_type != "single_label":
    return None
  predictions = task_metrics.predict_labels(task.problem_type, logits)
  if not task_metrics.is_collapsed(labels, predictions):
    return None
  return (
    f"the model answers {label_names[predictions[0]]!r} to everything. If that "
    "does not pass in later evaluations, try --adam_bias_correction, a lower "
    "--learning_rate, more epochs or another --seed; --class_weights=balanced "
    "if one label is rare"
  )


def write_report(run, task, label_names, labels, logits, suffix=""):
  """Writes the per-class report and the confusion matrix of an evaluation.

  Args:
    run: output_directory.RunDirectory.
    task: classifier_data.Task.
    label_names: list of str, in the order of the logits.
    labels: array as of classifier_data.label_ids.
    logits: float32 [examples, num_labels].
    suffix: of the file names.
  """
  if task.problem_type == "regression":
    return
  predictions = task_metrics.predict_labels(task.problem_type, logits)
  report = task_metrics.class_report(
    task.problem_type, label_names, labels, predictions
  )
  run.write(f"eval_report{suffix}.txt", report)
  if task.problem_type == "multi_label":
    return
  matrix = task_metrics.confusion_matrix(len(label_names), labels, predictions)
  table = task_metrics.format_confusion_matrix(label_names, matrix)
  run.write(f"confusion_matrix{suffix}.tsv", table)
  image = io.BytesIO()
  try:
    task_metrics.draw_confusion_matrix(label_names, matrix, image)
  except ImportError:
    print("no confusion_matrix.png: matplotlib is not installed")
  else:
    run.write(f"confusion_matrix{suffix}.png", image.getvalue())


def write_predictions(run, task, label_names, examples, logits, split):
  """Writes test_results.tsv, predictions.jsonl and a GLUE submission.

  Args:
    run: output_directory.RunDirectory.
    task: classifier_data.Task.
    label_names: list of str, in the order of the logits.
    examples: list of InputExample.
    logits: float32 [examples, num_labels].
    split: name of the task's split, for the file names.
  """
  suffix = split.removeprefix("test")
  scores = task_metrics.probabilities(task.problem_type, logits)
  predictions = task_metrics.predict_labels(task.problem_type, logits)
  answers = [
    _name_answer(task.problem_type, label_names, prediction)
    for prediction in predictions
  ]
  # str of a float32, as upstream: its shortest text that reads back the same.
  rows = ["\t".join(map(str, row)) + "\n" for row in scores]
  run.write(f"test_results{suffix}.tsv", "".join(rows))
  lines = [
    _to_json(task.problem_type, label_names, *row)
    for row in zip(examples, answers, scores, strict=True)
  ]
  run.write(f"predictions{suffix}.jsonl", "".join(lines))
  if split in task.submissions:
    text = _submission(task, examples, answers)
    run.write(task.submissions[split], text)


def _name_answer(problem_type, label_names, prediction):
  if problem_type == "regression":
    return float(prediction)
  if problem_type == "multi_label":
    return [label_names[i] for i in np.flatnonzero(prediction)]
  return label_names[prediction]


def _to_json(problem_type, label_names, example, answer, scores):
  line = {"id": example.row_id, "text": example.text_a}
  if example.text_b is not None:
    line["text_b"] = example.text_b
  if problem_type == "regression":
    line["score"] = answer
  else:
    line["label"] = answer
    # As few digits as tell two float32 apart.
    line["probabilities"] = {
      name: float(str(score))
      for name, score in zip(label_names, scores, strict=True)
    }
  return json.dumps(line, ensure_ascii=False) + "\n"


def _submission(task, examples, answers):
  """GLUE's table: the test file's index, and the answer.

  Scores are cut to STS-B's scale, which is what the server accepts.
  """
  if task.problem_type == "regression":
    answers = [f"{min(max(answer, 0.0), 5.0):.3f}" for answer in answers]
  lines = [
    f"{example.row_id}\t{answer}\n"
    for example, answer in zip(examples, answers, strict=True)
  ]
  return "index\tprediction\n" + "".join(lines)


def summarize_seeds(results):
  """Mean and standard deviation over runs that differ in their seed.

  Args:
    results: list of dicts of numbers with the same keys.

  Returns:
    Dict with, for every key, its mean, and under `<key>_sd` the sample standard
    deviation.
  """
  summary = {}
  for name in results[0]:
    mean, deviation = task_metrics.mean_and_deviation(
      [result[name] for result in results]
    )
    summary[name] = mean
    summary[f"{name}_sd"] = deviation
  return summary


def class_weights(text, labels, num_labels):
  """What --class_weights asks for.

  Args:
    text: "" for none, "balanced", or a number per label, with commas.
    labels: int [examples], of training.
    num_labels: how many there are.

  Returns:
    List of floats, or None.

  Raises:
    ValueError: it is none of these.
  """
  if not text:
    return None
  if text == "balanced":
    if np.ndim(labels) != 1 or not np.issubdtype(labels.dtype, np.integer):
      raise ValueError(
        "--class_weights=balanced is for one label per example; give a number "
        "per label instead"
      )
    return task_metrics.balanced_class_weights(labels, num_labels).tolist()
  try:
    weights = [float(x) for x in text.split(",")]
  except ValueError:
    weights = []
  is_valid = len(weights) == num_labels and min(weights) >= 0 < sum(weights)
  if not is_valid:
    raise ValueError(
      f"--class_weights={text!r} is neither 'balanced' nor {num_labels} "
      "numbers with commas between, one for each line of labels.txt"
    )
  return weights
