"""What the scripts wrote before modules moved into rooms goes on to be of use.

Only scripts, as processes, and files of public formats: nothing here depends on
where a module lies. testdata/before_rooms/make.py says what the files are.
"""

import json
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
OLD = ROOT / "tests" / "testdata" / "before_rooms"
RUNS = json.loads((OLD / "runs.json").read_text())
# On the machine that made them all numbers are the same bits. Another one may
# add in another order: 4e-6 at most in a gradient's norm and 6e-8 in weights,
# seen without oneDNN and with its code for SSE4.1. Other batches, masks: 1e-2.
TOLERANCE = 1e-5
# A softmax does not feel it, so that its gradient is nothing but rounding, of
# which Adam makes steps as large as others: 5e-5 was seen.
UNFELT, UNFELT_TOLERANCE = "/attention/self/key/bias", 1e-3
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")


@pytest.fixture
def folder(tmp_path):
  """A copy of all the old files, in which scripts run as they did then."""
  return shutil.copytree(OLD, tmp_path / "old")


def run(folder, script, *groups, status=0):
  """Runs a script with groups of flags; returns what it said."""
  words = [
    f"--{name}={str(value).lower() if value is True else value}"
    for name, value in {k: v for x in groups for k, v in x.items()}.items()
  ]
  result = subprocess.run(
    [sys.executable, str(ROOT / f"{script}.py"), *words],
    cwd=folder,
    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    capture_output=True,
    text=True,
  )
  said = result.stdout + result.stderr
  assert result.returncode == status, said
  assert "Traceback" not in said
  return said


def run_again(folder, name, output_dir, status=0, **changes):
  """The command that a run was started with, perhaps with other flags."""
  flags = {**RUNS[name]["training"], "output_dir": output_dir}
  return run(folder, RUNS[name]["script"], flags, changes, status=status)


# Comparing --------------------------------------------------------------------


def assert_close(actual, expected, about):
  is_unfelt = str(about).endswith(UNFELT)
  tolerance = UNFELT_TOLERANCE if is_unfelt else TOLERANCE
  np.testing.assert_allclose(
    actual, expected, rtol=tolerance, atol=tolerance, err_msg=str(about)
  )


def assert_same_text(actual, expected):
  """The same but for the last digits of numbers."""
  texts = [path.read_text(encoding="utf-8") for path in (actual, expected)]
  # A checksum of the numbers before it.
  texts = [re.sub(r'"crc32": \d+', "", text) for text in texts]
  assert NUMBER.sub("#", texts[0]) == NUMBER.sub("#", texts[1]), expected
  numbers = [[float(x) for x in NUMBER.findall(text)] for text in texts]
  assert_close(*numbers, expected)


def assert_same_log(actual, expected):
  """The same rows but for the speed, which the clock has a part in."""
  header, *_ = expected.read_text().splitlines()
  assert header.rsplit(",", 1)[1] == "examples_per_second"
  for path in (actual, expected):
    rows = [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(rows))
  assert_same_text(actual, expected)


def assert_same_manifest(actual, expected):
  """The same run; other packages may have gone on with it."""
  actual, expected = (json.loads(x.read_text()) for x in (actual, expected))
  # Flags that came since are settings, too.
  assert expected["settings"].items() <= actual["settings"].items()
  assert actual["data"] == expected["data"]
  assert actual["finished"] == expected["finished"]
  assert list(actual["results"]) == list(expected["results"])
  pairs = (list(x["results"].values()) for x in (actual, expected))
  assert_close(*pairs, "results")


def assert_same_checkpoint(actual, expected):
  actual, expected = (
    tf.train.load_checkpoint(str(x.with_suffix(""))) for x in (actual, expected)
  )
  shapes = expected.get_variable_to_shape_map()
  assert actual.get_variable_to_shape_map() == shapes
  assert (
    actual.get_variable_to_dtype_map() == expected.get_variable_to_dtype_map()
  )
  for name in shapes:
    assert_close(actual.get_tensor(name), expected.get_tensor(name), name)


def same_bytes(actual, expected):
  assert actual.read_bytes() == expected.read_bytes(), expected


def assert_same_run(actual, expected):
  """All files of a run but those that a later one may leave out or add."""
  compare_by_end = {
    "training_log.csv": assert_same_log,
    "run_manifest.json": assert_same_manifest,
    ".index": assert_same_checkpoint,
    ".data-00000-of-00001": lambda *_: None,  # The index stands for both.
    ".npz": lambda *_: None,  # They spare time and change nothing.
    "": assert_same_text,
  }
  for path in sorted(expected.iterdir()):
    ends = [end for end in compare_by_end if path.name.endswith(end)]
    assert (actual / path.name).exists(), path.name
    compare_by_end[ends[0]](actual / path.name, path)
  checkpoints = [sorted(x.glob("model.ckpt-*")) for x in (actual, expected)]
  names = [[path.name for path in paths] for paths in checkpoints]
  assert names[0] == names[1]
  assert not list(actual.glob("*.incomplete-*"))


# Runs -------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("name", "step"), [("pretraining", 8), ("classification", 28)]
)
def test_a_run_that_was_killed_ends_as_it_would_have(folder, name, step):
  output_dir = f"unfinished/{name}"
  said = run_again(folder, name, output_dir)
  assert f"resuming at step {step}, from {output_dir}\n" in said
  assert_same_run(folder / output_dir, folder / "finished" / name)


@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_that_was_finished_is_skipped_and_evaluated(folder, name):
  output_dir = f"finished/{name}"
  shutil.copytree(folder / output_dir, folder / "before")
  (folder / output_dir / "eval_results.txt").unlink()
  said = run_again(folder, name, output_dir)
  sentence = (
    f"training is skipped: {output_dir} holds this run, finished "
    "(--overwrite_output_dir starts it anew)\n"
  )
  assert sentence in said
  assert_same_run(folder / output_dir, folder / "before")


@pytest.mark.parametrize("name", ["classification", "reading"])
def test_a_run_that_was_finished_predicts_what_it_did(folder, name):
  output_dir = f"finished/{name}"
  where = {"output_dir": output_dir}
  run(folder, RUNS[name]["script"], RUNS[name]["prediction"], where)
  for path in (folder / "answers" / name).iterdir():
    if path.name != "exported.jsonl":
      assert_same_text(folder / output_dir / path.name, path)


def test_an_index_of_records_spares_looking_for_them(folder):
  output_dir = folder / "finished" / "pretraining"
  records = folder / "data" / "records.tfrecord"
  # The index knows the size and the time of the file that it is of.
  index = np.load(output_dir / "record_index.npz")
  (about,) = json.loads(str(index["about"])).values()
  content = bytearray(records.read_bytes())
  # Who looks for records finds the second one's length to be damaged.
  second = struct.calcsize("<QI") + struct.unpack_from("<Q", content)[0] + 4
  content[second + 8] ^= 1
  records.write_bytes(content)
  os.utime(records, ns=(about["mtime"], about["mtime"]))
  expected = shutil.copy(output_dir / "eval_results.txt", folder / "before.txt")
  said = run_again(folder, "pretraining", output_dir, do_train="false")
  assert "1 of 62 records are bad and left out\n" in said
  assert_same_text(output_dir / "eval_results.txt", expected)


def test_a_run_with_other_flags_is_refused(folder):
  output_dir = "unfinished/classification"
  said = run_again(
    folder, "classification", output_dir, status=1, label_smoothing=0.1
  )
  assert (
    f"{output_dir} holds a run with --label_smoothing=0.0 (now 0.1)" in said
  )


def test_a_run_on_other_data_is_refused(folder):
  with open(folder / "data" / "train.json", "a") as file:
    file.write("\n")
  said = run_again(folder, "reading", "finished/reading", status=1)
  sentence = (
    "data/train.json is not what the run in finished/reading was started with"
  )
  assert sentence in said


# Exports ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classification", "reading"])
def test_an_export_answers_what_it_did(folder, name):
  graph = folder / "exports" / name / "saved_model.pb"
  graph.write_bytes(lzma.decompress(graph.with_suffix(".pb.xz").read_bytes()))
  where = {"export_dir": f"exports/{name}", "output_file": "answers.jsonl"}
  run(folder, "run_predict", RUNS[name]["question"], where)
  expected = folder / "answers" / name / "exported.jsonl"
  assert_same_text(folder / "answers.jsonl", expected)
