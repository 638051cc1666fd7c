"""The results of classification: from logits to metrics and to files."""

import io
import json
import os
import sys

import numpy as np
import tqdm

from bert_keras3.data import files
from bert_keras3.tasks import metrics
from bert_keras3.training import evaluation
from bert_keras3.training.monitor import Monitor
from bert_keras3.training.results import format_results


def predict_logits(run, split, batch_size):
  """Runs the model of a run on the examples of a file.

  Args:
    run: run.Run of a modeling.BertClassifier.
    split: classifier_data.Split.
    batch_size: global batch size.

  Returns:
    float32 [examples, num_labels], means over the windows of long texts.
  """
  batches = evaluation.predict(
    run.strategy, run.prediction_step, split.source, batch_size
  )
  return gather_logits(split, batches)


def gather_logits(split, batches):
  """Averages the logits of batches over the windows of each example.

  Args:
    split: classifier_data.Split.
    batches: iterable of (record numbers, dict with their `logits`).
  """
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
  """Computes the numbers of eval_results.txt.

  Args:
    task: classifier_data.Task.
    labels: array as of classifier_data.label_ids.
    logits: float32 [examples, num_labels].
    batch_size: examples per batch of upstream's `loss`.

  Returns:
    Dict of floats: `eval_loss`, `loss`, `eval_accuracy` unless labels are
    scores, and `eval_<metric>` for each metric of the task. As upstream's
    Estimator, `loss` is the mean of the batches' means, a partial last batch
    counting like the others; all other numbers count every example once.
  """
  losses = metrics.cross_entropies(task.problem_type, logits, labels)
  batches = [
    losses[start : start + batch_size]
    for start in range(0, len(losses), batch_size)
  ]
  names = dict.fromkeys(task.metrics)
  if task.problem_type != "regression":
    names["accuracy"] = None
  predictions = metrics.predict_labels(task.problem_type, logits)
  values = metrics.compute(names, labels, predictions)
  return {
    **{f"eval_{name}": value for name, value in values.items()},
    "eval_loss": float(np.mean(losses)),
    "loss": float(np.mean([np.mean(batch) for batch in batches])),
  }


def collapse_warning(task, labels, logits):
  """Returns a warning about a model that gives one answer only, else None."""
  if task.problem_type != "single_label":
    return None
  predictions = metrics.predict_labels(task.problem_type, logits)
  if not metrics.is_collapsed(labels, predictions):
    return None
  return (
    f"the model answers {task.labels[predictions[0]]!r} to everything. If that "
    "does not pass in later evaluations, try --adam_bias_correction, a lower "
    "--learning_rate, more epochs or another --seed; --class_weights=balanced "
    "if one label is rare"
  )


def write_report(directory, task, labels, logits, suffix=""):
  """Writes the per-class report and the confusion matrix of an evaluation.

  Args:
    directory: output_directory.OutputDirectory.
    task: classifier_data.Task.
    labels: array as of classifier_data.label_ids.
    logits: float32 [examples, num_labels].
    suffix: of the file names.
  """
  if task.problem_type == "regression":
    return
  predictions = metrics.predict_labels(task.problem_type, logits)
  report = metrics.class_report(
    task.problem_type, task.labels, labels, predictions
  )
  directory.write(f"eval_report{suffix}.txt", report)
  if task.problem_type == "multi_label":
    return
  matrix = metrics.confusion_matrix(len(task.labels), labels, predictions)
  table = metrics.format_confusion_matrix(task.labels, matrix)
  directory.write(f"confusion_matrix{suffix}.tsv", table)
  image = io.BytesIO()
  try:
    metrics.draw_confusion_matrix(task.labels, matrix, image)
  except ImportError:
    print("no confusion_matrix.png: matplotlib is not installed")
  else:
    directory.write(f"confusion_matrix{suffix}.png", image.getvalue())


def write_predictions(directory, task, examples, logits, split):
  """Writes test_results.tsv, predictions.jsonl and a GLUE submission.

  Args:
    directory: output_directory.OutputDirectory.
    task: classifier_data.Task.
    examples: list of InputExample.
    logits: float32 [examples, num_labels].
    split: name of the task's split, for the file names.
  """
  suffix = split.removeprefix("test")
  scores = metrics.probabilities(task.problem_type, logits)
  predictions = metrics.predict_labels(task.problem_type, logits)
  answers = [
    _name_answer(task.problem_type, task.labels, prediction)
    for prediction in predictions
  ]
  # str of a float32, as upstream: its shortest text that reads back the same.
  rows = ["\t".join(map(str, row)) + "\n" for row in scores]
  directory.write(f"test_results{suffix}.tsv", "".join(rows))
  lines = [
    _to_json(task.problem_type, task.labels, *row)
    for row in zip(examples, answers, scores, strict=True)
  ]
  directory.write(f"predictions{suffix}.jsonl", "".join(lines))
  if split in task.submissions:
    text = _submission(task, examples, answers)
    directory.write(task.submissions[split], text)


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
    # The fewest digits that identify a float32.
    line["probabilities"] = {
      name: float(str(score))
      for name, score in zip(label_names, scores, strict=True)
    }
  return json.dumps(line, ensure_ascii=False) + "\n"


def _submission(task, examples, answers):
  """Formats GLUE's table: the test file's index, and the answer.

  Scores are clipped to STS-B's scale, as GLUE's server requires.
  """
  if task.problem_type == "regression":
    answers = [f"{min(max(answer, 0.0), 5.0):.3f}" for answer in answers]
  lines = [
    f"{example.row_id}\t{answer}\n"
    for example, answer in zip(examples, answers, strict=True)
  ]
  return "index\tprediction\n" + "".join(lines)


# The parts of a run -----------------------------------------------------------


def head_options(config, data):
  """Returns the arguments of modeling.BertClassifier after its config.

  Args:
    config: ClassifierConfig.
    data: classifier_data.Data.

  Raises:
    ValueError: --class_weights does not fit the labels.
  """
  num_labels = len(data.task.labels) or 1
  weights = None
  if data.train:
    weights = class_weights(config.class_weights, data.train.labels, num_labels)
  return {
    "num_labels": num_labels,
    "problem_type": data.task.problem_type,
    "class_weights": weights,
    "label_smoothing": config.label_smoothing,
  }


def make_monitor(run, data):
  """Makes the Monitor that evaluates on the development set, or None.

  Args:
    run: run.Run of a modeling.BertClassifier.
    data: classifier_data.Data.

  Raises:
    ValueError: early stopping is asked for, but no evaluation.
  """
  config, task = run.config, data.task
  if not config.eval_steps:
    return None
  if not config.do_eval:
    raise ValueError(
      "--eval_steps and --early_stopping_patience need --do_eval"
    )
  split = data.splits["dev"]

  def evaluate_now():
    logits = predict_logits(run, split, config.eval_batch_size)
    warn_if_collapsed(task, split, logits)
    return evaluate(task, split.labels, logits, config.eval_batch_size)

  return Monitor(
    evaluate_now, f"eval_{task.metrics[0]}", config.early_stopping_patience
  )


def warn_if_collapsed(task, split, logits):
  """Warns the user of a model that gives one answer only."""
  warning = collapse_warning(task, split.labels, logits)
  if warning:
    print(f"warning: {warning}", file=sys.stderr)


def evaluate_splits(run, data):
  """Writes eval_results.txt and the reports of all development sets.

  Args:
    run: run.Run of a modeling.BertClassifier.
    data: classifier_data.Data.

  Returns:
    Dict of the numbers of the first development set, empty if there is none.
  """
  batch_size = run.config.eval_batch_size
  all_results = []
  for name, split in data.of_kind("dev").items():
    suffix = name.removeprefix("dev")
    logits = predict_logits(run, split, batch_size)
    results = evaluate(data.task, split.labels, logits, batch_size)
    write_report(run.directory, data.task, split.labels, logits, suffix)
    run.report(results, suffix)
    run.directory.perform(warn_if_collapsed, data.task, split, logits)
    all_results.append(results)
  return all_results[0] if all_results else {}


def predict_splits(run, data):
  """Writes test_results.tsv, predictions.jsonl and a submission, of all sets.

  Args: see `evaluate_splits`.
  """
  for name, split in data.of_kind("test").items():
    logits = predict_logits(run, split, run.config.predict_batch_size)
    directory = run.directory
    write_predictions(directory, data.task, split.examples, logits, name)
    count = len(split.examples)
    run.tell(f"{count} predictions: {directory.path}/predictions*.jsonl")


def outputs_to_score(run, data, results):
  """Returns how to score a conversion of the model, for litert.make_check.

  Args:
    run: run.Run.
    data: classifier_data.Data.
    results: dict that `evaluate_splits` returned.

  Returns:
    () without results; else (source of the first development set, function from
    pairs (record numbers, dict of outputs) to a dict of metrics, the metrics of
    the model itself).
  """
  if not results:
    return ()
  split, *_ = data.of_kind("dev").values()
  names = [x for x in results if x not in ("eval_loss", "loss")]

  def score(batches):
    logits = gather_logits(split, batches)
    batch_size = run.config.eval_batch_size
    scores = evaluate(data.task, split.labels, logits, batch_size)
    return {name: scores[name] for name in names}

  return split.source, score, {name: results[name] for name in names}


# Several seeds ----------------------------------------------------------------


def report_seeds(runs, output_dir, results):
  """Prints and writes mean and standard deviation over the seeds.

  Args:
    runs: list of run.Run.
    output_dir: directory of all of them.
    results: list of dicts, one for each run.

  Returns:
    Dict of the means, or the results themselves of a single run.
  """
  if len(runs) == 1 or not results[0]:
    return results[0]
  summary = summarize_seeds(results)
  first_seed = runs[0].config.seed
  text = format_results(
    {"num_seeds": len(results), "first_seed": first_seed, **summary}
  )
  runs[0].directory.perform(
    files.write_atomically, os.path.join(output_dir, "eval_results.txt"), text
  )
  for name in results[0]:
    values = "  ".join(f"{result[name]:.4f}" for result in results)
    mean, deviation = summary[name], summary[f"{name}_sd"]
    runs[0].tell(f"{name}: {mean:.4f} ± {deviation:.4f} over seeds ({values})")
  return summary


def summarize_seeds(results):
  """Computes mean and standard deviation over runs that differ in their seed.

  Args:
    results: list of dicts of numbers with the same keys.

  Returns:
    Dict with, for every key, its mean, and under `<key>_sd` the sample standard
    deviation.
  """
  summary = {}
  for name in results[0]:
    mean, deviation = metrics.mean_and_deviation(
      [result[name] for result in results]
    )
    summary[name] = mean
    summary[f"{name}_sd"] = deviation
  return summary


def class_weights(text, labels, num_labels):
  """Parses --class_weights.

  Args:
    text: "" for none, "balanced", or a number per label, with commas.
    labels: int [examples], of training.
    num_labels: number of labels.

  Returns:
    List of floats, or None.

  Raises:
    ValueError: the text is something else, or does not fit the labels.
  """
  if not text:
    return None
  if text == "balanced":
    if np.ndim(labels) != 1 or not np.issubdtype(labels.dtype, np.integer):
      raise ValueError(
        "--class_weights=balanced is for one label per example; give a number "
        "per label instead"
      )
    return metrics.balanced_class_weights(labels, num_labels).tolist()
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
