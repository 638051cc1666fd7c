"""The list of flags in docs, written from their declarations.

python -m bert_keras3.console.flag_docs docs/flags.md
"""

import importlib
import pathlib
import sys

from bert_keras3.data import fields
from bert_keras3.data import files

_HEAD = """# Flags

Written by `make docs` from the configs in the scripts; do not edit. A flag is
also a field of its script's config. Flags marked with * are recorded in an
output_dir: a run that is resumed must have the same values.
"""


def describe(scripts):
  """Lists the flags of scripts, a table for each.

  Args:
    scripts: modules with a `cli` and a config.

  Returns:
    The text of docs/flags.md.
  """
  return "\n".join([_HEAD, *map(_describe_script, scripts)])


def find_config(script):
  """Returns the config class that a script declares."""
  (config_class,) = (
    value
    for value in vars(script).values()
    if isinstance(value, type)
    and issubclass(value, fields.Config)
    and value.__module__ == script.__name__
  )
  return config_class


def find_scripts(folder):
  """Imports the scripts of a folder: its files that have a `cli`."""
  names = sorted(
    path.stem
    for path in pathlib.Path(folder).glob("*.py")
    if "\ndef cli():" in path.read_text(encoding="utf-8")
  )
  return [importlib.import_module(name) for name in names]


def _describe_script(script):
  title, *_ = script.__doc__.partition("\n")
  rows = [
    _describe_flag(field, declared)
    for field, declared in fields.flags_of(find_config(script))
  ]
  return "\n".join(
    [
      f"## {script.__name__}.py",
      "",
      title,
      "",
      "| flag | type | default | meaning |",
      "|---|---|---|---|",
      *sorted(rows),
      "",
    ]
  )


def _describe_flag(field, declared):
  kind = fields.value_type(field).__name__.replace("tuple", "list")
  if declared.choices:
    kind = ", ".join(f"`{choice}`" for choice in declared.choices)
  mark = "*" if declared.decides_result else ""
  return (
    f"| `--{field.name}`{mark} | {kind}{_describe_bounds(declared)} | "
    f"{_describe_default(field, declared)} | {declared.help} |"
  )


def _describe_bounds(declared):
  low, high = declared.lower_bound, declared.upper_bound
  if low is None:
    return ""
  return f", {low} to {high}" if high is not None else f", from {low}"


def _describe_default(field, declared):
  if declared.is_required:
    return "required"
  default = field.default
  if isinstance(default, tuple):
    default = ",".join(default)
  return "" if default in (None, "") else f"`{default}`"


if __name__ == "__main__":
  files.write_atomically(sys.argv[1], describe(find_scripts(".")))
