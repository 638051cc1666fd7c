"""Fine-tunes BERT to classify texts and pairs of texts.

    python run_classifier.py --task_name=mrpc --data_dir=MRPC \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=out \
      --do_train --do_eval --do_predict

    python run_classifier.py --task_name=csv --train_file=train.csv \
      --text_a=review --label_column=stars --predict_file=new.csv \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=out \
      --do_train --do_predict

The tasks and flags of google-research/bert's script of the same name, the rest
of GLUE, CLUE, and the user's own CSV, TSV and JSON lines.
"""

import dataclasses
import functools
import os
import sys

from absl import flags

from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start
from bert_keras3.data import files as files_module
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import fine_tuning
from bert_keras3.tasks import upstream_api
from bert_keras3.weights import labels as labels_module

# What notebooks import from upstream's run_classifier.
InputExample = classifier_data.InputExample
PaddingInputExample = upstream_api.PaddingInputExample
InputFeatures = upstream_api.InputFeatures
DataProcessor = upstream_api.DataProcessor
ColaProcessor = upstream_api.ColaProcessor
MnliProcessor = upstream_api.MnliProcessor
MrpcProcessor = upstream_api.MrpcProcessor
XnliProcessor = upstream_api.XnliProcessor
convert_single_example = upstream_api.convert_single_example
convert_examples_to_features = upstream_api.convert_examples_to_features
file_based_convert_examples_to_features = (
  upstream_api.file_based_convert_examples_to_features
)

# Flags of this script, beside the shared ones, that decide a run's result.
SETTINGS = (
  "task_name",
  "max_seq_length",
  "problem_type",
  "text_a",
  "text_b",
  "label_column",
  "label_separator",
  "header",
  "xnli_language",
  "skip_bad_rows",
  "long_text",
  "special_tokens_in_text",
  "class_weights",
  "label_smoothing",
)


# Of all settings, those that an export must have, or it would answer otherwise
# than the model.
EXPORT_SETTINGS = ("max_seq_length", "long_text", "text_b")


def define_flags():
  """Defines this script's flags."""
  cli_flags.define_model_flags(required=["output_dir"])
  _define_data_flags()
  _define_column_flags()
  flags.DEFINE_bool("do_train", False, "Train.")
  flags.DEFINE_bool("do_eval", False, "Evaluate on the development set.")
  flags.DEFINE_bool("do_predict", False, "Predict the labels of the test set.")
  for name in ("eval", "predict"):
    flags.DEFINE_integer(
      f"{name}_batch_size", 8, f"Examples per batch to {name}.", lower_bound=1
    )
  flags.DEFINE_string(
    "class_weights",
    "",
    "What each label's loss counts: balanced, or numbers with commas, in the "
    "order of labels.txt.",
  )
  flags.DEFINE_float(
    "label_smoothing",
    0.0,
    "Share of the probability to spread over all labels.",
    lower_bound=0.0,
    upper_bound=1.0,
  )
  flags.DEFINE_integer(
    "num_seeds",
    1,
    "Train so often, with --seed, --seed + 1, ..., and report the mean.",
    lower_bound=1,
  )
  cli_flags.define_training_flags()
  cli_flags.define_fine_tuning_flags()
  cli_flags.define_special_tokens_flag()
  cli_flags.define_export_flags()
  cli_flags.define_device_flags()


def _define_data_flags():
  flags.DEFINE_string(
    "task_name",
    None,
    "A task of the table in the README, or csv, tsv, jsonl for files of yours.",
    required=True,
  )
  flags.DEFINE_string("data_dir", None, "Directory with the task's files.")
  for name, default in (
    ("train", "train"),
    ("eval", "dev"),
    ("predict", "test"),
  ):
    flags.DEFINE_string(
      f"{name}_file",
      None,
      f"File to {name} on, instead of data_dir's {default}.",
    )
  flags.DEFINE_integer(
    "max_seq_length", 128, "Tokens of an example at most.", lower_bound=3
  )
  flags.DEFINE_enum(
    "long_text",
    "truncate",
    classifier_data.LONG_TEXT,
    "What becomes of longer texts: their end goes, their middle goes, or they "
    "are read in windows that overlap by half, whose logits are averaged.",
  )
  flags.DEFINE_string("xnli_language", "zh", "Language of the task xnli.")
  flags.DEFINE_bool(
    "skip_bad_rows", False, "Leave out rows that cannot be used, and say so."
  )


def _define_column_flags():
  flags.DEFINE_string(
    "text_a", "text", "Column of the text, by name or by number from 0."
  )
  flags.DEFINE_string("text_b", None, "Column of a second text.")
  flags.DEFINE_string(
    "label_column",
    "label",
    "Column of the label. For multi_label a column of labels, or several "
    "columns of 0 and 1, with commas.",
  )
  flags.DEFINE_string(
    "label_separator", ",", "Between the labels of a multi_label row."
  )
  flags.DEFINE_string("id_column", None, "Column to call predictions by.")
  flags.DEFINE_bool("header", True, "Whether the first row names the columns.")
  flags.DEFINE_enum(
    "problem_type",
    "single_label",
    classifier_data.PROBLEM_TYPES,
    "What a row of your files is labelled with.",
  )


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(fine_tuning.FineTuningConfig):
  """What to classify, with what, and what to do; the flags of these names."""

  task_name: str | None = None
  data_dir: str | None = None
  train_file: str | None = None
  eval_file: str | None = None
  predict_file: str | None = None
  long_text: str = "truncate"
  special_tokens_in_text: str = "split"
  xnli_language: str = "zh"
  skip_bad_rows: bool = False
  text_a: str = "text"
  text_b: str | None = None
  label_column: str = "label"
  label_separator: str = ","
  id_column: str | None = None
  header: bool = True
  problem_type: str = "single_label"
  do_eval: bool = False
  do_predict: bool = False
  eval_batch_size: int = 8
  predict_batch_size: int = 8
  class_weights: str = ""
  label_smoothing: float = 0.0
  num_seeds: int = 1


def main():
  """Turns flags into configs and runs."""
  config = cli_flags.read(ClassifierConfig)
  actions = ("do_train", "do_eval", "do_predict", "do_export")
  if not any(getattr(config, action) for action in actions):
    raise ValueError(f"nothing to do: pass --{', --'.join(actions)} or several")
  cli_flags.check_export()
  task = make_task(config)
  check_problem_type(config, task)
  start.load_tensorflow()
  classify(
    config,
    task,
    cli_flags.device_config(),
    cli_flags.fine_tuning_config(),
    cli_flags.fine_tuning_settings(SETTINGS),
  )


def make_task(config):
  """The classifier_data.Task of the flags.

  Raises:
    ValueError: there is no such task, or a flag does not go with it.
  """
  name = config.task_name.lower()
  if name == "xnli":
    return classifier_data.xnli(config.xnli_language)
  if name not in classifier_data.OWN_FORMATS:
    return classifier_data.find_task(name)
  label = config.label_column
  if config.problem_type == "multi_label" and "," in label:
    label = tuple(label.split(","))
  layout = classifier_data.Layout(
    text_a=config.text_a,
    text_b=config.text_b,
    label=label,
    row_id=config.id_column,
    has_header=config.header,
    label_separator=config.label_separator,
  )
  return classifier_data.own_task(name, layout, config.problem_type)


def check_problem_type(config, task):
  """Refuses flags that would have no effect on a task.

  Raises:
    ValueError: there is one.
  """
  if config.problem_type not in ("single_label", task.problem_type):
    raise ValueError(
      f"--problem_type={config.problem_type} is for csv, tsv and jsonl; task "
      f"{task.name} is {task.problem_type}"
    )
  if config.label_smoothing and task.problem_type != "single_label":
    raise ValueError(
      f"--label_smoothing has no meaning for {task.problem_type}; leave it out"
    )
  if config.class_weights and task.problem_type == "regression":
    raise ValueError(
      "--class_weights has no meaning for regression; leave it out"
    )
  if config.do_export and config.num_seeds > 1:
    raise ValueError(
      "--do_export is for one model; export the best of --num_seeds later, "
      "with its directory as --output_dir"
    )


# Data -------------------------------------------------------------------------


def find_splits(config, task):
  """The files to read.

  Returns:
    Dict from the name of a split to (path, classifier_data.Layout).

  Raises:
    FileNotFoundError: one that is needed is not there.
    ValueError: the task has none, or --data_dir is missing.
  """
  wanted = {
    "train": (config.do_train, config.train_file, "train_file"),
    "dev": (config.do_eval, config.eval_file, "eval_file"),
    "test": (config.do_predict, config.predict_file, "predict_file"),
  }
  splits = {}
  for split, (is_wanted, path, flag) in wanted.items():
    if not is_wanted:
      continue
    if path:
      layout = classifier_data.default_layout(task, split, path)
      splits[split] = (files_module.find_files(flag, path)[0], layout)
      continue
    if not config.data_dir:
      raise ValueError(f"pass --data_dir or --{flag}: there is nothing to read")
    splits[split] = classifier_data.require_file(task, split, config.data_dir)
    for other in task.splits(split):
      found = classifier_data.find_file(task, other, config.data_dir)
      if found:
        splits[other] = found
  return splits


def read_splits(config, task, files, labels_file):
  """Reads the examples of all files; settles the task's labels.

  Args:
    config: ClassifierConfig.
    task: classifier_data.Task.
    files: what `find_splits` returned, training first.
    labels_file: labels.txt of a trained model, or None.

  Returns:
    (task with its labels, dict from split to list of InputExample).
  """
  examples = {}
  if not config.do_train:
    task = classifier_data.with_saved_labels(task, labels_file)
  for split, (path, layout) in files.items():
    examples[split] = classifier_data.read_examples(
      path,
      layout,
      split,
      task.problem_type,
      task.labels or None,
      config.skip_bad_rows,
    )
    if split == "train":
      task = classifier_data.with_training_labels(task, path, examples[split])
  return task, examples


# Running ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Job:
  """All that the runs with different seeds share."""

  config: ClassifierConfig
  task: classifier_data.Task
  setup: fine_tuning.Setup
  splits: dict  # name -> Split, training first
  settings: dict
  data_files: list  # that decide what weights training ends with

  def kind(self, kind):
    """The splits to evaluate on ("dev") or to predict ("test")."""
    names = self.task.splits(kind)
    return {name: self.splits[name] for name in names if name in self.splits}


def classify(config, task, device_config, training_config, settings):
  """Reads and checks everything, then trains, evaluates, predicts as asked.

  Args:
    config: ClassifierConfig.
    task: classifier_data.Task.
    device_config: devices.DeviceConfig.
    training_config: loop.TrainingConfig, its step numbers unset.
    settings: dict of what makes this run the one it is, for its manifest.

  Returns:
    Dict of the results of evaluation; means if there are several seeds.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  from bert_keras3.serving import export as export_module
  from bert_keras3.tasks import classifier_results

  if config.do_export:
    export_module.check_export_dir(config.export_dir)
  job = open_job(config, task, device_config, training_config, settings)
  if config.dry_run:
    describe_data(job)
  results = [
    run_once(job, config_of_seed(job, training_config, number))
    for number in range(config.num_seeds)
  ]
  if config.dry_run:
    fine_tuning.conclude_dry_run(job.setup, config)
  if config.num_seeds == 1 or not config.do_eval or config.dry_run:
    return results[0]
  summary = classifier_results.summarize_seeds(results)
  report_seeds(job, training_config.seed, results, summary)
  return summary


def open_job(config, task, device_config, training_config, settings):
  """Finds, reads and checks all files; arguments as those of `classify`."""
  setup = fine_tuning.open_model(
    config, device_config, run_path(config, 0), config.special_tokens_in_text
  )
  files = find_splits(config, task)
  task, examples = read_splits(config, task, files, setup.files.labels_file)
  make_split = functools.partial(
    classifier_data.make_split,
    task=task,
    tokenizer=setup.tokenizer,
    max_seq_length=config.max_seq_length,
    long_text=config.long_text,
    pad_to_max_length=setup.is_padded,
  )
  is_monitored = fine_tuning.is_monitored(config, training_config)
  deciding = ("train", "dev") if is_monitored else ("train",)
  return Job(
    config=config,
    task=task,
    setup=setup,
    splits={name: make_split(rows) for name, rows in examples.items()},
    settings=settings,
    data_files=[files[name][0] for name in deciding if name in files],
  )


def describe_data(job):
  """Tells of a dry run's files how long texts are, and which labels come."""
  from bert_keras3.tasks import data_summary

  config, task, findings = job.config, job.task, job.setup.findings
  for name, split in job.splits.items():
    lengths = data_summary.text_lengths(split, job.setup.tokenizer)
    data_summary.tell_texts(
      findings, name, lengths, config.max_seq_length, config.long_text
    )
  if config.do_train:
    labels = job.splits["train"].labels
    data_summary.tell_labels(findings, "train", task.labels, labels)


def run_path(config, number):
  """output_dir, or the directory in it of one seed of several."""
  if config.num_seeds == 1:
    return config.output_dir
  return os.path.join(config.output_dir, f"run_{number + 1}")


def config_of_seed(job, training_config, number):
  """The TrainingConfig of one run, its steps counted.

  Raises:
    ValueError: the examples do not make one step.
  """
  config = job.config
  training_config = dataclasses.replace(
    training_config,
    output_dir=run_path(config, number),
    seed=training_config.seed + number,
  )
  if not config.do_train:
    return training_config
  count = len(job.splits["train"].source)
  return fine_tuning.count_steps(config, training_config, count)


def run_once(job, training_config):
  """Trains, evaluates and predicts with one seed.

  Returns:
    Dict of the results of the first evaluation, empty if there is none.
  """
  from bert_keras3.training import evaluation
  from bert_keras3.training import run as run_module

  config = job.config
  run = fine_tuning.open_run(
    job.setup,
    config,
    {**job.settings, "seed": training_config.seed},
    job.data_files,
    training_config.output_dir,
  )
  model = make_model(job, training_config.seed)
  step = evaluation.prediction_step(model)
  if config.do_train:
    global_step = train(job, training_config, model, step, run)
  else:
    names = model_settings(job.task)
    run.check_settings(
      (*names, *EXPORT_SETTINGS) if config.do_export else names
    )
    global_step = run_module.restore(run, model, config.init_checkpoint)
  if config.dry_run:
    return {}
  results = [
    evaluate(job, step, run, name, global_step) for name in job.kind("dev")
  ]
  for name in job.kind("test"):
    predict(job, step, run, name)
  if config.do_export and run.is_writer:
    export(job, model, results)
  return results[0] if results else {}


def model_settings(task):
  """Settings that a model must share with those who use it."""
  names = ("problem_type", "do_lower_case", "special_tokens_in_text")
  # A model trained on one file format may answer about another.
  is_own = task.name in classifier_data.OWN_FORMATS
  return names if is_own else ("task_name", *names)


def make_model(job, seed):
  """The classifier, its initial weights drawn by a seed."""
  import modeling
  from bert_keras3.tasks import classifier_results

  config, task = job.config, job.task
  num_labels = len(task.labels) or 1
  class_weights = None
  if config.do_train:
    class_weights = classifier_results.class_weights(
      config.class_weights, job.splits["train"].labels, num_labels
    )
  return fine_tuning.make_model(
    job.setup,
    config,
    seed,
    modeling.BertClassifier,
    num_labels=num_labels,
    problem_type=task.problem_type,
    class_weights=class_weights,
    label_smoothing=config.label_smoothing,
  )


def train(job, training_config, model, step, run):
  """Trains; returns the step the model's weights are of."""
  files = {}
  if job.task.labels:
    files["labels.txt"] = labels_module.format_labels(job.task.labels)
  return fine_tuning.train(
    job.setup,
    job.config,
    training_config,
    run,
    model,
    job.splits["train"].source,
    monitor=make_monitor(job, training_config, step),
    files=files,
  )


def make_monitor(job, training_config, step):
  """The loop.Monitor that evaluates on the development set, or None.

  Raises:
    ValueError: early stopping is asked for, but no evaluation.
  """
  from bert_keras3.tasks import classifier_results
  from bert_keras3.training import monitor

  config, task = job.config, job.task
  if not config.do_eval:
    if training_config.eval_steps:
      raise ValueError(
        "--eval_steps and --early_stopping_patience need --do_eval"
      )
    return None
  if not training_config.eval_steps:
    return None
  split = job.splits["dev"]

  def evaluate_now():
    logits = classifier_results.predict_logits(
      job.setup.strategy, step, split, config.eval_batch_size
    )
    warn_if_collapsed(task, split, logits)
    return classifier_results.evaluate(
      task, split.labels, logits, config.eval_batch_size
    )

  return monitor.Monitor(
    evaluate_now, f"eval_{task.metrics[0]}", config.early_stopping_patience
  )


def warn_if_collapsed(task, split, logits):
  """Tells the user of a model that gives one answer only."""
  from bert_keras3.tasks import classifier_results

  warning = classifier_results.collapse_warning(
    task, task.labels, split.labels, logits
  )
  if warning:
    print(f"warning: {warning}", file=sys.stderr)


def evaluate(job, step, run, name, global_step):
  """Writes eval_results.txt and the reports of one development set.

  Returns:
    Dict of its numbers.
  """
  from bert_keras3.tasks import classifier_results
  from bert_keras3.tasks import metrics

  task, split = job.task, job.splits[name]
  batch_size = job.config.eval_batch_size
  suffix = name.removeprefix("dev")
  logits = classifier_results.predict_logits(
    job.setup.strategy, step, split, batch_size
  )
  results = classifier_results.evaluate(task, split.labels, logits, batch_size)
  text = metrics.format_results({"global_step": global_step, **results})
  run.write(f"eval_results{suffix}.txt", text)
  classifier_results.write_report(
    run, task, task.labels, split.labels, logits, suffix
  )
  run.record({f"{key}{suffix}": value for key, value in results.items()})
  if run.is_writer:
    print(text, end="")
    warn_if_collapsed(task, split, logits)
  return results


def predict(job, step, run, name):
  """Writes test_results.tsv, predictions.jsonl and a submission."""
  from bert_keras3.tasks import classifier_results

  split = job.splits[name]
  logits = classifier_results.predict_logits(
    job.setup.strategy, step, split, job.config.predict_batch_size
  )
  classifier_results.write_predictions(
    run, job.task, job.task.labels, split.examples, logits, name
  )
  if run.is_writer:
    print(f"{len(split.examples)} predictions: {run.path}/predictions*.jsonl")


def export(job, model, results):
  """Writes the SavedModel that answers as the model does.

  Args:
    job: Job.
    model: modeling.BertClassifier.
    results: list of what `evaluate` returned.
  """
  from bert_keras3.serving import export as model_export

  config, task = job.config, job.task
  model_export.export_classifier(
    config.export_dir,
    model,
    job.setup.tokenizer,
    {
      "task": task.name,
      "labels": list(task.labels),
      "problem_type": task.problem_type,
      "do_lower_case": config.do_lower_case,
      "special_tokens_in_text": config.special_tokens_in_text,
      "max_seq_length": config.max_seq_length,
      "long_text": config.long_text,
    },
    task.has_pairs,
    litert_check(job, results),
  )
  print(f"exported to {config.export_dir}")


def litert_check(job, results):
  """The litert.Check on the first development set, None if not asked."""
  from bert_keras3.serving import litert
  from bert_keras3.tasks import classifier_results

  if "litert" not in job.config.export_format:
    return None
  if not results:
    return litert.Check()
  split, *_ = job.kind("dev").values()
  names = [x for x in results[0] if x not in ("eval_loss", "loss")]

  def score(batches):
    logits = classifier_results.gather_logits(split, batches)
    found = classifier_results.evaluate(
      job.task, split.labels, logits, job.config.eval_batch_size
    )
    return {name: found[name] for name in names}

  expected = {name: results[0][name] for name in names}
  return litert.Check(split.source, score, expected)


def report_seeds(job, first_seed, results, summary):
  """Prints and writes mean and standard deviation over the seeds."""
  from bert_keras3.data import files as files_module
  from bert_keras3.tasks import metrics
  from bert_keras3.training import devices

  if not devices.is_chief(job.setup.strategy):
    return
  text = metrics.format_results(
    {"num_seeds": len(results), "first_seed": first_seed, **summary}
  )
  path = os.path.join(job.config.output_dir, "eval_results.txt")
  files_module.write_atomically(path, text)
  for name in results[0]:
    values = "  ".join(f"{result[name]:.4f}" for result in results)
    mean, deviation = summary[name], summary[f"{name}_sd"]
    print(f"{name}: {mean:.4f} ± {deviation:.4f} over seeds ({values})")


def cli():
  """Entry point of the console script."""
  start.run(main, define_flags)


if __name__ == "__main__":
  cli()
