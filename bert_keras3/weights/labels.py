"""Reads and writes labels.txt: a label a line, in the order of the logits."""

import tokenization
from bert_keras3.weights import hugging_face


def read_labels(labels_file):
  """Reads the labels in a labels.txt, or in a config.json of transformers.

  Raises:
    OSError: there is no such file, or it cannot be read.
    ValueError: a labels.txt is empty, repeats a label or is not UTF-8.
  """
  if labels_file.endswith(".json"):
    return hugging_face.read_labels(labels_file)
  labels = list(tokenization.read_lines(labels_file))
  if "" in labels or not 0 < len(labels) == len(set(labels)):
    raise ValueError(
      f"{labels_file} should hold a label on each line, and each once; copy it "
      "again from the directory that the model was trained in"
    )
  return labels


def format_labels(labels):
  """Returns the text of a labels.txt."""
  return "".join(f"{label}\n" for label in labels)
