"""Times a training step of run_classifier against transformers + PyTorch.

    python -m benchmarks.classifier_training_speed --task_name=mrpc \
      --data_dir=MRPC --model_dir=MODEL

In turns, a process each, and on the same rows: ours with batches of about equal
length, ours with every sequence padded to --max_seq_length, and transformers
with its own sampler of about equal lengths. A turn is a group of 50 steps, in
which all lengths occur. Needs the `bench` extra.
"""

import argparse
import functools
import statistics
import tempfile

import run_classifier
from benchmarks import in_turns
from bert_keras3.console import start
from bert_keras3.tasks import classifier_data

# A group of ours, in which all lengths occur.
STEPS_PER_TURN = 50


def main():
  """Prints seconds per epoch and their ratios, medians over the rounds."""
  options = parse_options()
  with tempfile.TemporaryDirectory() as folder:
    engines = {
      name: in_turns.Remote(make, options, folder)
      for name, make in ENGINES.items()
    }
    for engine in engines.values():
      engine.call("take_steps", 2)  # Tracing, first allocations.
    turns = {
      name: functools.partial(take_turn, engine)
      for name, engine in engines.items()
    }
    rounds = []
    for _ in range(options.rounds):
      rounds.append(in_turns.take_round(turns))
      numbers = "  ".join(f"{x:.3f}" for x in rounds[-1].values())
      print(numbers, "s/step", flush=True)
    num_examples = engines["ours"].call("count_examples")
  report(rounds, num_examples / options.train_batch_size)


def parse_options():
  """Returns the options of the command line, and those both sides share."""
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


def take_turn(engine):
  """Returns the seconds that a step of one engine takes, by the clock."""
  by_clock, _ = engine.time("take_steps", STEPS_PER_TURN)
  return by_clock / STEPS_PER_TURN


class Ours:
  """Trains as run_classifier does.

  Args:
    options: what `parse_options` returned.
    folder: for the output_dir.
    pad_to_max_length: whether every sequence is padded to max_seq_length,
      instead of to one of a few lengths.
  """

  def __init__(self, options, folder, pad_to_max_length=False):
    start.load_tensorflow()
    # It costs TensorFlow, which has no place in the process of the peer.
    from benchmarks import our_models

    config = run_classifier.ClassifierConfig(
      task_name=options.task_name,
      data_dir=options.data_dir,
      init_checkpoint=options.model_dir,
      output_dir=tempfile.mkdtemp(dir=folder),
      do_train=True,
      max_seq_length=options.max_seq_length,
      train_batch_size=options.train_batch_size,
      learning_rate=options.learning_rate,
      num_train_epochs=options.num_train_epochs,
      warmup_proportion=options.warmup_proportion,
      adam_bias_correction=True,
      pad_to_max_length=pad_to_max_length,
      seed=1,
    )
    run, data = our_models.open_classifier(config)
    self._source = data.train.source
    self.take_steps = our_models.Training(run, self._source).take_steps

  def count_examples(self):
    """Returns the number of examples in an epoch."""
    return len(self._source)


def make_padded(options, folder):
  """Makes an Ours that pads every sequence to max_seq_length."""
  return Ours(options, folder, pad_to_max_length=True)


def make_peer(options, folder):
  """Makes the torch_classifier.Peer of the options."""
  del folder
  # They cost PyTorch, which has no place in our process.
  import transformers

  from benchmarks import torch_classifier

  task = classifier_data.find_task(options.task_name)
  tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_dir)
  data = torch_classifier.load_split(task, "train", options, tokenizer)
  return torch_classifier.Peer(task, data, options, tokenizer, seed=1)


ENGINES = {
  "ours": Ours,
  "ours, --pad_to_max_length": make_padded,
  "transformers + PyTorch": make_peer,
}


def report(rounds, steps_per_epoch):
  """Prints medians, and ratios to ours with their range."""
  print(in_turns.describe_machine())
  for name in ENGINES:
    seconds = statistics.median(in_turns.values_of(rounds, name))
    ratios = in_turns.ratios(rounds, name, "ours")
    print(
      f"{name}: {seconds * steps_per_epoch:.0f} s per epoch,"
      f" {in_turns.spread(ratios, digits=2)} times ours"
    )


if __name__ == "__main__":
  main()
