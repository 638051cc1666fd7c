"""Times a training step of run_classifier against transformers + PyTorch.

    python benchmarks/fine_tuning.py --task_name=mrpc --data_dir=MRPC \\
      --model_dir=MODEL

In turns, a process each, and on the same rows: ours with batches of about equal
length, ours with every sequence padded to --max_seq_length, and transformers
with its own sampler of about equal lengths. A turn is a group of 50 steps, in
which all lengths occur. Needs the `bench` extra.
"""

import argparse
import itertools
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bert_keras3.console import start as start_module
from bert_keras3.data import tables
from bert_keras3.tasks import classifier_data  # noqa: E402


def main():
  """Prints seconds per epoch and their ratios, medians over the rounds."""
  options = parse_options()
  # A process each: two frameworks' threads would be in each other's way.
  context = multiprocessing.get_context("spawn")
  engines = {
    name: start(context, make, options) for name, make in ENGINES.items()
  }
  steps_per_epoch = [pipe.recv() for pipe in engines.values()][0]
  rounds = []
  for _ in range(options.rounds):
    rounds.append([take_turn(pipe) for pipe in engines.values()])
    print("  ".join(f"{x:.3f}" for x in rounds[-1]), "s/step", flush=True)
  report(engines, rounds, steps_per_epoch)


def parse_options():
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("task_name", "data_dir", "model_dir"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--max_seq_length", type=int, default=128)
  parser.add_argument("--train_batch_size", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=5)
  parser.set_defaults(
    learning_rate=5e-5, num_train_epochs=10.0, warmup_proportion=0.1
  )
  return parser.parse_args()


def start(context, make, options):
  """Starts an engine in a process; returns the pipe to it."""
  ours, theirs = context.Pipe()
  context.Process(
    target=serve, args=(make, options, theirs), daemon=True
  ).start()
  return ours


def serve(make, options, pipe):
  """Sends the steps of an epoch, then takes turns until nobody asks."""
  task = classifier_data.find_task(options.task_name)
  engine = make(task, options)
  engine.take_steps(2)  # Tracing, first allocations.
  pipe.send(len(engine.rows) / options.train_batch_size)
  while True:
    steps = pipe.recv()
    pipe.send(engine.take_steps(steps) / steps)


def take_turn(pipe):
  """Seconds a step of one engine takes, while the others wait."""
  pipe.send(STEPS_PER_TURN)
  return pipe.recv()


def make_ours(task, options):
  """Batches of about equal length, padded to one of a few."""
  return Ours(task, options, pad_to_max_length=False)


def make_padded(task, options):
  """Every sequence padded to max_seq_length."""
  return Ours(task, options, pad_to_max_length=True)


def make_peer(task, options):
  """The torch_classifier.Peer of the options."""
  import torch_classifier
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_dir)
  data = torch_classifier.load_split(task, "train", options, tokenizer)
  return torch_classifier.Peer(task, data, options, tokenizer, seed=1)


# A group of ours, in which all lengths occur.
STEPS_PER_TURN = 50
ENGINES = {
  "ours": make_ours,
  "ours, --pad_to_max_length": make_padded,
  "transformers + PyTorch": make_peer,
}


class Ours:
  """The Trainer that run_classifier would make."""

  def __init__(self, task, options, pad_to_max_length):
    start_module.load_tensorflow()
    import modeling
    import optimization
    import tokenization
    from bert_keras3.data import order as order_module
    from bert_keras3.training import devices
    from bert_keras3.training import loop
    from bert_keras3.weights import checkpoints

    folder = pathlib.Path(options.model_dir)
    path, layout = classifier_data.require_file(task, "train", options.data_dir)
    examples = tables.read_examples(
      path, layout, "train", task.problem_type, task.labels or None
    )
    tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
    source = classifier_data.make_split(
      examples,
      task,
      tokenizer,
      options.max_seq_length,
      pad_to_max_length=pad_to_max_length,
    ).source
    self.rows = source
    strategy = devices.make_strategy(devices.DeviceConfig())
    with strategy.scope():
      model = modeling.BertClassifier(
        modeling.BertConfig.from_json_file(str(folder / "config.json")),
        len(task.labels) or 1,
        problem_type=task.problem_type,
      )
    num_steps = int(
      len(source) / options.train_batch_size * options.num_train_epochs
    )
    self.trainer = loop.Trainer(
      strategy,
      model,
      loop.TrainingConfig(
        output_dir=tempfile.mkdtemp(),
        schedule=optimization.LearningRateSchedule(
          options.learning_rate, num_steps, num_steps // 10
        ),
        train_batch_size=options.train_batch_size,
        adam_bias_correction=True,
        seed=1,
      ),
    )
    checkpoints.load_weights(self.trainer.weights, options.model_dir)
    order = order_module.training_order(source, options.train_batch_size, 1)
    self.iterator = iter(
      devices.distribute_batches(
        strategy,
        lambda: (source.take(order.batch(x), x) for x in itertools.count()),
        source.specs,
        options.train_batch_size,
        num_micro_batches=1,
      )
    )

  def take_steps(self, count):
    """Makes `count` updates; returns the seconds they took."""
    start = time.monotonic()
    self.trainer.train_steps(self.iterator, count)
    return time.monotonic() - start


def report(names, rounds, steps_per_epoch):
  """Prints medians, and ratios to ours with their range."""
  for name, seconds in zip(names, zip(*rounds, strict=True), strict=True):
    ratios = [x / row[0] for x, row in zip(seconds, rounds, strict=True)]
    print(
      f"{name}: {statistics.median(seconds) * steps_per_epoch:.0f} s per epoch,"
      f" {statistics.median(ratios):.2f} times ours"
      f" ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
  main()
