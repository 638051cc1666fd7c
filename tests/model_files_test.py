"""Finding a model's files, and seeing that they belong together."""

import json
import pathlib

import pytest

import modeling
import tokenization
from bert_keras3.training import output_directory
from bert_keras3.weights import companions
from bert_keras3.weights import labels


@pytest.fixture
def place(tmp_path):
  """Makes files of some names in a new directory, returns its path."""

  def make(folder, *names):
    (tmp_path / folder).mkdir()
    for name in names:
      (tmp_path / folder / name).write_text("[UNK]\n[CLS]\n[SEP]\n")
    return str(tmp_path / folder)

  return make


def test_files_beside_the_weights_go_first(place):
  weights = place("weights", "config.json", "vocab.txt", "labels.txt")
  out = place("out", "bert_config.json", "vocab.txt", "labels.txt")
  found = companions.find(out, weights)
  assert found.bert_config_file == f"{weights}/config.json"
  assert found.vocab_file == f"{weights}/vocab.txt"
  # The labels of what was trained here, not of what it began with.
  assert found.labels_file == f"{out}/labels.txt"


@pytest.mark.parametrize("suffix", ["", "/bert_model.ckpt", "/model.ckpt-5"])
def test_a_prefix_means_its_directory(place, suffix):
  weights = place("weights", "bert_config.json", "config.json", "vocab.txt")
  found = companions.find("/none", weights + suffix)
  assert found.bert_config_file == f"{weights}/bert_config.json"
  assert found.labels_file is None


def test_labels_may_be_in_hugging_faces_config(place):
  weights = place("weights", "config.json", "vocab.txt")
  config = pathlib.Path(weights, "config.json")
  config.write_text('{"id2label": {"1": "good", "0": "bad"}}')
  found = companions.find("/none", weights)
  assert found.labels_file == str(config)
  assert labels.read_labels(found.labels_file) == ["bad", "good"]
  config.write_text('{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}')
  assert companions.find("/none", weights).labels_file is None


def test_another_casing_than_the_tokenizers_is_refused(place):
  weights = place("weights", "vocab.txt", "tokenizer_config.json")
  vocab = f"{weights}/vocab.txt"
  config = modeling.BertConfig(3)
  tokenizer = pathlib.Path(weights, "tokenizer_config.json")
  tokenizer.write_text('{"do_lower_case": false}')
  with pytest.raises(ValueError, match="say do_lower_case False; pass --do_lo"):
    companions.open_tokenizer(vocab, True, config, weights)
  companions.open_tokenizer(vocab, False, config, weights)
  for text in ("{}", '{"do_lower_case": true, "strip_accents": null}'):
    tokenizer.write_text(text)
    companions.open_tokenizer(vocab, True, config, weights)
  for text in ("", "[]"):
    tokenizer.write_text(text)
    with pytest.raises(
      ValueError, match="tokenizer_config.json (is not|holds)"
    ):
      companions.open_tokenizer(vocab, True, config, weights)


@pytest.mark.parametrize(
  "text", ['{"strip_accents": false}', '{"tokenize_chinese_chars": false}']
)
def test_another_tokenizer_than_berts_is_refused(place, text):
  weights = place("weights", "vocab.txt", "tokenizer_config.json")
  pathlib.Path(weights, "tokenizer_config.json").write_text(text)
  with pytest.raises(ValueError, match="is of another tokenizer than BERT's"):
    companions.open_tokenizer(
      f"{weights}/vocab.txt", True, modeling.BertConfig(3), weights
    )


def test_a_runs_casing_is_that_of_its_weights(place):
  weights = place("weights", "vocab.txt")
  manifest = pathlib.Path(weights, "run_manifest.json")
  manifest.write_text('{"settings": {"do_lower_case": false}}')
  assert companions.read_casing(weights) is False
  with pytest.raises(ValueError, match="say do_lower_case False"):
    companions.open_tokenizer(
      f"{weights}/vocab.txt", True, modeling.BertConfig(3), weights
    )


def test_the_config_is_of_the_weights_format(place):
  """Both say gelu, which means something else in each."""
  both = ["bert_config.json", "config.json", "vocab.txt"]
  theirs = place("theirs", *both, "model.safetensors")
  assert companions.find_config([theirs]) == f"{theirs}/config.json"
  ours = place("ours", *both)
  assert companions.find_config([ours]) == f"{ours}/bert_config.json"


def test_a_vocabulary_may_be_in_a_tokenizer_json(place):
  weights = place("weights", "config.json", "tokenizer.json")
  path = pathlib.Path(weights, "tokenizer.json")
  vocab = {"[UNK]": 0, "a": 3, "##b": 1}
  path.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocab}}))
  found = companions.find(None, weights).vocab_file
  assert found == str(path)
  tokenizer = companions.open_tokenizer(found, True, modeling.BertConfig(4))
  assert tokenizer.encode("ab") == [3, 1]
  run = output_directory.OutputDirectory(weights + "/run", {}, [])
  run.copy_vocab(found)
  copied = tokenization.load_vocab(weights + "/run/vocab.txt")
  assert copied == {"[UNK]": 0, "##b": 1, "": 2, "a": 3}


def test_flags_go_before_everything(place):
  weights = place("weights", "bert_config.json", "vocab.txt")
  found = companions.find("/none", weights, "a.json", "b.txt")
  assert (found.bert_config_file, found.vocab_file) == ("a.json", "b.txt")


@pytest.mark.parametrize(
  ("names", "flag"),
  [(("vocab.txt",), "--bert_config_file"), (("config.json",), "--vocab_file")],
)
def test_a_file_that_is_nowhere_is_asked_for(place, names, flag):
  with pytest.raises(FileNotFoundError, match=f"pass {flag}"):
    companions.find(place("out", *names), None)


def test_a_model_is_needed_to_be_used(place):
  out = place("out")
  companions.require_weights(out, "bert_model.ckpt")
  with pytest.raises(ValueError, match="out holds no checkpoint"):
    companions.require_weights(out, None)


@pytest.mark.parametrize(("size", "fits"), [(3, True), (8, True), (2, False)])
def test_a_vocabulary_may_be_padded_in_the_model(place, size, fits):
  vocab_file = place("out", "vocab.txt") + "/vocab.txt"
  config = modeling.BertConfig(vocab_size=size)
  if fits:
    tokenizer = companions.open_tokenizer(vocab_file, True, config)
    assert tokenizer.encode("x") == [0]
  else:
    with pytest.raises(ValueError, match="has 3 tokens, .* vocab_size is 2"):
      companions.open_tokenizer(vocab_file, True, config)


def test_a_vocabulary_of_another_model_is_refused(place):
  vocab_file = place("out", "vocab.txt") + "/vocab.txt"
  with pytest.raises(ValueError, match="do not belong together"):
    companions.open_tokenizer(
      vocab_file, True, modeling.BertConfig(vocab_size=30522)
    )


def test_the_case_of_published_models_is_known(place):
  vocab_file = place("out", "vocab.txt") + "/vocab.txt"
  with pytest.raises(ValueError, match="do_lower_case"):
    companions.open_tokenizer(
      vocab_file,
      True,
      modeling.BertConfig(vocab_size=3),
      "cased_L-12_H-768_A-12/bert_model.ckpt",
    )


def test_every_token_needs_a_position():
  config = modeling.BertConfig(vocab_size=3, max_position_embeddings=16)
  companions.check_length(16, config)
  with pytest.raises(ValueError, match="use 16 or less"):
    companions.check_length(17, config)
