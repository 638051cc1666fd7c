"""Files: finding inputs, checking outputs, writing whole ones."""

import contextlib
import glob
import os


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


def _gfile():
  """TensorFlow's file functions, which reach remote paths; costs its import."""
  import tensorflow as tf

  return tf.io.gfile


def write_atomically(path, content):
  """Writes a small file so that readers see the old or the new one whole.

  Args:
    path: where, local or remote.
    content: str or bytes.
  """
  with open_atomically(path) as writer:
    writer.write(content)


@contextlib.contextmanager
def open_atomically(path):
  """A file to write that appears under its name only when complete.

  An exception inside the block removes what was written.

  Args:
    path: where, local or remote.

  Yields:
    _gfile().GFile; its `write` takes bytes, and str as UTF-8.
  """
  temporary_path = f"{path}.incomplete-{os.getpid()}"
  try:
    with _gfile().GFile(temporary_path, "wb") as writer:
      writer.write(b"")  # Only this creates the file.
      yield writer
  except BaseException:
    if _gfile().exists(temporary_path):
      _gfile().remove(temporary_path)
    raise
  _gfile().rename(temporary_path, path, overwrite=True)
