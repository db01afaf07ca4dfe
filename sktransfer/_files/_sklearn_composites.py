"""Write scikit-learn estimators around ours with skops, as bytes that contain no code.

Where one of ours stands, a placeholder is written. Types are looked up in a list that is made here of scikit-learn's
own, never by a name in what is read.
"""

import copy
import inspect
import io
import math
import pickle
import zipfile
import zlib
from functools import cache
from typing import Any

from sklearn.base import BaseEstimator

from sktransfer._messages import named_extra
from sktransfer._process._fit_tasks import CALLBACKS
from sktransfer._process._private_names import scorers_and_calibrators

# How parts of what skops writes may be packed, and those of an archive in it; the most that the latter may unpack to.
_PACKINGS = ((zipfile.ZIP_STORED,), (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
_MOST_UNPACKED = 2**28


class Placeholder(BaseEstimator):
    """Stands for one of our estimators in what skops writes.

    Parameters
    ----------
    number : int, default=0
        Which.
    """

    def __init__(self, number: int = 0):
        self.number = number


def write_composite(estimator: BaseEstimator, ours: tuple[type, ...]) -> tuple[list[Any], bytes]:
    """Write an estimator without those of some types in it, and without the callbacks that were set.

    Parameters
    ----------
    estimator : BaseEstimator
        A Pipeline, a search, or any other of scikit-learn's.
    ours : tuple of type
        What is left out, wherever it stands.

    Returns
    -------
    found : list of object
        What was left out, each once.
    written : bytes
        All else.

    Raises
    ------
    TypeError
        If it holds types that are not known to be harmless.
    ImportError
        If skops is not installed.
    """
    skops = _skops()
    found, callbacks = _find(ours, estimator)
    memo: dict[int, Any] = {id(one): Placeholder(number) for number, one in enumerate(found)}
    memo |= {id(one): [] for one in callbacks}
    written = skops.dumps(copy.deepcopy(estimator, memo))
    strange = _strange(written)
    if strange:
        raise TypeError(
            f"Got a {type(estimator).__name__} that holds {', '.join(strange)}; expected only parts of scikit-learn "
            "that can be loaded without running code or trusting raw memory. Save the parts separately, or use "
            "joblib.dump, whose files run code."
        )
    return found, written


def read_composite(written: bytes, ours: list[Any]) -> Any:
    """Read what `write_composite` wrote.

    Parameters
    ----------
    written : bytes
        From anyone.
    ours : list of object
        What was left out, in order.

    Returns
    -------
    BaseEstimator
        With it in its places.

    Raises
    ------
    ValueError
        If it holds types that are not known to be harmless, or claims more than it holds.
    ImportError
        If skops is not installed.
    """
    skops = _skops()
    _check_archive(written)
    strange = _strange(written)
    if strange:
        raise ValueError(f"refused, because it contains {', '.join(strange)}")
    around = skops.loads(written, trusted=sorted(_harmless()))
    memo = {id(one): ours[one.number] for one in _find((Placeholder,), around)[0]}
    return copy.deepcopy(around, memo)


def _check_archive(written: bytes, nested: bool = False) -> None:
    """Refuse what would unpack to more than it holds. skops packs only sparse matrices, which are archives.

    What an archive says of its parts is compared with its length; Python's reader never gives more of a part than that.
    """
    most = max(len(written), 0 if not nested else min(_MOST_UNPACKED, 1000 * len(written)))
    try:
        with zipfile.ZipFile(io.BytesIO(written)) as archive:
            members = archive.infolist()
            claimed = sum(member.file_size for member in members)
            if claimed > most or any(member.compress_type not in _PACKINGS[nested] for member in members):
                raise ValueError(f"an archive of {len(written)} bytes that claims to unpack to {claimed}")
            for member in members:
                name = member.filename
                if name.endswith((".npy", ".npz")):
                    _check_member(archive.read(member), name.endswith(".npz"), nested)
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, zlib.error) as error:
        raise ValueError(f"an archive that is not whole ({error})") from error


def _check_member(content: bytes, is_archive: bool, nested: bool) -> None:
    import numpy as np

    if is_archive:
        if nested:
            raise ValueError("archives within archives")
        _check_archive(content, nested=True)
        return
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject or math.prod(shape) * max(dtype.itemsize, 1) > len(content):
        raise ValueError(f"an array of {str(dtype)[:50]} of shape {str(shape)[:50]} in {len(content)} bytes")


class _Finder(pickle.Pickler):
    """Goes through an object, and collects those of some types instead of going into them."""

    def __init__(self, types: tuple[type, ...]):
        super().__init__(io.BytesIO())
        self.types = types
        self.found: dict[int, Any] = {}
        self.callbacks: dict[int, Any] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if isinstance(obj, BaseEstimator) and CALLBACKS in vars(obj):
            self.callbacks[id(vars(obj)[CALLBACKS])] = vars(obj)[CALLBACKS]
        if id(obj) in self.callbacks:
            return id(obj)
        if type(obj) not in self.types:
            return None
        self.found[id(obj)] = obj
        return id(obj)


def _find(types: tuple[type, ...], within: Any) -> tuple[list[Any], list[Any]]:
    """Return what is of some types, each once, and the lists of callbacks that were set, which are not written."""
    finder = _Finder(types)
    try:
        finder.dump(within)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"Got a {type(within).__name__} that cannot be saved: {error}. Replace objects that are defined in a "
            "script or a notebook with objects that can be imported."
        ) from error
    return list(finder.found.values()), list(finder.callbacks.values())


def _strange(written: bytes) -> list[str]:
    return sorted(set(_skops().get_untrusted_types(data=written)) - _harmless())


@cache
def _harmless() -> frozenset[str]:
    """Names of types and functions that skops does not know, and that only hold or compute what they are given."""
    import numpy as np
    from sklearn import feature_selection, metrics, model_selection
    from sklearn.utils import Bunch
    from sklearn.utils.metadata_routing import MetadataRequest

    modules = (model_selection, metrics, feature_selection)
    public = [vars(module).get(name) for module in modules for name in module.__all__]
    splitters = [one for one in public if inspect.isclass(one) and hasattr(one, "get_n_splits")]
    functions = [one for one in public if inspect.isfunction(one)]
    requests = [MetadataRequest, type(MetadataRequest(owner="").fit)]
    known = [Placeholder, Bunch, np.dtype, *splitters, *functions, *requests, *scorers_and_calibrators()]
    names = {f"{one.__module__}.{one.__qualname__}" for one in known}
    names |= {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"}  # as numpy 2 and 1 call it
    return frozenset(names | {"sklearn.compose._column_transformer._RemainderColsList"})  # up to scikit-learn 1.6


def _skops() -> Any:
    what = "Saving and loading scikit-learn estimators around ours needs the package skops"
    with named_extra(what, "skops", ". Our estimators by themselves do not need it"):
        import skops.io
    return skops.io
