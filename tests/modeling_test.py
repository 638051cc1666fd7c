"""The network: upstream's numbers, shapes, counts, dropout, serialisation."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import modeling

GOLDEN_MODELS = ("tiny", "odd", "gelu30k")
GOLDEN_BATCHES = (
  "pad",
  "pad_nomask_notype",
  "pad_onehot",
  "full",
  "masks",
  "one",
)
# Share of an array's largest value. Upstream under TensorFlow 1.15 and 2.15
# differs by 7e-7 from itself; rows without any mask amplify rounding.
TOLERANCE = 1e-5
MASKS_TOLERANCE = 1e-4
# Size of what was added up, where the sum nearly cancels: this array is a
# single logit of 0.013, the sum of 96 products of together 6.04. One unit in
# the last place of those already is 3e-5 of the sum.
MAGNITUDES = {("odd", "one", "squad_start_logits"): 6.04}

# Encoder and pooler, without heads. Published sizes of google-research/bert.
PARAMETER_COUNTS = {
  # (layers, width, vocabulary): parameters
  (2, 128, 30522): 4385920,
  (2, 256, 30522): 9591040,
  (2, 512, 30522): 22458880,
  (2, 768, 30522): 38603520,
  (4, 128, 30522): 4782464,
  (4, 256, 30522): 11170560,
  (4, 512, 30522): 28763648,
  (4, 768, 30522): 52779264,
  (6, 128, 30522): 5179008,
  (6, 256, 30522): 12750080,
  (6, 512, 30522): 35068416,
  (6, 768, 30522): 66955008,
  (8, 128, 30522): 5575552,
  (8, 256, 30522): 14329600,
  (8, 512, 30522): 41373184,
  (8, 768, 30522): 81130752,
  (10, 128, 30522): 5972096,
  (10, 256, 30522): 15909120,
  (10, 512, 30522): 47677952,
  (10, 768, 30522): 95306496,
  (12, 128, 30522): 6368640,
  (12, 256, 30522): 17488640,
  (12, 512, 30522): 53982720,
  (12, 768, 30522): 109482240,
  (24, 1024, 30522): 335141888,
  (12, 768, 28996): 108310272,
  (24, 1024, 28996): 333579264,
  (12, 768, 21128): 102267648,
  (12, 768, 105879): 167356416,
  (12, 768, 119547): 177853440,
}


def small_config(**changes):
  return modeling.BertConfig.from_dict(
    {
      "vocab_size": 50,
      "hidden_size": 16,
      "num_hidden_layers": 2,
      "num_attention_heads": 2,
      "intermediate_size": 24,
      "max_position_embeddings": 12,
      "type_vocab_size": 2,
      **changes,
    }
  )


def small_batch(batch=3, length=7, predictions=2):
  rng = np.random.default_rng(0)
  return {
    "input_ids": rng.integers(1, 50, [batch, length], np.int32),
    "input_mask": np.ones([batch, length], np.int32),
    "segment_ids": rng.integers(0, 2, [batch, length], np.int32),
    "masked_lm_positions": rng.integers(
      0, length, [batch, predictions], np.int32
    ),
    "masked_lm_ids": rng.integers(1, 50, [batch, predictions], np.int32),
    "masked_lm_weights": np.ones([batch, predictions], np.float32),
    "next_sentence_labels": rng.integers(0, 2, [batch, 1], np.int32),
    "label_ids": rng.integers(0, 3, [batch], np.int32),
    "start_positions": rng.integers(0, length, [batch], np.int32),
    "end_positions": rng.integers(0, length, [batch], np.int32),
  }


HEADS = {
  "pretrainer": lambda config, **k: modeling.BertPretrainer(config, **k),
  "classifier": lambda config, **k: modeling.BertClassifier(config, 3, **k),
  "span": lambda config, **k: modeling.BertSpanLabeler(config, **k),
}


def assert_close(actual, expected, tolerance, magnitude=None):
  error = np.abs(np.asarray(actual) - expected).max()
  assert error <= tolerance * (magnitude or np.abs(expected).max())


# Upstream's numbers


@pytest.fixture(scope="module")
def golden_heads(goldens):
  """The three heads with a golden checkpoint's weights, by model name."""
  cache = {}

  def load(name):
    if name not in cache:
      folder = goldens / "model" / name
      config = modeling.BertConfig.from_json_file(
        str(folder / "bert_config.json")
      )
      reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
      heads = {
        "pretrainer": modeling.BertPretrainer(config),
        "classifier": modeling.BertClassifier(config, num_labels=2),
        "span": modeling.BertSpanLabeler(config),
      }
      for head in heads.values():
        for variable_name, variable in modeling.named_variables(head).items():
          variable.assign(reader.get_tensor(variable_name))
      cache[name] = heads
    return cache[name]

  return load


def outputs_by_golden_name(heads, batch):
  """Everything upstream's graphs computed, under the goldens' names."""
  pretrainer, classifier, span = heads.values()
  encoded = pretrainer.encode(batch, training=False, dropout_seed=None)
  outputs = pretrainer(batch)
  lm_log_probs = tf.nn.log_softmax(outputs["masked_lm_logits"])
  ns_log_probs = tf.nn.log_softmax(outputs["next_sentence_logits"])
  lm_losses = -tf.gather(lm_log_probs, batch["masked_lm_ids"], batch_dims=2)
  ns_labels = batch["next_sentence_labels"][:, 0]
  ns_losses = -tf.gather(ns_log_probs, ns_labels, batch_dims=1)
  terms = pretrainer.terms(outputs, batch)
  lm_sum, lm_weight = terms["masked_lm_loss"]
  labelled = {**batch, "label_ids": ns_labels}
  classified = classifier(batch)
  spans = span(batch)
  vocab_size = lm_log_probs.shape[-1]
  return {
    "embedding_output": encoded["embedding_output"],
    "all_encoder_layers": tf.stack(encoded["all_encoder_layers"]),
    "sequence_output": encoded["sequence_output"],
    "pooled_output": encoded["pooled_output"],
    "masked_lm_loss": lm_sum / (lm_weight + 1e-5),
    "masked_lm_example_loss": tf.reshape(lm_losses, [-1]),
    "masked_lm_log_probs": tf.reshape(lm_log_probs, [-1, vocab_size]),
    "next_sentence_loss": terms["next_sentence_loss"][0] / len(ns_labels),
    "next_sentence_example_loss": ns_losses,
    "next_sentence_log_probs": ns_log_probs,
    "total_loss": pretrainer.total_loss(terms),
    "squad_start_logits": spans["start_logits"],
    "squad_end_logits": spans["end_logits"],
    "classifier_logits": classified["logits"],
    "classifier_probabilities": tf.nn.softmax(classified["logits"]),
    "classifier_loss": classifier.total_loss(
      classifier.terms(classified, labelled)
    ),
    "classifier_example_loss": classifier.label_values(classified, labelled)[
      "loss"
    ],
  }


@pytest.mark.parametrize("batch_name", GOLDEN_BATCHES)
@pytest.mark.parametrize("model_name", GOLDEN_MODELS)
def test_forward_equals_upstream(goldens, golden_heads, model_name, batch_name):
  golden = np.load(goldens / "model" / model_name / f"{batch_name}.npz")
  batch = {key[3:]: golden[key] for key in golden if key.startswith("in_")}
  if batch_name == "pad_nomask_notype":
    del batch["input_mask"], batch["segment_ids"]
  outputs = outputs_by_golden_name(golden_heads(model_name), batch)
  expected = [key for key in golden if not key.startswith("in_")]
  tolerance = MASKS_TOLERANCE if batch_name == "masks" else TOLERANCE
  assert len(expected) >= 6
  for key in expected:
    magnitude = MAGNITUDES.get((model_name, batch_name, key))
    assert_close(outputs[key], golden[key], tolerance, magnitude)


def test_first_layer_equals_upstream_without_the_shared_goldens(testdata):
  """Three segments, relu, rows with holes and an all-zero mask."""
  golden = np.load(testdata / "model" / "odd_first_layer.npz")
  config = modeling.BertConfig.from_json_file(
    str(testdata / "model" / "odd_first_layer_config.json")
  )
  model = modeling.BertModel(config)
  for name, variable in modeling.named_variables(model).items():
    if not name.startswith("bert/pooler"):
      variable.assign(golden[name])
  outputs = model(
    {
      "input_ids": golden["in_input_ids"],
      "input_mask": golden["in_input_mask"],
      "token_type_ids": golden["in_segment_ids"],
    }
  )
  for name, key in (
    ("embedding_output", "embedding_output"),
    ("sequence_output", "layer_0_output"),
  ):
    assert_close(outputs[name], golden[key], MASKS_TOLERANCE)


@pytest.fixture(scope="module")
def config_cases(testdata):
  return json.loads((testdata / "model" / "config_cases.json").read_text())


def test_config_json_equals_upstream(config_cases):
  config = modeling.BertConfig
  assert config(99).to_json_string() == config_cases["default_json"]
  assert (
    config(99, hidden_size=37).to_json_string() == config_cases["hidden37_json"]
  )
  partial = json.loads(config_cases["from_dict_partial"])
  keys = {key: partial[key] for key in ("hidden_act", "unknown_key")}
  restored = config.from_dict({"vocab_size": 5, **keys})
  assert restored.to_json_string() == config_cases["from_dict_partial"]
  assert (
    config.from_dict({}).to_json_string()
    == config_cases["from_dict_without_vocab"]
  )


def test_activations_equal_upstream(config_cases):
  known = {None: None, "gelu": modeling.gelu, "relu": tf.nn.relu}
  for name, expected in config_cases["get_activation"].items():
    if expected == "ValueError":
      with pytest.raises(ValueError, match=name):
        modeling.get_activation(name)
    elif name != "None":
      activation = modeling.get_activation(name)
      assert activation is known.get(expected, tf.tanh)
  assert modeling.get_activation(None) is None


def test_gelu_is_the_tanh_form(config_cases):
  x, expected = np.array(config_cases["gelu"], np.float32).T
  # Upstream's cube is a power, TensorFlow's kernel multiplies: last bits.
  np.testing.assert_allclose(modeling.gelu(x), expected, rtol=0, atol=1e-6)
  assert np.abs(modeling.gelu_exact(x) - expected).max() > 1e-4


# Architecture


@pytest.mark.parametrize("size", PARAMETER_COUNTS)
def test_parameter_count(size, monkeypatch):
  # Drawing a third of a billion normals takes seconds.
  monkeypatch.setattr(modeling, "create_initializer", lambda _: "zeros")
  layers, width, vocab_size = size
  config = modeling.BertConfig(
    vocab_size,
    hidden_size=width,
    num_hidden_layers=layers,
    num_attention_heads=width // 64,
    intermediate_size=4 * width,
    type_vocab_size=2,
  )
  assert modeling.BertModel(config).count_params() == PARAMETER_COUNTS[size]


def test_shapes_of_outputs():
  batch = small_batch(batch=3, length=7)
  outputs = modeling.BertModel(small_config())(
    {"input_ids": batch["input_ids"]}
  )
  assert outputs["sequence_output"].shape == [3, 7, 16]
  assert outputs["pooled_output"].shape == [3, 16]
  assert outputs["embedding_output"].shape == [3, 7, 16]
  assert [x.shape for x in outputs["all_encoder_layers"]] == [[3, 7, 16]] * 2


def test_absent_mask_and_segments_mean_ones_and_zeros():
  model = modeling.BertModel(small_config())
  ids = small_batch()["input_ids"]
  explicit = model(
    {
      "input_ids": ids,
      "input_mask": np.ones_like(ids),
      "token_type_ids": np.zeros_like(ids),
    }
  )
  implicit = model({"input_ids": ids})
  np.testing.assert_array_equal(
    implicit["sequence_output"], explicit["sequence_output"]
  )


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_attention_heads": 3}, "hidden_size 16 is not a multiple"),
    ({"hidden_act": "swish"}, "unsupported hidden_act 'swish'"),
    ({"vocab_size": None}, "vocab_size must be a positive .* not None"),
    ({"num_attention_heads": 0}, "num_attention_heads must be .* not 0"),
    ({"hidden_size": "16"}, "hidden_size must be .* not '16'"),
  ],
)
def test_impossible_configs_are_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    modeling.BertModel(small_config(**changes))


def test_a_sequence_longer_than_the_positions_is_refused():
  model = modeling.BertModel(small_config(max_position_embeddings=6))
  with pytest.raises(ValueError, match="length 7 exceeds .* 6"):
    model({"input_ids": small_batch()["input_ids"]})


@pytest.mark.parametrize(
  ("text", "words"),
  [("{", "not valid JSON"), ("[]", "no vocab_size"), ("{}", "no vocab_size")],
)
def test_a_bad_config_file_is_named(tmp_path, text, words):
  path = tmp_path / "bert_config.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=f"bert_config.json.*{words}"):
    modeling.BertConfig.from_json_file(str(path))


HUGGING_FACE_CONFIG = {
  "architectures": ["BertModel"],
  "model_type": "bert",
  "transformers_version": "4.8.2",
  "vocab_size": 50,
  "type_vocab_size": 3,
  "hidden_act": "gelu",
  "layer_norm_eps": 1e-12,
  "position_embedding_type": "absolute",
  "pad_token_id": 0,
}


def config_from_json(directory, json_object):
  path = directory / "config.json"
  path.write_text(json.dumps(json_object))
  return modeling.BertConfig.from_json_file(str(path))


@pytest.mark.parametrize(
  ("theirs", "ours"),
  [
    ("gelu", "gelu_exact"),
    ("gelu_new", "gelu"),
    ("gelu_pytorch_tanh", "gelu"),
    ("relu", "relu"),
  ],
)
def test_a_hugging_face_config_becomes_ours_once(tmp_path, theirs, ours):
  config = config_from_json(
    tmp_path, {**HUGGING_FACE_CONFIG, "hidden_act": theirs}
  )
  assert config.hidden_act == ours
  assert config.type_vocab_size == 3
  assert config.pad_token_id == 0
  again = config_from_json(tmp_path, json.loads(config.to_json_string()))
  assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
  "mark", ["model_type", "architectures", "transformers_version"]
)
def test_one_mark_makes_a_config_hugging_faces(tmp_path, mark):
  """With their defaults, of which two are not upstream's."""
  config = config_from_json(
    tmp_path, {"vocab_size": 50, mark: HUGGING_FACE_CONFIG[mark]}
  )
  assert (config.hidden_act, config.type_vocab_size) == ("gelu_exact", 2)
  assert not hasattr(config, mark)


def test_a_config_without_marks_is_upstreams(tmp_path):
  config = config_from_json(tmp_path, {"vocab_size": 50, "hidden_act": "gelu"})
  assert (config.hidden_act, config.type_vocab_size) == ("gelu", 16)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"model_type": "distilbert"}, "model_type is 'distilbert'.*'bert'"),
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05.* 1e-12"),
    (
      {"position_embedding_type": "relative_key"},
      "position_embedding_type is 'relative_key'.*'absolute'",
    ),
    ({"is_decoder": True}, "is_decoder is True.*False"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False.*True"),
  ],
)
def test_configs_of_other_networks_are_refused(tmp_path, change, words):
  with pytest.raises(ValueError, match=f"config.json is of a.*{words}"):
    config_from_json(tmp_path, HUGGING_FACE_CONFIG | change)


def test_initial_weights_follow_the_config():
  weights = modeling.named_variables(
    modeling.BertPretrainer(small_config(hidden_size=64, vocab_size=2000))
  )
  words = weights["bert/embeddings/word_embeddings"].numpy()
  # A normal cut at 2 sd has 0.880 of its sd. 128,000 draws: 1 % is 5 sigma.
  assert words.std() == pytest.approx(0.8796 * 0.02, rel=0.01)
  assert np.abs(words).max() <= 0.04
  for name, variable in weights.items():
    if name.endswith(("bias", "beta")):
      assert not variable.numpy().any()
    if name.endswith("gamma"):
      assert (variable.numpy() == 1).all()


# Dropout


def test_dropout_is_a_function_of_seed_and_site():
  x = tf.ones([64, 64])

  def mask(seed, site, rate=0.3):
    return modeling.dropout(x, rate, tf.constant(seed, tf.int64), site).numpy()

  np.testing.assert_array_equal(mask([1, 2], 3), mask([1, 2], 3))
  for other in (mask([2, 2], 3), mask([1, 3], 3), mask([1, 2], 4)):
    # Independent masks agree on 58 %; 4096 draws, so 50-66 % is 10 sigma.
    assert 0.5 < np.mean((other > 0) == (mask([1, 2], 3) > 0)) < 0.66


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dropout_keeps_the_share_and_the_mean(dtype):
  x = tf.ones([1000, 1000], dtype)
  y = modeling.dropout(x, 0.1, tf.constant([5, 6], tf.int64), 0)
  # sd of the share is 3e-4; bfloat16 uniforms would be off by 1.6e-3.
  assert np.mean(y.numpy() == 0) == pytest.approx(0.1, abs=1.2e-3)
  assert y.dtype == dtype
  assert y.numpy().max() == np.asarray(1 / 0.9, y.numpy().dtype)


def test_no_seed_or_no_rate_means_no_dropout():
  x = tf.ones([3, 3])
  assert modeling.dropout(x, 0.5, None, 0) is x
  assert modeling.dropout(x, 0.0, tf.constant([1, 2], tf.int64), 0) is x


def test_every_dropout_of_a_model_has_its_own_site(monkeypatch):
  sites = []

  def spy(x, rate, seed, site):
    sites.append(site)
    return x

  monkeypatch.setattr(modeling, "dropout", spy)
  modeling.BertClassifier(small_config(num_hidden_layers=3), 2)(
    small_batch(), training=True
  )
  assert sorted(sites) == list(range(3 * 3 + 2))


@pytest.mark.parametrize("head", HEADS)
def test_a_given_seed_fixes_training_mode(head):
  model = HEADS[head](small_config())
  key = next(iter(model(small_batch())))

  def run(seed):
    return model(small_batch(), training=True, dropout_seed=seed)[key].numpy()

  np.testing.assert_array_equal(run([1, 2]), run([1, 2]))
  assert (run([1, 2]) != run([1, 3])).any()
  assert (run([1, 2]) != model(small_batch())[key].numpy()).any()


# A Keras model like others


@pytest.mark.parametrize("head", HEADS)
def test_fit_drops_and_learns(head):
  """No seed comes in from `fit`: with a rate of 0, only masks vary the loss."""
  model = HEADS[head](small_config(hidden_dropout_prob=0.5))
  data = tf.data.Dataset.from_tensors(small_batch()).repeat(4)
  model.compile(optimizer=keras.optimizers.SGD(0.0))
  frozen = [
    model.fit(data.take(1), shuffle=False, verbose=0).history["loss"][0]
    for _ in range(3)
  ]
  assert len(set(frozen)) == 3
  model.compile(optimizer=keras.optimizers.Adam(0.01))
  losses = model.fit(data, epochs=6, shuffle=False, verbose=0).history["loss"]
  assert losses[-1] < losses[0]


@pytest.mark.parametrize("head", HEADS)
def test_keras_file_round_trip(head, tmp_path):
  config = small_config(unknown_key=[1, 2])
  model = HEADS[head](config, name="mine", dtype="mixed_bfloat16")
  model(small_batch())
  model.save(tmp_path / "model.keras")
  loaded = keras.saving.load_model(tmp_path / "model.keras")
  assert loaded.config.to_dict() == config.to_dict()
  assert loaded.dtype_policy.name == "mixed_bfloat16"
  mine, theirs = map(modeling.named_variables, (model, loaded))
  assert list(mine) == list(theirs)
  for name in mine:
    np.testing.assert_array_equal(mine[name], theirs[name])
  for key, value in model(small_batch()).items():
    np.testing.assert_array_equal(value, loaded(small_batch())[key])


def test_an_encoder_of_any_name_has_upstreams_names():
  names = list(modeling.named_variables(modeling.BertModel(small_config())))
  other = modeling.BertModel(small_config(), name="encoder_a")
  assert list(modeling.named_variables(other)) == names


def test_encoder_round_trip(tmp_path):
  model = modeling.BertModel(small_config())
  inputs = {"input_ids": small_batch()["input_ids"]}
  expected = model(inputs)["pooled_output"]
  model.save(tmp_path / "model.keras")
  loaded = keras.saving.load_model(tmp_path / "model.keras")
  np.testing.assert_array_equal(loaded(inputs)["pooled_output"], expected)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_float32_where_it_matters(head, policy):
  tf.random.set_seed(1)
  full = HEADS[head](small_config(initializer_range=0.2))
  half = HEADS[head](small_config(), dtype=policy)
  weights = modeling.named_variables(full)
  for name, variable in modeling.named_variables(half).items():
    assert variable.dtype == "float32"
    variable.assign(weights[name])
  encoded = half.encode(small_batch(), training=False, dropout_seed=None)
  assert encoded["sequence_output"].dtype == half.compute_dtype
  for key, value in half(small_batch()).items():
    assert value.dtype == tf.float32
    # bfloat16 has 8 bits: an error of 1 % a layer, over two layers.
    assert_close(value, full(small_batch())[key].numpy(), 0.05)


def test_the_span_head_leaves_the_pooler_alone():
  model = modeling.BertSpanLabeler(small_config())
  trained = {variable.path for variable in model.trainable_variables}
  assert not [path for path in trained if "pooler" in path]
  assert "bert/pooler/dense/kernel" in modeling.named_variables(model)


# Losses of the classifier


LOGITS = np.array(
  [[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [1.5, 1.0, -2.0]],
  np.float32,
)
LABELS = {
  "single_label": np.array([0, 2, 2, 1], np.int32),
  "multi_label": np.array(
    [[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]], np.float32
  ),
  "regression": np.array([1.0, -0.5, 2.0, 1.5], np.float32),
}
PROBLEM_TYPES = list(LABELS)
CLASS_WEIGHTS = [1.0, 4.0, 2.5]
# A few roundings of float32 sums of numbers of the order of 1.
ROUNDING = 1e-6


def classifier(problem_type="single_label", **options):
  num_labels = 1 if problem_type == "regression" else 3
  return modeling.BertClassifier(
    small_config(), num_labels, problem_type=problem_type, **options
  )


def labelled_batch(problem_type, **features):
  """The four examples of LABELS as (outputs, batch)."""
  width = 1 if problem_type == "regression" else 3
  batch = {
    "input_ids": np.ones([4, 1], np.int32),
    "label_ids": LABELS[problem_type],
    **features,
  }
  return {"logits": tf.constant(LOGITS[:, :width])}, batch


def mean_loss(model, **features):
  outputs, batch = labelled_batch(model.problem_type, **features)
  return float(model.total_loss(model.terms(outputs, batch)))


def log_probabilities():
  logits = LOGITS.astype(np.float64)
  return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def cross_entropies():
  return -log_probabilities()[np.arange(4), LABELS["single_label"]]


def test_class_weights_by_hand():
  """What PyTorch's CrossEntropyLoss(weight) computes, and what is written."""
  weights = np.take(CLASS_WEIGHTS, LABELS["single_label"])
  assert weights.tolist() == [1.0, 2.5, 2.5, 4.0]
  expected = (weights * cross_entropies()).sum() / 10
  found = mean_loss(classifier(class_weights=CLASS_WEIGHTS))
  assert found == pytest.approx(expected, rel=ROUNDING)


def test_no_class_weights_are_a_plain_mean():
  expected = cross_entropies().mean()
  assert mean_loss(classifier()) == pytest.approx(expected, rel=ROUNDING)
  equal = classifier(class_weights=[3, 3, 3])
  assert mean_loss(equal) == pytest.approx(expected, rel=ROUNDING)


def test_label_smoothing_by_hand():
  """0.3 of the probability over three labels: 0.8 for the right one."""
  targets = np.full([4, 3], 0.1)
  targets[np.arange(4), LABELS["single_label"]] = 0.8
  expected = -(targets * log_probabilities()).sum(axis=1).mean()
  found = mean_loss(classifier(label_smoothing=0.3))
  assert found == pytest.approx(expected, rel=ROUNDING)


def binary_cross_entropies():
  p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
  labels = LABELS["multi_label"]
  return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


def test_multi_label_loss_by_hand():
  expected = binary_cross_entropies().mean()
  found = mean_loss(classifier("multi_label"))
  assert found == pytest.approx(expected, rel=ROUNDING)


def test_multi_label_class_weights_are_relative():
  losses = binary_cross_entropies().mean(axis=0)
  expected = np.average(losses, weights=CLASS_WEIGHTS)
  for scale in (1, 10):
    weights = [scale * weight for weight in CLASS_WEIGHTS]
    found = mean_loss(classifier("multi_label", class_weights=weights))
    assert found == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("shape", [[4], [4, 1]])
def test_regression_loss_by_hand(shape):
  """Errors 1, 0.6, -5 and 0."""
  labels = LABELS["regression"].reshape(shape)
  found = mean_loss(classifier("regression"), label_ids=labels)
  assert found == pytest.approx((1 + 0.36 + 25) / 4, rel=ROUNDING)


@pytest.mark.parametrize(
  ("problem_type", "name", "expected"),
  [
    ("single_label", "accuracy", 2),
    # Right are 3, 0, 1 and 1 of three.
    ("multi_label", "accuracy", 5 / 3),
    ("regression", "mean_absolute_error", 6.6),
  ],
)
def test_metrics_by_hand(problem_type, name, expected):
  """Class weights do not change them."""
  model = classifier(problem_type, class_weights=[5, 1, 1])
  assert model.metric_names == (name,)
  total, weight = model.terms(*labelled_batch(problem_type))[name]
  assert float(total) == pytest.approx(expected, rel=ROUNDING)
  assert float(weight) == 4


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_rows_without_weight_never_count(problem_type):
  model = classifier(
    problem_type,
    class_weights=None if problem_type == "regression" else CLASS_WEIGHTS,
    label_smoothing=0.1,
  )

  def numbers(outputs, batch):
    (metric,) = model.metric_names
    terms = model.terms(outputs, batch)
    weights = model.label_weights(batch)["loss"]
    assert terms["loss"][1] == tf.reduce_sum(weights)
    return [*terms["loss"], *terms[metric]]

  outputs, batch = labelled_batch(problem_type)
  kept = [0, 2]
  alone = numbers(
    {"logits": tf.gather(outputs["logits"], kept)},
    {name: values[kept] for name, values in batch.items()},
  )
  batch["example_weights"] = np.array([1, 0, 1, 0], np.float32)
  # Sums with zeros in between are exact.
  assert numbers(outputs, batch) == alone
  assert float(alone[-1]) == 2


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_a_keras_file_keeps_the_task(tmp_path, problem_type):
  model = classifier(
    problem_type,
    class_weights=None if problem_type == "regression" else CLASS_WEIGHTS,
    label_smoothing=0.1,
  )
  model.save(tmp_path / "model.keras")
  loaded = keras.saving.load_model(tmp_path / "model.keras")
  for name in ("num_labels", "problem_type", "class_weights"):
    assert getattr(loaded, name) == getattr(model, name)
  assert loaded.label_smoothing == 0.1
  assert mean_loss(loaded) == mean_loss(model)


# Tokens and choices


def test_token_labels_below_zero_do_not_count():
  model = modeling.BertTokenClassifier(small_config(), 3)
  logits = tf.constant(LOGITS.reshape([2, 2, 3]))
  batch = {
    "input_ids": np.ones([2, 2], np.int32),
    "label_ids": np.array([[0, -1], [2, 1]], np.int32),
    "example_weights": np.ones([2], np.float32),
  }
  terms = model.terms({"logits": logits}, batch)
  log_probs = log_probabilities()
  expected = -(log_probs[0, 0] + log_probs[2, 2] + log_probs[3, 1])
  assert float(terms["loss"][0]) == pytest.approx(expected, rel=ROUNDING)
  assert float(terms["loss"][1]) == 3
  right, number = terms["accuracy"]
  assert (float(right), float(number)) == (1, 3)
  batch["example_weights"][1] = 0  # A row that only fills the batch.
  assert float(model.terms({"logits": logits}, batch)["loss"][1]) == 1
  assert model.bert.pooler.trainable is False


def test_choices_are_scored_one_by_one():
  model = modeling.BertMultipleChoice(small_config(initializer_range=0.5))
  batch = small_batch(batch=6, length=7)
  names = ("input_ids", "input_mask", "segment_ids")
  choices = {name: batch[name].reshape([2, 3, 7]) for name in names}
  logits = model(choices)["logits"]
  pooled = model.encode(batch, False, None)["pooled_output"]
  assert logits.shape == [2, 3]
  np.testing.assert_array_equal(
    tf.reshape(logits, [6, 1]), model.choice(pooled)
  )
  labels = np.array([2, 0], np.int32)
  batch = {**choices, "label_ids": labels}
  terms = model.terms({"logits": LOGITS[:2]}, batch)
  expected = -(log_probabilities()[[0, 1], labels].sum())
  assert float(terms["loss"][0]) == pytest.approx(expected, rel=ROUNDING)
  right, number = terms["accuracy"]
  assert (float(right), float(number)) == (0, 2)


@pytest.mark.parametrize(
  ("head", "arguments", "scope"),
  [
    (modeling.BertTokenClassifier, [5], "cls/token"),
    (modeling.BertMultipleChoice, [], "cls/choice"),
  ],
)
def test_the_other_heads_are_trained_and_kept(tmp_path, head, arguments, scope):
  model = head(small_config(), *arguments)
  names = list(modeling.named_variables(model))[-2:]
  assert names == [f"{scope}/output_weights", f"{scope}/output_bias"]
  model.save(tmp_path / "model.keras")
  loaded = keras.saving.load_model(tmp_path / "model.keras")
  batch = small_batch()
  if head is modeling.BertMultipleChoice:
    batch = {name: x[np.newaxis] for name, x in batch.items()}
  first = model(batch, training=True, dropout_seed=[1, 2])["logits"]
  np.testing.assert_array_equal(loaded(batch)["logits"], model(batch)["logits"])
  assert np.any(first != model(batch)["logits"])


# Frozen parts


@pytest.mark.parametrize(
  ("parts", "expected"),
  [
    ("", set()),
    ("embeddings,0-1", {"bert/embeddings", "layer_0", "layer_1"}),
    ("pooler", {"bert/pooler"}),
    (" 2 , pooler", {"layer_2", "bert/pooler"}),
    ("1-1", {"layer_1"}),
  ],
)
def test_what_is_frozen(parts, expected):
  model = modeling.BertClassifier(small_config(num_hidden_layers=3), 2)
  modeling.freeze_layers(model, parts)
  for name, variable in modeling.named_variables(model).items():
    is_frozen = any(scope in name for scope in expected)
    assert variable.trainable != is_frozen, name


@pytest.mark.parametrize(
  "part", ["3", "0-3", "1-0", "1-", "-1", "-", "layer_0", "0-1-2", "all", "1.5"]
)
def test_parts_that_do_not_exist_are_refused(part):
  model = modeling.BertClassifier(small_config(num_hidden_layers=3), 2)
  with pytest.raises(ValueError, match=f"no '{part}' .* layers from 0 to 2"):
    modeling.freeze_layers(model, f"embeddings,{part}")


def test_attention_probs_are_those_that_were_used():
  """The last layer's outputs follow from them."""
  config = modeling.BertConfig(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=9,
    type_vocab_size=2,
    initializer_range=0.5,
  )
  model = modeling.BertModel(config)
  inputs = {
    "input_ids": np.arange(14).reshape([2, 7]),
    "input_mask": np.array([[1] * 7, [1] * 4 + [0] * 3]),
  }
  probs = model.attention_probs(inputs)
  assert probs.shape == [2, 3, 2, 7, 7]
  # float32 rounding of a softmax.
  np.testing.assert_allclose(np.sum(probs, axis=-1), 1.0, rtol=1e-6)
  assert np.all(probs[1, ..., 4:] == 0.0)
  outputs = model(inputs)
  layer = model.encoder.transformer_layers[-1]
  before = outputs["all_encoder_layers"][-2]
  value = tf.reshape(layer.self_attention.value(before), [2, 7, 2, 4])
  context = tf.einsum("bhft,bthw->bfhw", probs[:, -1], value)
  attended = layer.attention_output(tf.reshape(context, [2, 7, 8]), before)
  found = layer.layer_output(layer.intermediate(attended), attended)
  # The sums are taken in another order.
  np.testing.assert_allclose(
    found, outputs["sequence_output"], rtol=1e-5, atol=1e-6
  )
