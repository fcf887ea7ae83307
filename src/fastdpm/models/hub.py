"""The Hugging Face Hub: downloading ``hf:owner/name`` and publishing model folders.

Downloads go to the cache of huggingface_hub, where a file appears only when it is complete. Small
files are downloaded first, then the weights, and the branch is updated last. So a snapshot with
weights is complete, and after an interrupted update the previous snapshot stays in use.
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
from fastdpm.models.formats.diffusers_files import find_weights, unet_part, weights_among
from fastdpm.models.tuned import is_plan_file, tuned_files

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
    r"|([^/]+/)?(config|scheduler_config)\.json|plans/S\d+\.json"
)
_PLAIN_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_OTHER_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".onnx")
_CACHED_TIMEOUT = 3.0  # seconds to wait for the hub if the model is already in the cache

_MAX_CHARACTERS = 200  # of another library's error message

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_MESSAGES = {
    "offline": "HF_HUB_OFFLINE is set, {so}: unset it",
    "network": "{where} cannot be reached, {so}: check the network connection and try again",
    "partial": "the transfer was interrupted ({why}), {so}: try again",
    "missing": f"{{where}} has no model {{repo}}, or it is private: check the name, or {_LOG_IN}",
    "revision": "{repo} has no revision {revision!r}, {so}: drop it, or pass a branch, tag or"
    " commit listed at {where}/{repo}/commits",
    "gated": f"{{repo}} is gated: request access at {{where}}/{{repo}}, then {_LOG_IN}",
    "login": f"{{where}} rejects this token, {{so}}: {_LOG_IN} to a valid token",
    "unreadable": f"this token cannot read {{repo}} on {{where}}: {_LOG_IN} to a token with read"
    " access",
    "unwritable": "this token cannot write to {repo} on {where}, {so}: use a token with write"
    " access, or a name in your own account",
    "busy": "{where} is not available now ({why}), {so}: try again later",
    "refused": "{where} refused {repo}, {so}: {why}",
    "foreign": "{where} does not answer like a hub ({why}), {so}: check HF_ENDPOINT",
}
# By error names and status codes, because huggingface_hub has used three HTTP libraries.
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


def fetch(name: str, variant: str | None = None) -> Path:
    """Download a model, or find it in the cache.

    Of a diffusers pipeline, only the weights of the U-Net are downloaded, as safetensors if
    available. If the hub cannot be reached, the cached model is used. A cached commit needs no
    network.

    Args:
        name: "hf:owner/name" or "hf:owner/name@revision". A revision is a branch, a tag or a
            commit.
        variant: The variant of the weights of a diffusers folder, such as "fp16".

    Returns:
        A model folder, or a diffusers folder, inside the cache.

    Raises:
        InvalidArgumentError: If the name is malformed, or there is no such model, revision or
            variant.
        ModelError: If the model cannot be downloaded, or has no weights that can be read.
        MissingExtraError: If huggingface_hub is not installed.
    """
    check_installed("huggingface_hub", "huggingface_hub", "hub")
    repo, separator, revision_part = name.removeprefix(PREFIX).partition("@")
    _check_name(repo, revision_part if separator else None)
    revision = revision_part or None
    cached = _cached(repo, revision, variant)
    if cached is not None and revision is not None and _COMMIT.fullmatch(revision):
        return cached
    timeout = None if cached is None else _CACHED_TIMEOUT
    try:
        with _one_line_errors(repo, revision, f"so {name} was not downloaded", writing=False):
            return _download(name, repo, revision, variant, timeout)
    except ModelError:
        if cached is None:
            raise
        return cached


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a model folder on the hub, with its tuned plans, in one commit.

    Other files in the folder are ignored.

    Args:
        folder: A complete model folder.
        repo_id: "owner/name". The repository is created if it does not exist.
        private: Create a private repository. If False, a new repository has the default
            visibility of its owner.
        revision: Branch to commit to, created if it does not exist; the main branch if None.
        message: Commit message; "Upload" and the folder's name if None.
        token: A token with write access; HF_TOKEN or the stored login if None.

    Returns:
        The URL of the published model.

    Raises:
        InvalidArgumentError: If the name is malformed, or ``private`` is set for a repository
            that is already public.
        ModelError: If a file of the model folder is missing.
        FastDPMError: If there is no token, the token has no write access, or the hub cannot be
            reached or refuses the upload.
        MissingExtraError: If huggingface_hub is not installed.
    """
    check_installed("huggingface_hub", "huggingface_hub", "hub")
    _check_name(repo_id, revision)
    files = [name for name in MODEL_FILES if (folder / name).is_file()]
    files += [path.relative_to(folder).as_posix() for path in tuned_files(folder).values()]
    missing = [name for name in (CONFIG, WEIGHTS, CARD) if name not in files]
    if missing:
        raise ModelError(
            f"{folder} is not a complete model folder: {' and '.join(missing)} is missing"
        )
    from huggingface_hub import HfApi, get_token

    so = "so nothing was published"
    with _one_line_errors(repo_id, revision, so, writing=True), _quiet(bars=True):
        token = token or get_token()
        if not token:
            raise FastDPMError(f"there is no token, {so}: {_LOG_IN} to a token with write access")
        api = HfApi(token=token)
        _prepare(api, repo_id, private=private, revision=revision)
        _commit(api, folder, files, repo_id, revision, message or f"Upload {folder.name}")
        address = f"{api.endpoint}/{repo_id}"
    return address if revision is None else f"{address}/tree/{revision}"


def _prepare(api: HfApi, repo: str, *, private: bool, revision: str | None) -> None:
    """Create the repository and its branch if they do not exist."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private or None, exist_ok=True)
    else:
        if private and not info.private:
            raise InvalidArgumentError(
                f"{repo} is already public: make it private at"
                f" {api.endpoint}/{repo}/settings, or choose another name"
            )
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)


def _commit(
    api: HfApi, folder: Path, files: list[str], repo: str, revision: str | None, message: str
) -> None:
    """Upload the files; delete files of a model that an earlier version left in the repository."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    existing = [f.rfilename for f in api.model_info(repo, revision=revision).siblings or []]
    ours = [name for name in existing if name in MODEL_FILES or is_plan_file(name)]
    stale = [name for name in ours if name not in files]
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
    """Raise InvalidArgumentError for a malformed repository name or revision."""
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise InvalidArgumentError(
            "the name of a model on a hub must be owner/name or owner/name@revision, of letters,"
            f" digits, '-', '_' and '.', got {repo!r}"
        )
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise InvalidArgumentError(
            f"a revision must be the name of a branch or a tag, or a commit, got {revision!r}"
        )


def _cached(repo: str, revision: str | None, variant: str | None) -> Path | None:
    """The complete snapshot of a revision in the cache, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        return None
    part = unet_part(lambda file: (folder / file).is_file())
    whole = not part and (folder / WEIGHTS).is_file()
    return folder if whole or _is_complete(folder / part, variant) else None


def _is_complete(folder: Path, variant: str | None) -> bool:
    """Whether a folder of diffusers has all files of its weights."""
    try:
        return bool(find_weights(folder, variant).files)
    except FastDPMError:
        return False


def _download(
    name: str, repo: str, revision: str | None, variant: str | None, timeout: float | None
) -> Path:
    """Download the files that the cache lacks; ``timeout`` is in seconds."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    with _quiet(bars=False):
        timeout = timeout or constants.HF_HUB_ETAG_TIMEOUT
        info = HfApi().model_info(repo, revision=revision, timeout=timeout)
        small, weights = _choose(name, repo, [f.rfilename for f in info.siblings or []], variant)
        patterns = [glob.escape(file) for file in small]
        snapshot_download(repo, revision=info.sha, allow_patterns=patterns)
    with _quiet(bars=True):
        for file in weights:
            hf_hub_download(repo, file, revision=info.sha)
    with _quiet(bars=False):
        patterns += weights
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))


def _choose(
    name: str, repo: str, files: Sequence[str], variant: str | None
) -> tuple[list[str], list[str]]:
    """The small files and the weights of a repository that a model needs.

    Raises:
        InvalidArgumentError: If the repository is a pipeline of several networks, or the variant
            is not in it or has to be chosen.
        ModelError: If it has no weights that can be read.
    """
    others = [part for part in OTHER_NETWORKS if any(f.startswith(f"{part}/") for f in files)]
    if others:
        raise InvalidArgumentError(
            f"{name} is a pipeline with {' and '.join(others)}: open it in Python with"
            " fastdpm.integrations.diffusers.from_pipeline"
        )
    part = unet_part(files.__contains__)
    inside = f"{part}/" if part else ""
    names = [file.removeprefix(inside) for file in files if file.startswith(inside)]
    own = [WEIGHTS] if not part and WEIGHTS in files else []
    if own:  # a model folder, with or without the same weights for diffusers
        names = [file for file in names if file in _PLAIN_WEIGHTS]
    weights = own + [inside + weight for weight in weights_among(name, names, variant)]
    if not weights:
        found = [file for file in files if file.endswith(_OTHER_WEIGHTS)]
        rest = f" and {len(found) - 3} more" if len(found) > 3 else ""
        only = f"only {', '.join(found[:3])}{rest}" if found else "no weights"
        raise ModelError(
            f"{name} holds neither model.safetensors nor diffusion_pytorch_model.safetensors or"
            f" .bin, but {only}: download a published checkpoint with `hf download {repo} FILE`"
            " and open the file"
        )
    return [file for file in files if _SMALL.fullmatch(file)], weights


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Silence the log of huggingface_hub, and its progress bars unless ``bars`` is set.

    Bars are only shown on a terminal.
    """
    from huggingface_hub.utils import logging as hub_log
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    terminal = sys.stderr is not None and sys.stderr.isatty()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(hub_log.set_verbosity, hub_log.get_verbosity())
        hub_log.set_verbosity(logging.ERROR)
        if not (bars and terminal) and not are_progress_bars_disabled():
            stack.callback(enable_progress_bars)
            disable_progress_bars()
        yield


@contextmanager
def _one_line_errors(repo: str, revision: str | None, so: str, *, writing: bool) -> Iterator[None]:
    """Raise a one-line error for a failure of the hub or the network.

    ``so`` states the consequence. An upload raises FastDPMError. A download raises
    InvalidArgumentError if the name is wrong, and otherwise ModelError.
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
        values = {"repo": repo, "revision": revision, "so": so, "why": _why(cause)}
        line = _MESSAGES[reason].format(where=constants.ENDPOINT, **values)
        raise kind(line) from None


def _cause(error: Exception) -> Exception:
    """The underlying error of a general one."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    vague, cause = LocalEntryNotFoundError | RuntimeError, error.__cause__
    return _cause(cause) if isinstance(error, vague) and isinstance(cause, Exception) else error


def _reason(error: Exception) -> str | None:
    """A key of ``_MESSAGES``; None for an error that neither the hub nor the network caused."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if "HfHubHTTPError" in names:
        status = error.response.status_code  # type: ignore[attr-defined]
        names.insert(names.index("HfHubHTTPError"), "5xx" if status >= 500 else str(status))
    for name in names:
        if name in _REASONS:
            return _REASONS[name]
    return "partial" if isinstance(error, OSError) and error.errno is None else None


def _why(error: Exception) -> str:
    """An error in a few words: the hub's own message, or the beginning of another one."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        detail = f", {error.server_message}" if error.server_message else ""
        return f"HTTP {error.response.status_code}{detail}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."
