"""Operations of ONNX, written one after another: each is given names or numbers, and returns the name of its result."""

from itertools import count
from typing import Any

import numpy as np


class Graph:
    """A part of an ONNX graph while it is written.

    Parameters
    ----------
    onnx : module
        The package onnx.
    prefix : str
        How names begin that it makes.
    """

    def __init__(self, onnx: Any, prefix: str):
        self._onnx, self._prefix, self._numbers = onnx, prefix, count()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """Add an operation of one result.

        Parameters
        ----------
        kind : str
            Its name in ONNX.
        *inputs : str, float, numpy scalar or ndarray
            Names of results, or constants.
        name : str, default=""
            That of the result; one is made if it is empty.
        **attributes : object
            As ONNX calls them.

        Returns
        -------
        str
            The name of the result.
        """
        given = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        name = name or f"{self._prefix}/{kind}_{next(self._numbers)}"
        self.nodes.append(self._onnx.helper.make_node(kind, given, [name], name=f"{name}/node", **attributes))
        return name

    def cast(self, value: Any, kind: type) -> str:
        """Add a conversion to another type.

        Parameters
        ----------
        value : str, float, numpy scalar or ndarray
            A name, or a constant.
        kind : type
            Of numpy.

        Returns
        -------
        str
            The name of the result.
        """
        return self.op("Cast", value, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def constant(self, value: Any) -> str:
        """Add a constant.

        Parameters
        ----------
        value : float, numpy scalar or ndarray
            Its value; Python's floats are float64.

        Returns
        -------
        str
            Its name.
        """
        name = f"{self._prefix}/constant_{next(self._numbers)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def halves(self, value: str, axis: int) -> list[str]:
        """Divide a tensor into two of the same shape.

        Parameters
        ----------
        value : str
            Its name.
        axis : int
            Along which it is divided; of an even length.

        Returns
        -------
        list of str
            Two names.
        """
        number = next(self._numbers)
        names = [f"{self._prefix}/half_{number}_{part}" for part in range(2)]
        self.nodes.append(self._onnx.helper.make_node("Split", [value], names, axis=axis, num_outputs=2))
        return names
