"""Flags: the command line of a config, defined and read.

    flags.define(ClassifierConfig)
    config = flags.read(ClassifierConfig)

The fields of a config (data/fields.py) are the flags' only declaration. Nothing
here imports TensorFlow: `--help` and a wrong flag answer at once.
"""

from absl import flags

from bert_keras3.data import fields

FLAGS = flags.FLAGS

# Flags are listed under the script that called, not under this module, in
# --help.
flags.disclaim_key_flags()


def define(config_class):
  """Defines the flags of a config.

  Args:
    config_class: subclass of fields.Config.
  """
  for field, declared in fields.flags_of(config_class):
    _define(field, declared)


def _define(field, declared):
  kind = fields.value_type(field)
  name, default = field.name, field.default
  required = declared.is_required
  if kind is tuple:
    definer = flags.DEFINE_list
    if declared.is_repeated:
      definer = flags.DEFINE_multi_string
    definer(name, list(default), declared.help, required=required)
  elif declared.choices:
    flags.DEFINE_enum(
      name, default, list(declared.choices), declared.help, required=required
    )
  elif kind in (int, float):
    definer = flags.DEFINE_integer if kind is int else flags.DEFINE_float
    definer(
      name,
      default,
      declared.help,
      lower_bound=declared.lower_bound,
      upper_bound=declared.upper_bound,
      required=required,
    )
  else:
    definer = {bool: flags.DEFINE_bool, str: flags.DEFINE_string}[kind]
    definer(name, default, declared.help, required=required)


def read(config_class):
  """Builds a config from the command line.

  Args:
    config_class: subclass of fields.Config that `define` has defined.
  """
  names = [field.name for field, _ in fields.flags_of(config_class)]
  values = {name: FLAGS[name].value for name in names}
  given = frozenset(name for name in names if FLAGS[name].present)
  return config_class(
    **{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in values.items()
    },
    given=given,
  )
