"""Every head of transformers' BERT on PyTorch: random weights and outputs.

`make parity` runs it live. `make test` reads what it once wrote, kept by

    python tests/torch_heads.py tests/testdata/parity/heads
"""

import os
import sys

import numpy as np

import torch_oracle

# Each with what its constructor needs. One has the tanh form of gelu.
ARCHITECTURES = {
  "BertModel": {"hidden_act": "gelu"},
  "BertForPreTraining": {"hidden_act": "gelu_new"},
  "BertForMaskedLM": {"hidden_act": "gelu"},
  "BertForNextSentencePrediction": {"hidden_act": "relu"},
  "BertForSequenceClassification": {"num_labels": 3},
  "BertForQuestionAnswering": {},
  "BertForTokenClassification": {"num_labels": 5},
  "BertForMultipleChoice": {},
}
# Names of transformers' outputs.
OUTPUTS = {
  "BertModel": ("last_hidden_state", "pooler_output"),
  "BertForPreTraining": ("prediction_logits", "seq_relationship_logits"),
  "BertForQuestionAnswering": ("start_logits", "end_logits"),
}


def outputs_of(architecture):
  """Names of the outputs that are compared."""
  return OUTPUTS.get(architecture, ("logits",))


def make_inputs(architecture):
  """A batch with padding: int32 [3, 11], or [2, 3, 11] for choices."""
  shape = [2, 3, 11] if architecture == "BertForMultipleChoice" else [3, 11]
  rng = np.random.default_rng(0)
  mask = np.ones(shape, np.int32)
  mask[1, ..., 7:] = 0
  return {
    "input_ids": rng.integers(0, 60, shape, np.int32),
    "input_mask": mask,
    "segment_ids": rng.integers(0, 2, shape, np.int32),
  }


def save_random(architecture, directory):
  """Saves a model with random weights, as transformers does."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = transformers.BertConfig(
    **torch_oracle.CONFIG, **ARCHITECTURES[architecture]
  )
  model = getattr(transformers, architecture)(config)
  for parameter in model.parameters():  # Biases would all be 0.
    torch.nn.init.normal_(parameter, std=0.3)
  model.save_pretrained(directory)


def run(architecture, directory):
  """Outputs of a saved model, a dict of arrays by transformers' names.

  Raises:
    ValueError: transformers misses a weight, or does not know one.
  """
  import torch
  import transformers

  model, info = getattr(transformers, architecture).from_pretrained(
    directory, output_loading_info=True
  )
  problems = {name: found for name, found in info.items() if found}
  if problems:
    raise ValueError(f"{architecture}: {problems}")
  inputs = make_inputs(architecture)
  with torch.no_grad():
    outputs = model.eval()(
      input_ids=torch.tensor(inputs["input_ids"]),
      attention_mask=torch.tensor(inputs["input_mask"]),
      token_type_ids=torch.tensor(inputs["segment_ids"]),
    )
  return {name: outputs[name].numpy() for name in outputs_of(architecture)}


def record(directory):
  """Saves every model, and its outputs beside it."""
  for architecture in ARCHITECTURES:
    folder = os.path.join(directory, architecture)
    save_random(architecture, folder)
    np.savez(os.path.join(folder, "outputs.npz"), **run(architecture, folder))


if __name__ == "__main__":
  record(sys.argv[1])
