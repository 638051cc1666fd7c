"""The loop: same numbers however split, seekable, any number of examples."""

import csv
import functools
import glob
import resource
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf

import modeling
from bert_keras3.data import features
from bert_keras3.data import order as order_module
from bert_keras3.data import sources
from bert_keras3.training import configs
from bert_keras3.training import devices
from bert_keras3.training import evaluation
from bert_keras3.training import loop
from bert_keras3.training import loss_scale
from bert_keras3.training import nan_policy
from bert_keras3.training import signals
from bert_keras3.weights import checkpoints

# Sums over other groupings round differently; weights are of the order of 1.
TOLERANCE = 1e-6
# Its true gradient is 0. Adam divides the rounding noise that is left by its
# own size, so this variable walks at random, at the learning rate's pace.
ZERO_GRADIENT = "attention/self/key/bias"
STEPS = 10


class ArraySource:
  """Examples in memory, all of one length: a sources.Source."""

  lengths = None
  bucket_lengths = ()
  block_size = 1 << 14

  def __init__(self, arrays):
    self.arrays = arrays
    self.specs = features.specs_of(arrays)

  def __len__(self):
    return len(self.arrays["input_ids"])

  def take(self, numbers, step):
    return {name: values[numbers] for name, values in self.arrays.items()}

  def locate(self, number):
    return sources.Location(None, number)


@pytest.fixture(scope="module")
def folder(testdata):
  return testdata / "training"


@pytest.fixture(scope="module")
def source(folder):
  """The forty examples of upstream's training goldens."""
  arrays = np.load(folder / "batches.npz")
  names = [
    "input_ids",
    "input_mask",
    "segment_ids",
    "masked_lm_positions",
    "masked_lm_ids",
    "masked_lm_weights",
    "next_sentence_labels",
  ]
  return ArraySource({name: arrays[name].reshape(40, -1) for name in names})


def make_trainer(
  folder, replicas=1, dropout=0.0, precision="float32", jit=False, **config
):
  strategy = devices.make_strategy(
    configs.DeviceConfig(
      distribution_strategy="mirrored" if replicas > 1 else "one_device",
      num_devices=replicas,
    )
  )
  bert_config = modeling.BertConfig.from_json_file(
    str(folder / "bert_config.json")
  )
  bert_config.hidden_dropout_prob = dropout
  bert_config.attention_probs_dropout_prob = dropout
  with strategy.scope():
    model = modeling.BertPretrainer(
      bert_config, dtype=configs.DeviceConfig(mixed_precision=precision).policy
    )
  initial = np.load(folder / "init.npz")
  for name, variable in modeling.named_variables(model).items():
    variable.assign(initial[name])
  defaults = {
    "output_dir": "",
    "learning_rate": 1e-3,
    "num_train_steps": STEPS,
    "num_warmup_steps": 3,
    "train_batch_size": 8,
    "save_checkpoints_steps": 1000,
  }
  return loop.Trainer(
    strategy,
    model,
    configs.TrainingConfig(**{**defaults, **config}),
    jit_compile=jit,
  )


def train(folder, source, tmp_path, **options):
  trainer = make_trainer(folder, output_dir=str(tmp_path), **options)
  trainer.fit(source)
  return trainer


@pytest.fixture(scope="module")
def reference(folder, source, tmp_path_factory):
  """Ten steps on one device, in one piece, without dropout."""
  return train(folder, source, tmp_path_factory.mktemp("reference"))


def assert_same_weights(actual, expected, tolerance=TOLERANCE):
  for name, variable in expected.weights.items():
    if ZERO_GRADIENT not in name:
      error = np.abs(actual.weights[name].numpy() - variable.numpy()).max()
      assert error <= tolerance, name


def assert_bitwise(actual, expected):
  for name, variable in expected.state.items():
    np.testing.assert_array_equal(
      actual.state[name].numpy(), variable.numpy(), err_msg=name
    )


# However split


@pytest.mark.parametrize(
  "options",
  [
    {"replicas": 2},
    {"replicas": 4},
    {"gradient_accumulation_steps": 4},
    {"replicas": 2, "gradient_accumulation_steps": 2},
    {"jit": True},
    {"jit": True, "replicas": 2},
  ],
  ids=str,
)
def test_the_split_changes_nothing(
  folder, source, tmp_path, reference, options
):
  trainer = train(folder, source, tmp_path, **options)
  assert_same_weights(trainer, reference)
  # Something was learnt that could have differed.
  initial = np.load(folder / "init.npz")["bert/embeddings/word_embeddings"]
  words = trainer.weights["bert/embeddings/word_embeddings"].numpy()
  assert np.abs(words - initial).max() > 1e-3


def test_masked_tokens_weigh_the_same_in_every_micro_batch(folder, tmp_path):
  """One half without any mask: a mean of means would be off by a factor 2."""
  arrays = np.load(folder / "batches.npz")
  batch = {name: arrays[name][0] for name in arrays if arrays[name].ndim == 3}
  batch["masked_lm_weights"] = np.array(batch["masked_lm_weights"])
  batch["masked_lm_weights"][:4] = 0
  source = ArraySource(batch)
  whole = train(folder, source, tmp_path)
  for options in ({"gradient_accumulation_steps": 2}, {"replicas": 2}):
    assert_same_weights(train(folder, source, tmp_path, **options), whole)


def test_steps_per_call_change_nothing(folder, source, tmp_path, reference):
  trainer = train(folder, source, tmp_path, iterations_per_loop=3)
  assert_bitwise(trainer, reference)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_the_same(
  folder, source, tmp_path, reference, precision
):
  trainer = train(folder, source, tmp_path, precision=precision)
  # Ten updates of at most 1e-3 each.
  assert_same_weights(trainer, reference, tolerance=1e-2)
  names = list(trainer.slots)
  assert all(trainer.slots[name].dtype == "float32" for name in names)


def test_a_batch_that_cannot_be_split_is_refused(folder):
  with pytest.raises(ValueError, match="use a multiple of 6"):
    make_trainer(folder, replicas=2, gradient_accumulation_steps=3)


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_infinite_gradient_never_reaches_a_checkpoint(
  folder, source, tmp_path, monkeypatch, replicas
):
  """Its step's loss is still finite, and a checkpoint is due right after."""
  trainer = make_trainer(
    folder, replicas, output_dir=str(tmp_path), save_checkpoints_steps=1
  )

  def is_step_2(batch, dropout_seed):
    return dropout_seed[1] == 2

  overflow(trainer, monkeypatch, is_step_2)
  with pytest.raises(ValueError, match="step 3: the loss is 6.* norm nan; its"):
    trainer.fit(source)
  newest = checkpoints.latest(str(tmp_path))
  assert newest.endswith("model.ckpt-2")
  reader = tf.train.load_checkpoint(newest)
  for name in trainer.weights:
    assert np.isfinite(reader.get_tensor(name)).all(), name


def overflow(trainer, monkeypatch, is_bad):
  """Makes gradients infinite where `is_bad(batch, dropout_seed)`."""
  compute = trainer.train_step.gradients

  def compute_and_overflow(batch, denominators, dropout_seed):
    sums = compute(batch, denominators, dropout_seed)
    factor = tf.where(is_bad(batch, dropout_seed), np.float32(np.inf), 1.0)
    return sums._replace(gradients=[x * factor for x in sums.gradients])

  monkeypatch.setattr(trainer.train_step, "gradients", compute_and_overflow)


# Randomness


def test_replicas_steps_and_micro_steps_draw_different_masks(folder):
  trainer = make_trainer(
    folder, replicas=4, gradient_accumulation_steps=2, seed=7
  )

  def draw(step, micro_step):
    seed = trainer.train_step.dropout_seed(
      tf.constant(step, tf.int64), tf.constant(micro_step)
    )
    mask = modeling.dropout(tf.ones([32]), 0.5, seed, site=0)
    return seed, mask

  seeds, masks = set(), set()
  for step in range(3):
    for micro_step in range(2):
      run = tf.function(functools.partial(draw, step, micro_step))
      for results, found in zip(
        trainer.strategy.run(run), (seeds, masks), strict=True
      ):
        local = trainer.strategy.experimental_local_results(results)
        found.update(tuple(x.numpy()) for x in local)
  assert len(seeds) == len(masks) == 4 * 3 * 2


def test_dropout_repeats_with_the_seed(folder, source, tmp_path):
  options = {"dropout": 0.1, "train_batch_size": 4}
  first, again = (
    train(folder, source, tmp_path, seed=1, **options) for _ in range(2)
  )
  other = train(folder, source, tmp_path, seed=2, **options)
  assert_bitwise(first, again)
  name = "bert/embeddings/word_embeddings"
  assert (first.weights[name].numpy() != other.weights[name].numpy()).any()


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_continues_bitwise_from_its_checkpoint(
  folder, source, tmp_path, replicas
):
  """With dropout and accumulation; step 6 is not at an epoch's end."""
  options = {
    "dropout": 0.1,
    "replicas": replicas,
    "gradient_accumulation_steps": 2,
    "save_checkpoints_steps": 6,
  }
  whole = train(folder, source, tmp_path, **options)
  resumed = make_trainer(folder, output_dir=str(tmp_path), **options)
  assert resumed.resume(str(tmp_path / "model.ckpt-6")) == 6
  resumed.fit(source)
  assert_bitwise(resumed, whole)


def test_nothing_to_resume_is_step_zero(folder, tmp_path):
  assert make_trainer(folder, output_dir=str(tmp_path)).resume() == 0


def test_a_finished_trainer_does_nothing(folder, source, reference):
  before = {k: v.numpy() for k, v in reference.weights.items()}
  reference.fit(source)
  for name, value in before.items():
    np.testing.assert_array_equal(reference.weights[name], value)


# float16's loss scale


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_scale_leaves_the_gradient_norm_alone(folder, source, replicas):
  norms = []
  for precision in ("float32", "float16"):
    trainer = make_trainer(folder, replicas=replicas, precision=precision)
    batch = source.take(np.arange(8), step=0)
    iterator = iter(
      devices.distribute_batches(
        trainer.strategy,
        lambda batch=batch: iter([batch] * 3),
        source.specs,
        batch_size=8,
        num_micro_batches=1,
      )
    )
    norms.append(trainer.train_steps(iterator, 1).gradient_norm)
  # float16 has 11 bits; sums of hundreds of products.
  assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_an_overflow_skips_the_update_and_halves_the_scale(
  folder, source, tmp_path
):
  trainer = make_trainer(folder, precision="float16")
  trainer.loss_scale.restore({"scale": 2.0**60, "good_steps": 5.0})
  before = {k: v.numpy() for k, v in trainer.state.items()}
  batch = source.take(np.arange(8), step=0)
  iterator = iter(
    devices.distribute_batches(
      trainer.strategy, lambda: iter([batch] * 5), source.specs, 8, 1
    )
  )
  trainer.train_steps(iterator, 2)
  assert trainer.step == 2
  assert trainer.loss_scale.state() == {"scale": 2.0**58, "good_steps": 0.0}
  for name, value in before.items():
    np.testing.assert_array_equal(trainer.state[name], value)


def test_the_scale_doubles_after_enough_good_steps(
  folder, source, tmp_path, monkeypatch
):
  monkeypatch.setattr(loss_scale, "STEPS_BEFORE_DOUBLING_SCALE", 4)
  trainer = train(folder, source, tmp_path, precision="float16")
  initial = loss_scale.INITIAL_LOSS_SCALE
  assert trainer.loss_scale.state() == {"scale": 4 * initial, "good_steps": 2.0}


def test_the_scale_survives_a_checkpoint(folder, tmp_path):
  options = {"precision": "float16", "output_dir": str(tmp_path)}
  trainer = make_trainer(folder, **options)
  trainer.loss_scale.restore({"scale": 64.0, "good_steps": 3.0})
  trainer.save()
  restored = make_trainer(folder, **options)
  restored.resume()
  assert restored.loss_scale.state() == {"scale": 64.0, "good_steps": 3.0}


# Log


def test_the_log_reports_means_of_each_interval(folder, source, tmp_path):
  trainer = make_trainer(
    folder, output_dir=str(tmp_path), log_every_steps=4, seed=3
  )
  trainer.fit(source, log_to=str(tmp_path))
  rows = list(csv.DictReader(open(tmp_path / "training_log.csv")))
  assert [int(row["step"]) for row in rows] == [4, 8, 10]
  single = make_trainer(folder, output_dir=str(tmp_path), seed=3)
  single_losses = losses_of_steps(single, source)
  for row, steps in zip(rows, np.split(single_losses, [4, 8]), strict=True):
    assert float(row["loss"]) == pytest.approx(steps.mean(), rel=1e-5)
    assert 0 <= float(row["masked_lm_accuracy"]) <= 1
  assert float(rows[-1]["learning_rate"]) == pytest.approx(1e-4, rel=1e-5)


def losses_of_steps(trainer, source):
  order = order_module.TrainingOrder(len(source), 8, trainer.config.seed)
  batches = [source.take(order.batch(step), step) for step in range(STEPS)]
  iterator = iter(
    devices.distribute_batches(
      trainer.strategy, lambda: iter(batches), source.specs, 8, 1
    )
  )
  return np.array(
    [trainer.train_steps(iterator, 1).sums.loss for _ in range(STEPS)]
  )


def test_a_resumed_log_drops_rows_it_will_write_again(folder, source, tmp_path):
  options = {
    "output_dir": str(tmp_path),
    "log_every_steps": 2,
    "save_checkpoints_steps": 6,
  }
  make_trainer(folder, **options).fit(source, log_to=str(tmp_path))
  resumed = make_trainer(folder, **options)
  resumed.resume(str(tmp_path / "model.ckpt-6"))
  resumed.fit(source, log_to=str(tmp_path))
  rows = list(csv.DictReader(open(tmp_path / "training_log.csv")))
  assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10]


def test_tensorboard_gets_scalars(folder, source, tmp_path):
  trainer = make_trainer(folder, output_dir=str(tmp_path), log_every_steps=5)
  trainer.fit(source, log_to=str(tmp_path))
  (path,) = glob.glob(str(tmp_path / "events.out.tfevents.*"))
  scalars = {
    (event.step, value.tag): value
    for event in tf.compat.v1.train.summary_iterator(path)
    for value in event.summary.value
  }
  loss = scalars[10, "loss"]
  assert loss.metadata.plugin_data.plugin_name == "scalars"
  assert float(tf.make_ndarray(loss.tensor)) > 0


def test_the_console_shows_one_line_a_report(folder, source, tmp_path, capsys):
  trainer = make_trainer(folder, output_dir=str(tmp_path), log_every_steps=5)
  trainer.fit(source, log_to=str(tmp_path))
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[1] for line in lines] == ["5/10", "10/10"]
  for word in ("loss", "masked_lm_accuracy", "examples_per_second", "eta"):
    assert word in lines[0]


# Evaluation and prediction


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 40, 64])
def test_any_batch_size_gives_the_same_metrics(
  folder, source, replicas, batch_size
):
  expected = evaluate(make_trainer(folder), source, batch_size=8)
  found = evaluate(make_trainer(folder, replicas), source, batch_size)
  for name in modeling.BertPretrainer.metric_names:
    assert found[name] == pytest.approx(expected[name], rel=1e-6), name


def evaluate(trainer, source, batch_size, **options):
  return evaluation.evaluate(
    trainer.strategy, trainer.model, source, batch_size, **options
  )


def test_the_loss_key_is_upstreams_mean_of_batch_means(folder, source):
  trainer = make_trainer(folder)
  found = evaluate(trainer, source, batch_size=16)
  losses = []
  for numbers in (range(16), range(16, 32), range(32, 40)):
    batch = source.take(np.array(numbers), step=0)
    outputs = trainer.model(batch)
    terms = trainer.model.terms(outputs, batch)
    losses.append(trainer.model.total_loss(terms))
  assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_evaluation_stops_after_max_batches(folder, source):
  trainer = make_trainer(folder)
  first = ArraySource(source.take(np.arange(16), step=0))
  assert evaluate(trainer, source, 8, max_batches=2) == evaluate(
    trainer, first, 8
  )


@pytest.mark.parametrize("replicas", [1, 4])
def test_predictions_come_in_order_for_every_example(folder, source, replicas):
  trainer = make_trainer(folder, replicas)
  expected = trainer.model(source.arrays)["next_sentence_logits"]
  step = evaluation.prediction_step(trainer.model)
  batches = [*evaluation.predict(trainer.strategy, step, source, 7)]
  assert [len(numbers) for numbers, _ in batches] == [7] * 5 + [5]
  assert np.concatenate([x for x, _ in batches]).tolist() == [*range(40)]
  found = [outputs["next_sentence_logits"] for _, outputs in batches]
  np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


# Strategies


def make(**config):
  return devices.make_strategy(configs.DeviceConfig(**config))


def test_auto_takes_one_device_without_gpus():
  assert isinstance(make(), tf.distribute.OneDeviceStrategy)


def test_auto_takes_the_number_asked_for():
  assert make(num_devices=3).num_replicas_in_sync == 3


def test_too_many_devices_are_refused():
  with pytest.raises(ValueError, match="--num_devices=9"):
    make(distribution_strategy="mirrored", num_devices=9)


def test_multi_worker_explains_its_environment(monkeypatch):
  monkeypatch.delenv("TF_CONFIG", raising=False)
  with pytest.raises(ValueError, match='TF_CONFIG.*"cluster"'):
    make(distribution_strategy="multi_worker")
  monkeypatch.setenv("TF_CONFIG", "{oops")
  with pytest.raises(ValueError, match='TF_CONFIG.*"cluster"'):
    make(distribution_strategy="multi_worker")


def test_tpu_flags_reach_the_resolver(monkeypatch):
  """No TPU is at hand: this only shows which calls would be made."""
  calls = {}

  def resolve(**kwargs):
    calls.update(kwargs)
    raise RuntimeError("no TPU here")

  monkeypatch.setattr(
    tf.distribute.cluster_resolver, "TPUClusterResolver", resolve
  )
  with pytest.raises(RuntimeError):
    make(
      distribution_strategy="tpu", tpu_name="t", tpu_zone="z", gcp_project="p"
    )
  assert calls == {"tpu": "t", "zone": "z", "project": "p"}


def test_xla_is_for_gpus_unless_asked():
  strategy = make()
  config = configs.DeviceConfig
  assert not devices.uses_xla(strategy, config(xla="auto"))
  assert devices.uses_xla(strategy, config(xla="true"))


# Numbers gone wrong


def break_step(trainer, source, monkeypatch, position):
  """Makes the gradients of one batch infinite, told by two of its examples."""
  order = trainer.order(source)
  first = [tuple(order.batch(i)[:2]) for i in range(STEPS + 1)]
  assert first.count(first[position]) == 1
  ids = tf.constant(source.arrays["input_ids"][list(first[position])])

  def is_marked(batch, dropout_seed):
    return tf.reduce_all(batch["input_ids"][:2] == ids)

  overflow(trainer, monkeypatch, is_marked)


def train_with_a_bad_batch(folder, source, directory, monkeypatch, **options):
  """Step 5's batch, the one at position 4, is bad."""
  trainer = make_trainer(
    folder, output_dir=str(directory), save_checkpoints_steps=2, **options
  )
  break_step(trainer, source, monkeypatch, 4)
  trainer.fit(source, log_to=str(directory))
  return trainer


def train_on(folder, source, directory, positions):
  """Takes the steps of batches at the given positions only."""
  trainer = make_trainer(folder, output_dir=str(directory))
  order = trainer.order(source)

  def batches():
    return (source.take(order.batch(x), x) for x in positions)

  return trainer, lambda: iter(
    devices.distribute_batches(trainer.strategy, batches, source.specs, 8, 1)
  )


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_bad_step_can_be_skipped(
  folder, source, tmp_path, monkeypatch, capsys, replicas
):
  """The others are taken at their own learning rates."""
  trainer = train_with_a_bad_batch(
    folder, source, tmp_path, monkeypatch, on_nan="skip", replicas=replicas
  )
  assert trainer.step == STEPS
  error = capsys.readouterr().err
  assert "skipped step 5: the loss is 6." in error
  order = trainer.order(source).batch(4)
  shown = ", ".join(map(str, sorted(order)))
  assert f"its batch: examples {shown}" in error
  expected, make_iterator = train_on(folder, source, tmp_path, range(STEPS))
  iterator = make_iterator()
  for step in range(STEPS):
    before = {k: v.numpy() for k, v in expected.state.items()}
    expected.train_steps(iterator, 1)
    if step == 4:
      for name, variable in expected.state.items():
        variable.assign(before[name])
  assert_same_weights(trainer, expected)
  with open(tmp_path / "training_log.csv", newline="") as file:
    (row,) = csv.DictReader(file)
  assert np.isfinite(float(row["loss"]))


def test_an_infinite_loss_is_skipped_though_its_gradient_is_finite(
  folder, source, tmp_path, monkeypatch
):
  trainer = make_trainer(folder, output_dir=str(tmp_path), on_nan="skip")
  compute = trainer.train_step.gradients

  def infinite_loss(batch, denominators, dropout_seed):
    sums = compute(batch, denominators, dropout_seed)
    return sums._replace(loss=sums.loss + np.float32(np.inf))

  monkeypatch.setattr(trainer.train_step, "gradients", infinite_loss)
  before = {name: x.numpy() for name, x in trainer.state.items()}
  iterator = iter(trainer.batches(source, devices.Failure()))
  assert not trainer.train_steps(iterator, 1).is_finite
  for name, variable in trainer.state.items():
    np.testing.assert_array_equal(variable, before[name], err_msg=name)


def test_a_signal_in_the_last_step_counts(folder, source, tmp_path):
  """What would come after training, for hours maybe, should not begin."""
  trainer = make_trainer(folder, output_dir=str(tmp_path))
  steps = trainer.train_steps

  def take_and_ask(*args):
    statistics = steps(*args)
    if trainer.step == STEPS:
      trainer.requests.ask_to_stop("SIGTERM")
    return statistics

  trainer.train_steps = take_and_ask
  with pytest.raises(signals.Interrupted, match="SIGTERM at step 10"):
    trainer.fit(source)
  assert make_trainer(folder, output_dir=str(tmp_path)).resume() == STEPS


def test_a_signal_while_the_last_checkpoint_is_written_counts(
  folder, source, tmp_path
):
  trainer = make_trainer(folder, output_dir=str(tmp_path))
  save = trainer.save

  def save_and_ask():
    save()
    trainer.requests.ask_to_stop("SIGTERM")

  trainer.save = save_and_ask
  with pytest.raises(signals.Interrupted, match="SIGTERM at step 10"):
    trainer.fit(source)


def test_workers_at_different_steps_do_not_go_on(
  folder, source, tmp_path, monkeypatch
):
  trainer = make_trainer(folder, output_dir=str(tmp_path))
  monkeypatch.setattr(devices, "has_other_workers", lambda strategy: True)
  trainer.agreement.check_step(0)
  trainer.agreement.check_step(3)
  monkeypatch.setattr(trainer.agreement, "sum", lambda step: step + 2.0)
  trainer.step = 3
  with pytest.raises(ValueError, match="continues at step 3, another one else"):
    trainer.fit(source)


def test_a_request_survives_a_closed_stderr(folder, tmp_path, monkeypatch):
  class Closed:
    def write(self, text):
      raise BrokenPipeError

  trainer = make_trainer(folder, output_dir=str(tmp_path))
  monkeypatch.setattr(sys, "stderr", Closed())
  trainer.requests.ask_to_stop("SIGINT")
  assert trainer.requests.take() == (True, "SIGINT")


def test_rolling_back_passes_over_the_batches_since_the_checkpoint(
  folder, source, tmp_path, monkeypatch, capsys
):
  """From step 4 on with the batches at 5, 6 and so on."""
  trainer = train_with_a_bad_batch(
    folder, source, tmp_path, monkeypatch, on_nan="rollback"
  )
  assert (trainer.step, trainer.data_offset) == (STEPS, 1)
  assert "rolled back to step 4 after step 5: the" in capsys.readouterr().err
  positions = [0, 1, 2, 3, *range(5, STEPS + 1)]
  expected, make_iterator = train_on(folder, source, tmp_path, positions)
  expected.train_steps(make_iterator(), STEPS)
  assert_bitwise(trainer, expected)
  again = make_trainer(folder, output_dir=str(tmp_path))
  assert (again.resume(), again.data_offset) == (STEPS, 1)


def test_rolling_back_needs_a_checkpoint(folder, source, tmp_path, monkeypatch):
  trainer = make_trainer(folder, output_dir=str(tmp_path), on_nan="rollback")
  break_step(trainer, source, monkeypatch, 0)
  with pytest.raises(ValueError, match="no checkpoint yet to roll back to"):
    trainer.fit(source)


def overflow_from(trainer, monkeypatch, first_step):
  """Makes the gradients of all batches infinite, from a position on."""
  overflow(trainer, monkeypatch, lambda batch, seed: seed[1] >= first_step)


def test_rolling_back_for_ever_is_given_up(
  folder, source, tmp_path, monkeypatch
):
  trainer = make_trainer(
    folder,
    output_dir=str(tmp_path),
    on_nan="rollback",
    save_checkpoints_steps=2,
  )
  overflow_from(trainer, monkeypatch, 3)
  with pytest.raises(ValueError, match="rolled back 5 times in a row"):
    trainer.fit(source)


def test_skipping_for_ever_is_given_up(folder, source, tmp_path, monkeypatch):
  """And steps that none of its report counted have no loss."""
  trainer = make_trainer(
    folder, output_dir=str(tmp_path), on_nan="skip", log_every_steps=4
  )
  overflow_from(trainer, monkeypatch, 2)
  monkeypatch.setattr(nan_policy, "MAX_SKIPPED_STEPS", 6)
  with pytest.raises(
    ValueError, match="^step 9: .* 6 steps before it were skipped in a row"
  ):
    trainer.fit(source, log_to=str(tmp_path))
  with open(tmp_path / "training_log.csv", newline="") as file:
    losses = [float(row["loss"]) for row in csv.DictReader(file)]
  assert [np.isfinite(loss) for loss in losses] == [True, False]


def test_skipped_steps_that_are_apart_are_not_counted_together(
  folder, source, tmp_path, monkeypatch
):
  trainer = make_trainer(
    folder, output_dir=str(tmp_path), on_nan="skip", log_every_steps=3
  )
  for position in (1, 3, 4, 7):
    break_step(trainer, source, monkeypatch, position)
  monkeypatch.setattr(nan_policy, "MAX_SKIPPED_STEPS", 2)
  trainer.fit(source)
  assert trainer.step == STEPS


def test_a_signal_is_heard_among_skipped_steps(
  folder, source, tmp_path, monkeypatch
):
  trainer = make_trainer(folder, output_dir=str(tmp_path), on_nan="skip")
  overflow_from(trainer, monkeypatch, 2)
  handle = trainer.nan_policy.handle

  def handle_and_ask(*args):
    trainer.requests.ask_to_stop("SIGTERM")
    return handle(*args)

  trainer.nan_policy.handle = handle_and_ask
  with pytest.raises(signals.Interrupted, match="SIGTERM at step 3 "):
    trainer.fit(source)


@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_gradients_that_no_scale_cures_are_told(
  folder, source, tmp_path, monkeypatch, scale
):
  """Overflows of float16 are skipped while a smaller scale may help."""
  trainer = make_trainer(folder, output_dir=str(tmp_path), precision="float16")
  trainer.loss_scale.restore({"scale": scale})
  overflow_from(trainer, monkeypatch, 3)
  iterator = iter(trainer.batches(source, devices.Failure()))
  statistics = trainer.train_steps(iterator, 9)
  assert not statistics.is_finite
  # 4 and 2 shrink.
  assert trainer.step == (4 if scale == 1.0 else 6)
  assert trainer.loss_scale.state()["scale"] == 1.0


# Requests


def test_pauses_change_nothing(folder, source, tmp_path, reference):
  """A request at every step: ten pauses, ten checkpoints."""
  trainer = make_trainer(
    folder, output_dir=str(tmp_path), keep_checkpoint_max=0
  )
  take = trainer.requests.take

  def take_and_ask(*args):
    answer = take(*args)
    trainer.requests.ask_to_save()
    return answer

  trainer.requests.ask_to_save()
  trainer.requests.take = take_and_ask
  trainer.fit(source, log_to=str(tmp_path))
  assert_bitwise(trainer, reference)
  assert len(glob.glob(f"{tmp_path}/*.index")) == STEPS


def test_several_workers_answer_requests_where_all_are_at_the_same_step(
  folder, tmp_path, monkeypatch
):
  """And a signal to one is one to all."""
  trainer = make_trainer(folder, output_dir=str(tmp_path))
  monkeypatch.setattr(devices, "has_other_workers", lambda strategy: True)
  trainer.requests.ask_to_save()
  assert trainer.requests.take(is_at_boundary=False) == (False, None)
  assert trainer.requests.take(is_at_boundary=True) == (True, None)
  assert trainer.requests.take(is_at_boundary=True) == (False, None)
  trainer.requests.ask_to_stop("SIGTERM")
  assert trainer.requests.take(is_at_boundary=True) == (True, "SIGTERM")
  trainer.requests.stop_signal = None
  monkeypatch.setattr(trainer.agreement, "sum", lambda value: 1.0)
  said = (True, "a signal to another worker")
  assert trainer.requests.take(is_at_boundary=True) == said


def test_time_asks_for_checkpoints(folder, source, tmp_path):
  """Often enough that there is one between steps that save anyway."""
  trainer = make_trainer(
    folder,
    output_dir=str(tmp_path),
    save_checkpoints_secs=1e-3,
    keep_checkpoint_max=0,
  )
  trainer.fit(source)
  assert len(glob.glob(f"{tmp_path}/*.index")) > 1


def test_a_disk_that_is_full_leaves_the_earlier_checkpoints(
  folder, source, tmp_path
):
  """The limit on the size of files stands for it."""
  trainer = make_trainer(
    folder, output_dir=str(tmp_path), save_checkpoints_steps=5
  )
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  save = trainer.save

  def save_with_less_room():
    if trainer.step == 10:
      resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    save()

  trainer.save = save_with_less_room
  try:
    with pytest.raises(
      OSError, match="model.ckpt-10 could not be .* make room"
    ):
      trainer.fit(source)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)
  assert make_trainer(folder, output_dir=str(tmp_path)).resume() == 5
  assert not glob.glob(f"{tmp_path}/*ckpt-10*")
