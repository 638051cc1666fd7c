"""The files a model comes with: architecture, vocabulary, labels."""

import dataclasses
import json
import os

import tensorflow as tf

import checkpoint_io
import hugging_face
import predictor
import tokenization

# Rows that a model's table of embeddings may have beyond its vocabulary.
MAX_PADDED_VOCAB = 128


@dataclasses.dataclass(frozen=True)
class ModelFiles:
  """Where they are; `labels_file` may be a config.json, or None."""

  bert_config_file: str
  vocab_file: str
  labels_file: str | None


def find(output_dir, init_checkpoint, bert_config_file=None, vocab_file=None):
  """Finds what flags do not name beside the weights, or in an output_dir.

  Args:
    output_dir: directory of a run, which may have been trained, or None.
    init_checkpoint: what checkpoint_io.resolve accepts, or None.
    bert_config_file: path, or None to look for it.
    vocab_file: path, or None to look for it.

  Returns:
    ModelFiles.

  Raises:
    FileNotFoundError: there is no config or no vocabulary.
  """
  places = [init_checkpoint, output_dir]
  found = {
    "bert_config_file": bert_config_file
    or find_beside(["bert_config.json", "config.json"], places),
    "vocab_file": vocab_file or find_beside(["vocab.txt"], places),
  }
  for flag, path in found.items():
    if not path:
      elsewhere = f" and none in {output_dir}" if output_dir else ""
      raise FileNotFoundError(
        f"pass --{flag}: there is none beside --init_checkpoint="
        f"{init_checkpoint}{elsewhere}"
      )
  # A run's own labels go before those of the weights it began with.
  labels_file = find_labels(list(reversed(places)))
  return ModelFiles(**found, labels_file=labels_file)


def find_labels(places):
  """Path of a labels.txt, or of a config.json that names labels, or None.

  Args:
    places: see `find_beside`.
  """
  config = find_beside([hugging_face.CONFIG], places)
  is_named = config and "://" not in config and hugging_face.read_labels(config)
  return find_beside(["labels.txt"], places) or (config if is_named else None)


def find_beside(names, places):
  """Path of the first name in the first place that has one, or None.

  A place is a directory, or a file or prefix whose directory is meant.
  """
  for place in filter(None, places):
    directory = place
    if not tf.io.gfile.isdir(place):
      directory = os.path.dirname(place)
    for name in names:
      path = os.path.join(directory, name)
      if tf.io.gfile.exists(path):
        return path
  return None


def require_weights(output_dir, init_checkpoint):
  """Makes sure that there is a model to use without training.

  Raises:
    ValueError: there is none.
  """
  if not init_checkpoint and not checkpoint_io.latest(output_dir):
    raise ValueError(
      f"there is no model to use: {output_dir} holds no checkpoint; train with "
      "--do_train or name one with --init_checkpoint"
    )


def open_tokenizer(
  vocab_file,
  do_lower_case,
  bert_config,
  init_checkpoint=None,
  special_tokens_in_text="split",
):
  """A tokenizer, checked against the model.

  Args:
    vocab_file: path.
    do_lower_case: see tokenization.FullTokenizer.
    bert_config: modeling.BertConfig.
    init_checkpoint: what checkpoint_io.resolve accepts, or None.
    special_tokens_in_text: see tokenization.FullTokenizer.

  Returns:
    tokenization.FullTokenizer.

  Raises:
    ValueError: the vocabulary is not the model's, or the case is not that of a
      published checkpoint.
  """
  if init_checkpoint:
    tokenization.validate_case_matches_checkpoint(
      do_lower_case, init_checkpoint
    )
  _check_casing(do_lower_case, init_checkpoint)
  tokenizer = tokenization.FullTokenizer(
    vocab_file, do_lower_case, special_tokens_in_text
  )
  size = max(tokenizer.vocab.values()) + 1
  # Some releases round the table of embeddings up, for matrix units.
  if not 0 <= bert_config.vocab_size - size < MAX_PADDED_VOCAB:
    raise ValueError(
      f"{vocab_file} has {size} tokens, but the model's vocab_size is "
      f"{bert_config.vocab_size}; they do not belong together"
    )
  return tokenizer


def _check_casing(do_lower_case, init_checkpoint):
  """Refuses another casing than Hugging Face's tokenizer of the weights has."""
  path = find_beside(["tokenizer_config.json"], [init_checkpoint])
  if not path:
    return
  with tf.io.gfile.GFile(path) as reader:
    try:
      expected = json.load(reader).get("do_lower_case", do_lower_case)
    except (ValueError, AttributeError):
      return  # Nothing else is taken from this file.
  if bool(expected) != bool(do_lower_case):
    raise ValueError(
      f"{path} says do_lower_case {bool(expected)}; pass "
      f"--do_lower_case={bool(expected)}, or change that file"
    )


def check_length(max_seq_length, bert_config):
  """Makes sure that the model has a position for every token.

  Raises:
    ValueError: it has not.
  """
  limit = bert_config.max_position_embeddings
  if max_seq_length > limit:
    raise ValueError(
      f"--max_seq_length={max_seq_length} exceeds the model's "
      f"max_position_embeddings; use {limit} or less"
    )


def check_export_dir(export_dir):
  """Makes sure that an export may be written.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  description = os.path.join(export_dir, predictor.DESCRIPTION_FILE)
  if not tf.io.gfile.exists(export_dir) or tf.io.gfile.exists(description):
    return
  if tf.io.gfile.isdir(export_dir) and not tf.io.gfile.listdir(export_dir):
    return
  raise ValueError(
    f"--export_dir={export_dir} holds something else than an export; name "
    "another directory"
  )
