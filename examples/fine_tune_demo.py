"""Fine-tunes the BERT of pretrain_demo.py: what `make demo` runs second.

The model learns to tell which chapter of Python's manual a passage is from. Its
accuracy is printed beside that of a constant answer and of logistic regression
on TF-IDF, for passages that neither pretraining nor training has seen. At last
the model is exported, and the export is asked in a process of its own.
"""

import argparse
import collections
import csv
import json
import math
import operator
import pathlib
import statistics
import textwrap

import manual_chapters
from pretrain_demo import SEQ_LENGTH
from pretrain_demo import run
from pretrain_demo import say

import tokenization

# Inverse strength of the regularisation, chosen on the development passages as
# BERT's best step is.
STRENGTHS = (1, 3, 10, 30, 100)
NUM_SHOWN = 4


def main():
  """Runs the demo in the folder that pretrain_demo.py has filled."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--output_dir", default="demo_output")
  parser.add_argument("--num_train_epochs", type=int, default=20)
  options = parser.parse_args()
  folder = pathlib.Path(options.output_dir)

  write_passages(folder)
  fine_tune(folder, options.num_train_epochs)
  compare_with_baselines(folder)
  show_predictions(folder)
  ask_export(folder)


def write_passages(folder):
  """Writes labelled passages that fill the model's positions."""
  tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
  rows = manual_chapters.write_files(
    folder / "chapters",
    count_tokens=lambda text: len(tokenizer.tokenize(text)),
    max_tokens=SEQ_LENGTH - 2,  # [CLS] and [SEP]
  )
  say(
    f"passages from {len(manual_chapters.CHAPTERS)} chapters: "
    + ", ".join(f"{len(rows[split])} {split}" for split in rows)
  )


def fine_tune(folder, num_train_epochs):
  """Trains, keeps the step that is best on dev, and labels test."""
  run(
    "run_classifier.py",
    "--do_train",
    "--do_eval",
    "--do_predict",
    "--do_export",
    "--adam_bias_correction",
    task_name="csv",
    data_dir=folder / "chapters",
    label_column="chapter",
    init_checkpoint=folder / "model" / "bert_model.ckpt",
    vocab_file=folder / "vocab.txt",
    output_dir=folder / "classifier",
    max_seq_length=SEQ_LENGTH,
    learning_rate=5e-4,  # Ten times BERT-Base's: the model is small.
    num_train_epochs=num_train_epochs,
    eval_steps=50,
    export_dir=folder / "export" / "1",
  )


def compare_with_baselines(folder):
  """Prints the accuracy of BERT and two baselines on the test passages."""
  train, dev, test = (
    read_passages(folder, split) for split in manual_chapters.SPLITS
  )
  bert = [line["label"] for line in read_predictions(folder)]
  tfidf = tfidf_baseline(train, dev, test)
  tfidf_hits, bert_hits = count_hits(tfidf, test), count_hits(bert, test)
  rows = {
    "most frequent chapter": count_hits(majority_baseline(train, test), test),
    "TF-IDF + logistic regression": tfidf_hits,
    "BERT": bert_hits,
    # Paired: passages that are hard for both do not add to the error.
    "BERT minus TF-IDF": [*map(operator.sub, bert_hits, tfidf_hits)],
  }
  say(f"accuracy on {len(test)} test passages (standard error):")
  for name, values in rows.items():
    error = statistics.pstdev(values) / math.sqrt(len(values))
    say(f"  {name:28}  {statistics.fmean(values):7.4f} ({error:.4f})")


def count_hits(labels, passages):
  """Returns for each passage 1 if its label is right, else 0."""
  pairs = zip(labels, passages, strict=True)
  return [int(label == chapter) for label, (_, chapter) in pairs]


def majority_baseline(train, test):
  """Predicts the most frequent chapter of the training passages for all."""
  counts = collections.Counter(chapter for _, chapter in train)
  [(chapter, _)] = counts.most_common(1)
  return [chapter] * len(test)


def tfidf_baseline(train, dev, test):
  """Predicts by logistic regression on the weights of words and word pairs."""
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline

  models = [
    make_pipeline(
      # On dev, pairs of words help it too.
      TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
      LogisticRegression(C=strength, max_iter=1000),
    ).fit(*zip(*train, strict=True))
    for strength in STRENGTHS
  ]
  best = max(models, key=lambda model: model.score(*zip(*dev, strict=True)))
  return best.predict([text for text, _ in test]).tolist()


def show_predictions(folder):
  """Prints some test passages with BERT's answer and the true one."""
  truth = [chapter for _, chapter in read_passages(folder, "test")]
  lines = read_predictions(folder)
  step = len(lines) // NUM_SHOWN
  for number in range(step // 2, len(lines), step):
    line = lines[number]
    share = line["probabilities"][line["label"]]
    verdict = "right" if line["label"] == truth[number] else truth[number]
    text = textwrap.shorten(line["text"], 150, placeholder=" ...")
    say(f"{text}\n    {line['label']} {share:.0%} ({verdict})")


def ask_export(folder):
  """Labels a passage with the export, which needs no other file."""
  passage, _ = read_passages(folder, "test")[0]
  run("run_predict.py", export_dir=folder / "export" / "1", text=passage)


def read_passages(folder, split):
  """Returns a list of [text, chapter]."""
  path = folder / "chapters" / f"{split}.csv"
  with open(path, encoding="utf-8", newline="") as file:
    return list(csv.reader(file))[1:]


def read_predictions(folder):
  """Reads the prediction that run_classifier.py wrote for each test passage."""
  path = folder / "classifier" / "predictions.jsonl"
  with open(path, encoding="utf-8") as file:
    return [json.loads(line) for line in file]


if __name__ == "__main__":
  main()
