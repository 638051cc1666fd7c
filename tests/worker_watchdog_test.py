"""Who is waited for, how long, and what is said when they do not come."""

import pathlib
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from bert_keras3.training import workers

CLUSTER = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}


class UnavailableError(Exception):
  """Named as TensorFlow's."""


class InternalError(Exception):
  """Of many causes."""


@pytest.fixture
def clock(monkeypatch):
  """What the module takes for the time."""
  now = types.SimpleNamespace(seconds=0.0)
  fake = types.SimpleNamespace(monotonic=lambda: now.seconds, sleep=time.sleep)
  monkeypatch.setattr(workers, "time", fake)
  return now


@pytest.fixture
def closed_address():
  """An address at which nothing listens."""
  with socket.socket() as a_socket:
    a_socket.bind(("127.0.0.1", 0))
    yield f"127.0.0.1:{a_socket.getsockname()[1]}"


@pytest.fixture
def open_address():
  with socket.create_server(("127.0.0.1", 0)) as server:
    yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
  ("task", "port", "peers"),
  [
    ({"type": "worker", "index": 1}, 3, ("a:1", "b:2")),
    ({"type": "chief", "index": "0"}, 1, ("b:2", "[::1]:3")),
  ],
)
def test_the_peers_are_all_workers_but_this_one(task, port, peers):
  tf_config = {"cluster": CLUSTER, "task": task}
  cluster = workers.Cluster.from_tf_config(tf_config)
  assert cluster == workers.Cluster(port, peers)


@pytest.mark.parametrize(
  "tf_config",
  [
    [],
    {"cluster": CLUSTER},
    {"cluster": ["a:1"], "task": {"type": "worker", "index": 0}},
    {"cluster": CLUSTER, "task": {"type": "worker", "index": 2}},
    {"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}},
  ],
)
def test_a_tf_config_that_lacks_a_part_is_no_cluster(tf_config):
  with pytest.raises((AttributeError, LookupError, TypeError, ValueError)):
    workers.Cluster.from_tf_config(tf_config)


def test_the_peers_that_did_not_come_are_named(closed_address, open_address):
  cluster = workers.Cluster(0, (open_address, closed_address))
  with pytest.raises(ConnectionError) as caught:
    workers.gather(cluster, timeout=0.0)
  assert f"in vain for {closed_address}; start every" in str(caught.value)


def test_peers_that_are_there_are_not_waited_for(open_address):
  workers.gather(workers.Cluster(0, (open_address,)), 0.0)


def test_two_that_wait_for_each_other_meet():
  with socket.socket() as first, socket.socket() as second:
    for a_socket in (first, second):
      a_socket.bind(("127.0.0.1", 0))
    ports = [x.getsockname()[1] for x in (first, second)]
  clusters = [
    workers.Cluster(own, (f"127.0.0.1:{other}",))
    for own, other in (ports, ports[::-1])
  ]
  with workers._listen(clusters[1].port):
    workers.gather(clusters[0], timeout=60.0)
  # TensorFlow's server is there by now.
  with workers._listen(clusters[0].port):
    workers.gather(clusters[1], timeout=60.0)


def test_a_taken_port_is_named(open_address):
  port = int(open_address.rpartition(":")[2])
  with pytest.raises(OSError, match=f"^port {port}, which TF_CONFIG gives"):
    workers.gather(workers.Cluster(port, ()), 0.0)


def test_a_peer_that_ends_while_tensorflow_joins_it_is_not_waited_for(
  open_address,
):
  """TensorFlow then sleeps with Python's lock, as this call of C does."""
  program = (
    "import ctypes\nfrom bert_keras3.training import workers as w\n"
    f"with w.starting(w.Cluster(0, ({open_address!r},)), timeout=0.5):\n"
    "  ctypes.PyDLL(None).sleep(1000)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    timeout=60,
    cwd=pathlib.Path(__file__).parent.parent,
  )
  assert result.returncode == 1
  assert result.stderr == (
    "all 2 workers are there; should one end before they have joined, this one "
    "ends after 0.5 seconds of --worker_timeout with status 1\n"
  )


def test_a_change_of_place_starts_the_clock_again(clock):
  places = iter(["after step 1", "after step 1", "after step 2"])
  wait = workers._Wait(lambda: next(places))
  clock.seconds = 5.0
  assert wait.seconds() == 5.0
  clock.seconds = 7.0
  assert wait.seconds() == 0.0
  assert wait.position == "after step 2"


@pytest.mark.parametrize(
  ("error", "is_loss"),
  [
    (UnavailableError("recvmsg"), True),
    (InternalError("Collective ops is aborted by: x"), True),
    (InternalError("libcuda"), False),
    (ValueError("collective"), False),
  ],
)
def test_what_collectives_raise_becomes_a_sentence(
  closed_address, error, is_loss
):
  watchdog = workers.Watchdog((closed_address,), timeout=1000.0)
  expected = ConnectionError if is_loss else type(error)
  with pytest.raises(expected) as caught:
    with watchdog.waiting(lambda: "after step 7"):
      raise error
  if is_loss:
    assert str(caught.value).startswith(
      f"after step 7: {closed_address} has ended or stands still; every"
    )


def test_one_worker_is_not_watched():
  with pytest.raises(UnavailableError):
    with workers.Watchdog().waiting():
      raise UnavailableError("a disk")


def test_waiting_in_vain_ends_the_process_and_names_the_place(open_address):
  said, has_ended = [], threading.Event()

  def end(sentence):
    said.append(sentence)
    has_ended.set()

  watchdog = workers.Watchdog((open_address,), timeout=0.1, end=end)
  with watchdog.waiting(lambda: "after step 7"):
    assert has_ended.wait(60)
  assert said[0].startswith(
    f"after step 7: {open_address} stood still for 0.1 seconds of "
    "--worker_timeout; every checkpoint that was written is whole"
  )
