"""Schedules and optimizers against formulas and upstream's trajectories."""

import numpy as np
import pytest
import tensorflow as tf

import modeling
import optimization
import training_loop

# Share of an array's largest value; upstream differs by 3e-6 between its two
# TensorFlow versions.
TOLERANCE = 1e-5
# Their true gradient is 0, so their moments are rounding noise and their
# weights agree to 1e-4 only (the goldens' README).
ZERO_GRADIENT = "attention/self/key/bias"

GOLDEN_RUNS = {
  # name: warmup steps; all of 30 steps, peak rate 1e-3, batch 8
  "pretrain_warmup10": 10,
  "pretrain_nowarmup": 0,
  "pretrain_warmup10_onehot": 10,
}


def schedule(**changes):
  return optimization.LearningRateSchedule(
    **{
      "init_lr": 1.0,
      "num_train_steps": 10,
      "num_warmup_steps": 4,
      **changes,
    }
  )


def rates(a_schedule, steps):
  return [float(a_schedule(step)) for step in steps]


def test_linear_is_not_rebased_after_the_warmup():
  assert rates(schedule(), range(12)) == pytest.approx(
    [0, 0.25, 0.5, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0], abs=1e-7
  )


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"decay": "constant"}, [1, 1, 1]),
    ({"decay": "cosine"}, [0.6545085, 0.5, 0.0]),
    ({"decay": "polynomial", "power": 2.0}, [0.36, 0.25, 0.0]),
    ({"num_warmup_steps": 0}, [0.6, 0.5, 0.0]),
  ],
)
def test_decays(changes, expected):
  assert rates(schedule(**changes), [4, 5, 10]) == pytest.approx(
    expected, abs=1e-6
  )


def test_no_warmup_starts_at_the_peak():
  assert rates(schedule(num_warmup_steps=0), [0]) == [1.0]


# Rules, by plain arithmetic


def apply_once(optimizer, name, weight, gradient, learning_rate=0.1, step=0):
  variable = tf.Variable(tf.constant(weight, tf.float32))
  slots = optimizer.create_slots({name: variable})
  values = list(slots.values())
  optimizer.update(
    name,
    variable,
    tf.constant(gradient, tf.float32),
    values,
    tf.constant(learning_rate),
    tf.constant(step, tf.int64),
  )
  return variable.numpy(), {key: v.numpy() for key, v in slots.items()}


def test_adam_weight_decay_by_hand():
  weight, slots = apply_once(
    optimization.AdamWeightDecay(), "layer/kernel", [2.0], [3.0]
  )
  m, v = 0.1 * 3, 0.001 * 9
  assert slots["layer/kernel/adam_m"] == pytest.approx([m])
  assert slots["layer/kernel/adam_v"] == pytest.approx([v])
  expected = 2 - 0.1 * (m / (v**0.5 + 1e-6) + 0.01 * 2)
  assert weight == pytest.approx([expected])


def test_adam_weight_decay_reaches_upstreams_minimum():
  """Upstream's own test: 100 steps of rate 0.2 towards three numbers."""
  optimizer = optimization.AdamWeightDecay(weight_decay_rate=0.01)
  target = tf.constant([0.4, 0.2, -0.5])
  w = tf.Variable([0.1, -0.2, -0.1])
  slots = list(optimizer.create_slots({"w": w}).values())
  for step in range(100):
    with tf.GradientTape() as tape:
      loss = tf.reduce_mean(tf.square(target - w))
    optimizer.update("w", w, tape.gradient(loss, w), slots, 0.2, step)
  np.testing.assert_allclose(w, target, atol=1e-2)


@pytest.mark.parametrize(
  ("name", "is_decayed"),
  [
    ("bert/encoder/layer_0/output/dense/kernel", True),
    ("bert/embeddings/word_embeddings", True),
    ("cls/seq_relationship/output_weights", True),
    ("bert/encoder/layer_0/output/dense/bias", False),
    ("bert/embeddings/LayerNorm/gamma", False),
    ("cls/predictions/output_bias", False),
  ],
)
def test_what_is_decayed(name, is_decayed):
  assert optimization.AdamWeightDecay().is_decayed(name) == is_decayed


def test_lamb_by_hand():
  """Algorithm 2 of arXiv 1904.00962, third step."""
  weight, gradient = np.array([3.0, 4.0]), np.array([1.0, -2.0])
  result, _ = apply_once(
    optimization.Lamb(), "layer/kernel", weight, gradient, step=2
  )
  m_hat = 0.1 * gradient / (1 - 0.9**3)
  v_hat = 0.001 * gradient**2 / (1 - 0.999**3)
  direction = m_hat / (np.sqrt(v_hat) + 1e-6) + 0.01 * weight
  ratio = 5 / np.linalg.norm(direction)
  np.testing.assert_allclose(
    result, weight - 0.1 * ratio * direction, rtol=1e-5
  )


def test_lamb_does_not_scale_what_it_does_not_decay():
  result, _ = apply_once(optimization.Lamb(), "layer/bias", [3.0], [1.0])
  # First step: m_hat / sqrt(v_hat) is the gradient's sign.
  assert result == pytest.approx([3.0 - 0.1], rel=1e-4)


def test_lamb_moves_a_variable_that_is_zero():
  result, _ = apply_once(optimization.Lamb(), "layer/kernel", [0.0], [1.0])
  assert result == pytest.approx([-0.1], rel=1e-4)


def test_clipping_scales_to_the_norm_and_leaves_small_gradients():
  gradients = [tf.constant([3.0]), tf.constant([[4.0]])]
  clipped, norm = optimization.clip_by_global_norm(gradients)
  assert float(norm) == 5.0
  np.testing.assert_allclose(clipped[0], [0.6], rtol=1e-6)
  np.testing.assert_allclose(clipped[1], [[0.8]], rtol=1e-6)
  kept, _ = optimization.clip_by_global_norm(gradients, clip_norm=6.0)
  np.testing.assert_allclose(kept[1], [[4.0]], rtol=1e-6)


# Upstream's trajectories


def golden_trainer(folder, num_warmup_steps):
  """A Trainer on upstream's initial weights, and the batches of its steps."""
  config = modeling.BertConfig.from_json_file(str(folder / "bert_config.json"))
  strategy = training_loop.make_strategy(training_loop.DeviceConfig())
  with strategy.scope():
    model = modeling.BertPretrainer(config)
  initial = np.load(folder / "init.npz")
  trainer = training_loop.Trainer(
    strategy,
    model,
    training_loop.TrainingConfig(
      output_dir="",
      schedule=optimization.LearningRateSchedule(1e-3, 30, num_warmup_steps),
      train_batch_size=8,
    ),
  )
  for name, variable in trainer.weights.items():
    variable.assign(initial[name])
  arrays = np.load(folder / "batches.npz")
  fine_tuning = {"label_ids", "unique_ids", "start_positions", "end_positions"}
  names = set(arrays) - fine_tuning

  def batches():
    for step in range(30):
      yield {name: arrays[name][step % 5] for name in names}

  iterator = iter(training_loop.distribute_batches(strategy, batches, 1))
  return trainer, iterator


def check_trajectory(folder, name):
  golden = np.load(folder / f"{name}.npz")
  trainer, iterator = golden_trainer(folder, GOLDEN_RUNS[name])
  for step in range(30):
    found = trainer.train_steps(iterator, 1)
    assert found["loss"] == pytest.approx(golden["loss"][step], rel=1e-5)
    # One rounding of the share that is done, in units of the peak rate.
    assert found["learning_rate"] == pytest.approx(
      golden["learning_rate"][step], rel=0, abs=1e-7 * 1e-3
    )
    assert found["gradient_norm"] == pytest.approx(
      golden["global_norm"][step], rel=1e-5
    )
    if step == 1:
      check_state(trainer, golden, "step2/")
  check_state(trainer, golden, "final/")


def check_state(trainer, golden, prefix):
  """Compares weights and slots with those of `golden` under `prefix`."""
  state = {**trainer.weights, **trainer.slots}
  for key in golden:
    name = key.removeprefix(prefix)
    if key == name or name == "global_step":
      continue
    if ZERO_GRADIENT in name and name not in trainer.weights:
      continue
    tolerance = 1e-4 if ZERO_GRADIENT in name else TOLERANCE
    error = np.abs(state[name].numpy() - golden[key]).max()
    assert error <= tolerance * np.abs(golden[key]).max(), name


def test_trajectory_equals_upstream(testdata):
  check_trajectory(testdata / "training", "pretrain_warmup10")


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_trajectories_equal_upstream(goldens, name):
  check_trajectory(goldens / "training", name)


def test_first_gradients_equal_upstream(testdata):
  folder = testdata / "training"
  trainer, iterator = golden_trainer(folder, 10)
  golden = np.load(folder / "pretrain_warmup10_grads0.npz")
  batch = {name: values[0] for name, values in next(iterator).items()}
  weights = trainer.model.loss_weights(batch)
  gradients, _, _ = trainer._micro_gradients(
    batch, weights, tf.zeros([2], tf.int64)
  )
  for name, gradient in zip(trainer.trainable, gradients, strict=True):
    if ZERO_GRADIENT not in name:
      error = np.abs(gradient.numpy() - golden[name]).max()
      assert error <= TOLERANCE * np.abs(golden[name]).max(), name
