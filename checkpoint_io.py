"""Weights in and out of upstream's checkpoint format.

A checkpoint is `PREFIX.index` and `PREFIX.data-00000-of-00001`, tensors under
TF1 variable names, which upstream and every converter read. Beside it a small
`PREFIX.json` may hold what is no tensor. Loading matches in full: what cannot
be loaded is an error or a line of the report, never silence.
"""

import dataclasses
import fnmatch
import json
import os

import tensorflow as tf

GLOBAL_STEP = "global_step"
SLOT_SUFFIXES = ("/adam_m", "/adam_v")
_FILE_SUFFIXES = (".data-00000-of-00001", ".index")


# Finding ----------------------------------------------------------------------


def resolve(path):
  """Turns what a user may pass as a checkpoint into a prefix.

  Args:
    path: a prefix (`bert_model.ckpt`), one of its files, a directory with a
      `checkpoint` file or a `bert_model.ckpt`, or that `checkpoint` file.

  Raises:
    FileNotFoundError: there is no checkpoint.
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
  raise FileNotFoundError(
    f"no checkpoint at {path}; expected a prefix such as "
    "DIR/bert_model.ckpt (with .index and .data files beside it) or a "
    "directory with a `checkpoint` file"
  )


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

  prefix: str
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
    ValueError: a shape differs, or the encoder is not complete.
  """
  prefix = resolve(path)
  reader = tf.train.load_checkpoint(prefix)
  shapes = reader.get_variable_to_shape_map()
  missing = [name for name in variables if name not in shapes]
  required = [
    name
    for name in missing
    if name.startswith("bert/") and not name.startswith("bert/pooler/")
  ]
  if required:
    raise ValueError(
      f"{prefix} is no checkpoint of this BERT: it lacks {len(required)} "
      f"encoder variables, {required[0]} first; check that the BERT config "
      "belongs to the checkpoint"
    )
  loaded = [name for name in variables if name in shapes]
  _assign(variables, loaded, reader, prefix)
  return LoadReport(
    prefix=prefix,
    loaded=tuple(loaded),
    initialised=tuple(missing),
    ignored={
      name: _why_ignored(name) for name in shapes if name not in variables
    },
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
  prefix = resolve(path)
  reader = tf.train.load_checkpoint(prefix)
  for name in [*variables, GLOBAL_STEP]:
    if not reader.has_tensor(name):
      raise ValueError(
        f"{prefix} cannot be resumed: it has no {name}; start from it with "
        "--init_checkpoint in another output_dir"
      )
  _assign(variables, variables, reader, prefix)
  return int(reader.get_tensor(GLOBAL_STEP)), _read_extra(prefix)


def read_global_step(path):
  """Step of the run that wrote a checkpoint, 0 if it does not say."""
  reader = tf.train.load_checkpoint(resolve(path))
  if not reader.has_tensor(GLOBAL_STEP):
    return 0
  return int(reader.get_tensor(GLOBAL_STEP))


def _assign(variables, names, reader, prefix):
  shapes = reader.get_variable_to_shape_map()
  for name in names:
    expected = list(variables[name].shape)
    if shapes[name] != expected:
      raise ValueError(
        f"{prefix}: {name} has shape {shapes[name]}, the model needs "
        f"{expected}; the BERT config or the vocabulary is that of another "
        "checkpoint"
      )
  for name in names:
    variables[name].assign(reader.get_tensor(name))


def _read_extra(prefix):
  if not tf.io.gfile.exists(prefix + ".json"):
    return {}
  with tf.io.gfile.GFile(prefix + ".json") as reader:
    return json.load(reader)


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
