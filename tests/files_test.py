"""Files that are whole or not there, and JSON."""

import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from bert_keras3.data import files

# What makes a local path one that TensorFlow has to open.
SCHEMES = ("", "file://")
NOT_JSON = {
  "cut off": b'{"a": 1',
  "not UTF-8": b'"\xff"',
  "long integer": b"1" * 5000,
  "nested": b"[" * 100000,
  "empty": b"",
}


@pytest.fixture(params=SCHEMES)
def path(request, tmp_path):
  """Of a file that is not there, local or as if it were remote."""
  return f"{request.param}{tmp_path}/some.txt"


def contents(folder):
  """Names and bytes of a folder's files."""
  return {x.name: x.read_bytes() for x in pathlib.Path(folder).iterdir()}


@pytest.mark.parametrize("content", ["gr\u00f6\u00dfer\r\n", b"\xff\r\n", ""])
def test_a_file_is_written_as_it_is(path, tmp_path, content):
  files.write_atomically(path, "the old one")
  files.write_atomically(path, content)
  encoded = content if isinstance(content, bytes) else content.encode()
  assert contents(tmp_path) == {"some.txt": encoded}


def test_until_it_is_complete_the_old_one_is_there(path, tmp_path):
  files.write_atomically(path, "old")
  with files.open_atomically(path) as writer:
    writer.write(b"new")
    assert (tmp_path / "some.txt").read_bytes() == b"old"
  assert contents(tmp_path) == {"some.txt": b"new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_nothing(path, tmp_path, error):
  files.write_atomically(path, "old")
  with pytest.raises(error), files.open_atomically(path) as writer:
    writer.write(b"new")
    raise error
  assert contents(tmp_path) == {"some.txt": b"old"}


def test_two_writers_of_a_file_do_not_meet(path, tmp_path):
  with files.open_atomically(path) as first:
    with files.open_atomically(path) as second:
      second.write(b"second")
    first.write(b"first")
  assert contents(tmp_path) == {"some.txt": b"first"}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("end", ["", "/"])
def test_a_directory_makes_way_for_the_new_one(tmp_path, scheme, end):
  path = f"{scheme}{tmp_path}/export{end}"
  for text in ("old", "new"):
    with files.replacing_directory(path) as directory:
      folder = pathlib.Path(directory.removeprefix("file://"))
      folder.mkdir()
      (folder / f"{text}.txt").write_text(text)
  assert [x.name for x in tmp_path.iterdir()] == ["export"]
  assert contents(tmp_path / "export") == {"new.txt": b"new"}


def test_a_failed_directory_leaves_the_old_one(tmp_path):
  (tmp_path / "export").mkdir()
  (tmp_path / "export" / "old.txt").write_text("old")
  with pytest.raises(ValueError):
    with files.replacing_directory(str(tmp_path / "export")) as directory:
      pathlib.Path(directory).mkdir()
      (pathlib.Path(directory) / "new.txt").touch()
      raise ValueError
  assert [x.name for x in tmp_path.iterdir()] == ["export"]
  assert contents(tmp_path / "export") == {"old.txt": b"old"}


def test_json_is_read(path):
  files.write_atomically(path, '{"gr\u00f6\u00dfe": [1, 2.5, null]}')
  assert files.read_json(path) == {"gr\u00f6\u00dfe": [1, 2.5, None]}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_has_a_sentence(path, content):
  files.write_atomically(path, content)
  with pytest.raises(ValueError) as caught:
    files.read_json(path, "{path} is broken ({problem}); get another")
  start, end = f"{path} is broken (", "); get another"
  text = str(caught.value)
  assert text.startswith(start) and text.endswith(end)
  assert len(text) > len(start) + len(end)


def test_local_files_need_no_tensorflow(tmp_path):
  """Its import takes seconds, which scripts for text do not spend."""
  program = (
    "import sys\n"
    "from bert_keras3.data import files, features, order, sequences, sources\n"
    "files.write_atomically(sys.argv[1], '[1]')\n"
    "assert files.read_json(sys.argv[1]) == [1]\n"
    "print('tensorflow' in sys.modules)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", program, str(tmp_path / "a.json")],
    cwd=pathlib.Path(__file__).parent.parent,
    capture_output=True,
    text=True,
  )
  assert result.stdout == "False\n", result.stderr


def test_a_remote_file_that_cannot_be_read_is_an_os_error(monkeypatch):
  """TensorFlow's own errors are none, and would end in a traceback."""

  def fail(path):
    raise tf.errors.PermissionDeniedError(None, None, "no access")

  monkeypatch.setattr(files.tokenization, "open_bytes", fail)
  with pytest.raises(OSError, match="gs://b/a.json cannot be read: no access"):
    files.read_json("gs://b/a.json")


def test_a_folder_that_is_a_file_has_a_sentence(tmp_path):
  folder = tmp_path / "out"
  files.write_into("output_dir", str(folder), "a.txt", "text")
  assert (folder / "a.txt").read_text() == "text"
  with pytest.raises(NotADirectoryError, match="--output_dir=.*a.txt is a fil"):
    files.write_into("output_dir", str(folder / "a.txt"), "b.txt", "text")
