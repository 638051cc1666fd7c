"""TFRecord files, read by offset: the index, the checks, the damage."""

import collections
import hashlib
import io
import json
import os
import struct

import google_crc32c
import numpy as np
import tensorflow as tf

from bert_keras3.data import features
from bert_keras3.data import files
from bert_keras3.data import order

# Framing of a TFRecord: uint64 length, its masked CRC, the data, its CRC.
_HEADER_BYTES = 12


_FOOTER_BYTES = 4


# Bytes read at a time while indexing. Remote reads cost a round trip each.
_INDEX_CHUNK_BYTES = 1 << 24


# And while looking for the record behind a damaged one, a dozen bytes each.
_SEARCH_CHUNK_BYTES = 1 << 20


# Bad records of a file that are described; all are counted.
SHOWN_BAD_RECORDS = 5


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
    self.block_size = order.BLOCK_RECORDS
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
    batch = features.parse_valid(serialized, self.specs)
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
    if features.parse_valid(records, self.specs) is None:
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
      problem = features.find_problem(record, self.specs)
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
  files.write_atomically(path, content.getvalue())


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
  if not records or features.parse_valid(serialized, specs) is not None:
    return
  if len(records) == 1:
    yield records[0][0], features.find_problem(serialized[0], specs)
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
