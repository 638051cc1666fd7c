"""Trains a reader in transformers + PyTorch, as a peer to compare with.

    python -m benchmarks.torch_squad --train_file=train-v1.1.json \
      --predict_file=dev-v1.1.json --model_dir=MODEL --output_dir=out

Takes the hyperparameters of run_squad.py --adam_bias_correction: windows of
--max_seq_length tokens that start --doc_stride tokens apart, AdamW with epsilon
1e-6, decay 0.01 but for biases and LayerNorm, BERT's learning-rate schedule,
clipping at 1, dropout 0.1, batches of about equal length padded to their
longest, as many steps as the questions make. Tokens, offsets, padding and
arithmetic are those of transformers, and answers are cut out of the text at the
tokens' offsets, as its own example of question answering does. Scored by our
scorer.
"""

import argparse
import itertools
import json
import pathlib
import time

import numpy as np
import torch
import transformers

from benchmarks import torch_classifier
from bert_keras3.tasks import squad_metrics


def main():
  """Trains, predicts and scores; prints and writes a JSON line of results."""
  options = parse_options()
  if options.num_threads:
    torch.set_num_threads(options.num_threads)
  tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_dir)
  output_dir = pathlib.Path(options.output_dir)
  seconds = {}
  train_examples = load_examples(options.train_file)
  with timed(seconds, "train_features"):
    rows = make_rows(train_examples, options, tokenizer)
  peer = Peer(rows, len(train_examples), options, tokenizer)
  seconds["train"] = peer.train(report_every=10)
  peer.model.save_pretrained(output_dir)
  examples = load_examples(options.predict_file)
  with timed(seconds, "predict_features"):
    rows = make_rows(examples, options, tokenizer)
  with timed(seconds, "predict"):
    logits = predict(peer.model, rows, options.predict_batch_size, tokenizer)
  with timed(seconds, "decode"):
    predictions = decode(examples, rows, logits, options)
  (output_dir / "predictions.json").write_text(
    json.dumps(predictions, indent=4)
  )
  answers = [(x["id"], x["answers"]) for x in examples]
  scores = squad_metrics.squad_v1_scores(answers, predictions)
  text = json.dumps({"seed": options.seed, **scores, "seconds": seconds})
  (output_dir / "results.json").write_text(text + "\n")
  print(text)


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("train_file", "predict_file", "model_dir", "output_dir"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--max_seq_length", type=int, default=384)
  parser.add_argument("--doc_stride", type=int, default=128)
  parser.add_argument("--max_query_length", type=int, default=64)
  parser.add_argument("--train_batch_size", type=int, default=32)
  parser.add_argument("--predict_batch_size", type=int, default=8)
  parser.add_argument("--learning_rate", type=float, default=5e-5)
  parser.add_argument("--num_train_epochs", type=float, default=3.0)
  parser.add_argument("--warmup_proportion", type=float, default=0.1)
  parser.add_argument("--n_best_size", type=int, default=20)
  parser.add_argument("--max_answer_length", type=int, default=30)
  parser.add_argument("--num_threads", type=int)
  return parser.parse_args()


class timed:
  """Context manager: puts the seconds its body took into a dict."""

  def __init__(self, seconds, name):
    self.seconds, self.name = seconds, name

  def __enter__(self):
    self.start = time.monotonic()

  def __exit__(self, *_):
    self.seconds[self.name] = time.monotonic() - self.start


def load_examples(path):
  """Returns dicts of id, question, context, answers and answer_start."""
  data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["data"]
  return [
    {
      "id": question["id"],
      "question": question["question"].strip(),
      "context": paragraph["context"],
      "answers": [answer["text"] for answer in question["answers"]],
      "answer_start": question["answers"][0]["answer_start"],
    }
    for article in data
    for paragraph in article["paragraphs"]
    for question in paragraph["qas"]
  ]


def make_rows(examples, options, tokenizer):
  """Makes a list of windows: dicts of token ids, offsets and labels."""
  rows = []
  for number, example in enumerate(examples):
    question = tokenizer(
      example["question"],
      add_special_tokens=False,
      truncation=True,
      max_length=options.max_query_length,
    )["input_ids"]
    # transformers' stride is what windows share, not how far they are apart.
    room = options.max_seq_length - len(question) - 3
    encoded = tokenizer(
      tokenizer.decode(question)
      if len(question) == options.max_query_length
      else example["question"],
      example["context"],
      truncation="only_second",
      max_length=options.max_seq_length,
      stride=max(0, room - options.doc_stride),
      return_overflowing_tokens=True,
      return_offsets_mapping=True,
    )
    for window in range(len(encoded["input_ids"])):
      rows.append(make_row(encoded, window, number, example))
  return rows


def make_row(encoded, window, number, example):
  """Makes a window of `encoded`; offsets outside the context are (-1, -1)."""
  in_context = np.array([x == 1 for x in encoded.sequence_ids(window)])
  offsets = np.array(encoded["offset_mapping"][window])
  offsets[~in_context] = -1
  start = example["answer_start"]
  end = start + len(example["answers"][0])
  starts = np.flatnonzero((offsets[:, 0] <= start) & (offsets[:, 1] > start))
  ends = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] >= end))
  is_inside = len(starts) and len(ends)
  return {
    "features": {
      name: encoded[name][window]
      for name in ("input_ids", "token_type_ids", "attention_mask")
    },
    "offsets": offsets,
    "example": number,
    "span": (starts[0], ends[0]) if is_inside else (0, 0),
  }


class Peer:
  """A model in training.

  Args:
    rows: windows, from `make_rows`.
    num_examples: questions, which decide the number of steps.
    options: what `parse_options` returns.
    tokenizer: transformers tokenizer.
  """

  def __init__(self, rows, num_examples, options, tokenizer):
    transformers.set_seed(options.seed)
    self.rows = [row["features"] for row in rows]
    self.spans = np.array([row["span"] for row in rows])
    self.tokenizer = tokenizer
    self.model = transformers.AutoModelForQuestionAnswering.from_pretrained(
      options.model_dir
    )
    self.num_steps = int(
      num_examples / options.train_batch_size * options.num_train_epochs
    )
    self.optimizer, self.schedule = torch_classifier.make_optimizer(
      self.model, options, self.num_steps
    )
    self.batches = torch_classifier.train_batches(
      self.rows, options.train_batch_size, options.seed
    )

  def take_steps(self, count):
    """Makes `count` updates; returns their seconds and the last loss."""
    self.model.train()
    start = time.monotonic()
    for numbers in itertools.islice(self.batches, count):
      batch = self.tokenizer.pad(
        [self.rows[i] for i in numbers], return_tensors="pt"
      )
      spans = torch.tensor(self.spans[numbers])
      loss = self.model(
        **batch, start_positions=spans[:, 0], end_positions=spans[:, 1]
      ).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
      self.optimizer.step()
      self.schedule.step()
      self.optimizer.zero_grad()
    return time.monotonic() - start, loss.item()

  def train(self, report_every):
    """Makes all updates; returns the seconds they took."""
    total = 0.0
    for step in range(0, self.num_steps, report_every):
      count = min(report_every, self.num_steps - step)
      seconds, loss = self.take_steps(count)
      total += seconds
      print(
        f"step {step + count} of {self.num_steps}: loss {loss:.4f}, "
        f"{seconds / count:.2f} s a step",
        flush=True,
      )
    return total


def predict(model, rows, batch_size, tokenizer):
  """Computes start and end logits: a list of [2, length], one a window."""
  model.eval()
  order = np.argsort([len(row["offsets"]) for row in rows], kind="stable")
  logits = [None] * len(rows)
  with torch.no_grad():
    for first in range(0, len(rows), batch_size):
      numbers = order[first : first + batch_size]
      batch = tokenizer.pad(
        [rows[i]["features"] for i in numbers], return_tensors="pt"
      )
      output = model(**batch)
      both = torch.stack([output.start_logits, output.end_logits], 1).numpy()
      for i, number in enumerate(numbers):
        logits[number] = both[i, :, : len(rows[number]["offsets"])]
  return logits


def decode(examples, rows, logits, options):
  """Finds the best answer of each question: a dict from id to text."""
  best = {x["id"]: (-np.inf, "") for x in examples}
  for row, (starts, ends) in zip(rows, logits, strict=True):
    example = examples[row["example"]]
    top_starts, top_ends = (
      np.argsort(x)[::-1][: options.n_best_size].tolist()
      for x in (starts, ends)
    )
    for start in top_starts:
      for end in top_ends:
        if not is_answer(row["offsets"], start, end, options.max_answer_length):
          continue
        score = starts[start] + ends[end]
        if score > best[example["id"]][0]:
          first, last = row["offsets"][start][0], row["offsets"][end][1]
          best[example["id"]] = (score, example["context"][first:last])
  return {key: text for key, (_, text) in best.items()}


def is_answer(offsets, start, end, max_answer_length):
  """Tells whether two tokens bound a part of the context, not too long."""
  if offsets[start][0] < 0 or offsets[end][0] < 0:
    return False
  return 0 <= end - start < max_answer_length


if __name__ == "__main__":
  main()
