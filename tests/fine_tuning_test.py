"""Training on mixed lengths, frozen parts, and a Monitor that keeps the best.

The initial weights are those of upstream's training goldens; one of the two
layers is left out where it would only take time.
"""

import csv
import os

import numpy as np
import pytest
import tensorflow as tf

import modeling
import optimization
from bert_keras3.data import order as order_module
from bert_keras3.data import sequences
from bert_keras3.training import devices
from bert_keras3.training import evaluation
from bert_keras3.training import log
from bert_keras3.training import loop
from bert_keras3.training import monitor as monitor_module
from bert_keras3.weights import checkpoints

# Sums over other groupings round differently; weights are of the order of 1.
TOLERANCE = 1e-6
# Its true gradient is 0. Adam divides the rounding noise that is left by its
# own size, so this variable walks at random, at the learning rate's pace.
ZERO_GRADIENT = "attention/self/key/bias"
STEPS = 10
NUM_EXAMPLES = 60  # seven batches and a half an epoch
LONGEST = 40
BUCKETS = (8, 16, 24, 32, LONGEST)


@pytest.fixture(scope="module")
def folder(testdata):
  return testdata / "training"


@pytest.fixture(scope="module", autouse=True)
def _no_dropout():
  """Masks differ by replica; tests with dropout turn it on again."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(modeling, "CLASSIFIER_DROPOUT_PROB", 0.0)
    yield


def make_source(buckets=BUCKETS):
  """Sixty sequences of 3 to 40 tokens; the first word decides the label."""
  rng = np.random.default_rng(0)
  packed, labels = [], []
  for length in rng.integers(3, LONGEST + 1, NUM_EXAMPLES):
    ids = [101, *rng.integers(1, 300, length - 1).tolist()]
    packed.append((ids, int(rng.integers(2, length + 1))))
    labels.append(ids[1] % 3)
  return sequences.SequenceSource(
    sequences.Sequences(packed),
    {"label_ids": np.array(labels, np.int32)},
    buckets,
  )


def make_model(folder, dropout=0.0, num_layers=1, **options):
  config = modeling.BertConfig.from_json_file(str(folder / "bert_config.json"))
  config.num_hidden_layers = num_layers
  config.hidden_dropout_prob = dropout
  config.attention_probs_dropout_prob = dropout
  model = modeling.BertClassifier(config, num_labels=3, **options)
  initial = np.load(folder / "init.npz")
  for name, variable in modeling.named_variables(model).items():
    variable.assign(initial[name])
  return model


def make_trainer(folder, replicas=1, model=None, monitor=None, **config):
  """A Trainer of `model`, a dict of what `make_model` takes."""
  strategy = devices.make_strategy(
    devices.DeviceConfig(
      distribution_strategy="mirrored" if replicas > 1 else "one_device",
      num_devices=replicas,
    )
  )
  model = dict(model or {})
  freeze, jit = model.pop("freeze", ""), model.pop("jit", False)
  with strategy.scope():
    network = make_model(folder, **model)
  modeling.freeze_layers(network, freeze)
  defaults = {
    "output_dir": "",
    "schedule": optimization.LearningRateSchedule(1e-3, STEPS, 3),
    "train_batch_size": 8,
  }
  return loop.Trainer(
    strategy,
    network,
    loop.TrainingConfig(**{**defaults, **config}),
    jit_compile=jit,
    monitor=monitor,
  )


def train(folder, directory, source=None, **options):
  trainer = make_trainer(folder, output_dir=str(directory), **options)
  trainer.fit(source or make_source())
  return trainer


def numpy_weights(trainer):
  return {name: value.numpy() for name, value in trainer.weights.items()}


def assert_same_weights(actual, expected):
  for name, variable in expected.weights.items():
    if ZERO_GRADIENT not in name:
      error = np.abs(actual.weights[name].numpy() - variable.numpy()).max()
      assert error <= TOLERANCE, name


def assert_bitwise(actual, expected):
  """Compares two dicts of variables or arrays."""
  assert actual.keys() == expected.keys()
  for name in expected:
    np.testing.assert_array_equal(
      np.asarray(actual[name]), np.asarray(expected[name]), err_msg=name
    )


# Mixed lengths


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory):
  """Ten steps on one device, in one piece, without dropout."""
  return train(folder, tmp_path_factory.mktemp("reference"))


def test_the_reference_saw_many_lengths_and_learnt(folder, reference):
  source = make_source()
  order = order_module.training_order(source, 8, reference.config.seed)
  shapes = {
    source.take(order.batch(step), step)["input_ids"].shape
    for step in range(STEPS)
  }
  assert len(shapes) >= 4
  initial = np.load(folder / "init.npz")
  for name, values in numpy_weights(reference).items():
    if ZERO_GRADIENT not in name:
      assert np.abs(values - initial[name]).max() > 1e-3, name


def test_lengths_do_not_retrace_the_step(reference):
  assert reference._train_steps.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
  "options",
  [
    {"replicas": 2},
    {"replicas": 4},
    {"gradient_accumulation_steps": 4},
    pytest.param({"model": {"jit": True}}, marks=pytest.mark.slow),
    pytest.param(
      {"model": {"jit": True}, "replicas": 2}, marks=pytest.mark.slow
    ),
  ],
  ids=str,
)
def test_the_split_changes_nothing(folder, tmp_path, reference, options):
  assert_same_weights(train(folder, tmp_path, **options), reference)


def test_buckets_change_nothing(folder, tmp_path, reference):
  """The same batches, all of them padded to the same length."""
  source = make_source((LONGEST,))
  source.specs = make_source().specs
  assert source.take(np.array([0]), step=0)["input_ids"].shape == (1, LONGEST)
  assert_same_weights(train(folder, tmp_path, source), reference)


def test_class_weights_add_up_over_the_global_batch(folder, tmp_path):
  """Parts with rare labels weigh more: a mean of means would be wrong."""
  model = {"class_weights": [1, 10, 0.1]}
  whole = train(folder, tmp_path, model=model)
  options = {"replicas": 2, "gradient_accumulation_steps": 2}
  assert_same_weights(train(folder, tmp_path, model=model, **options), whole)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_continues_bitwise_within_an_epoch(
  folder, tmp_path, monkeypatch, replicas
):
  """With dropout and accumulation; epochs end in steps 8 and 15."""
  monkeypatch.setattr(modeling, "CLASSIFIER_DROPOUT_PROB", 0.1)
  options = {
    "replicas": replicas,
    "model": {"dropout": 0.1},
    "gradient_accumulation_steps": 2,
    "save_checkpoints_steps": 5,
  }
  whole = train(folder, tmp_path, **options)
  resumed = make_trainer(folder, output_dir=str(tmp_path), **options)
  assert resumed.resume(str(tmp_path / "model.ckpt-5")) == 5
  resumed.fit(make_source())
  assert_bitwise(resumed._state(), whole._state())


@pytest.fixture(scope="module")
def single_logits(folder):
  """Logits of every example, called alone and without padding."""
  model, source = make_model(folder), make_source()
  batches = [
    source.sequences.pad([number], length)
    for number, length in enumerate(source.lengths)
  ]
  return np.concatenate([model(batch)["logits"] for batch in batches])


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_example_is_predicted_once(
  folder, single_logits, replicas, batch_size
):
  source = make_source()
  trainer = make_trainer(folder, replicas)
  step = evaluation.prediction_step(trainer.model)
  found = np.full([NUM_EXAMPLES, 3], np.nan, np.float32)
  sizes, lengths = [], []
  for numbers, outputs in evaluation.predict(
    trainer.strategy, step, source, batch_size
  ):
    assert outputs["logits"].shape == (len(numbers), 3)
    assert np.isnan(found[numbers]).all()
    found[numbers] = outputs["logits"]
    sizes.append(len(numbers))
    lengths += source.lengths[numbers].tolist()
  full, rest = divmod(NUM_EXAMPLES, batch_size)
  assert sizes == [batch_size] * full + [rest] * (rest > 0)
  assert lengths == sorted(lengths)
  # Rounding of logits of the order of 1; NaN where an example is missing.
  np.testing.assert_allclose(found, single_logits, rtol=0, atol=1e-5)


def test_a_prediction_step_is_traced_twice_at_most(folder):
  """Over five lengths, two passes and two batch sizes' last batches."""
  trainer = make_trainer(folder)
  step = evaluation.prediction_step(trainer.model)
  for _ in range(2):
    assert len([*evaluation.predict(trainer.strategy, step, make_source(), 4)])
  assert step.experimental_get_tracing_count() <= 2


# Frozen parts, and the rates of the others


TWO_LAYERS = {"num_layers": 2}


def train_one_step(folder, directory, model=TWO_LAYERS, **options):
  """One update at the peak rate, gradients not clipped."""
  return train(
    folder,
    directory,
    schedule=optimization.LearningRateSchedule(1e-3, 1),
    clip_norm=1e9,
    model=model,
    **options,
  )


@pytest.fixture(scope="module")
def one_step(folder, tmp_path_factory):
  """Weights after one step with nothing frozen and one rate for all."""
  trainer = train_one_step(folder, tmp_path_factory.mktemp("one_step"))
  return numpy_weights(trainer)


@pytest.mark.parametrize(
  ("freeze", "scopes"),
  [
    ("embeddings,0-1", ("bert/embeddings/", "bert/encoder/")),
    ("pooler", ("bert/pooler/",)),
  ],
)
def test_frozen_parts_stay_as_they_are(folder, tmp_path, freeze, scopes):
  """Through a checkpoint in the middle, too."""
  options = {
    "model": {**TWO_LAYERS, "freeze": freeze},
    "save_checkpoints_steps": 5,
  }
  trainer = train(folder, tmp_path, **options)
  initial = np.load(folder / "init.npz")
  for name, values in numpy_weights(trainer).items():
    is_frozen = name.startswith(scopes)
    if is_frozen or ZERO_GRADIENT not in name:
      assert (values == initial[name]).all() == is_frozen, name
    for slot in ("adam_m", "adam_v"):
      assert (f"{name}/{slot}" in trainer.slots) != is_frozen, name
  assert len(trainer.slots) == 2 * len(trainer.trainable)
  resumed = make_trainer(folder, output_dir=str(tmp_path), **options)
  assert resumed.resume(str(tmp_path / "model.ckpt-5")) == 5
  resumed.fit(make_source())
  assert_bitwise(resumed._state(), trainer._state())


def test_what_is_not_frozen_learns_as_before(folder, tmp_path, one_step):
  model = {**TWO_LAYERS, "freeze": "embeddings,1"}
  trainer = train_one_step(folder, tmp_path, model)
  for name in trainer.trainable:
    if ZERO_GRADIENT not in name:
      error = np.abs(trainer.weights[name].numpy() - one_step[name]).max()
      assert error <= TOLERANCE, name


def test_lower_layers_take_smaller_steps(folder, tmp_path, one_step):
  """Powers of two: exact but for rounding of weights of the order of 1."""
  initial = np.load(folder / "init.npz")
  decayed = numpy_weights(
    train_one_step(folder, tmp_path, layerwise_lr_decay=0.5)
  )
  factors = {
    "bert/embeddings/word_embeddings": 0.125,
    "bert/encoder/layer_0/output/dense/kernel": 0.25,
    "bert/encoder/layer_1/attention/self/value/bias": 0.5,
    "bert/pooler/dense/kernel": 1.0,
    "output_weights": 1.0,
  }
  for name, factor in factors.items():
    expected = factor * (one_step[name] - initial[name])
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(
      decayed[name] - initial[name], expected, rtol=0, atol=5e-7, err_msg=name
    )


def test_bias_correction_reaches_the_optimizer(folder, tmp_path, one_step):
  """The first step in units of the rate, for a variable without decay."""
  corrected = numpy_weights(
    train_one_step(folder, tmp_path, adam_bias_correction=True)
  )
  initial = np.load(folder / "init.npz")["output_bias"]
  for weights, expected in ((one_step, 0.1 / 0.001**0.5), (corrected, 1.0)):
    moved = np.abs(weights["output_bias"] - initial)
    # Adam's epsilon of 1e-6 beside gradients of 1e-2 and more.
    np.testing.assert_allclose(moved, expected * 1e-3, rtol=2e-4)


# A Monitor's decisions


def check_all(values, patience=0):
  """Lets a Monitor see values at steps 1, 2, ...

  Returns:
    (monitor, for each value whether it was the best so far, for each whether
    training should have stopped after it).
  """
  stream = iter(values)
  monitor = monitor_module.Monitor(
    lambda: {"loss": 0.0, "f1": next(stream)}, "f1", patience
  )
  are_best, are_last = [], []
  for step, value in enumerate(values, 1):
    results, is_best = monitor.check(step)
    np.testing.assert_equal(results, {"loss": 0.0, "f1": value})
    are_best.append(is_best)
    are_last.append(monitor.is_out_of_patience)
  return monitor, are_best, are_last


NAN = float("nan")


@pytest.mark.parametrize(
  ("values", "expected", "best_step"),
  [
    ([0.5, 0.6, 0.6, 0.5, 0.7], [True, True, False, False, True], 5),
    ([0.0, 0.0], [True, False], 1),
    ([-2.0, -3.0, -1.0], [True, False, True], 3),
    ([0.5, NAN, 0.4], [True, False, False], 1),
    ([NAN, -0.1, NAN, 0.2], [False, True, False, True], 4),
    ([NAN], [False], 0),
  ],
)
def test_only_what_is_strictly_better_is_best(values, expected, best_step):
  monitor, are_best, _ = check_all(values)
  assert are_best == expected
  assert monitor.best_step == best_step


@pytest.mark.parametrize(
  ("patience", "expected"),
  [
    (0, [False] * 7),
    (1, [False, True, False, True, True, True, False]),
    (2, [False, False, False, False, True, True, False]),
    (3, [False, False, False, False, False, True, False]),
    (4, [False] * 7),
  ],
)
def test_patience_counts_evaluations_without_a_better_one(patience, expected):
  values = [0.5, 0.4, 0.6, 0.6, 0.5, 0.6, 0.7]
  assert check_all(values, patience)[2] == expected


def test_a_monitor_goes_on_from_its_state():
  monitor, _, _ = check_all([0.5, 0.4], patience=2)
  other = monitor_module.Monitor(lambda: {"f1": 0.5}, "f1", patience=2)
  other.restore(monitor.state())
  assert not other.is_out_of_patience
  assert other.check(3) == ({"f1": 0.5}, False)
  assert other.is_out_of_patience
  assert other.best_step == 1
  # Neither shares what the other goes on to count.
  assert not monitor.is_out_of_patience


# Monitored runs


def make_monitored(folder, directory, metric_at, patience=0, **options):
  """A Trainer whose metric is looked up by step; one that is missing is a kill.

  Its `seen` has the weights of every evaluation, by step.
  """

  def evaluate():
    if trainer.step not in metric_at:
      raise KeyboardInterrupt
    trainer.seen[trainer.step] = numpy_weights(trainer)
    return {"f1": metric_at[trainer.step], "loss": float(trainer.step)}

  trainer = make_trainer(
    folder,
    monitor=monitor_module.Monitor(evaluate, "f1", patience),
    output_dir=str(directory),
    **{"eval_steps": 2, "save_checkpoints_steps": 4, **options},
  )
  trainer.seen = {}
  return trainer


def make_pretender(folder, directory, metric_at, patience=0, **options):
  """One of `make_monitored` that adds a number to its weights at every step."""
  trainer = make_monitored(folder, directory, metric_at, patience, **options)

  def train_steps(iterator, num_steps, sums):
    del iterator
    trainer.step += num_steps
    for variable in trainer._state().values():
      variable.assign(variable + float(num_steps))
    return {
      **{name: values + np.float32(num_steps) for name, values in sums.items()},
      "learning_rate": 0.1,
      "gradient_norm": 1.0,
      "is_finite": True,
    }

  trainer.train_steps = train_steps
  return trainer


METRIC_AT = {2: 0.3, 4: 0.6, 6: 0.6, 8: 0.5, 10: 0.2}


def read_rows(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def read_checkpoint(path):
  reader = tf.train.load_checkpoint(str(path))
  return {
    name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
  }


@pytest.mark.parametrize(
  ("eval_steps", "expected"),
  [(2, [2, 4, 6, 8, 10]), (4, [4, 8, 10]), (0, [10]), (100, [10])],
)
def test_when_a_run_is_evaluated(folder, tmp_path, eval_steps, expected):
  """At the last step in any case."""
  metric_at = dict.fromkeys(range(11), 0.5)
  trainer = make_pretender(
    folder, tmp_path, metric_at, eval_steps=eval_steps, log_every_steps=3
  )
  trainer.fit(make_source(), log_to=str(tmp_path))
  assert list(trainer.seen) == expected
  rows = read_rows(tmp_path / "eval_log.csv")
  assert [int(row["step"]) for row in rows] == expected


def test_the_best_weights_are_kept_and_taken_back(folder, tmp_path):
  trainer = make_monitored(folder, tmp_path, METRIC_AT)
  trainer.fit(make_source())
  assert trainer.step == 10
  best = read_checkpoint(tmp_path / "best_model.ckpt")
  assert best.pop("global_step") == 4
  assert_bitwise(best, trainer.seen[4])
  assert (best["output_bias"] != numpy_weights(trainer)["output_bias"]).any()
  assert trainer.load_best() == 4
  assert_bitwise(trainer.weights, trainer.seen[4])
  # The place in the run, which the last checkpoint holds, is another matter.
  assert checkpoints.latest(str(tmp_path)).endswith("model.ckpt-10")


def test_evaluating_does_not_change_training(folder, tmp_path, reference):
  trainer = make_monitored(folder, tmp_path, METRIC_AT)
  trainer.fit(make_source())
  assert_bitwise(numpy_weights(trainer), numpy_weights(reference))


def test_without_a_best_one_the_last_weights_stay(folder, tmp_path):
  for directory, monitor in (("plain", None), ("monitored", "keep")):
    (tmp_path / directory).mkdir()
    undefined = dict.fromkeys(METRIC_AT, NAN)
    trainer = make_pretender(folder, tmp_path / directory, undefined)
    trainer.monitor = monitor and trainer.monitor
    trainer.fit(make_source())
    before = numpy_weights(trainer)
    assert trainer.load_best() == STEPS
    assert not os.path.exists(trainer.best_path + ".index")
    assert_bitwise(numpy_weights(trainer), before)


def test_training_stops_when_patience_is_lost(folder, tmp_path):
  options = {"patience": 2, "log_every_steps": 5}
  trainer = make_pretender(folder, tmp_path, METRIC_AT, **options)
  trainer.fit(make_source(), log_to=str(tmp_path))
  assert trainer.step == 8
  assert trainer.is_done
  # What the last steps did is logged and saved.
  rows = read_rows(tmp_path / "training_log.csv")
  assert [int(row["step"]) for row in rows] == [5, 8]
  assert checkpoints.latest(str(tmp_path)).endswith("model.ckpt-8")
  # It is over for a process that looks at it later, too.
  again = make_pretender(folder, tmp_path, {}, **options)
  assert again.resume() == 8
  again.fit(make_source())
  assert again.step == 8
  assert again.load_best() == 4
  assert_bitwise(again.weights, trainer.seen[4])


def test_without_patience_a_run_goes_to_its_end(folder, tmp_path):
  trainer = make_pretender(folder, tmp_path, METRIC_AT, patience=0)
  trainer.fit(make_source())
  assert trainer.step == 10


@pytest.mark.parametrize(
  ("make", "killed_at", "patience"),
  [
    (make_monitored, 8, 3),
    (make_pretender, 6, 2),
    (make_pretender, 8, 2),
    (make_pretender, 8, 0),
  ],
)
def test_a_killed_run_decides_as_if_it_had_not_been(
  folder, tmp_path, make, killed_at, patience
):
  """The best is found at step 4, which is in the checkpoint that is left."""
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  until_killed = {k: v for k, v in METRIC_AT.items() if k < killed_at}
  runs = [(whole, METRIC_AT), (broken, until_killed), (broken, METRIC_AT)]
  for directory, metric_at in runs:
    directory.mkdir(exist_ok=True)
    trainer = make(folder, directory, metric_at, patience)
    trainer.resume()
    try:
      trainer.fit(make_source(), log_to=str(directory))
    except KeyboardInterrupt:
      assert metric_at is until_killed
      assert checkpoints.latest(str(directory)).endswith("model.ckpt-4")
  assert min(trainer.seen) == 6  # It was resumed from step 4.
  assert trainer.step == (8 if patience == 2 else 10)
  assert trainer.load_best() == 4
  for name in ("best_model.ckpt", f"model.ckpt-{trainer.step}"):
    assert_bitwise(
      read_checkpoint(broken / name), read_checkpoint(whole / name)
    )
  rows = read_rows(broken / "eval_log.csv")
  assert rows == read_rows(whole / "eval_log.csv")
  assert [int(row["step"]) for row in rows] == [*range(2, trainer.step + 1, 2)]


class Killed(BaseException):
  pass


def be_killed():
  raise Killed


@pytest.mark.parametrize("method", ["save", "_save_best"])
def test_what_is_best_is_never_in_doubt(folder, tmp_path, method):
  """Killed around step 6's checkpoint, which says that step 6 is the best.

  It is written at once, not at step 8: a run that went on otherwise from
  step 4, rolled back or not deterministic, would keep weights of another past.
  """
  metric_at = {**METRIC_AT, 6: 0.7}
  killed = make_pretender(folder, tmp_path, metric_at)
  evaluate = killed.monitor.evaluate

  def evaluate_and_arrange_end():
    if killed.step == 6:
      setattr(killed, method, be_killed)
    return evaluate()

  killed.monitor.evaluate = evaluate_and_arrange_end
  with pytest.raises(Killed):
    killed.fit(make_source())
  best = read_checkpoint(tmp_path / "best_model.ckpt")
  assert best["global_step"] == 4  # In either case the one before.
  trainer = make_pretender(folder, tmp_path, metric_at)
  step = 4 if method == "save" else 6
  assert trainer.resume() == trainer.monitor.best_step == step
  trainer.fit(make_source())
  assert trainer.load_best() == 6
  assert_bitwise(trainer.weights, killed.seen[6])


def test_half_of_the_best_weights_are_written_again(folder, tmp_path, capsys):
  """As after a kill between its two files, when the checkpoint was there."""
  trainer = make_pretender(folder, tmp_path, METRIC_AT)
  trainer.fit(make_source())
  index = tmp_path / "best_model.ckpt.index"
  old = index.read_bytes()
  index.write_bytes(old[:20])
  for name in tmp_path.glob("model.ckpt-1*"):
    name.unlink()
  (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-4"')
  again = make_pretender(folder, tmp_path, METRIC_AT)
  assert again.resume() == 4
  again.fit(make_source())
  assert index.read_bytes() == old
  assert again.load_best() == 4
  assert capsys.readouterr().err == ""


def test_weights_of_a_past_that_is_lost_are_told(folder, tmp_path, capsys):
  """The checkpoint of step 6, the best, is damaged; then 6 is not the best."""
  metric_at = {**METRIC_AT, 4: 0.2, 6: 0.2}
  make_pretender(folder, tmp_path, {**metric_at, 6: 0.7}).fit(make_source())
  for step in (6, 8, 10):
    for path in tmp_path.glob(f"model.ckpt-{step}.data*"):
      path.write_bytes(b"")
  trainer = make_pretender(folder, tmp_path, {**metric_at, 8: 0.1})
  assert trainer.resume() == 4
  trainer.fit(make_source())
  assert trainer.load_best() == 6
  error = capsys.readouterr().err
  assert "best_model.ckpt is of step 6, not 2: the checkpoint" in error


def test_eval_log_has_what_evaluations_returned(folder, tmp_path, capsys):
  trainer = make_pretender(folder, tmp_path, METRIC_AT)
  trainer.fit(make_source(), log_to=str(tmp_path))
  rows = read_rows(tmp_path / "eval_log.csv")
  assert [
    {name: float(value) for name, value in row.items()} for row in rows
  ] == [{"step": k, "f1": v, "loss": k} for k, v in METRIC_AT.items()]
  lines = capsys.readouterr().out.splitlines()
  lines = [line for line in lines if line.startswith("evaluation at step")]
  assert [line.endswith("best so far") for line in lines] == [
    True,
    True,
    False,
    False,
    False,
  ]


# Speed


class FakeClock:
  """Stands for the module `time`."""

  def __init__(self):
    self.now = 100.0

  def monotonic(self):
    return self.now


def test_time_that_is_excluded_is_in_no_speed(monkeypatch):
  clock = FakeClock()
  monkeypatch.setattr(log, "time", clock)
  config = loop.TrainingConfig(
    output_dir="",
    schedule=optimization.LearningRateSchedule(1e-3, 20),
    train_batch_size=8,
  )
  statistics = {
    "loss": np.float32(4.0),
    "metrics": np.ones([1, 2], np.float32),
    "steps": np.float32(4.0),
    "learning_rate": 0.0,
    "gradient_norm": 0.0,
  }
  interval = log.Interval(["accuracy"], 0)
  for step, pause in ((4, 1000.0), (8, 0.0)):
    clock.now += 2.0 + pause
    interval.exclude(pause)
    interval.update(statistics)
    report = interval.close(step, config)
    assert report.seconds_per_step == 0.5
    assert report.values["examples_per_second"] == 16
    assert report.eta_seconds == 0.5 * (20 - step)


def test_evaluations_are_in_no_speed(folder, tmp_path, monkeypatch):
  """A step takes a second of a clock that stands still otherwise."""
  clock = FakeClock()
  trainer = make_pretender(folder, tmp_path, METRIC_AT, log_every_steps=4)
  monkeypatch.setattr(loop, "time", clock)
  monkeypatch.setattr(log, "time", clock)
  evaluate, train_steps = trainer.monitor.evaluate, trainer.train_steps

  def evaluate_slowly():
    clock.now += 1000.0
    return evaluate()

  def count_seconds(iterator, num_steps, sums):
    clock.now += num_steps
    return train_steps(iterator, num_steps, sums)

  monkeypatch.setattr(trainer.monitor, "evaluate", evaluate_slowly)
  monkeypatch.setattr(trainer, "train_steps", count_seconds)
  trainer.fit(make_source(), log_to=str(tmp_path))
  assert clock.now == 100.0 + 10 + 5 * 1000
  rows = read_rows(tmp_path / "training_log.csv")
  assert [float(row["examples_per_second"]) for row in rows] == [8.0] * 3
