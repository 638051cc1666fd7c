"""Declares the fields of a config, each with all that its flag needs.

    @dataclasses.dataclass(frozen=True)
    class DataConfig(fields.Config):
      max_seq_length: int = fields.flag(
        128, "Tokens of a record.", lower_bound=1, decides_result=True
      )

A config is an ordinary frozen dataclass. `console.flags` derives the command
line from it, a run's manifest stores the fields that decide its result, and the
list of flags in docs is generated from it.
"""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Flag:
  """Declares a flag, except for its name, type and default.

  Attributes:
    help: text of `--help`.
    lower_bound: smallest number allowed, None for any.
    upper_bound: largest number allowed, None for any.
    choices: strings allowed, () for any.
    is_required: whether a command line must have the flag.
    is_repeated: whether the flag is repeated for each value of a tuple, instead
      of separating them with commas.
    decides_result: whether other values give other weights, so that a resumed
      run must have the same value.
  """

  help: str
  lower_bound: float | None = None
  upper_bound: float | None = None
  choices: tuple[str, ...] = ()
  is_required: bool = False
  is_repeated: bool = False
  decides_result: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
  """Holds the values of a script's flags; the base of all configs.

  Attributes:
    given: names of the flags on the command line.
  """

  given: frozenset[str] = dataclasses.field(default=frozenset(), kw_only=True)


def flag(default, help_text, **options):
  """Declares a field that is a flag.

  Args:
    default: value of the field and the flag.
    help_text: str.
    **options: further attributes of Flag.
  """
  return dataclasses.field(
    default=default, metadata={"flag": Flag(help_text, **options)}
  )


def variant(config_class, name, default=dataclasses.MISSING, **changes):
  """Declares a field of another config again, with changes.

  Args:
    config_class: config that declares the field.
    name: of the field.
    default: new default, if it changes.
    **changes: new values for attributes of Flag.
  """
  base = config_class.__dataclass_fields__[name]
  if default is dataclasses.MISSING:
    default = base.default
  changed = dataclasses.replace(base.metadata["flag"], **changes)
  return dataclasses.field(default=default, metadata={"flag": changed})


def flags_of(config_class):
  """Lists (dataclass field, Flag) of the fields that are flags."""
  return [
    (field, field.metadata["flag"])
    for field in dataclasses.fields(config_class)
    if "flag" in field.metadata
  ]


def value_type(field):
  """Returns the type of a field's values: `int` of `int | None`."""
  kinds = [x for x in typing.get_args(field.type) if x is not type(None)]
  if typing.get_origin(field.type) is tuple or not kinds:
    return typing.get_origin(field.type) or field.type
  return kinds[0]


def settings(config):
  """Returns {flag: value} of the flags that decide a run's result."""
  return {
    field.name: getattr(config, field.name)
    for field, declared in flags_of(type(config))
    if declared.decides_result
  }
