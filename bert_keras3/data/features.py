"""Features of examples: declared once, and encoded as records.

A feature set is a tuple of `FeatureSpec`. Writing, parsing (`parsing.py`),
padding and the signature of a data set of batches are derived from it.
"""

import dataclasses
import math

import numpy as np

# Features with a number per token, in the order in which models take them.
SEQUENCE_FEATURES = ("input_ids", "input_mask", "segment_ids")


# Feature sets -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
  """Declares one feature of an example.

  Floats are finite. Integers are 0 to `limit` - 1 if there is a limit.

  Attributes:
    name: str.
    shape: of one example in a batch; None for an axis that is as long as the
      batch's bucket. Only features of a fixed shape can be written as records.
    dtype: of a batch. Ids are int32, which XLA and TPUs want; records hold all
      integers as int64, all others as float32.
    limit: int or None.
    limited_by: where the limit comes from, for error messages.
    padding: value that fills an example up to its shape.
  """

  name: str
  shape: tuple[int | None, ...]
  dtype: str = "int32"
  limit: int | None = None
  limited_by: str = ""
  padding: int = 0

  @property
  def length(self):
    """Returns the number of values in a record."""
    return math.prod(self.shape)

  @property
  def record_dtype(self):
    """Returns the type of a record's values: "int64" or "float32"."""
    return "float32" if np.issubdtype(self.dtype, np.floating) else "int64"

  @property
  def varies(self):
    """Returns whether batches may differ in shape."""
    return None in self.shape

  def find_wrong(self, values):
    """Marks invalid values in an array of bool."""
    if self.record_dtype == "float32":
      return ~np.isfinite(values)
    if self.limit is None:
      return np.zeros(np.shape(values), bool)
    return (values < 0) | (values >= self.limit)

  @property
  def expected(self):
    """Describes the valid values in words."""
    if self.record_dtype == "float32":
      return "finite numbers"
    reason = f" ({self.limited_by})" if self.limited_by else ""
    return f"0 to {self.limit - 1}{reason}"


def vary(specs):
  """Returns whether batches with these features may differ in shape."""
  return any(spec.varies for spec in specs)


def specs_of(arrays):
  """Declares features by the arrays that hold them.

  Args:
    arrays: dict from name to an array [examples, ...].

  Returns:
    Tuple of FeatureSpec.
  """
  return tuple(
    FeatureSpec(name, values.shape[1:], values.dtype.name)
    for name, values in arrays.items()
  )


def sequence_features(length):
  """Declares the features of a token sequence.

  Args:
    length: tokens, padding included; None if it differs from batch to batch.
  """
  return tuple(FeatureSpec(name, (length,)) for name in SEQUENCE_FEATURES)


def pretraining_features(
  max_seq_length,
  max_predictions_per_seq,
  vocab_size=None,
  type_vocab_size=None,
  config_file="the BERT config",
):
  """Declares create_pretraining_data.py's features, in upstream's order.

  Args:
    max_seq_length: tokens of a record.
    max_predictions_per_seq: masked tokens of a record.
    vocab_size: exclusive limit of ids, None if unknown.
    type_vocab_size: exclusive limit of segment ids, None if unknown.
    config_file: file that holds these two, for error messages.
  """
  tokens = vocab_size, f"vocab_size in {config_file}"
  segments = type_vocab_size, f"type_vocab_size in {config_file}"
  positions = max_seq_length, "--max_seq_length"
  sequence, masked = (max_seq_length,), (max_predictions_per_seq,)
  return (
    FeatureSpec("input_ids", sequence, "int32", *tokens),
    FeatureSpec("input_mask", sequence, "int32", 2),
    FeatureSpec("segment_ids", sequence, "int32", *segments),
    FeatureSpec("masked_lm_positions", masked, "int32", *positions),
    FeatureSpec("masked_lm_ids", masked, "int32", *tokens),
    FeatureSpec("masked_lm_weights", masked, "float32"),
    FeatureSpec("next_sentence_labels", (1,), "int32", 2),
  )


def classifier_features(max_seq_length):
  """Declares run_classifier.py's features, as upstream writes them."""
  return (
    *sequence_features(max_seq_length),
    FeatureSpec("label_ids", (1,)),
    FeatureSpec("is_real_example", (1,)),
  )


def squad_features(max_seq_length, is_training):
  """Declares run_squad.py's features, in upstream's order."""
  names = ("start_positions", "end_positions", "is_impossible")
  return (
    FeatureSpec("unique_ids", (1,)),
    *sequence_features(max_seq_length),
    *(FeatureSpec(name, (1,)) for name in names if is_training),
  )


# Encoding ---------------------------------------------------------------------


def serialize_examples(features, specs):
  """Encodes many records at once.

  Writes the wire format of `tf.train.Example` directly: NumPy encodes a whole
  column of integers, where the protobuf API takes a Python call per number.
  Fields come in the order of `specs`, so equal inputs give equal bytes.

  Args:
    features: dict from name to an array [records, *spec.shape].
    specs: tuple of FeatureSpec.

  Returns:
    List of `bytes`, one serialized Example per record.
  """
  columns = [_encode_column(features[spec.name], spec) for spec in specs]
  records = [b"".join(entries) for entries in zip(*columns, strict=True)]
  head_of = _HeadOfLength((1,))
  return [head_of[len(record)] + record for record in records]


def _encode_column(values, spec):
  """Encodes one feature's map entry for every record: a list of bytes."""
  values = np.asarray(values).reshape([-1, spec.length])
  if spec.record_dtype == "float32":
    list_field, payloads = 2, _float_payloads(values)
  else:
    list_field, payloads = 3, _varint_payloads(values)
  key = _head(1, len(spec.name)) + spec.name.encode()
  head_of = _HeadOfLength((1, 2, list_field, 1), key)
  return [head_of[len(payload)] + payload for payload in payloads]


class _HeadOfLength(dict):
  """Caches the bytes that precede a payload, by the payload's length.

  Args:
    fields: numbers of the enclosing fields, the outermost first.
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
  """Encodes tag and length of a length-delimited protobuf field."""
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
  """Encodes rows of integers as concatenated protobuf varints."""
  values = values.astype(np.int64).view(np.uint64)
  largest = int(values.max(initial=0))
  if largest < 1 << 32:
    values = values.astype(np.uint32)  # Halves the memory to read.
  width = max(1, -(-largest.bit_length() // 7))
  encoded = np.empty([*values.shape, width], np.uint8)
  is_used = np.ones(encoded.shape, bool)
  for i in range(width):
    rest = values >> (7 * i)
    if i:
      is_used[:, :, i] = rest > 0
    # The top bit says that another byte follows.
    encoded[:, :, i] = rest.astype(np.uint8) | (rest > 0x7F) * np.uint8(128)
  if width > 1:
    # Three times faster than indexing with a boolean array.
    encoded = np.compress(is_used.ravel(), encoded.ravel())
  return _split(encoded.tobytes(), is_used.sum(axis=(1, 2)))


def _split(stream, lengths):
  ends = np.cumsum(lengths).tolist()
  return [
    stream[start:end] for start, end in zip([0, *ends], ends, strict=False)
  ]
