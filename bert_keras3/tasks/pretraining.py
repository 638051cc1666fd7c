"""Pretraining: its model's files, its records, its evaluation.

Records are compared with flags and model before anything is trained.
"""

import os

from bert_keras3.data import features
from bert_keras3.data import files
from bert_keras3.data import parsing
from bert_keras3.data import records
from bert_keras3.training import dry_run
from bert_keras3.training import evaluation
from bert_keras3.weights import companions

# Where the record index is kept between runs.
INDEX_FILE = "record_index.npz"
# Records of each file that are checked before a run: enough to detect a
# vocabulary that does not fit.
NUM_CHECKED_RECORDS = 64
# The flag that sets the length of a feature.
LENGTH_FLAGS = {
  "input_ids": "max_seq_length",
  "masked_lm_positions": "max_predictions_per_seq",
}


def open_model(config):
  """Opens the files of the model; the vocabulary only if it is needed.

  Args:
    config: PretrainingConfig.

  Returns:
    companions.Pretrained.

  Raises:
    ValueError, OSError: a file is missing, or they do not fit each other.
  """
  if config.do_export or config.vocab_file:
    return companions.open_pretrained(config, config.output_dir)
  return companions.open_architecture(config.bert_config_file)


def open_sources(config, bert_config):
  """Opens the record files of training and, if they are others, of evaluation.

  Args:
    config: PretrainingConfig.
    bert_config: modeling.BertConfig.

  Returns:
    List of records.RecordSource, training's first and evaluation's last; empty
    if neither is asked for.
  """
  if not (config.do_train or config.do_eval):
    return []
  patterns = {
    "input_file": config.input_file,
    "eval_input_file": config.eval_input_file,
  }
  return [
    open_records(config, bert_config, files.find_files(flag, pattern))
    for flag, pattern in patterns.items()
    if pattern
  ]


def open_records(config, bert_config, paths):
  """Opens record files and compares them with flags and model.

  Args:
    config: PretrainingConfig.
    bert_config: modeling.BertConfig.
    paths: of the files.

  Returns:
    records.RecordSource.

  Raises:
    ValueError: they do not fit; the text says which flag or file to change.
  """
  limit = bert_config.max_position_embeddings
  if config.max_seq_length > limit:
    raise ValueError(
      f"--max_seq_length={config.max_seq_length} exceeds "
      f"max_position_embeddings {limit} of {config.bert_config_file}"
    )
  source = records.RecordSource(
    paths,
    features.pretraining_features(
      config.max_seq_length,
      config.max_predictions_per_seq,
      bert_config.vocab_size,
      bert_config.type_vocab_size,
      config.bert_config_file,
    ),
    records.load_index(os.path.join(config.output_dir, INDEX_FILE)),
    config.skip_bad_records,
  )
  for path in source.paths:
    _check_file(config, source, path)
  return source


def _check_file(config, source, path):
  """Compares a file's first records with the flags and the model.

  Raises:
    ValueError: they do not fit.
  """
  first_records = source.head(path, NUM_CHECKED_RECORDS)
  if not first_records:
    return
  lengths = parsing.feature_lengths(first_records[0])
  for feature, flag in LENGTH_FLAGS.items():
    length, expected = lengths.get(feature), getattr(config, flag)
    if length and length != expected:
      raise ValueError(
        f"{path}: record 0 (counting from 0) was made with --{flag}={length}, "
        f"not {expected}; pass --{flag}={length} or create the file again"
      )
  source.check_head(path, first_records)


def describe_bad_records(source):
  """Says how many records are left out, and what is wrong with the first.

  Returns:
    str, "" if there are none.
  """
  if not source.bad_records:
    return ""
  shown = "\n  ".join(source.problems[: records.SHOWN_BAD_RECORDS])
  number = f"{source.bad_records} of {len(source) + source.bad_records}"
  return f"{number} records are bad and left out\n  {shown}"


def tell_records(findings, config, sources):
  """Reports for a dry run whether records can be read.

  Args:
    findings: dry_run.Findings.
    config: PretrainingConfig.
    sources: list of records.RecordSource.
  """
  for source in sources:
    if config.skip_bad_records:
      findings.tell("records", f"{len(source)}, all checked")
    else:
      dry_run.check_records(findings, source)


def save_companions(config, sources, directory):
  """Saves the record index, and the vocabulary if there is one.

  Args:
    config: PretrainingConfig.
    sources: list of records.RecordSource.
    directory: output_directory.OutputDirectory.
  """
  directory.save(INDEX_FILE, lambda path: records.save_index(path, *sources))
  if config.vocab_file:
    directory.copy_vocab(config.vocab_file)


def evaluate(run, source):
  """Computes upstream's metrics and writes eval_results.txt.

  Args:
    run: run.Run of a modeling.BertPretrainer.
    source: records.RecordSource.

  Returns:
    Dict of the metrics.
  """
  config = run.config
  results = evaluation.evaluate(
    run.strategy,
    run.model,
    source,
    config.eval_batch_size,
    config.max_eval_steps,
  )
  run.report(results)
  return results


def restore_for_export(run):
  """Loads weights that may lack the heads of pretraining.

  Args:
    run: run.Run of a modeling.BertPretrainer.

  Returns:
    Whether they have the heads.

  Raises:
    ValueError: a part of the encoder is missing.
  """
  report = run.load()
  missing = [x for x in report.initialised if not x.startswith("cls/")]
  if missing:
    raise ValueError(
      f"{report.prefix} cannot be exported: it has no {missing[0]}"
    )
  if report.initialised:
    print(
      f"{report.prefix} has no {report.initialised[0]}: only its encoder is "
      "exported"
    )
  return not report.initialised
