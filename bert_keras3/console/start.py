"""How a script starts, and how it ends after a mistake or a signal."""

import linecache
import os
import signal
import sys
import tempfile
import traceback

from absl import app
from absl import flags as absl_flags
from absl import logging

from bert_keras3.console import flags
from bert_keras3.training import signals

# Flags are listed under the script that calls `run`, not under this module.
absl_flags.disclaim_key_flags()

_PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# They lie beside the package, where installed projects have files as well.
_ROOT_MODULES = ("modeling", "optimization", "tokenization")


def run(main, config_class):
  """Defines a script's flags, parses the command line and calls `main`.

  Exits with status 1 after one sentence on stderr when the user made a mistake,
  with signals.EXIT_STATUS when a run was asked to stop.

  Args:
    main: function of a config.
    config_class: subclass of fields.Config, whose fields are the flags.
  """
  if main.__module__ != "__main__":
    # A console script's sys.argv[0] is a path absl knows no flags of, and its
    # __main__ has no docstring to show.
    sys.argv[0] = main.__module__
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
  flags.define(config_class)
  app.run(lambda argv: _report_mistakes(main, config_class, argv))


def _report_mistakes(main, config_class, argv):
  script = os.path.splitext(os.path.basename(argv[0]))[0]
  config = None
  try:
    if len(argv) > 1:
      raise ValueError(
        f"unexpected argument {argv[1]!r}; every option starts with --"
      )
    config = flags.read(config_class)
    main(config)
  except signals.Interrupted as stop:
    _end(f"{script}: {stop}{_explain_overwriting(config)}", signals.EXIT_STATUS)
  except KeyboardInterrupt:
    _end(f"{script}: stopped by SIGINT", 128 + signal.SIGINT)
  except BrokenPipeError:
    _end(f"{script}: error: nobody reads the output any more", 1)
  except Exception as error:
    text = _find_sentence(error)
    if not text:
      raise
    _end(f"{script}: error: {text}", 1)


def _end(sentence, status):
  """Ends the process, also when the reader of its output has ended."""
  try:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
    sys.stdout.flush()
  except OSError:
    # Else Python would flush them, fail again and change the status.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
  sys.exit(status)


def _explain_overwriting(config):
  """Warns that the same command with this flag would delete the run."""
  if getattr(config, "overwrite_output_dir", False):
    return ", without --overwrite_output_dir, which would delete this run"
  return ""


def _find_sentence(error):
  """Returns the sentence for the user about an exception, "" for a defect."""
  if isinstance(error, ValueError | OSError) and is_users_mistake(error):
    return str(error)
  # Raised by Python, TensorFlow or a library, all for one cause.
  if "No space left on device" in str(error):
    return "the disk is full; make room and run the same command again"
  return ""


def is_users_mistake(error):
  """Returns whether `error` was raised on purpose, by our own `raise`.

  A ValueError from inside NumPy or TensorFlow is a defect, whose traceback is
  needed; a ValueError that our code raises is a sentence for the user. The
  raising line tells them apart without a class of exceptions that every module,
  the stand-alone `tokenization.py` included, would have to import.
  """
  *_, (frame, line_number) = traceback.walk_tb(error.__traceback__)
  path = os.path.realpath(frame.f_code.co_filename)
  source = linecache.getline(path, line_number).strip()
  return _is_ours(path, frame.f_globals) and source.startswith("raise ")


def _is_ours(path, module_globals):
  """Returns whether a file is of the package or is one of our root files."""
  folder, name = os.path.split(path)
  if os.path.join(folder, "").startswith(os.path.join(_PACKAGE_DIR, "")):
    return True
  is_script = any(x is sys.modules[__name__] for x in module_globals.values())
  is_root_file = is_script or os.path.splitext(name)[0] in _ROOT_MODULES
  return folder == os.path.dirname(_PACKAGE_DIR) and is_root_file


def load_tensorflow():
  """Imports TensorFlow and hides its dozen lines about how it was built.

  They are printed before its log level is in force. Scripts call this once
  their flags are checked; later messages of TensorFlow still show.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as notes:
    os.dup2(notes.fileno(), 2)
    try:
      import tensorflow as tf

      tf.config.list_physical_devices()  # Looks for CUDA and prints about it.
      logging.set_verbosity(logging.WARNING)  # Saving logs its durations.
      tf.get_logger().setLevel("WARNING")  # A strategy logs its reductions.
    except BaseException:
      notes.seek(0)
      os.write(stderr, notes.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
