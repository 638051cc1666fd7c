"""Draws random numbers as CPython's `random` does, many at a time."""

import operator

import numpy as np

# Shuffling draws indexes of at most this many bits one by one.
_TAIL_BITS = 5


# Words generated at a time: together with all values derived from them they fit
# into a processor's cache.
_BLOCK_WORDS = 1 << 14


class WordStream:
  """Draws the numbers of a `random.Random` from blocks of its 32-bit words.

  All of Random's methods consume the words of a Mersenne Twister. `random()`
  makes a number from the first 27 bits of one word and the first 26 of the
  next. An integer below n is made from as many leading bits of a word as n has;
  words are rejected until it is below n. NumPy's twister gives the same words,
  and the values made from them are computed for a whole block at once.

  Hot loops call `reserve`, read `words`, `leading` and `is_below` themselves
  from `position` on, and then set `position`.

  Args:
    rng: a random.Random; its state is copied.

  Attributes:
    words: the block, uint32.
    position: the next word's index in the block.
    leading: `leading[bits]` is the first bits of each word, bytes or a list.
    is_below: `is_below[p]` says for each word whether random() is below p if
      it starts there; bytes.
  """

  def __init__(self, rng):
    _, (*key, position), _ = rng.getstate()
    self._twister = np.random.MT19937(0)
    self._twister.state = {
      "bit_generator": "MT19937",
      "state": {"key": np.array(key, np.uint32), "pos": position},
    }
    self._use_block(np.zeros(0, np.uint32))

  def _use_block(self, block):
    self.words = memoryview(block)
    self.position = 0
    self.leading = _Derived(block, _leading_bits)
    self.is_below = _Derived(block, _is_random_below)

  def reserve(self, count):
    """Makes at least `count` words available from `position` on."""
    if self.position + count > len(self.words):
      rest = np.asarray(self.words)[self.position :]
      fresh = self._twister.random_raw(max(count, _BLOCK_WORDS))
      self._use_block(np.concatenate([rest, fresh.astype(np.uint32)]))

  def random(self):
    """Returns `Random.random()`, a float in [0, 1)."""
    self.reserve(2)
    first, second = self.words[self.position : self.position + 2]
    self.position += 2
    return _random_from_words(first, second)

  def below(self, limit):
    """Returns `Random.randrange(limit)`, for a limit below 2**32."""
    shift = 32 - limit.bit_length()
    number = limit
    while number >= limit:
      if self.position == len(self.words):
        self.reserve(1)
      number = self.words[self.position] >> shift
      self.position += 1
    return number

  def flips(self, count):
    """Returns the first bits of `count` calls of random(): 0 if below 0.5."""
    self.reserve(2 * count)
    start = self.position
    self.position += 2 * count
    return self.leading[1][start : self.position : 2]

  def shuffle(self, items, kept=None):
    """Shuffles as `Random.shuffle`; with `kept`, only the first `kept` items.

    The innermost loops take half of the script's time, so they call nothing.
    Indexes for the items from `last` down to `lowest` have the same number of
    bits; they come from an iterator, whose length afterwards tells how many
    words were used. The last few items are too few for an iterator for each
    number of bits.
    """
    last = len(items) - 1
    kept = len(items) if kept is None else kept
    self.reserve(1)
    leading, position, size = self.leading, self.position, len(self.words)
    for bits in range((last + 1).bit_length(), _TAIL_BITS, -1):
      lowest = (1 << bits - 1) - 1
      while last >= lowest:
        drawn = leading[bits][position : position + 3 * last]
        others = iter(drawn)
        if lowest < kept:
          for other in others:
            if other <= last:
              items[last], items[other] = items[other], items[last]
              last -= 1
              if last < lowest:
                break
        else:
          for other in others:
            if other <= last:
              items[other] = items[last]
              last -= 1
              if last < lowest:
                break
        position += len(drawn) - operator.length_hint(others)
        if position == size:
          self.position = position
          self.reserve(1)
          leading, position, size = self.leading, 0, len(self.words)
    self.position = position
    self._shuffle_tail(items, last)

  def _shuffle_tail(self, items, last):
    """Continues `shuffle` from an item whose index has at most _TAIL_BITS bits.

    Reserves enough words for seven rejections of every index; raises IndexError
    if even these run out.
    """
    self.reserve(8 << _TAIL_BITS)
    leading, position = self.leading[_TAIL_BITS], self.position
    for bits in range(_TAIL_BITS, 1, -1):
      lowest = (1 << bits - 1) - 1
      unused = _TAIL_BITS - bits
      while last >= lowest:
        other = leading[position] >> unused
        position += 1
        if other <= last:
          items[last], items[other] = items[other], items[last]
          last -= 1
    self.position = position


class _Derived(dict):
  """Caches `derive(block, key)` for each key that is asked for."""

  def __init__(self, block, derive):
    super().__init__()
    self._block = block
    self._derive = derive

  def __missing__(self, key):
    value = self[key] = self._derive(self._block, key)
    return value


def _leading_bits(block, bits):
  leading = block >> (32 - bits)
  if bits > 8:
    return leading.tolist()
  return leading.astype(np.uint8).tobytes()


def _is_random_below(block, probability):
  return (_random_from_words(block[:-1], block[1:]) < probability).tobytes()


def _random_from_words(first, second):
  # The floating point arithmetic of CPython, so that == holds.
  return ((first >> 5) * 67108864.0 + (second >> 6)) / 9007199254740992.0
