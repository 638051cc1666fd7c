"""Flags shared by the scripts, how a script starts, where its run lives.

A script declares its flags in `define_flags()` and does its work in `main`:

    def cli():
      cli_flags.run(main, define_flags)

so that importing a script defines no flag, and two scripts can live in one
process. Nothing here imports TensorFlow: `--help` and a wrong flag answer at
once.
"""

import dataclasses
import glob
import hashlib
import importlib.metadata
import json
import linecache
import os
import platform
import sys
import tempfile
import traceback

from absl import app
from absl import flags

FLAGS = flags.FLAGS

# Flags defined by this module's functions are listed under the script that
# called them, not under "cli_flags", in --help.
flags.disclaim_key_flags()

_PROJECT_DIR = os.path.dirname(os.path.abspath(__file__))


def run(main, define_flags):
  """Defines a script's flags, parses the command line and calls `main()`.

  Exits with status 1 after one sentence on stderr when the user made a mistake.

  Args:
    main: function without arguments.
    define_flags: function without arguments that calls `flags.DEFINE_*`.
  """
  if main.__module__ != "__main__":
    # A console script's sys.argv[0] is a path absl knows no flags of, and its
    # __main__ has no docstring to show.
    sys.argv[0] = main.__module__
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
  define_flags()
  app.run(lambda argv: _report_mistakes(main, argv))


def _report_mistakes(main, argv):
  script = os.path.splitext(os.path.basename(argv[0]))[0]
  try:
    if len(argv) > 1:
      raise ValueError(
        f"unexpected argument {argv[1]!r}; every option starts with --"
      )
    main()
  except (ValueError, OSError) as error:
    if not is_users_mistake(error):
      raise
    sys.stderr.write(f"{script}: error: {error}\n")
    sys.exit(1)


def is_users_mistake(error):
  """Whether `error` was raised on purpose, by a `raise` of this project.

  A ValueError from inside NumPy or TensorFlow is a defect, whose traceback
  somebody needs; one that our code raises is a sentence for the user. Looking
  at the raising line tells them apart without a class of exceptions that every
  module, the stand-alone `tokenization.py` included, would have to import.
  """
  *_, (frame, line_number) = traceback.walk_tb(error.__traceback__)
  path = os.path.abspath(frame.f_code.co_filename)
  source = linecache.getline(path, line_number).strip()
  in_project = os.path.dirname(path) == _PROJECT_DIR
  return in_project and source.startswith("raise ")


def load_tensorflow():
  """Imports TensorFlow without its dozen lines about how it was built.

  They are written before its log level is in force. Scripts call this once
  their flags are checked; what TensorFlow says later still shows.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as notes:
    os.dup2(notes.fileno(), 2)
    try:
      import tensorflow as tf

      tf.config.list_physical_devices()  # Looks for CUDA, and tells.
      tf.get_logger().setLevel("WARNING")  # A strategy tells its reductions.
    except BaseException:
      notes.seek(0)
      os.write(stderr, notes.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)


# Files named by flags ---------------------------------------------------------


def find_files(flag, patterns):
  """Files that match comma-separated patterns, in the patterns' order.

  The files of one pattern are sorted. (Upstream takes them in the order of the
  file system, so that its records can differ between two machines.)

  Args:
    flag: name of the flag the patterns come from, for the error.
    patterns: globs, local or with a scheme such as "gs://".

  Raises:
    FileNotFoundError: a pattern matches nothing.
  """
  files = []
  for pattern in patterns.split(","):
    find = _gfile().glob if "://" in pattern else glob.glob
    matches = sorted(find(pattern))
    if not matches:
      raise FileNotFoundError(
        f"--{flag}: no file matches {pattern!r}; check the path"
      )
    files.extend(matches)
  return files


def check_output_files(flag, output_files, input_files):
  """Finds out before the work whether its result can be written.

  Raises:
    NotADirectoryError: an output file's directory cannot be written to.
    IsADirectoryError: an output file is a directory.
    ValueError: a file is given twice, or is an input file as well.
  """
  inputs = set(map(os.path.realpath, input_files))
  for path in output_files:
    directory = os.path.dirname(path) or "."
    if "://" not in path and not os.access(directory, os.W_OK):
      raise NotADirectoryError(
        f"--{flag}={path}: {directory} is no directory that can be written to; "
        "create it or choose another"
      )
    if not os.path.basename(path) or os.path.isdir(path):
      raise IsADirectoryError(
        f"--{flag}={path}: not the name of a file; add one"
      )
    if output_files.count(path) > 1 or os.path.realpath(path) in inputs:
      raise ValueError(
        f"--{flag}={path} is also another output or an input; rename it"
      )


# Flag groups ------------------------------------------------------------------


def define_model_flags():
  """--bert_config_file, --init_checkpoint, --output_dir."""
  flags.DEFINE_string(
    "bert_config_file",
    None,
    "JSON file with the architecture of the model.",
    required=True,
  )
  flags.DEFINE_string(
    "init_checkpoint",
    None,
    "Weights to start from: a checkpoint prefix, or a directory with one.",
  )
  flags.DEFINE_string(
    "output_dir",
    None,
    "Directory for checkpoints, logs and results; made if missing.",
    required=True,
  )


def define_training_flags():
  """What every script that trains can be told."""
  _define_optimization_flags()
  _define_run_flags()


def _define_optimization_flags():
  flags.DEFINE_integer(
    "train_batch_size",
    32,
    "Examples per update, over all devices and micro-batches.",
    lower_bound=1,
  )
  flags.DEFINE_float(
    "learning_rate", 5e-5, "Highest learning rate.", lower_bound=0.0
  )
  flags.DEFINE_integer(
    "gradient_accumulation_steps",
    1,
    "Micro-batches a batch is computed in, to fit into memory. The result is "
    "that of the whole batch.",
    lower_bound=1,
  )
  flags.DEFINE_enum(
    "optimizer",
    "adamw",
    ["adamw", "lamb"],
    "BERT's Adam with weight decay, or LAMB for large batches.",
  )
  flags.DEFINE_enum(
    "schedule",
    "linear",
    ["linear", "polynomial", "cosine", "constant"],
    "How the learning rate falls after the warmup.",
  )
  flags.DEFINE_float(
    "schedule_power",
    0.5,  # of the LAMB recipes published with BERT; 1 would be linear
    "Exponent of --schedule=polynomial.",
    lower_bound=0.0,
  )


def _define_run_flags():
  flags.DEFINE_integer(
    "seed",
    0,
    "Fixes initial weights, the order of the examples and dropout.",
    lower_bound=0,
    # It shares a 64-bit word with the replica's number.
    upper_bound=2**32 - 1,
  )
  flags.DEFINE_integer(
    "save_checkpoints_steps", 1000, "Steps between checkpoints.", lower_bound=1
  )
  flags.DEFINE_integer(
    "keep_checkpoint_max",
    5,
    "Newest checkpoints to keep; 0 keeps all.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "iterations_per_loop",
    1000,
    "Steps TensorFlow takes between returns to Python, at most.",
    lower_bound=1,
  )
  flags.DEFINE_integer(
    "log_every_steps", 100, "Steps between lines of the log.", lower_bound=1
  )
  flags.DEFINE_bool(
    "overwrite_output_dir",
    False,
    "Delete the run that --output_dir holds and start anew.",
  )
  flags.DEFINE_bool(
    "dry_run",
    False,
    "Check flags, files, model and checkpoint, then stop without writing.",
  )


def define_device_flags():
  """Where to run, and in which arithmetic."""
  flags.DEFINE_enum(
    "distribution_strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "auto takes all local GPUs, else one device; multi_worker reads the "
    "cluster from the environment variable TF_CONFIG.",
  )
  flags.DEFINE_integer(
    "num_devices",
    None,
    "Local devices to use. Without GPUs, logical CPUs to make.",
    lower_bound=1,
  )
  flags.DEFINE_enum(
    "mixed_precision",
    "float32",
    ["float32", "bfloat16", "float16"],
    "Arithmetic of the layers; weights, statistics and losses stay float32.",
  )
  flags.DEFINE_enum(
    "xla",
    "auto",
    ["auto", "true", "false"],
    "Compile the step with XLA; auto does on GPUs.",
  )
  flags.DEFINE_bool(
    "deterministic",
    False,
    "Use only deterministic kernels: same seed, same weights, bit by bit.",
  )
  flags.DEFINE_bool("use_tpu", False, "Same as --distribution_strategy=tpu.")
  flags.DEFINE_string("tpu_name", None, "Name or grpc:// address of the TPU.")
  flags.DEFINE_string("tpu_zone", None, "Cloud zone of the TPU.")
  flags.DEFINE_string("gcp_project", None, "Cloud project of the TPU.")
  flags.DEFINE_string(
    "master", None, "Address of the TPU's master; goes before --tpu_name."
  )
  flags.DEFINE_integer(
    "num_tpu_cores", 8, "Cores of the TPU to use, at most.", lower_bound=1
  )


def device_config():
  """The device flags as a training_loop.DeviceConfig."""
  import training_loop

  strategy = "tpu" if FLAGS.use_tpu else FLAGS.distribution_strategy
  return training_loop.DeviceConfig(
    distribution_strategy=strategy,
    num_devices=FLAGS.num_devices,
    mixed_precision=FLAGS.mixed_precision,
    xla=FLAGS.xla,
    deterministic=FLAGS.deterministic,
    tpu_name=FLAGS.master or FLAGS.tpu_name,
    tpu_zone=FLAGS.tpu_zone,
    gcp_project=FLAGS.gcp_project,
    num_tpu_cores=FLAGS.num_tpu_cores,
  )


def training_config(num_train_steps, num_warmup_steps):
  """The training flags as a training_loop.TrainingConfig."""
  import optimization
  import training_loop

  return training_loop.TrainingConfig(
    output_dir=FLAGS.output_dir,
    schedule=optimization.LearningRateSchedule(
      init_lr=FLAGS.learning_rate,
      num_train_steps=num_train_steps,
      num_warmup_steps=num_warmup_steps,
      decay=FLAGS.schedule,
      power=FLAGS.schedule_power,
    ),
    train_batch_size=FLAGS.train_batch_size,
    optimizer=FLAGS.optimizer,
    gradient_accumulation_steps=FLAGS.gradient_accumulation_steps,
    seed=FLAGS.seed,
    iterations_per_loop=FLAGS.iterations_per_loop,
    save_checkpoints_steps=FLAGS.save_checkpoints_steps,
    keep_checkpoint_max=FLAGS.keep_checkpoint_max,
    log_every_steps=FLAGS.log_every_steps,
  )


# A run and its directory ------------------------------------------------------

MANIFEST = "run_manifest.json"
# What --overwrite_output_dir deletes. bert_config.json is written again anyway,
# and may be the very file that --bert_config_file names.
RUN_FILES = (
  MANIFEST,
  "bert_model.ckpt.*",
  "checkpoint",
  "eval_results.txt",
  "events.out.tfevents.*",
  "model.ckpt-*",
  "record_index.npz",
  "training_log.csv",
)
# Flags of the groups above that change the weights a run ends with. The number
# and kind of devices is not among them: a run may move.
TRAINING_SETTINGS = (
  "bert_config_file",
  "init_checkpoint",
  "train_batch_size",
  "learning_rate",
  "gradient_accumulation_steps",
  "optimizer",
  "schedule",
  "schedule_power",
  "seed",
  "mixed_precision",
)


def flag_values(names):
  """Dict from flag name to its value on this command line."""
  return {name: FLAGS[name].value for name in names}


def read(config_class):
  """Builds a dataclass from the flags that its fields are named after."""
  names = [field.name for field in dataclasses.fields(config_class)]
  return config_class(**flag_values(names))


class RunDirectory:
  """An output_dir that knows which run it holds.

  Args:
    path: the directory, local or remote.
    settings: dict from flag name to value of all flags that decide the result.
    data_files: paths of the files that decide it too.
    is_writer: whether this process may write; with several, one may.

  Raises:
    NotADirectoryError: `path` is a file.
  """

  def __init__(self, path, settings, data_files, is_writer=True):
    if _gfile().exists(path) and not _gfile().isdir(path):
      raise NotADirectoryError(
        f"--output_dir={path} is a file; name a directory"
      )
    self.path = path
    self.is_writer = is_writer
    self.manifest = {
      "settings": settings,
      "data": {file: _fingerprint(file) for file in data_files},
      "versions": _versions(),
      "finished": False,
      "results": {},
    }

  def open(self, overwrite=False):
    """Finds out what the directory holds.

    Args:
      overwrite: delete the run in it first.

    Returns:
      "new", "unfinished" or "finished". A directory without a manifest but
      with checkpoints, left by upstream's scripts, is unfinished.

    Raises:
      ValueError: it holds a run with other settings or other data.
    """
    if overwrite:
      self._clear()
      return "new"
    found = self._read()
    if found:
      self._check_same_run(found)
      return "finished" if found["finished"] else "unfinished"
    checkpoint = os.path.join(self.path, "checkpoint")
    return "unfinished" if _gfile().exists(checkpoint) else "new"

  def write(self, name, text):
    """Writes a text file of the run."""
    import input_pipeline

    if self.is_writer:
      _gfile().makedirs(self.path)
      input_pipeline.write_atomically(os.path.join(self.path, name), text)

  def claim(self):
    """Writes the manifest; training calls it before its first step."""
    self.write(MANIFEST, _to_json(self.manifest))

  def record(self, results, finished=False):
    """Adds results to the manifest of the run that trained here, if any."""
    found = self._read()
    if found:
      found["results"].update(results)
      found["finished"] = found["finished"] or finished
      self.write(MANIFEST, _to_json(found))

  def _clear(self):
    """Deletes the files of a run, and nothing else."""
    import checkpoint_io

    if self.is_writer:
      for pattern in RUN_FILES:
        for file in checkpoint_io.list_files(self.path, pattern):
          _gfile().remove(file)

  def _read(self):
    path = os.path.join(self.path, MANIFEST)
    if not _gfile().exists(path):
      return None
    with _gfile().GFile(path) as reader:
      return json.load(reader)

  def _check_same_run(self, found):
    remedy = "choose another --output_dir, or pass --overwrite_output_dir"
    theirs, ours = found["settings"], self.manifest["settings"]
    different = [
      f"--{name}={theirs.get(name)} (now {ours.get(name)})"
      for name in sorted({*theirs, *ours})
      if theirs.get(name) != ours.get(name)
    ]
    if different:
      raise ValueError(
        f"{self.path} holds a run with {', '.join(different)}; {remedy} to "
        "delete that run"
      )
    theirs, ours = found["data"], self.manifest["data"]
    changed = [
      file for file in {**theirs, **ours} if theirs.get(file) != ours.get(file)
    ]
    if changed:
      raise ValueError(
        f"{changed[0]} is not what the run in {self.path} was started with; "
        f"{remedy} to delete that run"
      )


def _to_json(manifest):
  return json.dumps(manifest, indent=2) + "\n"


def _gfile():
  """TensorFlow's file functions, which reach remote paths; costs its import."""
  import tensorflow as tf

  return tf.io.gfile


def _fingerprint(path):
  """Size and a hash of a file; of a large one, of its first and last MiB."""
  gfile = _gfile()
  end_bytes = 1 << 20
  size = gfile.stat(path).length
  with gfile.GFile(path, "rb") as reader:
    digest = hashlib.sha256(reader.read(end_bytes))
    reader.seek(max(0, size - end_bytes))
    digest.update(reader.read(end_bytes))
  return {"bytes": size, "sha256_of_ends": digest.hexdigest()}


def _versions():
  packages = ("tensorflow", "keras", "numpy")
  return {
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in packages},
  }
