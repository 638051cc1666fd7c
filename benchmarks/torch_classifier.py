"""Fine-tunes a classifier in transformers + PyTorch, as a peer to compare with.

    python benchmarks/torch_classifier.py --task_name=mrpc --data_dir=MRPC \
      --model_dir=MODEL --output_file=results.jsonl --seeds=1,2,3

Reads the same rows as run_classifier.py (through classifier_data) and takes the
same hyperparameters: AdamW with bias correction, epsilon 1e-6, decay 0.01 but
for biases and LayerNorm, BERT's learning-rate schedule, clipping at 1, dropout
0.1, batches of about equal length (transformers' LengthGroupedSampler), padded
to their longest. Tokens, padding and arithmetic are those of transformers.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np
import torch
import transformers
from transformers.trainer_pt_utils import LengthGroupedSampler

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import classifier_data  # noqa: E402
import task_metrics  # noqa: E402


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
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("task_name", "data_dir", "model_dir"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--output_file")
  parser.add_argument("--seeds", default="1")
  parser.add_argument("--max_seq_length", type=int, default=128)
  parser.add_argument("--train_batch_size", type=int, default=32)
  parser.add_argument("--learning_rate", type=float, default=5e-5)
  parser.add_argument("--num_train_epochs", type=float, default=3.0)
  parser.add_argument("--warmup_proportion", type=float, default=0.1)
  parser.add_argument("--max_steps", type=int, help="stop earlier; for timing")
  parser.add_argument("--num_threads", type=int)
  return parser.parse_args()


def load_split(task, split, options, tokenizer):
  """List of dicts of token ids, and the labels as the loss wants them."""
  path, layout = classifier_data.require_file(task, split, options.data_dir)
  examples = classifier_data.read_examples(
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


def run(task, data, options, tokenizer, seed):
  """Trains and evaluates; a dict of metrics and times."""
  transformers.set_seed(seed)
  num_labels = len(task.labels) or 1
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
    options.model_dir, num_labels=num_labels
  )
  rows, labels = data["train"]
  num_steps = int(
    len(rows) / options.train_batch_size * options.num_train_epochs
  )
  optimizer, schedule = make_optimizer(model, options, num_steps)
  model.train()
  start = time.monotonic()
  steps = min(num_steps, options.max_steps or num_steps)
  for numbers in train_batches(rows, options.train_batch_size, steps, seed):
    batch = tokenizer.pad([rows[i] for i in numbers], return_tensors="pt")
    loss = compute_loss(model(**batch).logits, torch.tensor(labels[numbers]))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
  seconds = time.monotonic() - start
  if options.max_steps:
    return {"steps": steps, "seconds": seconds}
  metrics = evaluate(task, model, data["dev"], tokenizer)
  return {"steps": steps, "seconds": seconds, **metrics}


def make_optimizer(model, options, num_steps):
  """AdamW and BERT's schedule: the decay counts from step 0."""
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


def train_batches(rows, batch_size, num_steps, seed):
  """Yields lists of row numbers, a permutation of all rows every epoch."""
  generator = torch.Generator().manual_seed(seed)
  lengths = [len(row["input_ids"]) for row in rows]
  waiting = []
  while True:
    waiting += LengthGroupedSampler(
      batch_size, lengths=lengths, generator=generator
    )
    while len(waiting) >= batch_size:
      if not num_steps:
        return
      num_steps -= 1
      yield waiting[:batch_size]
      waiting = waiting[batch_size:]


def compute_loss(logits, labels):
  """Cross entropy, or squared error where labels are scores."""
  if labels.is_floating_point():
    return torch.nn.functional.mse_loss(logits[:, 0], labels)
  return torch.nn.functional.cross_entropy(logits, labels.long())


def evaluate(task, model, data, tokenizer):
  """The task's metrics on its development set."""
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
