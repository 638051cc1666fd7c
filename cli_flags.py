"""Flags shared by the scripts, how a script starts, how its errors are shown.

A script declares its flags in `define_flags()` and does its work in `main`:

    def cli():
      cli_flags.run(main, define_flags)

so that importing a script defines no flag, and two scripts can live in one
process. Nothing here imports TensorFlow: `--help` and a wrong flag answer at
once.
"""

import linecache
import os
import sys
import traceback

from absl import app
from absl import flags

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
    # A console script's sys.argv[0] is a path absl knows no flags of.
    sys.argv[0] = main.__module__
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
