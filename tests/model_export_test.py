"""Exports of pretraining models, and what every export has in common."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  Its ops are in the exports.

import modeling
import tokenization
from bert_keras3.serving import export
from bert_keras3.serving import predictor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "cat", "sat", "##s", "on", "mat", "a", "é", "[", "]", "mask")
VOCAB = (*SPECIAL, *WORDS, ".", ",")
TEXTS = ["The [MASK] sat on the [MASK].", "A cat.", "[MASK]", "[MASK]s [MASK]"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join(VOCAB) + "\n")
  return tokenization.FullTokenizer(str(path), do_lower_case=False)


@pytest.fixture(scope="module")
def model():
  tf.keras.utils.set_random_seed(0)
  config = modeling.BertConfig(
    len(VOCAB) + 3,  # Rows that only fill the table up.
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    type_vocab_size=2,
    initializer_range=0.5,
  )
  return modeling.BertPretrainer(config)


@pytest.fixture(scope="module")
def export_dir(model, tokenizer, tmp_path_factory):
  path = str(tmp_path_factory.mktemp("models") / "1")
  description = {"max_seq_length": 12, "task": "pretraining"}
  export.export_pretrainer(path, model, tokenizer, description)
  return path


@pytest.fixture(scope="module")
def signatures(export_dir):
  loaded = tf.saved_model.load(export_dir)
  # The signatures do not keep what they read alive.
  return {"loaded": loaded, **loaded.signatures}


def pack(tokenizer, tokens):
  """A batch of one text, which stands as tokens."""
  tokens = ["[CLS]", *tokens, "[SEP]"]
  ids = tokenizer.convert_tokens_to_ids(tokens)
  return {
    "input_ids": tf.constant([ids]),
    "input_mask": tf.ones([1, len(ids)], tf.int32),
    "segment_ids": tf.zeros([1, len(ids)], tf.int32),
  }


def test_masks_get_the_models_likeliest_tokens(signatures, model, tokenizer):
  found = signatures["serving_default"](text=tf.constant(TEXTS))
  assert found["tokens"].shape == (4, 2, export.MASK_TOP_K)
  words = [
    ["[UNK]", "[MASK]", "sat", "on", "the", "[MASK]", "."],
    None,
    ["[MASK]"],
    ["[MASK]", "[UNK]", "[MASK]"],
  ]
  for row, tokens in enumerate(words):
    if tokens is None:
      assert set(found["tokens"][row].numpy().ravel()) == {b""}
      assert not found["probabilities"][row].numpy().any()
      continue
    places = [i + 1 for i, token in enumerate(tokens) if token == "[MASK]"]
    batch = pack(tokenizer, tokens)
    batch["masked_lm_positions"] = tf.constant([places])
    logits = model(batch)["masked_lm_logits"]
    shares = tf.nn.softmax(logits).numpy()[0, :, : len(VOCAB)]
    for place, share in enumerate(shares):
      best = np.argsort(-share, kind="stable")[: export.MASK_TOP_K]
      names = [x.decode() for x in found["tokens"][row, place].numpy()]
      assert names == [VOCAB[i] for i in best]
      np.testing.assert_allclose(
        found["probabilities"][row, place], share[best], atol=1e-6
      )
    assert not found["probabilities"][row, len(shares) :].numpy().any()


def test_masks_beyond_the_limit_get_nothing(signatures):
  text = "the " * 10 + "[MASK]"
  found = signatures["serving_default"](text=tf.constant([text, "[MASK]"]))
  assert found["probabilities"][0].numpy().sum() == 0
  assert found["probabilities"][1].numpy().sum() > 0


def test_texts_without_masks(signatures):
  found = signatures["serving_default"](text=tf.constant(["the cat", ""]))
  assert found["tokens"].shape == (2, 0, export.MASK_TOP_K)


def test_pairs_are_scored_as_the_model_does(signatures, model, tokenizer):
  found = signatures["pair"](
    text=tf.constant(["the cat", "a"]), text_pair=tf.constant(["sat", "é"])
  )
  first, second = [["the", "cat"], ["a"]], [["sat"], ["é"]]
  for row, (a, b) in enumerate(zip(first, second, strict=True)):
    batch = pack(tokenizer, [*a, "[SEP]", *b])
    places = np.arange(batch["segment_ids"].shape[1])
    batch["segment_ids"] = tf.constant(
      [(places >= len(a) + 2).astype(np.int32)]
    )
    batch["masked_lm_positions"] = tf.zeros([1, 0], tf.int32)
    logits = model(batch)["next_sentence_logits"]
    np.testing.assert_allclose(found["logits"][row], logits[0], atol=1e-5)
    share = tf.nn.softmax(logits)[0, 0].numpy()
    assert found["is_next"][row].numpy() == pytest.approx(share, abs=1e-6)


def test_ids_are_predicted_as_the_model_does(signatures, model, tokenizer):
  batch = pack(tokenizer, ["the", "[MASK]", "sat", "[SEP]", "[MASK]"])
  batch["segment_ids"] = tf.constant([[0, 0, 0, 0, 0, 1, 1]])
  for places in ([[2, 5]], [[]]):
    batch["masked_lm_positions"] = tf.constant(places, tf.int32)
    found, expected = signatures["predict"](**batch), model(batch)
    assert set(found) == {"masked_lm_logits", "next_sentence_logits"}
    for name, logits in found.items():
      assert logits.shape == expected[name].shape
      # The same operations, compiled together.
      np.testing.assert_allclose(logits, expected[name], atol=1e-5)


def test_masks_are_one_token_in_every_text(signatures):
  masked = signatures["encode"](text=tf.constant(["the [MASK]", "the cat"]))
  assert masked["sequence_output"].shape[1] == 4  # [CLS] the [MASK] [SEP]


@pytest.mark.parametrize(
  "lines",
  [
    [*VOCAB],
    ["the", *VOCAB, "cat"],
    ["the", *VOCAB, "cat", "", "", "cat", "", "\u2028x", "a\x0bb", "\u3000"],
    ["", "", *VOCAB, "a", "a", ""],
  ],
)
def test_the_vocabulary_of_an_export_reads_as_the_models(lines, tmp_path):
  ours, theirs = tmp_path / "ours.txt", tmp_path / "theirs.txt"
  ours.write_text("\n".join(lines) + "\n", encoding="utf-8")
  content = export._vocab_lines(tokenization.FullTokenizer(str(ours)))
  theirs.write_text(content, encoding="utf-8", newline="")
  assert tokenization.load_vocab(theirs) == tokenization.load_vocab(ours)


def test_the_vocabulary_lies_in_the_export(export_dir, tokenizer):
  path = os.path.join(export_dir, predictor.VOCAB_FILE)
  assert tokenization.load_vocab(path) == tokenizer.vocab


def test_texts_are_encoded_as_the_model_does(signatures, model, tokenizer):
  found = signatures["encode"](text=tf.constant(["the cats", "a"]))
  for row, tokens in enumerate((["the", "cat", "##s"], ["a"])):
    batch = pack(tokenizer, tokens)
    outputs = model.encode(batch, False, None)
    sequence = outputs["sequence_output"].numpy()[0]
    np.testing.assert_allclose(
      found["sequence_output"][row, : len(sequence)], sequence, atol=1e-5
    )
    np.testing.assert_allclose(
      found["pooled_output"][row], outputs["pooled_output"][0], atol=1e-5
    )
    np.testing.assert_allclose(
      found["embedding"][row], sequence.mean(axis=0), atol=1e-5
    )
    ids = signatures["tokens"](**batch)
    np.testing.assert_allclose(
      ids["pooled_output"][0], outputs["pooled_output"][0], atol=1e-5
    )


def test_an_encoder_alone(model, tokenizer, tmp_path):
  path = str(tmp_path / "1")
  export.export_encoder(path, model, tokenizer, {"max_seq_length": 12})
  (found,) = predictor.Predictor(path).predict(["the cats"])
  outputs = model.encode(pack(tokenizer, ["the", "cat", "##s"]), False, None)
  np.testing.assert_allclose(
    found["embedding"], outputs["sequence_output"].numpy()[0].mean(0), atol=1e-5
  )
  np.testing.assert_allclose(
    found["pooled_output"], outputs["pooled_output"].numpy()[0], atol=1e-5
  )


def test_an_export_is_replaced(model, tokenizer, tmp_path):
  for length, slash in ((5, ""), (6, "/"), (7, "")):
    path = f"{tmp_path}/1{slash}"
    description = {"max_seq_length": length}
    export.export_encoder(path, model, tokenizer, description)
    found = predictor.Predictor(path)
    assert found.description.max_seq_length == length
    assert len(found.predict(["the cats"])) == 1
    assert os.listdir(tmp_path) == ["1"]


def test_the_description_says_what_it_is(export_dir):
  description = predictor.read_description(export_dir)
  assert description.kind == "pretrainer"
  assert description.inputs == {
    "serving_default": ["text"],
    "pair": ["text", "text_pair"],
    "encode": ["text"],
    "tokens": ["input_ids", "input_mask", "segment_ids"],
    "predict": [
      "input_ids",
      "input_mask",
      "segment_ids",
      "masked_lm_positions",
    ],
  }
  assert description.max_seq_length == 12
  assert description.do_lower_case is False
  assert set(description.versions) == {
    "tensorflow",
    "tensorflow_text",
    "keras",
  }


KILL_WHILE_SAVING = """
import os, signal, sys
import tensorflow as tf
from bert_keras3.serving import export

save = tf.saved_model.save

def save_and_die(*args, **kwargs):
  save(*args, **kwargs)
  os.kill(os.getpid(), signal.SIGKILL)

tf.saved_model.save = save_and_die
description = export._describe("encoder", {})
root = tf.Module()
functions = {name: lambda *inputs: {} for name in description.inputs}
export._save(root, functions, sys.argv[1], description)
"""


def test_a_killed_export_leaves_the_old_one(tmp_path):
  path = tmp_path / "1"
  (path / "assets.extra").mkdir(parents=True)
  (path / "assets.extra" / "model.json").write_text("{}")
  (path / "old").write_text("old")
  result = subprocess.run(
    [sys.executable, "-c", KILL_WHILE_SAVING, str(path)], cwd=ROOT, check=False
  )
  assert result.returncode == -9
  assert (path / "old").read_text() == "old"
  assert not (path / "saved_model.pb").exists()


# The Predictor ----------------------------------------------------------------


def test_the_predictor_keeps_the_order(export_dir):
  found = predictor.Predictor(export_dir).predict(TEXTS, batch_size=2)
  assert [len(result["masks"]) for result in found] == [2, 0, 1, 2]
  alone = [predictor.Predictor(export_dir).predict([x])[0] for x in TEXTS]
  for one, other in zip(found, alone, strict=True):
    for mask, other_mask in zip(one["masks"], other["masks"], strict=True):
      assert [x["token"] for x in mask] == [x["token"] for x in other_mask]


def test_the_predictor_takes_texts_tuples_and_dicts(export_dir):
  model = predictor.Predictor(export_dir)
  expected = model.predict(["[MASK] cat"])
  assert model.predict([("[MASK] cat",)]) == expected
  assert model.predict([{"text": "[MASK] cat", "id": 3}]) == expected
  assert model.predict([]) == []
  # Half a surrogate pair has no UTF-8.
  asked = model.predict(["[MASK]? cat"])
  assert model.predict(["[MASK]\ud800 cat"]) == asked
  with pytest.raises(
    ValueError, match="pass a list of texts, not the text 'a'"
  ):
    model.predict("a")
  with pytest.raises(ValueError, match="batch_size is -1"):
    model.predict(["a"], batch_size=-1)
  with pytest.raises(ValueError, match="should have the texts text, not"):
    model.predict([("a", "b")])
  with pytest.raises(ValueError, match="should have the texts text, not"):
    model.predict([{"question": "a"}])


def test_the_predictor_refuses_what_is_none(tmp_path, export_dir):
  with pytest.raises(FileNotFoundError, match="is no export: it has no assets"):
    predictor.Predictor(str(tmp_path))
  (tmp_path / "assets.extra").mkdir()
  content = json.dumps({"format": predictor.FORMAT_VERSION + 1, "inputs": {}})
  (tmp_path / "assets.extra" / "model.json").write_text(content)
  with pytest.raises(ValueError, match="exported by a newer version"):
    predictor.Predictor(str(tmp_path))
  with pytest.raises(ValueError, match="holds a pretrainer, not a reader"):
    predictor.Predictor(export_dir, kind="reader")
