"""Fine-tunes a classifier in transformers + PyTorch, as a peer to compare with.

    python -m benchmarks.torch_classifier --task_name=mrpc --data_dir=MRPC \
      --model_dir=MODEL --output_file=results.jsonl --seeds=1,2,3

Reads the same rows as run_classifier.py (through classifier_data) and takes the
same hyperparameters: AdamW with bias correction, epsilon 1e-6, decay 0.01 but
for biases and LayerNorm, BERT's learning-rate schedule, clipping at 1, dropout
0.1, batches of about equal length (transformers' LengthGroupedSampler), padded
to their longest. Tokens, padding and arithmetic are those of transformers.
"""

import argparse
import itertools
import json
import time

import numpy as np
import torch
import transformers
from transformers.trainer_pt_utils import LengthGroupedSampler

from bert_keras3.data import tables
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import metrics as task_metrics


def main():
  """Trains once per seed; appends a JSON line of results for each."""
  options = parse_options()
  if options.num_threads:
    torch.set_num_threads(options.num_threads)
  task = classifier_data.find_task(options.task_name)
  tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_dir)
  data = {
    split: load_split(task, split, options, tokenizer)
    for split in ("train", "dev")
  }
  for seed in map(int, options.seeds.split(",")):
    row = {"task": task.name, "seed": seed, "lr": options.learning_rate}
    row.update(run(task, data, options, tokenizer, seed))
    print(json.dumps(row), flush=True)
    if options.output_file:
      with open(options.output_file, "a") as file:
        file.write(json.dumps(row) + "\n")


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--task_name", required=True)
  parser.add_argument("--data_dir", required=True)
  parser.add_argument("--model_dir", required=True)
  parser.add_argument("--output_file")
  parser.add_argument("--seeds", default="1")
  parser.add_argument("--max_seq_length", type=int, default=128)
  parser.add_argument("--train_batch_size", type=int, default=32)
  parser.add_argument("--learning_rate", type=float, default=5e-5)
  parser.add_argument("--num_train_epochs", type=float, default=3.0)
  parser.add_argument("--warmup_proportion", type=float, default=0.1)
  parser.add_argument("--num_threads", type=int)
  return parser.parse_args()


def load_split(task, split, options, tokenizer):
  """Returns a list of dicts of token ids, and the labels for the loss."""
  path, layout = classifier_data.require_file(task, split, options.data_dir)
  examples = tables.read_examples(
    path, layout, split, task.problem_type, task.labels or None
  )
  texts = [x.text_a for x in examples]
  pairs = [x.text_b for x in examples] if examples[0].text_b else None
  encoded = tokenizer(
    texts, pairs, truncation=True, max_length=options.max_seq_length
  )
  rows = [
    {name: encoded[name][i] for name in encoded} for i in range(len(examples))
  ]
  labels = classifier_data.label_ids(examples, task.labels, task.problem_type)
  return rows, labels


class Peer:
  """A model in training.

  Args:
    task: classifier_data.Task.
    data: (rows, labels) of training, from `load_split`.
    options: what `parse_options` returns.
    tokenizer: transformers tokenizer.
    seed: int.
  """

  def __init__(self, task, data, options, tokenizer, seed):
    transformers.set_seed(seed)
    self.rows, self.labels = data
    self.tokenizer = tokenizer
    self.model = (
      transformers.AutoModelForSequenceClassification.from_pretrained(
        options.model_dir, num_labels=len(task.labels) or 1
      )
    )
    self.num_steps = int(
      len(self.rows) / options.train_batch_size * options.num_train_epochs
    )
    self.optimizer, self.schedule = make_optimizer(
      self.model, options, self.num_steps
    )
    self.batches = train_batches(self.rows, options.train_batch_size, seed)

  def take_steps(self, count):
    """Makes `count` updates; returns the seconds they took."""
    self.model.train()
    start = time.monotonic()
    for numbers in itertools.islice(self.batches, count):
      rows = [self.rows[i] for i in numbers]
      batch = self.tokenizer.pad(rows, return_tensors="pt")
      labels = torch.tensor(self.labels[numbers])
      compute_loss(self.model(**batch).logits, labels).backward()
      torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
      self.optimizer.step()
      self.schedule.step()
      self.optimizer.zero_grad()
    return time.monotonic() - start


def run(task, data, options, tokenizer, seed):
  """Trains and evaluates; returns a dict of metrics and times."""
  peer = Peer(task, data["train"], options, tokenizer, seed)
  seconds = peer.take_steps(peer.num_steps)
  metrics = evaluate(task, peer.model, data["dev"], tokenizer)
  return {"steps": peer.num_steps, "seconds": seconds, **metrics}


def make_optimizer(model, options, num_steps):
  """Makes AdamW and BERT's schedule, whose decay counts from step 0."""
  groups = {True: [], False: []}
  for name, parameter in model.named_parameters():
    groups["bias" not in name and "LayerNorm" not in name].append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {"params": groups[True], "weight_decay": 0.01},
      {"params": groups[False], "weight_decay": 0.0},
    ],
    lr=options.learning_rate,
    eps=1e-6,
  )
  num_warmup = int(num_steps * options.warmup_proportion)

  def factor(step):
    return step / num_warmup if step < num_warmup else 1 - step / num_steps

  return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_batches(rows, batch_size, seed):
  """Yields lists of row numbers without end, all rows once an epoch."""
  generator = torch.Generator().manual_seed(seed)
  lengths = [len(row["input_ids"]) for row in rows]
  waiting = []
  while True:
    waiting += LengthGroupedSampler(
      batch_size, lengths=lengths, generator=generator
    )
    while len(waiting) >= batch_size:
      yield waiting[:batch_size]
      waiting = waiting[batch_size:]


def compute_loss(logits, labels):
  """Computes the cross entropy, or the squared error of scores."""
  if labels.is_floating_point():
    return torch.nn.functional.mse_loss(logits[:, 0], labels)
  return torch.nn.functional.cross_entropy(logits, labels.long())


def evaluate(task, model, data, tokenizer):
  """Computes the metrics of the task on its development set."""
  rows, labels = data
  model.eval()
  logits = []
  with torch.no_grad():
    for start in range(0, len(rows), 64):
      batch = tokenizer.pad(rows[start : start + 64], return_tensors="pt")
      logits.append(model(**batch).logits.numpy())
  logits = np.concatenate(logits)
  predictions = task_metrics.predict_labels(task.problem_type, logits)
  return task_metrics.compute(task.metrics, labels, predictions)


if __name__ == "__main__":
  main()
