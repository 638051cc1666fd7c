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

# The demo also runs where nothing is installed.
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
SHOWN_PUZZLES = PUZZLES[1:3]


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
  compare_with_guessing(folder)
  draw_picture(folder, fill_masks(folder))


def make_records(folder):
  """Makes text, vocabulary and records of training and held-out documents."""
  counts = manual_corpus.write_corpus(
    folder / "train.txt",
    folder / "eval.txt",
    # The test passages of fine-tuning stay unseen here too.
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


def compare_with_guessing(folder):
  """Prints accuracy on held-out documents beside the best constant guess."""
  token_id, count, total = count_masked_tokens(folder / "eval.tfrecord")
  token = list(tokenization.load_vocab(folder / "vocab.txt"))[token_id]
  manifest = json.loads((folder / "model" / "run_manifest.json").read_text())
  accuracy = manifest["results"]["masked_lm_accuracy"]
  guessing = count / total
  say(
    f"masked-LM accuracy on held-out documents: {accuracy:.4f}\n"
    f"always guessing {token!r}, their most frequent masked token: "
    f"{guessing:.4f} (ratio {accuracy / guessing:.2f})"
  )


def count_masked_tokens(path):
  """Counts the masked tokens in a file of TFRecords.

  Returns:
    Tuple of the most frequent masked token's id, how often it is masked, and
    the number of masked tokens.
  """
  import tensorflow as tf

  spec = {
    "masked_lm_ids": tf.io.FixedLenFeature([PREDICTIONS], tf.int64),
    "masked_lm_weights": tf.io.FixedLenFeature([PREDICTIONS], tf.float32),
  }
  counts = collections.Counter()
  for batch in tf.data.TFRecordDataset(str(path)).batch(1024):
    features = tf.io.parse_example(batch, spec)
    is_masked = features["masked_lm_weights"] > 0
    ids = tf.boolean_mask(features["masked_lm_ids"], is_masked)
    counts.update(ids.numpy().tolist())
  [(token_id, count)] = counts.most_common(1)
  return token_id, count, counts.total()


def fill_masks(folder):
  """Prints the model's five best tokens for each puzzle, and returns them.

  Returns:
    Dict from puzzle to a list of (token, probability), the likeliest first.
  """
  puzzle_file = folder / "puzzles.txt"
  puzzle_file.write_text("".join(f"{puzzle}\n" for puzzle in PUZZLES))
  run(
    "run_fill_mask.py",
    init_checkpoint=folder / "model",
    vocab_file=folder / "vocab.txt",
    input_file=puzzle_file,
    output_format="jsonl",
    output_file=folder / "filled.jsonl",
  )
  answers = {}
  for line in (folder / "filled.jsonl").read_text().splitlines():
    result = json.loads(line)
    [mask] = result["masks"]
    best = [(entry["token"], entry["probability"]) for entry in mask]
    answers[result["text"]] = best
    shown = ", ".join(f"{token} {share:.0%}" for token, share in best)
    say(f"{result['text']}\n    {shown}")
  return answers


def draw_picture(folder, answers):
  """Draws the two losses over the steps, and the tokens for two of the masks.

  Args:
    folder: of the run, and of demo.png.
    answers: dict that `fill_masks` returned.
  """
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  panels = [["loss", "first"], ["loss", "second"]]
  figure, axes = pyplot.subplot_mosaic(
    panels, figsize=(10, 4), layout="constrained"
  )
  draw_losses(axes["loss"], folder / "model" / "training_log.csv")
  for name, puzzle in zip(("first", "second"), SHOWN_PUZZLES, strict=True):
    draw_answers(axes[name], puzzle, answers[puzzle])
  figure.savefig(folder / "demo.png", dpi=120)
  say(f"loss curve and filled masks: {folder / 'demo.png'}")


def draw_losses(axes, log_file):
  """Draws both losses of a training_log.csv over the steps."""
  with open(log_file, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  steps = [int(row["step"]) for row in rows]
  for name in ("masked_lm_loss", "next_sentence_loss"):
    losses = [float(row[name]) for row in rows]
    axes.plot(steps, losses, label=name.replace("_", " "))
  axes.set_xlabel("step")
  axes.set_ylim(bottom=0)
  axes.legend()


def draw_answers(axes, puzzle, answer):
  """Draws a bar for each token that may fill a mask, the likeliest on top."""
  tokens, shares = zip(*reversed(answer), strict=True)
  axes.barh(tokens, shares)
  axes.set_title(puzzle, fontsize="small", loc="left")
  axes.xaxis.set_major_formatter("{x:.0%}")


def run(script, *switches, **values):
  """Prints the command line of a script of this project and runs it."""
  args = [*switches, *(f"--{name}={value}" for name, value in values.items())]
  say("$ python " + shlex.join([script, *args]))
  result = subprocess.run([sys.executable, str(ROOT / script), *args])
  if result.returncode:
    sys.exit(result.returncode)  # The script has said why.


def say(text):
  """Prints and flushes, so that it shows at once in a pipe, too."""
  print(text, flush=True)


if __name__ == "__main__":
  main()
