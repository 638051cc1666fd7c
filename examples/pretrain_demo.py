"""Pretrains a small BERT on Python's own manual: what `make demo` runs.

Every step is a command line you could type; the demo prints it first. At the
end it shows what was learnt on documents the model has not seen.
"""

import argparse
import collections
import csv
import json
import pathlib
import shlex
import subprocess
import sys

import manual_chapters
import manual_corpus

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tokenization  # noqa: E402
from bert_keras3.console import start  # noqa: E402

SEQ_LENGTH = 64
PREDICTIONS = 10
BERT_CONFIG = {
  "attention_probs_dropout_prob": 0.0,  # A short run underfits as it is.
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "hidden_size": 128,
  "initializer_range": 0.05,  # Wider than BERT's 0.02: so narrow a model
  # leaves the plateau of mere word frequencies sooner.
  "intermediate_size": 512,
  "max_position_embeddings": SEQ_LENGTH,
  "num_attention_heads": 2,
  "num_hidden_layers": 2,
  "type_vocab_size": 2,
}
PUZZLES = (
  "If the optional argument is [MASK], the default is used.",
  "Return [MASK] if the object is an instance of the class.",
  "Raises a ValueError [MASK] the string is not valid.",
  "This method returns a [MASK] of all items in the dictionary.",
)


def main():
  """Runs the demo in the folder given."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--output_dir", default="demo_output")
  parser.add_argument("--num_train_steps", type=int, default=3000)
  options = parser.parse_args()
  folder = pathlib.Path(options.output_dir)
  folder.mkdir(parents=True, exist_ok=True)

  make_records(folder)
  pretrain(folder, options.num_train_steps)

  start.load_tensorflow()
  draw_loss(folder)
  compare_with_guessing(folder)
  fill_masks(folder)


def make_records(folder):
  """Text, vocabulary and records of training and of held-out documents."""
  counts = manual_corpus.write_corpus(
    folder / "train.txt",
    folder / "eval.txt",
    # What fine-tuning is tested on stays unseen here too.
    manual_chapters.held_out_wordings(),
  )
  say(f"{counts[0]} documents to train on, {counts[1]} held out")
  run(
    "build_vocab.py",
    input_file=folder / "train.txt",
    output_file=folder / "vocab.txt",
    vocab_size=4000,
  )
  for split, dupe_factor in (("train", 5), ("eval", 1)):
    run(
      "create_pretraining_data.py",
      input_file=folder / f"{split}.txt",
      output_file=folder / f"{split}.tfrecord",
      vocab_file=folder / "vocab.txt",
      max_seq_length=SEQ_LENGTH,
      max_predictions_per_seq=PREDICTIONS,
      dupe_factor=dupe_factor,
    )


def pretrain(folder, num_train_steps):
  """Trains and evaluates; a finished run is not trained again."""
  vocab = tokenization.load_vocab(folder / "vocab.txt")
  config = {**BERT_CONFIG, "vocab_size": len(vocab)}
  config_file = folder / "bert_config.json"
  config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
  run(
    "run_pretraining.py",
    "--do_train",
    "--do_eval",
    input_file=folder / "train.tfrecord",
    eval_input_file=folder / "eval.tfrecord",
    bert_config_file=config_file,
    output_dir=folder / "model",
    max_seq_length=SEQ_LENGTH,
    max_predictions_per_seq=PREDICTIONS,
    train_batch_size=32,
    learning_rate=1e-3,
    num_train_steps=num_train_steps,
    num_warmup_steps=num_train_steps // 10,
    log_every_steps=100,
    max_eval_steps=1000,
  )


def draw_loss(folder):
  """Draws the two losses over the steps into loss.png."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  with open(folder / "model" / "training_log.csv") as file:
    rows = list(csv.DictReader(file))
  steps = [int(row["step"]) for row in rows]
  figure, axes = pyplot.subplots(figsize=(7, 4))
  for name in ("masked_lm_loss", "next_sentence_loss"):
    axes.plot(steps, [float(row[name]) for row in rows], label=name)
  axes.set_xlabel("step")
  axes.set_ylim(bottom=0)
  axes.legend()
  figure.tight_layout()
  figure.savefig(folder / "loss.png", dpi=120)
  say(f"loss curve: {folder / 'loss.png'}")


def compare_with_guessing(folder):
  """Prints accuracy on held-out documents beside the best constant guess."""
  from bert_keras3.data import features
  from bert_keras3.data import records

  specs = features.pretraining_features(SEQ_LENGTH, PREDICTIONS)
  source = records.RecordSource([str(folder / "eval.tfrecord")], specs)
  batch = source.take(range(len(source)), step=0)
  masked = batch["masked_lm_ids"][batch["masked_lm_weights"] > 0]
  token_id, count = collections.Counter(masked.tolist()).most_common(1)[0]
  token = list(tokenization.load_vocab(folder / "vocab.txt"))[token_id]
  manifest = json.loads((folder / "model" / "run_manifest.json").read_text())
  accuracy = manifest["results"]["masked_lm_accuracy"]
  guessing = count / len(masked)
  say(
    f"masked-LM accuracy on held-out documents: {accuracy:.4f}\n"
    f"always guessing {token!r}, their most frequent masked token: "
    f"{guessing:.4f} (ratio {accuracy / guessing:.2f})"
  )


def fill_masks(folder):
  """Prints the model's five best tokens for each puzzle."""
  import numpy as np
  import tensorflow as tf

  import modeling
  from bert_keras3.weights import checkpoints

  tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
  model = modeling.BertPretrainer(
    modeling.BertConfig.from_json_file(str(folder / "bert_config.json"))
  )
  checkpoints.load_weights(
    modeling.named_variables(model), str(folder / "model" / "bert_model.ckpt")
  )
  for puzzle in PUZZLES:
    before, after = map(tokenizer.encode, puzzle.split("[MASK]"))
    cls, sep, mask = tokenizer.convert_tokens_to_ids(
      ["[CLS]", "[SEP]", "[MASK]"]
    )
    outputs = model(
      {
        "input_ids": np.array([[cls, *before, mask, *after, sep]]),
        "masked_lm_positions": np.array([[1 + len(before)]]),
      }
    )
    best = tf.math.top_k(tf.nn.softmax(outputs["masked_lm_logits"][0, 0]), 5)
    tokens = tokenizer.convert_ids_to_tokens(best.indices.numpy())
    answers = [
      f"{token} {share:.0%}"
      for token, share in zip(tokens, best.values.numpy(), strict=True)
    ]
    say(f"{puzzle}\n    {', '.join(answers)}")


def run(script, *switches, **values):
  """Runs a script of this project, having shown its command line."""
  args = [*switches, *(f"--{name}={value}" for name, value in values.items())]
  say("$ python " + shlex.join([script, *args]))
  result = subprocess.run([sys.executable, str(ROOT / script), *args])
  if result.returncode:
    sys.exit(result.returncode)  # The script has said why.


def say(text):
  """Prints at once, also into a pipe."""
  print(text, flush=True)


if __name__ == "__main__":
  main()
