"""Reads TFRecord files by offset: index, checks, damaged records."""

import collections
import dataclasses
import hashlib
import io
import json
import struct

import numpy as np
import tensorflow as tf

from bert_keras3.data import files
from bert_keras3.data import order
from bert_keras3.data import parsing
from bert_keras3.data import record_writer
from bert_keras3.data import sources

# Framing of a TFRecord: uint64 length, its masked CRC, the data, its CRC.
_HEADER_BYTES = 12


_FOOTER_BYTES = 4


# Bytes read at a time while indexing. Remote reads cost a round trip each.
_INDEX_CHUNK_BYTES = 1 << 24


# Bytes read at a time in search of the record after a damaged one. Each takes a
# dozen bytes of memory.
_SEARCH_CHUNK_BYTES = 1 << 20


# Bad records described for each file; all are counted.
SHOWN_BAD_RECORDS = 5


class RecordSource:
  """Reads and parses the records of many TFRecord files by number.

  A `sources.Source`. Records are numbered through all files in the order given,
  without the bad ones that are skipped. Messages give a record's number within
  its file, from 0.

  Args:
    paths: list of TFRecord files, local or remote.
    specs: tuple of FeatureSpec that every record must have.
    known_index: result of `load_index` from an earlier run; files whose size or
      time has changed since are scanned again.
    skip_bad_records: whether to read every record once, and leave out those
      that are damaged or do not match `specs`.

  Attributes:
    index: dict from path to RecordIndex.
    bad_records: int, the number of records left out.
    problems: list of str that describe the first few of them in each file.

  Raises:
    OSError: a file cannot be read.
    ValueError: a file is truncated and bad records are not skipped, or there is
      no record that can be used.
  """

  # Records are padded already.
  lengths = None
  bucket_lengths = ()

  def __init__(self, paths, specs, known_index=None, skip_bad_records=False):
    self.paths = list(paths)
    self.specs = specs
    self.block_size = order.BLOCK_RECORDS
    known_index = known_index or {}
    checked = specs if skip_bad_records else None
    self.index = {
      path: _index_file(path, known_index.get(path), checked)
      for path in self.paths
    }
    indexes = [self.index[path] for path in self.paths]
    self._offsets = [_offsets(index.sizes) for index in indexes]
    # Numbers, within each file, of the records that are used.
    self._used = [
      np.delete(np.arange(len(index.sizes)), index.bad) for index in indexes
    ]
    counts = [len(used) for used in self._used]
    self._first_record = np.concatenate([[0], np.cumsum(counts)])
    self._blocks = collections.OrderedDict()
    self.bad_records = sum(len(x.bad) for x in self.index.values())
    self.problems = [
      f"{path}: {problem}"
      for path, index in self.index.items()
      for problem in index.problems
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

  def take(self, numbers, step):
    """Reads and parses the records of a batch, see `sources.Source`.

    Raises:
      ValueError: a record is damaged or does not match `specs`; names file,
        number and the values expected.
    """
    del step
    serialized = self.read(numbers)
    batch = parsing.parse_valid(serialized, self.specs)
    if batch is None:
      self._raise_for(serialized, map(self.locate, numbers))
    return batch

  def read(self, numbers):
    """Returns the records' bytes, checked against their CRC."""
    return [self._record(int(number)) for number in numbers]

  def locate(self, number):
    """Finds a record's file, and its number within that file."""
    file_number = int(
      np.searchsorted(self._first_record, number, side="right") - 1
    )
    used_number = int(number - self._first_record[file_number])
    return sources.Location(
      self.paths[file_number], int(self._used[file_number][used_number])
    )

  def head(self, path, count):
    """Reads the first `count` records of a file, and nothing else.

    Returns:
      List of bytes; shorter if the file is.

    Raises:
      ValueError: a record is damaged.
    """
    file_number = self.paths.index(path)
    used = self._used[file_number][:count].tolist()
    if not used:
      return []
    records = self._read_used(file_number, 0, len(used))
    for data, number in zip(records, used, strict=True):
      if not _is_intact(data):
        _refuse_checksum(sources.Location(path, number))
    return [data[:-_FOOTER_BYTES] for data in records]

  def check_head(self, path, records):
    """Compares records that `head` returned with `specs`.

    Raises:
      ValueError: a record does not match; names file and number.
    """
    if parsing.parse_valid(records, self.specs) is None:
      used = self._used[self.paths.index(path)].tolist()
      self._raise_for(records, [sources.Location(path, x) for x in used])

  def _record(self, number):
    block_number = number // self.block_size
    if block_number not in self._blocks:
      # Keeps two blocks: a batch may end one and begin the next.
      while len(self._blocks) > 1:
        self._blocks.popitem(last=False)
      self._blocks[block_number] = self._read_block(block_number)
    data = self._blocks[block_number][number % self.block_size]
    if not _is_intact(data):
      _refuse_checksum(self.locate(number))
    return data[:-_FOOTER_BYTES]

  def _read_block(self, block_number):
    """Reads the records of a block, each followed by its CRC."""
    start = block_number * self.block_size
    end = min(start + self.block_size, len(self))
    records = []
    for file_number, used in enumerate(self._used):
      first = int(self._first_record[file_number])
      low, high = max(start - first, 0), min(end - first, len(used))
      if low < high:
        records.extend(self._read_used(file_number, low, high))
    return records

  def _read_used(self, file_number, low, high):
    """Reads used records `low` to `high` - 1 of a file, each with its CRC."""
    used = self._used[file_number][low:high]
    first, last = used[0], used[-1]
    offsets = self._offsets[file_number][first : last + 2]
    records = _read_records(self.paths[file_number], offsets)
    return [records[number] for number in (used - first).tolist()]

  def _raise_for(self, serialized, locations):
    """Raises ValueError for the first record that does not match `specs`.

    Args:
      serialized: list of bytes.
      locations: iterable of their Locations, and perhaps further ones.
    """
    for record, (path, number) in zip(serialized, locations, strict=False):
      problem = parsing.find_problem(record, self.specs)
      if problem:
        raise ValueError(f"{path}: {_name(number)} {problem}; {_REMEDY}")


_REMEDY = "create the file again, or leave it out with --skip_bad_records"


_BAD_CHECKSUM = "is corrupt (its checksum does not match)"


def _name(number):
  return f"record {number} (counting from 0)"


def _is_intact(data):
  """Returns whether a record matches the CRC that follows it."""
  crc = record_writer.CHECKSUM.pack(
    record_writer.masked_crc(data[:-_FOOTER_BYTES])
  )
  return data[-_FOOTER_BYTES:] == crc


def _refuse_checksum(location):
  path, number = location
  raise ValueError(f"{path}: {_name(number)} {_BAD_CHECKSUM}; {_REMEDY}")


def _offsets(sizes):
  return np.concatenate([[0], np.cumsum(sizes)]).astype(int)


def _read_records(path, offsets):
  with tf.io.gfile.GFile(path, "rb") as file:
    file.seek(int(offsets[0]))
    data = file.read(int(offsets[-1] - offsets[0]))
  starts = (offsets - offsets[0]).tolist()
  return [
    data[start + _HEADER_BYTES : end]
    for start, end in zip(starts, starts[1:], strict=False)
  ]


# The index of a file ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RecordIndex:
  """Holds the sizes and the bad records of a TFRecord file.

  Attributes:
    bytes: the file's size.
    mtime: time of its last change, in nanoseconds.
    checked: hash of the specs that all records were compared with; "" if they
      were not compared.
    problems: list of str that describe the first bad records.
    sizes: int64 [all records], bytes of each, framing included.
    bad: int64 [bad records], their numbers.
  """

  bytes: int
  mtime: int
  checked: str
  problems: list[str]
  sizes: np.ndarray
  bad: np.ndarray


# The fields that an index file holds as arrays; the others are JSON.
_ARRAYS = ("sizes", "bad")


def save_index(path, *record_sources):
  """Writes the indexes of sources' files, so that a next run need not scan.

  Args:
    path: of an .npz file.
    *record_sources: RecordSources.
  """
  about, arrays = {}, {}
  indexes = {k: v for x in record_sources for k, v in x.index.items()}
  for i, (file, index) in enumerate(indexes.items()):
    fields = dict(vars(index))
    arrays.update({f"{name}_{i}": fields.pop(name) for name in _ARRAYS})
    about[file] = fields
  content = io.BytesIO()
  np.savez_compressed(content, about=json.dumps(about), **arrays)
  files.write_atomically(path, content.getvalue())


def load_index(path):
  """Reads the file that `save_index` wrote.

  Returns:
    Dict from path to RecordIndex. Empty if there is no file, or if it is
    damaged, which is printed; then the record files are scanned again.
  """
  if not tf.io.gfile.exists(path):
    return {}
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      arrays = np.load(io.BytesIO(file.read()))
    about = json.loads(str(arrays["about"]))
    return {
      record_file: _read_index(fields, arrays, i)
      for i, (record_file, fields) in enumerate(about.items())
    }
  # A damaged zip file makes zipfile and NumPy raise almost anything.
  except Exception as error:
    print(f"{path} is damaged and is made again ({error})")
    return {}


def _read_index(fields, arrays, number):
  sizes = arrays[f"sizes_{number}"]
  if sizes.sum() != fields["bytes"]:
    raise ValueError(f"its sizes do not add up to {fields['bytes']}")
  # Files of the first versions have no bad records.
  bad = arrays.get(f"bad_{number}", np.zeros(0, np.int64))
  defaults = {"checked": "", "problems": []}
  return RecordIndex(**{**defaults, **fields}, sizes=sizes, bad=bad)


def _index_file(path, known, specs):
  """Finds a file's records, and the bad ones among them.

  Args:
    path: the file.
    known: an earlier RecordIndex, returned if it is still valid; or None.
    specs: FeatureSpecs, to find the records that do not match them; None to
      compare no record, and to refuse a truncated file.

  Returns:
    RecordIndex.
  """
  try:
    stat = tf.io.gfile.stat(path)
    if stat.is_directory:
      raise IsADirectoryError(f"{path} is a directory; name record files")
    state = (stat.length, stat.mtime_nsec, _fingerprint(specs))
    if known and (known.bytes, known.mtime, known.checked) == state:
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
  return RecordIndex(*state, shown, sizes, np.array(bad, np.int64))


def _fingerprint(specs):
  """Hashes all attributes by which specs find bad records; "" without specs."""
  if not specs:
    return ""
  # In the format of earlier versions, so that their indexes stay valid.
  fields = [
    f"FeatureSpec(name={x.name!r}, length={x.length}, dtype={x.record_dtype!r},"
    f" limit={x.limit}, limited_by={x.limited_by!r})"
    for x in specs
  ]
  text = f"({', '.join(fields)}{',' * (len(fields) == 1)})"
  return hashlib.sha256(text.encode()).hexdigest()


# Scanning ---------------------------------------------------------------------


def _scan_record_sizes(path, file_bytes, skips=False):
  """Finds a file's records by their lengths.

  The bytes from a damaged length to the next record count as one record.

  Args:
    path: the file.
    file_bytes: its size.
    skips: whether to go on after a damaged length.

  Returns:
    (int64 [records], sizes in bytes, framing included; dict from the number of
    each damaged record to its problem).
  """
  sizes, problems = [], {}
  position = 0
  chunk_start, chunk = 0, b""
  with tf.io.gfile.GFile(path, "rb") as file:
    while position < file_bytes:
      if position + _HEADER_BYTES > chunk_start + len(chunk):
        file.seek(position)
        chunk_start, chunk = position, file.read(_INDEX_CHUNK_BYTES)
      size = _record_size(chunk, position - chunk_start)
      if size is None or position + size > file_bytes:
        if not skips:
          raise ValueError(
            f"{path} is truncated or no TFRecord file: {_name(len(sizes))} at "
            f"byte {position} does not fit; {_REMEDY}"
          )
        size = _find_header(file, position + 1, file_bytes) - position
        problems[len(sizes)] = (
          f"at byte {position} is damaged or cut off: {size} bytes lost"
        )
        chunk_start, chunk = 0, b""  # The file's position has changed.
      sizes.append(size)
      position += size
  return np.array(sizes, np.int64), problems


def _record_size(chunk, start):
  header = chunk[start : start + _HEADER_BYTES]
  if len(header) < _HEADER_BYTES:
    return None
  length, crc = struct.unpack("<QI", header)
  if record_writer.masked_crc(header[:8]) != crc:
    return None
  return _HEADER_BYTES + length + _FOOTER_BYTES


def _find_header(file, start, file_bytes):
  """Finds the first record at byte `start` or later, else the file's end.

  A length and its CRC agree by chance once in four billion bytes.
  """
  while start + _HEADER_BYTES <= file_bytes:
    file.seek(start)
    chunk = file.read(_SEARCH_CHUNK_BYTES)
    data = np.frombuffer(chunk, np.uint8)
    count = len(data) - _HEADER_BYTES + 1
    # Lengths are below 4 GB and not 0, since zeros are padding.
    is_zero = np.stack([data[i : i + count] == 0 for i in range(8)])
    possible = is_zero[4:].all(axis=0) & ~is_zero[:4].all(axis=0)
    for offset in np.flatnonzero(possible).tolist():
      size = _record_size(chunk, offset)
      if size is not None and start + offset + size <= file_bytes:
        return start + offset
    start += count
  return file_bytes


def _find_bad_records(path, sizes, unreadable, specs):
  """Compares every record of a file with its CRC and with specs.

  Args:
    path: the file.
    sizes: int64 [records].
    unreadable: numbers of the records with a damaged length.
    specs: tuple of FeatureSpec.

  Returns:
    Dict from the number of each bad record to its problem.
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
  """Yields (number, problem) of records that do not match `specs`.

  Bisects: most records match, and comparing a single one takes as long as
  parsing dozens together.

  Args:
    records: list of (number, bytes).
    specs: tuple of FeatureSpec.
  """
  serialized = [record for _, record in records]
  if not records or parsing.parse_valid(serialized, specs) is not None:
    return
  if len(records) == 1:
    yield records[0][0], parsing.find_problem(serialized[0], specs)
    return
  middle = len(records) // 2
  yield from _find_wrong(records[:middle], specs)
  yield from _find_wrong(records[middle:], specs)


def _stretches(offsets, unreadable):
  """Yields ranges (first, end) of readable records to read together."""
  low = 0
  for high in [*sorted(unreadable), len(offsets) - 1]:
    while low < high:
      limit = offsets[low] + _INDEX_CHUNK_BYTES
      end = np.searchsorted(offsets, limit, side="right") - 1
      end = int(min(max(end, low + 1), high))
      yield low, end
      low = end
    low = high + 1
