"""Records in, records out, and the order in which training sees them.

A feature set is declared once, as a tuple of `FeatureSpec`; serialising,
parsing and padding are derived from it. Training order is a pure function of
(seed, epoch, position), computed over an index of the records, so any step's
batch can be had without reading what came before it.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import struct

import google_crc32c
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

# Framing of a TFRecord: uint64 length, its masked CRC, the data, its CRC.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
# Bytes read at a time while indexing. Remote reads cost a round trip each.
_INDEX_CHUNK_BYTES = 1 << 24
# And while looking for the record behind a damaged one, a dozen bytes each.
_SEARCH_CHUNK_BYTES = 1 << 20
# Bad records of a file that are described; all are counted.
SHOWN_BAD_RECORDS = 5
# Records permuted together. At 1 kB a record two cached blocks take 32 MB.
BLOCK_RECORDS = 1 << 14
# Shapes that batches of mixed lengths may have. XLA compiles each of them.
MAX_BUCKETS = 6
# Lengths are multiples of this, the rows of a matrix unit.
BUCKET_MULTIPLE = 8
# Batches whose examples are sorted by length among each other: enough for
# little padding, few enough for random batches.
BATCHES_PER_GROUP = 50
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


def truncate_pair(num_a, num_b, max_seq_length):
  """How many tokens of two texts are kept.

  Upstream's _truncate_seq_pair, in closed form: it drops the last token of the
  longer text, of the second one if both are as long, until they fit beside
  `[CLS]` and one `[SEP]` each. Without a second text there is one `[SEP]`.

  Returns:
    (tokens of the first text, tokens of the second).
  """
  if not num_b:
    return min(num_a, max_seq_length - 2), 0
  room = max_seq_length - 3
  keep_b = min(num_b, max(room // 2, room - num_a))
  return min(num_a, room - keep_b), keep_b


def pack_pair(tokens_a, tokens_b, cls_id, sep_id):
  """`[CLS] a [SEP]`, and `b [SEP]` if there are any, as a list of ids.

  Returns:
    (ids, how many of them are of segment 0).
  """
  first = [cls_id, *tokens_a, sep_id]
  second = [*tokens_b, sep_id] if tokens_b else []
  return first + second, len(first)


class Sequences:
  """Token sequences of different lengths, kept without their padding.

  Args:
    packed: list of what `pack_pair` returns.

  Attributes:
    lengths: int32 [sequences], tokens of each.
    num_first: int32 [sequences], how many of them are of segment 0.
    starts: int64 [sequences], where each begins in `flat_ids`.
    flat_ids: int32 [tokens of all], one sequence after another.
  """

  def __init__(self, packed):
    ids = itertools.chain.from_iterable(ids for ids, _ in packed)
    self._set(
      np.fromiter(ids, np.int32),
      np.array([len(ids) for ids, _ in packed], np.int32),
      np.array([first for _, first in packed], np.int32),
    )

  @classmethod
  def from_arrays(cls, flat_ids, lengths, num_first):
    """The sequences that have these attributes."""
    sequences = cls.__new__(cls)
    sequences._set(flat_ids, lengths, num_first)
    return sequences

  def _set(self, flat_ids, lengths, num_first):
    self.flat_ids = flat_ids
    self.lengths = lengths
    self.num_first = num_first
    self.starts = np.cumsum(lengths, dtype=np.int64) - lengths

  def __len__(self):
    return len(self.lengths)

  def ids(self, number):
    """int32 [tokens] of one sequence."""
    start = self.starts[number]
    return self.flat_ids[start : start + self.lengths[number]]

  def pad(self, numbers, length):
    """Some sequences as int32 [batch, length], with mask and segments.

    Returns:
      Dict of `input_ids`, `input_mask` and `segment_ids`.
    """
    numbers = np.asarray(numbers)
    positions = np.arange(length)
    is_token = positions < self.lengths[numbers, np.newaxis]
    is_second = positions >= self.num_first[numbers, np.newaxis]
    where = self.starts[numbers, np.newaxis] + positions
    where = np.where(is_token, where, 0)
    return {
      "input_ids": np.where(is_token, self.flat_ids[where], 0).astype(np.int32),
      "input_mask": is_token.astype(np.int32),
      "segment_ids": (is_token & is_second).astype(np.int32),
    }


class SequenceSource:
  """Sequences with their labels, padded batch by batch.

  Args:
    sequences: Sequences.
    columns: dict from name to array [sequences, ...] that a batch gets as well.
    bucket_lengths: ascending lengths; a batch is padded to the first that holds
      its longest sequence.

  Raises:
    ValueError: a sequence is longer than the last bucket.
  """

  def __init__(self, sequences, columns, bucket_lengths):
    self.sequences = sequences
    self.columns = columns
    self.bucket_lengths = tuple(bucket_lengths)
    # All of them are in memory: a permutation may mix them all.
    self.block_size = len(sequences)
    # With one bucket all batches have the same shape, and any order is as good.
    self.variable_features = (
      SEQUENCE_FEATURES if len(bucket_lengths) > 1 else ()
    )
    longest = int(sequences.lengths.max(initial=0))
    if longest > self.bucket_lengths[-1]:
      raise ValueError(
        f"a sequence of {longest} tokens does not fit into "
        f"{self.bucket_lengths[-1]}"
      )

  def __len__(self):
    return len(self.sequences)

  @property
  def lengths(self):
    """int32 [sequences], tokens of each."""
    return self.sequences.lengths

  def take(self, numbers):
    """The batch of some sequences, by their numbers."""
    longest = self.lengths[numbers].max()
    bucket = np.searchsorted(self.bucket_lengths, longest)
    batch = self.sequences.pad(numbers, self.bucket_lengths[bucket])
    columns = {name: values[numbers] for name, values in self.columns.items()}
    return {**batch, **columns}


def bucket_lengths(lengths, max_seq_length, max_buckets=MAX_BUCKETS):
  """The lengths to pad to that waste the least, by dynamic programming.

  Args:
    lengths: int array [sequences].
    max_seq_length: no length is beyond it.
    max_buckets: how many there may be.

  Returns:
    Ascending tuple of lengths, the last of which holds the longest sequence;
    multiples of BUCKET_MULTIPLE unless max_seq_length is among them.
  """
  longest = int(np.max(lengths, initial=1))
  ends = [*range(BUCKET_MULTIPLE, longest, BUCKET_MULTIPLE)]
  last = -(-longest // BUCKET_MULTIPLE) * BUCKET_MULTIPLE
  ends = np.array([0, *ends, min(last, max_seq_length)])
  # Sequences that are not longer than each end.
  counts = np.searchsorted(np.sort(lengths), ends, side="right")
  # best[j]: fewest positions for all sequences up to ends[j]; first no bucket.
  best = np.where(ends > 0, np.inf, 0.0)
  choices = []
  for _ in range(max_buckets):
    # cost[i, j]: those longer than ends[i] and not than ends[j] take ends[j].
    cost = best[:, np.newaxis] + (counts - counts[:, np.newaxis]) * ends
    cost[np.tril_indices(len(ends), -1)] = np.inf
    choices.append(cost.argmin(axis=0))
    best = cost.min(axis=0)
  chosen = set()
  end = len(ends) - 1
  for choice in reversed(choices):
    chosen.add(int(ends[end]))
    end = choice[end]
  return tuple(sorted(chosen - {0}))


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


class RecordWriter:
  """Writes a TFRecord file that appears under its name only when complete.

      with RecordWriter(path) as writer:
        writer.write(serialized)

  An exception inside the block removes what was written.
  """

  def __init__(self, path):
    self.path = path
    self._temporary_path = f"{path}.incomplete-{os.getpid()}"
    self._writer = tf.io.TFRecordWriter(self._temporary_path)

  def write(self, serialized):
    """Appends one record (`bytes`)."""
    self._writer.write(serialized)

  def __enter__(self):
    return self

  def __exit__(self, error_type, error, trace):
    self._writer.close()
    if error_type is None:
      tf.io.gfile.rename(self._temporary_path, self.path, overwrite=True)
    else:
      tf.io.gfile.remove(self._temporary_path)


# Reading by offset ------------------------------------------------------------


class RecordSource:
  """Random access to the records of many TFRecord files, parsed.

  Records are numbered through all files in the order given, bad ones that are
  skipped not counted. Where a record is named, its number is that within its
  file, from 0.

  Args:
    paths: list of TFRecord files, local or remote.
    specs: tuple of FeatureSpec that every record must have.
    known_index: what an earlier `save_index` wrote, from `load_index`; files
      whose size or time has changed since are scanned again.
    skip_bad_records: read every record once to find those that are damaged or
      not as `specs` say, and leave them out.

  Attributes:
    bad_records: int, how many are left out.
    problems: list of str, what is wrong with the first few of each file.

  Raises:
    OSError: a file cannot be read.
    ValueError: a file is truncated and bad records are not skipped, or there is
      no record that can be used.
  """

  def __init__(self, paths, specs, known_index=None, skip_bad_records=False):
    self.paths = list(paths)
    self.specs = specs
    self.block_size = BLOCK_RECORDS
    self.variable_features = ()  # Records are padded already.
    known_index = known_index or {}
    checked = specs if skip_bad_records else None
    self._index = {
      path: _file_entry(path, known_index.get(path), checked)
      for path in self.paths
    }
    entries = [self._index[path] for path in self.paths]
    self._offsets = [_offsets(entry["sizes"]) for entry in entries]
    # Numbers, within each file, of the records that are used.
    self._used = [
      np.delete(np.arange(len(entry["sizes"])), entry["bad"])
      for entry in entries
    ]
    counts = [len(used) for used in self._used]
    self._first_record = np.concatenate([[0], np.cumsum(counts)])
    self._blocks = collections.OrderedDict()
    self.bad_records = sum(len(x["bad"]) for x in self._index.values())
    self.problems = [
      f"{path}: {problem}"
      for path, entry in self._index.items()
      for problem in entry["problems"]
    ]
    if not len(self):
      self._refuse()

  def _refuse(self):
    paths = ", ".join(self.paths)
    if not self.bad_records:
      raise ValueError(
        f"no record in {paths}; expected what create_pretraining_data.py writes"
      )
    raise ValueError(
      f"none of the {self.bad_records} records in {paths} can be used; "
      f"{self.problems[0]}; check the flags and the vocabulary, or create the "
      "file again"
    )

  def __len__(self):
    return int(self._first_record[-1])

  def take(self, record_numbers):
    """Reads some records.

    Args:
      record_numbers: int array [batch].

    Returns:
      Dict from feature name to an array [batch, spec.length].

    Raises:
      ValueError: a record is damaged or not as `specs` say; names file and
        number, and what was expected.
    """
    serialized = self.read(record_numbers)
    batch = _parse_valid(serialized, self.specs)
    if batch is None:
      places = [self.locate(int(number)) for number in record_numbers]
      self._raise_for(serialized, places)
    return batch

  def read(self, record_numbers):
    """Returns the records' bytes, checked against their CRC."""
    return [self._record(int(number)) for number in record_numbers]

  def locate(self, record_number):
    """Returns (path, number of the record within that file, from 0)."""
    file_number = int(
      np.searchsorted(self._first_record, record_number, side="right") - 1
    )
    place = record_number - int(self._first_record[file_number])
    return self.paths[file_number], int(self._used[file_number][place])

  def head(self, path, count):
    """Reads the first `count` records of a file, and nothing else.

    Returns:
      List of bytes; shorter if the file is.

    Raises:
      ValueError: one is damaged.
    """
    number = self.paths.index(path)
    count = min(count, len(self._used[number]))
    if not count:
      return []
    places = self._used[number][:count].tolist()
    pairs = zip(self._read_used(number, 0, count), places, strict=True)
    return [_check_crc(data, path, place) for data, place in pairs]

  def check_head(self, path, records):
    """Compares what `head` returned with `specs`.

    Raises:
      ValueError: a record is not as they say; names file and number.
    """
    if _parse_valid(records, self.specs) is None:
      used = self._used[self.paths.index(path)]
      self._raise_for(records, [(path, place) for place in used.tolist()])

  def _record(self, number):
    block_number = number // self.block_size
    if block_number not in self._blocks:
      # Two blocks: a batch may end one and begin the next.
      while len(self._blocks) > 1:
        self._blocks.popitem(last=False)
      self._blocks[block_number] = self._read_block(block_number)
    data = self._blocks[block_number][number % self.block_size]
    return _check_crc(data, *self.locate(number))

  def _read_block(self, block_number):
    """The records of a block, each followed by its CRC."""
    start = block_number * self.block_size
    end = min(start + self.block_size, len(self))
    records = []
    for number, used in enumerate(self._used):
      first = int(self._first_record[number])
      low, high = max(start - first, 0), min(end - first, len(used))
      if low < high:
        records.extend(self._read_used(number, low, high))
    return records

  def _read_used(self, file_number, low, high):
    """Used records `low` to `high` - 1 of a file, each followed by its CRC."""
    places = self._used[file_number][low:high]
    first, last = places[0], places[-1]
    offsets = self._offsets[file_number][first : last + 2]
    records = _read_records(self.paths[file_number], offsets)
    return [records[place] for place in (places - first).tolist()]

  def _raise_for(self, serialized, places):
    """Raises ValueError for the first record that is not as `specs` say.

    Args:
      serialized: list of bytes.
      places: list of (path, number within the file), not shorter.
    """
    for record, (path, place) in zip(serialized, places, strict=False):
      problem = find_problem(record, self.specs)
      if problem:
        raise ValueError(f"{path}: {_name(place)} {problem}; {_REMEDY}")


_REMEDY = "create the file again, or leave it out with --skip_bad_records"
_BAD_CHECKSUM = "is corrupt (its checksum does not match)"


def _name(place):
  return f"record {place} (counting from 0)"


def _masked_crc(data):
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _is_intact(data):
  """Whether the CRC that follows a record is its own."""
  crc = struct.pack("<I", _masked_crc(data[:-_FOOTER_BYTES]))
  return data[-_FOOTER_BYTES:] == crc


def _check_crc(data, path, place):
  """The record without its CRC; ValueError if that is another's."""
  if not _is_intact(data):
    raise ValueError(f"{path}: {_name(place)} {_BAD_CHECKSUM}; {_REMEDY}")
  return data[:-_FOOTER_BYTES]


def _offsets(sizes):
  return np.concatenate([[0], np.cumsum(sizes)]).astype(int)


def _read_records(path, offsets):
  with tf.io.gfile.GFile(path, "rb") as reader:
    reader.seek(int(offsets[0]))
    data = reader.read(int(offsets[-1] - offsets[0]))
  starts = (offsets - offsets[0]).tolist()
  return [
    data[start + _HEADER_BYTES : end]
    for start, end in zip(starts, starts[1:], strict=False)
  ]


# What is where in a file ------------------------------------------------------


def save_index(path, *sources):
  """Keeps what is known of sources' files, to spare a next run the scan.

  An .npz file with the size of every record and the numbers of the bad ones.
  """
  index = {k: v for source in sources for k, v in source._index.items()}
  arrays = ("sizes", "bad")
  about = {
    file: {name: entry[name] for name in entry if name not in arrays}
    for file, entry in index.items()
  }
  content = io.BytesIO()
  np.savez_compressed(
    content,
    about=json.dumps(about),
    **{
      f"{name}_{i}": entry[name]
      for i, entry in enumerate(index.values())
      for name in arrays
    },
  )
  write_atomically(path, content.getvalue())


def load_index(path):
  """Reads what `save_index` wrote.

  Empty if there is nothing, or if it is damaged, which is printed: the files
  are scanned again then.
  """
  if not tf.io.gfile.exists(path):
    return {}
  try:
    with tf.io.gfile.GFile(path, "rb") as reader:
      content = np.load(io.BytesIO(reader.read()))
    about = json.loads(str(content["about"]))
    return {
      file: _known_entry(entry, content, i)
      for i, (file, entry) in enumerate(about.items())
    }
  # A damaged zip file makes zipfile and NumPy raise almost anything.
  except Exception as error:
    print(f"{path} is damaged and is made again ({error})")
    return {}


def _known_entry(entry, content, number):
  sizes = content[f"sizes_{number}"]
  if sizes.sum() != entry["bytes"]:
    raise ValueError(f"its sizes do not add up to {entry['bytes']}")
  # Both came later than the first indexes.
  bad = content.get(f"bad_{number}", np.zeros(0, np.int64))
  return {"checked": "", "problems": [], **entry, "sizes": sizes, "bad": bad}


def _file_entry(path, known, specs):
  """What is to be known of a file.

  Args:
    path: the file.
    known: an earlier entry, or None.
    specs: what every record is compared with, to leave out bad ones; None to
      look at no record, and to refuse a file that is not whole.

  Returns:
    Dict of `bytes` and `mtime`, of the file; `checked`, a hash of specs; the
    arrays `sizes`, of all records, and `bad`, numbers of records; `problems`,
    list of str.
  """
  try:
    stat = tf.io.gfile.stat(path)
    if stat.is_directory:
      raise IsADirectoryError(f"{path} is a directory; name record files")
    entry = {"bytes": stat.length, "mtime": stat.mtime_nsec, "checked": ""}
    if specs:
      entry["checked"] = hashlib.sha256(repr(specs).encode()).hexdigest()
    if known and {key: known.get(key) for key in entry} == entry:
      return known
    sizes, problems = _scan_record_sizes(path, stat.length, bool(specs))
    if specs:
      problems |= _find_bad_records(path, sizes, problems, specs)
  except tf.errors.OpError as error:
    raise OSError(
      f"{path} cannot be read ({error.message}); check the path and its "
      "permissions"
    ) from error
  bad = sorted(problems)
  shown = [f"{_name(x)} {problems[x]}" for x in bad[:SHOWN_BAD_RECORDS]]
  bad = np.array(bad, np.int64)
  return {**entry, "sizes": sizes, "bad": bad, "problems": shown}


def _scan_record_sizes(path, file_bytes, skips=False):
  """Finds a file's records by their lengths.

  What lies between a damaged length and the next record counts as one record.

  Args:
    path: the file.
    file_bytes: its size.
    skips: whether to go on after a damaged length.

  Returns:
    (int64 [records], sizes in bytes, framing included; dict from the numbers of
    damaged ones to what is wrong).
  """
  sizes, problems = [], {}
  position = 0
  chunk_start, chunk = 0, b""
  with tf.io.gfile.GFile(path, "rb") as reader:
    while position < file_bytes:
      if position + _HEADER_BYTES > chunk_start + len(chunk):
        reader.seek(position)
        chunk_start, chunk = position, reader.read(_INDEX_CHUNK_BYTES)
      size = _record_size(chunk, position - chunk_start)
      if size is None or position + size > file_bytes:
        if not skips:
          raise ValueError(
            f"{path} is truncated or no TFRecord file: {_name(len(sizes))} at "
            f"byte {position} does not fit; {_REMEDY}"
          )
        size = _find_header(reader, position + 1, file_bytes) - position
        problems[len(sizes)] = (
          f"at byte {position} is damaged or cut off: {size} bytes lost"
        )
        chunk_start, chunk = 0, b""  # The reader has moved.
      sizes.append(size)
      position += size
  return np.array(sizes, np.int64), problems


def _record_size(chunk, start):
  header = chunk[start : start + _HEADER_BYTES]
  if len(header) < _HEADER_BYTES:
    return None
  length, crc = struct.unpack("<QI", header)
  if _masked_crc(header[:8]) != crc:
    return None
  return _HEADER_BYTES + length + _FOOTER_BYTES


def _find_header(reader, start, file_bytes):
  """Where the first record from byte `start` on begins; else the file's end.

  A length and its CRC agree by chance once in four billion bytes.
  """
  while start + _HEADER_BYTES <= file_bytes:
    reader.seek(start)
    chunk = reader.read(_SEARCH_CHUNK_BYTES)
    data = np.frombuffer(chunk, np.uint8)
    count = len(data) - _HEADER_BYTES + 1
    # Records are shorter than 4 GB, and padding is no empty record.
    is_zero = np.stack([data[i : i + count] == 0 for i in range(8)])
    possible = is_zero[4:].all(axis=0) & ~is_zero[:4].all(axis=0)
    for place in np.flatnonzero(possible).tolist():
      size = _record_size(chunk, place)
      if size is not None and start + place + size <= file_bytes:
        return start + place
    start += count
  return file_bytes


def _find_bad_records(path, sizes, unreadable, specs):
  """Looks at every record of a file.

  Args:
    path: the file.
    sizes: int64 [records].
    unreadable: collection of the numbers of those that have no framing.
    specs: what the others are compared with.

  Returns:
    Dict from number to what is wrong.
  """
  problems = {}
  offsets = _offsets(sizes)
  for low, high in _stretches(offsets, unreadable):
    intact = {}
    records = _read_records(path, offsets[low : high + 1])
    for number, data in enumerate(records, start=low):
      if _is_intact(data):
        intact[number] = data[:-_FOOTER_BYTES]
      else:
        problems[number] = _BAD_CHECKSUM
    problems.update(_find_wrong(list(intact.items()), specs))
  return problems


def _find_wrong(records, specs):
  """Yields (number, problem) of records that are not as `specs` say.

  Halves by halves: most are right, and looking at one takes as long as parsing
  dozens together.

  Args:
    records: list of (number, bytes).
    specs: what they are compared with.
  """
  serialized = [record for _, record in records]
  if not records or _parse_valid(serialized, specs) is not None:
    return
  if len(records) == 1:
    yield records[0][0], find_problem(serialized[0], specs)
    return
  middle = len(records) // 2
  yield from _find_wrong(records[:middle], specs)
  yield from _find_wrong(records[middle:], specs)


def _stretches(offsets, unreadable):
  """Yields first and end of records to be read together, all but some."""
  low = 0
  for high in [*sorted(unreadable), len(offsets) - 1]:
    while low < high:
      limit = offsets[low] + _INDEX_CHUNK_BYTES
      end = np.searchsorted(offsets, limit, side="right") - 1
      end = int(min(max(end, low + 1), high))
      yield low, end
      low = end
    low = high + 1


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


def _parse_valid(serialized, specs):
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
    tf.io.gfile.GFile; its `write` takes bytes, and str as UTF-8.
  """
  temporary_path = f"{path}.incomplete-{os.getpid()}"
  try:
    with tf.io.gfile.GFile(temporary_path, "wb") as writer:
      writer.write(b"")  # Only this creates the file.
      yield writer
  except BaseException:
    if tf.io.gfile.exists(temporary_path):
      tf.io.gfile.remove(temporary_path)
    raise
  tf.io.gfile.rename(temporary_path, path, overwrite=True)


# Order ------------------------------------------------------------------------


class TrainingOrder:
  """The endless sequence of record numbers that training consumes.

  Each epoch is a permutation of all records: blocks are permuted among each
  other and records within their block, so that a block is read from disk once
  an epoch. Batches run across the end of an epoch; nothing is dropped.

  Args:
    num_records: records in the source.
    batch_size: global batch size.
    seed: int; another seed, another order.
    block_size: records permuted together.
  """

  def __init__(self, num_records, batch_size, seed, block_size=BLOCK_RECORDS):
    self.num_records = num_records
    self.batch_size = batch_size
    self.seed = seed
    self.block_size = block_size
    # A batch may end one epoch or block and begin the next.
    self._epoch_layout = functools.lru_cache(2)(self._make_epoch_layout)
    self._block_records = functools.lru_cache(2)(self._make_block_records)

  def batch(self, step):
    """Record numbers [batch_size] of a step, a pure function of the step."""
    start = step * self.batch_size
    positions = np.arange(start, start + self.batch_size)
    epochs = positions // self.num_records
    pieces = []
    for epoch in np.unique(epochs).tolist():
      blocks, starts = self._epoch_layout(epoch)
      offsets = positions[epochs == epoch] % self.num_records
      slots = np.searchsorted(starts, offsets, side="right") - 1
      for slot in np.unique(slots).tolist():
        records = self._block_records(epoch, int(blocks[slot]))
        pieces.append(records[offsets[slots == slot] - starts[slot]])
    return np.concatenate(pieces)

  def _make_epoch_layout(self, epoch):
    """The blocks in an epoch's order, and the position each begins at."""
    num_blocks = -(-self.num_records // self.block_size)
    blocks = _permutation(num_blocks, [self.seed, epoch, num_blocks])
    sizes = np.minimum(
      self.block_size, self.num_records - blocks * self.block_size
    )
    return blocks, np.cumsum(sizes) - sizes

  def _make_block_records(self, epoch, block):
    """A block's record numbers in an epoch's order."""
    start = block * self.block_size
    size = min(self.block_size, self.num_records - start)
    return start + _permutation(size, [self.seed, epoch, block])


class LengthGroupedOrder:
  """A TrainingOrder whose batches hold sequences of about the same length.

  An epoch is cut into groups of some batches; a group's sequences are sorted
  by length, dealt into batches, and the batches permuted. A batch that ends one
  epoch and begins the next stays as it is: every sequence still comes once an
  epoch, and a step's batch is still a pure function of the step.

  Args:
    order: TrainingOrder.
    lengths: int array [sequences].
  """

  def __init__(self, order, lengths):
    self.order = order
    self.lengths = lengths
    self._group = functools.lru_cache(1)(self._make_group)

  def batch(self, step):
    """Sequence numbers [batch_size] of a step."""
    first, last = self._group_bounds(step)
    return self._group(first, last)[step - first]

  def _group_bounds(self, step):
    """First step of a step's group, and the first after it."""
    size, num_records = self.order.batch_size, self.order.num_records
    epoch, position = divmod(step * size, num_records)
    if position + size > num_records:
      return step, step + 1
    # Batches that lie in the epoch as a whole.
    epoch_start = -(-epoch * num_records // size)
    epoch_end = (epoch + 1) * num_records // size
    first = step - (step - epoch_start) % BATCHES_PER_GROUP
    return first, min(first + BATCHES_PER_GROUP, epoch_end)

  def _make_group(self, first, last):
    batches = np.stack([self.order.batch(step) for step in range(first, last)])
    if len(batches) == 1:
      return batches
    numbers = batches.ravel()
    by_length = numbers[np.argsort(self.lengths[numbers], kind="stable")]
    batches = by_length.reshape(batches.shape)
    return batches[_permutation(len(batches), [self.order.seed, first, last])]


def training_order(source, batch_size, seed):
  """The order in which to train on a source, by length if lengths differ."""
  order = TrainingOrder(len(source), batch_size, seed, source.block_size)
  if not source.variable_features:
    return order
  return LengthGroupedOrder(order, source.lengths)


def inference_order(source):
  """int array [records]: the shortest first, if lengths differ."""
  if not source.variable_features:
    return np.arange(len(source))
  return np.argsort(source.lengths, kind="stable")


def _permutation(size, key):
  """A permutation of range(size) by `key`, a list of non-negative ints.

  Sorting raw words of Philox: NumPy promises its bit streams for good, but not
  those of `Generator.permutation`.
  """
  words = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
  return np.argsort(words, kind="stable")


def sequential_batches(num_records, batch_size, max_batches=None):
  """Record numbers of each batch of one pass in order.

  The last batch holds what is left; no record comes twice or goes missing.
  """
  starts = range(0, num_records, batch_size)
  for start in starts[:max_batches]:
    yield np.arange(start, min(start + batch_size, num_records))


def pad_batch(batch, size):
  """Fills a batch up to `size` rows that carry no weight.

  Args:
    batch: dict of arrays [rows, ...].
    size: rows wanted.

  Returns:
    The dict with `size` rows each, copies of the last one added (valid input
    for any model), and float32 `example_weights` [size], 0 for those. Masked-LM
    weights of added rows are 0 too.
  """
  rows = len(next(iter(batch.values())))
  take = np.minimum(np.arange(size), rows - 1)
  padded = {name: values[take] for name, values in batch.items()}
  padded["example_weights"] = (np.arange(size) < rows).astype(np.float32)
  if "masked_lm_weights" in padded:
    padded["masked_lm_weights"][rows:] = 0
  return padded
