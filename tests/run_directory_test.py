"""What an output_dir holds, and how a run in it starts and ends."""

import json

import pytest

from bert_keras3.training import output_directory

SETTINGS = {"learning_rate": 0.1, "seed": 3}


@pytest.fixture
def data_file(tmp_path):
  path = tmp_path / "data.tfrecord"
  path.write_bytes(b"records")
  return str(path)


def open_run(tmp_path, data_file, settings=SETTINGS, may_write=True):
  return output_directory.open_directory(
    str(tmp_path / "out"), settings, [data_file], may_write
  )


def test_a_run_goes_from_new_to_finished(tmp_path, data_file):
  run = open_run(tmp_path, data_file)
  assert run.open() == "new"
  run.claim()
  assert open_run(tmp_path, data_file).open() == "unfinished"
  run.record({"loss": 1.5}, finished=True)
  assert open_run(tmp_path, data_file).open() == "finished"
  manifest = json.loads((tmp_path / "out" / "run_manifest.json").read_text())
  assert manifest["settings"] == SETTINGS
  assert manifest["results"] == {"loss": 1.5}
  assert manifest["data"][data_file]["bytes"] == 7
  assert {"tensorflow", "keras", "python"} <= set(manifest["versions"])


def test_results_of_a_later_evaluation_do_not_reopen_a_run(tmp_path, data_file):
  run = open_run(tmp_path, data_file)
  run.claim()
  run.record({}, finished=True)
  run.record({"loss": 2.0})
  assert run.open() == "finished"


def test_other_flags_are_named(tmp_path, data_file):
  open_run(tmp_path, data_file).claim()
  other = open_run(tmp_path, data_file, {**SETTINGS, "seed": 4})
  with pytest.raises(ValueError, match=r"--seed=3 \(now 4\).*--overwrite"):
    other.open()


def test_what_to_do_about_nan_may_change_on_the_way(tmp_path, data_file):
  """After it has stopped a run, for one. Earlier manifests have it."""
  open_run(tmp_path, data_file, {**SETTINGS, "on_nan": "stop"}).claim()
  assert open_run(tmp_path, data_file).open() == "unfinished"


def test_what_a_killed_process_has_half_written_is_removed(tmp_path, data_file):
  run = open_run(tmp_path, data_file)
  for start in (run.claim, lambda: run.open(overwrite=True)):
    run.claim()
    for name in ("checkpoint", "best_model.ckpt", "training_log.csv"):
      (tmp_path / "out" / f"{name}.incomplete-77").touch()
    (tmp_path / "out" / "notes.incomplete").touch()
    start()
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert "notes.incomplete" in names
    assert not [name for name in names if "77" in name]


def test_a_setting_that_came_later_has_its_default_in_old_runs(
  tmp_path, data_file
):
  open_run(tmp_path, data_file).claim()
  name = "special_tokens_in_text"
  split = open_run(tmp_path, data_file, {**SETTINGS, name: "split"})
  assert split.open() == "unfinished"
  split.check_settings([name])
  keep = open_run(tmp_path, data_file, {**SETTINGS, name: "keep"})
  with pytest.raises(ValueError, match=r"--special\w+=split \(now keep\)"):
    keep.open()
  with pytest.raises(ValueError, match=r"with --special\w+=split, not keep"):
    keep.check_settings([name])


def test_changed_data_is_named(tmp_path, data_file):
  open_run(tmp_path, data_file).claim()
  with open(data_file, "ab") as file:
    file.write(b"more")
  with pytest.raises(ValueError, match="data.tfrecord is not what the run"):
    open_run(tmp_path, data_file).open()


def test_data_that_is_gone_is_named(tmp_path, data_file):
  second = tmp_path / "second.tfrecord"
  second.write_bytes(b"more records")
  output_directory.OutputDirectory(
    str(tmp_path / "out"), SETTINGS, [data_file, str(second)]
  ).claim()
  with pytest.raises(ValueError, match="second.tfrecord is not what the run"):
    open_run(tmp_path, data_file).open()


def test_an_output_dir_that_is_a_file_is_refused(tmp_path, data_file):
  (tmp_path / "out").touch()
  with pytest.raises(NotADirectoryError, match="out is a file"):
    open_run(tmp_path, data_file)


def test_overwriting_deletes_the_run_and_nothing_else(tmp_path, data_file):
  run = open_run(tmp_path, data_file)
  run.claim()
  out = tmp_path / "out"
  for name in ("model.ckpt-5.index", "checkpoint", "notes.txt"):
    (out / name).touch()
  assert run.open(overwrite=True) == "new"
  assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_upstreams_checkpoints_without_manifest_are_an_unfinished_run(
  tmp_path, data_file
):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "checkpoint").touch()
  assert open_run(tmp_path, data_file).open() == "unfinished"


def test_only_the_writer_writes(tmp_path, data_file):
  run = open_run(tmp_path, data_file, may_write=False)
  run.claim()
  run.write("a.txt", "text")
  assert not (tmp_path / "out").exists()
  open_run(tmp_path, data_file).claim()
  run.open(overwrite=True)
  run.record({}, finished=True)
  assert open_run(tmp_path, data_file).open() == "unfinished"
