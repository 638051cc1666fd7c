"""Weights in and out of upstream's checkpoint format.

A checkpoint is `PREFIX.index` and `PREFIX.data-00000-of-00001`, tensors under
TF1 variable names, which upstream and every converter read. Beside it a small
`PREFIX.json` may hold what is no tensor. Initial weights may also come from
Hugging Face's `model.safetensors`. Loading matches in full: what cannot be
loaded is an error or a line of the report, never silence.
"""

import dataclasses
import fnmatch
import json
import os
import re

import numpy as np
import safetensors
import tensorflow as tf

GLOBAL_STEP = "global_step"
SLOT_SUFFIXES = ("/adam_m", "/adam_v")
_FILE_SUFFIXES = (".data-00000-of-00001", ".index")
_SAFETENSORS_SUFFIX = ".safetensors"
_FLOAT_TYPES = ("F32", "F16", "BF16", "F64")  # safetensors' spelling


# Finding ----------------------------------------------------------------------


def resolve(path):
  """Turns what a user may pass as a checkpoint into a prefix or a file.

  Args:
    path: a prefix (`bert_model.ckpt`), one of its files, a directory with a
      `checkpoint` file or a `bert_model.ckpt`, or that `checkpoint` file; else
      a directory with a `model.safetensors`, or any `.safetensors` file.

  Returns:
    The prefix, or the path of the `.safetensors` file.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: there is one, but it is pickled, or safetensors and not local.
  """
  directory = path
  if os.path.basename(path) == "checkpoint" and not tf.io.gfile.isdir(path):
    directory = os.path.dirname(path)
  for suffix in _FILE_SUFFIXES:
    path = path.removesuffix(suffix)
  released = os.path.join(directory, "bert_model.ckpt")
  for prefix in (path, latest(directory), released):
    if prefix and _exists(prefix):
      return prefix
  found = _find_hugging_face(path)
  if found:
    return found
  raise FileNotFoundError(
    f"no checkpoint at {path}; expected a prefix such as "
    "DIR/bert_model.ckpt (with .index and .data files beside it) or a "
    "directory with a `checkpoint` file or a model.safetensors"
  )


def _find_hugging_face(path):
  """Path of the `.safetensors` file in or at a path, None without one."""
  is_directory = tf.io.gfile.isdir(path)
  weights = os.path.join(path, "model.safetensors") if is_directory else path
  if weights.endswith(_SAFETENSORS_SUFFIX) and tf.io.gfile.exists(weights):
    # The library maps files into memory, which only local ones can be.
    if "://" in weights:
      raise ValueError(
        f"{weights} is not a local file, which safetensors must be; copy it to "
        "a local disk first"
      )
    return weights
  pickled = os.path.join(path, "pytorch_model.bin") if is_directory else path
  if pickled.endswith("pytorch_model.bin") and tf.io.gfile.exists(pickled):
    raise ValueError(
      f"{pickled} is not read: it is a pickle, which runs code. If you trust "
      "it, convert it with transformers: AutoModel.from_pretrained("
      f"{os.path.dirname(pickled)!r}).save_pretrained(DIR)"
    )
  return None


def _exists(prefix):
  """Whether both halves of a checkpoint are there; data may be in shards."""
  folder, name = os.path.split(prefix)
  if not tf.io.gfile.exists(prefix + ".index"):
    return False
  return bool(list_files(folder, f"{name}.data-*"))


def list_files(directory, pattern):
  """Paths of the files in a directory whose name matches a pattern.

  Not a glob of the whole path: the directory's own name may have brackets.
  """
  if not tf.io.gfile.isdir(directory or "."):
    return []
  return [
    os.path.join(directory, name)
    for name in sorted(tf.io.gfile.listdir(directory or "."))
    if fnmatch.fnmatchcase(name, pattern)
  ]


def latest(directory):
  """Prefix that a directory's `checkpoint` file names last, or None.

  A directory that was moved is followed: only the base name counts where the
  recorded path is gone.
  """
  state = tf.train.get_checkpoint_state(directory)
  if not state:
    return None
  recorded = state.model_checkpoint_path
  if tf.io.gfile.exists(recorded + ".index"):
    return recorded
  return os.path.join(directory, os.path.basename(recorded))


# Reading ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LoadReport:
  """What became of every variable and every tensor."""

  prefix: str  # or path, of what was read
  loaded: tuple
  initialised: tuple  # variables the checkpoint does not have
  ignored: dict  # tensor name -> why it was not needed

  def __str__(self):
    lines = [f"{len(self.loaded)} variables loaded from {self.prefix}"]
    if self.initialised:
      lines.append(
        "newly initialised, not in the checkpoint: "
        + ", ".join(self.initialised)
      )
    for reason in sorted(set(self.ignored.values())):
      names = [name for name, why in self.ignored.items() if why == reason]
      shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
      lines.append(f"ignored, {reason}: {len(names)} ({shown})")
    return "\n".join(lines)


def load_weights(variables, path):
  """Initialises a model from a checkpoint.

  Heads and the pooler may be missing: a head is what fine-tuning adds, and
  masked-LM checkpoints often come without a pooler. The rest of the encoder
  may not. Optimizer slots and `global_step` do not travel.

  Args:
    variables: dict from checkpoint name to variable.
    path: anything `resolve` accepts.

  Returns:
    LoadReport.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: a shape differs, the encoder is not complete, or the file cannot
      be read.
  """
  reader = _open(path)
  missing = [name for name in variables if name not in reader.shapes]
  required = [
    name
    for name in missing
    if name.startswith("bert/") and not name.startswith("bert/pooler/")
  ]
  if required:
    raise ValueError(
      f"{reader.path} is no checkpoint of this BERT: it lacks {len(required)} "
      f"encoder variables, {required[0]} first; check that the BERT config "
      "belongs to the checkpoint"
    )
  loaded = [name for name in variables if name in reader.shapes]
  _assign(variables, loaded, reader)
  unused = [name for name in reader.shapes if name not in variables]
  return LoadReport(
    prefix=reader.path,
    loaded=tuple(loaded),
    initialised=tuple(missing),
    ignored=reader.ignored | {name: _why_ignored(name) for name in unused},
  )


def _why_ignored(name):
  if name.endswith(SLOT_SUFFIXES) or name == GLOBAL_STEP:
    return "state of the run that wrote it"
  if name.startswith("bert/"):
    return "a part of the encoder this model does not have"
  return "a head this model does not have"


def restore(variables, path):
  """Loads every variable, to continue a run.

  Args:
    variables: dict from checkpoint name to variable, slots included.
    path: anything `resolve` accepts.

  Returns:
    (global step, dict of what `save` stored beside the tensors).

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: a variable is missing or has another shape.
  """
  reader = _open(path)
  for name in [*variables, GLOBAL_STEP]:
    if name not in reader.shapes:
      raise ValueError(
        f"{reader.path} cannot be resumed: it has no {name}; start from it "
        "with --init_checkpoint in another output_dir"
      )
  _assign(variables, variables, reader)
  return int(reader.get_tensor(GLOBAL_STEP)), _read_extra(reader.path)


def read_global_step(path):
  """Step of the run that wrote a checkpoint, 0 if it does not say."""
  reader = _open(path)
  if GLOBAL_STEP not in reader.shapes:
    return 0
  return int(reader.get_tensor(GLOBAL_STEP))


def _assign(variables, names, reader):
  for name in names:
    shape, expected = reader.shapes[name], list(variables[name].shape)
    if shape != expected:
      raise ValueError(
        f"{reader.path}: {name} has shape {shape}, the model needs {expected}; "
        "the BERT config or the vocabulary is that of another checkpoint"
      )
  for name in names:
    variables[name].assign(reader.get_tensor(name))


def _read_extra(prefix):
  if not tf.io.gfile.exists(prefix + ".json"):
    return {}
  with tf.io.gfile.GFile(prefix + ".json") as reader:
    return json.load(reader)


# Readers ----------------------------------------------------------------------


def _open(path):
  """Opens what a user may pass as a checkpoint.

  Returns:
    A reader: `path`; `shapes`, a dict from upstream's name to a list of int;
    `get_tensor(name)`, which reads that one tensor; and `ignored`, a dict from
    the name of a tensor that upstream has no name for to the reason.
  """
  found = resolve(path)
  if found.endswith(_SAFETENSORS_SUFFIX):
    return _SafetensorsReader(found)
  return _CheckpointReader(found)


class _CheckpointReader:
  """Upstream's format; every tensor has upstream's name."""

  ignored = {}

  def __init__(self, prefix):
    reader = tf.train.load_checkpoint(prefix)
    self.path = prefix
    self.shapes = reader.get_variable_to_shape_map()
    self.get_tensor = reader.get_tensor


class _SafetensorsReader:
  """A BERT of Hugging Face's transformers, under upstream's names."""

  def __init__(self, path):
    self.path = path
    self.shapes = {}
    self.ignored = {}
    self._their_names = {}
    try:
      self._file = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
      raise ValueError(
        f"{path} is no complete safetensors file ({error}); download it again"
      ) from error
    for their_name in self._file.keys():
      self._add(their_name)

  def _add(self, their_name):
    name = _upstream_name(their_name)
    if not name:
      self.ignored[their_name] = _why_untranslated(their_name)
      return
    if name in self._their_names:
      raise ValueError(
        f"{self.path} holds {name} twice, as {self._their_names[name]} and as "
        f"{their_name}; remove one of them"
      )
    tensor = self._file.get_slice(their_name)  # Reads nothing yet.
    if tensor.get_dtype() not in _FLOAT_TYPES:
      raise ValueError(
        f"{self.path}: {their_name} has type {tensor.get_dtype()}, as quantised"
        f" weights have; take a model in one of {', '.join(_FLOAT_TYPES)}"
      )
    shape = tensor.get_shape()
    self._their_names[name] = their_name
    self.shapes[name] = shape[::-1] if _is_transposed(name) else shape

  def get_tensor(self, name):
    """Returns a float32 array, whatever type the file has."""
    tensor = self._file.get_tensor(self._their_names[name])
    tensor = tensor.astype(np.float32, copy=False)
    return tensor.T if _is_transposed(name) else tensor


# Hugging Face's names ---------------------------------------------------------

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
_HEADS = {
  "cls.predictions.bias": "cls/predictions/output_bias",
  "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
  "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
  "classifier.weight": "output_weights",
  "classifier.bias": "output_bias",
  "qa_outputs.weight": "cls/squad/output_weights",
  "qa_outputs.bias": "cls/squad/output_bias",
}
_UNTRANSLATED = {
  "cls.predictions.decoder.*": "tied to the word embeddings and output bias",
  "*.position_ids": "a constant, not a weight",
}


def _their_module(scope):
  return scope.replace("layer_N", "layer.N").replace("/", ".")


_UPSTREAM_NAMES = {
  **{f"{_their_module(x)}.weight": x for x in _EMBEDDINGS},
  **{f"{_their_module(x)}.weight": f"{x}/gamma" for x in _LAYER_NORMS},
  **{f"{_their_module(x)}.bias": f"{x}/beta" for x in _LAYER_NORMS},
  **{f"{_their_module(x)}.weight": f"{x}/kernel" for x in _DENSE_LAYERS},
  **{f"{_their_module(x)}.bias": f"{x}/bias" for x in _DENSE_LAYERS},
  **_HEADS,
}


def _upstream_name(their_name):
  """Name of a tensor of transformers' BERT upstream, "" if it has none."""
  name = their_name
  # An encoder saved on its own has no prefix.
  if name.startswith(("embeddings.", "encoder.", "pooler.")):
    name = f"bert.{name}"
  # Files from before 2019's pytorch-transformers.
  name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
  name = name.replace("LayerNorm.beta", "LayerNorm.bias")
  number = "".join(re.findall(r"\.layer\.(\d+)\.", name))
  name = re.sub(r"\.layer\.\d+\.", ".layer.N.", name)
  return _UPSTREAM_NAMES.get(name, "").replace("layer_N", f"layer_{number}")


def _is_transposed(name):
  """PyTorch's linear layers are [out, in], as upstream's heads already are."""
  return name.endswith("/kernel")


def _why_untranslated(their_name):
  for pattern, reason in _UNTRANSLATED.items():
    if fnmatch.fnmatchcase(their_name, pattern):
      return reason
  return "unknown to BERT"


# Writing ----------------------------------------------------------------------


def save(prefix, variables, global_step=None, extra=None):
  """Writes a checkpoint that is complete or not there.

  Args:
    prefix: where; the directory must exist.
    variables: dict from name to variable or array.
    global_step: int stored as int64 `global_step`; left out if None.
    extra: JSON-serialisable dict stored beside the tensors, or None.
  """
  tensors = {
    name: tf.convert_to_tensor(value) for name, value in variables.items()
  }
  if global_step is not None:
    tensors[GLOBAL_STEP] = tf.constant(global_step, tf.int64)
  temporary = f"{prefix}.incomplete-{os.getpid()}"
  tf.raw_ops.SaveV2(
    prefix=temporary,
    tensor_names=list(tensors),
    shape_and_slices=[""] * len(tensors),
    tensors=list(tensors.values()),
  )
  suffixes = list(_FILE_SUFFIXES)
  if extra is not None:
    with tf.io.gfile.GFile(temporary + ".json", "w") as writer:
      json.dump(extra, writer)
    suffixes.insert(0, ".json")
  # The index comes last: a checkpoint exists once its index does.
  for suffix in suffixes:
    tf.io.gfile.rename(temporary + suffix, prefix + suffix, overwrite=True)


class CheckpointDirectory:
  """The rotating `model.ckpt-STEP` checkpoints of one run."""

  def __init__(self, directory, keep_checkpoint_max=5):
    self.directory = directory
    self.keep_checkpoint_max = keep_checkpoint_max

  def save(self, variables, global_step, extra):
    """Writes `model.ckpt-<global_step>`, drops the oldest beyond the limit."""
    prefix = os.path.join(self.directory, f"model.ckpt-{global_step}")
    save(prefix, variables, global_step, extra)
    kept = [path for path in self._prefixes() if path != prefix] + [prefix]
    excess = len(kept) - self.keep_checkpoint_max
    # 0 keeps all of them, as Estimator's keep_checkpoint_max did.
    dropped = kept[: max(excess, 0)] if self.keep_checkpoint_max else []
    kept = kept[len(dropped) :]
    self._write_state(kept)
    patterns = [f"{os.path.basename(path)}.*" for path in dropped]
    # Left by a process that was killed while it wrote.
    patterns.append("model.ckpt-*.incomplete-*")
    for pattern in patterns:
      for file in list_files(self.directory, pattern):
        tf.io.gfile.remove(file)
    return prefix

  def _prefixes(self):
    """Checkpoints of this run, by step, oldest first."""
    by_step = {}
    for path in list_files(self.directory, "model.ckpt-*.index"):
      prefix = path.removesuffix(".index")
      step = prefix.rsplit("-", 1)[1]
      if step.isdigit():
        by_step[int(step)] = prefix
    return [by_step[step] for step in sorted(by_step)]

  def _write_state(self, prefixes):
    """The `checkpoint` file, base names only, so the directory can move."""
    names = [os.path.basename(prefix) for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{names[-1]}"'] + [
      f'all_model_checkpoint_paths: "{name}"' for name in names
    ]
    path = os.path.join(self.directory, "checkpoint")
    temporary = f"{path}.incomplete-{os.getpid()}"
    with tf.io.gfile.GFile(temporary, "w") as writer:
      writer.write("\n".join(lines) + "\n")
    tf.io.gfile.rename(temporary, path, overwrite=True)
