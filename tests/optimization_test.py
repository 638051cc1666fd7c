"""Schedules and optimizers against formulas and upstream's trajectories."""

import numpy as np
import pytest
import tensorflow as tf

import modeling
import optimization
from bert_keras3.data import features
from bert_keras3.training import devices
from bert_keras3.training import loop

# Share of an array's largest value; upstream differs by 3e-6 between its two
# TensorFlow versions.
TOLERANCE = 1e-5
# Their true gradient is 0, so their moments are rounding noise, and their
# weights agree less: noise of 1e-8 over Adam's epsilon of 1e-6 moves a weight
# by up to 30 steps x 1e-3 x 1e-2 (the goldens' README: 1e-4 between upstream's
# two TensorFlow versions).
NOISE_TOLERANCE = 1e-4
ZERO_GRADIENT = ("attention/self/key/bias",)
# A constant added to all logits of a position changes no probability either.
SQUAD_ZERO_GRADIENT = (
  *ZERO_GRADIENT,
  "cls/squad/output_bias",
  "encoder/layer_1/output/LayerNorm/beta",
)

GOLDEN_RUNS = {
  # name: warmup steps; all of 30 steps, peak rate 1e-3, batch 8
  "pretrain_warmup10": 10,
  "pretrain_nowarmup": 0,
  "pretrain_warmup10_onehot": 10,
}
CLASSIFIER_RUN = {
  "init_lr": 1e-3,
  "zero_gradient": ZERO_GRADIENT,
  # Of the first gradients, from upstream's dense ones (meta.json,
  # step0_global_norm_of_dense_gradients).
  "first_norm": 1.0423228740692139,
}
CLASSIFIER_RUNS = {
  "classifier_warmup10": {**CLASSIFIER_RUN, "num_warmup_steps": 10},
  "classifier_nowarmup": {**CLASSIFIER_RUN, "num_warmup_steps": 0},
}
CLIPPED_RUNS = {
  **CLASSIFIER_RUNS,
  "squad_warmup3": {
    "init_lr": 5e-4,
    "zero_gradient": SQUAD_ZERO_GRADIENT,
    "first_norm": 1.2243999242782593,
    "num_warmup_steps": 3,
  },
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


def textbook_adamw(weight, gradients, rate, decay):
  """arXiv 1412.6980, algorithm 1, with decay as in arXiv 1711.05101."""
  m = v = 0.0
  for t, gradient in enumerate(gradients, 1):
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    direction = m_hat / (np.sqrt(v_hat) + 1e-6)
    weight = weight - rate * (direction + decay * weight)
  return weight


@pytest.mark.parametrize("name", ["layer/kernel", "layer/bias"])
@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_bias_correction_is_textbook_adam(name, num_steps):
  rng = np.random.default_rng(num_steps)
  initial = rng.normal(size=5)
  gradients = rng.normal(size=[num_steps, 5])
  optimizer = optimization.AdamWeightDecay(bias_correction=True)
  variable = tf.Variable(initial, dtype=tf.float32)
  slots = list(optimizer.create_slots({name: variable}).values())
  for step, gradient in enumerate(gradients.astype(np.float32)):
    optimizer.update(
      name, variable, gradient, slots, 0.1, tf.constant(step, tf.int64)
    )
  decay = 0.01 if name == "layer/kernel" else 0.0
  expected = textbook_adamw(initial, gradients, 0.1, decay)
  # Half a unit in the last place of 0.999, 3e-8, is 3e-5 of what it leaves of
  # 1, and v's root halves that; a step is of the order of the rate, 0.1.
  atol = num_steps * 1.5e-5 * 0.1
  np.testing.assert_allclose(variable, expected, rtol=0, atol=atol)


def test_bias_correction_is_off_by_default():
  """First step: 0.1 / sqrt(0.001) times the gradient's sign, not 1 times."""
  optimizer = optimization.AdamWeightDecay
  moved, _ = apply_once(optimizer(), "layer/bias", [3.0], [-2.0])
  assert moved == pytest.approx([3.0 + 0.1 * 0.1 / 0.001**0.5], rel=1e-5)
  moved, _ = apply_once(
    optimizer(bias_correction=True), "layer/bias", [3.0], [-2.0]
  )
  assert moved == pytest.approx([3.0 + 0.1], rel=1e-5)


def test_lamb_is_always_corrected():
  """As in its paper, whatever --adam_bias_correction says."""
  results = [
    apply_once(
      optimization.Lamb(bias_correction=flag), "layer/bias", [3.0], [1.0]
    )[0]
    for flag in (False, True)
  ]
  assert results[0] == results[1] == pytest.approx([3.0 - 0.1], rel=1e-4)


# Rates by layer


def test_layerwise_factors_fall_towards_the_embeddings():
  names = {
    "bert/embeddings/word_embeddings": 0.125,
    "bert/embeddings/LayerNorm/beta": 0.125,
    "bert/encoder/layer_0/attention/self/query/kernel": 0.25,
    "bert/encoder/layer_1/output/dense/bias": 0.5,
    "bert/pooler/dense/kernel": 1.0,
    "output_weights": 1.0,
    "output_bias": 1.0,
    "cls/squad/output_weights": 1.0,
    "cls/predictions/transform/dense/kernel": 1.0,
  }
  assert optimization.layerwise_factors(names, 0.5) == names
  assert set(optimization.layerwise_factors(names, 1.0).values()) == {1.0}


def test_layerwise_factors_know_layers_of_two_digits():
  names = [f"bert/encoder/layer_{i}/output/dense/kernel" for i in range(12)]
  factors = optimization.layerwise_factors(["bert/embeddings/x", *names], 0.9)
  expected = [0.9 ** (13 - i) for i in range(13)]
  assert list(factors.values()) == pytest.approx(expected)


def test_clipping_scales_to_the_norm_and_leaves_small_gradients():
  gradients = [tf.constant([3.0]), tf.constant([[4.0]])]
  clipped, norm = optimization.clip_by_global_norm(gradients)
  assert float(norm) == 5.0
  np.testing.assert_allclose(clipped[0], [0.6], rtol=1e-6)
  np.testing.assert_allclose(clipped[1], [[0.8]], rtol=1e-6)
  kept, _ = optimization.clip_by_global_norm(gradients, clip_norm=6.0)
  np.testing.assert_allclose(kept[1], [[4.0]], rtol=1e-6)


# Upstream's trajectories


def golden_trainer(folder, model, num_warmup_steps, init_lr=1e-3):
  """A Trainer on upstream's initial weights, and the batches of its steps."""
  strategy = devices.make_strategy(devices.DeviceConfig())
  initial = np.load(folder / "init.npz")
  trainer = loop.Trainer(
    strategy,
    model,
    loop.TrainingConfig(
      output_dir="",
      schedule=optimization.LearningRateSchedule(init_lr, 30, num_warmup_steps),
      train_batch_size=8,
    ),
  )
  for name, variable in trainer.weights.items():
    variable.assign(initial[name])
  arrays = np.load(folder / "batches.npz")

  def batches():
    for step in range(30):
      yield {name: arrays[name][step % 5] for name in arrays}

  specs = features.specs_of({name: arrays[name][0] for name in arrays})
  iterator = iter(devices.distribute_batches(strategy, batches, specs, 8, 1))
  return trainer, iterator


def golden_config(folder):
  return modeling.BertConfig.from_json_file(str(folder / "bert_config.json"))


def check_trajectory(folder, name):
  golden = np.load(folder / f"{name}.npz")
  model = modeling.BertPretrainer(golden_config(folder))
  trainer, iterator = golden_trainer(folder, model, GOLDEN_RUNS[name])
  for step in range(30):
    found = trainer.train_steps(iterator, 1)
    check_step(trainer, found, golden, step)
    assert found["gradient_norm"] == pytest.approx(
      golden["global_norm"][step], rel=1e-5
    )


def check_clipped_trajectory(folder, name, model, monkeypatch):
  """With upstream's norm in place of ours where gradients are clipped.

  Upstream's is that of sparse rows which are not added up yet.
  """
  golden = np.load(folder / f"{name}.npz")
  run = CLIPPED_RUNS[name]
  upstreams_norm = tf.Variable(0.0)

  def clip(gradients, clip_norm):
    clipped, _ = tf.clip_by_global_norm(gradients, clip_norm, upstreams_norm)
    return clipped, tf.linalg.global_norm(gradients)

  monkeypatch.setattr(optimization, "clip_by_global_norm", clip)
  trainer, iterator = golden_trainer(
    folder, model, run["num_warmup_steps"], run["init_lr"]
  )
  for step in range(30):
    upstreams_norm.assign(golden["global_norm"][step])
    found = trainer.train_steps(iterator, 1)
    check_step(trainer, found, golden, step, run["zero_gradient"])
    if step == 0:
      first_norm = pytest.approx(run["first_norm"], rel=1e-5)
      assert found["gradient_norm"] == first_norm


def check_classifier_trajectory(folder, name, monkeypatch):
  # The golden run was made without the dropout that upstream hard-codes.
  monkeypatch.setattr(modeling, "CLASSIFIER_DROPOUT_PROB", 0.0)
  model = modeling.BertClassifier(golden_config(folder), num_labels=3)
  check_clipped_trajectory(folder, name, model, monkeypatch)


def check_squad_trajectory(folder, monkeypatch):
  model = modeling.BertSpanLabeler(golden_config(folder))
  check_clipped_trajectory(folder, "squad_warmup3", model, monkeypatch)


def check_step(trainer, found, golden, step, zero_gradient=ZERO_GRADIENT):
  """Compares what one call of train_steps, and the state it left."""
  assert found["loss"] == pytest.approx(golden["loss"][step], rel=1e-5)
  # One rounding of the share that is done, in units of the peak rate.
  assert found["learning_rate"] == pytest.approx(
    golden["learning_rate"][step], rel=0, abs=1e-7 * 1e-3
  )
  for after, prefix in ((1, "step2/"), (29, "final/")):
    if step == after:
      check_state(trainer, golden, prefix, zero_gradient)


def check_state(trainer, golden, prefix, zero_gradient):
  """Compares weights and slots with those of `golden` under `prefix`.

  Where the true gradient is zero the slots are rounding noise."""
  state = {**trainer.weights, **trainer.slots}
  for key in golden:
    name = key.removeprefix(prefix)
    if key == name or name == "global_step":
      continue
    is_noise = any(part in name for part in zero_gradient)
    if is_noise and name not in trainer.weights:
      continue
    error = np.abs(state[name].numpy() - golden[key]).max()
    scale = np.abs(golden[key]).max()
    # The reader's bias of two numbers is smaller than what noise moves it by.
    if is_noise:
      limit = NOISE_TOLERANCE * (1 if "cls/squad" in name else scale)
    else:
      limit = TOLERANCE * scale
    assert error <= limit, name


def test_trajectory_equals_upstream(testdata):
  check_trajectory(testdata / "training", "pretrain_warmup10")


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_trajectories_equal_upstream(goldens, name):
  check_trajectory(goldens / "training", name)


def test_a_classifiers_trajectory_equals_upstream(testdata, monkeypatch):
  check_classifier_trajectory(
    testdata / "training", "classifier_warmup10", monkeypatch
  )


def test_a_readers_trajectory_equals_upstream(testdata, monkeypatch):
  check_squad_trajectory(testdata / "training", monkeypatch)


def test_a_readers_slots_equal_upstream(goldens, monkeypatch):
  check_squad_trajectory(goldens / "training", monkeypatch)


@pytest.mark.parametrize("name", CLASSIFIER_RUNS)
def test_classifier_trajectories_equal_upstream(goldens, name, monkeypatch):
  check_classifier_trajectory(goldens / "training", name, monkeypatch)


def test_first_gradients_equal_upstream(testdata):
  folder = testdata / "training"
  model = modeling.BertPretrainer(golden_config(folder))
  trainer, iterator = golden_trainer(folder, model, 10)
  golden = np.load(folder / "pretrain_warmup10_grads0.npz")
  batch = {name: values[0] for name, values in next(iterator).items()}
  weights = trainer.model.loss_weights(batch)
  gradients, _, _ = trainer._micro_gradients(
    batch, weights, tf.zeros([2], tf.int64)
  )
  for name, gradient in zip(trainer.trainable, gradients, strict=True):
    if ZERO_GRADIENT[0] not in name:
      error = np.abs(gradient.numpy() - golden[name]).max()
      assert error <= TOLERANCE * np.abs(golden[name]).max(), name
