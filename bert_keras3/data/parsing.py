"""Parses serialized tf.train.Examples into batches, and describes bad ones."""

import tensorflow as tf
from google.protobuf.message import DecodeError


def _parse(serialized, specs):
  """Parses to int64 and float32 arrays; None if a record does not fit specs."""
  kinds = {
    spec.name: tf.io.FixedLenFeature(spec.shape, tf.as_dtype(spec.record_dtype))
    for spec in specs
  }
  records = tf.constant(serialized, shape=[len(serialized)], dtype=tf.string)
  try:
    parsed = tf.io.parse_example(records, kinds)
  # UnicodeDecodeError: TensorFlow quotes a record that is not UTF-8.
  except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
    return None
  return {name: values.numpy() for name, values in parsed.items()}


def parse_valid(serialized, specs):
  """Parses serialized Examples and checks their values.

  Returns:
    Dict of arrays [batch, *spec.shape], None if a record is not valid:
    `find_problem` says why.
  """
  parsed = _parse(serialized, specs)
  if parsed is None:
    return None
  # Checked before the cast to int32, which would turn 2**32 + 5 into 5.
  if any(spec.find_wrong(parsed[spec.name]).any() for spec in specs):
    return None
  return _as_batch(parsed, specs)


def _as_batch(parsed, specs):
  return {spec.name: parsed[spec.name].astype(spec.dtype) for spec in specs}


def find_problem(serialized, specs):
  """Says how a record differs from `specs`, or returns None if it does not."""
  parsed = _parse([serialized], specs)
  if parsed is None:
    problem = describe_mismatch(serialized, specs)
    return problem or "is no tf.train.Example"
  for spec in specs:
    values = parsed[spec.name][0]
    wrong = values[spec.find_wrong(values)]
    if wrong.size:
      return f"has {wrong[0]} in {spec.name!r}, not {spec.expected}"
  return None


def feature_lengths(serialized, kind="int64_list"):
  """Counts the values of a kind in each feature of a record, by name.

  Returns {} for bytes that are no tf.train.Example.
  """
  try:
    example = tf.train.Example.FromString(serialized)
  except DecodeError:
    return {}
  return {
    name: len(getattr(feature, kind).value)
    for name, feature in example.features.feature.items()
  }


def describe_mismatch(serialized, specs):
  """Says how a record's form differs from `specs`, or returns None."""
  for spec in specs:
    kind = "float_list" if spec.record_dtype == "float32" else "int64_list"
    lengths = feature_lengths(serialized, kind)
    if spec.name not in lengths:
      return (
        f"has no feature {spec.name!r}; it was made for another task "
        f"(its features: {', '.join(sorted(lengths)) or 'none'})"
      )
    if lengths[spec.name] != spec.length:
      return (
        f"has {lengths[spec.name]} {kind} values in {spec.name!r}, not "
        f"{spec.length}"
      )
  return None
