"""BERT's outputs as transformers + PyTorch compute them.

`make parity` calls `compute()` live. `make test` compares with the numbers it
once gave, kept by running this file:

    python tests/torch_oracle.py tests/testdata/parity/torch_bert.npz
"""

import sys

import numpy as np

CONFIG = {
  "vocab_size": 60,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 40,
  "max_position_embeddings": 24,
  "type_vocab_size": 2,
}
# Attribute paths in transformers.BertForPreTraining, by upstream's scopes.
# Linear layers keep [out, in] there.
ENCODER_SCOPES = {
  "bert/embeddings/LayerNorm": "bert.embeddings.LayerNorm",
  "bert/pooler/dense": "bert.pooler.dense",
  "cls/predictions/transform/dense": "cls.predictions.transform.dense",
  "cls/predictions/transform/LayerNorm": "cls.predictions.transform.LayerNorm",
}
LAYER_SCOPES = {
  "attention/self/query": "attention.self.query",
  "attention/self/key": "attention.self.key",
  "attention/self/value": "attention.self.value",
  "attention/output/dense": "attention.output.dense",
  "attention/output/LayerNorm": "attention.output.LayerNorm",
  "intermediate/dense": "intermediate.dense",
  "output/dense": "output.dense",
  "output/LayerNorm": "output.LayerNorm",
}


def compute():
  """Returns a dict of arrays: weights by upstream's names, in_* and out_*."""
  import torch
  import transformers

  torch.manual_seed(0)
  # transformers' name of the tanh form is gelu_new.
  config = transformers.BertConfig(**CONFIG, hidden_act="gelu_new")
  model = transformers.BertForPreTraining(config).eval()
  for parameter in model.parameters():  # Biases would all be 0.
    torch.nn.init.normal_(parameter, std=0.3)
  rng = np.random.default_rng(0)
  mask = np.ones([3, 11], np.int32)
  mask[1, 7:] = 0
  inputs = {
    "input_ids": rng.integers(0, 60, [3, 11], np.int32),
    "input_mask": mask,
    "segment_ids": rng.integers(0, 2, [3, 11], np.int32),
  }
  with torch.no_grad():
    outputs = model(
      input_ids=torch.tensor(inputs["input_ids"]),
      attention_mask=torch.tensor(inputs["input_mask"]),
      token_type_ids=torch.tensor(inputs["segment_ids"]),
      output_hidden_states=True,
    )
  return {
    **{f"weight/{name}": x for name, x in _weights(model).items()},
    **{f"in_{name}": x for name, x in inputs.items()},
    "out_sequence_output": outputs.hidden_states[-1].numpy(),
    "out_masked_lm_logits": outputs.prediction_logits.numpy(),
    "out_next_sentence_logits": outputs.seq_relationship_logits.numpy(),
  }


def _weights(model):
  state = {name: x.numpy() for name, x in model.state_dict().items()}
  scopes = dict(ENCODER_SCOPES)
  for i in range(CONFIG["num_hidden_layers"]):
    for ours, theirs in LAYER_SCOPES.items():
      scopes[f"bert/encoder/layer_{i}/{ours}"] = (
        f"bert.encoder.layer.{i}.{theirs}"
      )
  weights = {
    f"bert/embeddings/{kind}_embeddings": state[
      f"bert.embeddings.{kind}_embeddings.weight"
    ]
    for kind in ("word", "position", "token_type")
  }
  for ours, theirs in scopes.items():
    if ours.endswith("LayerNorm"):
      weights[f"{ours}/gamma"] = state[f"{theirs}.weight"]
      weights[f"{ours}/beta"] = state[f"{theirs}.bias"]
    else:
      weights[f"{ours}/kernel"] = state[f"{theirs}.weight"].T
      weights[f"{ours}/bias"] = state[f"{theirs}.bias"]
  weights["cls/predictions/output_bias"] = state["cls.predictions.bias"]
  head = "cls.seq_relationship"
  weights["cls/seq_relationship/output_weights"] = state[f"{head}.weight"]
  weights["cls/seq_relationship/output_bias"] = state[f"{head}.bias"]
  return weights


if __name__ == "__main__":
  np.savez_compressed(sys.argv[1], **compute())
