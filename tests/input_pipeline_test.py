"""Records, their order, and what is said about bad ones."""

import collections

import numpy as np
import pytest
import tensorflow as tf

import input_pipeline

SPECS = (
  input_pipeline.FeatureSpec("input_ids", 4),
  input_pipeline.FeatureSpec("weights", 2, "float32"),
  input_pipeline.FeatureSpec("label", 1),
)


def make_features(count, start=0):
  ids = np.arange(start, start + count)[:, None]
  return {
    "input_ids": ids + np.arange(4),
    "weights": ids * [0.5, 0.25],
    "label": ids,
  }


def write_records(path, features, specs=SPECS):
  with input_pipeline.RecordWriter(str(path)) as writer:
    for record in input_pipeline.serialize_examples(features, specs):
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
  specs = (input_pipeline.FeatureSpec("x", 4),)
  (record,) = input_pipeline.serialize_examples(
    {"x": np.array([values])}, specs
  )
  expected = tf.train.Example()
  expected.features.feature["x"].int64_list.value.extend(values)
  assert record == expected.SerializeToString(deterministic=True)


def test_records_parse_to_what_was_written():
  features = make_features(300)
  records = input_pipeline.serialize_examples(features, SPECS)
  parsed = input_pipeline.parse_examples(records, SPECS)
  for spec in SPECS:
    np.testing.assert_array_equal(parsed[spec.name], features[spec.name])
    assert parsed[spec.name].dtype == spec.batch_dtype


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
    with input_pipeline.RecordWriter(str(tmp_path / "a")) as writer:
      writer.write(b"x")
      raise RuntimeError
  assert list(tmp_path.iterdir()) == []


# Reading


def test_random_access_across_files(three_files):
  source = input_pipeline.RecordSource(three_files, SPECS)
  assert len(source) == 10
  batch = source.take(np.array([9, 0, 5, 4]))
  assert batch["label"].tolist() == [[9], [0], [5], [4]]
  assert source.locate(5) == (three_files[1], 0)
  assert source.locate(9) == (three_files[2], 3)


@pytest.mark.parametrize("block_size", [1, 3, 10, 100])
def test_blocks_change_nothing(three_files, monkeypatch, block_size):
  monkeypatch.setattr(input_pipeline, "BLOCK_RECORDS", block_size)
  source = input_pipeline.RecordSource(three_files, SPECS)
  numbers = np.array([3, 9, 0, 5, 6, 3])
  assert source.take(numbers)["label"][:, 0].tolist() == numbers.tolist()


def test_a_block_is_read_once(three_files, monkeypatch):
  monkeypatch.setattr(input_pipeline, "BLOCK_RECORDS", 5)
  reads = []
  read = input_pipeline._read_records
  monkeypatch.setattr(
    input_pipeline,
    "_read_records",
    lambda path, offsets: reads.append(path) or read(path, offsets),
  )
  source = input_pipeline.RecordSource(three_files, SPECS)
  for number in range(10):
    source.take([number])
  assert reads == three_files


def test_upstreams_files_are_read(goldens):
  path = str(goldens / "pretraining_data" / "sample_default.tfrecord")
  source = input_pipeline.RecordSource(
    [path], input_pipeline.pretraining_features(128, 20)
  )
  expected = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  assert source.read(range(len(source))) == expected


def test_the_index_is_kept_and_renewed(three_files, tmp_path, monkeypatch):
  index = str(tmp_path / "index.npz")
  input_pipeline.RecordSource(three_files, SPECS).save_index(index)
  scans = []
  scan = input_pipeline._scan_record_sizes
  monkeypatch.setattr(
    input_pipeline,
    "_scan_record_sizes",
    lambda path, size: scans.append(path) or scan(path, size),
  )
  known = input_pipeline.load_index(index)
  assert len(input_pipeline.RecordSource(three_files, SPECS, known)) == 10
  assert scans == []
  write_records(three_files[1], make_features(2))
  assert len(input_pipeline.RecordSource(three_files, SPECS, known)) == 11
  assert scans == [three_files[1]]


def test_a_missing_index_is_empty(tmp_path):
  assert input_pipeline.load_index(str(tmp_path / "none")) == {}


def test_truncated_files_are_named_with_the_record(three_files):
  with open(three_files[2], "rb+") as file:
    file.truncate(file.seek(0, 2) - 3)
  with pytest.raises(ValueError, match="2.tfrecord is truncated.*record 3"):
    input_pipeline.RecordSource(three_files, SPECS)


def test_files_that_are_no_records_are_named(tmp_path):
  path = tmp_path / "text"
  path.write_text("not a record file at all, only some text")
  with pytest.raises(ValueError, match="no TFRecord file: record 0"):
    input_pipeline.RecordSource([str(path)], SPECS)


def test_a_flipped_bit_is_named_with_the_record(three_files):
  source = input_pipeline.RecordSource(three_files, SPECS)
  with open(three_files[2], "rb+") as file:
    file.seek(-10, 2)
    byte = file.read(1)[0]
    file.seek(-10, 2)
    file.write(bytes([byte ^ 1]))
  with pytest.raises(ValueError, match="2.tfrecord: record 3 is corrupt"):
    source.take([9])


def test_no_record_at_all(tmp_path):
  path = write_records(tmp_path / "empty", make_features(0))
  with pytest.raises(ValueError, match="no record in .*empty"):
    input_pipeline.RecordSource([path], SPECS)


@pytest.mark.parametrize(
  ("specs", "words"),
  [
    ([input_pipeline.FeatureSpec("input_ids", 8)], "4 int64_list .*, not 8"),
    ([input_pipeline.FeatureSpec("spans", 1)], "no feature 'spans'.*weights"),
    ([input_pipeline.FeatureSpec("label", 1, "float32")], "0 float_list"),
  ],
)
def test_records_of_another_kind_are_explained(three_files, specs, words):
  source = input_pipeline.RecordSource(three_files, tuple(specs))
  with pytest.raises(ValueError, match=f"1.tfrecord: record 0 .*{words}"):
    source.take([5, 6])


# Order


def order(num_records=10, batch_size=4, seed=1, block_size=1 << 14):
  return input_pipeline.TrainingOrder(num_records, batch_size, seed, block_size)


@pytest.mark.parametrize("block_size", [1, 3, 4, 100])
def test_every_epoch_holds_every_record_once(block_size):
  an_order = order(block_size=block_size)
  stream = np.concatenate([an_order.batch(step) for step in range(15)])
  for epoch in np.split(stream, 6):
    assert sorted(epoch) == list(range(10))
  assert len({tuple(epoch) for epoch in np.split(stream, 6)}) > 1


def test_any_step_can_be_had_without_those_before():
  forwards = [order().batch(step).tolist() for step in range(20)]
  backwards = order()
  assert [
    backwards.batch(step).tolist() for step in reversed(range(20))
  ] == forwards[::-1]


def test_seeds_differ_and_repeat():
  assert order(seed=1).batch(0).tolist() == order(seed=1).batch(0).tolist()
  assert (
    order(100, seed=1).batch(0).tolist() != order(100, seed=2).batch(0).tolist()
  )


def test_the_order_is_pinned():
  """A change here would silently reorder every run that is resumed."""
  assert order().batch(0).tolist() == [2, 0, 1, 4]


def test_batches_stay_within_a_block_and_blocks_are_permuted():
  an_order = order(num_records=1000, batch_size=10, block_size=100)
  blocks = [set(an_order.batch(step) // 100) for step in range(100)]
  assert all(len(block) == 1 for block in blocks)
  sequence = [block.pop() for block in blocks[::10]]
  assert sorted(sequence) == list(range(10))
  assert sequence != list(range(10))


def test_a_batch_larger_than_the_data_repeats_it():
  counts = collections.Counter(order(num_records=3, batch_size=9).batch(0))
  assert counts == {0: 3, 1: 3, 2: 3}


# Evaluation batches


def test_sequential_batches_cover_everything_once():
  batches = list(input_pipeline.sequential_batches(10, 4))
  assert [batch.tolist() for batch in batches] == [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ]
  assert len(list(input_pipeline.sequential_batches(10, 4, 2))) == 2


def test_padding_adds_rows_without_weight():
  batch = {
    "input_ids": np.array([[1], [2]]),
    "masked_lm_weights": np.ones([2, 3], np.float32),
  }
  padded = input_pipeline.pad_batch(batch, 4)
  assert padded["input_ids"].tolist() == [[1], [2], [2], [2]]
  assert padded["example_weights"].tolist() == [1, 1, 0, 0]
  assert padded["masked_lm_weights"].sum() == 6
