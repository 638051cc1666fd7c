"""Opens and checks the files beside weights: config, vocabulary, labels."""

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
# transformers 5 writes only the second.
VOCAB_NAMES = (file_names.VOCAB, "tokenizer.json")
# Also read beside weights: they tell the newest checkpoint and the casing.
_READ_BESIDE = (
  file_names.CHECKPOINT_STATE,
  file_names.TOKENIZER_CONFIG,
  file_names.RUN_MANIFEST,
)


@dataclasses.dataclass(frozen=True)
class ModelFiles:
  """Holds the paths of a model's files; the labels' may be a config.json."""

  bert_config_file: str
  vocab_file: str | None
  labels_file: str | None


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Holds a model's files, opened and checked against each other.

  Attributes:
    files: ModelFiles.
    bert_config: modeling.BertConfig.
    tokenizer: tokenization.FullTokenizer, None without a vocabulary.
  """

  files: ModelFiles
  bert_config: modeling.BertConfig
  tokenizer: tokenization.FullTokenizer | None

  @property
  def paths(self):
    """Lists the files that training depends on: config and vocabulary."""
    return [self.files.bert_config_file, self.files.vocab_file]


def open_pretrained(config, output_dir=None):
  """Finds, reads and checks the files of a model.

  Args:
    config: configs.WeightsConfig.
    output_dir: directory that may hold a trained model, or None.

  Returns:
    Pretrained.

  Raises:
    ValueError, OSError: a file is missing, or the files do not fit each other.
  """
  if not config.do_train:
    require_weights(output_dir, config.init_checkpoint)
  model_files = find(
    output_dir,
    config.init_checkpoint,
    config.bert_config_file,
    config.vocab_file,
  )
  bert_config = modeling.BertConfig.from_json_file(model_files.bert_config_file)
  tokenizer = open_tokenizer(
    model_files.vocab_file,
    config.do_lower_case,
    bert_config,
    config.init_checkpoint,
    config.special_tokens_in_text,
  )
  if config.max_seq_length:
    check_length(config.max_seq_length, bert_config)
  return Pretrained(model_files, bert_config, tokenizer)


def open_architecture(bert_config_file):
  """Opens the config of a model that has no vocabulary.

  Raises:
    ValueError, OSError: the file is missing or damaged.
  """
  model_files = ModelFiles(bert_config_file, None, None)
  bert_config = modeling.BertConfig.from_json_file(bert_config_file)
  return Pretrained(model_files, bert_config, tokenizer=None)


def find(output_dir, init_checkpoint, bert_config_file=None, vocab_file=None):
  """Finds the files that no flag names, beside weights or in an output_dir.

  Args:
    output_dir: directory of a run, trained or not, or None.
    init_checkpoint: anything checkpoints.resolve accepts, or None.
    bert_config_file: path, or None to look for it.
    vocab_file: path, or None to look for it.

  Returns:
    ModelFiles.

  Raises:
    FileNotFoundError: there is no config or no vocabulary.
  """
  paths = [init_checkpoint, output_dir]
  required = {
    "bert_config_file": bert_config_file or find_config(paths),
    "vocab_file": vocab_file or find_beside(VOCAB_NAMES, paths),
  }
  for flag, path in required.items():
    if not path:
      elsewhere = f" and none in {output_dir}" if output_dir else ""
      raise FileNotFoundError(
        f"pass --{flag}: there is none beside --init_checkpoint="
        f"{init_checkpoint}{elsewhere}"
      )
  # A run's own labels replace those of the weights it began with.
  labels_file = find_labels(list(reversed(paths)))
  return ModelFiles(**required, labels_file=labels_file)


def list_files(init_checkpoint, bert_config_file=None, vocab_file=None):
  """Lists the files that a model is read from; no output may overwrite them.

  Args:
    init_checkpoint: anything checkpoints.resolve accepts.
    bert_config_file: path, found beside the weights if None.
    vocab_file: path, found beside the weights if None.

  Returns:
    List of paths, some of which may not exist.

  Raises:
    ValueError, OSError: there is no checkpoint, no config or no vocabulary.
  """
  weights = checkpoints.resolve(init_checkpoint)
  model_files = find(None, init_checkpoint, bert_config_file, vocab_file)
  folder, name = os.path.split(weights)
  patterns = [f"{name}.data-*"]
  if name.endswith(".index.json"):  # of a model in several files
    patterns.append("*.safetensors")
  parts = [checkpoints.list_files(folder, x) for x in patterns]
  return [
    *filter(None, dataclasses.astuple(model_files)),
    *(weights + suffix for suffix in ("", ".index", ".json")),
    *(os.path.join(folder, x) for x in _READ_BESIDE),
    *sum(parts, []),
  ]


def find_config(paths):
  """Returns the path of the first config beside weights, or None.

  Where two formats have a config, takes that of the weights' format: "gelu"
  means a different function in each.

  Args:
    paths: see `find_beside`.
  """
  for path in filter(None, paths):
    names = [file_names.CONFIG, hugging_face.CONFIG]
    if _is_hugging_face(path):
      names.reverse()
    config_file = find_beside(names, [path])
    if config_file:
      return config_file
  return None


def _is_hugging_face(path):
  """Returns whether the weights in or at a path are Hugging Face's."""
  try:
    return checkpoints.resolve(path).endswith(hugging_face.SUFFIXES)
  except (ValueError, OSError):
    return False


def read_casing(weights):
  """Returns the do_lower_case that weights were made for, None if unknown.

  It is in the tokenizer_config.json beside them, or in their run's manifest.

  Args:
    weights: one of the paths of `find_beside`.

  Raises:
    ValueError: the tokenizer differs from BERT's, or a file is damaged.
  """
  tokenizer = read_json_beside(weights, file_names.TOKENIZER_CONFIG)
  manifest = read_json_beside(weights, file_names.RUN_MANIFEST)
  settings = manifest.get("settings", {})
  casing = tokenizer.get("do_lower_case", settings.get("do_lower_case"))
  # Without a do_lower_case, transformers lower-cases.
  is_changed = tokenizer.get("strip_accents") not in (None, casing is not False)
  if is_changed or tokenizer.get("tokenize_chinese_chars") is False:
    path = find_beside([file_names.TOKENIZER_CONFIG], [weights])
    raise ValueError(
      f"{path} is of another tokenizer than BERT's, which strips accents when "
      "it lower-cases and makes each Chinese character a word; remove "
      "strip_accents and tokenize_chinese_chars from it to use BERT's anyway"
    )
  return casing


def read_json_beside(weights, name):
  """Reads the object in a JSON file beside weights, {} without the file.

  Args:
    weights: one of the paths of `find_beside`.
    name: of the file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is damaged.
  """
  path = find_beside([name], [weights])
  if not path:
    return {}
  content = files.read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds no JSON object, as it should")
  return content


def find_labels(paths):
  """Returns the path of a labels.txt, or of a config.json with labels, or None.

  Args:
    paths: see `find_beside`.
  """
  config = find_beside([hugging_face.CONFIG], paths)
  own_labels = find_beside([file_names.LABELS], paths)
  if own_labels or not config or files.is_remote(config):
    return own_labels
  return config if hugging_face.read_labels(config) else None


def find_beside(names, paths):
  """Returns the path of the first file found, or None.

  Args:
    names: of files, tried in this order in each directory.
    paths: directories, or files or prefixes in them; None is skipped.
  """
  for path in filter(None, paths):
    directory = path
    if not tf.io.gfile.isdir(path):
      directory = os.path.dirname(path)
    for name in names:
      file = os.path.join(directory, name)
      if tf.io.gfile.exists(file):
        return file
  return None


def require_weights(output_dir, init_checkpoint):
  """Checks that there is a model to use without training.

  Raises:
    ValueError: there is no checkpoint.
  """
  if not init_checkpoint and not checkpoints.has_weights(output_dir):
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
  """Opens a tokenizer and checks it against the model.

  Args:
    vocab_file: path.
    do_lower_case: see tokenization.FullTokenizer.
    bert_config: modeling.BertConfig.
    init_checkpoint: anything checkpoints.resolve accepts, or None.
    special_tokens_in_text: see tokenization.FullTokenizer.

  Returns:
    tokenization.FullTokenizer.

  Raises:
    ValueError: the vocabulary is not the model's, or the weights were made for
      the other casing.
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
  """Checks that a vocabulary of `size` tokens can be the model's.

  Raises:
    ValueError: its size is not the model's vocab_size.
  """
  # Some releases round the number of embeddings up, for matrix units.
  if not 0 <= bert_config.vocab_size - size < MAX_PADDED_VOCAB:
    raise ValueError(
      f"{vocab_file} has {size} tokens, but the model's vocab_size is "
      f"{bert_config.vocab_size}; they do not belong together"
    )


def _check_casing(do_lower_case, init_checkpoint):
  """Refuses a casing that the weights were not made for."""
  expected = read_casing(init_checkpoint)
  if expected is not None and bool(expected) != bool(do_lower_case):
    raise ValueError(
      f"the files beside {init_checkpoint} say do_lower_case {bool(expected)};"
      f" pass --do_lower_case={bool(expected)}"
    )


def check_length(max_seq_length, bert_config):
  """Checks that the model has a position for every token.

  Raises:
    ValueError: it has fewer.
  """
  limit = bert_config.max_position_embeddings
  if max_seq_length > limit:
    raise ValueError(
      f"--max_seq_length={max_seq_length} exceeds the model's "
      f"max_position_embeddings; use {limit} or less"
    )
