"""The devices and workers of a run, and the batches that each of them gets.

A strategy of tf.distribute holds copies of the variables on all devices; each
copy is a replica. With several workers, one process each, every process reads
the same global batches and gives its own replicas their parts.
"""

import contextlib
import os

import numpy as np
import tensorflow as tf

from bert_keras3.data import files
from bert_keras3.training import workers

# Devices ----------------------------------------------------------------------


def make_strategy(config):
  """Builds the tf.distribute strategy; call it before any other TensorFlow op.

  Args:
    config: configs.DeviceConfig.

  Raises:
    ValueError: there are fewer devices than asked for, or TF_CONFIG is not set
      for multi_worker.
    ConnectionError: the other workers of multi_worker cannot be reached. Where
      TensorFlow would wait for them, config.worker_timeout ends the process.
  """
  if config.deterministic:
    tf.config.experimental.enable_op_determinism()
  makers = {
    "auto": _make_auto,
    "one_device": _make_one_device,
    "mirrored": _make_mirrored,
    "multi_worker": _make_multi_worker,
    "tpu": _make_tpu,
  }
  return makers[config.strategy_name](config)


def _make_auto(config):
  num_gpus = len(tf.config.list_physical_devices("GPU"))
  if max(num_gpus, config.num_devices or 1) > 1 and config.num_devices != 1:
    return _make_mirrored(config)
  return _make_one_device(config)


def _make_one_device(config):
  return tf.distribute.OneDeviceStrategy(_local_devices(config, 1)[0])


def _make_mirrored(config):
  devices = _local_devices(config, config.num_devices)
  # NCCL exists for GPUs only; this reduction runs anywhere.
  on_cpu = "CPU" in devices[0]
  reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
  return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _local_devices(config, count):
  """Returns the names of `count` local GPUs (None: all), else of logical CPUs.

  Logical CPUs share the cores of the machine; several of them are for tests.
  """
  gpus = tf.config.list_physical_devices("GPU")
  if gpus:
    count = count or len(gpus)
    if count > len(gpus):
      raise ValueError(
        f"--num_devices={count}, but this machine has {len(gpus)} GPUs"
      )
    return [f"GPU:{i}" for i in range(count)]
  count = count or 1
  if count > 1:
    _split_cpu(count)
  if len(tf.config.list_logical_devices("CPU")) < count:
    raise ValueError(
      f"--num_devices={count}: TensorFlow has started with fewer logical CPUs "
      "in this process; make the strategy before anything else"
    )
  return [f"CPU:{i}" for i in range(count)]


def _split_cpu(num_devices):
  """Makes `num_devices` logical CPUs, unless TensorFlow has started."""
  cpu = tf.config.list_physical_devices("CPU")[0]
  configurations = [tf.config.LogicalDeviceConfiguration()] * num_devices
  try:
    tf.config.set_logical_device_configuration(cpu, configurations)
  except RuntimeError:
    pass  # TensorFlow has started; the caller counts its CPUs.


class _WatchedStrategy(tf.distribute.MultiWorkerMirroredStrategy):
  """A multi-worker strategy whose waits for other workers have a timeout.

  TensorFlow enters its scope for all that workers do together outside a graph:
  initial values of variables, steps of evaluation, sums.
  """

  def __init__(self, cluster, timeout):
    with workers.starting(cluster, timeout):
      super().__init__()
    self.watchdog = workers.Watchdog(cluster.peers, timeout)

  @contextlib.contextmanager
  def scope(self):
    """Enters the strategy's scope, in which the timeout applies."""
    with watchdog_of(self).waiting(), super().scope():
      yield


def watchdog_of(strategy):
  """Returns the strategy's Watchdog, a do-nothing one for a single worker."""
  return getattr(strategy, "watchdog", workers.Watchdog())


def _make_multi_worker(config):
  try:
    tf_config = files.parse_json(os.environ["TF_CONFIG"])
    cluster = workers.Cluster.from_tf_config(tf_config)
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    raise ValueError(
      "--distribution_strategy=multi_worker needs the environment variable "
      'TF_CONFIG, such as {"cluster": {"worker": ["HOST1:PORT", '
      '"HOST2:PORT"]}, "task": {"type": "worker", "index": 0}}'
    ) from error
  return _WatchedStrategy(cluster, config.worker_timeout)


def _make_tpu(config):
  """Connects to a TPU and uses `num_tpu_cores` of its cores at most."""
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
      tpu=config.tpu_address, zone=config.tpu_zone, project=config.gcp_project
    )
    tf.config.experimental_connect_to_cluster(resolver)
    topology = tf.tpu.experimental.initialize_tpu_system(resolver)
  except (ValueError, tf.errors.OpError) as error:
    raise ValueError(
      f"no TPU can be reached as --tpu_name={config.tpu_address} ({error}); "
      "check its name, --tpu_zone and --gcp_project, or leave out --use_tpu"
    ) from error
  available = int(np.prod(topology.mesh_shape[:3])) * topology.mesh_shape[-1]
  cores = config.num_tpu_cores
  if not cores or cores >= available:
    return tf.distribute.TPUStrategy(resolver)
  assignment = tf.tpu.experimental.DeviceAssignment.build(
    topology, num_replicas=cores
  )
  return tf.distribute.TPUStrategy(
    resolver, experimental_device_assignment=assignment
  )


def is_chief(strategy):
  """Returns whether this process writes files: the only one, or worker 0."""
  resolver = strategy.cluster_resolver
  if resolver is None or not isinstance(
    strategy, tf.distribute.MultiWorkerMirroredStrategy
  ):
    return True
  return resolver.task_type in (None, "chief") or (
    resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
  )


def uses_xla(strategy, config):
  """Returns whether to compile the step with XLA; a TPU does it by itself."""
  if config.xla != "auto":
    return config.xla == "true"
  return "GPU" in strategy.extended.worker_devices[0]


def has_other_workers(strategy):
  """Returns whether other processes train, or may train, the same model."""
  return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


# Batches to replicas ----------------------------------------------------------


class Failure:
  """Remembers the error of a function that makes batches.

  tf.data replaces an exception of a Python generator by its own, whose text is
  a traceback.
  """

  def __init__(self):
    self.error = None

  def watch(self, batches):
    """Yields the batches of `batches()`; remembers its exception."""
    try:
      yield from batches()
    except Exception as error:
      self.error = error
      raise

  @contextlib.contextmanager
  def explain(self):
    """Raises the remembered error instead of tf.data's."""
    try:
      yield
    except tf.errors.OpError as error:
      if not self.error:
        raise
      raise type(self.error)(str(self.error)) from error


def distribute_batches(
  strategy, batches, specs, batch_size, num_micro_batches=None
):
  """Splits global batches and gives each replica its part.

  Replica r of R takes the r-th of R equal contiguous parts, whichever process
  it lives in.

  Args:
    strategy: tf.distribute strategy.
    batches: function without arguments that returns an iterator of dicts of
      arrays [batch_size, *spec.shape].
    specs: tuple of features.FeatureSpec, the features of every batch.
    batch_size: a multiple of R.
    num_micro_batches: splits each part into [micro_batches, rows, ...] if set.

  Returns:
    Distributed dataset.
  """

  def share(batch, replica, num_replicas):
    return {
      name: _split(np.split(values, num_replicas)[replica], num_micro_batches)
      for name, values in batch.items()
    }

  def make_dataset(context):
    num_replicas = context.num_replicas_in_sync
    num_local = num_replicas // context.num_input_pipelines
    first = context.input_pipeline_id * num_local

    def generate():
      for batch in batches():
        for replica in range(first, first + num_local):
          yield share(batch, replica, num_replicas)

    rows = _split_shape(batch_size // num_replicas, num_micro_batches)
    signature = {
      spec.name: tf.TensorSpec((*rows, *spec.shape), spec.dtype)
      for spec in specs
    }
    dataset = tf.data.Dataset.from_generator(
      generate, output_signature=signature
    )
    return dataset.prefetch(2 * num_local)

  return strategy.distribute_datasets_from_function(make_dataset)


def _split(values, num_micro_batches):
  if num_micro_batches is None:
    return values
  rows = _split_shape(len(values), num_micro_batches)
  return values.reshape([*rows, *values.shape[1:]])


def _split_shape(num_rows, num_micro_batches):
  if num_micro_batches is None:
    return (num_rows,)
  return (num_micro_batches, num_rows // num_micro_batches)


def first_replica(strategy, value):
  """Returns one replica's copy of values that all replicas hold."""
  return tf.nest.map_structure(
    lambda x: strategy.experimental_local_results(x)[0], value
  )
