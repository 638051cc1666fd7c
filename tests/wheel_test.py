"""The wheel, installed and used from another folder than the checkout."""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

import layout_test
from bert_keras3.tasks import attention_report

ROOT = layout_test.ROOT
ROOT_NAMES = sorted([*layout_test.ROOT_MODULES, *layout_test.SCRIPTS])
PACKAGE = layout_test.PACKAGE.name
# Of what a folder may hold besides the project, where there is no git to ask.
RUBBISH = r"(^|/)(\.|__pycache__|build/|dist/|demo_output/)|\.egg-info/|\.pyc$"

# A flag in what --help prints.
FLAG = r"(?m)^ +-\S+"

# As anybody may write one.
FOREIGN_MODULE = """
def fail(config):
  raise ValueError("foreign words")
"""
RUN_FOREIGN_MODULE = """
import foreign
from bert_keras3.console import start
from bert_keras3.data import fields
start.run(foreign.fail, fields.Config)
"""

PRINT_PATHS = """
import importlib, sys
for name in sys.argv[1:]:
  print(importlib.import_module(name).__file__)
"""

PRINT_PAGE = """
import numpy as np
from bert_keras3.tasks import attention_report
report = attention_report.AttentionReport("A page")
attention = np.full([1, 1, 2, 2], 0.5, np.float32)
report.add(attention_report.Sentence(["[CLS]", "[SEP]"], 2, attention))
print(report.html(), end="")
"""


def run(*command, **options):
  options = {"capture_output": True, "text": True, **options}
  return subprocess.run([str(x) for x in command], **options)


def check(*command, **options):
  result = run(*command, **options)
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


def list_project_files():
  """Names of the files that belong to the project, in a clone or without."""
  if (ROOT / ".git").exists() and shutil.which("git"):
    names = check("git", "ls-files", cwd=ROOT).splitlines()
    return [x for x in names if (ROOT / x).exists() and x[0] != "."]
  files = [path for path in ROOT.rglob("*") if path.is_file()]
  names = [path.relative_to(ROOT).as_posix() for path in files]
  return [x for x in names if not re.search(RUBBISH, x)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
  """A copy, because building leaves files behind."""
  pytest.importorskip("setuptools")
  pytest.importorskip("wheel")
  folder = tmp_path_factory.mktemp("project")
  for name in list_project_files():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / name, path)
  return folder


@pytest.fixture(scope="module")
def wheel(project, tmp_path_factory):
  pytest.importorskip("pip")
  folder = tmp_path_factory.mktemp("wheel")
  options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
  check(sys.executable, "-m", "pip", "wheel", *options, project)
  (path,) = folder.glob("*.whl")
  return path


class Environment:
  """An environment with nothing in it but the wheel.

  Its other packages are those of the environment that runs this, by way of a
  .pth file. Other .pth files are not read over there: this checkout, if it is
  installed as editable, cannot be seen.
  """

  def __init__(self, folder, wheel):
    self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
    check(sys.executable, "-m", "venv", "--without-pip", folder)
    self.python = self.bin / "python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", self.python)
    check(*pip, "install", *options, wheel)
    program = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    self.site_packages = pathlib.Path(self.call("-c", program).stdout.strip())
    borrowed = [
      path
      for path in sys.path
      if path.endswith(("site-packages", "dist-packages"))
    ]
    (self.site_packages / "borrowed.pth").write_text("\n".join(borrowed))
    (self.site_packages / "foreign.py").write_text(FOREIGN_MODULE)

  def call(self, *arguments, program=None, cwd=None):
    """Runs Python, or a program that the wheel brings."""
    command = self.bin / program if program else self.python
    env = {x: y for x, y in os.environ.items() if x != "PYTHONPATH"}
    return run(command, *arguments, env=env, cwd=cwd)

  @property
  def programs(self):
    """Names of console scripts by the root file that they run."""
    (distribution,) = importlib.metadata.distributions(
      path=[str(self.site_packages)]
    )
    scripts = distribution.entry_points.select(group="console_scripts")
    return {x.module: x.name for x in scripts}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
  return Environment(tmp_path_factory.mktemp("environment"), wheel)


# What is in it ----------------------------------------------------------------


def test_the_wheel_has_the_root_files_and_the_package(wheel, project):
  names = zipfile.ZipFile(wheel).namelist()
  in_package = [
    path.relative_to(project).as_posix()
    for path in (project / PACKAGE).rglob("*")
    if path.is_file()
  ]
  assert [x for x in in_package if x.endswith(".html")]
  expected = {f"{name}.py" for name in ROOT_NAMES} | set(in_package)
  assert {x for x in names if ".dist-info/" not in x} == expected


def test_the_names_that_an_installation_takes(wheel):
  archive = zipfile.ZipFile(wheel)
  (path,) = (x for x in archive.namelist() if x.endswith("/top_level.txt"))
  names = archive.read(path).decode().split()
  assert sorted(names) == sorted([*ROOT_NAMES, PACKAGE])


def test_the_source_archive_has_every_file(project, tmp_path):
  program = (
    "import sys; from setuptools import build_meta\n"
    "print(build_meta.build_sdist(sys.argv[1]))"
  )
  output = check(sys.executable, "-c", program, tmp_path, cwd=project)
  archive = tarfile.open(tmp_path / output.splitlines()[-1])
  names = {x.name.partition("/")[2] for x in archive if x.isfile()}
  assert set(list_project_files()) - names == set()


# What it does -----------------------------------------------------------------


def test_imports_come_from_the_installation(installed, tmp_path):
  names = [*ROOT_NAMES, PACKAGE]
  result = installed.call("-c", PRINT_PATHS, *names, cwd=tmp_path)
  folders = {f"{installed.site_packages / name}.py" for name in ROOT_NAMES}
  folders.add(str(installed.site_packages / PACKAGE / "__init__.py"))
  assert set(result.stdout.split()) == folders, result.stderr


@pytest.mark.parametrize("script", layout_test.SCRIPTS)
def test_a_console_script_lists_the_flags_of_its_file(
  script, installed, tmp_path
):
  program = installed.programs[script]
  assert program == f"bert-{script.removeprefix('run_').replace('_', '-')}"
  result = installed.call("--help", program=program, cwd=tmp_path)
  path = ROOT / f"{script}.py"
  expected = run(sys.executable, path, "--help", cwd=tmp_path)
  assert expected.stderr == result.stderr == ""
  # absl ends with 1.
  assert result.returncode == expected.returncode
  flags = re.findall(FLAG, result.stdout)
  assert flags == re.findall(FLAG, expected.stdout)
  assert len(flags) > 5


def test_every_script_has_its_program(installed):
  assert sorted(installed.programs) == layout_test.SCRIPTS


@pytest.mark.parametrize(
  ("script", "arguments", "sentence"),
  [
    # Raised by the package, by tokenization.py and by the script.
    (
      "create_pretraining_data",
      "--input_file=none.txt --output_file=out --vocab_file=none.txt",
      "--input_file: no file matches 'none.txt'; check the path",
    ),
    (
      "create_pretraining_data",
      "--input_file=text.txt --output_file=out --vocab_file=none.txt",
      "none.txt: no such file; check the path",
    ),
    (
      "run_fill_mask",
      "--init_checkpoint=none",
      "pass one of --text, --input_file and --interactive",
    ),
    # Found out after TensorFlow is loaded.
    (
      "run_classifier",
      "--task_name=cola --do_train --data_dir=none --output_dir=out "
      "--init_checkpoint=none --bert_config_file=none.json",
      "no BERT config at none.json; check the path",
    ),
  ],
)
def test_a_users_mistake_is_one_sentence(
  script, arguments, sentence, installed, tmp_path
):
  (tmp_path / "text.txt").write_text("A text.\n")
  (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
  result = installed.call(
    *arguments.split(), program=installed.programs[script], cwd=tmp_path
  )
  assert result.stderr == f"{script}: error: {sentence}\n"
  assert (result.returncode, result.stdout) == (1, "")


def test_a_neighbours_exception_keeps_its_traceback(installed, tmp_path):
  result = installed.call("-c", RUN_FOREIGN_MODULE, cwd=tmp_path)
  assert result.returncode == 1
  assert "Traceback" in result.stderr
  assert 'foreign.py", line 3' in result.stderr
  assert "ValueError: foreign words" in result.stderr


def test_the_attention_page_is_the_same(installed, tmp_path):
  report = attention_report.AttentionReport("A page")
  attention = np.full([1, 1, 2, 2], 0.5, np.float32)
  report.add(attention_report.Sentence(["[CLS]", "[SEP]"], 2, attention))
  result = installed.call("-c", PRINT_PAGE, cwd=tmp_path)
  assert result.stdout == report.html(), result.stderr
