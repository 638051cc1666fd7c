"""Times an exported model on single texts against transformers' pipeline.

    python -m benchmarks.serving_speed --model_dir=MODEL \
      --input_file=lines.txt

Both have the weights of a Hugging Face directory and the same new classifier
head. A turn is one text after the other, each alone, with a warm model. Needs
the `bench` extra.
"""

import argparse
import functools
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import run_classifier
import tokenization
from benchmarks import in_turns
from bert_keras3.console import start
from bert_keras3.serving import predictor


def main():
  """Prints milliseconds per text and their ratio, medians over the rounds."""
  options = parse_options()
  lines = [x for x in tokenization.read_lines(options.input_file) if x.strip()]
  texts = lines[: options.num_texts]
  with tempfile.TemporaryDirectory() as folder:
    theirs = make_pipeline(options.model_dir, folder)
    ours = make_predictor(folder)
  check_same(ours, theirs, texts)
  engines = {
    "export": lambda text: ours.predict([text]),
    "transformers": lambda text: theirs(text, top_k=None),
  }
  turns = {
    name: functools.partial(take_turn, ask, texts)
    for name, ask in engines.items()
  }
  rounds = [in_turns.take_round(turns) for _ in range(options.rounds)]
  print(in_turns.describe_machine())
  for name in engines:
    print(f"{name}: {in_turns.spread(in_turns.values_of(rounds, name))} ms")
  ratios = in_turns.ratios(rounds, "transformers", "export")
  print(f"transformers takes {in_turns.spread(ratios, digits=2)} times as long")


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("model_dir", "input_file"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--num_texts", type=int, default=50)
  parser.add_argument("--rounds", type=int, default=5)
  return parser.parse_args()


def make_pipeline(model_dir, folder):
  """Makes transformers' pipeline with a new head, and saves both."""
  import torch
  import transformers

  torch.manual_seed(0)
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
    model_dir, num_labels=2
  )
  tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
  model.save_pretrained(folder)
  shutil.copy(pathlib.Path(model_dir) / "vocab.txt", folder)
  return transformers.pipeline(
    "text-classification", model=model, tokenizer=tokenizer
  )


def make_predictor(folder):
  """Exports what the pipeline saved; returns a Predictor of it."""
  start.load_tensorflow()
  export_dir = f"{folder}/export"
  config = run_classifier.ClassifierConfig(
    task_name="sst-2",
    init_checkpoint=folder,
    output_dir=f"{folder}/out",
    do_export=True,
    export_dir=export_dir,
  )
  run_classifier.classify(config)
  return predictor.Predictor(export_dir)


def check_same(ours, theirs, texts):
  """Stops if the engines do not compute the same."""
  for text, result in zip(texts, ours.predict(texts), strict=True):
    scores = {x["label"]: x["score"] for x in theirs(text, top_k=None)}
    for number, share in enumerate(result["probabilities"].values()):
      if abs(share - scores[f"LABEL_{number}"]) > 1e-5:
        sys.exit(f"the engines differ on {text!r}: {result}, {scores}")


def take_turn(ask, texts):
  """Returns the milliseconds that a text takes, the median."""
  clock = time.perf_counter
  return 1000 * statistics.median(
    in_turns.seconds(ask, text, clock=clock) for text in texts
  )


if __name__ == "__main__":
  main()
