"""Files of models on the Hugging Face Hub: found in the hub's folder on this machine, or else fetched into it.

What a commit holds does not change, so whoever names one asks nobody for what is there. Where the hub cannot be
reached, it is not asked at all. What it refuses is said in our words: a name, a revision, a gate, a login.
"""

import re
from pathlib import Path
from typing import Any

from sktransfer._messages import first_line, shown
from sktransfer.backbones.sources._hub_connection import has_answered, note_answer, why_unreachable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"\w[\w.+/-]*")

# One of these is in every model that is understood here.
_FIRST_FILES = ("config.json", "modules.json")


def is_revision(text: str) -> bool:
    """Tell whether a text may be the name of a branch or a tag, or a commit; it becomes a part of paths.

    Parameters
    ----------
    text : str
        From anyone.

    Returns
    -------
    bool
        Whether it is made of letters, digits, and `.`, `-`, `_`, `+`, `/`, and leads nowhere else.
    """
    return _REVISION.fullmatch(text) is not None and ".." not in text and "//" not in text


def is_commit(revision: Any) -> bool:
    """Tell whether a revision is a whole commit, which no one can move."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def find_commit(repository: str, revision: str | None) -> str | None:
    """Return the commit that a revision stands for now, or stood for when the hub was last reached.

    Parameters
    ----------
    repository : str
        Name of the model.
    revision : str or None
        A branch, a tag or a commit; `None` is the main branch.

    Returns
    -------
    str or None
        40 hexadecimal digits; `None` for a model without the files of one.

    Raises
    ------
    Exception
        As `fetch` does.
    """
    if is_commit(revision):
        return revision
    for name in _FIRST_FILES:
        found = fetch(repository, name, revision)
        if found is not None:
            parts = found.parts
            return next((part for part in parts[parts.index("snapshots") :] if is_commit(part)), None)
    return None


def find(repository: str, name: str, revision: str | None = None) -> Path | None:
    """Return where a file is on this machine, without asking anybody.

    Parameters
    ----------
    repository : str
        Name of the model.
    name : str
        Of the file, with its folder.
    revision : str or None, default=None
        A branch, a tag or a commit.

    Returns
    -------
    Path or None
        `None` where it is not there.
    """
    found = _look(repository, name, revision)
    return Path(found) if isinstance(found, str) else None


def _look(repository: str, name: str, revision: str | None) -> Any:
    """Return a path, `None`, or a thing that stands for a file that the model is known not to have."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return try_to_load_from_cache(repository, name, revision=revision)
    except (HFValidationError, OSError, UnicodeError):  # no such name, a folder that may not be read
        return None


def fetch(repository: str, name: str, revision: str | None = None) -> Path | None:
    """Return where a file is, which is fetched where it is not there, or may have changed.

    Parameters
    ----------
    repository, name, revision : object
        As in `find`.

    Returns
    -------
    Path or None
        `None` where the model has no such file.

    Raises
    ------
    ConnectionError
        If the file is not here, and the hub cannot be reached, or its library is in offline mode.
    Exception
        As huggingface_hub raises it; `in_our_words` says what it means.
    """
    from huggingface_hub.errors import EntryNotFoundError

    known = _look(repository, name, revision) if is_commit(revision) else None
    if known is not None and not isinstance(known, str):
        return None
    try:
        return fetch_required(repository, name, revision)
    except EntryNotFoundError:
        return None
    except Exception as error:
        # Whoever has other files of this revision has all that there are.
        if is_about_connection(error) and any(find(repository, one, revision) for one in _FIRST_FILES):
            return None
        raise


def fetch_required(repository: str, name: str, revision: str | None = None) -> Path:
    """Do the same of a file that has to be there.

    Parameters
    ----------
    repository, name, revision : object
        As in `find`.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    Exception
        As `fetch` does, and huggingface_hub's EntryNotFoundError if the model has no such file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    here = find(repository, name, revision)
    if here is not None and is_commit(revision):
        return here
    if (why := why_not_asked()) is not None:
        if here is None:
            raise ConnectionError(why)
        return here
    try:
        if not (is_commit(revision) and has_answered()):
            commit = _ask(repository, name, revision)
            if here is not None and commit in here.parts:
                return here
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise ConnectionError(first_line(error.__cause__ or error)) from error
    except Exception as error:
        if not is_about_connection(error) or _is_about_names(error):
            raise
        if here is not None:
            return here  # as the library does
        if isinstance(error, HfHubHTTPError | ConnectionError):
            raise
        raise ConnectionError(first_line(error)) from error


def _ask(repository: str, name: str, revision: str | None) -> str | None:
    """Return the commit that a revision stands for now; of a hub that cannot be asked, once and not again and again."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    commit = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).commit_hash
    note_answer()
    return commit


def is_about_connection(error: BaseException | None) -> bool:
    """Tell whether an error, or one behind it, is the network's or the hub's.

    Parameters
    ----------
    error : BaseException or None
        Any.

    Returns
    -------
    bool
        Whether it is.
    """
    while error is not None:
        module = type(error).__module__
        if isinstance(error, ConnectionError | TimeoutError) or module.startswith(
            ("huggingface_hub", "httpx", "requests")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_about_names(error: BaseException) -> bool:
    """Tell whether the hub has answered that it does not have what was asked for."""
    from huggingface_hub import errors

    return isinstance(error, errors.EntryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError)


def why_not_asked() -> str | None:
    """Say why the hub is not asked for anything now.

    Returns
    -------
    str or None
        A clause; `None` where it can be asked.
    """
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else why_unreachable()


def in_our_words(error: BaseException | None, named: str, repository: str, revision: str | None) -> Exception | None:
    """Say what the hub means that refuses a model.

    Parameters
    ----------
    error : BaseException or None
        What its library raised, or what came of that.
    named : str
        What the person wrote, as it stands behind "Got".
    repository : str
        Name of the model.
    revision : str or None
        What was asked for of it.

    Returns
    -------
    Exception or None
        To be raised from that; `None` where the hub has not refused the model.
    """
    from huggingface_hub import constants, errors

    kinds = (errors.HfHubHTTPError, errors.HFValidationError)
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__ or error.__context__
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.HFValidationError):
        return ValueError(
            f"Got {named}, and {shown(repository)} cannot be a name on the hub; expected OWNER/NAME, with letters, "
            "digits, and '-', '_' or '.' between them. Correct the name."
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"Got {named}, a gated model: you must accept the conditions of its owner (HTTP {status}). Accept them "
            f"on its page, {page}, and log in on this machine with the same account: hf auth login."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ValueError(
            f"Got {named}, but the model {shown(repository)} has no revision {shown(revision or 'main')} "
            f"(HTTP {status}); expected a branch, a tag or a commit of it. {page}/tree/main lists them."
        )
    if isinstance(error, errors.DisabledRepoError):
        return PermissionError(
            f"Got {named}, a model that the hub has disabled (HTTP {status}); expected one that it offers. {page} may "
            "say why. Use another model."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ValueError(
            f"Got {named}, but the hub has no model {shown(repository)}, or does not show it to you (HTTP {status}); "
            "expected the name of one. Correct the name. If the model is private, log in with an account that may read "
            "it: hf auth login."
        )
    if status in (401, 403):
        return PermissionError(
            f"Got {named}, but the hub refuses your login (HTTP {status}); expected a token that may read "
            f"{shown(repository)}. Log in again with hf auth login, or correct HF_TOKEN."
        )
    return None
