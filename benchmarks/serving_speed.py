"""Times an exported model on single texts against transformers' pipeline.

    python benchmarks/prediction.py --model_dir=MODEL --input_file=lines.txt

Both have the weights of a Hugging Face directory and the same new classifier
head. A turn is one text after the other, each alone, with a warm model. Needs
the `bench` extra.
"""

import argparse
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import run_classifier  # noqa: E402
import tokenization  # noqa: E402
from bert_keras3.console import start as start_module
from bert_keras3.serving import predictor  # noqa: E402


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
  rounds = []
  for _ in range(options.rounds):
    rounds.append([take_turn(ask, texts) for ask in engines.values()])
  for number, name in enumerate(engines):
    print(f"{name}: {statistics.median(x[number] for x in rounds):.1f} ms")
  ratios = sorted(theirs / ours for ours, theirs in rounds)
  print(
    f"transformers takes {statistics.median(ratios):.2f} times as long "
    f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
  )


def parse_options():
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("model_dir", "input_file"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--num_texts", type=int, default=50)
  parser.add_argument("--rounds", type=int, default=5)
  return parser.parse_args()


def make_pipeline(model_dir, folder):
  """transformers' pipeline with a new head, which it saves into `folder`."""
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
  """A Predictor of what the pipeline saved."""
  start_module.load_tensorflow()
  from bert_keras3.training import devices
  from bert_keras3.training import loop

  export_dir = f"{folder}/export"
  config = run_classifier.ClassifierConfig(
    task_name="sst-2",
    init_checkpoint=folder,
    output_dir=f"{folder}/out",
    do_export=True,
    export_dir=export_dir,
  )
  run_classifier.classify(
    config,
    run_classifier.make_task(config),
    devices.DeviceConfig(),
    loop.TrainingConfig(f"{folder}/out", None, 1),
    settings={},
  )
  return predictor.Predictor(export_dir)


def check_same(ours, theirs, texts):
  """Stops if the engines do not compute the same."""
  for text, result in zip(texts, ours.predict(texts), strict=True):
    scores = {x["label"]: x["score"] for x in theirs(text, top_k=None)}
    for number, share in enumerate(result["probabilities"].values()):
      if abs(share - scores[f"LABEL_{number}"]) > 1e-5:
        sys.exit(f"the engines differ on {text!r}: {result}, {scores}")


def take_turn(ask, texts):
  """Milliseconds per text, the median."""
  times = []
  for text in texts:
    start = time.perf_counter()
    ask(text)
    times.append(time.perf_counter() - start)
  return 1000 * statistics.median(times)


if __name__ == "__main__":
  main()
