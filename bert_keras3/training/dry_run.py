"""The checks of --dry_run: time, memory, disk and data that a run needs.

    findings = dry_run.Findings()
    dry_run.forecast(findings, trainer, source, run)
    dry_run.check_output_dir(findings, output_dir)
    dry_run.conclude(findings, "files and flags fit together")

Nothing is written. A few real steps are taken to measure their time, which
changes the weights in this process; it is meant to end then.
"""

import dataclasses
import datetime
import math
import os
import shutil
import time

import numpy as np
import tensorflow as tf

from bert_keras3.data import features
from bert_keras3.data import files
from bert_keras3.data import order
from bert_keras3.data import records
from bert_keras3.training import devices
from bert_keras3.training import memory_estimate
from bert_keras3.weights import checkpoints
from bert_keras3.weights import file_names

# Steps that trace and compile the graph and fill the prefetch buffer.
WARMUP_STEPS = 3
MEASURED_STEPS = 5
# Where lengths differ, the measured steps are chosen among this many next ones.
SAMPLED_STEPS = 200
# Examples that are answered to estimate the time of all.
SAMPLED_EXAMPLES = 64
# Records that are checked; of a larger set, the size of the sample.
MAX_CHECKED_RECORDS = 200_000
# Config, manifest, vocabulary, labels; results.
SMALL_FILES_BYTES = 4_000_000
# A row of training_log.csv and its values in TensorBoard's event file.
LOG_BYTES_PER_REPORT = 1000


# Findings ---------------------------------------------------------------------


class Findings:
  """Prints and collects the results of a dry run.

  Args:
    is_shown: whether this process prints; of several workers, one does.

  Attributes:
    problems: list of str, each a reason why the run should not be started.
    planned_bytes: bytes that will be written, by the runs of all seeds.
    planned_seconds: time of their training steps; 0 if it is not known.
    seconds_per_step: as measured, None before.
  """

  def __init__(self, is_shown=True):
    self.is_shown = is_shown
    self.problems = []
    self.planned_bytes = SMALL_FILES_BYTES
    self.planned_seconds = 0.0
    self.seconds_per_step = None

  def tell(self, what, value):
    """Prints `what: value`."""
    if self.is_shown:
      print(f"{what}: {value}", flush=True)

  def warn(self, text):
    """Prints a problem that does not prevent the run."""
    self.tell("warning", text)

  def refuse(self, problem):
    """Adds a problem that prevents the run, as a sentence."""
    self.problems.append(problem)


def conclude(findings, summary):
  """Prints the verdict: ready, or the problems.

  Args:
    findings: Findings.
    summary: sentence to print after "dry run: " if there are no problems.

  Raises:
    ValueError: there are problems; its text lists them.
  """
  if findings.planned_seconds:
    seconds = datetime.timedelta(seconds=findings.planned_seconds)
    end = datetime.datetime.now() + seconds
    findings.tell("end, if started now", f"{end:%Y-%m-%d %H:%M}")
  problems = findings.problems
  if not problems:
    findings.tell("dry run", f"{summary}; nothing was written")
    findings.tell("verdict", "ready")
    return
  findings.tell("dry run", "nothing was written")
  count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
  findings.tell("verdict", "\n  ".join([count, *problems]))
  raise ValueError(f"the dry run found {count}: {'; and '.join(problems)}")


def format_bytes(count):
  """Formats a number of bytes as MB or GB, powers of ten as disks are sold."""
  if count < 1e9:
    return f"{count / 1e6:.1f} MB"
  return f"{count / 1e9:.1f} GB"


def format_duration(seconds):
  """Formats seconds as h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}"


# A run as a whole -------------------------------------------------------------


def forecast(findings, trainer, source, run, init_checkpoint=None):
  """Reports what training will do and need, and measures its steps.

  Args:
    findings: Findings.
    trainer: loop.Trainer with the weights to start from, which are changed.
    source: sources.Source.
    run: output_directory.OutputDirectory.
    init_checkpoint: weights of a new run, None for random ones.
  """
  _tell_start(findings, trainer, run, init_checkpoint)
  _tell_plan(findings, trainer, len(source))
  if findings.problems:
    findings.tell("time", "not measured, because of problems found before")
  else:
    _try_steps(findings, trainer, source)
  plan_disk(findings, trainer, run.path)


def _try_steps(findings, trainer, source):
  warmup, measured = choose_batches(trainer, source)
  try:
    # Read here, since within tf.data an error would become a traceback.
    longest, *_ = [
      source.take(numbers, trainer.step) for numbers in [*warmup, *measured]
    ]
  except ValueError as error:
    findings.refuse(str(error))
    return
  if check_memory(findings, trainer, longest):
    _tell_time(findings, trainer, source, warmup, measured)


def tell_finished(findings, run):
  """Reports that training is finished already."""
  findings.tell("training", f"would be skipped, {run.path} holds it finished")


def _tell_start(findings, trainer, run, init_checkpoint):
  if trainer.step:
    findings.tell("training", f"would go on at step {trainer.step}")
    return
  is_run = tf.io.gfile.exists(os.path.join(run.path, file_names.RUN_MANIFEST))
  deletion = f", once the run in {run.path} is deleted" if is_run else ""
  findings.tell("training", f"would start at step 0{deletion}")
  if init_checkpoint:
    findings.tell("weights", describe_weights(trainer.weights, init_checkpoint))


def describe_weights(variables, init_checkpoint):
  """Says which parts of a model come from a checkpoint, as a phrase.

  Args:
    variables: collection of checkpoint names.
    init_checkpoint: see checkpoints.resolve.
  """
  shapes = checkpoints.open_reader(init_checkpoint).shapes
  new = [name for name in variables if name not in shapes]
  heads = [name for name in variables if not name.startswith("bert/")]
  if not new:
    return f"all from {init_checkpoint}"
  if set(heads) <= set(new):
    return f"the encoder alone is from {init_checkpoint}, heads start anew"
  return f"from {init_checkpoint}, but {', '.join(new)} start anew"


def count_checkpoints(config, first_step):
  """Counts the `model.ckpt-STEP` that are due by steps after `first_step`."""
  every = config.save_checkpoints_steps
  return math.ceil(config.num_train_steps / every) - first_step // every


def _tell_plan(findings, trainer, num_examples):
  config = trainer.config
  size, steps = config.train_batch_size, config.num_train_steps
  left = steps - trainer.step
  findings.tell("steps", f"{left} of {steps}, {size} examples each")
  epochs = size * left / num_examples
  findings.tell(
    "examples", f"{size * left}, that is {epochs:.3g} epochs of {num_examples}"
  )
  count = str(count_checkpoints(config, trainer.step))
  if trainer.monitor:
    count += ", and one for each evaluation that is the best so far"
  findings.tell("checkpoints", count)


# Memory -----------------------------------------------------------------------


def check_memory(findings, trainer, batch):
  """Compares the estimated memory for a batch with the free memory.

  Returns:
    Whether to try steps: not if the system would kill the process; but always
    with several workers, as the others wait for this one.
  """
  estimate = memory_estimate.estimate_memory(trainer, batch)
  parts = dataclasses.asdict(estimate)
  sizes = [f"{name} {format_bytes(x)}" for name, x in parts.items()]
  length = batch["input_ids"].shape[-1]
  findings.tell(
    "memory, estimated",
    f"{format_bytes(estimate.total)} a device ({', '.join(sizes)}) for "
    f"sequences of {length}",
  )
  names = trainer.strategy.extended.worker_devices
  # Logical CPUs share the memory of one machine.
  sharers = len(names) if "CPU" in names[0] else 1
  available = memory_estimate.available_memory(names[0])
  if available is None:
    findings.tell("memory, available", "unknown; the measured steps show it")
    return True
  # The trainer's variables are allocated already.
  available += (estimate.weights + estimate.slots) * sharers
  findings.tell("memory, available", format_bytes(available))
  needed = estimate.total * sharers
  if needed <= available:
    return True
  findings.refuse(
    f"a step needs about {format_bytes(needed)} of memory, there are "
    f"{format_bytes(available)}; lower --train_batch_size or "
    "--max_seq_length, or raise --gradient_accumulation_steps"
  )
  return isinstance(trainer.strategy, tf.distribute.MultiWorkerMirroredStrategy)


# Time -------------------------------------------------------------------------


def choose_batches(trainer, source):
  """Chooses the batches to warm up with and the batches to measure.

  Where lengths differ, the first batch has the longest sequences of all, and
  the measured batches are quantiles of the next steps, ordered by length.

  Returns:
    Two lists of arrays [batch] of record numbers: WARMUP_STEPS batches or more,
    among them one of each shape, and MEASURED_STEPS batches.
  """
  config = trainer.config
  batch_order = order.training_order(
    source, config.train_batch_size, config.seed
  )
  first = trainer.step + trainer.data_offset
  if not features.vary(source.specs):
    steps = range(first, first + WARMUP_STEPS + MEASURED_STEPS)
    numbers = [batch_order.batch(step) for step in steps]
    return numbers[:WARMUP_STEPS], numbers[WARMUP_STEPS:]
  left = max(1, min(SAMPLED_STEPS, config.num_train_steps - trainer.step))
  batches = [batch_order.batch(step) for step in range(first, first + left)]
  batches.sort(key=lambda numbers: source.lengths[numbers].max())
  ranks = (np.arange(MEASURED_STEPS) + 0.5) * left / MEASURED_STEPS
  measured = [batches[rank] for rank in ranks.astype(int)]
  by_length = np.argsort(source.lengths, kind="stable")
  longest = np.resize(by_length[::-1], config.train_batch_size)
  shapes = {_bucket(source, numbers): numbers for numbers in measured}
  shapes.pop(_bucket(source, longest), None)
  more = max(0, WARMUP_STEPS - 1 - len(shapes))
  return [longest, *shapes.values(), *measured[:more]], measured


def _bucket(source, numbers):
  longest = source.lengths[numbers].max()
  return int(np.searchsorted(source.bucket_lengths, longest))


def measure_steps(trainer, source, warmup, measured, clock=time.monotonic):
  """Takes training steps, which change the weights, and measures their time.

  Args:
    trainer: loop.Trainer.
    source: sources.Source.
    warmup: list of arrays [batch] of record numbers.
    measured: likewise, of the steps that are timed.
    clock: function that returns seconds.

  Returns:
    (seconds per step, interval.Statistics of the last call).
  """

  def batches():
    for numbers in [*warmup, *measured]:
      yield source.take(numbers, first_step)

  first_step = trainer.step
  iterator = iter(
    devices.distribute_batches(
      trainer.strategy,
      batches,
      source.specs,
      trainer.config.train_batch_size,
      trainer.config.gradient_accumulation_steps,
    )
  )
  try:
    statistics = trainer.train_steps(iterator, len(warmup))
    start = clock()
    if statistics.is_finite:
      statistics = trainer.train_steps(iterator, len(measured))
    return (clock() - start) / len(measured), statistics
  finally:
    trainer.step = first_step


def _tell_time(findings, trainer, source, warmup, measured):
  """Reports how long a run takes; measures in the first run of a process only.

  The steps of all seeds take equally long.
  """
  if findings.seconds_per_step is None:
    try:
      seconds, statistics = measure_steps(trainer, source, warmup, measured)
    except tf.errors.ResourceExhaustedError as error:
      findings.refuse(
        "a step does not fit into the device's memory "
        f"({error.message.splitlines()[0]}); lower --train_batch_size or "
        "--max_seq_length, or raise --gradient_accumulation_steps"
      )
      return
    _tell_peak(findings, trainer.strategy)
    if not _check_finite(findings, trainer.config, statistics):
      return
    findings.seconds_per_step = seconds
  steps = trainer.config.num_train_steps - trainer.step
  seconds = steps * findings.seconds_per_step
  findings.planned_seconds += seconds
  findings.tell(
    "time",
    f"{format_duration(seconds)} for {steps} steps of "
    f"{findings.seconds_per_step:.3g} s, saving and evaluating not counted",
  )


def _tell_peak(findings, strategy):
  device = strategy.extended.worker_devices[0]
  peak = None
  if "GPU" in device:
    number = int(device.rsplit(":", 1)[1])
    peak = tf.config.experimental.get_memory_info(f"GPU:{number}")["peak"]
  for line in (
    memory_estimate.read_lines("/proc/self/status") if "CPU" in device else []
  ):
    if line.startswith("VmHWM:"):
      peak = int(line.split()[1]) * 1024
  if peak is not None:
    whole = "" if "GPU" in device else ", TensorFlow and all data included"
    findings.tell("memory, highest so far", f"{format_bytes(peak)}{whole}")


def _check_finite(findings, config, statistics):
  """Returns whether the measured steps are finite; refuses or warns if not."""
  loss, norm = statistics.step_loss, statistics.gradient_norm
  if statistics.is_finite:
    findings.tell("loss", f"{loss:.4g}, gradient norm {norm:.4g}")
    return True
  text = (
    f"within the first steps the loss is {loss}, the gradient norm {norm}; "
    "check --init_checkpoint, or try a lower --learning_rate"
  )
  if config.on_nan == "stop":
    findings.refuse(text)
  else:
    findings.warn(text)
  return False


# Answers ----------------------------------------------------------------------


def forecast_answers(findings, answer, examples, output_file):
  """Estimates the time and disk space of answering examples, from a sample.

  Args:
    findings: Findings.
    answer: function of a list of examples that returns the text to write.
    examples: list of all examples.
    output_file: path, None for standard output.

  Raises:
    ValueError: an example of the sample cannot be answered.
  """
  by_length = sorted(examples, key=lambda x: len(str(x)))
  ranks = np.linspace(
    0, len(examples) - 1, min(len(examples), SAMPLED_EXAMPLES)
  )
  sample = [by_length[rank] for rank in ranks.astype(int)]
  findings.tell("examples", f"{len(examples)}, {len(sample)} of them tried")
  answer(sample)  # Traces its graphs.
  start = time.monotonic()
  size = len(answer(sample).encode())
  share = len(examples) / max(1, len(sample))
  findings.planned_seconds = (time.monotonic() - start) * share
  findings.planned_bytes = int(size * share)
  findings.tell("time", f"{format_duration(findings.planned_seconds)} for all")
  if output_file and not files.is_remote(output_file):
    folder = os.path.dirname(os.path.abspath(output_file))
    check_space(findings, "output_file", output_file, folder)
  conclude(findings, "model and texts fit together")


# Disk -------------------------------------------------------------------------


def plan_disk(findings, trainer, path):
  """Adds up the bytes that a run will write, beyond those in its directory.

  A checkpoint is complete before the oldest one is deleted, so for a moment
  there is one more than --keep_checkpoint_max.

  Args:
    findings: Findings.
    trainer: loop.Trainer.
    path: the run's directory.
  """
  config = trainer.config
  weights = memory_estimate.num_bytes(trainer.weights)
  of_checkpoint = weights + memory_estimate.num_bytes(trainer.slots)
  count = count_checkpoints(config, 0)
  if trainer.monitor and config.eval_steps:
    # Each evaluation may be the best so far and save a checkpoint.
    count += config.num_train_steps // config.eval_steps
  if config.save_checkpoints_secs and config.keep_checkpoint_max:
    count = config.keep_checkpoint_max + 1
  elif config.save_checkpoints_secs:
    count += int(findings.planned_seconds / config.save_checkpoints_secs)
  if config.keep_checkpoint_max:
    count = min(count, config.keep_checkpoint_max + 1)
  # bert_model.ckpt, and best_model.ckpt, which exists twice for a moment.
  finals = weights * (3 if trainer.monitor else 1)
  reports = config.num_train_steps // config.log_every_steps + 1
  logs = reports * LOG_BYTES_PER_REPORT
  findings.tell(
    "disk, to be written",
    f"{format_bytes(count * of_checkpoint + finals + logs)}: checkpoints "
    f"{count} x {format_bytes(of_checkpoint)}, models {format_bytes(finals)}",
  )
  kept = checkpoints.list_files(path, "model.ckpt-*")
  held = sum(tf.io.gfile.stat(file).length for file in kept)
  findings.planned_bytes += max(0, count * of_checkpoint - held) + finals + logs


def check_output_dir(findings, path):
  """Checks whether a run can write to a directory, without making it.

  Args:
    findings: Findings, whose planned_bytes are compared with the free space.
    path: the directory, which may not exist yet.
  """
  if files.is_remote(path):
    findings.tell("output_dir", f"{path} is remote and was not checked")
    return
  folder = os.path.abspath(path)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
    findings.refuse(
      f"--output_dir={path}: {folder} is no directory that can be written to; "
      "change its permissions or choose another"
    )
    return
  check_space(
    findings, "output_dir", path, folder, ", or lower --keep_checkpoint_max"
  )


def check_space(findings, flag, path, folder, remedy=""):
  """Compares the bytes to write with the free space.

  Args:
    findings: Findings, for its planned_bytes.
    flag: name of the flag with the path.
    path: file or directory to write.
    folder: existing directory on the same disk.
    remedy: clause with one more remedy.
  """
  free, planned = shutil.disk_usage(folder).free, findings.planned_bytes
  sizes = f"{format_bytes(planned)} needed, {format_bytes(free)} free"
  findings.tell(flag, f"{path} can be written to, {sizes}")
  if free < planned:
    findings.refuse(
      f"--{flag}={path}: {sizes}; make room, choose another disk{remedy}"
    )
  elif free < 2 * planned:
    findings.warn(
      f"--{flag}={path}: {sizes}; another {format_bytes(planned)} of other "
      "files would end the run"
    )


# Data -------------------------------------------------------------------------


def check_records(findings, source, seed=0):
  """Checks all records, or a sample of many.

  The sample is a block of consecutive records from each of equal parts of all
  files: touching every block would take as long as reading every record.

  Args:
    findings: Findings.
    source: records.RecordSource that does not skip bad records; one that
      does has read them all.
    seed: int, of the sample.
  """
  total = len(source)
  if total <= MAX_CHECKED_RECORDS:
    # Opening the source like this reads all records and counts the bad ones.
    checked = records.RecordSource(
      source.paths, source.specs, skip_bad_records=True
    )
    findings.tell("records", f"{total}, all checked")
    if checked.bad_records:
      findings.refuse(
        f"{checked.bad_records} of {total} records are bad, such as "
        f"{checked.problems[0]}; create the files again, or pass "
        "--skip_bad_records"
      )
    return
  count, problem = _check_sample(source, seed)
  findings.tell("records", f"{total}, a sample of {count} checked")
  if problem:
    findings.refuse(problem)


def _check_sample(source, seed):
  """Returns (number of records checked, error of the first bad one or None)."""
  size = source.block_size
  blocks = np.arange(-(-len(source) // size))
  num_stretches = min(len(blocks), max(1, MAX_CHECKED_RECORDS // size))
  rng = np.random.default_rng(seed)
  count = 0
  for stretch in np.array_split(blocks, num_stretches):
    start = int(rng.choice(stretch)) * size
    numbers = np.arange(start, min(start + size, len(source)))
    count += len(numbers)
    try:
      source.take(numbers, step=0)
    except ValueError as error:
      return count, str(error)
  return count, None
