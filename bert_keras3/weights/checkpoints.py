"""Reads and writes weights in upstream's checkpoint format.

A checkpoint is `PREFIX.index` and `PREFIX.data-00000-of-00001`, tensors under
TF1 variable names, which upstream and every converter read. A small
`PREFIX.json` beside it may hold other values. Initial weights may also come
from Hugging Face's safetensors and from Keras files of our models. A tensor
that cannot be loaded is an error or a line of the report, never ignored
silently.
"""

import dataclasses
import fnmatch
import glob
import json
import os
import sys
import zlib

import tensorflow as tf

from bert_keras3.data import files
from bert_keras3.weights import file_names
from bert_keras3.weights import hugging_face
from bert_keras3.weights import keras_files

GLOBAL_STEP = "global_step"
SLOT_SUFFIXES = ("/adam_m", "/adam_v")
_FILE_SUFFIXES = (".data-00000-of-00001", ".index")


# Finding ----------------------------------------------------------------------


def resolve(path):
  """Finds the prefix or the file of a checkpoint that a user names.

  Args:
    path: a prefix (`bert_model.ckpt`), one of its files, a directory with a
      `bert_model.ckpt` or a `checkpoint` file, or that `checkpoint` file; else
      a directory with a `model.safetensors` or the index of several; else a
      `.safetensors`, `.keras` or `.weights.h5` file.

  Returns:
    The prefix, or the path of the file.

  Raises:
    FileNotFoundError: there is no checkpoint.
    OSError: the directory cannot be read.
    ValueError: the checkpoint is a pickle, or safetensors on a remote disk.
  """
  try:
    weights = _find(path)
  except tf.errors.OpError as error:
    raise OSError(
      f"{path} cannot be read ({error.message}); check its permissions"
    ) from error
  if weights:
    return weights
  raise FileNotFoundError(
    f"no checkpoint at {path}; expected a prefix such as "
    "DIR/bert_model.ckpt (with .index and .data files beside it), or a "
    "directory with one, with a `checkpoint` file or a model.safetensors"
  )


def _find(path):
  for suffix in _FILE_SUFFIXES:
    path = path.removesuffix(suffix)
  for prefix in _possible_prefixes(path):
    if prefix and _exists(prefix):
      return prefix
  weights = _find_hugging_face(path)
  if not weights and path.endswith(keras_files.KERAS_SUFFIXES):
    weights = path if tf.io.gfile.exists(path) else None
  return weights


def _possible_prefixes(path):
  if tf.io.gfile.isdir(path):
    # A finished run has both; its newest weights need not be its best.
    return os.path.join(path, file_names.WEIGHTS), latest(path)
  if os.path.basename(path) == file_names.CHECKPOINT_STATE:
    return (latest(os.path.dirname(path)),)
  return (path,)


def _find_hugging_face(path):
  """Returns the path of the safetensors in or at a path, or None."""
  is_directory = tf.io.gfile.isdir(path)
  names = (hugging_face.WEIGHTS, hugging_face.INDEX)
  inside = [os.path.join(path, name) for name in names]
  for weights in inside if is_directory else [path]:
    is_safetensors = weights.endswith(hugging_face.SUFFIXES)
    if is_safetensors and tf.io.gfile.exists(weights):
      # The library maps files into memory, which only local ones can be.
      if files.is_remote(weights):
        raise ValueError(
          f"{weights} is not a local file, which safetensors must be; copy it "
          "to a local disk first"
        )
      return weights
  pickled = list_files(path, "pytorch_model*.bin*") if is_directory else [path]
  if pickled and os.path.basename(pickled[0]).startswith("pytorch_model"):
    _refuse_pickle(pickled[0])
  return None


def _refuse_pickle(path):
  """Raises ValueError for a pickle, with the command that converts it."""
  if not tf.io.gfile.exists(path):
    return
  folder = os.path.dirname(path) or "."
  architecture = hugging_face.read_architecture(folder) or "AutoModel"
  raise ValueError(
    f"{path} is not read: it is a pickle, which runs code. If you trust it, "
    f"convert it with transformers: {architecture}.from_pretrained({folder!r})"
    ".save_pretrained(DIR), and copy vocab.txt there"
  )


def _exists(prefix):
  """Returns whether a checkpoint has index and data, perhaps in shards."""
  folder, name = os.path.split(prefix)
  if not tf.io.gfile.exists(prefix + ".index"):
    return False
  return bool(list_files(folder, f"{glob.escape(name)}.data-*"))


def check_path(path):
  """Refuses a path that TensorFlow could write to, but not read from.

  Raises:
    ValueError: the path has a character that TensorFlow takes for a pattern
      when it reads a checkpoint.
  """
  if glob.has_magic(path):
    raise ValueError(
      f"{path}: TensorFlow reads no checkpoint from a path with any of "
      "*?[ in it; choose another name"
    )


def list_files(directory, pattern):
  """Lists the paths of a directory's files whose names match a pattern.

  Matches names, not whole paths: the directory's own name may have brackets.
  """
  if not tf.io.gfile.isdir(directory or "."):
    return []
  return [
    os.path.join(directory, name)
    for name in sorted(tf.io.gfile.listdir(directory or "."))
    if fnmatch.fnmatchcase(name, pattern)
  ]


def latest(directory):
  """Returns the newest prefix in a directory's `checkpoint` file, or None.

  If the directory was moved, so that the recorded path is gone, the prefix is
  that base name in this directory.
  """
  try:
    state = tf.train.get_checkpoint_state(directory)
  except ValueError:  # The file is empty or not UTF-8.
    return None
  if not state:
    return None
  recorded = state.model_checkpoint_path
  if tf.io.gfile.exists(recorded + ".index"):
    return recorded
  return os.path.join(directory, os.path.basename(recorded))


def has_weights(directory):
  """Returns whether a directory holds a checkpoint or a finished run's model.

  The `checkpoint` file need not be there.
  """
  patterns = ("model.ckpt-*.index", f"{file_names.WEIGHTS}.index")
  return bool(
    latest(directory) or any(list_files(directory, x) for x in patterns)
  )


def newest_readable(directory):
  """Returns the prefix of a run's newest undamaged checkpoint, or None.

  Prints and skips a checkpoint that a full or broken disk has damaged.

  Raises:
    ValueError: there are checkpoints, but all are damaged.
  """
  damaged = []
  for prefix in _newest_first(directory):
    problem = _find_damage(prefix)
    if not problem:
      return prefix
    damaged.append(prefix)
    print(f"{prefix} is damaged and left out: {problem}", file=sys.stderr)
  if damaged:
    raise ValueError(
      f"no checkpoint in {directory} can be read; bring one back from a backup "
      "or pass --overwrite_output_dir to start anew"
    )
  return None


def _newest_first(directory):
  """Lists a run's prefixes, the newest in its `checkpoint` file first."""
  recorded = latest(directory)
  others = CheckpointDirectory(directory).prefixes()[::-1]
  return [recorded] * bool(recorded) + [x for x in others if x != recorded]


def _find_damage(prefix):
  """Says what is wrong with a checkpoint, "" if all of it can be read."""
  try:
    reader = tf.train.load_checkpoint(prefix)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)  # Checks its checksum.
    _read_extra(prefix)
  # Damage raises errors of many types, TensorFlow's RuntimeError among them.
  except Exception as error:
    return _first_line(error)
  return ""


# Reading ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LoadReport:
  """Says which variables were loaded, and which tensors were not."""

  prefix: str  # or the path of a file
  loaded: tuple[str, ...]
  initialised: tuple[str, ...]  # variables that the checkpoint does not have
  ignored: dict[str, str]  # tensor name -> why it was not loaded

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

  Heads and the pooler may be missing: fine-tuning adds a head, and masked-LM
  checkpoints often have no pooler. The rest of the encoder must be there.
  Optimizer slots and `global_step` are not loaded.

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
  reader = open_reader(path)
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
    ignored=reader.ignored | {name: why_ignored(name) for name in unused},
  )


def why_ignored(name):
  """Says why a variable of a checkpoint is not loaded."""
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
    (global step, the dict `extra` that `save` stored beside the tensors).

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: a variable is missing or has another shape.
  """
  reader = open_reader(path)
  for name in [*variables, GLOBAL_STEP]:
    if name not in reader.shapes:
      raise ValueError(
        f"{reader.path} cannot be resumed: it has no {name}; start from it "
        "with --init_checkpoint in another output_dir"
      )
  _assign(variables, variables, reader)
  return int(reader.get_tensor(GLOBAL_STEP)), _read_extra(reader.path)


def read_global_step(path):
  """Returns the step at which a run wrote a checkpoint, 0 if unknown."""
  reader = open_reader(path)
  if GLOBAL_STEP not in reader.shapes:
    return 0
  return int(reader.get_tensor(GLOBAL_STEP))


def _assign(variables, names, reader):
  for name in names:
    shape, expected = reader.shapes[name], list(variables[name].shape)
    if shape != expected:
      remedy = (
        "the BERT config or the vocabulary is that of another checkpoint"
        if hugging_face.head_of(name) in (None, "cls/predictions")
        else "that head is for another number of labels; take the encoder "
        "alone, which convert_checkpoint.py --architecture=BertModel writes"
      )
      raise ValueError(
        f"{reader.path}: {name} has shape {shape}, the model needs {expected}; "
        f"{remedy}"
      )
  for name in names:
    variables[name].assign(reader.get_tensor(name))


def _read_extra(prefix):
  """Reads the dict `extra` that `save` stored, {} without one.

  Raises:
    ValueError: it is damaged.
  """
  path = prefix + ".json"
  if not tf.io.gfile.exists(path):
    return {}
  extra = files.read_json(path, "{path} is damaged: {problem}")
  if not isinstance(extra, dict):
    raise ValueError(f"{path} is damaged: it holds no JSON object")
  checksum = extra.pop("crc32", None)  # Earlier versions wrote none.
  if checksum not in (None, _checksum(extra)):
    raise ValueError(f"{path} is damaged: its checksum does not match")
  return extra


def _checksum(extra):
  return zlib.crc32(json.dumps(extra, sort_keys=True).encode())


# Readers ----------------------------------------------------------------------


def open_reader(path, bert_config_file=None, architecture=None):
  """Opens a checkpoint that a user names, in any format.

  Args:
    path: anything `resolve` accepts.
    bert_config_file: path of the config, None for the one beside the weights;
      only a `.weights.h5` needs it.
    architecture: class of transformers for safetensors whose config names none.

  Returns:
    A reader: `path`; `shapes`, a dict from upstream's name to a list of int;
    `get_tensor(name)`, which reads that one tensor; `source_name(name)`, the
    tensor's name in the file; `ignored`, a dict from the name of each tensor
    that upstream has no name for to the reason; `bert_config` and
    `problem_type`, None unless the file itself has them.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it cannot be read.
  """
  weights = resolve(path)
  if weights.endswith(hugging_face.SUFFIXES):
    return hugging_face.Reader(weights, architecture)
  if weights.endswith(keras_files.KERAS_SUFFIXES):
    return keras_files.KerasReader(weights, bert_config_file)
  return _CheckpointReader(weights)


class _CheckpointReader:
  """Reads upstream's format, in which every tensor has upstream's name."""

  ignored = {}
  bert_config = None
  problem_type = None

  def __init__(self, prefix):
    check_path(prefix)
    self.path = prefix
    self._reader = self._try(tf.train.load_checkpoint, prefix)
    self.shapes = self._try(self._reader.get_variable_to_shape_map)

  def get_tensor(self, name):
    return self._try(self._reader.get_tensor, name)

  def _try(self, function, *args):
    try:
      return function(*args)
    # Damage raises errors of many types, IndexError and RuntimeError too.
    except Exception as error:
      raise ValueError(
        f"{self.path} is damaged or no checkpoint ({error}); take another one, "
        "or copy it again"
      ) from error

  def source_name(self, name):
    return name


# Writing ----------------------------------------------------------------------


def save(prefix, variables, global_step=None, extra=None):
  """Writes a checkpoint atomically: all of it or nothing.

  Args:
    prefix: path without suffix; the directory must exist.
    variables: dict from name to variable or array.
    global_step: int stored as int64 `global_step`; left out if None.
    extra: JSON-serialisable dict stored beside the tensors, or None.

  Raises:
    OSError: the disk is full, or cannot be written to.
    ValueError: TensorFlow could not read from that path, see check_path.
  """
  check_path(prefix)
  tensors = {
    name: tf.convert_to_tensor(value) for name, value in variables.items()
  }
  if global_step is not None:
    tensors[GLOBAL_STEP] = tf.constant(global_step, tf.int64)
  temporary = files.temporary_name(prefix)
  suffixes = (
    list(_FILE_SUFFIXES) if extra is None else [".json", *_FILE_SUFFIXES]
  )
  try:
    _write(temporary, tensors, extra)
    verify(temporary, tensors)
    # The index comes last: a checkpoint exists once its index does.
    for suffix in suffixes:
      tf.io.gfile.rename(temporary + suffix, prefix + suffix, overwrite=True)
  except (tf.errors.OpError, OSError) as error:
    _remove(temporary)
    reason = _first_line(error)
    if "No space left on device" in reason:  # after names of operations
      reason = "the disk is full"
    raise OSError(
      f"{prefix} could not be written: {reason}; the checkpoints "
      "before it are as they were; make room and run the same command again"
    ) from error


def _write(prefix, tensors, extra):
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=list(tensors),
    shape_and_slices=[""] * len(tensors),
    tensors=list(tensors.values()),
  )
  if extra is not None:
    content = json.dumps({**extra, "crc32": _checksum(extra)})
    files.write_atomically(prefix + ".json", content)


def verify(prefix, tensors):
  """Flushes a written checkpoint to the disk and reads it back.

  Raises:
    OSError: a tensor read back differs.
  """
  for path in _files_of(prefix):
    if not files.is_remote(path):
      with open(path, "rb") as file:
        os.fsync(file.fileno())
  reader = tf.train.load_checkpoint(prefix)
  for name, tensor in tensors.items():
    if reader.get_tensor(name).tobytes() != tensor.numpy().tobytes():
      raise OSError(f"{name} was not read back as it was written")


def _files_of(prefix):
  directory, name = os.path.split(prefix)
  return list_files(directory, f"{name}.*")


def _remove(prefix):
  for path in _files_of(prefix):
    tf.io.gfile.remove(path)


def _first_line(error):
  return str(getattr(error, "message", error)).strip().split("\n")[0]


class CheckpointDirectory:
  """Keeps the newest `model.ckpt-STEP` checkpoints of a run."""

  def __init__(self, directory, keep_checkpoint_max=5):
    self.directory = directory
    self.keep_checkpoint_max = keep_checkpoint_max

  def save(self, variables, global_step, extra):
    """Writes `model.ckpt-<global_step>`, deletes the oldest above the limit."""
    prefix = os.path.join(self.directory, f"model.ckpt-{global_step}")
    save(prefix, variables, global_step, extra)
    kept = [path for path in self.prefixes() if path != prefix] + [prefix]
    excess = len(kept) - self.keep_checkpoint_max
    # 0 keeps all of them, as Estimator's keep_checkpoint_max did.
    dropped = kept[: max(excess, 0)] if self.keep_checkpoint_max else []
    kept = kept[len(dropped) :]
    self._write_state(kept)
    for path in dropped:
      _remove(path)
    return prefix

  def prefixes(self):
    """Lists the prefixes of this run's checkpoints, the oldest first."""
    by_step = {}
    for path in list_files(self.directory, "model.ckpt-*.index"):
      prefix = path.removesuffix(".index")
      step = os.path.basename(prefix).removeprefix("model.ckpt-")
      if step.isdigit():  # A half-written checkpoint has more after its step.
        by_step[int(step)] = prefix
    return [by_step[step] for step in sorted(by_step)]

  def _write_state(self, prefixes):
    """Writes the `checkpoint` file; base names let the directory move."""
    names = [os.path.basename(prefix) for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{names[-1]}"'] + [
      f'all_model_checkpoint_paths: "{name}"' for name in names
    ]
    path = os.path.join(self.directory, file_names.CHECKPOINT_STATE)
    files.write_atomically(path, "\n".join(lines) + "\n")
