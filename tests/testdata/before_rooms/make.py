"""Makes the files beside this one, with the scripts of an older checkout.

    python tests/testdata/before_rooms/make.py OLD_CHECKOUT

They were made with the last commit whose modules all lay in the root, 0edb82d;
compatibility_test.py resumes, evaluates and asks what those scripts left here.
Every command ran in this folder, so that manifests hold relative paths:

    runs.json    the flags of all commands
    data         what the runs read
    unfinished   output directories of runs that were killed
    finished     the same after the same command once more, and one more run
    exports      SavedModels that take text, their graphs compressed
    answers      what finished runs and exports answered to other texts

TensorBoard's files, whose names have the machine's, and pictures are left out.
Made again, the files differ in the speeds of logs, the versions of manifests
and the fingerprints of exports.
"""

import csv
import filecmp
import json
import lzma
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
FOLDERS = ("data", "unfinished", "finished", "exports", "answers")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOOD = ("good", "fine", "great")
BAD = ("bad", "poor", "dull")
COLORS = ("red", "blue", "green")
WORDS = (
  "the a it is was of and in on to what color cat dog bird house tree mat sky "
  "river film plot actor scene music ending old new big small very sat ran saw "
  "went home slept today slowly away again . ,"
).split()
VOCAB = (*SPECIALS, *GOOD, *BAD, *COLORS, *WORDS)
RECORDS_TIME = 1_600_000_000
CONFIG = {
  "vocab_size": len(VOCAB),
  "hidden_size": 8,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 16,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.1,
  "attention_probs_dropout_prob": 0.1,
  "max_position_embeddings": 24,
  "type_vocab_size": 2,
  "initializer_range": 0.3,  # So narrow a model learns nothing from 0.02.
}

# Runs -------------------------------------------------------------------------

COMMON = {
  "bert_config_file": "data/bert_config.json",
  "do_train": True,
  "deterministic": True,
  "train_batch_size": 8,
  "learning_rate": 1e-2,
  "log_every_steps": 2,
  "save_checkpoints_steps": 4,
  "keep_checkpoint_max": 1,
}
FINE_TUNING = {
  **COMMON,
  "vocab_file": "data/vocab.txt",
  "init_checkpoint": "finished/pretraining",
  "adam_bias_correction": True,
}
TEXTS = {"text_a": "review", "id_column": "id", "max_seq_length": 16}
WINDOWS = {
  "version_2_with_negative": True,
  "max_seq_length": 20,
  "doc_stride": 6,
  "max_query_length": 4,
  "max_answer_length": 3,
  "n_best_size": 3,
}
# Of each run its script; the flags it was trained with; those that its model
# predicts other texts with; and what its export is asked.
RUNS = {
  "pretraining": {
    "script": "run_pretraining",
    "training": {
      **COMMON,
      "input_file": "data/records.tfrecord",
      "do_eval": True,
      "max_seq_length": 16,
      "max_predictions_per_seq": 3,
      "skip_bad_records": True,
      "num_train_steps": 12,
      "num_warmup_steps": 3,
      "log_every_steps": 3,  # Checkpoints have a part of what a row is of.
      "seed": 3,
    },
  },
  "classification": {
    "script": "run_classifier",
    "training": {
      **FINE_TUNING,
      **TEXTS,
      "do_eval": True,
      "task_name": "csv",
      "data_dir": "data",
      "label_column": "opinion",
      "num_train_epochs": 8,
      "eval_steps": 2,
      "early_stopping_patience": 8,
      "seed": 1,
    },
    "prediction": {
      **TEXTS,
      "do_predict": True,
      "task_name": "csv",
      "predict_file": "data/test.csv",
    },
    "question": {"input_file": "data/test.csv", "columns": "review"},
  },
  "reading": {
    "script": "run_squad",
    "training": {
      **FINE_TUNING,
      **WINDOWS,
      "do_predict": True,
      "train_file": "data/train.json",
      "predict_file": "data/dev.json",
      "num_train_epochs": 3,
      "seed": 2,
    },
    "prediction": {
      **WINDOWS,
      "do_predict": True,
      "predict_file": "data/test.json",
    },
    "question": {"input_file": "data/questions.jsonl"},
  },
}
# Where runs are killed, see killed_run.py of the old checkout: while the third
# checkpoint is written; in step 30, the best weights being those of step 22.
ENDS = {"pretraining": "verify:3", "classification": "log:29"}


def main():
  """Makes everything."""
  old = pathlib.Path(sys.argv[1]).resolve()
  for name in FOLDERS:
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / name).mkdir()
  write_data(old)
  (FOLDER / "runs.json").write_text(json.dumps(RUNS, indent=2) + "\n")
  for name in RUNS:
    make_run(old, name)
  for name in RUNS:
    if "prediction" in RUNS[name]:
      make_answers(old, name)
  clean()


def run(old, file, flags, first=(), status=0):
  """Runs a file of the old checkout in this folder."""
  words = [
    f"--{name}={str(value).lower() if value is True else value}"
    for name, value in flags.items()
  ]
  result = subprocess.run(
    [sys.executable, str(old / file), *first, *words],
    cwd=FOLDER,
    env={**os.environ, "PYTHONPATH": str(old), "CUDA_VISIBLE_DEVICES": ""},
  )
  if result.returncode != status:
    raise RuntimeError(f"{file} ended with {result.returncode}, not {status}")


def make_run(old, name):
  """Makes the directories of one run."""
  script, flags = RUNS[name]["script"], RUNS[name]["training"]
  unfinished, finished = f"unfinished/{name}", f"finished/{name}"
  if name in ENDS:
    run(
      old,
      "tests/killed_run.py",
      {**flags, "output_dir": unfinished},
      first=[script, f"kill:{ENDS[name]}"],
      status=-signal.SIGKILL,
    )
    shutil.copytree(FOLDER / unfinished, FOLDER / finished)
  run(old, f"{script}.py", {**flags, "output_dir": finished})


def make_answers(old, name):
  """Exports the model of a finished run; keeps what both answer."""
  answers, export = f"answers/{name}", f"exports/{name}"
  # Predictions lie in the directory of their run, where they replace others.
  shutil.copytree(FOLDER / "finished" / name, FOLDER / answers)
  flags = {"output_dir": answers, "do_export": True, "export_dir": export}
  run(old, f"{RUNS[name]['script']}.py", {**RUNS[name]["prediction"], **flags})
  for path in (FOLDER / answers).iterdir():
    first = FOLDER / "finished" / name / path.name
    was_there = first.exists() and filecmp.cmp(first, path, shallow=False)
    if was_there or path.suffix == ".npz":
      path.unlink()
  flags = {"export_dir": export, "output_file": f"{answers}/exported.jsonl"}
  run(old, "run_predict.py", {**RUNS[name]["question"], **flags})


def clean():
  """Leaves out what has a machine's name or no use, and what is too large."""
  for pattern in ("events.out.tfevents.*", "*.png"):
    for path in FOLDER.glob(f"*/*/{pattern}"):
      path.unlink()
  for path in FOLDER.glob("*/*/*.incomplete-*"):
    path.rename(re.sub(r"incomplete-\d+", "incomplete-1", str(path)))
  # A graph has the tables of its tokenizer: 1.8 MB that shrink to 60 KB.
  for path in FOLDER.glob("exports/*/saved_model.pb"):
    path.with_suffix(".pb.xz").write_bytes(lzma.compress(path.read_bytes()))
    path.unlink()


# Data -------------------------------------------------------------------------


def write_data(old):
  """Writes what the runs read."""
  rng = random.Random(0)
  data = FOLDER / "data"
  (data / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
  (data / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
  write_records(old, data, rng)
  rng = random.Random(5)  # With others the classifier learns later.
  for name, count in (("train", 48), ("dev", 24), ("test", 8)):
    write_reviews(data / f"{name}.csv", rng, count)
  for name, count in (("train", 32), ("dev", 16), ("test", 6)):
    write_questions(data / f"{name}.json", rng, count, name != "test")
  write_jsonl(data / "test.json", data / "questions.jsonl")


def write_records(old, data, rng):
  """Writes about 40 records, one of them bad."""
  documents = [
    [" ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for _ in range(4)]
    for _ in range(12)
  ]
  text = "\n\n".join("\n".join(document) for document in documents)
  (data / "text.txt").write_text(text + "\n")
  flags = {
    "input_file": "data/text.txt",
    "output_file": "data/records.tfrecord",
    "vocab_file": "data/vocab.txt",
    "max_seq_length": 16,
    "max_predictions_per_seq": 3,
    "dupe_factor": 2,
  }
  run(old, "create_pretraining_data.py", flags)
  path = data / "records.tfrecord"
  records = bytearray(path.read_bytes())
  records[-10] ^= 1  # In the last record, whose checksum no longer fits.
  path.write_bytes(records)
  os.utime(path, (RECORDS_TIME, RECORDS_TIME))  # It stands in record_index.npz.


def write_reviews(path, rng, count):
  """Writes texts whose words tell their labels, most of the time."""
  with open(path, "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "review", "opinion"])
    for number in range(count):
      is_good = rng.random() < 0.5
      tone = GOOD if is_good == (rng.random() < 0.9) else BAD
      words = [
        *rng.choices(tone, k=3),
        *rng.choices(WORDS, k=rng.randint(1, 5)),
      ]
      rng.shuffle(words)
      label = "liked" if is_good else "disliked"
      writer.writerow([f"r{number}", " ".join(words), label])


def write_questions(path, rng, count, has_answers):
  """Writes questions for the colour in a text, a third without one."""
  paragraphs = []
  for number in range(count):
    words, answers = rng.choices(WORDS, k=rng.randint(4, 20)), []
    if rng.random() < 2 / 3:
      place = rng.randrange(len(words))
      words.insert(place, rng.choice(COLORS))
      start = len(" ".join([*words[:place], ""]))
      answers = [{"text": words[place], "answer_start": start}]
    question = {"id": f"q{number}", "question": "what color"}
    if has_answers:
      question |= {"answers": answers, "is_impossible": not answers}
    paragraphs.append({"context": " ".join(words), "qas": [question]})
  content = {"version": "v2.0", "data": [{"paragraphs": paragraphs}]}
  path.write_text(json.dumps(content, indent=1) + "\n")


def write_jsonl(source, target):
  """Writes the questions of a SQuAD file as run_predict.py reads them."""
  (article,) = json.loads(source.read_text())["data"]
  rows = [
    {
      "question": paragraph["qas"][0]["question"],
      "context": paragraph["context"],
    }
    for paragraph in article["paragraphs"]
  ]
  target.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
  main()
