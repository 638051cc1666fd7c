"""The format of an evaluation's results, as upstream writes them."""

import numpy as np


def format_results(results):
  """Formats lines `key = value`, sorted by key, as upstream's eval_results.txt.

  Floats are written as float32, the precision they were computed in.
  """
  return "".join(
    f"{key} = {str(np.float32(value)) if isinstance(value, float) else value}\n"
    for key, value in sorted(results.items())
  )
