"""Find the blocks that end the stages of a network: after them, the size of the map changes.

A network looks at an image at several scales, and what it sees at each helps a new task. Where no map changes its size,
as in transformers, blocks that are spread evenly stand for stages.
"""

from collections.abc import Sequence

# Stages before the features.
STAGES = 4

# Blocks that stand for stages are this part of all apart, counted back from the last: the first third says little.
SPREAD = 6


def stage_ends(sizes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return which blocks end stages, the last block, which ends in the features, aside.

    Parameters
    ----------
    sizes : sequence of tuple of int
        Size of each block's map, in order: (height, width), or `()` where it gives tokens or vectors.

    Returns
    -------
    list of int
        At most `STAGES` numbers of blocks, counted from 0, in order.
    """
    before = range(len(sizes) - 1)
    following = [*sizes[1:-1], ()]  # features are vectors in the end, whoever pools them
    ends = [block for block in before if sizes[block] and sizes[block] != following[block]]
    if len(ends) > 1:
        return ends[-STAGES:]
    step = max(1, round(len(sizes) / SPREAD))
    evenly = (len(sizes) - 1 - step * (level + 1) for level in reversed(range(STAGES)))
    return [block for block in evenly if block >= 0]
