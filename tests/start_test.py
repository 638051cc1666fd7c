"""How scripts start and show mistakes."""

import ast
import json
import linecache
import os
import pathlib
import subprocess
import sys

import pytest

import tokenization
from bert_keras3.console import start
from bert_keras3.data import files

PROGRAM = """
import dataclasses
from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.training import configs

@dataclasses.dataclass(frozen=True)
class Config(configs.DeviceConfig):
  count: int = fields.flag(1, "How many.", lower_bound=1)

def main(config):
  if config.count == 2:
    int("not a number")
  print("ran", config.count)

def cli():
  start.run(main, Config)

cli()
"""


@pytest.fixture(scope="module")
def project_root():
  return str(pathlib.Path(__file__).resolve().parent.parent)


def run_program(folder, project_root, *args):
  path = folder / "program.py"
  path.write_text(PROGRAM)
  return subprocess.run(
    [sys.executable, str(path), *args],
    capture_output=True,
    text=True,
    env={"PYTHONPATH": project_root, "PATH": ""},
  )


def test_main_runs(tmp_path, project_root):
  result = run_program(tmp_path, project_root, "--count=4")
  assert (result.stdout, result.returncode) == ("ran 4\n", 0)


def test_help_lists_shared_flags_without_tensorflow(tmp_path, project_root):
  result = run_program(tmp_path, project_root, "--help")
  assert "--distribution_strategy" in result.stdout
  assert "--count" in result.stdout


@pytest.mark.parametrize(
  ("argument", "words"),
  [
    ("--count=0", "flag --count=0"),
    ("--xla=maybe", "value should be one of <auto|true|false>"),
    ("--num_device=1", "Did you mean: num_devices"),
    ("stray", "unexpected argument 'stray'"),
  ],
)
def test_a_wrong_flag_is_explained(tmp_path, project_root, argument, words):
  result = run_program(tmp_path, project_root, argument)
  assert result.returncode == 1
  assert words in result.stderr
  assert "Traceback" not in result.stderr


def test_a_defect_keeps_its_traceback(tmp_path, project_root):
  result = run_program(tmp_path, project_root, "--count=2")
  assert "Traceback" in result.stderr and "not a number" in result.stderr


def test_a_script_may_be_called_through_a_link(tmp_path, project_root):
  link = tmp_path / "classify.py"
  link.symlink_to(pathlib.Path(project_root, "run_classifier.py"))
  result = subprocess.run(
    [sys.executable, str(link), "--task_name=mrpc", "--output_dir=out"],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1
  assert result.stderr.startswith("classify: error: nothing to do: pass ")
  assert result.stderr.count("\n") == 1


def error_of(function):
  try:
    function()
  except (ValueError, OSError) as error:
    return error


def test_only_our_raise_statements_are_mistakes():
  ours = error_of(lambda: tokenization.convert_to_unicode(3))
  assert start.is_users_mistake(ours)
  missing = error_of(lambda: files.find_files("input_file", "none"))
  assert start.is_users_mistake(missing)
  assert not start.is_users_mistake(error_of(lambda: int("x")))
  assert not start.is_users_mistake(error_of(lambda: json.loads("{")))


@pytest.mark.parametrize(
  ("path", "is_ours"),
  [
    ("bert_keras3/data/theirs.py", True),
    ("bert_keras3/__init__.py", True),
    ("tokenization.py", True),
    # What else an installation has beside the package.
    ("six.py", False),
    ("bert_keras3_tools/theirs.py", False),
    ("tokenizers/tokenization.py", False),
  ],
)
def test_files_beside_the_package_are_not_ours(path, is_ours, project_root):
  path = os.path.join(project_root, path)
  program = compile("\nraise ValueError('words')", path, "exec")
  error = error_of(lambda: exec(program, {}))
  linecache.cache[path] = (0, None, ["\n", "raise ValueError('words')"], path)
  assert start.is_users_mistake(error) == is_ours
  del linecache.cache[path]


# Files


def test_patterns_keep_their_order_and_sort_their_files(tmp_path):
  for name in ["b2", "b10", "a"]:
    (tmp_path / name).touch()
  patterns = f"{tmp_path}/b*,{tmp_path}/a,{tmp_path}/b2"
  found = files.find_files("input_file", patterns)
  assert [pathlib.Path(x).name for x in found] == ["b10", "b2", "a", "b2"]


def test_a_pattern_without_a_file_is_named(tmp_path):
  (tmp_path / "a.txt").touch()
  patterns = f"{tmp_path}/*.txt,{tmp_path}/*.text"
  with pytest.raises(FileNotFoundError, match=r"--input_file: .*\*\.text'"):
    files.find_files("input_file", patterns)


@pytest.mark.parametrize(
  ("outputs", "words"),
  [
    (["missing/a"], "missing is no directory"),
    (["a", "."], "--output_file=.: not the name of a file"),
    (["a", ""], "--output_file=: not the name of a file"),
    (["a", "b", "a"], "--output_file=a is also another output"),
    (["a", "./text"], "--output_file=./text is also another output or an in"),
  ],
)
def test_outputs_that_cannot_be(outputs, words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises((ValueError, OSError), match=words):
    files.check_output_files("output_file", outputs, ["text"])


def test_a_file_name_alone_is_in_the_current_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.check_output_files("output_file", ["vocab.txt"], [])


@pytest.mark.parametrize(
  "script", ["create_pretraining_data", "run_pretraining", "build_vocab"]
)
def test_console_scripts_list_their_flags(script, project_root):
  """A console script's argv[0] is a path of which absl knows no flags."""
  program = f"import sys, {script}; sys.argv[0] = '/bin/x'; {script}.cli()"
  result = subprocess.run(
    [sys.executable, "-c", program, "--help"],
    capture_output=True,
    text=True,
    cwd=project_root,
  )
  assert "--input_file" in result.stdout
  docstring = ast.get_docstring(
    ast.parse((pathlib.Path(project_root) / f"{script}.py").read_text())
  )
  assert docstring.splitlines()[0] in result.stdout
  assert result.stderr == ""


# Ends of a script


def start_script(project_root, body, *command, **options):
  """Starts a script whose `main` has the body; its files are pipes."""
  program = (
    "import sys\nfrom bert_keras3.console import start\n"
    "from bert_keras3.training import configs\n"
    "from bert_keras3.training import signals\n"
    f"def main(config):\n  {body}\n"
    "start.run(main, configs.TrainingConfig)\n"
  )
  return subprocess.Popen(
    [sys.executable, "-c", program, *command],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=project_root,
    **{"stderr": subprocess.PIPE, **options},
  )


def test_an_output_that_nobody_reads_ends_a_script_with_a_sentence(
  project_root,
):
  process = start_script(project_root, "while True: print('a line')")
  process.stdout.readline()
  process.stdout.close()
  error = "-c: error: nobody reads the output any more\n"
  assert process.stderr.read() == error
  assert process.wait() == 1


@pytest.mark.parametrize(
  ("command", "words"),
  [
    ([], ""),
    (
      ["--overwrite_output_dir"],
      ", without --overwrite_output_dir, which would delete this run",
    ),
  ],
)
def test_a_run_that_was_stopped_tells_how_to_go_on(
  project_root, command, words
):
  body = "raise signals.Interrupted('the same command continues')"
  process = start_script(project_root, body, *command)
  _, error = process.communicate()
  assert process.returncode == 75
  assert error == f"-c: the same command continues{words}\n"


def test_a_status_survives_the_end_of_what_reads_the_output(project_root):
  """As Ctrl-C ends `tee` as well."""
  body = "sys.stdin.read(); raise signals.Interrupted('saved')"
  process = start_script(project_root, body, stderr=subprocess.STDOUT)
  process.stdout.close()
  process.stdin.close()
  assert process.wait() == 75


def test_ctrl_c_is_no_traceback(project_root):
  process = start_script(project_root, "raise KeyboardInterrupt")
  _, error = process.communicate()
  assert (process.returncode, error) == (130, "-c: stopped by SIGINT\n")
