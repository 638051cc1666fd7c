"""Estimates the memory that training takes, and reads how much is free."""

import dataclasses
import math
import os

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
  """Bytes that one device needs for a step."""

  weights: int
  slots: int
  gradients: int
  activations: int

  @property
  def total(self):
    """Returns the sum."""
    return self.weights + self.slots + self.gradients + self.activations


def estimate_memory(trainer, batch):
  """Estimates the memory of the weights and one micro-batch on one device.

  On a CPU, for 26 pairs of model (one to four layers) and batch, it was 0.97 to
  1.29 times the growth of a process in its first steps, less the 110 MB that
  tracing takes (1.6 times for a width of 16 with 30,522 words). XLA's fused
  kernels need less. One micro-batch is assumed to be in memory at a time.

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
  # Half a layer more, for temporary tensors.
  layers = bert_config.num_hidden_layers + 0.5
  of_layers = (
    layers * num_tokens * _token_bytes(bert_config, length, compute_bytes)
  )
  of_head = _masked_lm_bytes(bert_config, batch) // parts
  return MemoryEstimate(
    weights=num_bytes(trainer.weights),
    slots=num_bytes(trainer.slots),
    # Gradients, and their clipped copies or the sums over micro-batches.
    gradients=2 * num_bytes(trainer.trainable),
    activations=int(of_layers) + of_head,
  )


def _token_bytes(bert_config, length, compute_bytes):
  """Counts the bytes that a layer keeps of a token for the backward pass.

  As in arXiv 2205.05198, section 4.1, for the operations of modeling.py:
  nothing is computed again, no kernels are fused.
  """
  width = (
    # Input, query, key, value, context and output of attention; for each of
    # two dropouts the scaled values, and the zeros for the rest.
    10 * compute_bytes
    # Two normalisations, in float32.
    + 5 * 4
    # Dropouts' masks.
    + 2
  )
  # Before GELU; its cube, its tanh and two products; after it.
  intermediate = 6 * compute_bytes
  # Softmax in float32; for dropout the scaled one, zeros, the result, the mask.
  score = 4 + 3 * compute_bytes + 1
  return (
    bert_config.hidden_size * width
    + bert_config.intermediate_size * intermediate
    + bert_config.num_attention_heads * length * score
  )


def _masked_lm_bytes(bert_config, batch):
  """Counts the bytes that the masked-LM head keeps, 0 without that head."""
  if "masked_lm_positions" not in batch:
    return 0
  num_examples, num_masked = batch["masked_lm_positions"].shape
  # Logits, their softmax, and half a gradient.
  rows = 2.5 * num_examples * num_masked
  return int(bert_config.vocab_size * rows * 4)


def num_bytes(variables):
  """Returns the bytes of the arrays of a dict of variables or tensors."""
  return sum(
    math.prod(x.shape) * tf.as_dtype(x.dtype).size for x in variables.values()
  )


def available_memory(device):
  """Returns the free bytes of a device, None if unknown.

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
  # TensorFlow knows the size of a GPU's memory only if a limit is set.
  limits = tf.config.get_logical_device_configuration(physical) or []
  limit = limits[0].memory_limit if limits else None
  if limit is None:
    return None
  used = tf.config.experimental.get_memory_info(f"GPU:{number}")["current"]
  return limit * (1 << 20) - used


def _machine_memory():
  """Returns the bytes of Linux's MemAvailable, None elsewhere."""
  for line in read_lines("/proc/meminfo"):
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
  """Yields the bytes that a container's limit leaves free."""
  for limit_file, used_file in _GROUP_FILES:
    limit, used = read_lines(limit_file), read_lines(used_file)
    if not (limit and used and limit[0].isdigit()):  # Perhaps "max".
      continue
    # The kernel drops cached files before it kills a process.
    statistics = read_lines(
      os.path.join(os.path.dirname(limit_file), "memory.stat")
    )
    names = dict(line.split() for line in statistics)
    cache = names.get("total_inactive_file", names.get("inactive_file", 0))
    yield int(limit[0]) - int(used[0]) + int(cache)


def read_lines(path):
  """Returns the lines of a system file, [] if it cannot be read."""
  try:
    with open(path, encoding="ascii") as file:
      return file.read().splitlines()
  except OSError:
    return []
