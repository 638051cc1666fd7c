"""The files a model comes with: architecture, vocabulary, labels."""

import dataclasses
import os

import tensorflow as tf

import modeling
import tokenization
from bert_keras3.data import files
from bert_keras3.weights import checkpoints
from bert_keras3.weights import file_names
from bert_keras3.weights import hugging_face

# Rows that a model's table of embeddings may have beyond its vocabulary.
MAX_PADDED_VOCAB = 128
# transformers 5 writes the second only.
VOCAB_NAMES = (file_names.VOCAB, "tokenizer.json")
# Beside weights, and read as well: which are newest, how texts were cased.
_READ_BESIDE = (
  file_names.CHECKPOINT_STATE,
  file_names.TOKENIZER_CONFIG,
  file_names.RUN_MANIFEST,
)


@dataclasses.dataclass(frozen=True)
class ModelFiles:
  """Where they are; `labels_file` may be a config.json, or None."""

  bert_config_file: str
  vocab_file: str
  labels_file: str | None


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model's files, opened and checked against each other.

  Attributes:
    files: ModelFiles.
    bert_config: modeling.BertConfig.
    tokenizer: tokenization.FullTokenizer, None of a model without vocabulary.
  """

  files: ModelFiles
  bert_config: modeling.BertConfig
  tokenizer: tokenization.FullTokenizer | None

  @property
  def paths(self):
    """List of the files that decide what training makes of a text."""
    return [self.files.bert_config_file, self.files.vocab_file]


def open_pretrained(config, output_dir=None):
  """Finds, reads and checks the files of a model.

  Args:
    config: configs.WeightsConfig.
    output_dir: where a trained model may lie as well, or None.

  Returns:
    Pretrained.

  Raises:
    ValueError, OSError: a file is missing, or they do not fit each other.
  """
  if not config.do_train:
    require_weights(output_dir, config.init_checkpoint)
  found = find(
    output_dir,
    config.init_checkpoint,
    config.bert_config_file,
    config.vocab_file,
  )
  bert_config = modeling.BertConfig.from_json_file(found.bert_config_file)
  tokenizer = open_tokenizer(
    found.vocab_file,
    config.do_lower_case,
    bert_config,
    config.init_checkpoint,
    config.special_tokens_in_text,
  )
  if config.max_seq_length:
    check_length(config.max_seq_length, bert_config)
  return Pretrained(found, bert_config, tokenizer)


def open_architecture(bert_config_file):
  """Opens a model that has no vocabulary: its config alone.

  Raises:
    ValueError, OSError: the file is missing or damaged.
  """
  files = ModelFiles(bert_config_file, None, None)
  bert_config = modeling.BertConfig.from_json_file(bert_config_file)
  return Pretrained(files, bert_config, tokenizer=None)


def find(output_dir, init_checkpoint, bert_config_file=None, vocab_file=None):
  """Finds what flags do not name beside the weights, or in an output_dir.

  Args:
    output_dir: directory of a run, which may have been trained, or None.
    init_checkpoint: what checkpoints.resolve accepts, or None.
    bert_config_file: path, or None to look for it.
    vocab_file: path, or None to look for it.

  Returns:
    ModelFiles.

  Raises:
    FileNotFoundError: there is no config or no vocabulary.
  """
  places = [init_checkpoint, output_dir]
  found = {
    "bert_config_file": bert_config_file or find_config(places),
    "vocab_file": vocab_file or find_beside(VOCAB_NAMES, places),
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


def list_files(init_checkpoint, bert_config_file=None, vocab_file=None):
  """The files that a model is read from, which no result may overwrite.

  Args:
    init_checkpoint: what checkpoints.resolve accepts.
    bert_config_file: path, found beside the weights if None.
    vocab_file: path, found beside the weights if None.

  Returns:
    List of paths; not all of them need be there.

  Raises:
    ValueError, OSError: there is no checkpoint, no config or no vocabulary.
  """
  weights = checkpoints.resolve(init_checkpoint)
  found = find(None, init_checkpoint, bert_config_file, vocab_file)
  folder, name = os.path.split(weights)
  patterns = [f"{name}.data-*"]
  if name.endswith(".index.json"):  # of a model in several files
    patterns.append("*.safetensors")
  parts = [checkpoints.list_files(folder, x) for x in patterns]
  return [
    *filter(None, dataclasses.astuple(found)),
    *(weights + suffix for suffix in ("", ".index", ".json")),
    *(os.path.join(folder, x) for x in _READ_BESIDE),
    *sum(parts, []),
  ]


def find_config(places):
  """Path of the config of the first place that has one, or None.

  Of two, that of the weights' own format: "gelu" means something else in each.

  Args:
    places: see `find_beside`.
  """
  for place in filter(None, places):
    names = [file_names.CONFIG, hugging_face.CONFIG]
    found = find_beside(names[::-1] if _is_theirs(place) else names, [place])
    if found:
      return found
  return None


def _is_theirs(place):
  """Whether the weights in or at a place are Hugging Face's."""
  try:
    return checkpoints.resolve(place).endswith(hugging_face.SUFFIXES)
  except (ValueError, OSError):
    return False


def read_casing(place):
  """The do_lower_case that weights were made for, None if nothing tells.

  Told by the tokenizer_config.json beside them, or their run's manifest.

  Args:
    place: see `find_beside`.

  Raises:
    ValueError: the tokenizer differs from BERT's, or a file is damaged.
  """
  tokenizer = read_json_beside(place, file_names.TOKENIZER_CONFIG)
  manifest = read_json_beside(place, file_names.RUN_MANIFEST)
  settings = manifest.get("settings", {})
  casing = tokenizer.get("do_lower_case", settings.get("do_lower_case"))
  # transformers lower-cases where nothing is said.
  is_own = tokenizer.get("strip_accents") not in (None, casing is not False)
  if is_own or tokenizer.get("tokenize_chinese_chars") is False:
    path = find_beside([file_names.TOKENIZER_CONFIG], [place])
    raise ValueError(
      f"{path} is of another tokenizer than BERT's, whose lower-casing strips "
      "accents and to which Chinese characters are words; remove strip_accents "
      "and tokenize_chinese_chars from it to take BERT's all the same"
    )
  return casing


def read_json_beside(place, name):
  """The dict of a JSON file beside weights, {} without one.

  Args:
    place: see `find_beside`.
    name: of the file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is damaged.
  """
  path = find_beside([name], [place])
  if not path:
    return {}
  content = files.read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds no JSON object, as it should")
  return content


def find_labels(places):
  """Path of a labels.txt, or of a config.json that names labels, or None.

  Args:
    places: see `find_beside`.
  """
  config = find_beside([hugging_face.CONFIG], places)
  own_labels = find_beside([file_names.LABELS], places)
  if own_labels or not config or files.is_remote(config):
    return own_labels
  return config if hugging_face.read_labels(config) else None


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
  if not init_checkpoint and not checkpoints.latest(output_dir):
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
    init_checkpoint: what checkpoints.resolve accepts, or None.
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
  check_vocab_size(vocab_file, size, bert_config)
  return tokenizer


def check_vocab_size(vocab_file, size, bert_config):
  """Makes sure that a vocabulary of `size` tokens is the model's.

  Raises:
    ValueError: it is not.
  """
  # Some releases round the table of embeddings up, for matrix units.
  if not 0 <= bert_config.vocab_size - size < MAX_PADDED_VOCAB:
    raise ValueError(
      f"{vocab_file} has {size} tokens, but the model's vocab_size is "
      f"{bert_config.vocab_size}; they do not belong together"
    )


def _check_casing(do_lower_case, init_checkpoint):
  """Refuses another casing than the one the weights were made for."""
  expected = read_casing(init_checkpoint)
  if expected is not None and bool(expected) != bool(do_lower_case):
    raise ValueError(
      f"what lies beside {init_checkpoint} says do_lower_case {bool(expected)};"
      f" pass --do_lower_case={bool(expected)}"
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
