"""The network against transformers + PyTorch, recorded and live."""

import numpy as np
import pytest

import modeling
import tokenization
import torch_oracle
from bert_keras3.weights import checkpoints


def check_forward(oracle):
  model = modeling.BertPretrainer(
    modeling.BertConfig.from_dict(torch_oracle.CONFIG)
  )
  weights = modeling.named_variables(model)
  assert {f"weight/{name}" for name in weights} == {
    name for name in oracle if name.startswith("weight/")
  }
  for name, variable in weights.items():
    variable.assign(oracle[f"weight/{name}"])
  batch = {
    name: oracle[f"in_{name}"]
    for name in ("input_ids", "input_mask", "segment_ids")
  }
  batch["masked_lm_positions"] = np.tile(np.arange(11), [3, 1])
  outputs = {
    **model.encode(batch, training=False, dropout_seed=None),
    **model(batch),
  }
  real = batch["input_mask"] > 0
  for name in ("sequence_output", "masked_lm_logits", "next_sentence_logits"):
    expected, found = oracle[f"out_{name}"], outputs[name].numpy()
    # Rows of padding attend alike but for the size of the mask's adder.
    if found.shape[:2] == real.shape:
      expected, found = expected[real], found[real]
    # float32 rounding over two layers, as a share of the largest value.
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_forward_equals_recorded_pytorch(testdata):
  check_forward(np.load(testdata / "parity" / "torch_bert.npz"))


@pytest.mark.parity
def test_forward_equals_pytorch():
  check_forward(torch_oracle.compute())


@pytest.mark.parity
@pytest.mark.slow
def test_minilms_outputs_equal_pytorch_on_real_sentences(testdata, minilm_dir):
  """59 of 1 to 256 tokens, every token's vector, and the pooled ones."""
  import torch
  import transformers

  theirs = transformers.BertModel.from_pretrained(minilm_dir).eval()
  config = modeling.BertConfig.from_json_file(f"{minilm_dir}/config.json")
  ours = modeling.BertModel(config)
  checkpoints.load_weights(modeling.named_variables(ours), minilm_dir)
  tokenizer = tokenization.FullTokenizer(f"{minilm_dir}/vocab.txt")
  path = testdata / "extract_features" / "sentences.txt"
  lengths = set()
  for line in tokenization.read_lines(path):
    ids = [101, *tokenizer.encode(line)[:254], 102]
    lengths.add(len(ids))
    with torch.no_grad():
      expected = theirs(torch.tensor([ids]))
    found = ours({"input_ids": np.array([ids])})
    for name, their_name in (
      ("sequence_output", "last_hidden_state"),
      ("pooled_output", "pooler_output"),
    ):
      values = expected[their_name].numpy()
      error = np.abs(found[name] - values).max()
      # float32 rounding over six layers, as a share of the largest value.
      assert error <= 1e-5 * np.abs(values).max()
  assert min(lengths) <= 3 and max(lengths) == 256 and len(lengths) > 30
