"""Timeouts that end a worker whose peers do not start, end too soon, or hang.

A collective operation waits for all workers inside one call of TensorFlow that
has no timeout and that Python cannot interrupt. So a thread watches whether
this worker makes progress while it waits, and ends the process if not.
TensorFlow's own heartbeats detect a peer that is gone after some ten seconds,
but not one that hangs.
"""

import concurrent.futures
import contextlib
import dataclasses
import faulthandler
import os
import socket
import sys
import threading
import time

# How often the thread looks, so that short timeouts are kept as well.
LOOKS_PER_TIMEOUT = 20
MAX_SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_ANSWER = 1.0
SECONDS_BETWEEN_CALLS = 0.25
# Errors that collective operations raise for a peer that is gone.
_LOSSES = ("AbortedError", "DeadlineExceededError", "UnavailableError")
# Errors that they raise for other reasons as well.
_LOSSES_IF_COLLECTIVE = (
  "CancelledError",
  "FailedPreconditionError",
  "InternalError",
  "UnknownError",
)


_REMEDY = (
  "start every worker that TF_CONFIG lists, and check that TF_CONFIG is the "
  "same for all but for the task's index and that their ports can be reached "
  "from here"
)


@dataclasses.dataclass(frozen=True)
class Cluster:
  """The addresses of a run's workers, seen from one of them."""

  port: int  # of this worker
  peers: tuple[str, ...]  # "HOST:PORT" of the others

  @classmethod
  def from_tf_config(cls, tf_config):
    """Reads the dict of TF_CONFIG, with `cluster` and `task`.

    Raises:
      AttributeError, LookupError, TypeError, ValueError: it lacks a part.
    """
    jobs, task = tf_config["cluster"], tf_config["task"]
    own = (task["type"], int(task["index"]))
    addresses = {
      (job, index): address
      for job in ("chief", "worker")
      for index, address in enumerate(jobs.get(job, ()))
    }
    port = int(addresses.pop(own).rpartition(":")[2])
    return cls(port, tuple(addresses.values()))


def end_process(sentence):
  """Prints an error and ends the process, even if its main thread hangs."""
  script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
  sys.stdout.flush()
  sys.stderr.write(f"{script}: error: {sentence}\n")
  sys.stderr.flush()
  os._exit(1)


def gather(cluster, timeout):
  """Waits until every worker has opened its port.

  TensorFlow would wait for an hour, and hold the GIL, so that no thread could
  end the process.

  Args:
    cluster: Cluster.
    timeout: seconds.

  Raises:
    ConnectionError: a worker did not start in time.
    OSError: this worker's port is taken.
  """
  deadline = time.monotonic() + timeout
  missing = cluster.peers
  # Peers that look before TensorFlow opens the port find it open too.
  with _listen(cluster.port):
    while missing := _find_silent(missing):
      if time.monotonic() > deadline:
        raise ConnectionError(
          f"waited {timeout:g} seconds of --worker_timeout in vain for "
          f"{', '.join(missing)}; {_REMEDY}"
        )
      time.sleep(SECONDS_BETWEEN_CALLS)


def _listen(port):
  is_dual = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if is_dual else socket.AF_INET
  try:
    return socket.create_server(
      ("", port), family=family, dualstack_ipv6=is_dual, backlog=1024
    )
  except OSError as error:
    raise OSError(
      f"port {port}, which TF_CONFIG gives this worker, cannot be opened "
      f"({error.strerror}); end what uses it, or choose another one"
    ) from error


def _find_silent(peers):
  """Returns the addresses at which nothing listens."""
  if not peers:
    return ()
  with concurrent.futures.ThreadPoolExecutor(len(peers)) as pool:
    answers = list(pool.map(_answers, peers))
  return tuple(x for x, has in zip(peers, answers, strict=True) if not has)


class Watchdog:
  """Watches how long this worker waits for the others.

  Args:
    peers: "HOST:PORT" of the other workers; nothing is watched without any.
    timeout: seconds without progress after which the process ends.
    end: function of a sentence that ends the process; called in a thread.
  """

  def __init__(self, peers=(), timeout=0.0, end=end_process):
    self.peers = peers
    self.timeout = timeout
    self._end = end
    self._wait = None
    self._position = "before the first step"
    if peers:
      threading.Thread(target=self._watch, daemon=True).start()

  @contextlib.contextmanager
  def waiting(self, locate=None):
    """Starts the timeout for a block; nested blocks reset it.

    Args:
      locate: function that returns the position in the run ("after step 7");
        called in another thread. A new position resets the timeout.

    Raises:
      ConnectionError: TensorFlow has lost a peer.
    """
    # TensorFlow enters scopes in its own threads; the main thread awaits them.
    is_main = threading.current_thread() is threading.main_thread()
    if not self.peers or not is_main:
      yield
    elif self._wait:
      self._wait.start_clock()
      yield
      self._wait.start_clock()
    else:
      self._wait = _Wait(locate or (lambda: self._position))
      try:
        yield
      except Exception as error:
        if not _is_loss(error):
          raise
        self._wait.look()
        said = "has ended or stands still"
        raise ConnectionError(self._describe(self._wait, said)) from error
      finally:
        self._position = self._wait.position
        self._wait = None

  def _watch(self):
    pause = min(self.timeout / LOOKS_PER_TIMEOUT, MAX_SECONDS_BETWEEN_LOOKS)
    while True:
      time.sleep(pause)
      wait = self._wait
      is_late = wait and wait.seconds() > self.timeout
      if is_late and wait is self._wait:  # It has not ended meanwhile.
        said = f"stood still for {self.timeout:g} seconds of --worker_timeout"
        self._end(self._describe(wait, said))
        return

  def _describe(self, wait, said):
    # A worker that hangs may still accept connections.
    suspects = _find_silent(self.peers) or self.peers
    names = ("one of " if len(suspects) > 1 else "") + ", ".join(suspects)
    return (
      f"{wait.position}: {names} {said}; every checkpoint that was written is "
      "whole: see what that worker said, then start all workers again with the "
      "same commands"
    )


@contextlib.contextmanager
def starting(cluster, timeout):
  """Waits for the workers, then limits the time for TensorFlow to join them.

  Joining takes moments. If a worker ends just then, this process ends after
  `timeout` seconds with status 1: TensorFlow holds the GIL, and only
  faulthandler can end the process, without a message, which is printed first.

  Raises:
    ConnectionError: a worker did not start in time, or ended.
    OSError: this worker's port is taken.
  """
  gather(cluster, timeout)
  sys.stderr.write(
    f"all {len(cluster.peers) + 1} workers are there; should one end before "
    f"they have joined, this one ends after {timeout:g} seconds of "
    "--worker_timeout with status 1\n"
  )
  sys.stderr.flush()
  with open(os.devnull, "w") as nowhere:  # Hides a traceback of no use.
    faulthandler.dump_traceback_later(timeout, exit=True, file=nowhere)
    try:
      yield
    except Exception as error:
      if not _is_loss(error):
        raise
      raise ConnectionError(
        f"the workers do not come together ({type(error).__name__}); {_REMEDY}"
      ) from error
    finally:
      faulthandler.cancel_dump_traceback_later()


class _Wait:
  """A wait for other workers: its position in the run and its timer."""

  def __init__(self, locate):
    self.position = locate()
    self._locate = locate
    self.start_clock()

  def start_clock(self):
    self._start = time.monotonic()

  def look(self):
    """Updates the position; resets the timer if it has changed."""
    position = self._locate()
    if position != self.position:
      self.position = position
      self.start_clock()

  def seconds(self):
    """Returns the seconds since the last progress."""
    self.look()
    return time.monotonic() - self._start


def _is_loss(error):
  name = type(error).__name__
  if name in _LOSSES:
    return True
  return name in _LOSSES_IF_COLLECTIVE and "ollective" in str(error)


def _answers(address):
  """Returns whether something listens at "HOST:PORT"."""
  host, _, port = address.rpartition(":")
  target = (host.strip("[]"), int(port))
  try:
    with socket.create_connection(target, SECONDS_TO_ANSWER) as caller:
      # A free port may become the caller's, which then connects to itself.
      return caller.getsockname() != caller.getpeername()
  except OSError:
    return False
