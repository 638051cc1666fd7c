"""What a run will need and whether it has it: the checks of --dry_run.

    findings = dry_run.Findings()
    dry_run.forecast(findings, trainer, source, run)
    dry_run.check_output_dir(findings, output_dir)
    dry_run.conclude(findings, "files and flags fit together")

Nothing is written. A few real steps are taken to measure their time, so the
weights of this process are spoilt afterwards; it is meant to end then.
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
from bert_keras3.training import devices as device_strategy
from bert_keras3.training import output_directory
from bert_keras3.weights import checkpoints as checkpoint_io

# Traces and compiles the step and fills the batches that are made ahead.
WARMUP_STEPS = 3
MEASURED_STEPS = 5
# Where lengths differ, the measured steps are those of typical lengths among
# so many.
SAMPLED_STEPS = 200
# Of many examples to answer so many are tried.
SAMPLED_EXAMPLES = 64
# Of a large set of records so many are looked at.
MAX_CHECKED_RECORDS = 200_000
# More truncated texts than this share are worth a word.
MAX_TRUNCATED = 0.2
# Config, manifest, vocabulary, labels; results.
SMALL_FILES_BYTES = 4_000_000
# A row in log.csv and as many values in TensorBoard's events.
LOG_BYTES_PER_REPORT = 1000


# Findings ---------------------------------------------------------------------


class Findings:
  """What a dry run finds out, shown as it goes.

  Args:
    is_shown: whether this process prints; of several workers, one does.

  Attributes:
    problems: list of str, each a reason why the run should not be started.
    planned_bytes: what the run will write, or all runs of several seeds.
    planned_seconds: what their steps will take; 0 if it is not known.
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
    """Prints something that the run may be started with."""
    self.tell("warning", text)

  def refuse(self, problem):
    """Remembers a sentence for the verdict."""
    self.problems.append(problem)


def conclude(findings, summary):
  """Gives the verdict.

  Args:
    findings: Findings.
    summary: what is true if there are no problems, after "dry run: ".

  Raises:
    ValueError: there are problems; has all of them.
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
  """A number of bytes for people, in powers of ten as disks are sold."""
  if count < 1e9:
    return f"{count / 1e6:.1f} MB"
  return f"{count / 1e9:.1f} GB"


def format_duration(seconds):
  """Seconds as h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}"


# A run as a whole -------------------------------------------------------------


def forecast(findings, trainer, source, run, init_checkpoint=None):
  """Tells what training will do and need, and measures its steps.

  Args:
    findings: Findings.
    trainer: loop.Trainer that `output_directory.prepare` has prepared.
      Its weights are spoilt.
    source: records, see loop.Trainer.fit.
    run: output_directory.RunDirectory.
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
    # Within tf.data an error would be a traceback.
    longest, *_ = [source.take(numbers) for numbers in [*warmup, *measured]]
  except ValueError as error:
    findings.refuse(str(error))
    return
  if check_memory(findings, trainer, longest):
    _tell_time(findings, trainer, source, warmup, measured)


def tell_finished(findings, run):
  """Tells that there is nothing to train."""
  findings.tell("training", f"would be skipped, {run.path} holds it finished")


def _tell_start(findings, trainer, run, init_checkpoint):
  if trainer.step:
    findings.tell("training", f"would go on at step {trainer.step}")
    return
  is_run = tf.io.gfile.exists(os.path.join(run.path, output_directory.MANIFEST))
  deletion = f", once the run in {run.path} is deleted" if is_run else ""
  findings.tell("training", f"would start at step 0{deletion}")
  if init_checkpoint:
    findings.tell("weights", describe_weights(trainer.weights, init_checkpoint))


def describe_weights(variables, init_checkpoint):
  """Which parts of a model come from a checkpoint, as a phrase.

  Args:
    variables: collection of checkpoint names.
    init_checkpoint: what checkpoint_io.resolve accepts.
  """
  shapes = checkpoint_io.open_reader(init_checkpoint).shapes
  new = [name for name in variables if name not in shapes]
  heads = [name for name in variables if not name.startswith("bert/")]
  if not new:
    return f"all from {init_checkpoint}"
  if set(heads) <= set(new):
    return f"the encoder alone is from {init_checkpoint}, heads start anew"
  return f"from {init_checkpoint}, but {', '.join(new)} start anew"


def count_checkpoints(config, first_step):
  """How many `model.ckpt-STEP` a run from `first_step` on writes by steps."""
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
  checkpoints = str(count_checkpoints(config, trainer.step))
  if trainer.monitor:
    checkpoints += ", and one for each evaluation that is the best so far"
  findings.tell("checkpoints", checkpoints)


# Memory -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
  """Bytes that one device needs for a step."""

  weights: int
  slots: int
  gradients: int
  activations: int

  @property
  def total(self):
    """Bytes of all."""
    return self.weights + self.slots + self.gradients + self.activations


def estimate_memory(trainer, batch):
  """What the weights and one micro-batch take on one device.

  On a CPU, for 26 pairs of shape and batch of one to four layers, it was 0.97
  to 1.29 times what a process grew by in its first steps, less the 110 MB that
  tracing takes (1.6 times where a width of 16 went with 30,522 words). XLA's
  fused kernels need less. Micro-batches count as if there was one at a time.

  Args:
    trainer: loop.Trainer.
    batch: dict of arrays [batch, ...], a global batch.

  Returns:
    MemoryEstimate.
  """
  parts = (
    trainer.strategy.num_replicas_in_sync
    * trainer.config.gradient_accumulation_steps
  )
  length = batch["input_ids"].shape[-1]
  num_tokens = batch["input_ids"].size // parts
  policy = trainer.model.dtype_policy
  compute_bytes = tf.as_dtype(policy.compute_dtype).size
  bert_config = trainer.model.config
  # Half a layer more, for what is there between two kept tensors.
  layers = bert_config.num_hidden_layers + 0.5
  of_layers = (
    layers * num_tokens * _token_bytes(bert_config, length, compute_bytes)
  )
  of_head = _masked_lm_bytes(bert_config, batch) // parts
  return MemoryEstimate(
    weights=_num_bytes(trainer.weights),
    slots=_num_bytes(trainer.slots),
    # Themselves, and their clipped copies or the sums over micro-batches.
    gradients=2 * _num_bytes(trainer.trainable),
    activations=int(of_layers) + of_head,
  )


def _token_bytes(bert_config, length, compute_bytes):
  """What a layer keeps of a token for the backward pass.

  The account of arXiv 2205.05198, section 4.1, for the operations of
  modeling.py: nothing is computed again, no kernels are fused.
  """
  width = (
    # Input, query, key, value, context and output of attention; of each of
    # two dropouts what is scaled, and the zeros for the rest.
    10 * compute_bytes
    # Of two normalisations, in float32.
    + 5 * 4
    # Dropouts' masks.
    + 2
  )
  # Before GELU; its cube, its tanh and two products; after it.
  intermediate = 6 * compute_bytes
  # Softmax in float32; it scaled, zeros, and after dropout; the mask.
  score = 4 + 3 * compute_bytes + 1
  return (
    bert_config.hidden_size * width
    + bert_config.intermediate_size * intermediate
    + bert_config.num_attention_heads * length * score
  )


def _masked_lm_bytes(bert_config, batch):
  """What the masked-LM head keeps for a batch, 0 without such a head."""
  if "masked_lm_positions" not in batch:
    return 0
  num_examples, num_masked = batch["masked_lm_positions"].shape
  # Logits, their softmax, and half a gradient.
  rows = 2.5 * num_examples * num_masked
  return int(bert_config.vocab_size * rows * 4)


def _num_bytes(variables):
  return sum(
    math.prod(x.shape) * tf.as_dtype(x.dtype).size for x in variables.values()
  )


def check_memory(findings, trainer, batch):
  """Compares the estimate for a batch with what there is.

  Returns:
    Whether steps can be tried: not where the system would kill the process,
    unless other workers would wait for this one.
  """
  estimate = estimate_memory(trainer, batch)
  parts = dataclasses.asdict(estimate)
  sizes = [f"{name} {format_bytes(x)}" for name, x in parts.items()]
  length = batch["input_ids"].shape[-1]
  findings.tell(
    "memory, estimated",
    f"{format_bytes(estimate.total)} a device ({', '.join(sizes)}) for "
    f"sequences of {length}",
  )
  devices = trainer.strategy.extended.worker_devices
  # Logical CPUs share the memory of one machine.
  sharers = len(devices) if "CPU" in devices[0] else 1
  available = available_memory(devices[0])
  if available is None:
    findings.tell("memory, available", "unknown; the measured steps show it")
    return True
  # The trainer's variables are there already.
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


def available_memory(device):
  """Bytes that are free on a device, None if that is unknown.

  Args:
    device: name of a device, as of a strategy's worker_devices.
  """
  if "CPU" in device:
    known = [x for x in (_machine_memory(), *_group_memory()) if x is not None]
    return min(known, default=None)
  if "GPU" not in device:
    return None
  number = int(device.rsplit(":", 1)[1])
  physical = tf.config.list_physical_devices("GPU")[number]
  # TensorFlow knows how much a GPU has only where it was told a limit.
  limits = tf.config.get_logical_device_configuration(physical) or []
  limit = limits[0].memory_limit if limits else None
  if limit is None:
    return None
  used = tf.config.experimental.get_memory_info(f"GPU:{number}")["current"]
  return limit * (1 << 20) - used


def _machine_memory():
  """MemAvailable of Linux, None elsewhere."""
  for line in _read_lines("/proc/meminfo"):
    name, _, value = line.partition(":")
    if name == "MemAvailable":
      return int(value.split()[0]) * 1024
  return None


# Limit and use of a container, of control groups version 2 and 1.
_GROUP_FILES = (
  ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
  (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
  ),
)


def _group_memory():
  """Yields what a container's limit leaves."""
  for limit_file, used_file in _GROUP_FILES:
    limit, used = _read_lines(limit_file), _read_lines(used_file)
    if not (limit and used and limit[0].isdigit()):  # Perhaps "max".
      continue
    # The cache of files is given up before a process is killed.
    statistics = _read_lines(
      os.path.join(os.path.dirname(limit_file), "memory.stat")
    )
    names = dict(line.split() for line in statistics)
    cache = names.get("total_inactive_file", names.get("inactive_file", 0))
    yield int(limit[0]) - int(used[0]) + int(cache)


def _read_lines(path):
  """Lines of a file of the system, none if there is no such file."""
  try:
    with open(path, encoding="ascii") as file:
      return file.read().splitlines()
  except OSError:
    return []


# Time -------------------------------------------------------------------------


def choose_batches(trainer, source):
  """Which batches to measure.

  Where lengths differ the first batch to warm up with has the longest
  sequences of all, and the measured ones stand for equal shares of the next
  steps, ordered by their length.

  Returns:
    Two lists of arrays [batch] of record numbers: of WARMUP_STEPS batches or
    more, one of each shape among them, and of MEASURED_STEPS.
  """
  config = trainer.config
  order = features.training_order(source, config.train_batch_size, config.seed)
  first = trainer.step + trainer.data_offset
  if not source.variable_features:
    steps = range(first, first + WARMUP_STEPS + MEASURED_STEPS)
    numbers = [order.batch(step) for step in steps]
    return numbers[:WARMUP_STEPS], numbers[WARMUP_STEPS:]
  left = max(1, min(SAMPLED_STEPS, config.num_train_steps - trainer.step))
  batches = [order.batch(step) for step in range(first, first + left)]
  batches.sort(key=lambda numbers: source.lengths[numbers].max())
  places = (np.arange(MEASURED_STEPS) + 0.5) * left / MEASURED_STEPS
  measured = [batches[place] for place in places.astype(int)]
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
  """Takes steps of training and forgets them, but for their weights.

  Args:
    trainer: loop.Trainer.
    source: records.
    warmup: list of arrays [batch] of record numbers.
    measured: likewise, of the steps that are timed.
    clock: function that returns seconds.

  Returns:
    (seconds per step, what `Trainer.train_steps` returned last).
  """

  def batches():
    return (source.take(numbers) for numbers in [*warmup, *measured])

  iterator = iter(
    device_strategy.distribute_batches(
      trainer.strategy,
      batches,
      trainer.config.gradient_accumulation_steps,
      source.variable_features,
    )
  )
  first_step = trainer.step
  try:
    statistics = trainer.train_steps(iterator, len(warmup))
    start = clock()
    if statistics["is_finite"]:
      statistics = trainer.train_steps(iterator, len(measured))
    return (clock() - start) / len(measured), statistics
  finally:
    trainer.step = first_step


def _tell_time(findings, trainer, source, warmup, measured):
  """Measures, once for all runs of a process, and tells how long a run takes.

  Of several seeds all steps are alike.
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
  for line in _read_lines("/proc/self/status") if "CPU" in device else []:
    if line.startswith("VmHWM:"):
      peak = int(line.split()[1]) * 1024
  if peak is not None:
    whole = "" if "GPU" in device else ", TensorFlow and all data included"
    findings.tell("memory, highest so far", f"{format_bytes(peak)}{whole}")


def _check_finite(findings, config, statistics):
  """Whether the measured steps gave numbers; a problem or a warning if not."""
  loss, norm = statistics["step_loss"], statistics["gradient_norm"]
  if statistics["is_finite"]:
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
  """Tells what answering many examples takes, from those of a sample.

  Args:
    findings: Findings.
    answer: function of a list of examples that returns what would be written.
    examples: list of all of them.
    output_file: path, None for standard output.

  Raises:
    ValueError: an example of the sample cannot be answered.
  """
  by_length = sorted(examples, key=lambda x: len(str(x)))
  places = np.linspace(
    0, len(examples) - 1, min(len(examples), SAMPLED_EXAMPLES)
  )
  sample = [by_length[place] for place in places.astype(int)]
  findings.tell("examples", f"{len(examples)}, {len(sample)} of them tried")
  answer(sample)  # Traces its graphs.
  start = time.monotonic()
  size = len(answer(sample).encode())
  share = len(examples) / max(1, len(sample))
  findings.planned_seconds = (time.monotonic() - start) * share
  findings.planned_bytes = int(size * share)
  findings.tell("time", f"{format_duration(findings.planned_seconds)} for all")
  if output_file and "://" not in output_file:
    place = os.path.dirname(os.path.abspath(output_file))
    check_space(findings, "output_file", output_file, place)
  conclude(findings, "model and texts fit together")


# Disk -------------------------------------------------------------------------


def plan_disk(findings, trainer, path):
  """Adds up what a run will write, beyond what its directory holds already.

  A checkpoint is whole before the oldest one is deleted, so there is one more
  than are kept.

  Args:
    findings: Findings.
    trainer: loop.Trainer.
    path: the run's directory.
  """
  config = trainer.config
  weights = _num_bytes(trainer.weights)
  of_checkpoint = weights + _num_bytes(trainer.slots)
  count = count_checkpoints(config, 0)
  if trainer.monitor and config.eval_steps:
    # Any of them may be the best so far, which is saved at once.
    count += config.num_train_steps // config.eval_steps
  if config.save_checkpoints_secs and config.keep_checkpoint_max:
    count = config.keep_checkpoint_max + 1
  elif config.save_checkpoints_secs:
    count += int(findings.planned_seconds / config.save_checkpoints_secs)
  if config.keep_checkpoint_max:
    count = min(count, config.keep_checkpoint_max + 1)
  # bert_model.ckpt; best_model.ckpt, of which two lie there for a moment.
  finals = weights * (3 if trainer.monitor else 1)
  reports = config.num_train_steps // config.log_every_steps + 1
  logs = reports * LOG_BYTES_PER_REPORT
  findings.tell(
    "disk, to be written",
    f"{format_bytes(count * of_checkpoint + finals + logs)}: checkpoints "
    f"{count} x {format_bytes(of_checkpoint)}, models {format_bytes(finals)}",
  )
  kept = checkpoint_io.list_files(path, "model.ckpt-*")
  there = sum(tf.io.gfile.stat(file).length for file in kept)
  findings.planned_bytes += (
    max(0, count * of_checkpoint - there) + finals + logs
  )


def check_output_dir(findings, path):
  """Finds out whether a run can write to a directory, without making it.

  Args:
    findings: Findings, whose planned_bytes are compared with the free space.
    path: the directory, which need not be there.
  """
  if "://" in path:
    findings.tell("output_dir", f"{path} is remote and was not checked")
    return
  place = os.path.abspath(path)
  while not os.path.exists(place):
    place = os.path.dirname(place)
  if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
    findings.refuse(
      f"--output_dir={path}: {place} is no directory that can be written to; "
      "change its permissions or choose another"
    )
    return
  check_space(
    findings, "output_dir", path, place, ", or lower --keep_checkpoint_max"
  )


def check_space(findings, flag, path, place, remedy=""):
  """Compares what will be written with the room that there is.

  Args:
    findings: Findings, for its planned_bytes.
    flag: which named the path.
    path: what will be written.
    place: directory on the same disk.
    remedy: what could be done as well.
  """
  free, planned = shutil.disk_usage(place).free, findings.planned_bytes
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
  """Looks at all records, or of many at a sample.

  A sample is blocks of neighbours, drawn one each from equal stretches of all
  files, since reading every block would take as long as reading every record.

  Args:
    findings: Findings.
    source: features.RecordSource that does not skip bad records; one that
      does has read them all.
    seed: int that decides on the sample.
  """
  total = len(source)
  if total <= MAX_CHECKED_RECORDS:
    # This reads all, and counts what it leaves out.
    checked = features.RecordSource(
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
  """(number of records looked at, error of the first bad one or None)."""
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
      source.take(numbers)
    except ValueError as error:
      return count, str(error)
  return count, None


def text_lengths(split, tokenizer):
  """Tokens of examples before anything is cut.

  Args:
    split: classifier_data.Split.
    tokenizer: tokenization.FullTokenizer.

  Returns:
    int64 [examples], `[CLS]` and `[SEP]` included.
  """
  lengths = np.zeros(len(split.examples), np.int64)
  np.maximum.at(lengths, split.owners, split.source.lengths)
  # What was cut is as long as any, and a window of a longer text as well.
  for number in np.flatnonzero(lengths == lengths.max(initial=0)).tolist():
    example = split.examples[number]
    num_a, num_b = (
      len(tokenizer.encode(text)) if text else 0
      for text in (example.text_a, example.text_b)
    )
    lengths[number] = num_a + 2 + (num_b + 1 if num_b else 0)
  return lengths


def tell_texts(findings, name, lengths, max_seq_length, long_text="truncate"):
  """Tells how long texts are, and warns where many are cut.

  Args:
    findings: Findings.
    name: of the texts.
    lengths: int array [texts], tokens of each before anything is cut.
    max_seq_length: tokens of a sequence at most.
    long_text: one of classifier_data.LONG_TEXT.
  """
  if not len(lengths):
    findings.tell(name, "no texts")
    return
  share = np.mean(lengths > max_seq_length)
  fate = "read in windows" if long_text == "sliding" else "truncated"
  findings.tell(
    name,
    f"{len(lengths)} examples, the longest of {lengths.max()} tokens, "
    f"{share:.1%} longer than --max_seq_length={max_seq_length} and {fate}",
  )
  if share > MAX_TRUNCATED and fate == "truncated":
    findings.warn(
      f"{share:.0%} of the texts of {name} are truncated; raise "
      "--max_seq_length, or pass --long_text=sliding"
    )


def tell_labels(findings, name, names, labels):
  """Tells how often each label comes, and warns of those that never do.

  Args:
    findings: Findings.
    name: of the examples.
    names: sequence of str, empty for scores.
    labels: as of classifier_data.label_ids.
  """
  if not names:
    findings.tell(
      f"scores of {name}",
      f"{labels.min():g} to {labels.max():g}, mean {labels.mean():.4g}",
    )
    return
  # A row of 0 and 1 may have several.
  numbers = labels if labels.ndim == 1 else np.nonzero(labels)[1]
  counts = np.bincount(numbers, minlength=len(names)).tolist()
  pairs = list(zip(names, counts, strict=True))
  findings.tell(
    f"labels of {name}", ", ".join(f"{x} {count}" for x, count in pairs)
  )
  absent = [x for x, count in pairs if not count]
  if absent:
    findings.warn(f"no example of {name} has the label {', '.join(absent)}")


def tell_windows(
  findings, name, windows, max_seq_length, doc_stride, max_query_length
):
  """Tells how questions and their texts fill windows.

  Args:
    findings: Findings.
    name: of the file.
    windows: squad_data.Windows.
    max_seq_length: tokens of a window at most.
    doc_stride: tokens from the start of one window to that of the next.
    max_query_length: tokens of a question that are kept.
  """
  num_query = windows.first_doc_token - 2
  room = max_seq_length - num_query - 3
  starts = windows.doc_span_index * np.minimum(room, doc_stride)
  ends = starts + np.diff(windows.word_starts)
  is_first = windows.doc_span_index == 0
  split = len(set(windows.example_index[~is_first].tolist()))
  findings.tell(
    name,
    f"{windows.num_examples} questions in {len(windows)} windows, the longest "
    f"text of {ends.max(initial=0)} tokens, "
    f"{split / windows.num_examples:.1%} of the texts in several windows",
  )
  cut = np.sum(is_first & (num_query >= max_query_length))
  share = cut / windows.num_examples
  if share > MAX_TRUNCATED:
    findings.warn(
      f"{share:.0%} of the questions of {name} have {max_query_length} tokens "
      "or more and are cut there; raise --max_query_length"
    )


def tell_answers(findings, name, windows):
  """Tells how many answers there are to learn, and warns of lost ones.

  Args:
    findings: Findings.
    name: of the file.
    windows: squad_data.Windows, for training.
  """
  total = windows.num_examples
  has_answer, is_impossible = np.zeros([2, total], bool)
  has_answer[windows.example_index[windows.start_positions > 0]] = True
  is_impossible[windows.example_index[windows.is_impossible]] = True
  lost = np.mean(~has_answer & ~is_impossible)
  findings.tell(
    f"answers of {name}",
    f"{is_impossible.mean():.1%} of the questions have none, those of "
    f"{lost:.1%} lie in no window as a whole",
  )
  if lost > MAX_TRUNCATED:
    findings.warn(
      f"{lost:.0%} of the answers of {name} lie in no window as a whole and "
      "are not learnt; lower --doc_stride, or raise --max_seq_length"
    )
