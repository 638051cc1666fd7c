"""The network against transformers + PyTorch, recorded and live."""

import numpy as np
import pytest
import torch_oracle

import modeling


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
