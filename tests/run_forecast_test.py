"""What a dry run says: disk, memory, time, data, and its verdict."""

import collections
import dataclasses
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import modeling
import tokenization
from bert_keras3.data import features as input_pipeline
from bert_keras3.data import order as order_module
from bert_keras3.data import record_writer
from bert_keras3.data import records
from bert_keras3.data import sequences
from bert_keras3.data import tables
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import data_summary
from bert_keras3.tasks import squad_data
from bert_keras3.training import configs
from bert_keras3.training import devices as device_strategy
from bert_keras3.training import dry_run
from bert_keras3.training import loop
from bert_keras3.training import memory_estimate
from bert_keras3.training import monitor as monitor_module
from bert_keras3.training import output_directory
from bert_keras3.training.run import open_run
from bert_keras3.weights import checkpoints as checkpoint_io

NUM_EXAMPLES = 40
LONGEST = 30
BUCKETS = (8, 16, 32)
VOCAB_SIZE = 50
DiskUsage = collections.namedtuple("DiskUsage", "total used free")


def make_source(buckets=BUCKETS):
  """Sequences of 3 to 30 tokens, of two classes; one is the longest."""
  rng = np.random.default_rng(0)
  lengths = [*rng.integers(3, 20, NUM_EXAMPLES - 1), LONGEST]
  packed = [(rng.integers(1, VOCAB_SIZE, x).tolist(), 2) for x in lengths]
  labels = rng.integers(0, 2, NUM_EXAMPLES).astype(np.int32)
  return sequences.SequenceSource(
    sequences.Sequences(packed), {"label_ids": labels}, buckets
  )


def make_trainer(tmp_path, monitor=None, num_devices=1, policy=None, **options):
  strategy = device_strategy.make_strategy(
    configs.DeviceConfig(num_devices=num_devices)
  )
  config = modeling.BertConfig(
    VOCAB_SIZE,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
  )
  with strategy.scope():
    model = modeling.BertClassifier(config, num_labels=2, dtype=policy)
  defaults = {
    "output_dir": str(tmp_path / "out"),
    "learning_rate": 1e-3,
    "num_train_steps": 12,
    "train_batch_size": 8,
    "save_checkpoints_steps": 5,
  }
  training_config = configs.RunConfig(**{**defaults, **options})
  return loop.Trainer(strategy, model, training_config, monitor=monitor)


def make_run(trainer):
  return output_directory.OutputDirectory(trainer.config.output_dir, {}, [])


def listing(folder):
  """Every path below a folder, with size and time."""
  return {
    path: (os.stat(path).st_size, os.stat(path).st_mtime_ns)
    for root, _, names in os.walk(folder)
    for path in (root, *(os.path.join(root, name) for name in names))
  }


# The verdict ------------------------------------------------------------------


def test_without_problems_the_verdict_is_ready(tmp_path, capsys):
  findings = dry_run.Findings()
  dry_run.check_output_dir(findings, str(tmp_path / "a" / "b"))
  dry_run.conclude(findings, "all is well")
  lines = capsys.readouterr().out.splitlines()
  assert lines[-2:] == [
    "dry run: all is well; nothing was written",
    "verdict: ready",
  ]
  assert os.listdir(tmp_path) == []


def test_the_verdict_lists_all_problems_and_is_an_error(tmp_path, capsys):
  findings = dry_run.Findings()
  findings.refuse("one thing")
  findings.refuse("another")
  with pytest.raises(ValueError, match="2 problems: one thing; and another"):
    dry_run.conclude(findings, "all is well")
  out = capsys.readouterr().out
  assert out.endswith("verdict: 2 problems\n  one thing\n  another\n")
  assert "all is well" not in out


def test_of_several_workers_one_talks(tmp_path, capsys):
  findings = dry_run.Findings(is_shown=False)
  dry_run.conclude(findings, "all is well")
  assert capsys.readouterr().out == ""


# Disk -------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("free", "problems", "warns"), [(999, 1, 0), (1999, 0, 1), (2000, 0, 0)]
)
def test_the_disk_must_hold_what_will_be_written(
  tmp_path, monkeypatch, capsys, free, problems, warns
):
  asked = []

  def disk_usage(path):
    asked.append(path)
    return DiskUsage(1 << 40, 0, free)

  monkeypatch.setattr(shutil, "disk_usage", disk_usage)
  findings = dry_run.Findings()
  findings.planned_bytes = 1000
  dry_run.check_output_dir(findings, str(tmp_path / "not" / "there"))
  assert len(findings.problems) == problems
  assert capsys.readouterr().out.count("warning: ") == warns
  assert asked == [str(tmp_path)]
  if problems:
    assert "0.0 MB free; make room" in findings.problems[0]


def test_a_directory_that_cannot_be_written_to_is_a_problem(
  tmp_path, monkeypatch
):
  # Not by permissions: root may write anywhere.
  monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
  findings = dry_run.Findings()
  dry_run.check_output_dir(findings, str(tmp_path / "out"))
  (problem,) = findings.problems
  assert f"{tmp_path} is no directory that can be written to" in problem


def test_a_file_in_the_way_is_a_problem(tmp_path):
  (tmp_path / "file").write_text("")
  findings = dry_run.Findings()
  dry_run.check_output_dir(findings, str(tmp_path / "file" / "out"))
  assert "file is no directory" in findings.problems[0]


def test_a_remote_directory_is_said_to_be_unchecked(capsys):
  findings = dry_run.Findings()
  dry_run.check_output_dir(findings, "gs://bucket/out")
  assert findings.problems == []
  assert "is remote and was not checked" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("options", "checkpoints"),
  [
    ({}, 3),  # after 5, 10 and 12
    ({"keep_checkpoint_max": 1}, 2),  # a new one beside the old one
    ({"keep_checkpoint_max": 0}, 3),
    ({"save_checkpoints_steps": 4}, 3),
    ({"save_checkpoints_secs": 9.0}, 6),  # how many, nobody knows: all kept
    ({"save_checkpoints_secs": 9.0, "keep_checkpoint_max": 0}, 3 + 11),
  ],
)
def test_the_plan_counts_checkpoints(tmp_path, options, checkpoints):
  trainer = make_trainer(tmp_path, **options)
  findings = dry_run.Findings()
  findings.planned_bytes, findings.planned_seconds = 0, 100.0
  dry_run.plan_disk(findings, trainer, trainer.config.output_dir)
  weights = 4 * sum(np.prod(x.shape) for x in trainer.weights.values())
  logs = dry_run.LOG_BYTES_PER_REPORT
  # Two slots for each weight.
  assert findings.planned_bytes == 3 * weights * checkpoints + weights + logs


def test_the_plan_is_what_a_run_writes(tmp_path):
  trainer = make_trainer(tmp_path, keep_checkpoint_max=0)
  findings = dry_run.Findings()
  findings.planned_bytes = 0
  dry_run.plan_disk(findings, trainer, trainer.config.output_dir)
  run = open_run(trainer.config, trainer.strategy, [])
  run.build(modeling.BertClassifier, trainer.model.config, num_labels=2)
  run.train(make_source())
  written = sum(
    size for path, (size, _) in listing(tmp_path).items() if ".data-" in path
  )
  logs = dry_run.LOG_BYTES_PER_REPORT
  # The number of the step is in each of the four.
  assert findings.planned_bytes == written - 4 * 8 + logs
  # What lies there already needs no more room.
  again = dry_run.Findings()
  again.planned_bytes = 0
  dry_run.plan_disk(again, trainer, trainer.config.output_dir)
  assert again.planned_bytes < findings.planned_bytes / 2


def test_a_monitor_keeps_the_best_model_as_well(tmp_path):
  sizes = []
  options = {"eval_steps": 3, "keep_checkpoint_max": 0}
  for monitor in (None, monitor_module.Monitor(dict, "f1")):
    trainer = make_trainer(tmp_path, monitor, **options)
    findings = dry_run.Findings()
    dry_run.plan_disk(findings, trainer, trainer.config.output_dir)
    sizes.append(findings.planned_bytes)
  weights = 4 * sum(np.prod(x.shape) for x in trainer.weights.values())
  # Of the best one there are two for a moment; each of the four evaluations of
  # twelve steps may bring one, and a checkpoint with its slots.
  assert sizes[1] - sizes[0] == 2 * weights + 4 * 3 * weights


# Memory -----------------------------------------------------------------------


def test_the_memory_estimate_follows_the_share_of_a_device(tmp_path):
  batch = make_source().take(np.arange(8), step=0)
  whole = memory_estimate.estimate_memory(make_trainer(tmp_path), batch)
  accumulating = make_trainer(tmp_path, gradient_accumulation_steps=4)
  devices = make_trainer(tmp_path, num_devices=2)
  bfloat16 = make_trainer(tmp_path, policy="mixed_bfloat16")
  weights = make_trainer(tmp_path).model.count_params() * 4
  assert (whole.weights, whole.slots) == (weights, 2 * weights)
  assert whole.gradients == 2 * weights
  assert whole.total > 5 * weights

  def activations(trainer):
    return memory_estimate.estimate_memory(trainer, batch).activations

  assert activations(accumulating) == whole.activations // 4
  assert activations(devices) == whole.activations // 2
  assert whole.activations / 2 < activations(bfloat16) < whole.activations


def test_longer_sequences_need_more_than_their_share(tmp_path):
  trainer = make_trainer(tmp_path)

  def activations(length):
    batch = {"input_ids": np.zeros([8, length], np.int32)}
    return memory_estimate.estimate_memory(trainer, batch).activations

  assert activations(32) > 2 * activations(16)


def test_too_little_memory_is_a_problem_and_no_step_is_tried(
  tmp_path, monkeypatch
):
  trainer = make_trainer(tmp_path)
  before = {name: x.numpy() for name, x in trainer.weights.items()}
  monkeypatch.setattr(memory_estimate, "available_memory", lambda device: 1000)
  findings = dry_run.Findings()
  dry_run.forecast(findings, trainer, make_source(), make_run(trainer))
  assert "lower --train_batch_size" in findings.problems[0]
  assert findings.seconds_per_step is None
  for name, values in before.items():
    np.testing.assert_array_equal(trainer.weights[name], values)


def test_unknown_memory_is_no_problem(tmp_path, monkeypatch, capsys):
  trainer = make_trainer(tmp_path)
  monkeypatch.setattr(memory_estimate, "available_memory", lambda device: None)
  findings = dry_run.Findings()
  batch = make_source().take(np.arange(8), step=0)
  assert dry_run.check_memory(findings, trainer, batch)
  assert findings.problems == []
  assert "memory, available: unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   500 kB"}, 512000),
    (
      {
        "/proc/meminfo": "MemAvailable: 500 kB",
        "/sys/fs/cgroup/memory.max": "70000",
        "/sys/fs/cgroup/memory.current": "60000",
        "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 5000",
      },
      15000,
    ),
    (
      {
        "/proc/meminfo": "MemAvailable: 500 kB",
        "/sys/fs/cgroup/memory.max": "max",
        "/sys/fs/cgroup/memory.current": "60000",
      },
      512000,
    ),
    ({}, None),
  ],
)
def test_a_containers_limit_counts(monkeypatch, files, expected):
  monkeypatch.setattr(
    memory_estimate,
    "read_lines",
    lambda path: files.get(path, "").splitlines(),
  )
  assert memory_estimate.available_memory("/device:CPU:0") == expected


# Time -------------------------------------------------------------------------


def test_the_time_is_that_of_a_step_times_the_steps(
  tmp_path, monkeypatch, capsys
):
  trainer = make_trainer(tmp_path, num_train_steps=9000)
  trainer.step = 1000
  measure = dry_run.measure_steps
  readings = iter([100.0, 110.0])

  def measure_by_fake_clock(*args):
    return measure(*args, clock=lambda: next(readings))

  monkeypatch.setattr(dry_run, "measure_steps", measure_by_fake_clock)
  findings = dry_run.Findings()
  dry_run.forecast(findings, trainer, make_source(), make_run(trainer))
  # Five steps were measured.
  assert findings.seconds_per_step == 2.0
  assert findings.planned_seconds == 8000 * 2.0
  out = capsys.readouterr().out
  assert "training: would go on at step 1000\n" in out
  assert "steps: 8000 of 9000, 8 examples each\n" in out
  assert "time: 4:26:40 for 8000 steps of 2 s" in out
  assert trainer.step == 1000
  # Another seed's run is as long, and not measured again.
  trainer.step = 0
  dry_run.forecast(findings, trainer, make_source(), make_run(trainer))
  assert findings.planned_seconds == (8000 + 9000) * 2.0


def test_nothing_is_written_and_the_step_stays(tmp_path):
  trainer = make_trainer(tmp_path)
  findings = dry_run.Findings()
  before = listing(tmp_path)
  dry_run.forecast(findings, trainer, make_source(), make_run(trainer))
  dry_run.conclude(findings, "all is well")
  assert listing(tmp_path) == before
  assert trainer.step == 0
  assert findings.seconds_per_step > 0


@pytest.mark.parametrize("num_train_steps", [1, 3, 400])
def test_the_longest_sequences_and_typical_ones_are_tried(
  tmp_path, num_train_steps
):
  trainer = make_trainer(
    tmp_path,
    num_train_steps=num_train_steps,
  )
  source = make_source()
  warmup, measured = dry_run.choose_batches(trainer, source)
  assert len(warmup) >= dry_run.WARMUP_STEPS
  assert len(measured) == dry_run.MEASURED_STEPS

  def shapes(batches):
    return [source.take(x, step=0)["input_ids"].shape for x in batches]

  assert shapes(warmup)[0] == (8, 32)
  # No shape is compiled while time is taken.
  assert set(shapes(measured)) <= set(shapes(warmup))
  if num_train_steps == 400:
    assert len(set(shapes(measured))) > 1


def test_of_one_length_the_first_batches_are_tried(tmp_path):
  trainer = make_trainer(tmp_path)
  source = make_source(buckets=(32,))
  batches = sum(dry_run.choose_batches(trainer, source), [])
  order = order_module.training_order(source, 8, 0)
  assert [x.tolist() for x in batches] == [
    order.batch(step).tolist() for step in range(8)
  ]


@pytest.mark.parametrize("on_nan", ["stop", "skip", "rollback"])
def test_a_loss_that_is_no_number_is_told(tmp_path, capsys, on_nan):
  trainer = make_trainer(tmp_path, on_nan=on_nan)
  trainer.weights["output_bias"].assign([np.nan, 0.0])
  findings = dry_run.Findings()
  dry_run.forecast(findings, trainer, make_source(), make_run(trainer))
  told = findings.problems or [capsys.readouterr().out]
  assert "within the first steps the loss is nan" in told[0]
  assert len(findings.problems) == (on_nan == "stop")
  assert findings.planned_seconds == 0


def test_a_bad_record_among_the_first_is_a_problem(tmp_path):
  trainer, source = make_trainer(tmp_path), make_source()

  def fail(numbers, step):
    raise ValueError("record 7 is bad")

  source.take = fail
  findings = dry_run.Findings()
  dry_run.forecast(findings, trainer, source, make_run(trainer))
  assert findings.problems == ["record 7 is bad"]
  # Nor are steps tried where the data is known to be bad.
  dry_run.forecast(findings, trainer, source, make_run(trainer))
  assert findings.problems == ["record 7 is bad"]


def test_memory_that_runs_out_is_a_problem(tmp_path, monkeypatch):
  trainer = make_trainer(tmp_path)

  def fail(*args):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM of [8,32]\nmore")

  monkeypatch.setattr(trainer, "train_steps", fail)
  findings = dry_run.Findings()
  dry_run.forecast(findings, trainer, make_source(), make_run(trainer))
  assert "(OOM of [8,32]); lower --train_batch_size" in findings.problems[0]


# Weights ----------------------------------------------------------------------


def test_what_the_initial_weights_lack_is_told(tmp_path):
  weights = make_trainer(tmp_path).weights
  prefix = str(tmp_path / "bert_model.ckpt")

  def describe(names):
    checkpoint_io.save(prefix, {name: weights[name] for name in names})
    return dry_run.describe_weights(weights, prefix)

  encoder = [name for name in weights if name.startswith("bert/")]
  assert describe(weights) == f"all from {prefix}"
  assert describe(encoder) == (
    f"the encoder alone is from {prefix}, heads start anew"
  )
  assert describe([x for x in weights if x != "bert/pooler/dense/bias"]) == (
    f"from {prefix}, but bert/pooler/dense/bias start anew"
  )


# Data -------------------------------------------------------------------------

SPECS = input_pipeline.pretraining_features(8, 2, vocab_size=VOCAB_SIZE)


def write_records(path, bad=()):
  """Forty records, some with an id beyond the vocabulary."""
  ids = np.ones([40, 8], int)
  ids[list(bad)] = VOCAB_SIZE
  features = {spec.name: np.ones([40, spec.length], int) for spec in SPECS}
  with record_writer.RecordWriter(str(path)) as writer:
    for record in input_pipeline.serialize_examples(
      {**features, "input_ids": ids}, SPECS
    ):
      writer.write(record)
  return str(path)


def test_all_records_are_checked_if_they_are_few(tmp_path, capsys):
  paths = [
    write_records(tmp_path / "a"),
    write_records(tmp_path / "b", bad=[30, 39]),
  ]
  findings = dry_run.Findings()
  source = records.RecordSource(paths, SPECS)
  dry_run.check_records(findings, source)
  assert "records: 80, all checked\n" in capsys.readouterr().out
  (problem,) = findings.problems
  assert "2 of 80 records are bad" in problem
  assert "b: record 30 (counting from 0) has 50 in 'input_ids'" in problem
  assert "pass --skip_bad_records" in problem


def test_of_many_records_a_sample_of_all_files_is_checked(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(dry_run, "MAX_CHECKED_RECORDS", 16)
  paths = [write_records(tmp_path / str(i)) for i in range(4)]
  taken = []

  class Source(records.RecordSource):
    def take(self, numbers, step):
      taken.append(numbers)
      return super().take(numbers, step)

  source = Source(paths, SPECS)
  source.block_size = 4
  findings = dry_run.Findings()
  dry_run.check_records(findings, source)
  assert findings.problems == []
  assert "records: 160, a sample of 16 checked\n" in capsys.readouterr().out
  # One block of each quarter.
  assert [int(x[0]) // 40 for x in taken] == [0, 1, 2, 3]
  first, taken[:] = [x.tolist() for x in taken], []
  dry_run.check_records(findings, source)
  assert [x.tolist() for x in taken] == first

  write_records(paths[2], bad=range(40))
  source = Source(paths, SPECS)
  source.block_size = 4
  dry_run.check_records(findings, source)
  assert f"{paths[2]}: record " in findings.problems[0]


WORDS = ("a", "b", "c", "d")


def make_tokenizer(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]))
  return tokenization.FullTokenizer(str(path))


@pytest.mark.parametrize("long_text", classifier_data.LONG_TEXT)
def test_lengths_are_those_before_anything_is_cut(tmp_path, long_text):
  rng = np.random.default_rng(0)
  examples = [
    tables.InputExample(
      str(i),
      " ".join(rng.choice(WORDS, num_a)),
      " ".join(rng.choice(WORDS, num_b)) or None,
      "x" if i % 2 else "y",
    )
    for i, (num_a, num_b) in enumerate(rng.integers(0, 20, [40, 2]))
  ]
  tokenizer = make_tokenizer(tmp_path)
  task = classifier_data.own_task("csv", tables.Layout(0, label=1))
  task = dataclasses.replace(task, labels=("x", "y"))

  def lengths(max_seq_length):
    split = classifier_data.make_split(
      examples, task, tokenizer, max_seq_length, long_text
    )
    return data_summary.text_lengths(split, tokenizer).tolist()

  whole = lengths(64)
  assert max(whole) > 30
  assert lengths(16) == whole


@pytest.mark.parametrize(
  ("num_long", "long_text", "warns"),
  [(2, "truncate", 0), (3, "truncate", 1), (3, "sliding", 0)],
)
def test_many_truncated_texts_are_worth_a_warning(
  capsys, num_long, long_text, warns
):
  lengths = np.array([17] * num_long + [16] * (10 - num_long))
  findings = dry_run.Findings()
  data_summary.tell_texts(findings, "train", lengths, 16, long_text)
  out = capsys.readouterr().out
  assert f"{num_long}0.0% longer than --max_seq_length=16" in out
  assert out.count("warning: ") == warns


@pytest.mark.parametrize(
  ("names", "labels", "expected"),
  [
    (("x", "y"), [0, 1, 1], ["labels of train: x 1, y 2"]),
    (
      ("x", "y", "z"),
      [0, 0],
      [
        "labels of train: x 2, y 0, z 0",
        "warning: no example of train has the label y, z",
      ],
    ),
    (
      ("x", "y"),
      [[1.0, 1.0], [0.0, 1.0]],
      ["labels of train: x 1, y 2"],
    ),
    ((), [1.5, 2.5], ["scores of train: 1.5 to 2.5, mean 2"]),
  ],
)
def test_labels_are_counted(capsys, names, labels, expected):
  data_summary.tell_labels(dry_run.Findings(), "train", names, np.array(labels))
  assert capsys.readouterr().out.splitlines() == expected


def make_question(number, num_words, answer=None, question="a"):
  """A question about `num_words` words; its answer is one of them, or none."""
  is_impossible = answer is None
  position = -1 if is_impossible else answer
  return squad_data.SquadExample(
    f"q{number}",
    question,
    ["a"] * num_words,
    orig_answer_text="" if is_impossible else "a",
    start_position=position,
    end_position=position,
    is_impossible=is_impossible,
  )


def test_windows_tell_how_long_texts_are_and_what_is_lost(tmp_path, capsys):
  lost = dataclasses.replace(
    make_question(3, 30, answer=2),
    orig_answer_text=" ".join(["a"] * 20),
    end_position=21,
  )
  examples = [make_question(i, 5 + i, answer=1) for i in range(2)]
  examples += [make_question(2, 4), lost]
  windows = squad_data.make_windows(
    examples, make_tokenizer(tmp_path), 16, 4, 3, is_training=True
  )
  findings = dry_run.Findings()
  data_summary.tell_windows(findings, "train_file", windows, 16, 4, 3)
  data_summary.tell_answers(findings, "train_file", windows)
  # 12 tokens of a text fit into a window: 0 to 11, 4 to 15, ..., 20 to 29.
  assert capsys.readouterr().out.splitlines() == [
    "train_file: 4 questions in 9 windows, the longest text of 30 tokens, "
    "25.0% of the texts in several windows",
    "answers of train_file: 25.0% of the questions have none, those of 25.0% "
    "lie in no window as a whole",
    "warning: 25% of the answers of train_file lie in no window as a whole and "
    "are not learnt; lower --doc_stride, or raise --max_seq_length",
  ]


def test_questions_that_are_cut_are_worth_a_warning(tmp_path, capsys):
  examples = [make_question(0, 5, 1, question="a b c d")]
  windows = squad_data.make_windows(
    examples, make_tokenizer(tmp_path), 16, 4, 3, is_training=True
  )
  data_summary.tell_windows(dry_run.Findings(), "train_file", windows, 16, 4, 3)
  assert "warning: 100% of the questions" in capsys.readouterr().out
