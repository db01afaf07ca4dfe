"""The files of a model of transformers, in a folder or on its hub: found by name, and read as data within bounds.

What a file says is checked before anything is built of it. What names code, or a place elsewhere, is left out.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sktransfer._messages import first_line, shown
from sktransfer.backbones.sources import _weights
from sktransfer.backbones.sources._hub_downloads import (
    fetch,
    fetch_required,
    find,
    find_commit,
    in_our_words,
    is_about_connection,
    is_commit,
    is_revision,
    why_not_asked,
)

PREFIX = "hf:"

# The longest file of settings that is read, and the longest tokenizer, in bytes. Real ones have less than a tenth.
MOST_BYTES = 32 * 2**20
MOST_BYTES_OF_A_TOKENIZER = 512 * 2**20

# The first bytes of what git leaves instead of a large file.
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model, or of a part of it in a sub-folder.

    Parameters
    ----------
    place : str
        A folder, or a name on the hub.
    below : str, default=""
        A sub-folder.
    revision : str or None, default=None
        A branch, a tag or a commit of a model on the hub, where a person has named one.
    commit : str or None, default=None
        The commit whose files these are, once it is known.
    asks : bool, default=True
        Whether the hub is asked for files that are not on this machine.
    """

    place: str
    below: str = ""
    revision: str | None = None
    commit: str | None = None
    asks: bool = True

    @classmethod
    def named(cls, name: str, below: str = "", commit: str | None = None) -> "ModelFiles":
        """Return the files of what a person names: a folder, or a model on the hub, perhaps with a revision behind "@".

        Parameters
        ----------
        name : str
            With or without its prefix. A folder that has an "@" in its name is that folder.
        below, commit : object
            As in the class.

        Returns
        -------
        ModelFiles
            Wherever this process is by now.
        """
        place = os.path.expanduser(name.removeprefix(PREFIX))  # noqa: PTH111 (never raises)
        whole = cls(place, below, commit=commit)
        if "@" not in place or place.startswith((os.sep, ".", "~")) or "\0" in place or whole.is_folder:
            return whole
        model, _, revision = place.partition("@")
        return cls(model, below, revision, commit)

    def __str__(self) -> str:
        return shown(PREFIX + self.place + ("" if self.revision is None else f"@{self.revision}"))

    def pinned(self) -> "ModelFiles":
        """Return the same files, all of the commit that the revision stands for now; of a folder this."""
        if self.is_folder or self.commit is not None:
            return self
        with explained(self, "config.json"):
            return replace(self, commit=find_commit(self.place, self.revision))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder here, rather than a name on the hub."""
        return Path(self.place).is_dir()

    def within(self, path: object) -> "ModelFiles":
        """Return the files of a sub-folder.

        Parameters
        ----------
        path : str
            Relative to this folder; `""` is this one.

        Returns
        -------
        ModelFiles
            Of the part.

        Raises
        ------
        ValueError
            If it leads out of the folder.
        """
        inside = PurePosixPath(path) if isinstance(path, str) and "\\" not in path and "\0" not in path else None
        if inside is None or inside.is_absolute() or ".." in inside.parts or ":" in str(inside):
            raise ValueError(
                f"Got backbone={self}, whose modules.json names the folder {shown(path)}; expected a folder inside "
                "of the model's own. Write its name relative to modules.json."
            )
        below = PurePosixPath(self.below) / inside
        return replace(self, below="" if str(below) == "." else str(below))

    def find(self, name: str, required: bool = False) -> Path | None:
        """Return where a file is; from the hub it is fetched.

        Parameters
        ----------
        name : str
            Name of the file.
        required : bool, default=False
            Whether it is an error that a model on the hub has no such file.

        Returns
        -------
        Path or None
            `None` where the model has no such file.
        """
        if self.is_folder:
            file = Path(self.place, self.below, name)
        else:
            path, revision = str(PurePosixPath(self.below, name)), self.commit or self.revision
            with explained(self, name):
                if required:
                    found: Path | None = fetch_required(self.place, path, revision)
                else:
                    found = fetch(self.place, path, revision) if self.asks else find(self.place, path, revision)
            if found is None:
                return None
            file = found
        if file.exists() and not file.is_file():
            raise ValueError(f"Got backbone={self}, where {name} is not a file; expected one. Put the file there.")
        return file if file.is_file() else None

    def expect_all(self, what: str) -> None:
        """Refuse to take what is on this machine for all of a model whose hub cannot be asked for the rest.

        Parameters
        ----------
        what : str
            What is not here.

        Raises
        ------
        ConnectionError
            If it may be on the hub.
        """
        why = None if self.is_folder or not self.asks else why_not_asked()
        if why is not None:
            raise _not_fetched(self, what, why)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes | None:
        """Return the bytes of a file.

        Parameters
        ----------
        name : str
            Name of the file.
        most : int, default=MOST_BYTES
            The longest file that is read, in bytes.

        Returns
        -------
        bytes or None
            `None` where the model has no such file.

        Raises
        ------
        ValueError
            If it is longer, cannot be read, or is what git leaves instead of a large file.
        """
        file = self.find(name)
        if file is None:
            return None
        try:
            with file.open("rb") as opened:
                content = opened.read(most + 1)
        except OSError as error:
            raise ValueError(
                f"Got backbone={self}, whose {name} cannot be read ({error.strerror}); expected a file that you may "
                "read. Change its permissions."
            ) from error
        if len(content) > most:
            raise ValueError(
                f"Got backbone={self}, whose {name} has more than {most // 2**20} MiB; expected a file as "
                "transformers writes it. Download or save the model again."
            )
        refuse_pointer(self, str(PurePosixPath(self.below, name)), content)
        return content

    def json(self, name: str, kind: type = dict, most: int = MOST_BYTES) -> Any:
        """Return what a file of JSON says.

        Parameters
        ----------
        name : str
            Name of the file.
        kind : type, default=dict
            What it has to hold.
        most : int, default=MOST_BYTES
            The longest file that is read, in bytes.

        Returns
        -------
        object or None
            `None` where the model has no such file.

        Raises
        ------
        ValueError
            If it is not JSON, or holds something else.
        """
        content = self.read(name, most)
        if content is None:
            return None
        try:
            value = json.loads(content.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self._unreadable(name, f"not valid UTF-8 at byte {error.start}") from error
        except RecursionError as error:
            raise self._unreadable(name, "nested too deeply") from error
        except ValueError as error:  # no JSON, or a number of thousands of digits
            reason = "empty" if not content.strip() else f"not JSON ({first_line(error)})"
            raise self._unreadable(name, reason) from error
        if not isinstance(value, kind):
            raise self._unreadable(name, f"a {type(value).__name__} and not a {kind.__name__}")
        return value

    def _unreadable(self, name: str, reason: str) -> ValueError:
        return ValueError(
            f"Got backbone={self}, whose {PurePosixPath(self.below, name)} is {reason}; expected a file of JSON as "
            "the library writes it. Download or save the model again."
        )


def refuse_pointer(files: ModelFiles, name: str, content: bytes) -> None:
    """Refuse what git leaves instead of a large file that was not downloaded.

    Parameters
    ----------
    files : ModelFiles
        Whose file it is.
    name : str
        Name of the file.
    content : bytes
        Its first bytes, or all.

    Raises
    ------
    ValueError
        If it is such a pointer.
    """
    if content.startswith(_POINTER):
        raise ValueError(
            f"Got backbone={files}, whose {name} is a Git LFS pointer: the model was cloned without its large files. "
            "Expected the file itself. Run `git lfs pull` in the folder, or download the model again."
        )


def check_place(files: ModelFiles) -> None:
    """Refuse a name that leads nowhere, and a folder that holds no model.

    Parameters
    ----------
    files : ModelFiles
        What `backbone=` names.

    Raises
    ------
    ValueError
        If no model can be there.
    FileNotFoundError
        If there is no such folder.
    """
    place = files.place
    if not place:
        raise ValueError('Got backbone="hf:"; expected "hf:" and a name on the hub, or a folder.')
    if "\0" in place:
        raise ValueError(f"Got backbone={files}, which holds a zero byte; expected the name of a model or a folder.")
    if files.is_folder:
        return
    if Path(place).exists():
        raise ValueError(
            f"Got backbone={files}, which is not a folder; expected the folder that holds it, with config.json, "
            "weights, and a tokenizer or preprocessor_config.json. Give the folder."
        )
    if place.startswith((os.sep, ".", "~")) or place.count("/") > 1 or place.endswith("/"):
        raise FileNotFoundError(
            f"Got backbone={files}; expected a folder, and there is none at {shown(place)}. Correct the path."
        )
    check_revision(files)
    _check_hub(files)


def check_revision(files: ModelFiles) -> None:
    """Refuse what cannot be a revision, or a commit: both become parts of paths and addresses.

    Parameters
    ----------
    files : ModelFiles
        What `backbone=` names, or a file that a model was saved in.

    Raises
    ------
    ValueError
        If one leads elsewhere.
    """
    if files.revision is not None and not is_revision(files.revision):
        raise ValueError(
            f'Got backbone={files}, whose revision behind "@" is {shown(files.revision)}; expected a branch, a tag '
            'or a commit of the model, as in "hf:OWNER/NAME@v1.0". Correct it, or leave "@" out.'
        )
    if files.commit is not None and not is_commit(files.commit):
        raise ValueError(f"Got backbone={files} of the commit {shown(files.commit)}; expected 40 hexadecimal digits.")


def _check_hub(files: ModelFiles) -> None:
    """Refuse a hub that is not asked by https: nobody on the way can read or change what comes by that."""
    from huggingface_hub import constants

    scheme = constants.ENDPOINT.partition(":")[0]
    if scheme not in _weights.SCHEMES and not constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"Refused to fetch backbone={files} from {shown(constants.ENDPOINT)} (HF_ENDPOINT), which is asked by "
            f'{scheme}; expected https. Download the model by other means, and give its folder: backbone="hf:FOLDER".'
        )


# The library's manners


@contextmanager
def explained(files: ModelFiles, what: str, advice: str = "Download or save the model again.") -> Iterator[None]:
    """Say in our words why something of a model cannot be had of the library.

    Parameters
    ----------
    files : ModelFiles
        Of the model.
    what : str
        What is wanted of it, for the message.
    advice : str
        What to do about it.
    """
    try:
        with quiet():
            yield
    except Exception as error:  # the library raises what it pleases
        raise _in_our_words(files, what, advice, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how code in Rust gives up
            raise
        raise _in_our_words(files, what, advice, error) from error


def _in_our_words(files: ModelFiles, what: str, advice: str, error: BaseException) -> Exception:
    if not files.is_folder:
        from huggingface_hub.errors import EntryNotFoundError

        if isinstance(error, EntryNotFoundError):
            return ValueError(
                f"Got backbone={files}, a model that has no {what} on the hub; expected one that transformers has "
                "saved. Give another model."
            )
        refused = in_our_words(error, f"backbone={files}", files.place, files.revision)
        if refused is not None:
            return refused
    if not files.is_folder and is_about_connection(error):
        return _not_fetched(files, what, first_line(error))
    return ValueError(
        f"Got backbone={files}, whose {what} cannot be loaded ({first_line(error)}); expected a model that "
        f"transformers can load. {advice}"
    )


def _not_fetched(files: ModelFiles, what: str, why: str) -> ConnectionError:
    return ConnectionError(
        f"Could not fetch {what} of {files} ({why}), and it is not in the hub's folder on this machine. Where there is "
        'no network, download the model on a machine that has one, and give its folder: backbone="hf:FOLDER". If the '
        "name is wrong, correct it."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's advice and progress bars to itself."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
