"""Converts a pretrained model from any format into any other.

    model, rows = conversion.read("uncased_L-12_H-768_A-12")
    architecture = hugging_face.find_architecture(model.tensors)
    model, left_out = conversion.select(model, architecture)
    rows += left_out + conversion.describe(model, architecture)
    print(conversion.format_table(rows))
    conversion.write_hugging_face("out", model, architecture)

In between, a `Model` holds the arrays under upstream's names.
"""

import collections
import contextlib
import dataclasses
import json
import os
import re
import shutil

import keras
import numpy as np
import tensorflow as tf

import modeling
import tokenization
from bert_keras3.data import files
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions
from bert_keras3.weights import file_names
from bert_keras3.weights import growth
from bert_keras3.weights import hugging_face
from bert_keras3.weights import labels

ACTIONS = ("matched", "transposed", "initialised", "ignored")
# transformers' names of the problem types of classifiers.
_PROBLEM_TYPES = {
  "single_label": "single_label_classification",
  "multi_label": "multi_label_classification",
  "regression": "regression",
}
# The inverse of modeling.HUGGING_FACE_ACTIVATIONS, one name for each.
_TRANSFORMERS_ACTIVATIONS = {
  "gelu": "gelu_new",
  "gelu_exact": "gelu",
  "": "linear",
  None: "linear",
}


@dataclasses.dataclass(frozen=True)
class Model:
  """Holds a model as arrays, independent of any file format.

  Attributes:
    config: modeling.BertConfig.
    tensors: dict from upstream's name to float32 array: a whole encoder, with
      or without pooler, and any heads.
    vocab_file: path of the vocabulary, or None.
    vocab: list of str, the lines of vocab.txt, or None.
    do_lower_case: whether the vocabulary is of lower-cased text; None without
      a vocabulary.
    labels: list of str, one for each logit of the classifier, or None.
    problem_type: of the classifier, as in modeling.BertClassifier, or None.
    sources: dict from upstream's name to the tensor's name in the file read.
    is_torch: whether linear layers are [out, in] in that file.
  """

  config: modeling.BertConfig
  tensors: dict[str, np.ndarray]
  vocab_file: str | None = None
  vocab: list[str] | None = None
  do_lower_case: bool | None = None
  labels: list[str] | None = None
  problem_type: str | None = None
  sources: dict[str, str] = dataclasses.field(default_factory=dict)
  is_torch: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
  """Says what conversion does with one tensor.

  Attributes:
    action: one of ACTIONS.
    source: the tensor's name in the file read, "" if it is new.
    target: its name in the file written, "" if it is left out.
    reason: a few words that say why.
  """

  action: str
  source: str
  target: str
  reason: str


# Reading ----------------------------------------------------------------------


def read(path, bert_config_file=None, vocab_file=None, architecture=None):
  """Reads a model's weights and the files beside them.

  Args:
    path: anything checkpoints.resolve accepts.
    bert_config_file: path, or None to look for it beside the weights.
    vocab_file: path, or None to look for it beside the weights.
    architecture: key of hugging_face.ARCHITECTURES, for Hugging Face's weights
      whose config names none; or None.

  Returns:
    (Model, Rows of the tensors left out).

  Raises:
    FileNotFoundError: there are no weights, or no config.
    ValueError: weights, config and vocabulary do not belong together.
  """
  reader = checkpoints.open_reader(path, bert_config_file, architecture)
  config = _read_config(reader, bert_config_file)
  names, ignored = _select(reader, config)
  model = Model(
    config=config,
    tensors={name: reader.get_tensor(name) for name in names},
    sources={name: reader.source_name(name) for name in names},
    is_torch=isinstance(reader, hugging_face.Reader),
    **_read_companions(reader, vocab_file),
  )
  if model.vocab is not None:
    size = len(model.vocab)
    companions.check_vocab_size(model.vocab_file, size, config)
  return _with_labels(model, reader.path), ignored


def _read_config(reader, bert_config_file):
  if reader.bert_config and not bert_config_file:
    return reader.bert_config
  config_file = bert_config_file or companions.find_config([reader.path])
  if not config_file:
    raise FileNotFoundError(
      f"pass --bert_config_file: there is none beside {reader.path}"
    )
  return modeling.BertConfig.from_json_file(config_file)


def _select(reader, config):
  """Returns the names of the model's tensors, and Rows of the others.

  Raises:
    ValueError: a tensor is missing or has another shape than the config says.
  """
  expected = _expected_shapes(config)
  ignored = [Row("ignored", x, "", why) for x, why in reader.ignored.items()]
  names = []
  for name, shape in sorted(reader.shapes.items()):
    if name not in expected:
      _check_no_part(reader, name)
      reason = checkpoints.why_ignored(name)
      ignored.append(Row("ignored", reader.source_name(name), "", reason))
      continue
    wanted = expected[name]
    pairs = zip(shape, wanted, strict=False)
    if len(shape) != len(wanted) or any(y not in (None, x) for x, y in pairs):
      raise ValueError(
        f"{reader.path}: {reader.source_name(name)} has shape {shape}, the "
        f"config says {wanted}; they do not belong together"
      )
    names.append(name)
  _check_complete(reader.path, names, expected)
  return names, ignored


def _check_no_part(reader, name):
  """Refuses to leave out trained layers that the config does not have."""
  is_slot = name.endswith(checkpoints.SLOT_SUFFIXES)
  if name.startswith("bert/") and not is_slot:
    raise ValueError(
      f"{reader.path} has {reader.source_name(name)}, for which there is "
      "nothing in the config; they do not belong together"
    )


def _expected_shapes(config):
  """Returns the shapes of all possible tensors, None for a number of labels."""
  config.validate()
  variables = modeling.named_variables(modeling.BertPretrainer(config))
  shapes = {name: list(variable.shape) for name, variable in variables.items()}
  rows = {"": None, "cls/squad/": 2, "cls/token/": None, "cls/choice/": 1}
  for scope, number in rows.items():
    shapes[f"{scope}output_weights"] = [number, config.hidden_size]
    shapes[f"{scope}output_bias"] = [number]
  return shapes


def _check_complete(path, names, expected):
  """Refuses half an encoder or half a head; a pooler may be missing."""
  parts = {_part(name) for name in names} | {"encoder"}
  for name in expected:
    if name not in names and _part(name) in parts:
      raise ValueError(
        f"{path} lacks {name}; it holds another network, or a part of one"
      )


def _part(name):
  """Returns the part of a model that a variable belongs to."""
  if name.startswith("bert/pooler/"):
    return "pooler"
  return hugging_face.head_of(name) or "encoder"


def _read_companions(reader, vocab_file):
  """Reads vocabulary, casing and labels from the files beside the weights."""
  path = reader.path
  vocab_file = vocab_file or companions.find_beside(
    companions.VOCAB_NAMES, [path]
  )
  vocab = tokenization.read_vocab(vocab_file) if vocab_file else None
  casing = companions.read_casing(path)
  labels_file = companions.find_labels([path])
  return {
    "vocab_file": vocab_file,
    "vocab": vocab,
    "do_lower_case": guess_case(vocab) if casing is None else casing,
    "labels": labels_file and labels.read_labels(labels_file),
    "problem_type": reader.problem_type or _read_problem_type(path),
  }


def _read_problem_type(path):
  """Returns modeling.BertClassifier's name of it, None if unknown."""
  config = companions.read_json_beside(path, hugging_face.CONFIG)
  for problem_type, transformers_name in _PROBLEM_TYPES.items():
    if config.get("problem_type") == transformers_name:
      return problem_type
  run = companions.read_json_beside(path, file_names.RUN_MANIFEST)
  return run.get("settings", {}).get("problem_type")


def _with_labels(model, path):
  """Returns the model with labels that fit its classifier, or with none.

  Raises:
    ValueError: there is not one label per logit, or a label is empty, repeated
      or longer than a line.
  """
  number = count_labels(model)
  if not model.labels or number is None:
    return dataclasses.replace(model, labels=None)
  names = model.labels
  are_lines = all(name and "\n" not in name for name in names)
  if len(names) != number or len(set(names)) != number or not are_lines:
    raise ValueError(
      f"beside {path} there are {len(names)} labels for {number} logits; they "
      "should be as many, all different, on one line each: mend labels.txt, or "
      "the id2label of config.json"
    )
  return model


def count_labels(model):
  """Counts the labels of a model's classifier, None without a classifier."""
  for name in ("output_bias", "cls/token/output_bias"):
    if name in model.tensors:
      return len(model.tensors[name])
  return None


def guess_case(vocab):
  """Returns whether a vocabulary is lower-cased: no token has a capital.

  Args:
    vocab: list of str, or None.
  """
  if vocab is None:
    return None
  special = set(tokenization.find_special_tokens(vocab))
  return not any(x != x.lower() for x in vocab if x not in special)


# Choosing and growing ---------------------------------------------------------


def select(model, architecture):
  """Keeps the tensors of a class of transformers, and draws a missing pooler.

  Args:
    model: Model.
    architecture: key of hugging_face.ARCHITECTURES.

  Returns:
    (Model, Rows of the tensors left out).

  Raises:
    ValueError: the model does not have the class's head.
  """
  for head in hugging_face.ARCHITECTURES[architecture].heads:
    if head not in map(hugging_face.head_of, model.tensors):
      raise ValueError(
        f"{architecture} has the head {head}, which these weights do not have; "
        "fine-tune first, or choose another --architecture"
      )
  kept, rows = {}, []
  for name, tensor in model.tensors.items():
    if hugging_face.belongs_to(name, architecture):
      kept[name] = tensor
    else:
      reason = f"{architecture} has no such part"
      rows.append(Row("ignored", model.sources[name], "", reason))
  has_pooler = hugging_face.ARCHITECTURES[architecture].has_pooler
  if has_pooler and not any(name.startswith("bert/pooler/") for name in kept):
    kept.update(_draw_pooler(model.config))
  return dataclasses.replace(model, tensors=kept), rows


def _draw_pooler(config):
  width = config.hidden_size
  # Seeded: the same source gives the same file.
  draw = keras.initializers.TruncatedNormal(
    stddev=config.initializer_range, seed=0
  )
  return {
    "bert/pooler/dense/kernel": draw([width, width]).numpy(),
    "bert/pooler/dense/bias": np.zeros([width], np.float32),
  }


def grow(model, new_tokens, max_position_embeddings):
  """Adds tokens and positions.

  Args:
    model: Model.
    new_tokens: list of str.
    max_position_embeddings: positions of the new model, None to add none.

  Returns:
    (Model, sentences about the additions).

  Raises:
    ValueError: there is no vocabulary to extend, a token can occur in no text,
      or the model has more positions already.
  """
  sentences = []
  if new_tokens:
    model, added = extend_vocab(model, new_tokens)
    at_end = len(added.ids) - added.num_filled
    sentences.append(
      f"{len(added.ids)} tokens added: {added.num_filled} in place of "
      f"[unusedN], {at_end} at the end; {len(added.known)} were known already"
    )
  if max_position_embeddings:
    before = model.config.max_position_embeddings
    is_more = max_position_embeddings > before
    model = extend_positions(model, max_position_embeddings)
    repeated = "the trained ones repeated; train on before use"
    sentences.append(
      f"positions: {before}, now {max_position_embeddings}"
      + (f", {repeated}" if is_more else "")
    )
  return model, sentences


def extend_vocab(model, new_tokens):
  """Adds an embedding for each new token, see `growth`.

  Args:
    model: Model.
    new_tokens: list of str.

  Returns:
    (Model, growth.VocabGrowth).

  Raises:
    ValueError: a token can occur in no text, or there is no vocabulary.
  """
  if not model.vocab_file:
    raise ValueError(
      "--extend_vocab needs the vocabulary of the model; pass --vocab_file"
    )
  tokenizer = tokenization.FullTokenizer(model.vocab_file, model.do_lower_case)
  plan = growth.plan_vocab(tokenizer, model.vocab, new_tokens)
  tensors = growth.grow_vocab(model.tensors, plan)
  size = len(tensors[growth.WORD_EMBEDDINGS])
  grown = dataclasses.replace(
    model,
    config=_with(model.config, vocab_size=size),
    tensors=tensors,
    vocab=plan.lines,
  )
  return grown, plan


def extend_positions(model, max_position_embeddings):
  """Repeats position embeddings up to a number, see `growth`.

  Raises:
    ValueError: the model has more already.
  """
  return dataclasses.replace(
    model,
    config=_with(model.config, max_position_embeddings=max_position_embeddings),
    tensors=growth.grow_positions(model.tensors, max_position_embeddings),
  )


def _with(config, **changes):
  return modeling.BertConfig.from_dict({**config.to_dict(), **changes})


# Writing ----------------------------------------------------------------------


def write_tf1(output_dir, model):
  """Writes an upstream checkpoint with config, vocabulary and labels.

  Args:
    output_dir: new directory, local or remote.
    model: Model.

  Raises:
    ValueError: the directory is not empty.
  """
  with _new_directory(output_dir) as directory:
    prefix = os.path.join(directory, file_names.WEIGHTS)
    checkpoints.save(prefix, model.tensors)
    _write(directory, file_names.CONFIG, model.config.to_json_string())
    _write_vocab(directory, model)
    if model.labels and count_labels(model):
      text = labels.format_labels(model.labels)
      _write(directory, file_names.LABELS, text)


def write_hugging_face(output_dir, model, architecture):
  """Writes a directory that transformers' `from_pretrained` reads.

  Args:
    output_dir: new local directory.
    model: Model that `select` returned for this class.
    architecture: key of hugging_face.ARCHITECTURES.

  Raises:
    ValueError: the directory is not empty, or not local.
  """
  check_local(output_dir)
  config = hugging_face_config(model, architecture)
  with _new_directory(output_dir) as directory:
    path = os.path.join(directory, hugging_face.WEIGHTS)
    hugging_face.write_weights(path, model.tensors, architecture)
    _write(directory, hugging_face.CONFIG, _to_json(config))
    # safetensors creates files that only their owner may read.
    shutil.copymode(os.path.join(directory, hugging_face.CONFIG), path)
    _write_vocab(directory, model)


def check_local(output_dir):
  """Raises ValueError for a remote directory, where safetensors cannot go."""
  if files.is_remote(output_dir):
    raise ValueError(
      f"--output_dir={output_dir} is not local, as safetensors must be; write "
      "it to a local disk and copy it"
    )


def hugging_face_config(model, architecture):
  """Makes the dict of a model's config.json.

  Args:
    model: Model.
    architecture: key of hugging_face.ARCHITECTURES.
  """
  config = model.config.to_dict()
  for name in ("dtype", "torch_dtype"):  # Tensors are written as float32.
    config.pop(name, None)
  activation = config["hidden_act"]
  return {
    **config,
    **modeling.FIXED_BY_BERT,
    "architectures": [architecture],
    "hidden_act": _TRANSFORMERS_ACTIVATIONS.get(activation, activation),
    **_label_config(model, architecture),
    **_padding_config(model),
  }


def _padding_config(model):
  if model.vocab is None or "[PAD]" not in model.vocab:
    return {}
  return {"pad_token_id": model.vocab.index("[PAD]")}


def _label_config(model, architecture):
  number = count_labels(model)
  if number is None:
    return {}
  names = model.labels or [f"LABEL_{i}" for i in range(number)]
  config = {
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }
  if architecture == "BertForSequenceClassification" and model.problem_type:
    config["problem_type"] = _PROBLEM_TYPES[model.problem_type]
  return config


def _tokenizer_config(model):
  return {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": model.do_lower_case,
    "model_max_length": model.config.max_position_embeddings,
  }


@contextlib.contextmanager
def _new_directory(output_dir):
  """Yields a temporary directory; its files move to output_dir at the end.

  It lies inside output_dir: beside that may be another disk, or no permission.
  """
  check_new(output_dir)
  is_new = not tf.io.gfile.exists(output_dir)
  temporary = files.temporary_name(os.path.join(output_dir, ""))
  try:
    tf.io.gfile.makedirs(temporary)
    yield temporary
    _move_files(temporary, output_dir)
  except BaseException as error:
    made = output_dir if is_new else temporary
    if tf.io.gfile.exists(made):
      tf.io.gfile.rmtree(made)
    if not isinstance(error, tf.errors.OpError):
      raise
    raise OSError(f"{output_dir} cannot be written: {error.message}") from error


def _move_files(source, target):
  # These two come last, since weights are found by them.
  last = (f"{file_names.WEIGHTS}.index", hugging_face.WEIGHTS)
  for name in sorted(tf.io.gfile.listdir(source), key=lambda x: x in last):
    tf.io.gfile.rename(os.path.join(source, name), os.path.join(target, name))
  tf.io.gfile.rmtree(source)


def check_new(output_dir):
  """Checks that nothing would be overwritten.

  Raises:
    NotADirectoryError: output_dir is a file.
    ValueError: the directory is not empty.
  """
  gfile = tf.io.gfile
  if gfile.exists(output_dir) and not gfile.isdir(output_dir):
    raise NotADirectoryError(
      f"--output_dir={output_dir} is a file; name a directory"
    )
  if gfile.exists(output_dir) and gfile.listdir(output_dir):
    raise ValueError(
      f"--output_dir={output_dir} is not empty; name a new directory"
    )


def _write_vocab(directory, model):
  if model.vocab is not None:
    lines = "".join(f"{line}\n" for line in model.vocab)
    _write(directory, file_names.VOCAB, lines)
    # Our scripts read the casing from this file, too.
    content = _to_json(_tokenizer_config(model))
    _write(directory, file_names.TOKENIZER_CONFIG, content)


def _write(directory, name, text):
  with tf.io.gfile.GFile(os.path.join(directory, name), "w") as writer:
    writer.write(text)


def _to_json(content):
  return (
    json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
  )


# The table --------------------------------------------------------------------

_LAYER_NUMBER = re.compile(r"(?<=[/.]layer[_.])\d+(?=[/.])")


def describe(model, architecture=None):
  """Says what writing a model does with each of its tensors.

  Args:
    model: Model.
    architecture: class of transformers that it is written for, None for TF1.

  Returns:
    List of Row.
  """
  return [_row(model, name, architecture) for name in model.tensors]


def _row(model, name, architecture):
  target = name
  if architecture:
    target = hugging_face.their_name(name, architecture)
  source = model.sources.get(name)
  if not source:
    reason = (
      f"{architecture} has a pooler, the source has none; drawn at random"
    )
    return Row("initialised", "", target, reason)
  is_kernel = hugging_face.is_transposed(name)
  if is_kernel and model.is_torch != bool(architecture):
    return Row("transposed", source, target, "kernels are [out, in] in PyTorch")
  return Row("matched", source, target, "same layout")


def notes(model, to_torch):
  """Lists sentences about differences between the formats.

  Args:
    model: Model.
    to_torch: whether it is written for transformers.
  """
  sentences = []
  if model.vocab is None:
    sentences.append("no vocabulary lies beside the weights: none is written")
  elif to_torch:
    sentences.append(f"the tokenizer's do_lower_case: {model.do_lower_case}")
  if not to_torch and model.config.hidden_act == "gelu_exact":
    sentences.append(
      "hidden_act is gelu_exact, Hugging Face's gelu. The original's code only "
      'knows the tanh form: for it, write "gelu" into bert_config.json, which '
      "changes outputs by about a thousandth"
    )
  return sentences


def format_table(rows):
  """Formats Rows as text; tensors of all layers share a line.

  Args:
    rows: list of Row.
  """
  blocks = {}  # lines by action and reason, and how often each occurs
  for row in rows:
    source = _LAYER_NUMBER.sub("N", row.source) or "(new)"
    target = _LAYER_NUMBER.sub("N", row.target) or "(nowhere)"
    lines = blocks.setdefault((row.action, row.reason), collections.Counter())
    lines[source, target] += 1
  text = []
  for (action, reason), lines in sorted(blocks.items()):
    text.append(f"{action}: {reason}")
    width = max(len(source) for source, _ in lines)
    text += [
      f"{number:>5}  {source:<{width}}  {target}"
      for (source, target), number in lines.items()
    ]
  counts = {x: sum(row.action == x for row in rows) for x in ACTIONS}
  total = ", ".join(f"{number} {action}" for action, number in counts.items())
  return "\n".join([*text, f"{len(rows)} tensors: {total}"])
