"""The records to pretrain on: opened, and compared with flags and model."""

from bert_keras3.data import files

# Records of each file looked at before a run. A vocabulary that does not fit
# shows at once.
NUM_CHECKED_RECORDS = 64


# Which flag made a feature as long as it is.
LENGTH_FLAGS = {
  "input_ids": "max_seq_length",
  "masked_lm_positions": "max_predictions_per_seq",
}


def open_sources(config, bert_config):
  """Opens the record files of training and, if they are others, of evaluation.

  Returns:
    List of features.RecordSource, training's first and evaluation's last;
    empty if neither is asked for.
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

  Returns:
    features.RecordSource.

  Raises:
    ValueError: they do not fit; the text says which flag or file to change.
  """
  from bert_keras3.data import features
  from bert_keras3.data import records as records_module

  limit = bert_config.max_position_embeddings
  if config.max_seq_length > limit:
    raise ValueError(
      f"--max_seq_length={config.max_seq_length} exceeds "
      f"max_position_embeddings {limit} of {config.bert_config_file}"
    )
  source = records_module.RecordSource(
    paths,
    features.pretraining_features(
      config.max_seq_length,
      config.max_predictions_per_seq,
      bert_config.vocab_size,
      bert_config.type_vocab_size,
      config.bert_config_file,
    ),
    records_module.load_index(config.index_path),
    config.skip_bad_records,
  )
  for path in source.paths:
    check_file(config, source, path)
  return source


def tell_records(config, findings, sources):
  """Tells what is wrong with sources, as far as it is worth looking."""
  from bert_keras3.training import dry_run as run_forecast

  for source in sources:
    if findings.is_shown:
      tell_bad_records(source)
    if config.dry_run and config.skip_bad_records:
      findings.tell("records", f"{len(source)}, all checked")
    elif config.dry_run:
      run_forecast.check_records(findings, source)


def tell_bad_records(source):
  """Prints how many records are left out, and what is wrong with the first."""
  from bert_keras3.data import records as records_module

  if source.bad_records:
    shown = "\n  ".join(source.problems[: records_module.SHOWN_BAD_RECORDS])
    number = f"{source.bad_records} of {len(source) + source.bad_records}"
    print(f"{number} records are bad and left out\n  {shown}")


def check_file(config, source, path):
  """Compares a file's first records with the flags and the model.

  Raises:
    ValueError: they do not fit.
  """
  from bert_keras3.data import features

  records = source.head(path, NUM_CHECKED_RECORDS)
  if not records:
    return
  lengths = features.feature_lengths(records[0])
  for feature, flag in LENGTH_FLAGS.items():
    found, expected = lengths.get(feature), getattr(config, flag)
    if found and found != expected:
      raise ValueError(
        f"{path}: record 0 (counting from 0) was made with --{flag}={found}, "
        f"not {expected}; pass --{flag}={found} or create the file again"
      )
  source.check_head(path, records)
