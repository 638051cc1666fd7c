"""The script as a user calls it."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import modeling
import tokenization
import torch_heads
from bert_keras3.weights import checkpoints

ROOT = pathlib.Path(__file__).resolve().parent.parent


def call(**flags):
  """Runs the script; returns the finished process."""
  values = [
    f"--{name}" if value is True else f"--{name}={value}"
    for name, value in flags.items()
  ]
  return subprocess.run(
    [sys.executable, str(ROOT / "convert_checkpoint.py"), *values],
    capture_output=True,
    text=True,
    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
  )


def succeed(**flags):
  done = call(**flags)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture
def theirs(testdata, tmp_path):
  """A masked-LM directory of transformers with a vocabulary."""
  folder = tmp_path / "theirs"
  shutil.copytree(testdata / "parity" / "heads" / "BertForMaskedLM", folder)
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
  tokens += ["a", "##b", "##c"]
  tokens += [f"w{i}" for i in range(60 - len(tokens))]
  (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
  return folder


def open_model(directory):
  """Our masked-LM head with the weights of a directory of ours."""
  config = modeling.BertConfig.from_json_file(f"{directory}/bert_config.json")
  model = modeling.BertPretrainer(config)
  variables = modeling.named_variables(model)
  checkpoints.load_weights(variables, str(directory))
  return model


def test_vocabulary_and_positions_grow_together(theirs, tmp_path):
  new = tmp_path / "new.txt"
  new.write_text("abc\n\nacb\nw1\n")
  stdout = succeed(
    init_checkpoint=theirs,
    output_dir=tmp_path / "out",
    output_format="tf1",
    extend_vocab=new,
    max_position_embeddings=50,
  )
  assert "2 tokens added: 1 in place of [unusedN], 1 at the end" in stdout
  assert "1 were known already" in stdout
  assert "positions: 24, now 50, the trained ones repeated" in stdout
  out = tmp_path / "out"
  config = modeling.BertConfig.from_json_file(f"{out}/bert_config.json")
  assert (config.vocab_size, config.max_position_embeddings) == (61, 50)
  tokenizer = tokenization.FullTokenizer(f"{out}/vocab.txt")
  assert tokenizer.encode("abc acb ab") == [5, 60, 6, 7]
  model, before = open_model(out), convert_plain(theirs, tmp_path)
  batch = torch_heads.make_inputs("BertForMaskedLM")
  # Of [unused0] the row is another now.
  batch["input_ids"] = np.where(batch["input_ids"] == 5, 4, batch["input_ids"])
  batch["masked_lm_positions"] = np.tile(np.arange(11), [3, 1])
  old, new = before(batch), model(batch)
  kept = [i for i in range(60) if i != 5]
  np.testing.assert_allclose(
    tf.gather(new["masked_lm_logits"], kept, axis=-1),
    tf.gather(old["masked_lm_logits"], kept, axis=-1),
    atol=1e-5,  # float32 products in another order
  )
  long = model(
    {
      "input_ids": np.ones([1, 50], np.int32),
      "masked_lm_positions": np.zeros([1, 1], np.int32),
    }
  )
  assert np.all(np.isfinite(long["masked_lm_logits"]))


def convert_plain(theirs, tmp_path):
  succeed(
    init_checkpoint=theirs, output_dir=tmp_path / "plain", output_format="tf1"
  )
  return open_model(tmp_path / "plain")


def test_a_dry_run_shows_the_table_and_writes_nothing(theirs, tmp_path):
  before = sorted(tmp_path.rglob("*"))
  stdout = succeed(
    init_checkpoint=theirs, output_format="hugging_face", dry_run=True
  )
  assert "42 tensors: 42 matched" in stdout
  assert "written" not in stdout
  assert sorted(tmp_path.rglob("*")) == before


def test_casing_can_be_given(theirs, tmp_path):
  out = tmp_path / "out"
  stdout = succeed(
    init_checkpoint=theirs,
    output_dir=out,
    output_format="hugging_face",
    do_lower_case="false",
  )
  assert "do_lower_case: False" in stdout
  assert '"do_lower_case": false' in (out / "tokenizer_config.json").read_text()


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ({"output_dir": ""}, "pass --output_dir, or --dry_run"),
    ({"extend_vocab": "nowhere.txt"}, "nowhere.txt: no such file"),
    ({"init_checkpoint": "nowhere"}, "no checkpoint at nowhere"),
    ({"architecture": "BertForQuestionAnswering"}, "the head cls/squad"),
    ({"max_position_embeddings": 3}, "the model has 24 already"),
    ({"output_dir": "theirs"}, "theirs is not empty"),
  ],
)
def test_mistakes_are_one_sentence(theirs, tmp_path, monkeypatch, flags, words):
  monkeypatch.chdir(tmp_path)
  done = call(
    **{
      "init_checkpoint": theirs,
      "output_dir": "out",
      "output_format": "hugging_face",
      **flags,
    }
  )
  assert done.returncode == 1
  assert words in done.stderr
  assert done.stderr.startswith("convert_checkpoint: error: ")
  assert len(done.stderr.splitlines()) == 1
  assert not (tmp_path / "out").exists()
