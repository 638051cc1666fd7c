"""The output_dir of a run: its files, and the manifest that identifies it."""

import hashlib
import importlib.metadata
import json
import os
import platform

import tensorflow as tf

import tokenization
from bert_keras3.data import files
from bert_keras3.weights import checkpoints
from bert_keras3.weights import file_names

# Flags that are newer than some manifests, and the behaviour before them: the
# values for a manifest or a script without them.
LATER_SETTINGS = {
  "skip_bad_records": False,
  "special_tokens_in_text": "split",
}
# Flags that a resumed run may change; manifests of earlier versions have them.
FORMER_SETTINGS = ("on_nan",)
# Files that a process leaves when it is killed while writing.
LEFTOVERS = "*.incomplete-*"
# Files that --overwrite_output_dir deletes. bert_config.json is not among them:
# it is written again, and --bert_config_file may name this very file.
RUN_FILES = (
  file_names.RUN_MANIFEST,
  "best_model.ckpt.*",
  f"{file_names.WEIGHTS}.*",
  file_names.CHECKPOINT_STATE,
  "confusion_matrix*",
  "eval_log.csv",
  "eval_re*.txt",
  "events.out.tfevents.*",
  file_names.LABELS,
  "model.ckpt-*",
  "nbest_predictions.json",
  "null_odds.json",
  "null_threshold.txt",
  "predictions.json",
  "predictions*.jsonl",
  "record_index.npz",
  "test_results*.tsv",
  "training_log.csv",
  LEFTOVERS,
)


def open_directory(path, settings, data_files, may_write):
  """Opens an output_dir for this process.

  Args:
    path: the directory, local or remote.
    settings: dict from flag name to value of all flags that decide the result.
    data_files: paths of the files that decide the result as well.
    may_write: whether this process may write there: of several workers one may,
      and in a rehearsal none.

  Returns:
    OutputDirectory or ReadOnlyDirectory.

  Raises:
    NotADirectoryError: `path` is a file.
    ValueError: checkpoints there could not be read.
  """
  directory_class = OutputDirectory if may_write else ReadOnlyDirectory
  return directory_class(path, settings, data_files)


class OutputDirectory:
  """An output_dir that knows which run it holds.

  Args: see `open_directory`.
  """

  def __init__(self, path, settings, data_files):
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
      raise NotADirectoryError(
        f"--output_dir={path} is a file; name a directory"
      )
    checkpoints.check_path(path)
    self.path = path
    self.manifest = {
      "settings": settings,
      "data": {file: _fingerprint(file) for file in data_files},
      "versions": _versions(),
      "finished": False,
      "results": {},
    }

  def open(self, overwrite=False):
    """Checks whether the directory holds this run, and how far it is.

    Args:
      overwrite: delete the run in it first.

    Returns:
      "new", "unfinished" or "finished". A directory without a manifest but
      with checkpoints, left by upstream's scripts, is unfinished.

    Raises:
      ValueError: it holds a run with other settings or other data.
    """
    if overwrite:
      self._remove(RUN_FILES)
      return "new"
    manifest = self._read()
    if manifest:
      self._check_same_run(manifest)
      return "finished" if manifest["finished"] else "unfinished"
    checkpoint = os.path.join(self.path, file_names.CHECKPOINT_STATE)
    return "unfinished" if tf.io.gfile.exists(checkpoint) else "new"

  @property
  def log_dir(self):
    """Returns the directory of the training log, None if read-only."""
    return self.path

  def save(self, name, write):
    """Writes a file of the run, in a directory that is made if missing.

    Args:
      name: of the file.
      write: function that gets the path.
    """
    tf.io.gfile.makedirs(self.path)
    write(os.path.join(self.path, name))

  def write(self, name, content):
    """Writes a str or bytes as a file of the run."""
    self.save(name, lambda path: files.write_atomically(path, content))

  def copy(self, source, name):
    """Copies a file into the run, unless it lies there already."""
    path = os.path.join(self.path, name)
    if os.path.realpath(source) != os.path.realpath(path):
      self.save(
        name, lambda path: tf.io.gfile.copy(source, path, overwrite=True)
      )

  def tell(self, text):
    """Prints a line about the run."""
    print(text)

  def perform(self, action, *args):
    """Calls a function that writes elsewhere, such as an export."""
    action(*args)

  def copy_vocab(self, vocab_file):
    """Copies the vocabulary as vocab.txt, converting one in JSON."""
    if not vocab_file.endswith(".json"):
      self.copy(vocab_file, file_names.VOCAB)
      return
    tokens = tokenization.read_vocab(vocab_file)
    self.write(file_names.VOCAB, "".join(f"{token}\n" for token in tokens))

  def check_settings(self, names):
    """Checks that the run in the directory, if any, had these settings.

    Args:
      names: settings that must have the values of this run.

    Raises:
      ValueError: the run in the directory has another value.
    """
    manifest = self._read()
    if not manifest:
      return
    saved, own = _settings(manifest), _settings(self.manifest)
    for name in names:
      if saved.get(name) != own.get(name):
        raise ValueError(
          f"{self.path} holds a model trained with --{name}="
          f"{saved.get(name)}, not {own.get(name)}; pass that, or choose the "
          "--output_dir of the right run"
        )

  @property
  def is_finished(self):
    """Returns whether training has ended here."""
    manifest = self._read()
    return bool(manifest and manifest["finished"])

  def claim(self):
    """Writes the manifest; training calls it before its first step."""
    self._remove([LEFTOVERS])
    self.write(file_names.RUN_MANIFEST, _to_json(self.manifest))

  def record(self, results, finished=False):
    """Adds results to the manifest of the run that trained here, if any."""
    manifest = self._read()
    if manifest:
      manifest["results"].update(results)
      manifest["finished"] = manifest["finished"] or finished
      self.write(file_names.RUN_MANIFEST, _to_json(manifest))

  def _remove(self, patterns):
    """Deletes the files that match patterns, and nothing else."""
    for pattern in patterns:
      for file in checkpoints.list_files(self.path, pattern):
        tf.io.gfile.remove(file)

  def _read(self):
    path = os.path.join(self.path, file_names.RUN_MANIFEST)
    if not tf.io.gfile.exists(path):
      return None
    try:
      manifest = files.read_json(path, "{problem}")
      problem = _find_problem(manifest)
    except (ValueError, OSError) as error:
      problem = str(error)
    if problem:
      raise ValueError(
        f"{path} is damaged ({problem}); bring back a copy of it, or pass "
        "--overwrite_output_dir to delete that run"
      )
    return manifest

  def _check_same_run(self, manifest):
    remedy = "choose another --output_dir, or pass --overwrite_output_dir"
    saved, own = _settings(manifest), _settings(self.manifest)
    different = [
      f"--{name}={saved.get(name)} (now {own.get(name)})"
      for name in sorted({*saved, *own})
      if saved.get(name) != own.get(name)
    ]
    if different:
      raise ValueError(
        f"{self.path} holds a run with {', '.join(different)}; {remedy} to "
        "delete that run"
      )
    saved, own = manifest["data"], self.manifest["data"]
    changed = [x for x in {**saved, **own} if saved.get(x) != own.get(x)]
    if changed:
      raise ValueError(
        f"{changed[0]} is not what the run in {self.path} was started with; "
        f"{remedy} to delete that run"
      )


class ReadOnlyDirectory(OutputDirectory):
  """An output_dir to which this process may not write."""

  log_dir = None

  def save(self, name, write):
    """Does nothing."""

  def tell(self, text):
    """Does nothing."""

  def perform(self, action, *args):
    """Does nothing."""

  def _remove(self, patterns):
    """Does nothing."""


def _find_problem(manifest):
  """Says what a manifest lacks, None if nothing."""
  if not isinstance(manifest, dict):
    return "not a JSON object"
  for name in ("settings", "data", "results"):
    if not isinstance(manifest.get(name), dict):
      return f"its {name!r} are no JSON object"
  if not isinstance(manifest.get("finished"), bool):
    return "it does not say whether the run is 'finished'"
  return None


def _settings(manifest):
  settings = {**LATER_SETTINGS, **manifest["settings"]}
  return {k: v for k, v in settings.items() if k not in FORMER_SETTINGS}


def _to_json(manifest):
  return json.dumps(manifest, indent=2) + "\n"


def _fingerprint(path):
  """Returns the size of a file and a hash of its first and last MiB."""
  gfile = tf.io.gfile
  end_bytes = 1 << 20
  size = gfile.stat(path).length
  with gfile.GFile(path, "rb") as file:
    digest = hashlib.sha256(file.read(end_bytes))
    file.seek(max(0, size - end_bytes))
    digest.update(file.read(end_bytes))
  return {"bytes": size, "sha256_of_ends": digest.hexdigest()}


def _versions():
  packages = ("tensorflow", "keras", "numpy")
  return {
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in packages},
  }
