"""The log of a training run: console, CSV files, TensorBoard."""

import csv
import io
import os
import sys

import numpy as np
import tensorflow as tf
import tqdm

from bert_keras3.data import files
from bert_keras3.data import record_writer
from bert_keras3.weights import checkpoints

# A loss is judged once, as a share of the first report's: after this many
# reports, twice the warmup and a fifth of the steps.
REPORTS_BEFORE_JUDGEMENT = 10
STUCK_LOSS = 0.98
COLLAPSED_LOSS = 0.01


# Marks the event files for TensorBoard that are this project's own.
_EVENTS_SUFFIX = ".bert"

_SCALAR_METADATA = tf.compat.v1.SummaryMetadata(
  plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
  data_class="DATA_CLASS_SCALAR",
)


def open_log(output_dir, step, config):
  """Returns the TrainingLog of a directory, a SilentLog if it is None."""
  return TrainingLog(output_dir, step, config) if output_dir else SilentLog()


class SilentLog:
  """The log of a process that writes none."""

  def write(self, report):
    """Drops a StepReport."""

  def write_evaluation(self, step, results, is_best):
    """Drops the results of an evaluation."""

  def close(self):
    """Does nothing."""


class TrainingLog:
  """Shows reports on the console, in CSV files and in TensorBoard.

  StepReports go to training_log.csv, evaluations to eval_log.csv. A terminal
  gets a bar with the time left beside the lines, a file or a pipe just the
  lines. Rows of steps that a resumed run will take again are removed.

  Args:
    output_dir: directory of the files.
    step: step the run starts from.
    config: configs.TrainingConfig.
  """

  def __init__(self, output_dir, step, config):
    self._reports = CsvLog(os.path.join(output_dir, "training_log.csv"), step)
    self._evaluations = CsvLog(os.path.join(output_dir, "eval_log.csv"), step)
    _cut_events(output_dir, step)
    self._events = tf.summary.create_file_writer(
      output_dir, filename_suffix=_EVENTS_SUFFIX
    )
    self._config = config
    self._bar = tqdm.tqdm(
      total=config.num_train_steps,
      initial=step,
      unit="step",
      disable=not sys.stderr.isatty(),
    )

  def write(self, report):
    """Adds a StepReport."""
    self._bar.update(report.step - self._bar.n)
    self._show(_report_line(report))
    self._reports.add({"step": report.step, **report.values})
    self._write_events(report.step, report.values)
    trouble = find_trouble(self._reports.rows, self._config)
    if trouble:
      self._show(f"warning: {trouble}")

  def write_evaluation(self, step, results, is_best):
    """Adds the results of an evaluation, a dict of floats."""
    numbers = [f"{name} {value:.4g}" for name, value in results.items()]
    note = "  best so far" if is_best else ""
    self._show(f"evaluation at step {step}  {'  '.join(numbers)}{note}")
    self._evaluations.add({"step": step, **results})
    self._write_events(step, results)

  def _show(self, line):
    self._bar.write(line, file=sys.stdout)
    sys.stdout.flush()

  def _write_events(self, step, values):
    with self._events.as_default(step=step):
      for name, value in values.items():
        # Unlike tf.summary.scalar, this needs no tensorboard package.
        tf.summary.write(name, np.float32(value), metadata=_SCALAR_METADATA)
    self._events.flush()

  def close(self):
    """Ends the bar and the event file."""
    self._bar.close()
    self._events.close()


def _report_line(report):
  minutes, seconds = divmod(round(report.eta_seconds), 60)
  hours, minutes = divmod(minutes, 60)
  numbers = [f"{name} {value:.4g}" for name, value in report.values.items()]
  return (
    f"step {report.step}/{report.num_train_steps}  "
    + "  ".join(numbers)
    + f"  eta {hours}:{minutes:02}:{seconds:02}"
  )


def find_trouble(rows, config):
  """Says what is wrong with a loss at the step it is judged, "" otherwise.

  Args:
    rows: list of dicts with `step` and `loss`, the newest last.
    config: configs.TrainingConfig.

  Returns:
    A sentence about what is wrong with it; "" if nothing is, or if this report
    is not the one at which a loss is judged.
  """
  if not _has_loss(rows[-1]):
    return ""
  rows = [row for row in rows if _has_loss(row)]
  if not _is_due(rows, config) or _is_due(rows[:-1], config):
    return ""
  losses = [float(row["loss"]) for row in rows]
  first, now = losses[0], float(np.mean(losses[-3:]))
  so_far = f"the loss is {now:.4g} at step {rows[-1]['step']}, at first it was"
  if now > STUCK_LOSS * first:
    return (
      f"{so_far} {first:.4g}: the model learns nothing. Likely causes: a "
      "learning rate too high or too low, too short a warmup, weights that "
      "were not loaded, labels that do not depend on the texts; with few data "
      "try --adam_bias_correction or another --seed"
    )
  if now < COLLAPSED_LOSS * first:
    return (
      f"{so_far} {first:.4g}: too easy. Likely causes: the labels can be read "
      "off the texts, or the same few examples come again and again"
    )
  return ""


def _has_loss(row):
  return not np.isnan(float(row["loss"]))


def _is_due(rows, config):
  if len(rows) < REPORTS_BEFORE_JUDGEMENT:
    return False
  earliest = max(2 * config.num_warmup_steps, config.num_train_steps / 5)
  return int(rows[-1]["step"]) >= earliest


class CsvLog:
  """A CSV file of rows by step, written whole for every row.

  Args:
    path: the file; its rows of steps after `step` are dropped.
    step: step the run starts from.
  """

  def __init__(self, path, step):
    self._path = path
    rows = self._read()
    self.rows = [row for row in rows if int(row["step"]) <= step]

  def _read(self):
    if not tf.io.gfile.exists(self._path):
      return []
    with tf.io.gfile.GFile(self._path) as file:
      return list(csv.DictReader(io.StringIO(file.read())))

  def add(self, row):
    """Appends a row, a dict with the keys of the others."""
    self.rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, row, lineterminator="\n")
    writer.writeheader()
    writer.writerows(self.rows)
    files.write_atomically(self._path, text.getvalue())


def _cut_events(output_dir, step):
  """Drops values of steps after `step` from a run's TensorBoard files.

  A record that a killed process left incomplete is dropped, too.
  """
  pattern = f"events.out.tfevents.*{_EVENTS_SUFFIX}"
  for path in checkpoints.list_files(output_dir, pattern):
    events, is_whole = _read_events(path)
    kept = [x for x in events if x.step <= step]
    if is_whole and len(kept) == len(events):
      continue
    with record_writer.RecordWriter(path) as writer:
      for event in kept:
        writer.write(event.SerializeToString())


def _read_events(path):
  """Returns (list of the events of a file, whether it could be read whole)."""
  events = []
  try:
    for record in tf.data.TFRecordDataset(path):
      events.append(tf.compat.v1.Event.FromString(record.numpy()))
  except tf.errors.DataLossError:
    return events, False
  return events, True
