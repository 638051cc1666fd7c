"""Feature files as PyTorch makes them, the slow way.

`make parity` calls `token_lines()` and `sentence_vectors()` live. `make test`
compares with what they once gave, kept by running this file:

    python tests/torch_features.py MINILM_DIRECTORY
"""

import json
import pathlib
import re
import sys

import numpy as np

import reference_tokenization
import torch_oracle

TESTS = pathlib.Path(__file__).resolve().parent
FOLDER = TESTS / "testdata" / "extract_features"
# Of torch_oracle's network.
WEIGHTS = TESTS / "testdata" / "parity" / "torch_bert.npz"
MAX_SEQ_LENGTH = 16
LAYERS = (-1, 0)


def token_lines():
  """Upstream's JSON for each of lines.txt, of a tiny network."""
  import torch

  vocab = (FOLDER / "vocab.txt").read_text(encoding="utf-8").split()
  vocab = {token: number for number, token in enumerate(vocab)}
  model = make_model(np.load(WEIGHTS))
  lines = (FOLDER / "lines.txt").read_text(encoding="utf-8").split("\n")[:-1]
  found = []
  for number, line in enumerate(lines):
    tokens, segment_ids = split(line.strip(), vocab)
    padding = [0] * (MAX_SEQ_LENGTH - len(tokens))
    with torch.no_grad():
      outputs = model(
        input_ids=torch.tensor([[vocab[x] for x in tokens] + padding]),
        attention_mask=torch.tensor([[1] * len(tokens) + padding]),
        token_type_ids=torch.tensor([segment_ids + padding]),
        output_hidden_states=True,
      )
    layers = outputs.hidden_states[1:]  # the first are the embeddings
    features = [
      {
        "token": token,
        "layers": [
          {
            "index": index,
            "values": [round(float(x), 6) for x in layers[index][0, position]],
          }
          for index in LAYERS
        ],
      }
      for position, token in enumerate(tokens)
    ]
    found.append(json.dumps({"linex_index": number, "features": features}))
  return found


def make_model(arrays):
  """torch_oracle's network, without its heads."""
  import torch
  import transformers

  config = transformers.BertConfig(**torch_oracle.CONFIG, hidden_act="gelu_new")
  model = transformers.BertModel(config).eval()
  state = model.state_dict()
  for name in state:
    ours, is_kernel = upstream_name(name)
    if ours:
      array = arrays[f"weight/{ours}"]
      state[name] = torch.tensor(array.T if is_kernel else array)
  model.load_state_dict(state)
  return model


def upstream_name(name):
  """(upstream's name of a tensor of transformers, whether it is transposed)."""
  scope, kind = name.rsplit(".", 1)
  if scope.endswith("_embeddings"):
    return f"bert/{scope.replace('.', '/')}", False
  if kind not in ("weight", "bias"):
    return None, False
  scope = re.sub(r"layer\.(\d+)", r"layer_\1", scope).replace(".", "/")
  if scope.endswith("LayerNorm"):
    return f"bert/{scope}/{'gamma' if kind == 'weight' else 'beta'}", False
  kernel = "kernel" if kind == "weight" else "bias"
  return f"bert/{scope}/{kernel}", kind == "weight"


def split(line, vocab):
  """Tokens and segment ids of a line, cut as upstream does."""
  pair = re.match(r"^(.*) \|\|\| (.*)$", line)
  texts = pair.groups() if pair else (line, "")
  a, b = (reference_tokenization.tokenize(x, vocab, True) for x in texts)
  while len(a) + len(b) > MAX_SEQ_LENGTH - (3 if b else 2):
    (a if len(a) > len(b) else b).pop()
  first = ["[CLS]", *a, "[SEP]"]
  second = [*b, "[SEP]"] if b else []
  return first + second, [0] * len(first) + [1] * len(second)


def sentence_vectors(model_dir):
  """float32 [lines, width] of sentences.txt, of sentence-transformers."""
  import sentence_transformers

  model = sentence_transformers.SentenceTransformer(model_dir, device="cpu")
  text = (FOLDER / "sentences.txt").read_text(encoding="utf-8")
  return model.encode(text.split("\n")[:-1], normalize_embeddings=True)


if __name__ == "__main__":
  with open(FOLDER / "expected.jsonl", "w") as writer:
    writer.writelines(line + "\n" for line in token_lines())
  np.savez_compressed(
    FOLDER / "sentence_transformers.npz",
    embeddings=sentence_vectors(sys.argv[1]),
  )
