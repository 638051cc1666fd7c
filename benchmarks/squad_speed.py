"""Times run_squad against transformers + PyTorch: training and prediction.

    python benchmarks/reading.py --train_file=train-v1.1.json \
      --predict_file=dev-v1.1.json --model_dir=MODEL

In turns, a process each, and on the same questions: 50 steps of training, in
which all lengths occur, then prediction for the first --num_questions, then
decoding. Ours is run_squad.py's way, theirs that of torch_squad.py. Needs the
`bench` extra.
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

import run_squad  # noqa: E402
from bert_keras3.console import start as start_module
from bert_keras3.tasks import fine_tuning  # noqa: E402

STEPS_PER_TURN = 50
PHASES = ("training", "prediction", "decoding")


def main():
  """Prints the seconds of each round, then medians and their ratios."""
  options = parse_options()
  # A process each: two frameworks' threads would be in each other's way.
  context = multiprocessing.get_context("spawn")
  pipes = [start(context, make, options) for make in (Ours, make_peer)]
  for pipe in pipes:
    pipe.recv()
  rounds = []
  for _ in range(options.rounds):
    rounds.append([take_turn(pipe) for pipe in pipes])
    print(rounds[-1], flush=True)
  for number, phase in enumerate(PHASES):
    ours, theirs = ([x[i][number] for x in rounds] for i in (0, 1))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(
      f"{phase}: {statistics.median(ours):.2f} s, theirs "
      f"{statistics.median(theirs):.2f} s, {statistics.median(ratios):.2f} "
      f"times ours ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def parse_options():
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("train_file", "predict_file", "model_dir"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--num_questions", type=int, default=300)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--train_batch_size", type=int, default=16)
  parser.add_argument("--predict_batch_size", type=int, default=8)
  parser.set_defaults(
    max_seq_length=384,
    doc_stride=128,
    max_query_length=64,
    learning_rate=1e-4,
    num_train_epochs=2.0,
    warmup_proportion=0.1,
    n_best_size=20,
    max_answer_length=30,
    seed=1,
  )
  return parser.parse_args()


def start(context, make, options):
  """Starts an engine in a process; returns the pipe to it."""
  ours, theirs = context.Pipe()
  arguments = (make, options, theirs)
  context.Process(target=serve, args=arguments, daemon=True).start()
  return ours


def serve(make, options, pipe):
  """Warms up, says so, then takes turns until nobody asks."""
  engine = make(options)
  engine.train(2)
  engine.predict()
  pipe.send("ready")
  while True:
    count = pipe.recv()
    pipe.send(
      [timed(engine.train, count), timed(engine.predict), timed(engine.decode)]
    )


def take_turn(pipe):
  """Seconds of each phase of one engine, while the other waits."""
  pipe.send(STEPS_PER_TURN)
  return pipe.recv()


def timed(function, *args):
  """Seconds that a call takes."""
  begin = time.monotonic()
  function(*args)
  return time.monotonic() - begin


class Ours:
  """What run_squad does, a part at a time."""

  def __init__(self, options):
    start_module.load_tensorflow()
    import modeling
    from bert_keras3.training import devices
    from bert_keras3.training import evaluation

    config = run_squad.SquadConfig(
      output_dir=tempfile.mkdtemp(),
      init_checkpoint=options.model_dir,
      do_train=True,
      predict_file=options.predict_file,
      predict_batch_size=options.predict_batch_size,
    )
    setup = fine_tuning.open_model(config, devices.DeviceConfig())
    run = fine_tuning.open_run(setup, config, {}, [])
    self.job = run_squad.Job(config, setup, run)
    model = fine_tuning.make_model(setup, config, 1, modeling.BertSpanLabeler)
    self.step = evaluation.prediction_step(model)
    self.questions = self._questions(options)
    self._start_training(options, model)

  def _questions(self, options):
    from bert_keras3.tasks import squad_data

    examples = squad_data.read_squad_examples(options.predict_file, False)
    examples = examples[: options.num_questions]
    windows = squad_data.make_windows(
      examples,
      self.job.setup.tokenizer,
      **self.job.config.window_settings(False),
    )
    source = run_squad.make_source(self.job, windows, {})
    return run_squad.Questions(examples, windows, source)

  def _start_training(self, options, model):
    import optimization
    from bert_keras3.data import order as order_module
    from bert_keras3.tasks import squad_data
    from bert_keras3.training import devices
    from bert_keras3.training import loop
    from bert_keras3.weights import checkpoints

    examples = squad_data.read_squad_examples(options.train_file, True)
    windows = squad_data.make_windows(
      examples,
      self.job.setup.tokenizer,
      **self.job.config.window_settings(True),
    )
    positions = {
      name: getattr(windows, name)
      for name in ("start_positions", "end_positions")
    }
    source = run_squad.make_source(self.job, windows, positions)
    schedule = optimization.LearningRateSchedule(
      options.learning_rate, 1000, 100
    )
    strategy = self.job.setup.strategy
    self.trainer = loop.Trainer(
      strategy,
      model,
      loop.TrainingConfig(
        tempfile.mkdtemp(), schedule, options.train_batch_size
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

  def train(self, count):
    """Makes `count` updates."""
    self.trainer.train_steps(self.iterator, count)

  def predict(self):
    """Computes the questions' logits."""
    from bert_keras3.tasks import squad_results

    self.logits = squad_results.predict_logits(
      self.job.setup.strategy,
      self.step,
      self.questions.source,
      self.job.config.predict_batch_size,
      keep_padding=False,
    )

  def decode(self):
    """Finds their answers."""
    from bert_keras3.tasks import squad_decoding

    squad_decoding.decode(
      self.questions.examples,
      self.questions.windows,
      *self.logits,
      self.job.setup.tokenizer,
      self.job.config.decoding(),
    )


def make_peer(options):
  """torch_squad's Peer, with prediction and decoding."""
  import torch_squad
  import transformers

  class Peer(torch_squad.Peer):
    train = torch_squad.Peer.take_steps

    def predict(self):
      self.logits = torch_squad.predict(
        self.model, predict_rows, options.predict_batch_size, self.tokenizer
      )

    def decode(self):
      torch_squad.decode(questions, predict_rows, self.logits, options)

  tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_dir)
  examples = torch_squad.load_examples(options.train_file)
  questions = torch_squad.load_examples(options.predict_file)
  questions = questions[: options.num_questions]
  predict_rows = torch_squad.make_rows(questions, options, tokenizer)
  rows = torch_squad.make_rows(examples, options, tokenizer)
  return Peer(rows, len(examples), options, tokenizer)


if __name__ == "__main__":
  main()
