"""Uploading an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.pretrained_files import first_line, hub_is_reachable


def check(repository: str, private: bool) -> None:
    """ConfigError before any work if nothing can be uploaded to `repository` (USER/NAME) from here: no hub, no token, a
    repository that everybody can see where `private` is asked for."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if not hub_is_reachable():
        raise ConfigError(
            f"push={repository}: the Hugging Face hub cannot be reached from here",
            "export without push=, and later: hf upload USER/NAME DIRECTORY",
        )
    if get_token() is None:
        raise ConfigError(f"push={repository}: nobody is logged in to the Hugging Face hub", "hf auth login")
    try:
        found = HfApi().repo_info(repository) if HfApi().repo_exists(repository) else None
    except HfHubHTTPError as error:
        raise ConfigError(f"push={repository}: {first_line(error)}", "is the token valid? hf auth login") from error
    if found is not None and private and not found.private:
        raise ConfigError(f"push={repository} is there and everybody can see it", "private=false if that is meant")


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload `folder` as one commit, creating the repository if need be; returns its address."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repository, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload by lmctl export")
    except Exception as error:  # HTTP libraries, the hub's own
        raise LmctlError(
            f"push={repository}: the upload failed: {first_line(error)}",
            f"the export itself is whole; again: hf upload {repository} {folder}",
        ) from error
    return f"https://huggingface.co/{repository}"
