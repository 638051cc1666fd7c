"""Finds inputs, checks outputs, writes files atomically, reads JSON.

Paths are local or remote, with a scheme such as "gs://". Only remote ones need
TensorFlow, whose import takes seconds.
"""

import contextlib
import glob
import json
import os
import secrets

import tokenization

# Finding and checking ---------------------------------------------------------


def find_files(flag, patterns):
  """Lists the files that match comma-separated patterns, in their order.

  The files of one pattern are sorted. (Upstream takes them in the order of the
  file system, so that its records can differ between two machines.)

  Args:
    flag: name of the flag that holds the patterns, for the error.
    patterns: globs, local or with a scheme such as "gs://".

  Raises:
    FileNotFoundError: a pattern matches nothing.
  """
  files = []
  for pattern in patterns.split(","):
    find = _gfile().glob if is_remote(pattern) else glob.glob
    matches = sorted(find(pattern))
    if not matches:
      raise FileNotFoundError(
        f"--{flag}: no file matches {pattern!r}; check the path"
      )
    files.extend(matches)
  return files


def check_output_files(flag, output_files, input_files):
  """Checks, before the work begins, that its results can be written.

  Raises:
    NotADirectoryError: an output file's directory cannot be written to.
    IsADirectoryError: an output file is a directory.
    ValueError: a file is given twice, or is an input file as well.
  """
  inputs = set(map(os.path.realpath, input_files))
  for path in output_files:
    directory = os.path.dirname(path) or "."
    if not is_remote(path) and not os.access(directory, os.W_OK):
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


def write_into(flag, folder, name, content):
  """Writes a whole file into a folder, which is made if it is missing.

  Args:
    flag: name of the flag the folder comes from, for the error.
    folder: path, local or remote.
    name: of the file.
    content: str or bytes.

  Raises:
    NotADirectoryError: the folder is a file.
  """
  if is_remote(folder):
    _gfile().makedirs(folder)
  elif os.path.exists(folder) and not os.path.isdir(folder):
    raise NotADirectoryError(f"--{flag}={folder} is a file; name a directory")
  else:
    os.makedirs(folder, exist_ok=True)
  write_atomically(os.path.join(folder, name), content)


def is_remote(path):
  """Returns whether a path has a scheme, so that only TensorFlow reads it."""
  return "://" in os.fspath(path)


def file_size(path):
  """Returns the size in bytes of a file, local or remote."""
  if is_remote(path):
    return _gfile().stat(path).length
  return os.path.getsize(path)


def exists(path):
  """Returns whether there is a file or directory, local or remote."""
  return _gfile().exists(path) if is_remote(path) else os.path.exists(path)


def _gfile():
  """Imports TensorFlow's file functions, which reach remote paths."""
  import tensorflow as tf

  return tf.io.gfile


# Writing ----------------------------------------------------------------------


def write_atomically(path, content):
  """Writes a small file atomically: others read the old or the new one whole.

  Args:
    path: local or remote.
    content: str or bytes.
  """
  with open_atomically(path) as writer:
    writer.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def open_atomically(path):
  """Opens a file that appears under its name only when complete.

  An exception inside the block deletes the unfinished file.

  Args:
    path: local or remote.

  Yields:
    A file whose `write` takes bytes.
  """
  with replacing(path) as temporary_path:
    open_file = _gfile().GFile if is_remote(path) else open
    with open_file(temporary_path, "wb") as writer:
      writer.write(b"")  # Only this creates a remote file.
      yield writer


@contextlib.contextmanager
def replacing(path):
  """Yields a temporary path; a file written there is renamed to `path`.

  An exception inside the block deletes the file instead.

  Args:
    path: of a file, local or remote; it may exist.

  Yields:
    str, the path of a file that does not exist, in the same directory.
  """
  temporary_path = temporary_name(path)
  try:
    yield temporary_path
  except BaseException:
    if exists(temporary_path):
      remove = _gfile().remove if is_remote(path) else os.remove
      remove(temporary_path)
    raise
  if is_remote(path):
    _gfile().rename(temporary_path, path, overwrite=True)
  else:
    os.replace(temporary_path, path)


@contextlib.contextmanager
def replacing_directory(path):
  """Replaces a directory as `replacing` does a file: whole or not at all.

  An old directory at `path` is deleted once the new one is complete.

  Args:
    path: of the directory, local or remote.

  Yields:
    str, the path of a directory to create.
  """
  # With a final slash, the new directory would be inside the old one.
  path = path.rstrip("/")
  gfile = _gfile()
  temporary_path = temporary_name(path)
  try:
    yield temporary_path
  except BaseException:
    if gfile.exists(temporary_path):
      gfile.rmtree(temporary_path)
    raise
  old_path = f"{path}.old-{os.getpid()}"
  is_old = gfile.exists(path)
  if is_old:
    gfile.rename(path, old_path)
  gfile.rename(temporary_path, path)
  if is_old:
    gfile.rmtree(old_path)


def temporary_name(path):
  """Makes a name beside `path` that no other process or thread makes.

  A later run deletes files with these names that a killed run has left.
  """
  return f"{path}.incomplete-{os.getpid()}-{secrets.token_hex(4)}"


# JSON -------------------------------------------------------------------------


def read_json(path, damage="{path} is not valid JSON: {problem}"):
  """Reads a JSON file.

  Args:
    path: local or remote.
    damage: message for a file that is not JSON, with {path} and {problem}.

  Raises:
    FileNotFoundError: there is no such file.
    OSError: the file cannot be read.
    ValueError: the file is not JSON.
  """
  try:
    with tokenization.open_bytes(path) as file:
      content = file.read()
  except Exception as error:
    # TensorFlow's errors about remote files are no OSErrors.
    if not is_remote(path) or isinstance(error, OSError):
      raise
    raise OSError(f"{path} cannot be read: {error}") from error
  try:
    return parse_json(content)
  except ValueError as error:
    raise ValueError(damage.format(path=path, problem=error)) from error


def parse_json(content):
  """Decodes JSON.

  Args:
    content: str or bytes.

  Raises:
    ValueError: `content` is not JSON, not UTF-8, nested too deeply, or has an
      integer of over 4,300 digits.
  """
  try:
    return json.loads(content)
  except RecursionError as error:
    raise ValueError(str(error)) from error
