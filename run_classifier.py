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

from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.data import tables
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import upstream_api
from bert_keras3.training import configs

# Names that notebooks import from upstream's run_classifier.
InputExample = tables.InputExample
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


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(configs.FineTuningConfig, configs.SpecialTokensConfig):
  """The flags of classification."""

  output_dir: str | None = fields.variant(
    configs.FineTuningConfig, "output_dir", is_required=True
  )
  special_tokens_in_text: str = fields.variant(
    configs.SpecialTokensConfig, "special_tokens_in_text", decides_result=True
  )

  # Which data.
  task_name: str | None = fields.flag(
    None,
    "A task of the table in docs/classification.md, or csv, tsv, jsonl for "
    "files of yours.",
    is_required=True,
    decides_result=True,
  )
  data_dir: str | None = fields.flag(None, "Directory with the task's files.")
  train_file: str | None = fields.flag(
    None, "File to train on, instead of data_dir's train."
  )
  eval_file: str | None = fields.flag(
    None, "File to eval on, instead of data_dir's dev."
  )
  predict_file: str | None = fields.flag(
    None, "File to predict on, instead of data_dir's test."
  )
  long_text: str = fields.flag(
    "truncate",
    "What becomes of longer texts: their end goes, their middle goes, or they "
    "are read in windows that overlap by half, whose logits are averaged.",
    choices=classifier_data.LONG_TEXT,
    decides_result=True,
  )
  xnli_language: str = fields.flag(
    "zh", "Language of the task xnli.", decides_result=True
  )
  skip_bad_rows: bool = fields.flag(
    False,
    "Leave out rows that cannot be used, and say so.",
    decides_result=True,
  )

  # Files of the user's own.
  text_a: str = fields.flag(
    "text",
    "Column of the text, by name or by number from 0.",
    decides_result=True,
  )
  text_b: str | None = fields.flag(
    None, "Column of a second text.", decides_result=True
  )
  label_column: str = fields.flag(
    "label",
    "Column of the label. For multi_label a column of labels, or several "
    "columns of 0 and 1, with commas.",
    decides_result=True,
  )
  label_separator: str = fields.flag(
    ",", "Between the labels of a multi_label row.", decides_result=True
  )
  id_column: str | None = fields.flag(None, "Column to call predictions by.")
  header: bool = fields.flag(
    True, "Whether the first row names the columns.", decides_result=True
  )
  problem_type: str = fields.flag(
    "single_label",
    "What a row of your files is labelled with.",
    choices=classifier_data.PROBLEM_TYPES,
    decides_result=True,
  )

  # What to do.
  do_eval: bool = fields.flag(False, "Evaluate on the development set.")
  do_predict: bool = fields.flag(False, "Predict the labels of the test set.")
  eval_batch_size: int = fields.flag(
    8, "Examples per batch to eval.", lower_bound=1
  )
  predict_batch_size: int = fields.flag(
    8, "Examples per batch to predict.", lower_bound=1
  )
  class_weights: str = fields.flag(
    "",
    "What each label's loss counts: balanced, or numbers with commas, in the "
    "order of labels.txt.",
    decides_result=True,
  )
  label_smoothing: float = fields.flag(
    0.0,
    "Share of the probability to spread over all labels.",
    lower_bound=0.0,
    upper_bound=1.0,
    decides_result=True,
  )
  num_seeds: int = fields.flag(
    1,
    "Train so often, with --seed, --seed + 1, ..., and report the mean.",
    lower_bound=1,
  )

  @property
  def run_dirs(self):
    """Returns a list of the directories of the runs, one for each seed."""
    if self.num_seeds == 1:
      return [self.output_dir]
    numbers = range(1, self.num_seeds + 1)
    return [os.path.join(self.output_dir, f"run_{x}") for x in numbers]

  def of_seeds(self):
    """Returns a list of configs, one for each run."""
    return [
      dataclasses.replace(self, output_dir=path, seed=self.seed + number)
      for number, path in enumerate(self.run_dirs)
    ]

  def describe_export(self, task):
    """Returns the settings of an export's description, a dict."""
    names = (
      "do_lower_case",
      "special_tokens_in_text",
      "max_seq_length",
      "long_text",
    )
    return {
      "task": task.name,
      "labels": list(task.labels),
      "problem_type": task.problem_type,
      **{name: getattr(self, name) for name in names},
    }


def main(config):
  """Checks the flags and classifies."""
  check_flags(config)
  start.load_tensorflow()
  classify(config)


def check_flags(config):
  """Refuses flags that do not go together, or would have no effect on a task.

  Raises:
    ValueError: there are such flags.
  """
  actions = ("do_train", "do_eval", "do_predict", "do_export")
  if not any(getattr(config, action) for action in actions):
    raise ValueError(f"nothing to do: pass --{', --'.join(actions)} or several")
  config.check_export()
  classifier_data.make_task(config)
  if config.do_export and config.num_seeds > 1:
    raise ValueError(
      "--do_export is for one model; export the best of --num_seeds later, "
      "with its directory as --output_dir"
    )


def classify(config):
  """Reads and checks everything, then trains, evaluates, predicts as asked.

  Args:
    config: ClassifierConfig.

  Returns:
    Dict of the results of evaluation; means if there are several seeds.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  import modeling
  from bert_keras3.serving import export
  from bert_keras3.serving import litert
  from bert_keras3.tasks import classifier_results
  from bert_keras3.tasks import data_summary
  from bert_keras3.training import devices
  from bert_keras3.training.run import open_runs
  from bert_keras3.weights import companions

  export.check_export(config)
  strategy = devices.make_strategy(config)
  pretrained = companions.open_pretrained(config, config.run_dirs[0])
  data = classifier_data.open_data(config, pretrained)
  data_files = [*pretrained.paths, *data.deciding_files]
  runs = open_runs(config.of_seeds(), strategy, data_files)
  runs[0].describe(data_summary.tell_splits, data, pretrained.tokenizer)
  all_results = []
  for run in runs:
    if config.do_train:
      run.count_steps(len(data.train.source))
    options = classifier_results.head_options(config, data)
    run.build(modeling.BertClassifier, pretrained.bert_config, **options)
    if config.do_train:
      monitor = classifier_results.make_monitor(run, data)
      save = functools.partial(data.save_companions, pretrained)
      run.train(data.train.source, monitor, save)
    else:
      run.restore(data.task.settings(config))
    results = run.evaluate(classifier_results.evaluate_splits, data)
    run.perform(classifier_results.predict_splits, run, data)
    if config.do_export:
      scoring = classifier_results.outputs_to_score(run, data, results)
      run.export(
        export.export_classifier,
        pretrained.tokenizer,
        config.describe_export(data.task),
        data.task.has_pairs,
        litert.make_check(config, *scoring),
      )
    all_results.append(results)
    run.close()
  runs[0].conclude("files, flags and model fit together", config.output_dir)
  return classifier_results.report_seeds(runs, config.output_dir, all_results)


def cli():
  """Runs the console script."""
  start.run(main, ClassifierConfig)


if __name__ == "__main__":
  cli()
