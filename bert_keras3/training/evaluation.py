"""A model's metrics and outputs over all records, on any strategy."""

import functools
import itertools

import numpy as np
import tensorflow as tf

from bert_keras3.data import order
from bert_keras3.training import devices


def evaluate(strategy, model, source, batch_size, max_batches=None):
  """Computes a head's metrics; every example counts exactly once.

  Args:
    strategy: tf.distribute strategy the model lives in.
    model: head model of `modeling`.
    source: sources.Source.
    batch_size: global batch size.
    max_batches: batches to stop after, None for all.

  Returns:
    Dict of floats: the model's metrics over all examples, and `loss`, the mean
    of the batches' losses with a partial last batch counting like the others
    (what upstream's Estimator calls loss).
  """
  sums = np.zeros([len(model.metric_names), 2])
  losses = []
  step = tf.function(functools.partial(_evaluate_batch, model))
  for batch, _ in _padded_batches(strategy, source, batch_size, max_batches):
    loss, metrics = devices.first_replica(
      strategy, strategy.run(step, args=(batch,))
    )
    losses.append(loss.numpy())
    sums += metrics.numpy()
  means = sums[:, 0] / np.maximum(sums[:, 1], 1e-12)
  return {
    **dict(zip(model.metric_names, means.tolist(), strict=True)),
    "loss": float(np.mean(losses)),
  }


def _evaluate_batch(model, batch):
  outputs = model(batch, training=False)
  replica = tf.distribute.get_replica_context()
  terms = replica.all_reduce("SUM", model.terms(outputs, batch))
  return model.total_loss(terms), model.stack_metrics(terms)


def prediction_step(model):
  """Compiles the forward pass that `predict` runs on every batch.

  It is traced twice at most: for the first length, and for any.
  """
  step = functools.partial(_predict_batch, model)
  return tf.function(step, reduce_retracing=True)


def predict(strategy, step, source, batch_size):
  """Yields a model's outputs batch by batch, the shortest sequences first.

  Args:
    strategy: tf.distribute strategy the model lives in.
    step: function that `prediction_step` returned.
    source: sources.Source.
    batch_size: global batch size.

  Yields:
    (record numbers [examples], dict of arrays [examples, ...]); in the order
    of the records if their lengths do not vary.
  """
  for batch, numbers in _padded_batches(strategy, source, batch_size):
    outputs = devices.first_replica(strategy, strategy.run(step, args=(batch,)))
    yield (
      numbers,
      {name: x.numpy()[: len(numbers)] for name, x in outputs.items()},
    )


def _predict_batch(model, batch):
  replica = tf.distribute.get_replica_context()
  return replica.all_gather(model(batch, training=False), axis=0)


def _padded_batches(strategy, source, batch_size, max_batches=None):
  """Yields (distributed batch, numbers of the examples in it)."""
  replicas = strategy.num_replicas_in_sync
  padded_size = -(-batch_size // replicas) * replicas
  examples = order.inference_order(source)

  def numbers():
    for positions in order.sequential_batches(
      len(source), batch_size, max_batches
    ):
      yield examples[positions]

  def batches():
    for batch in numbers():
      # Step 0, as there is no training step: every evaluation is the same.
      yield order.pad_batch(source.take(batch, step=0), padded_size)

  failure = devices.Failure()
  distributed = devices.distribute_batches(
    strategy,
    lambda: failure.watch(batches),
    order.padded_features(source.specs),
    padded_size,
  )
  with failure.explain():
    yield from _in_step(strategy, zip(distributed, numbers(), strict=True))


def _in_step(strategy, batches):
  """Yields batches; waiting for other workers has a timeout for each batch."""
  watchdog = devices.watchdog_of(strategy)
  iterator, count = iter(batches), itertools.count(1)
  while True:
    position = f"at batch {next(count)} of evaluation or prediction"
    with watchdog.waiting(lambda position=position: position):
      batch = next(iterator, None)
    if batch is None:
      return
    yield batch
