"""Weights in and out of upstream's checkpoint format.

A checkpoint is `PREFIX.index` and `PREFIX.data-00000-of-00001`, tensors under
TF1 variable names, which upstream and every converter read. Beside it a small
`PREFIX.json` may hold what is no tensor. Initial weights may also come from
Hugging Face's safetensors and from Keras's files of our models. Loading matches
in full: what cannot be loaded is an error or a line of the report, never
silence.
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
  """Turns what a user may pass as a checkpoint into a prefix or a file.

  Args:
    path: a prefix (`bert_model.ckpt`), one of its files, a directory with a
      `bert_model.ckpt` or a `checkpoint` file, or that `checkpoint` file; else
      a directory with a `model.safetensors` or the index of several; else a
      `.safetensors`, `.keras` or `.weights.h5` file.

  Returns:
    The prefix, or the path of the file.

  Raises:
    FileNotFoundError: there is no checkpoint.
    OSError: its directory cannot be read.
    ValueError: there is one, but it is pickled, or safetensors and not local.
  """
  try:
    found = _find(path)
  except tf.errors.OpError as error:
    raise OSError(
      f"{path} cannot be read ({error.message}); check its permissions"
    ) from error
  if found:
    return found
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
  found = _find_hugging_face(path)
  if not found and path.endswith(keras_files.KERAS_SUFFIXES):
    found = path if tf.io.gfile.exists(path) else None
  return found


def _possible_prefixes(path):
  if tf.io.gfile.isdir(path):
    # A finished run has both; its newest weights need not be its best.
    return os.path.join(path, file_names.WEIGHTS), latest(path)
  if os.path.basename(path) == file_names.CHECKPOINT_STATE:
    return (latest(os.path.dirname(path)),)
  return (path,)


def _find_hugging_face(path):
  """Path of the safetensors in or at a path, None without them."""
  is_directory = tf.io.gfile.isdir(path)
  names = (hugging_face.WEIGHTS, hugging_face.INDEX)
  inside = [os.path.join(path, name) for name in names]
  for weights in inside if is_directory else [path]:
    is_ours = weights.endswith(hugging_face.SUFFIXES)
    if is_ours and tf.io.gfile.exists(weights):
      # The library maps files into memory, which only local ones can be.
      if "://" in weights:
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
  """Says how to get rid of a pickle, heads and vocabulary included."""
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
  """Whether both halves of a checkpoint are there; data may be in shards."""
  folder, name = os.path.split(prefix)
  if not tf.io.gfile.exists(prefix + ".index"):
    return False
  return bool(list_files(folder, f"{glob.escape(name)}.data-*"))


def check_path(path):
  """Refuses what TensorFlow writes but then does not find.

  Raises:
    ValueError: the path has one of the characters that its reader of
      checkpoints takes for a pattern.
  """
  if glob.has_magic(path):
    raise ValueError(
      f"{path}: TensorFlow reads no checkpoint from a path with any of "
      "*?[ in it; choose another name"
    )


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
  try:
    state = tf.train.get_checkpoint_state(directory)
  except ValueError:  # It is empty, or no UTF-8.
    return None
  if not state:
    return None
  recorded = state.model_checkpoint_path
  if tf.io.gfile.exists(recorded + ".index"):
    return recorded
  return os.path.join(directory, os.path.basename(recorded))


def newest_readable(directory):
  """Prefix of the newest checkpoint of a run that is whole, or None.

  One that a full disk or a broken one has damaged is told about and passed
  over.

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
  """Prefixes of a run, the one that its `checkpoint` file names before all."""
  recorded = latest(directory)
  others = CheckpointDirectory(directory).prefixes()[::-1]
  return [recorded] * bool(recorded) + [x for x in others if x != recorded]


def _find_damage(prefix):
  """What is wrong with a checkpoint, "" if all of it can be read."""
  try:
    reader = tf.train.load_checkpoint(prefix)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)  # Checks its checksum.
    _read_extra(prefix)
  # Damage shows in many ways, and TensorFlow raises RuntimeError as well.
  except Exception as error:
    return _first_line(error)
  return ""


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
  """Why a variable of a checkpoint is not loaded."""
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
  """Step of the run that wrote a checkpoint, 0 if it does not say."""
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
  """What `save` stored beside the tensors, {} without any.

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
  """Opens what a user may pass as a checkpoint.

  Args:
    path: what `resolve` accepts.
    bert_config_file: path of its config, None for the one beside it; only a
      `.weights.h5` needs it.
    architecture: class of transformers that safetensors are of if their config
      does not say it.

  Returns:
    A reader: `path`; `shapes`, a dict from upstream's name to a list of int;
    `get_tensor(name)`, which reads that one tensor; `source_name(name)`, what
    the file calls it; `ignored`, a dict from the name of a tensor that upstream
    has no name for to the reason; `bert_config` and `problem_type`, None unless
    the file itself has them.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it cannot be read.
  """
  found = resolve(path)
  if found.endswith(hugging_face.SUFFIXES):
    return hugging_face.Reader(found, architecture)
  if found.endswith(keras_files.KERAS_SUFFIXES):
    return keras_files.KerasReader(found, bert_config_file)
  return _CheckpointReader(found)


class _CheckpointReader:
  """Upstream's format; every tensor has upstream's name."""

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
    # Damage shows in many ways, IndexError and RuntimeError among them.
    except Exception as error:
      raise ValueError(
        f"{self.path} is damaged or no checkpoint ({error}); take another one, "
        "or copy it again"
      ) from error

  def source_name(self, name):
    return name


# Writing ----------------------------------------------------------------------


def save(prefix, variables, global_step=None, extra=None):
  """Writes a checkpoint that is complete or not there.

  Args:
    prefix: where; the directory must exist.
    variables: dict from name to variable or array.
    global_step: int stored as int64 `global_step`; left out if None.
    extra: JSON-serialisable dict stored beside the tensors, or None.

  Raises:
    OSError: the disk is full, or cannot be written to.
    ValueError: it could not be read again, see check_path.
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
    _verify(temporary, tensors)
    # The index comes last: a checkpoint exists once its index does.
    for suffix in suffixes:
      tf.io.gfile.rename(temporary + suffix, prefix + suffix, overwrite=True)
  except (tf.errors.OpError, OSError) as error:
    _remove(temporary)
    reason = _first_line(error)
    if "No space left on device" in reason:  # Behind names of operations.
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


def _verify(prefix, tensors):
  """Makes sure that what was written can be read and is on the disk.

  Raises:
    OSError: a tensor differs.
  """
  for path in _files_of(prefix):
    if "://" not in path:
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
  """The rotating `model.ckpt-STEP` checkpoints of one run."""

  def __init__(self, directory, keep_checkpoint_max=5):
    self.directory = directory
    self.keep_checkpoint_max = keep_checkpoint_max

  def save(self, variables, global_step, extra):
    """Writes `model.ckpt-<global_step>`, drops the oldest beyond the limit."""
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
    """Checkpoints of this run, by step, oldest first."""
    by_step = {}
    for path in list_files(self.directory, "model.ckpt-*.index"):
      prefix = path.removesuffix(".index")
      step = os.path.basename(prefix).removeprefix("model.ckpt-")
      if step.isdigit():  # Not so of one that was being written.
        by_step[int(step)] = prefix
    return [by_step[step] for step in sorted(by_step)]

  def _write_state(self, prefixes):
    """The `checkpoint` file, base names only, so the directory can move."""
    names = [os.path.basename(prefix) for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{names[-1]}"'] + [
      f'all_model_checkpoint_paths: "{name}"' for name in names
    ]
    path = os.path.join(self.directory, file_names.CHECKPOINT_STATE)
    files.write_atomically(path, "\n".join(lines) + "\n")
