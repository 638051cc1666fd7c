"""Reports: what is added up, cut on resuming, and said about a loss."""

import csv
import shutil

import numpy as np
import pytest
import tensorflow as tf

import optimization
from bert_keras3.training import configs
from bert_keras3.training import interval as interval_module
from bert_keras3.training import log as training_log

SCHEDULE = optimization.LearningRateSchedule(1e-3, 100, 10)


def rows_of(losses, interval=5):
  return [
    {"step": interval * (i + 1), "loss": str(loss)}
    for i, loss in enumerate(losses)
  ]


def said(losses, schedule=SCHEDULE, interval=5):
  """What is said after each row."""
  rows = rows_of(losses, interval)
  return [
    training_log.find_trouble(rows[: i + 1], schedule) for i in range(len(rows))
  ]


def test_a_loss_that_is_stuck_is_reported_once():
  found = said([6.9, 6.95, 6.88] * 7)
  assert [i for i, text in enumerate(found) if text] == [9]
  assert (
    "the loss is 6.91 at step 50, at first it was 6.9: the model" in found[9]
  )


def test_a_loss_that_collapses_is_reported_once():
  found = said([0.7, *[0.001] * 20])
  assert [i for i, text in enumerate(found) if text] == [9]
  assert "too easy" in found[9]


def test_a_loss_that_falls_is_not_reported():
  assert not any(said(np.linspace(6.9, 5.0, 20).tolist()))


@pytest.mark.parametrize(
  ("steps", "warmup", "row"), [(1000, 0, 39), (100, 45, 17), (20, 0, 9)]
)
def test_the_judgement_waits_for_the_warmup_and_a_fifth(steps, warmup, row):
  schedule = optimization.LearningRateSchedule(1e-3, steps, warmup)
  found = said([1.0] * 60, schedule)
  assert [i for i, text in enumerate(found) if text] == [row]


def statistics(**changes):
  """Statistics of four steps; changes are those of their sums."""
  sums = interval_module.Sums(
    loss=np.float32(6.0),
    metrics=np.array([[1.0, 4.0]], np.float32),
    steps=np.float32(3.0),
  )
  return interval_module.Statistics(
    sums._replace(**changes), 2.0, 0.1, 2.0, is_finite=True
  )


def config(**changes):
  return configs.TrainingConfig(
    output_dir="",
    learning_rate=1e-3,
    num_train_steps=100,
    num_warmup_steps=10,
    train_batch_size=8,
    **changes,
  )


def test_a_report_is_about_the_steps_that_count():
  """One of four steps was left out, since its numbers were not finite."""
  interval = interval_module.Interval(["accuracy"], 0)
  interval.update(statistics())
  report = interval.close(4, config())
  assert (report.values["loss"], report.values["accuracy"]) == (2.0, 0.25)


def test_a_report_of_no_step_has_no_numbers():
  interval = interval_module.Interval(["accuracy"], 0)
  interval.update(
    statistics(loss=0.0, metrics=np.zeros([1, 2]), steps=np.float32(0.0))
  )
  values = interval.close(4, config()).values
  assert np.isnan([values["loss"], values["accuracy"]]).all()


def test_reports_without_numbers_are_not_judged():
  """Nor counted: the tenth that has some is the one."""
  nan = float("nan")
  found = said([nan, 6.9, nan, *[6.9] * 8, nan, 6.9, nan, 6.9])
  assert [i for i, text in enumerate(found) if text] == [12]


def test_what_was_added_up_survives_a_checkpoint():
  interval = interval_module.Interval(["accuracy"], 0)
  interval.update(statistics(loss=np.float32(0.1) + np.float32(0.2)))
  later = interval_module.Interval(["accuracy"], 3)
  later.restore(interval.state())
  for found, expected in zip(later.sums, interval.sums, strict=True):
    assert found.tobytes() == expected.tobytes()


def read_scalars(directory):
  """Sorted (tag, step, value) of all of TensorBoard's files."""
  return sorted(
    (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
    for path in directory.glob("events.out.tfevents.*")
    for event in tf.compat.v1.train.summary_iterator(str(path))
    for value in event.summary.value
  )


def test_rows_beyond_the_checkpoint_are_cut(tmp_path):
  log = training_log.TrainingLog(str(tmp_path), 0, config())
  for step in (5, 10, 15):
    interval = interval_module.Interval(["accuracy"], 0)
    interval.update(statistics())
    log.write(interval.close(step, config()))
  log.close()
  # As a process leaves it that is killed in the middle of a value, or here.
  (events,) = tmp_path.glob("events.out.tfevents.*")
  events.write_bytes(events.read_bytes() + b"half a rec")
  others = tmp_path / "events.out.tfevents.1.host"
  shutil.copy(events, others)
  log = training_log.TrainingLog(str(tmp_path), 10, config())
  assert b"half a rec" in others.read_bytes()
  others.unlink()
  interval = interval_module.Interval(["accuracy"], 10)
  interval.update(statistics(loss=np.float32(9.0)))
  log.write(interval.close(15, config()))
  log.close()
  with open(tmp_path / "training_log.csv", newline="") as file:
    rows = [(row["step"], row["loss"]) for row in csv.DictReader(file)]
  assert rows == [("5", "2.0"), ("10", "2.0"), ("15", "3.0")]
  scalars = [
    (step, x) for tag, step, x in read_scalars(tmp_path) if tag == "loss"
  ]
  assert scalars == [(5, 2.0), (10, 2.0), (15, 3.0)]
