"""Classification in the graph equals classification in Python."""

import numpy as np
import pytest
import tensorflow as tf

import tokenization
from bert_keras3.data import sequences as sequences_module
from bert_keras3.data import tables
from bert_keras3.serving import graph_classifier
from bert_keras3.serving import graph_tokenization
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import metrics

WORDS = ("a", "b", "c", "##c", "d", ".")
VOCAB = {
  token: number
  for number, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))
}


@pytest.fixture(scope="module")
def python_tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join(VOCAB) + "\n")
  return tokenization.FullTokenizer(str(path))


@pytest.fixture(scope="module")
def tokenizer():
  return graph_tokenization.GraphTokenizer(VOCAB)


def make_texts(rng, count):
  """Texts of 0 to 20 words, some of them of two pieces."""
  words = ("a", "b", "bc", "dcc", "A.")
  return [
    " ".join(rng.choice(words, rng.integers(0, 21))) for _ in range(count)
  ]


def python_sequences(tokenizer, texts, pairs, max_seq_length, long_text):
  """Ids of all sequences, their numbers of segment 0, and their owners."""
  examples = [
    tables.InputExample(None, a, b)
    for a, b in zip(texts, pairs or [None] * len(texts), strict=True)
  ]
  sequences, owners = classifier_data.tokenize_examples(
    examples, tokenizer, max_seq_length, long_text
  )
  longest = int(sequences.lengths.max())
  return sequences.pad(np.arange(len(sequences)), longest), owners


@pytest.mark.parametrize("long_text", classifier_data.LONG_TEXT)
@pytest.mark.parametrize("has_pairs", [False, True])
@pytest.mark.parametrize("max_seq_length", [3, 4, 5, 8, 13, 24])
def test_sequences_equal_those_of_training(
  tokenizer, python_tokenizer, long_text, has_pairs, max_seq_length
):
  rng = np.random.default_rng(max_seq_length)
  texts = make_texts(rng, 200)
  pairs = make_texts(rng, 200) if has_pairs else None
  expected, expected_owners = python_sequences(
    python_tokenizer, texts, pairs, max_seq_length, long_text
  )
  second = tokenizer.tokenize(pairs) if has_pairs else None
  first, second, owners = graph_classifier.fit(
    tokenizer.tokenize(texts), second, max_seq_length, long_text
  )
  found = graph_tokenization.pack(
    first, second, max_seq_length, VOCAB["[CLS]"], VOCAB["[SEP]"]
  )
  assert owners.numpy().tolist() == expected_owners.tolist()
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    assert found[name].numpy().tolist() == values.tolist()


def make_classifier(tokenizer, problem_type, labels, long_text="truncate"):
  # Logits that depend on every id, its place and its segment.
  table = tf.constant(
    np.random.default_rng(0).normal(size=[len(VOCAB), max(len(labels), 1)]),
    tf.float32,
  )

  def compute_logits(batch):
    rows = tf.gather(table, batch["input_ids"])
    weights = batch["input_mask"] + batch["segment_ids"]
    places = tf.range(tf.shape(rows)[1], dtype=tf.float32)[:, tf.newaxis] + 1
    rows *= tf.cast(weights, tf.float32)[:, :, tf.newaxis] / places
    return tf.reduce_sum(rows, axis=1)

  return graph_classifier.GraphClassifier(
    tokenizer,
    compute_logits,
    labels,
    problem_type,
    8,
    long_text,
    (VOCAB["[CLS]"], VOCAB["[SEP]"]),
  )


def test_logits_of_windows_are_averaged(tokenizer):
  classifier = make_classifier(tokenizer, "single_label", "xyz", "sliding")
  # Windows of six tokens, three apart: 1-6, 4-9 and 7-10.
  words = "a b c d a b c d a b".split()
  windows = [" ".join(words[i : i + 6]) for i in (0, 3, 6)]
  whole = classifier.classify(tf.constant([" ".join(words), "a"]))
  parts = classifier.classify(tf.constant(windows))
  np.testing.assert_allclose(
    whole["logits"][0], np.mean(parts["logits"], axis=0), rtol=1e-6
  )
  alone = classifier.classify(tf.constant(["a"]))
  np.testing.assert_array_equal(whole["logits"][1], alone["logits"][0])


@pytest.mark.parametrize("problem_type", metrics.PROBLEM_TYPES)
def test_answers_are_those_of_task_metrics(tokenizer, problem_type):
  labels = [] if problem_type == "regression" else ["x", "é", "z"]
  classifier = make_classifier(tokenizer, problem_type, labels)
  texts = make_texts(np.random.default_rng(1), 50)
  outputs = {k: v.numpy() for k, v in classifier.classify(texts).items()}
  logits = outputs.pop("logits")
  predictions = metrics.predict_labels(problem_type, logits)
  if problem_type == "regression":
    assert outputs.keys() == {"score"}
    assert outputs["score"].tolist() == predictions.tolist()
    return
  np.testing.assert_allclose(
    outputs["probabilities"],
    metrics.probabilities(problem_type, logits),
    atol=1e-6,  # float32's exp in another library
  )
  found = [label.decode() for label in outputs["label"]]
  if problem_type == "multi_label":
    rows = [np.array(labels)[row.astype(bool)] for row in predictions]
    assert found == [",".join(row) for row in rows]
  else:
    assert found == [labels[i] for i in predictions]


def test_ids_give_what_their_text_does(tokenizer, python_tokenizer):
  classifier = make_classifier(tokenizer, "single_label", "xyz")
  texts = make_texts(np.random.default_rng(2), 20)
  batch, _ = python_sequences(python_tokenizer, texts, None, 8, "truncate")
  found = classifier.classify_tokens(**batch)
  expected = classifier.classify(tf.constant(texts))
  for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values)


def test_an_empty_batch(tokenizer):
  classifier = make_classifier(tokenizer, "single_label", "xyz")
  outputs = classifier.classify(tf.constant([], tf.string))
  assert outputs["probabilities"].shape == (0, 3)
  assert outputs["label"].shape == (0,)


def test_sequences_are_those_that_upstream_packs(tokenizer):
  """A check of the checker, by hand."""
  first, second, _ = graph_classifier.fit(
    tokenizer.tokenize(["a bc"]), tokenizer.tokenize(["d"]), 8, "truncate"
  )
  batch = graph_tokenization.pack(first, second, 8, 2, 3)
  assert batch["input_ids"].numpy().tolist() == [[2, 4, 5, 7, 3, 8, 3]]
  assert sequences_module.pack_pair([4, 5, 7], [8], 2, 3)[0] == [
    2, 4, 5, 7, 3, 8, 3,
  ]  # fmt: skip
