"""Models on a hub: fetching ``hf:owner/name`` and publishing model folders.

What is fetched lies in the cache of huggingface_hub, where a file appears only once it is whole.
Small files come first, then the weights, and last the branch's name: a snapshot that has weights
has everything, and an interrupted update leaves the one before it in use.
"""

from __future__ import annotations

import glob
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastdpm.core.errors import FastDPMError, InvalidArgumentError, ModelError, check_installed
from fastdpm.models.config import CARD, CONFIG, MODEL_FILES, OTHER_NETWORKS, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf:"

_REVISION = re.compile(r"\w[\w./+-]*", re.ASCII)
_REPO = re.compile(
    r"(?=.{3,96}$)[a-z0-9][\w.-]*(?<![.-])/[a-z0-9][\w.-]*(?<![.-])", re.ASCII | re.I
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = re.compile(
    r"README\.md|conditions\.safetensors|model_index\.json"
    r"|([^/]+/)?(config|scheduler_config)\.json"
)
# By place, the first that a repository has; others (half precision, shards, ONNX) are not read.
_WEIGHTS = (
    ("model.safetensors",),
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"),
)
_OTHER_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".onnx")
_SECONDS = 3.0  # to wait for a hub whose answer is not needed, as all is in the cache

_WORDS = 200  # characters of another library's error

_LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"
_MESSAGES = {
    "offline": "HF_HUB_OFFLINE is set, {so}: unset it",
    "network": "{where} cannot be reached, {so}: try again with a network",
    "partial": "the transfer broke off ({why}), {so}: try again",
    "missing": f"{{where}} has no model {{repo}}, or it is private: check the name, or {_LOG_IN}",
    "revision": "{repo} has no revision {revision!r}, {so}: leave it out, or give a branch, tag or"
    " commit of {where}/{repo}/commits",
    "gated": f"{{repo}} is gated: ask for access at {{where}}/{{repo}}, then {_LOG_IN}",
    "login": f"{{where}} does not take this token, {{so}}: {_LOG_IN} to a valid one",
    "unreadable": f"this token may not read {{repo}} on {{where}}: {_LOG_IN} to one that may",
    "unwritable": "this token has no right to write {repo} on {where}, {so}: use a token that may"
    " write, or a name of your own",
    "busy": "{where} does not work now ({why}), {so}: try again later",
    "refused": "{where} refused {repo}, {so}: {why}",
    "foreign": "{where} does not answer like a hub ({why}), {so}: check HF_ENDPOINT",
}
# By names of errors and status codes: huggingface_hub has had three HTTP libraries.
_CAUSES = {
    "offline": ("OfflineModeIsEnabled",),
    "network": ("ConnectionError", "TransportError", "Timeout", "ChunkedEncodingError"),
    "partial": ("LocalEntryNotFoundError", "RuntimeError"),
    "missing": ("RepositoryNotFoundError", "404"),
    "revision": ("RevisionNotFoundError",),
    "gated": ("GatedRepoError",),
    "login": ("401",),
    "unreadable": ("403",),
    "busy": ("408", "429", "5xx"),
    "foreign": ("JSONDecodeError", "UnicodeDecodeError", "KeyError", "InvalidURL"),
    "refused": ("HfHubHTTPError", "ValueError"),
}
_REASONS = {name: reason for reason, names in _CAUSES.items() for name in names}


def fetch(name: str) -> Path:
    """Download a model, or find it in the cache.

    Of a diffusers pipeline only the U-Net's weights are fetched, as safetensors if it has those.
    Without a network the cache serves, and a commit that is in the cache needs no network.

    Args:
        name: "hf:owner/name" or "hf:owner/name@revision": a branch, a tag or a commit.

    Returns:
        A model folder, or one of diffusers, inside the cache.

    Raises:
        InvalidArgumentError: If the name is malformed, or there is no such model or revision.
        ModelError: If it cannot be fetched, or holds no weights that can be read.
        MissingExtraError: If huggingface_hub is not installed.
    """
    check_installed("huggingface_hub", "huggingface_hub", "hub")
    repo, at, wanted = name.removeprefix(PREFIX).partition("@")
    _check_name(repo, wanted if at else None)
    revision = wanted or None
    kept = _cached(repo, revision)
    if kept is not None and revision is not None and _COMMIT.fullmatch(revision):
        return kept
    try:
        with _told(repo, revision, f"so {name} was not fetched", writing=False):
            return _download(name, repo, revision, _SECONDS if kept is not None else None)
    except ModelError:
        if kept is None:
            raise
        return kept


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a model folder in one commit; its other files stay where they are.

    Args:
        folder: A model folder that has been found whole.
        repo_id: "owner/name"; the repository is created if there is none.
        private: Create it for its owner's eyes only; otherwise as the owner has it by default.
        revision: Branch, created if there is none; the main one if None.
        message: Of the commit.
        token: With the right to write; HF_TOKEN or the stored login if None.

    Returns:
        The address of the published model.

    Raises:
        InvalidArgumentError: If the name is malformed, or ``private`` but published for all.
        ModelError: If the folder lacks a file.
        FastDPMError: If there is no token, no right, no network, or the hub refuses.
        MissingExtraError: If huggingface_hub is not installed.
    """
    check_installed("huggingface_hub", "huggingface_hub", "hub")
    _check_name(repo_id, revision)
    files = [name for name in MODEL_FILES if (folder / name).is_file()]
    lacking = [name for name in (CONFIG, WEIGHTS, CARD) if name not in files]
    if lacking:
        raise ModelError(f"{folder} is no whole model folder: {' and '.join(lacking)} is missing")
    from huggingface_hub import HfApi, get_token

    so = "so nothing was published"
    with _told(repo_id, revision, so, writing=True), _quiet(bars=True):
        token = token or get_token()
        if not token:
            raise FastDPMError(f"there is no token, {so}: {_LOG_IN} to one that may write")
        api = HfApi(token=token)
        _prepare(api, repo_id, private=private, revision=revision)
        _commit(api, folder, files, repo_id, revision, message or f"Upload {folder.name}")
        address = f"{api.endpoint}/{repo_id}"
    return address if revision is None else f"{address}/tree/{revision}"


def _prepare(api: HfApi, repo: str, *, private: bool, revision: str | None) -> None:
    """See to it that the repository and its branch are there."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private or None, exist_ok=True)
    else:
        if private and not info.private:
            raise InvalidArgumentError(
                f"{repo} is already published for all: make it private at"
                f" {api.endpoint}/{repo}/settings, or choose another name"
            )
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)


def _commit(
    api: HfApi, folder: Path, files: list[str], repo: str, revision: str | None, message: str
) -> None:
    """Put the files into the repository, and out of it what an earlier model left there."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = api.model_info(repo, revision=revision).siblings or []
    stale = [f.rfilename for f in there if f.rfilename in MODEL_FILES and f.rfilename not in files]
    api.create_commit(
        repo,
        operations=[
            *(CommitOperationAdd(name, folder / name) for name in files),
            *(CommitOperationDelete(name) for name in stale),
        ],
        commit_message=message,
        revision=revision,
    )


def _check_name(repo: str, revision: str | None) -> None:
    """Raise InvalidArgumentError for what no hub takes as a name or a revision."""
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise InvalidArgumentError(
            "a model on a hub is named owner/name, of letters, digits, '-', '_' and '.', with"
            f" @revision behind to choose one, got {repo!r}"
        )
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise InvalidArgumentError(
            f"a revision is the name of a branch, a tag or a commit, got {revision!r}"
        )


def _cached(repo: str, revision: str | None) -> Path | None:
    """The whole snapshot of a revision in the cache, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        return None
    names = [name for place in _WEIGHTS for name in place]
    return folder if any((folder / name).is_file() for name in names) else None


def _download(name: str, repo: str, revision: str | None, seconds: float | None) -> Path:
    """Fetch what is missing in the cache; an answer must come in ``seconds``."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    with _quiet(bars=False):
        timeout = seconds or constants.HF_HUB_ETAG_TIMEOUT
        info = HfApi().model_info(repo, revision=revision, timeout=timeout)
        small, weights = _choose(name, repo, [f.rfilename for f in info.siblings or []])
        patterns = [glob.escape(file) for file in small]
        snapshot_download(repo, revision=info.sha, allow_patterns=patterns)
    with _quiet(bars=True):
        for file in weights:
            hf_hub_download(repo, file, revision=info.sha)
    with _quiet(bars=False):
        every = [*patterns, *weights]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=every))


def _choose(name: str, repo: str, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The small files and the weights of a repository that a model needs.

    Raises:
        InvalidArgumentError: If it is a pipeline of several networks, large and of no use here.
        ModelError: If it has no weights that can be read.
    """
    others = [place for place in OTHER_NETWORKS if any(f.startswith(f"{place}/") for f in files)]
    if others:
        raise InvalidArgumentError(
            f"{name} is a pipeline with {' and '.join(others)}, more than a network: open it in"
            " Python by fastdpm.integrations.diffusers"
        )
    present = [[file for file in place if file in files] for place in _WEIGHTS]
    weights = [place[0] for place in present if place]
    if not weights:
        known = [file for file in files if file.endswith(_OTHER_WEIGHTS)]
        rest = f" and {len(known) - 3} more" if len(known) > 3 else ""
        only = f"only {', '.join(known[:3])}{rest}" if known else "no weights at all"
        raise ModelError(
            f"{name} holds neither model.safetensors nor diffusion_pytorch_model.safetensors or"
            f" .bin, but {only}: a published checkpoint opens as a file, fetched by `hf download"
            f" {repo} FILE`"
        )
    return [file for file in files if _SMALL.fullmatch(file)], weights


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Silence the log of huggingface_hub, as each failure is told once, and its ``bars``.

    Bars are only ever drawn on a terminal.
    """
    from huggingface_hub.utils import logging as hub_log
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    terminal = sys.stderr is not None and sys.stderr.isatty()
    with ExitStack() as after:
        after.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        after.callback(hub_log.set_verbosity, hub_log.get_verbosity())
        hub_log.set_verbosity(logging.ERROR)
        if not (bars and terminal) and not are_progress_bars_disabled():
            after.callback(enable_progress_bars)
            disable_progress_bars()
        yield


@contextmanager
def _told(repo: str, revision: str | None, so: str, *, writing: bool) -> Iterator[None]:
    """Tell what a hub or the way to it refuses in one line; ``so`` is what came of it.

    What is ``writing`` fails as FastDPMError; a fetch as InvalidArgumentError where the name is at
    fault, and as ModelError otherwise.
    """
    from huggingface_hub import constants

    try:
        yield
    except FastDPMError:
        raise
    except Exception as error:
        cause = _cause(error)
        reason = _reason(cause)
        if reason is None:
            raise
        kind: type[FastDPMError] = ModelError
        if writing:
            kind = FastDPMError
            reason = "unwritable" if reason in ("missing", "gated", "unreadable") else reason
        elif reason in ("missing", "revision"):
            kind = InvalidArgumentError
        facts = {"repo": repo, "revision": revision, "so": so, "why": _why(cause)}
        line = _MESSAGES[reason].format(where=constants.ENDPOINT, **facts)
        raise kind(line) from None


def _cause(error: Exception) -> Exception:
    """What lies under errors that only say that something went wrong."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    vague, cause = LocalEntryNotFoundError | RuntimeError, error.__cause__
    return _cause(cause) if isinstance(error, vague) and isinstance(cause, Exception) else error


def _reason(error: Exception) -> str | None:
    """A key of the messages; None for what neither a hub nor the network has caused."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if "HfHubHTTPError" in names:
        status = error.response.status_code  # type: ignore[attr-defined]
        names.insert(names.index("HfHubHTTPError"), "5xx" if status >= 500 else str(status))
    for name in names:
        if name in _REASONS:
            return _REASONS[name]
    return "partial" if isinstance(error, OSError) and error.errno is None else None


def _why(error: Exception) -> str:
    """An error in a few words: of a hub its own, of others the beginning."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        said = f", {error.server_message}" if error.server_message else ""
        return f"HTTP {error.response.status_code}{said}"
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _WORDS else f"{words[:_WORDS]}..."
