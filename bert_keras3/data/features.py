"""Records in, records out, and the order in which training sees them.

A feature set is declared once, as a tuple of `FeatureSpec`; serialising,
parsing and padding are derived from it. Training order is a pure function of
(seed, epoch, position), computed over an index of the records, so any step's
batch can be had without reading what came before it.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

# Features with a number per token.
SEQUENCE_FEATURES = ("input_ids", "input_mask", "segment_ids")


# Feature sets -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
  """One feature of a record: `length` numbers of `dtype`, padded with 0.

  Floats are finite. Integers are 0 to `limit` - 1 if there is a limit, and
  `limited_by` says where it comes from.
  """

  name: str
  length: int
  dtype: str = "int64"  # or "float32", the two kinds a record can hold
  limit: int | None = None
  limited_by: str = ""

  @property
  def batch_dtype(self):
    """Type in a batch: ids travel as int32, which XLA and TPUs want."""
    return np.int32 if self.dtype == "int64" else np.float32

  def is_wrong(self, values):
    """Which of an array of values a record cannot have, as an array of bool."""
    if self.dtype == "float32":
      return ~np.isfinite(values)
    if self.limit is None:
      return np.zeros(np.shape(values), bool)
    return (values < 0) | (values >= self.limit)

  @property
  def expected(self):
    """What values it has, in words."""
    if self.dtype == "float32":
      return "finite numbers"
    reason = f" ({self.limited_by})" if self.limited_by else ""
    return f"0 to {self.limit - 1}{reason}"


def pretraining_features(
  max_seq_length,
  max_predictions_per_seq,
  vocab_size=None,
  type_vocab_size=None,
  config_file="the BERT config",
):
  """Features of create_pretraining_data.py's records, in upstream's order.

  Args:
    max_seq_length: tokens of a record.
    max_predictions_per_seq: masked tokens of a record.
    vocab_size: ids lie below it; None if it is not known.
    type_vocab_size: likewise for segments.
    config_file: where the last two are from, for errors.
  """
  tokens = vocab_size, f"vocab_size in {config_file}"
  segments = type_vocab_size, f"type_vocab_size in {config_file}"
  places = max_seq_length, "--max_seq_length"
  num_masked = max_predictions_per_seq
  return (
    FeatureSpec("input_ids", max_seq_length, "int64", *tokens),
    FeatureSpec("input_mask", max_seq_length, "int64", 2),
    FeatureSpec("segment_ids", max_seq_length, "int64", *segments),
    FeatureSpec("masked_lm_positions", num_masked, "int64", *places),
    FeatureSpec("masked_lm_ids", num_masked, "int64", *tokens),
    FeatureSpec("masked_lm_weights", num_masked, "float32"),
    FeatureSpec("next_sentence_labels", 1, "int64", 2),
  )


def classifier_features(max_seq_length):
  """Features of run_classifier.py's records, as upstream writes them."""
  return (
    *(FeatureSpec(name, max_seq_length) for name in SEQUENCE_FEATURES),
    FeatureSpec("label_ids", 1),
    FeatureSpec("is_real_example", 1),
  )


def squad_features(max_seq_length, is_training):
  """Features of run_squad.py's records, in upstream's order."""
  names = ("start_positions", "end_positions", "is_impossible")
  return (
    FeatureSpec("unique_ids", 1),
    *(FeatureSpec(name, max_seq_length) for name in SEQUENCE_FEATURES),
    *(FeatureSpec(name, 1) for name in names if is_training),
  )


# Sequences in memory ----------------------------------------------------------


# Writing ----------------------------------------------------------------------


def serialize_examples(features, specs):
  """Encodes many records at once.

  Writes the wire format of `tf.train.Example` directly: NumPy encodes a whole
  column of integers, where the protobuf API takes a Python call per number.
  Fields come in the order of `specs`, so equal inputs give equal bytes.

  Args:
    features: dict from name to an array [records, spec.length].
    specs: tuple of FeatureSpec.

  Returns:
    List of `bytes`, one serialized Example per record.
  """
  columns = [_encode_column(features[spec.name], spec) for spec in specs]
  records = [b"".join(entries) for entries in zip(*columns, strict=True)]
  head_of = _HeadOfLength((1,))
  return [head_of[len(record)] + record for record in records]


def _encode_column(values, spec):
  """The map entry of one feature, for every record: a list of bytes."""
  values = np.asarray(values).reshape([-1, spec.length])
  if spec.dtype == "float32":
    list_field, payloads = 2, _float_payloads(values)
  else:
    list_field, payloads = 3, _varint_payloads(values)
  key = _head(1, len(spec.name)) + spec.name.encode()
  head_of = _HeadOfLength((1, 2, list_field, 1), key)
  return [head_of[len(payload)] + payload for payload in payloads]


class _HeadOfLength(dict):
  """What precedes a payload of some length, remembered: rows share lengths.

  Args:
    fields: numbers of the fields that it lies in, the outermost first.
    key: bytes that precede the second field within the first.
  """

  def __init__(self, fields, key=b""):
    super().__init__()
    self._fields = fields
    self._key = key

  def __missing__(self, length):
    head = b""
    for number in reversed(self._fields[1:]):
      head = _head(number, len(head) + length) + head
    head = self._key + head
    head = _head(self._fields[0], len(head) + length) + head
    self[length] = head
    return head


def _head(number, length):
  """Tag and length of a length-delimited protobuf field."""
  return bytes([number << 3 | 2]) + _varint(length)


def _varint(value):
  encoded = bytearray()
  while value > 0x7F:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  encoded.append(value)
  return bytes(encoded)


def _float_payloads(values):
  stream = np.ascontiguousarray(values, dtype="<f4").tobytes()
  return _split(stream, np.full(len(values), 4 * values.shape[1]))


def _varint_payloads(values):
  """Rows of integers as concatenated protobuf varints."""
  values = values.astype(np.int64).view(np.uint64)
  largest = int(values.max(initial=0))
  if largest < 1 << 32:
    values = values.astype(np.uint32)  # Half the memory to go through.
  width = max(1, -(-largest.bit_length() // 7))
  encoded = np.empty([*values.shape, width], np.uint8)
  is_used = np.ones(encoded.shape, bool)
  for place in range(width):
    rest = values >> (7 * place)
    if place:
      is_used[:, :, place] = rest > 0
    # The top bit says that another byte follows.
    encoded[:, :, place] = rest.astype(np.uint8) | (rest > 0x7F) * np.uint8(128)
  if width > 1:
    # Three times faster than indexing with a boolean array.
    encoded = np.compress(is_used.ravel(), encoded.ravel())
  return _split(encoded.tobytes(), is_used.sum(axis=(1, 2)))


def _split(stream, lengths):
  ends = np.cumsum(lengths).tolist()
  return [
    stream[start:end] for start, end in zip([0, *ends], ends, strict=False)
  ]


# Reading by offset ------------------------------------------------------------


# What is where in a file ------------------------------------------------------


# Parsing ----------------------------------------------------------------------


def parse_examples(serialized, specs):
  """Parses serialized Examples into arrays [batch, spec.length].

  Values are not looked at; `find_problem` does.

  Raises:
    ValueError: a record lacks a feature of `specs` or has it in another length
      or type.
  """
  parsed = _parse(serialized, specs)
  if parsed is None:
    for number, record in enumerate(serialized):
      problem = find_problem(record, specs)
      if problem:
        raise ValueError(f"example {number} (counting from 0) {problem}")
  return _as_batch(parsed, specs)


def _parse(serialized, specs):
  """Int64 and float32 arrays, None if a record has not the form of `specs`."""
  kinds = {
    spec.name: tf.io.FixedLenFeature([spec.length], tf.as_dtype(spec.dtype))
    for spec in specs
  }
  records = tf.constant(serialized, shape=[len(serialized)], dtype=tf.string)
  try:
    parsed = tf.io.parse_example(records, kinds)
  # The latter where TensorFlow quotes a record that is no UTF-8.
  except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
    return None
  return {name: values.numpy() for name, values in parsed.items()}


def parse_valid(serialized, specs):
  """As `parse_examples`, None if a record is not all that `specs` say."""
  parsed = _parse(serialized, specs)
  if parsed is None:
    return None
  # Before they become int32: 2**32 + 5 is no 5.
  if any(spec.is_wrong(parsed[spec.name]).any() for spec in specs):
    return None
  return _as_batch(parsed, specs)


def _as_batch(parsed, specs):
  return {
    spec.name: parsed[spec.name].astype(spec.batch_dtype) for spec in specs
  }


def find_problem(serialized, specs):
  """Says how a record differs from `specs`, or returns None if it does not."""
  parsed = _parse([serialized], specs)
  if parsed is None:
    problem = describe_mismatch(serialized, specs)
    return problem or "is no tf.train.Example"
  for spec in specs:
    values = parsed[spec.name][0]
    wrong = values[spec.is_wrong(values)]
    if wrong.size:
      return f"has {wrong[0]} in {spec.name!r}, not {spec.expected}"
  return None


def feature_lengths(serialized, kind="int64_list"):
  """How many values of a kind each feature of a record holds, by name.

  Empty for what is no tf.train.Example.
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
    kind = "float_list" if spec.dtype == "float32" else "int64_list"
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


# Writing small files ----------------------------------------------------------


# Order ------------------------------------------------------------------------
