"""Reads and writes BERT as transformers does: names, layouts, files.

A directory has `config.json` and `model.safetensors`, or several such files and
`model.safetensors.index.json`. The tensors are upstream's under other names,
linear layers transposed.
"""

import dataclasses
import fnmatch
import os
import re

import numpy as np
import safetensors
import safetensors.numpy

from bert_keras3.data import files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
SUFFIXES = (".safetensors", ".safetensors.index.json")
# The names that transformers gives to labels without names.
_NAMELESS_LABEL = re.compile(r"LABEL_\d+")
_FLOAT_TYPES = ("F32", "F16", "BF16", "F64")  # safetensors' spelling


# Names ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Describes a class of transformers.

  Attributes:
    heads: scopes of its heads in upstream's checkpoints, or in ours.
    has_pooler: whether its encoder has a pooler.
    prefix: of the encoder's names.
  """

  heads: tuple[str, ...] = ()
  has_pooler: bool = True
  prefix: str = "bert."


ARCHITECTURES = {
  "BertModel": Architecture(prefix=""),
  "BertForPreTraining": Architecture(
    ("cls/predictions", "cls/seq_relationship")
  ),
  "BertForMaskedLM": Architecture(("cls/predictions",), has_pooler=False),
  "BertForNextSentencePrediction": Architecture(("cls/seq_relationship",)),
  "BertForSequenceClassification": Architecture(("classifier",)),
  "BertForQuestionAnswering": Architecture(("cls/squad",), has_pooler=False),
  "BertForTokenClassification": Architecture(("cls/token",), has_pooler=False),
  "BertForMultipleChoice": Architecture(("cls/choice",)),
}
# Scopes of upstream. With dots for slashes they are modules of transformers'
# modeling_bert.py; N stands for the number of a layer.
_LAYER_NORMS = (
  "bert/embeddings/LayerNorm",
  "bert/encoder/layer_N/attention/output/LayerNorm",
  "bert/encoder/layer_N/output/LayerNorm",
  "cls/predictions/transform/LayerNorm",
)
_DENSE_LAYERS = (
  "bert/encoder/layer_N/attention/self/query",
  "bert/encoder/layer_N/attention/self/key",
  "bert/encoder/layer_N/attention/self/value",
  "bert/encoder/layer_N/attention/output/dense",
  "bert/encoder/layer_N/intermediate/dense",
  "bert/encoder/layer_N/output/dense",
  "bert/pooler/dense",
  "cls/predictions/transform/dense",
)
_EMBEDDINGS = (
  "bert/embeddings/word_embeddings",
  "bert/embeddings/position_embeddings",
  "bert/embeddings/token_type_embeddings",
)
# Upstream's classifier has its two variables at the root.
_HEADS = {
  "cls/seq_relationship/": "cls.seq_relationship",
  "": "classifier",
  "cls/squad/": "qa_outputs",
  "cls/token/": "classifier",
  "cls/choice/": "classifier",
}
_UNTRANSLATED = {
  "cls.predictions.decoder.*": "tied to the word embeddings and output bias",
  "*.position_ids": "a constant, not a weight",
}
_PREDICTIONS_BIAS = "cls.predictions.bias"
_DECODER_BIAS = "cls.predictions.decoder.bias"
# Tensors of the masked-LM head in older files, and the tensors they equal.
_TIED = {
  "cls.predictions.decoder.weight": (
    "bert.embeddings.word_embeddings.weight",
    "embeddings.word_embeddings.weight",
  ),
  _DECODER_BIAS: (_PREDICTIONS_BIAS,),
}


def _module_of(scope):
  return scope.replace("layer_N", "layer.N").replace("/", ".")


# From upstream's name to that of transformers.
_TRANSFORMERS_NAMES = {
  **{x: f"{_module_of(x)}.weight" for x in _EMBEDDINGS},
  **{f"{x}/gamma": f"{_module_of(x)}.weight" for x in _LAYER_NORMS},
  **{f"{x}/beta": f"{_module_of(x)}.bias" for x in _LAYER_NORMS},
  **{f"{x}/kernel": f"{_module_of(x)}.weight" for x in _DENSE_LAYERS},
  **{f"{x}/bias": f"{_module_of(x)}.bias" for x in _DENSE_LAYERS},
  "cls/predictions/output_bias": _PREDICTIONS_BIAS,
  **{f"{x}output_weights": f"{module}.weight" for x, module in _HEADS.items()},
  **{f"{x}output_bias": f"{module}.bias" for x, module in _HEADS.items()},
}


def head_of(name):
  """Returns the scope of the head that has an upstream variable, or None."""
  if name in ("output_weights", "output_bias"):
    return "classifier"
  match = re.match(r"cls/\w+", name)
  return match.group() if match else None


def belongs_to(name, architecture):
  """Returns whether a class of transformers has an upstream variable.

  Args:
    name: of the variable.
    architecture: key of ARCHITECTURES.
  """
  described = ARCHITECTURES[architecture]
  if name.startswith("bert/pooler/"):
    return described.has_pooler
  return name.startswith("bert/") or head_of(name) in described.heads


def find_architecture(names):
  """Finds the class of transformers that has exactly a model's heads.

  Args:
    names: upstream's names of the model's variables.

  Returns:
    Key of ARCHITECTURES.

  Raises:
    ValueError: no class has these heads.
  """
  heads = {head_of(name) for name in names} - {None}
  for architecture, described in ARCHITECTURES.items():
    if heads == set(described.heads):
      return architecture
  raise ValueError(
    f"no class of transformers has the heads {', '.join(sorted(heads))} "
    "together; choose those to convert with --architecture, one of "
    f"{', '.join(ARCHITECTURES)}"
  )


def their_name(name, architecture):
  """Translates upstream's name of a variable to that in transformers.

  Args:
    name: of a variable that upstream or this project has.
    architecture: key of ARCHITECTURES.
  """
  number = "".join(re.findall(r"/layer_(\d+)/", name))
  general = re.sub(r"/layer_\d+/", "/layer_N/", name)
  translated = _TRANSFORMERS_NAMES[general]
  translated = translated.replace(".layer.N.", f".layer.{number}.")
  if translated.startswith("bert."):
    prefix = ARCHITECTURES[architecture].prefix
    translated = prefix + translated.removeprefix("bert.")
  return translated


def upstream_name(name, architecture):
  """Translates a tensor name of transformers to upstream's, "" without one.

  Args:
    name: of the tensor.
    architecture: key of ARCHITECTURES; decides which head a `classifier` is.
  """
  # An encoder saved on its own has no prefix.
  if name.startswith(("embeddings.", "encoder.", "pooler.")):
    name = f"bert.{name}"
  # These names are in files older than pytorch-transformers (2019).
  name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
  name = name.replace("LayerNorm.beta", "LayerNorm.bias")
  number = "".join(re.findall(r"\.layer\.(\d+)\.", name))
  name = re.sub(r"\.layer\.\d+\.", ".layer.N.", name)
  translated = _upstream_names(architecture).get(name, "")
  return translated.replace("layer_N", f"layer_{number}")


def _upstream_names(architecture):
  """Inverts _TRANSFORMERS_NAMES, with one head for `classifier`."""
  classifier = [
    _TRANSFORMERS_NAMES[x] for x in ("output_weights", "output_bias")
  ]
  return {
    translated: name
    for name, translated in _TRANSFORMERS_NAMES.items()
    if translated not in classifier
    or head_of(name) == _classifier_head(architecture)
  }


def _classifier_head(architecture):
  (head,) = ARCHITECTURES[architecture].heads[:1] or ("classifier",)
  return head if head in ("cls/token", "cls/choice") else "classifier"


def is_transposed(name):
  """Returns whether PyTorch stores a variable transposed, as [out, in].

  Upstream's heads are [out, in] already.
  """
  return name.endswith("/kernel")


def why_untranslated(name):
  """Says why upstream has no name for a tensor of transformers."""
  for pattern, reason in _UNTRANSLATED.items():
    if fnmatch.fnmatchcase(name, pattern):
      return reason
  return "unknown to BERT"


# Reading ----------------------------------------------------------------------


class Reader:
  """Reads a BERT of transformers under upstream's names.

  Args:
    path: of a local `.safetensors` file, or of the index of several.
    architecture: key of ARCHITECTURES if the config.json beside it names none.

  Attributes:
    path: of the file or index.
    shapes: dict from upstream's name to a list of int.
    ignored: dict from the name of each tensor that upstream has no name for to
      the reason.

  Raises:
    ValueError: a file is damaged or missing, or is not of this BERT.
  """

  # Both are in another file, config.json.
  bert_config = None
  problem_type = None

  def __init__(self, path, architecture=None):
    self.path = path
    self.shapes = {}
    self._their_names = {}
    self.ignored = {}
    self._files = {}  # by name of the tensor
    for file_path in _list_files(path):
      file = _open(file_path)
      self._files.update(dict.fromkeys(file.keys(), file))
    self._check_ties()
    self._architecture = (
      read_architecture(os.path.dirname(path))
      or architecture
      or _guess_architecture(self._files)
    )
    for name in sorted(self._files):
      self._add(name)

  def _check_ties(self):
    """Refuses an output layer that differs from its tied tensors."""
    for name, tied_names in _TIED.items():
      tied = next((x for x in tied_names if x in self._files), None)
      if name in self._files and tied:
        if not np.array_equal(
          self._read(name), self._read(tied), equal_nan=True
        ):
          raise ValueError(
            f"{self.path}: {name} differs from {tied}, to which BERT ties it; "
            "this is the model of another architecture"
          )

  def _add(self, their_name):
    name = upstream_name(their_name, self._architecture)
    if their_name == _DECODER_BIAS and _PREDICTIONS_BIAS not in self._files:
      name = "cls/predictions/output_bias"  # only under its other name
    if not name:
      self.ignored[their_name] = why_untranslated(their_name)
      return
    if name in self._their_names:
      raise ValueError(
        f"{self.path} holds {name} twice, as {self._their_names[name]} and as "
        f"{their_name}; remove one of them"
      )
    tensor = self._files[their_name].get_slice(their_name)  # Reads no data yet.
    if tensor.get_dtype() not in _FLOAT_TYPES:
      raise ValueError(
        f"{self.path}: {their_name} has type {tensor.get_dtype()}, as quantised"
        f" weights have; take a model in one of {', '.join(_FLOAT_TYPES)}"
      )
    shape = tensor.get_shape()
    self._their_names[name] = their_name
    self.shapes[name] = shape[::-1] if is_transposed(name) else shape

  def source_name(self, name):
    """Returns the name that a tensor has in the file."""
    return self._their_names[name]

  def get_tensor(self, name):
    """Returns a tensor as float32, whatever type the file has."""
    tensor = self._read(self._their_names[name])
    return tensor.T if is_transposed(name) else tensor

  def _read(self, their_name):
    tensor = self._files[their_name].get_tensor(their_name)
    return tensor.astype(np.float32, copy=False)


def read_architecture(directory):
  """Reads the class of transformers that a directory's config.json names.

  Returns:
    Key of ARCHITECTURES; None if there is no config.json, or it names other
    classes only.
  """
  names = _read_config(os.path.join(directory, CONFIG)).get("architectures")
  names = names if isinstance(names, list) else []
  # Not `name in ARCHITECTURES`: a damaged config may hold unhashable values.
  known = [name for name in names if name in list(ARCHITECTURES)]
  return known[0] if known else None


def _guess_architecture(names):
  """Guesses by the pooler which class with a `classifier` has these tensors."""
  if any("pooler." in name for name in names):
    return "BertForSequenceClassification"
  return "BertForTokenClassification"


def read_labels(config_file):
  """Reads the labels in a config.json, in the order of the logits.

  Args:
    config_file: local path.

  Returns:
    List of str; None if the labels have no names.
  """
  names = _read_config(config_file).get("id2label") or {}
  try:
    labels = [str(names[number]) for number in sorted(names, key=int)]
  except (KeyError, TypeError, ValueError):
    return None
  return None if all(map(_NAMELESS_LABEL.fullmatch, labels)) else labels


def _read_config(path):
  """Reads a config.json; {} if it cannot be read.

  BertConfig, which every model needs, reports what is wrong with it.
  """
  try:
    config = files.read_json(path)
  except (OSError, ValueError):
    return {}
  return config if isinstance(config, dict) else {}


def _list_files(path):
  """Lists the safetensors files that an index names, or the file itself."""
  if not path.endswith(".json"):
    return [path]
  try:
    with open(path, "rb") as file:
      names = set(files.parse_json(file.read())["weight_map"].values())
    # Files beside the index, never elsewhere.
    names = sorted(os.path.basename(name) for name in names)
  except OSError as error:
    raise OSError(
      f"{path} cannot be read ({error.strerror}); name a file that can"
    ) from error
  except (ValueError, KeyError, TypeError, AttributeError):
    raise ValueError(
      f"{path} is no index of safetensors: it has no weight_map, from names to "
      "files; download it again"
    ) from None
  paths = [os.path.join(os.path.dirname(path), name) for name in names]
  for part in paths:
    if not os.path.isfile(part):
      raise ValueError(f"{part} is missing, which {path} names; download it")
  return paths


def _open(path):
  try:
    return safetensors.safe_open(path, framework="numpy")
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(
      f"{path} is no complete safetensors file ({error}); download it again"
    ) from error


# Writing ----------------------------------------------------------------------


def write_weights(path, tensors, architecture):
  """Writes a safetensors file that transformers loads into one of its classes.

  Args:
    path: local path of the file.
    tensors: dict from upstream's name to array, every variable of the class.
    architecture: key of ARCHITECTURES.
  """
  translated = {}
  for name, tensor in tensors.items():
    tensor = np.asarray(tensor, np.float32)
    tensor = tensor.T if is_transposed(name) else tensor
    # save_file ignores strides.
    translated[their_name(name, architecture)] = np.ascontiguousarray(tensor)
  # transformers refuses a file that does not say which framework it is for.
  safetensors.numpy.save_file(translated, path, metadata={"format": "pt"})
