"""Times run_squad against transformers + PyTorch: training and prediction.

    python -m benchmarks.squad_speed --train_file=train-v1.1.json \
      --predict_file=dev-v1.1.json --model_dir=MODEL

In turns, a process each, and on the same questions: 50 steps of training, in
which all lengths occur, then prediction for the first --num_questions, then
decoding. Ours is run_squad.py's way, theirs that of torch_squad.py. Needs the
`bench` extra.
"""

import argparse
import functools
import json
import pathlib
import statistics
import tempfile

import run_squad
from benchmarks import in_turns
from bert_keras3.console import start
from bert_keras3.tasks import squad_decoding

STEPS_PER_TURN = 50
# Methods of the engines, in this order, with their arguments.
PHASES = {"train": [STEPS_PER_TURN], "predict": [], "decode": []}


def main():
  """Prints the seconds of each round, then medians and their ratios."""
  options = parse_options()
  with tempfile.TemporaryDirectory() as folder:
    options.output_dir = folder
    options.predict_file = write_first_questions(options, folder)
    engines = {
      name: in_turns.Remote(make, options) for name, make in ENGINES.items()
    }
    for engine in engines.values():
      engine.call("train", 2)  # Tracing, first allocations.
      engine.call("predict")
    turns = {
      name: functools.partial(take_turn, engine)
      for name, engine in engines.items()
    }
    rounds = []
    for _ in range(options.rounds):
      rounds.append(in_turns.take_round(turns))
      print(rounds[-1], flush=True)
  report(rounds)


def parse_options():
  """Returns the options of the command line, and those both sides share."""
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


def write_first_questions(options, folder):
  """Writes the first questions of --predict_file; returns the file's path."""
  content = json.loads(pathlib.Path(options.predict_file).read_text("utf-8"))
  left = options.num_questions
  paragraphs = []
  for article in content["data"]:
    for paragraph in article["paragraphs"]:
      questions = paragraph["qas"][:left]
      if questions:
        paragraphs.append({**paragraph, "qas": questions})
      left -= len(questions)
  path = pathlib.Path(folder) / "predict.json"
  content = {"version": "1.1", "data": [{"paragraphs": paragraphs}]}
  path.write_text(json.dumps(content), "utf-8")
  return str(path)


def take_turn(engine):
  """Returns the seconds of each phase of one engine, by the clock."""
  return {phase: engine.time(phase, *args)[0] for phase, args in PHASES.items()}


class Ours:
  """Does the work of run_squad, a part at a time.

  Args:
    options: what `parse_options` returned, and an output_dir.
  """

  def __init__(self, options):
    start.load_tensorflow()
    # They cost TensorFlow, which has no place in the process of the peer.
    from benchmarks import our_models
    from bert_keras3.tasks import squad_results

    names = set(run_squad.SquadConfig.__dataclass_fields__) & set(vars(options))
    config = run_squad.SquadConfig(
      init_checkpoint=options.model_dir,
      do_train=True,
      do_predict=True,
      adam_bias_correction=True,
      **{name: getattr(options, name) for name in names},
    )
    run, data = our_models.open_squad(config)
    self.train = our_models.Training(run, data.train_source).take_steps
    self._questions = data.questions
    self._predict = functools.partial(
      squad_results.predict_logits,
      run,
      data.questions.source,
      config.predict_batch_size,
      keep_padding=False,
    )
    self._tokenizer, self._config = data.pretrained.tokenizer, config

  def predict(self):
    """Computes the logits of the questions."""
    self._logits = self._predict()

  def decode(self):
    """Finds the answers to the questions."""
    squad_decoding.decode(
      self._questions.examples,
      self._questions.windows,
      *self._logits,
      self._tokenizer,
      self._config.decoding(),
    )


def make_peer(options):
  """Makes torch_squad's Peer, with prediction and decoding."""
  # They cost PyTorch, which has no place in our process.
  import transformers

  from benchmarks import torch_squad

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
  predict_rows = torch_squad.make_rows(questions, options, tokenizer)
  rows = torch_squad.make_rows(examples, options, tokenizer)
  return Peer(rows, len(examples), options, tokenizer)


ENGINES = {"ours": Ours, "transformers + PyTorch": make_peer}


def report(rounds):
  """Prints medians, and ratios to ours with their range."""
  print(in_turns.describe_machine())
  for phase in PHASES:
    seconds = [{x: y[phase] for x, y in turn.items()} for turn in rounds]
    ours, theirs = (
      statistics.median(in_turns.values_of(seconds, name)) for name in ENGINES
    )
    ratios = in_turns.ratios(seconds, "transformers + PyTorch", "ours")
    print(
      f"{phase}: {ours:.2f} s, theirs {theirs:.2f} s,"
      f" {in_turns.spread(ratios, digits=2)} times ours"
    )


if __name__ == "__main__":
  main()
