"""Records, their order, and what is said about bad ones."""

import collections
import dataclasses
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bert_keras3.data import features
from bert_keras3.data import order
from bert_keras3.data import parsing
from bert_keras3.data import record_writer
from bert_keras3.data import records
from bert_keras3.data import sequences
from bert_keras3.data import sources

SPECS = (
  features.FeatureSpec("input_ids", (4,)),
  features.FeatureSpec("weights", (2,), "float32"),
  features.FeatureSpec("label", (1,)),
)


def make_features(count, start=0):
  ids = np.arange(start, start + count)[:, None]
  return {
    "input_ids": ids + np.arange(4),
    "weights": ids * [0.5, 0.25],
    "label": ids,
  }


def write_records(path, values, specs=SPECS):
  with record_writer.RecordWriter(str(path)) as writer:
    for record in features.serialize_examples(values, specs):
      writer.write(record)
  return str(path)


@pytest.fixture
def three_files(tmp_path):
  """Records 0-9 in three files of 5, 1 and 4."""
  bounds = [(0, 5), (5, 6), (6, 10)]
  return [
    write_records(tmp_path / f"{i}.tfrecord", make_features(end - start, start))
    for i, (start, end) in enumerate(bounds)
  ]


# Serialising


@pytest.mark.parametrize(
  "values",
  [
    [0, 1, 127, 128],
    [16383, 16384, 2**21 - 1, 2**21],
    [2**31, 2**63 - 1, -1, -(2**63)],
  ],
)
def test_integers_are_what_protobuf_writes(values):
  specs = (features.FeatureSpec("x", (4,)),)
  (record,) = features.serialize_examples({"x": np.array([values])}, specs)
  expected = tf.train.Example()
  expected.features.feature["x"].int64_list.value.extend(values)
  assert record == expected.SerializeToString(deterministic=True)


def test_records_parse_to_what_was_written():
  values = make_features(300)
  serialized = features.serialize_examples(values, SPECS)
  parsed = parsing.parse_valid(serialized, SPECS)
  for spec in SPECS:
    np.testing.assert_array_equal(parsed[spec.name], values[spec.name])
    assert parsed[spec.name].dtype == spec.dtype


def test_equal_inputs_give_equal_bytes(tmp_path):
  paths = [
    write_records(tmp_path / name, make_features(20)) for name in ("a", "b")
  ]
  first, second = (open(path, "rb").read() for path in paths)
  assert first == second


def test_tensorflow_reads_the_file(tmp_path):
  path = write_records(tmp_path / "a", make_features(3))
  assert len(list(tf.data.TFRecordDataset(path))) == 3


def test_a_failed_writer_leaves_nothing(tmp_path):
  with pytest.raises(RuntimeError):
    with record_writer.RecordWriter(str(tmp_path / "a")) as writer:
      writer.write(b"x")
      raise RuntimeError
  assert list(tmp_path.iterdir()) == []


# Sequences in memory


def upstream_truncation(num_a, num_b, max_seq_length):
  """_truncate_seq_pair of upstream's run_classifier.py, on counts."""
  if not num_b:
    return min(num_a, max_seq_length - 2), 0
  while num_a + num_b > max_seq_length - 3:
    if num_a > num_b:
      num_a -= 1
    else:
      num_b -= 1
  return num_a, num_b


def test_pairs_are_truncated_as_upstream():
  for sizes in itertools.product(range(14), range(14), range(3, 20)):
    expected = upstream_truncation(*sizes)
    assert sequences.truncate_pair(*sizes) == expected, sizes


@pytest.mark.parametrize(
  ("a", "b", "expected"),
  [
    ([5, 6], [7], ([101, 5, 6, 102, 7, 102], 4)),
    ([5, 6], [], ([101, 5, 6, 102], 4)),
    ([], [], ([101, 102], 2)),
    ([], [7], ([101, 102, 7, 102], 2)),
  ],
)
def test_pairs_are_packed(a, b, expected):
  assert sequences.pack_pair(a, b, 101, 102) == expected


def make_sequences():
  """Lengths 4, 2 and 7."""
  return sequences.Sequences(
    [([11, 12, 13, 14], 3), ([21, 22], 2), ([*range(31, 38)], 4)]
  )


def test_sequences_are_padded_in_any_order_and_more_than_once():
  three = make_sequences()
  assert len(three) == 3
  assert three.lengths.tolist() == [4, 2, 7]
  batch = three.pad(np.array([1, 0, 1]), 5)
  assert {name: values.tolist() for name, values in batch.items()} == {
    "input_ids": [[21, 22, 0, 0, 0], [11, 12, 13, 14, 0], [21, 22, 0, 0, 0]],
    "input_mask": [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]],
    "segment_ids": [[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]],
  }
  assert {values.dtype for values in batch.values()} == {np.dtype(np.int32)}


def test_the_last_sequence_needs_no_padding():
  """Nothing is read beyond its end."""
  batch = make_sequences().pad([2], 7)
  assert batch["input_ids"].tolist() == [[*range(31, 38)]]
  assert batch["segment_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def make_sequence_source(lengths, buckets):
  """Sequence i holds only the number i + 1."""
  packed = [([i + 1] * length, length) for i, length in enumerate(lengths)]
  columns = {
    "label_ids": np.arange(len(lengths)) * 10,
    "scores": np.arange(2.0 * len(lengths)).reshape(-1, 2),
  }
  return sequences.SequenceSource(sequences.Sequences(packed), columns, buckets)


@pytest.mark.parametrize(
  ("numbers", "length"),
  [([0], 4), ([0, 1], 4), ([2], 8), ([0, 2, 1], 8), ([3], 9), ([1, 3], 9)],
)
def test_a_batch_takes_the_first_bucket_that_holds_it(numbers, length):
  source = make_sequence_source([3, 4, 5, 9], (4, 8, 9))
  batch = source.take(np.array(numbers), step=0)
  for name in features.SEQUENCE_FEATURES:
    assert batch[name].shape == (len(numbers), length)
  assert batch["input_ids"].max(axis=1).tolist() == [n + 1 for n in numbers]
  found = batch["input_mask"].sum(axis=1)
  assert found.tolist() == source.lengths[numbers].tolist()


def test_a_batch_has_the_columns_of_its_sequences():
  batch = make_sequence_source([3, 4, 5], (8,)).take(np.array([2, 0]), step=0)
  assert batch["label_ids"].tolist() == [20, 0]
  assert batch["scores"].tolist() == [[4, 5], [0, 1]]


def test_a_sequence_beyond_the_last_bucket_is_refused():
  with pytest.raises(ValueError, match="of 9 tokens does not fit into 8"):
    make_sequence_source([3, 9, 4], (4, 8))


def padded_size(lengths, buckets):
  """Positions of all sequences, each padded to its bucket."""
  return np.take(buckets, np.searchsorted(buckets, lengths)).sum()


@pytest.mark.parametrize("max_buckets", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(20))
def test_bucket_lengths_waste_the_least(seed, max_buckets):
  """Against every choice of multiples of 8, the last one given."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, rng.integers(2, 52), rng.integers(1, 40))
  # One that cuts the last multiple short, and one that does not.
  max_seq_length = int(lengths.max() + rng.integers(0, 10))
  found = sequences.bucket_lengths(lengths, max_seq_length, max_buckets)
  last = min(-(-int(lengths.max()) // 8) * 8, max_seq_length)
  assert found[-1] == last
  assert list(found) == sorted(set(found))
  assert len(found) <= max_buckets
  assert all(length % 8 == 0 for length in found[:-1])
  choices = itertools.chain.from_iterable(
    itertools.combinations(range(8, last, 8), count)
    for count in range(max_buckets)
  )
  fewest = min(padded_size(lengths, (*some, last)) for some in choices)
  assert padded_size(lengths, found) == fewest


def test_there_are_at_most_six_buckets():
  lengths = np.arange(1, 513)
  found = sequences.bucket_lengths(lengths, 512)
  assert len(found) == 6
  assert found[-1] == 512


@pytest.mark.parametrize(
  ("lengths", "max_seq_length", "expected"),
  [
    ([], 128, (8,)),
    ([], 4, (4,)),
    ([20] * 9, 128, (24,)),
    ([20] * 9, 20, (20,)),
    ([24, 24], 128, (24,)),
    ([3], 3, (3,)),
    ([3, 30, 30], 128, (8, 32)),
    ([8, 9], 128, (8, 16)),
  ],
)
def test_bucket_lengths_of_few_lengths(lengths, max_seq_length, expected):
  """No bucket without a sequence, and a source for each."""
  found = sequences.bucket_lengths(np.array(lengths, int), max_seq_length)
  assert found == expected
  assert make_sequence_source(lengths, found).bucket_lengths == expected


# Sources


@pytest.fixture(params=["records", "one length", "mixed lengths"])
def source(request, three_files):
  """A source of each kind, of ten examples."""
  if request.param == "records":
    return records.RecordSource(three_files, SPECS)
  buckets = (9,) if request.param == "one length" else (4, 8, 9)
  return make_sequence_source([3, 4, 5, 9, 7, 3, 3, 8, 9, 1], buckets)


def test_a_source_keeps_to_the_protocol(source):
  assert isinstance(source, sources.Source)
  assert len(source) == 10
  assert source.block_size > 0
  assert isinstance(source.locate(np.int64(7)), sources.Location)
  if features.vary(source.specs):
    assert len(source.lengths) == len(source)
    assert source.bucket_lengths == tuple(sorted(source.bucket_lengths))


@pytest.mark.parametrize("numbers", [[7], [3, 0, 3], [9, 5]])
def test_a_batch_is_as_its_source_declares(source, numbers):
  batch = source.take(np.array(numbers), step=5)
  assert sorted(batch) == sorted(spec.name for spec in source.specs)
  for spec in source.specs:
    values = batch[spec.name]
    assert values.dtype == spec.dtype
    assert len(values) == len(numbers)
    assert len(values.shape) == 1 + len(spec.shape)
    for size, expected in zip(values.shape[1:], spec.shape, strict=True):
      allowed = source.bucket_lengths if expected is None else [expected]
      assert size in allowed
  for step in (5, 6):  # Static: the step changes nothing.
    again = source.take(np.array(numbers), step)
    for name, values in batch.items():
      np.testing.assert_array_equal(again[name], values)


def test_examples_are_described_by_file_where_there_is_one(three_files):
  source = records.RecordSource(three_files, SPECS)
  assert sources.describe_examples(source, [0, 3, 5, 4]) == (
    f"records 0, 3, 4 of {three_files[0]}; records 0 of {three_files[1]}"
  )
  in_memory = make_sequence_source([3, 4, 5], (8,))
  assert sources.describe_examples(in_memory, [2, 0]) == "examples 2, 0"


# Reading


def test_random_access_across_files(three_files):
  source = records.RecordSource(three_files, SPECS)
  assert len(source) == 10
  batch = source.take(np.array([9, 0, 5, 4]), step=0)
  assert batch["label"].tolist() == [[9], [0], [5], [4]]
  assert source.locate(5) == (three_files[1], 0)
  assert source.locate(9) == (three_files[2], 3)


@pytest.mark.parametrize("block_size", [1, 3, 10, 100])
def test_blocks_change_nothing(three_files, monkeypatch, block_size):
  monkeypatch.setattr(order, "BLOCK_RECORDS", block_size)
  source = records.RecordSource(three_files, SPECS)
  numbers = np.array([3, 9, 0, 5, 6, 3])
  assert (
    source.take(numbers, step=0)["label"][:, 0].tolist() == numbers.tolist()
  )


def test_a_block_is_read_once(three_files, monkeypatch):
  monkeypatch.setattr(order, "BLOCK_RECORDS", 5)
  reads = []
  read = records._read_records
  monkeypatch.setattr(
    records,
    "_read_records",
    lambda path, offsets: reads.append(path) or read(path, offsets),
  )
  source = records.RecordSource(three_files, SPECS)
  for number in range(10):
    source.take([number], step=0)
  assert reads == three_files


def test_upstreams_files_are_read(goldens):
  path = str(goldens / "pretraining_data" / "sample_default.tfrecord")
  source = records.RecordSource([path], features.pretraining_features(128, 20))
  expected = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  assert source.read(range(len(source))) == expected


def test_the_index_is_kept_and_renewed(three_files, tmp_path, monkeypatch):
  index = str(tmp_path / "index.npz")
  records.save_index(index, records.RecordSource(three_files, SPECS))
  scans = []
  scan = records._scan_record_sizes
  monkeypatch.setattr(
    records,
    "_scan_record_sizes",
    lambda path, *rest: scans.append(path) or scan(path, *rest),
  )
  known = records.load_index(index)
  assert len(records.RecordSource(three_files, SPECS, known)) == 10
  assert scans == []
  write_records(three_files[1], make_features(2))
  assert len(records.RecordSource(three_files, SPECS, known)) == 11
  assert scans == [three_files[1]]


def test_a_missing_index_is_empty(tmp_path):
  assert records.load_index(str(tmp_path / "none")) == {}


def test_truncated_files_are_named_with_the_record(three_files):
  with open(three_files[2], "rb+") as file:
    file.truncate(file.seek(0, 2) - 3)
  with pytest.raises(
    ValueError, match="2.tfrecord is truncated.*record 3 .*from 0"
  ):
    records.RecordSource(three_files, SPECS)


def test_files_that_are_no_records_are_named(tmp_path):
  path = tmp_path / "text"
  path.write_text("not a record file at all, only some text")
  with pytest.raises(ValueError, match="no TFRecord file: record 0"):
    records.RecordSource([str(path)], SPECS)


def test_a_flipped_bit_is_named_with_the_record(three_files):
  source = records.RecordSource(three_files, SPECS)
  with open(three_files[2], "rb+") as file:
    file.seek(-10, 2)
    byte = file.read(1)[0]
    file.seek(-10, 2)
    file.write(bytes([byte ^ 1]))
  with pytest.raises(ValueError, match="2.tfrecord: record 3 .*0. is corrupt"):
    source.take([9], step=0)


def test_no_record_at_all(tmp_path):
  path = write_records(tmp_path / "empty", make_features(0))
  with pytest.raises(ValueError, match="no record in .*empty"):
    records.RecordSource([path], SPECS)


@pytest.mark.parametrize(
  ("specs", "words"),
  [
    ([features.FeatureSpec("input_ids", (8,))], "4 int64_list .*, not 8"),
    ([features.FeatureSpec("spans", (1,))], "no feature 'spans'.*weights"),
    ([features.FeatureSpec("label", (1,), "float32")], "0 float_list"),
  ],
)
def test_records_of_another_kind_are_explained(three_files, specs, words):
  source = records.RecordSource(three_files, tuple(specs))
  with pytest.raises(ValueError, match=f"1.tfrecord: record 0 .*{words}"):
    source.take([5, 6], step=0)


LIMITED = (
  features.FeatureSpec("input_ids", (4,), "int32", 13, "vocab_size in x"),
  features.FeatureSpec("weights", (2,), "float32"),
  features.FeatureSpec("label", (1,)),
)


def test_values_out_of_range_are_named_with_what_was_expected(three_files):
  """Record 9 holds the ids 9 to 12, the last one allowed."""
  source = records.RecordSource(three_files, LIMITED)
  assert source.take([9], step=0)["input_ids"].max() == 12
  source.specs = (dataclasses.replace(LIMITED[0], limit=12), *LIMITED[1:])
  words = (
    r"2.tfrecord: record 3 \(counting from 0\) has 12 in 'input_ids', not "
  )
  words += r"0 to 11 \(vocab_size in x\); .*--skip_bad_records"
  with pytest.raises(ValueError, match=words):
    source.take([0, 9], step=0)


@pytest.mark.parametrize("value", [-1, 13, 2**32 + 5, -(2**63)])
def test_no_integer_becomes_another_one(tmp_path, value):
  """2**32 + 5 would be 5 in a batch."""
  values = make_features(2)
  values["input_ids"][1, 2] = value
  path = write_records(tmp_path / "a", values)
  source = records.RecordSource([path], LIMITED)
  with pytest.raises(
    ValueError, match=f"record 1 .*has {value} in 'input_ids'"
  ):
    source.take([0, 1], step=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_are_finite(tmp_path, value):
  values = {**make_features(1), "weights": [[0, value]]}
  path = write_records(tmp_path / "a", values)
  source = records.RecordSource([path], LIMITED)
  with pytest.raises(ValueError, match="in 'weights', not finite numbers"):
    source.take([0], step=0)


def test_a_record_that_tensorflow_cannot_even_quote_is_named(tmp_path):
  """Its error holds the record, and is no UTF-8."""
  path = str(tmp_path / "noise")
  with record_writer.RecordWriter(path) as writer:
    writer.write(b"\xff\x00noise")
  source = records.RecordSource([path], SPECS)
  with pytest.raises(ValueError, match="noise: record 0 .* no feature"):
    source.take([0], step=0)


# Bad records left out


def edit(path, offset, new_bytes):
  """Overwrites bytes; counts from the end if the offset is negative."""
  with open(path, "rb+") as file:
    file.seek(offset, 2 if offset < 0 else 0)
    file.write(new_bytes)


def skip(paths, specs=LIMITED, known=None):
  return records.RecordSource(paths, specs, known, skip_bad_records=True)


def labels_of(source):
  return source.take(np.arange(len(source)), step=0)["label"][:, 0].tolist()


def record_size(path, count):
  return os.path.getsize(path) // count


def test_without_bad_records_nothing_is_left_out(three_files):
  source = skip(three_files)
  assert (len(source), source.bad_records, source.problems) == (10, 0, [])
  assert labels_of(source) == list(range(10))


@pytest.mark.parametrize(
  ("offset", "words"),
  [
    (30, "is corrupt"),  # in the data
    (0, "is damaged or cut off: .* bytes lost"),  # in the length
    (9, "is damaged or cut off"),  # in its checksum
    (-1, "is corrupt"),  # the data's checksum, of the last record
  ],
)
def test_one_damaged_byte_costs_one_record(three_files, offset, words):
  """Also where it hides how long the record is."""
  size = record_size(three_files[0], 5)
  place = 4 if offset < 0 else 2
  start = offset if offset < 0 else 2 * size + offset
  data = open(three_files[0], "rb").read()
  edit(three_files[0], start, bytes([data[start] ^ 0x55]))
  source = skip(three_files)
  assert labels_of(source) == [x for x in range(10) if x != place]
  (problem,) = source.problems
  assert re.search(f"0.tfrecord: record {place} .*from 0. .*{words}", problem)
  # Numbers in errors are still those of the file.
  assert source.locate(3) == (three_files[0], 3 if place == 4 else 4)


@pytest.mark.parametrize("cut", [1, 5, 50, -5])
def test_of_a_truncated_file_whole_records_are_left(three_files, cut):
  with open(three_files[0], "rb+") as file:
    end = file.seek(0, 2)
    file.truncate(end - max(cut, 0))
    file.write(b"\1" * -cut)  # Nothing, or the beginning of a record.
  source = skip(three_files)
  assert source.bad_records == 1
  lost = [4] if cut > 0 else []
  assert labels_of(source) == [x for x in range(10) if x not in lost]


def test_records_of_another_kind_are_left_out(three_files, tmp_path):
  other = write_records(
    tmp_path / "other",
    {"x": np.zeros([7, 1], int)},
    (features.FeatureSpec("x", (1,)),),
  )
  text = tmp_path / "text"
  text.write_text("no records, but some text " * 100)
  empty = write_records(tmp_path / "empty", make_features(0))
  files = [other, three_files[0], str(text), empty, three_files[2]]
  source = skip(files)
  assert labels_of(source) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
  assert source.bad_records == 8
  # Five of the first file, of which there are seven, and one of the text.
  assert len(source.problems) == 6
  assert "no feature 'input_ids'" in source.problems[0]


def test_values_out_of_range_are_left_out(three_files):
  specs = (dataclasses.replace(LIMITED[0], limit=11), *LIMITED[1:])
  source = skip(three_files, specs)
  assert labels_of(source) == list(range(8))
  assert "record 2 (counting from 0) has 11 in" in source.problems[0]


def test_if_every_record_is_bad_that_is_an_error(three_files):
  specs = (features.FeatureSpec("spans", (1,)),)
  with pytest.raises(ValueError, match="none of the 10 records .*'spans'.*fla"):
    skip(three_files, specs)


@pytest.mark.parametrize("block_size", [1, 3, 100])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 24])
def test_bad_records_change_nothing_else(
  three_files, monkeypatch, block_size, chunk
):
  """Whatever is read together, and in which order."""
  monkeypatch.setattr(order, "BLOCK_RECORDS", block_size)
  monkeypatch.setattr(records, "_INDEX_CHUNK_BYTES", max(chunk, 12))
  size = record_size(three_files[0], 5)
  for place in (0, 3):
    edit(three_files[0], place * size + 20, b"\xff\xff")
  edit(three_files[2], 0, b"\xff")
  source = skip(three_files)
  expected = [1, 2, 4, 5, 7, 8, 9]
  assert len(source) == len(expected)
  for number in (6, 0, 3, 5, 1, 4, 2):
    assert source.take([number], step=0)["label"].tolist() == [
      [expected[number]]
    ]


def test_what_is_bad_is_kept_with_the_index(three_files, tmp_path, monkeypatch):
  edit(three_files[0], 30, b"\xff\xff")
  index = str(tmp_path / "index.npz")
  first = skip(three_files)
  records.save_index(index, first)
  known = records.load_index(index)

  looked = []
  find = records._find_bad_records
  monkeypatch.setattr(
    records,
    "_find_bad_records",
    lambda path, *rest: looked.append(path) or find(path, *rest),
  )
  again = skip(three_files, known=known)
  assert looked == []
  assert labels_of(again) == labels_of(first) == list(range(1, 10))
  assert again.problems == first.problems

  # Other limits, or a file that changed: they are looked at again.
  specs = (dataclasses.replace(LIMITED[0], limit=12), *LIMITED[1:])
  assert labels_of(skip(three_files, specs, known)) == list(range(1, 9))
  assert looked == three_files
  # And to who wants an error, a list of bad records is no excuse.
  strict = records.RecordSource(three_files, LIMITED, known)
  with pytest.raises(ValueError, match="record 0 .* is corrupt"):
    strict.take([0], step=0)


def test_an_index_without_bad_records_is_as_it_was(three_files, tmp_path):
  """That of a run which began before there was a flag."""
  about, arrays = {}, {}
  for i, path in enumerate(three_files):
    stat = tf.io.gfile.stat(path)
    about[path] = {"bytes": stat.length, "mtime": stat.mtime_nsec}
    count = (5, 1, 4)[i]
    arrays[f"sizes_{i}"] = np.full(count, stat.length // count)
  index = str(tmp_path / "index.npz")
  np.savez_compressed(index, about=json.dumps(about), **arrays)
  known = records.load_index(index)
  source = records.RecordSource(three_files, SPECS, known)
  assert all(source.index[path] is known[path] for path in three_files)
  assert labels_of(source) == list(range(10))


def read_arrays(path):
  """What np.load finds in an .npz file, by name."""
  with np.load(path) as arrays:
    return {name: arrays[name].tolist() for name in arrays}


def test_an_index_of_an_earlier_version_holds(testdata, tmp_path, monkeypatch):
  """Made before an index was a RecordIndex, and left as it is."""
  shutil.copytree(testdata / "record_index", tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  os.utime("records.tfrecord", ns=(10**18, 10**18))
  known = records.load_index("record_index.npz")
  source = skip(["records.tfrecord"], known=known)
  assert source.index["records.tfrecord"] is known["records.tfrecord"]
  assert labels_of(source) == [0, 1, 3, 4, 5]
  records.save_index("again.npz", source)
  assert read_arrays("again.npz") == read_arrays("record_index.npz")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 no zip"])
def test_a_damaged_index_is_made_again(tmp_path, capsys, content):
  path = tmp_path / "index.npz"
  path.write_bytes(content)
  assert records.load_index(str(path)) == {}
  assert f"{path} is damaged and is made again" in capsys.readouterr().out


# Order


def make_order(num_records=10, batch_size=4, seed=1, block_size=1 << 14):
  return order.TrainingOrder(num_records, batch_size, seed, block_size)


@pytest.mark.parametrize("block_size", [1, 3, 4, 100])
def test_every_epoch_holds_every_record_once(block_size):
  an_order = make_order(block_size=block_size)
  stream = np.concatenate([an_order.batch(step) for step in range(15)])
  for epoch in np.split(stream, 6):
    assert sorted(epoch) == list(range(10))
  assert len({tuple(epoch) for epoch in np.split(stream, 6)}) > 1


def test_any_step_can_be_had_without_those_before():
  forwards = [make_order().batch(step).tolist() for step in range(20)]
  backwards = make_order()
  assert [
    backwards.batch(step).tolist() for step in reversed(range(20))
  ] == forwards[::-1]


def test_seeds_differ_and_repeat():
  assert (
    make_order(seed=1).batch(0).tolist() == make_order(seed=1).batch(0).tolist()
  )
  assert (
    make_order(100, seed=1).batch(0).tolist()
    != make_order(100, seed=2).batch(0).tolist()
  )


def test_the_order_is_pinned():
  """A change here would silently reorder every run that is resumed."""
  assert make_order().batch(0).tolist() == [2, 0, 1, 4]


def test_batches_stay_within_a_block_and_blocks_are_permuted():
  an_order = make_order(num_records=1000, batch_size=10, block_size=100)
  blocks = [set(an_order.batch(step) // 100) for step in range(100)]
  assert all(len(block) == 1 for block in blocks)
  sequence = [block.pop() for block in blocks[::10]]
  assert sorted(sequence) == list(range(10))
  assert sequence != list(range(10))


def test_a_batch_larger_than_the_data_repeats_it():
  counts = collections.Counter(make_order(num_records=3, batch_size=9).batch(0))
  assert counts == {0: 3, 1: 3, 2: 3}


# Order by length


def mixed_lengths(count, longest=120):
  return np.random.default_rng(count).integers(3, longest + 1, count)


def length_order(count, batch_size=8, seed=1):
  return order.LengthGroupedOrder(
    make_order(count, batch_size, seed, count), mixed_lengths(count)
  )


@pytest.mark.parametrize("count", [5, 8, 64, 100, 1003])
def test_every_epoch_by_length_holds_every_sequence_once(count):
  """Also where an epoch is less than a group, or than a batch."""
  an_order = length_order(count)
  num_steps = -(-4 * count // 8)
  stream = np.concatenate([an_order.batch(step) for step in range(num_steps)])
  epochs = np.split(stream[: 4 * count], 4)
  for epoch in epochs:
    assert sorted(epoch) == list(range(count))
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_any_step_by_length_can_be_had_without_those_before():
  an_order = length_order(1003)
  forwards = [an_order.batch(step).tolist() for step in range(300)]
  for step in np.random.default_rng(0).permutation(300)[:100].tolist():
    assert length_order(1003).batch(step).tolist() == forwards[step]
    assert an_order.batch(step).tolist() == forwards[step]


def test_seeds_by_length_differ():
  first, other = (
    [length_order(1000, seed=seed).batch(step).tolist() for step in range(20)]
    for seed in (1, 2)
  )
  assert all(x != y for x, y in zip(first, other, strict=True))


def test_the_order_by_length_is_pinned():
  """A change here would silently reorder every run that is resumed."""
  assert length_order(24, batch_size=3).batch(2).tolist() == [4, 19, 13]


def test_batches_of_a_group_do_not_overlap_in_length():
  """125 batches an epoch, in groups of 50, 50 and 25."""
  lengths = mixed_lengths(1000)
  an_order = length_order(1000)
  bounds = [(0, 50), (50, 100), (100, 125), (125, 175)]
  for group in itertools.starmap(range, bounds):
    spans = [
      (lengths[numbers].min(), lengths[numbers].max())
      for numbers in map(an_order.batch, group)
    ]
    assert spans != sorted(spans)
    ordered = sorted(spans)
    for (_, longest), (shortest, _) in itertools.pairwise(ordered):
      assert longest <= shortest


def test_a_batch_across_epochs_is_that_of_the_plain_order():
  """100 sequences are 12 batches of 8 and a half."""
  by_length, plain = length_order(100), make_order(100, 8, 1, 100)
  assert by_length.batch(12).tolist() == plain.batch(12).tolist()
  assert by_length.batch(11).tolist() != plain.batch(11).tolist()


def test_many_steps_have_six_shapes_at_most():
  lengths = mixed_lengths(1003)
  source = make_sequence_source(lengths, sequences.bucket_lengths(lengths, 128))
  an_order = order.training_order(source, 8, seed=3)
  shapes = collections.Counter(
    source.take(an_order.batch(step), step)["input_ids"].shape
    for step in range(500)
  )
  assert set(shapes) == {(8, length) for length in source.bucket_lengths}
  assert 2 < len(shapes) <= 6
  # Six buckets for lengths up to 120 add 10 to the mean of 61; batches of any
  # lengths would add 50.
  positions = sum(8 * length * n for (_, length), n in shapes.items())
  assert positions < 1.25 * 8 * 500 * lengths.mean()


def test_training_is_by_length_only_where_shapes_differ():
  lengths = mixed_lengths(40)
  source = make_sequence_source(lengths, (64, 120))
  by_length = order.training_order(source, 4, seed=5)
  assert isinstance(by_length, order.LengthGroupedOrder)
  assert [x.name for x in source.specs if x.varies] == [
    "input_ids",
    "input_mask",
    "segment_ids",
  ]
  source = make_sequence_source(lengths, (120,))
  assert not features.vary(source.specs)
  plain = order.training_order(source, 4, seed=5)
  assert isinstance(plain, order.TrainingOrder)
  for an_order in (plain, by_length.order):
    assert (
      an_order.batch(7).tolist() == make_order(40, 4, 5, 40).batch(7).tolist()
    )


def test_inference_takes_the_shortest_first():
  lengths = [9, 3, 9, 4, 3]
  source = make_sequence_source(lengths, (8, 16))
  assert order.inference_order(source).tolist() == [1, 4, 3, 0, 2]
  source = make_sequence_source(lengths, (16,))
  assert order.inference_order(source).tolist() == [0, 1, 2, 3, 4]


# Evaluation batches


def test_sequential_batches_cover_everything_once():
  batches = list(order.sequential_batches(10, 4))
  assert [batch.tolist() for batch in batches] == [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ]
  assert len(list(order.sequential_batches(10, 4, 2))) == 2


def test_padding_adds_rows_without_weight():
  batch = {
    "input_ids": np.array([[1], [2]]),
    "masked_lm_weights": np.ones([2, 3], np.float32),
  }
  padded = order.pad_batch(batch, 4)
  assert padded["input_ids"].tolist() == [[1], [2], [2], [2]]
  assert padded["example_weights"].tolist() == [1, 1, 0, 0]
  assert padded["masked_lm_weights"].sum() == 6
